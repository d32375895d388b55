package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"

	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
)

// clientSources is the namespace of modules that know clients.
const clientSources = "token_revocation.clients"

// ClientSource is what a guest module in the namespace token_revocation.clients
// implements, so that clients can come from elsewhere than the configuration: a
// database, or the registry of an authorization server.
//
// Client is called for each request to an endpoint, so that a source should keep
// a cache. It returns a client that [oauth.NewClient] made, with an Issuer that
// is configured; an error that wraps [oauth.ErrUnknownClient] if there is none;
// or any other error if it can't tell, which is answered with 503. Sources are
// asked in the order of the configuration, after the clients in the
// configuration itself and in files; the first one that knows the id counts, and
// one that can't tell ends the search.
//
// A source may also implement
//
//   - [ClientSourceStarter], to connect when the config starts and not when it
//     is provisioned;
//   - caddy.CleanerUpper, to release what it holds;
//   - [oauth.IssuerStore], if one id may be registered at several issuers;
//   - [oauth.DecoyStore], if its clients have other secrets than bcrypt hashes:
//     unknown clients take as long to refuse as the decoys say;
//   - [oauth.MethodLister], so that metadata names how its clients authenticate;
//   - caddyfile.Unmarshaler, for the option clients in the Caddyfile.
type ClientSource interface {
	oauth.ClientStore
}

// ClientSourceStarter is for a [ClientSource] that needs a network or a
// goroutine. Start must not wait for the network. It is called once, and
// followed by Cleanup.
type ClientSourceStarter interface {
	Start() error
}

// listedSource is a source whose clients are known one by one, such as a file.
// They are part of the registry's own list.
type listedSource interface {
	ClientSource
	bind(*App) error
	status() clientFileStatus
}

// guestClients is a source that has to be asked.
type guestClients struct {
	name  string
	store ClientSource
	decoy func(id string) *oauth.Client
	// unknownIssuer is logged once: it concerns a client, not a request.
	unknownIssuer sync.Once
}

// clientRegistry knows the clients of all sources.
type clientRegistry struct {
	app    *App
	logger *zap.Logger
	guests []*guestClients
	seed   maphash.Seed

	// listed are the clients of the configuration and of all files.
	listed atomic.Pointer[oauth.StaticClients]

	mu     sync.Mutex
	layers []*clientLayer
	served [][]string // the issuers of each endpoint; empty for all
}

// clientLayer is one place in which clients are listed.
type clientLayer struct {
	name    string // for errors
	clients []*oauth.Client
}

func newClientRegistry(a *App) *clientRegistry {
	r := &clientRegistry{app: a, logger: a.logger, seed: maphash.MakeSeed()}
	r.listed.Store(new(oauth.StaticClients))
	return r
}

// replace puts the clients of a layer in the place of those that it had before.
// It changes nothing if one of them is listed elsewhere, too: which of the two
// were meant would depend on the order. Nor if an endpoint in use could not tell
// them apart.
func (r *clientRegistry) replace(layer *clientLayer, clients []*oauth.Client) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []oauth.Client
	type key struct{ issuer, id string }
	where := make(map[key]string)
	add := func(name string, clients []*oauth.Client) error {
		for _, c := range clients {
			k := key{c.Issuer, c.ID}
			if first, found := where[k]; found {
				if first == name {
					return fmt.Errorf("client %s of issuer %s is given twice in %s", c.ID, c.Issuer, name)
				}
				return fmt.Errorf("client %s of issuer %s is given in %s and in %s: remove one of them", c.ID, c.Issuer, first, name)
			}
			where[k] = name
			all = append(all, *c)
		}
		return nil
	}
	for _, l := range r.layers {
		if l == layer {
			continue
		}
		if err := add(l.name, l.clients); err != nil {
			return err
		}
	}
	if err := add(layer.name, clients); err != nil {
		return err
	}
	merged, err := oauth.NewStaticClients(all...)
	if err != nil {
		return err
	}
	for _, issuers := range r.served {
		if id := ambiguous(merged, issuers); id != "" {
			// The endpoint could not tell any more which one is meant, and would
			// refuse the one that it has served so far.
			return fmt.Errorf("client %s would be registered at several issuers of one endpoint", id)
		}
	}
	layer.clients = clients
	if !slices.Contains(r.layers, layer) {
		r.layers = append(r.layers, layer)
	}
	r.listed.Store(merged)
	return nil
}

