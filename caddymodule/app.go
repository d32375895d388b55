package caddymodule

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
	"github.com/edge-revocation/caddy-token-revocation/revocation/ledger"
	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
)

func init() {
	caddy.RegisterModule(new(App))
}

// appID is the app's name in Caddy's config.
const appID = "token_revocation"

// App knows which tokens are revoked. It keeps the ledger of revocations (a NATS
// JetStream stream), a copy of it in memory that requests are checked against,
// the issuers whose tokens are trusted, and the clients that may revoke.
//
// The `token_revocation` handler serves the revocation endpoint; the
// `token_denylist` handler refuses revoked tokens. Both use this app; neither
// needs a setting of its own.
//
// What the app holds survives config reloads: a reload, also one that fails,
// neither empties nor pauses the denylist.
type App struct {
	// Where revocations are kept. Default: a NATS server inside this process,
	// storing in Caddy's data directory.
	Ledger *LedgerConfig `json:"ledger,omitempty"`

	// The authorization servers whose tokens are accepted. A token of any other
	// issuer is refused.
	Issuers []issuer.Config `json:"issuers,omitempty"`

	// The OAuth clients that may use the revocation endpoint.
	Clients []ClientConfig `json:"clients,omitempty"`

	// Where further clients come from: {"source": "file", "path": "…"} for a file
	// that is watched, or a module that was added to this Caddy. They are asked
	// in this order, after the clients above. A client that is listed twice is an
	// error.
	ClientSourcesRaw []json.RawMessage `json:"client_sources,omitempty" caddy:"namespace=token_revocation.clients inline_key=source"`

	// What the aud of a client's assertion (private_key_jwt, client_secret_jwt)
	// may be besides the client's issuer: for clients that send the URL of the
	// endpoint that they call, or of the token endpoint, as was usual before the
	// update of RFC 7523. Default: the issuer only.
	AssertionAudiences []string `json:"assertion_audiences,omitempty"`

	// How many revocations this edge holds at most. Default: 1,000,000. An edge
	// that can't hold one says so and is incomplete until that one ends; it
	// never forgets silently.
	MaxEntries int `json:"max_entries,omitempty"`

	// How many of them one client of the revocation endpoint may have recorded
	// at a time, so that none can fill the denylist. Default: a quarter of
	// max_entries; negative: no quota.
	ClientQuota int `json:"client_quota,omitempty"`

	// The size of the cache of tokens seen, in bytes. It only saves work: what
	// it forgets is parsed and verified again. Default: 16 MiB.
	CacheBytes int64 `json:"cache_bytes,omitempty"`

	// How long after its exp a token may still be accepted anywhere: by this
	// edge or an upstream with a slow clock or a leeway of its own. Revocations
	// are kept for this much longer. Default: 5m.
	Leeway caddy.Duration `json:"leeway,omitempty"`

	// How long a cutoff ("all of alice's tokens issued up to now") is kept at
	// least. It is never kept for less than the issuer's max_token_lifetime.
	// Default: 168h (7 days).
	Retention caddy.Duration `json:"retention,omitempty"`

	// How far an issuer's clock may be ahead of this one. A cutoff is set this
	// much later, so that a token issued just before it can't slip through; a
	// token issued within this time after it is denied as well. Whole seconds;
	// negative: none. Default: 2s.
	IssuerSkew caddy.Duration `json:"issuer_skew,omitempty"`

	// What happens when this edge can't tell any more whether its denylist is
	// complete. Each token_denylist may have a policy of its own.
	Stale *StalePolicy `json:"stale,omitempty"`

	ctx     caddy.Context
	logger  *zap.Logger
	metrics *metrics
	events  *caddyevents.App

	ledger  *resolvedLedger
	replica *replica
	service *revocation.Service
	trusted *issuer.Set

	clients       oauth.ClientStore // the registry
	registry      *clientRegistry
	guard         *oauth.Guard
	clientKeys    keyHolder
	clientGuests  []any          // all modules that know clients
	listedSources []listedSource // those whose clients are listed

	mu       sync.Mutex
	source   *source // the ledger that was opened, to be released
	attached bool    // the replica was told to follow it

	holdsReplica  bool
	issuers       []*issuer.Issuer
	issuerDigests []string // the references taken, to be released
	development   *issuer.Issuer

	introspectors       []*issuer.Introspector // of those issuers that are asked
	introspectorDigests []string               // the references taken, to be released
	purger              *purger                // nil if there are none
}

// StalePolicy says what happens to requests while an edge has not heard from
// the ledger for too long.
type StalePolicy struct {
	// How long ago the newest proof of contact may be. Default: 60s. The state
	// is visible (status, metrics, log) from 15 s on.
	MaxAge caddy.Duration `json:"max_age,omitempty"`

	// Let requests through when the denylist is stale or incomplete: tokens
	// revoked meanwhile are accepted. The default refuses with 503.
	FailOpen bool `json:"fail_open,omitempty"`
}

