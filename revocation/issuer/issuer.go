package issuer

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Options are what an [Issuer] needs besides its [Config].
type Options struct {
	// Store keeps keys for the next start; nil keeps none. A development issuer
	// needs one.
	Store Store
	// Client fetches keys and metadata. Its redirect policy is replaced: none
	// are followed. Nil means a client with timeouts and the system's roots.
	Client *http.Client
	// Now is the clock that tokens are judged by; nil means [time.Now].
	Now func() time.Time
	// Logger may be nil.
	Logger *slog.Logger
}

// Issuer is one trusted token issuer with its keys. All methods are safe for
// concurrent use.
type Issuer struct {
	config   Config // with preset and defaults
	store    Store
	now      func() time.Time
	logger   *slog.Logger
	algs     []jose.SignatureAlgorithm
	types    typePolicy
	claims   claimMap
	identity uint64 // hash of what makes cached identities comparable
	source   string // what the kept keys belong to
	keys     *keyring
	minter   *minter // of a development issuer
	start    sync.Once
}

// New returns the issuer that c describes. It checks c and does no I/O: until
// [Issuer.Start] there are no keys, unless the key is an HMAC secret.
func New(c Config, o Options) (*Issuer, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := c.validate(); err != nil {
		return nil, err
	}
	i := &Issuer{
		config: c,
		store:  o.Store,
		now:    o.Now,
		logger: o.Logger,
		types:  newTypePolicy(c.Types, c.RefreshTypes),
		claims: newClaimMap(c.Claims),
		keys:   newKeyring(),
	}
	for _, alg := range c.Algorithms {
		i.algs = append(i.algs, jose.SignatureAlgorithm(alg))
	}
	if i.now == nil {
		i.now = time.Now
	}
	if i.logger == nil {
		i.logger = slog.New(slog.DiscardHandler)
	}
	i.logger = i.logger.With("issuer", c.Issuer)
	if err := i.stamp(); err != nil {
		return nil, err
	}
	return i, i.connect(o)
}

// stamp computes what identities that were made and verified by this issuer
// depend on, keys apart.
func (i *Issuer) stamp() error {
	c := i.config
	i.source = base64.RawURLEncoding.EncodeToString(
		fmt.Appendf(nil, "%x", hash64(c.Discovery, c.JWKSURI, c.JWKSFile)))
	// Neither where keys come from nor how often they are fetched changes what
	// a verified token is.
	c.Discovery, c.JWKSURI, c.JWKSFile, c.Preset = "", "", "", ""
	c.RefreshInterval, c.KeyRetention, c.AllowHTTP, c.Introspection = 0, 0, false, nil
	c.Aliases = slices.Sorted(slices.Values(c.Aliases))
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	i.identity = hash64(string(text))
	return nil
}

// connect sets up where the keys come from.
func (i *Issuer) connect(o Options) error {
	k := i.keys
	k.logger, k.now = i.logger, i.now
	k.retention = time.Duration(i.config.KeyRetention)
	k.every = time.Duration(i.config.RefreshInterval)
	k.distrust = func(key *key) bool { return slices.Contains(i.config.DistrustedKeys, key.thumbprint) }
	skip := skipLogger(i.logger)
	switch i.config.source() {
	case fromSecret:
		keys := []*key{{public: secret(i.config.HMACSecret)}}
		k.current.Store(newKeySet(keys, i.now()))
		return nil
	case fromDevelopment:
		return i.developmentKeys()
	case fromNowhere:
		return nil
	case fromFile:
		k.load = (&file{path: i.config.JWKSFile, skip: skip}).load
		k.every = jwksFilePoll
	case fromURI, fromDiscovery:
		k.load = (&fetcher{config: i.config, client: newClient(o.Client), skip: skip}).load
		k.bounded = true
	}
	if i.store != nil {
		k.save = func(ctx context.Context, s *keySet) error {
			return saveKeys(ctx, i.store, i.config.Issuer, i.source, s)
		}
	}
	return nil
}

// skipLogger logs which keys of a set are not used, once per finding.
func skipLogger(logger *slog.Logger) func([]string) {
	var last []string
	return func(skipped []string) {
		if !slices.Equal(skipped, last) && len(skipped) > 0 {
			logger.Warn("some published keys are not used", "keys", skipped)
		}
		last = skipped
	}
}