// Client implements [oauth.ClientStore].
func (r *clientRegistry) Client(ctx context.Context, id string) (*oauth.Client, error) {
	return r.find(ctx, id, nil, r.listed.Load())
}

// find looks in the list and then asks the guests. Without issuers, those of all
// are meant.
func (r *clientRegistry) find(ctx context.Context, id string, issuers []string, list oauth.ClientStore) (*oauth.Client, error) {
	client, err := list.Client(ctx, id)
	if !errors.Is(err, oauth.ErrUnknownClient) {
		return client, err
	}
	for _, g := range r.guests {
		var store oauth.ClientStore = g.store
		if of, ok := store.(oauth.IssuerStore); ok && len(issuers) > 0 {
			store = of.Of(issuers...)
		}
		client, err := store.Client(ctx, id)
		switch {
		case errors.Is(err, oauth.ErrUnknownClient):
			continue
		case err != nil:
			return nil, fmt.Errorf("asking the client source %s: %w", g.name, err)
		case client == nil:
			return nil, fmt.Errorf("asking the client source %s: it returned nothing", g.name)
		case !r.app.knowsIssuer(client.Issuer):
			g.unknownIssuer.Do(func() {
				r.logger.Error("client source knows a client of an issuer that is not configured",
					zap.String("source", g.name), zap.String("client_id", client.ID), zap.String("issuer", client.Issuer))
			})
			continue
		case len(issuers) > 0 && !slices.Contains(issuers, client.Issuer):
			continue
		}
		return client, nil
	}
	return nil, oauth.ErrUnknownClient
}

// Decoy implements [oauth.DecoyStore]: each source stands for its share of the
// unknown ids.
func (r *clientRegistry) Decoy(id string) *oauth.Client {
	listed := r.listed.Load().Decoy(id)
	n := len(r.guests)
	if listed != nil {
		n++
	}
	if n == 0 {
		return nil
	}
	if i := int(maphash.String(r.seed, id) % uint64(n)); i < len(r.guests) {
		return r.guests[i].decoy(id)
	}
	return listed
}

// Of implements [oauth.IssuerStore].
func (r *clientRegistry) Of(issuers ...string) oauth.ClientStore {
	return &issuerView{registry: r, issuers: issuers}
}

// issuerView are the registry's clients of some issuers.
type issuerView struct {
	registry *clientRegistry
	issuers  []string
	cached   atomic.Pointer[cachedView]
}

type cachedView struct {
	of   *oauth.StaticClients
	list oauth.ClientStore
}

// Client implements [oauth.ClientStore].
func (v *issuerView) Client(ctx context.Context, id string) (*oauth.Client, error) {
	listed := v.registry.listed.Load()
	cached := v.cached.Load()
	if cached == nil || cached.of != listed {
		cached = &cachedView{listed, listed.Of(v.issuers...)}
		v.cached.Store(cached)
	}
	return v.registry.find(ctx, id, v.issuers, cached.list)
}

// Decoy implements [oauth.DecoyStore].
func (v *issuerView) Decoy(id string) *oauth.Client { return v.registry.Decoy(id) }

// serve notes that an endpoint serves the clients of these issuers, all without
// any. It returns an id that is listed at several of them, or "".
func (r *clientRegistry) serve(issuers []string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	id := ambiguous(r.listed.Load(), issuers)
	if id == "" {
		r.served = append(r.served, issuers)
	}
	return id
}

// ambiguous returns an id that is listed at several of the issuers, or "".
// Without issuers, all are meant.
func ambiguous(clients *oauth.StaticClients, issuers []string) string {
	seen := make(map[string]bool)
	for c := range clients.All() {
		if len(issuers) > 0 && !slices.Contains(issuers, c.Issuer) {
			continue
		}
		if seen[c.ID] {
			return c.ID
		}
		seen[c.ID] = true
	}
	return ""
}