const defaultMaxAge = caddy.Duration(60 * time.Second)

// CaddyModule returns the Caddy module information.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  appID,
		New: func() caddy.Module { return new(App) },
	}
}

// configuredApp returns the app that a handler needs.
func configuredApp(ctx caddy.Context) (*App, error) {
	app, err := ctx.AppIfConfigured(appID)
	if errors.Is(err, caddy.ErrNotConfigured) {
		return nil, errors.New("the global option token_revocation is missing: " +
			"it says which issuers to trust and where revocations are kept")
	}
	if err != nil {
		return nil, err
	}
	return app.(*App), nil
}

// Provision fills in defaults and takes hold of the shared state. It makes no
// connection and opens no store: `caddy validate` runs it.
func (a *App) Provision(ctx caddy.Context) error {
	a.ctx = ctx
	a.logger = ctx.Logger()
	if a.Stale == nil {
		a.Stale = &StalePolicy{}
	}
	if a.Stale.MaxAge == 0 {
		a.Stale.MaxAge = defaultMaxAge
	}

	events, err := ctx.App("events")
	if err != nil {
		return fmt.Errorf("loading the events app: %w", err)
	}
	a.events = events.(*caddyevents.App)

	repl := caddy.NewReplacer()
	if a.ledger, err = a.Ledger.resolve(repl); err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	if err := a.provisionIssuers(repl); err != nil {
		return err
	}
	if err = a.provisionClients(repl); err != nil {
		return err
	}
	a.replica, err = takeReplica(a.ledger.stream(), newDenylistLimits(a.MaxEntries, a.ClientQuota, a.CacheBytes))
	if err != nil {
		return err
	}
	a.holdsReplica = true
	a.service = revocation.NewService(oauth.TimeLedger(a.replica), a.replica, revocation.Policy{
		Leeway:           time.Duration(a.Leeway),
		Retention:        time.Duration(a.Retention),
		IssuerSkew:       time.Duration(a.IssuerSkew),
		MaxTokenLifetime: a.maxTokenLifetime,
	}, nil)
	if len(a.introspectors) > 0 {
		a.purger = newPurger(a.replica.denylist, a.introspectors)
	}
	a.metrics = a.replica.metrics
	if err := registerIntrospectionMetrics(a); err != nil {
		return err
	}
	return a.metrics.register(ctx.GetMetricsRegistry())
}

func (a *App) provisionIssuers(repl *caddy.Replacer) error {
	for i := range a.Issuers {
		config := a.Issuers[i]
		err := replaceAll(repl, &config.HMACSecret, &config.Discovery, &config.JWKSURI, &config.JWKSFile)
		if err != nil {
			return fmt.Errorf("issuer %s: %w", config.Issuer, err)
		}
		introspection := config.Introspection
		config.Introspection = nil // outlives the issuer, or not, by itself
		digest := digestOf(config)
		iss, err := takeIssuer(digest, func() (*issuer.Issuer, error) { return a.newIssuer(config) })
		if err != nil {
			return fmt.Errorf("issuer %s: %w", config.Issuer, err)
		}
		if currentApp() != nil {
			// A config is being replaced, and requests come to this one as soon as
			// its servers start, perhaps before Start: an issuer whose settings
			// changed must have its kept keys by then.
			iss.Start()
		}
		a.issuers = append(a.issuers, iss)
		a.issuerDigests = append(a.issuerDigests, digest)
		if config.Development {
			a.development = iss
		}
		if err := a.provisionIntrospection(repl, iss, digest, introspection); err != nil {
			return fmt.Errorf("issuer %s: %w", config.Issuer, err)
		}
	}
	leeway := cmp.Or(time.Duration(a.Leeway), revocation.DefaultLeeway)
	for _, i := range a.issuers {
		if leeway < i.Leeway() {
			return fmt.Errorf("leeway %s is shorter than the leeway %s of issuer %s: "+
				"a revocation would end while its token is still accepted; raise the one or lower the other",
				leeway, i.Leeway(), i.Name())
		}
	}
	var err error
	a.trusted, err = issuer.NewSet(a.issuers...)
	return err
}

func digestOf(v any) string {
	h := sha256.New()
	_ = json.NewEncoder(h).Encode(v)
	return hex.EncodeToString(h.Sum(nil))
}

func (a *App) maxTokenLifetime(iss string) time.Duration {
	switch i, found := a.trusted.Issuer(iss); {
	case !found:
		return 0
	case i.Config().AllowMissingExpiry:
		return revocation.MaxRetention // its tokens may live for ever
	default:
		return i.MaxTokenLifetime()
	}
}