// Start loads the keys that are in a file or were kept in the store, which takes
// at most a few seconds, and begins to load and renew the issuer's keys in the
// background. It never waits for the network. On an issuer that is started already, which a
// reload may share, it only repeats the warning of a development issuer.
func (i *Issuer) Start() {
	if i.config.Development {
		i.logger.Warn("this is a development issuer: it signs tokens for whoever administers this server, never use it in production")
	}
	i.start.Do(func() {
		if i.keys.load == nil {
			return
		}
		if !i.loadLocal() {
			i.restoreKeys()
		}
		i.keys.start()
	})
}

// loadLocal loads keys that are on this machine, so that they are there from the
// first request on, and so that a key which was removed from a file meanwhile
// does not come back with the kept ones.
func (i *Issuer) loadLocal() bool {
	if s := i.config.source(); s != fromFile && s != fromDevelopment {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	return i.keys.loadNow(ctx)
}

// restoreKeys makes the keys current that were kept in the store.
func (i *Issuer) restoreKeys() {
	if i.keys.save == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	now := i.now()
	kept, err := loadKeys(ctx, i.store, i.config.Issuer, i.source, now, i.keys.retention)
	if err != nil {
		i.logger.Warn("loading kept issuer keys", "error", err)
		return
	}
	if kept == nil {
		return
	}
	trusted := slices.DeleteFunc(kept.keys, i.keys.distrust)
	i.keys.current.Store(newKeySet(trusted, kept.loaded))
	i.logger.Info("using kept issuer keys until new ones are loaded", "keys", len(trusted), "age", now.Sub(kept.loaded))
}

// Stop ends all background work and waits for it. The issuer still verifies with
// the keys that it has.
func (i *Issuer) Stop() { i.keys.stop() }

// Name returns the issuer's main spelling, the one that identities carry.
func (i *Issuer) Name() string { return i.config.Issuer }

// Config returns the configuration with preset and defaults written out. It
// holds the HMAC secret, if there is one.
func (i *Issuer) Config() Config { return i.config }

// MaxTokenLifetime returns the longest life of the issuer's access tokens.
func (i *Issuer) MaxTokenLifetime() time.Duration { return time.Duration(i.config.MaxTokenLifetime) }

// Leeway returns for how long after exp the issuer's tokens still pass.
func (i *Issuer) Leeway() time.Duration { return time.Duration(i.config.Leeway) }

// Ready tells whether there is at least one key to verify with, or none needed.
func (i *Issuer) Ready() bool { return i.config.Opaque || len(i.keys.current.Load().keys) > 0 }

// Generation changes whenever an identity that was made and verified before
// might be made differently, or not be verified, now: with the configuration of
// claims, algorithms and checks, and with the set of keys. Equal configurations
// with equal keys have the same generation, also in two instances, so that a
// cache of identities survives a reload. It is cheap enough for every request.
func (i *Issuer) Generation() uint64 {
	return mix(i.identity, i.keys.current.Load().generation)
}

// mix combines two hashes; the order matters.
func mix(a, b uint64) uint64 {
	x := a*0x9e3779b97f4a7c15 + b
	x ^= x >> 32
	x *= 0xd6e8feb86659fd93
	return x ^ x>>32
}

// KeyStatus describes an issuer's keys for operators.
type KeyStatus struct {
	// Published and Retired count the keys in use that the issuer does and does
	// not publish any more.
	Published, Retired int
	// Loaded is when the published keys were last read from their source; zero
	// if never.
	Loaded time.Time
	// Err is why the last attempt to load keys did not succeed, else nil.
	Err error
	// Thumbprints are those of all keys in use, sorted.
	Thumbprints []string
}

// KeyStatus returns the present state of the issuer's keys.
func (i *Issuer) KeyStatus() KeyStatus { return i.keys.status() }

func (k *keyring) status() KeyStatus {
	set := k.current.Load()
	s := KeyStatus{Published: set.published(), Loaded: set.loaded, Err: k.lastError()}
	s.Retired = len(set.keys) - s.Published
	for _, key := range set.keys {
		if key.thumbprint != "" {
			s.Thumbprints = append(s.Thumbprints, key.thumbprint)
		}
	}
	slices.Sort(s.Thumbprints)
	return s
}