// AuthMethods implements [oauth.MethodLister]. Guests that do not implement it
// are left out: what their clients may do is not known.
func (r *clientRegistry) AuthMethods(issuer string) (methods []oauth.AuthMethod, algorithms []string) {
	methods, algorithms = r.listed.Load().AuthMethods(issuer)
	for _, g := range r.guests {
		if lister, ok := g.store.(oauth.MethodLister); ok {
			m, a := lister.AuthMethods(issuer)
			methods, algorithms = append(methods, m...), append(algorithms, a...)
		}
	}
	slices.Sort(methods)
	slices.Sort(algorithms)
	return slices.Compact(methods), slices.Compact(algorithms)
}

// count returns how many clients a layer has.
func (r *clientRegistry) count(layer *clientLayer) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(layer.clients)
}

// clientFiles returns the state of the clients files.
func (a *App) clientFiles() []clientFileStatus {
	files := make([]clientFileStatus, 0, len(a.listedSources))
	for _, source := range a.listedSources {
		files = append(files, source.status())
	}
	return files
}

// provisionClients makes the registry of the clients in the config and of all
// sources. It reads files and makes no connection.
func (a *App) provisionClients(repl *caddy.Replacer) error {
	var err error
	if a.guard, err = takeGuard(); err != nil {
		return err
	}
	a.registry = newClientRegistry(a)
	a.clients = a.registry
	if err := a.provisionListed(repl); err != nil {
		return err
	}
	guests, err := a.ctx.LoadModule(a, "ClientSourcesRaw")
	if err != nil {
		return fmt.Errorf("loading client sources: %w", err)
	}
	loaded, _ := guests.([]any)
	for _, guest := range loaded {
		source, ok := guest.(ClientSource)
		if !ok {
			return fmt.Errorf("client source %T is no ClientSource", guest)
		}
		if listed, ok := source.(listedSource); ok {
			if err := listed.bind(a); err != nil {
				return err
			}
			a.listedSources = append(a.listedSources, listed)
			continue
		}
		name := fmt.Sprintf("%T", guest)
		if module, ok := guest.(caddy.Module); ok {
			name = string(module.CaddyModule().ID)
		}
		a.registry.guests = append(a.registry.guests, &guestClients{name: name, store: source, decoy: oauth.DecoyOf(source)})
	}
	a.clientGuests = loaded
	if currentApp() != nil {
		// As for issuers: a config that replaces another one serves at once.
		a.clientKeys.start()
	}
	return registerClientMetrics(a)
}

func (a *App) provisionListed(repl *caddy.Replacer) error {
	var clients []*oauth.Client
	for i := range a.Clients {
		client, err := a.client(&a.Clients[i], repl, &a.clientKeys)
		if err != nil {
			return fmt.Errorf("client %s: %w", a.Clients[i].ID, err)
		}
		clients = append(clients, client)
	}
	return a.registry.replace(&clientLayer{name: "the configuration"}, clients)
}

// setClients sets what an endpoint authenticates clients with. The issuers that
// it is for have to be set.
func (a *App) setClients(o *oauth.EndpointOptions) error {
	if id := a.registry.serve(o.Issuers); id != "" {
		return fmt.Errorf("client %s is registered at several issuers: "+
			"say which one this endpoint is for with an issuer line", id)
	}
	o.Clients = a.clients
	o.Guard = a.guard
	o.Assertions = usedAssertions{a.replica}
	o.AssertionAudiences = a.AssertionAudiences
	return nil
}

// startClients begins to load keys and to watch files.
func (a *App) startClients() error {
	a.clientKeys.start()
	for _, source := range a.clientGuests {
		if s, ok := source.(ClientSourceStarter); ok {
			if err := s.Start(); err != nil {
				return fmt.Errorf("starting the client source %T: %w", source, err)
			}
		}
	}
	return nil
}

// releaseClients gives back what provisionClients took.
func (a *App) releaseClients() error {
	err := a.clientKeys.release()
	if a.guard != nil {
		err = errors.Join(err, releaseGuard())
		a.guard = nil
	}
	return err
}

// Interface guards
var (
	_ oauth.DecoyStore   = (*clientRegistry)(nil)
	_ oauth.IssuerStore  = (*clientRegistry)(nil)
	_ oauth.MethodLister = (*clientRegistry)(nil)
	_ oauth.DecoyStore   = (*issuerView)(nil)
)