// Validate checks what only makes sense as a whole.
func (a *App) Validate() error {
	if a.MaxEntries < 0 || a.CacheBytes < 0 {
		return errors.New("max_entries and cache must not be negative")
	}
	if a.Leeway < 0 || a.Retention < 0 || a.Stale.MaxAge < 0 {
		return errors.New("leeway, retention and the staleness bound must not be negative")
	}
	if caddy.Duration(time.Duration(a.IssuerSkew).Truncate(time.Second)) != a.IssuerSkew {
		return errors.New("issuer_skew must be whole seconds: tokens carry iat in whole seconds")
	}
	return nil
}

// Start opens the ledger and begins to follow it and to load keys. It waits for
// neither: until the first sync, protected routes answer 503.
func (a *App) Start() error {
	l, err := takeLedger(a.ledger, a.metrics.published)
	if err != nil {
		return fmt.Errorf("opening the ledger: %w", err)
	}
	for _, i := range a.issuers {
		i.Start()
	}
	if a.ledger.standalone() {
		a.logger.Warn("this edge is standalone: its ledger is embedded and does not listen, "+
			"so that no other edge learns of its revocations; add listen, or use nats, for a fleet",
			zap.String("store_dir", a.ledger.Embedded.StoreDir))
	}
	if e := a.ledger.Embedded; e != nil && e.Listen != "" && len(e.Users) == 0 {
		a.logger.Warn("the embedded ledger has no users: every program on this machine "+
			"can revoke tokens and undo revocations; add user lines to restrict it",
			zap.String("listen", e.Listen))
	}
	a.mu.Lock()
	a.source = &source{
		ledger:     l,
		embedded:   a.ledger.Embedded != nil,
		servers:    a.ledger.servers(),
		checkpoint: a.ledger.checkpointFile(),
		place:      a.ledger.place(),
	}
	a.mu.Unlock()
	if err := a.startClients(); err != nil {
		return err
	}
	before := currentApp()
	appStarted(a)
	// A config that is replaced keeps its ledger until it is stopped: this one
	// may still fail to load, and must not have changed what is followed. A
	// denylist of its own (another stream) is nobody else's.
	if before == nil || before.replica != a.replica || before.opened() == l {
		a.follow()
	}
	return nil
}

// opened returns the ledger that this config has opened, or nil.
func (a *App) opened() *ledger.Ledger {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.source == nil {
		return nil
	}
	return a.source.ledger
}

// follow makes the replica follow this config's ledger.
func (a *App) follow() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.source != nil && !a.attached {
		a.replica.attach(a.source)
		a.attached = true
	}
}

// Stop does nothing that could make requests wait: what is shared is released
// by Cleanup, when no request of this config is left.
func (a *App) Stop() error {
	appStopped(a)
	if next := currentApp(); next != nil {
		next.follow()
	}
	return nil
}

// Cleanup releases what this instance took, however far it came.
func (a *App) Cleanup() error {
	var errs []error
	appStopped(a)
	a.mu.Lock()
	source, attached := a.source, a.attached
	a.source, a.attached = nil, false
	a.mu.Unlock()
	if attached {
		a.replica.detach(source)
	}
	if source != nil {
		errs = append(errs, releaseLedger(a.ledger))
	}
	if a.holdsReplica {
		errs = append(errs, releaseReplica(a.ledger.stream()))
		a.holdsReplica = false // the replica itself stays: requests may still be in flight
	}
	a.purger.close()
	a.purger = nil
	for _, digest := range a.introspectorDigests {
		errs = append(errs, releaseIntrospector(digest))
	}
	a.introspectorDigests = nil
	for _, digest := range a.issuerDigests {
		errs = append(errs, releaseIssuer(digest))
	}
	a.issuerDigests = nil
	errs = append(errs, a.releaseClients())
	return errors.Join(errs...)
}

// emit dispatches a Caddy event from this app's config.
func (a *App) emit(name string, data map[string]any) {
	if a.events != nil {
		a.events.Emit(a.ctx, name, data)
	}
}

// identify turns a presented token into what revocations are matched with.
func (a *App) identify(ctx context.Context, token string, req issuer.Request) (*revocation.Identity, error) {
	id, _, err := a.trusted.Identify(ctx, token, req)
	return id, err
}

// generation stamps cached identities: it changes with the set of issuers, with
// how each reads and verifies tokens, and with its keys. What was verified under
// another one is verified again.
func (a *App) generation() uint64 {
	var sum uint64
	for _, i := range a.issuers {
		sum += i.Generation()
	}
	return sum
}

// Interface guards
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.Validator    = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
