package oauth

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation/internal/turns"
)

// attempt is what a request presents to authenticate its client.
type attempt struct {
	method AuthMethod
	// credentials are the readings of what was sent: two if HTTP Basic can be
	// read in two ways, otherwise one.
	credentials []credential
	// assertion is the text of a client assertion, if there is one, and token is
	// then what it is to be spent on.
	assertion string
	token     string
	// bare is true if the form has a client_id and nothing else: whether that is
	// enough, or a TLS certificate has to come with it, depends on the client.
	bare bool
}

const (
	descNoClient  = "the client is not authenticated"
	descBadClient = "the client could not be authenticated"
	descNoKeys    = "the keys of the client are unavailable now"
)

// readAttempt finds the one authentication method that the request uses (RFC
// 6749, section 2.3). strict takes HTTP Basic in its form-encoded reading only.
func readAttempt(h http.Header, f form, strict bool) (attempt, *answer) {
	fields := h["Authorization"]
	if len(fields) > 1 {
		return attempt{}, refuse(http.StatusBadRequest, "more than one authorization header")
	}
	header := ""
	if len(fields) == 1 {
		header = trimSpace(fields[0])
	}
	id, secret := f.get(paramClientID), f.get(paramClientSecret)
	assertion, assertionType := f.get(paramClientAssertion), f.get(paramClientAssertionType)

	methods := 0
	for _, used := range []bool{header != "", secret != "", assertion != "" || assertionType != ""} {
		if used {
			methods++
		}
	}
	switch {
	case methods > 1:
		return attempt{}, refuse(http.StatusBadRequest, "more than one client authentication method")
	case header != "":
		return readBasic(header, id, strict)
	case (assertion == "") != (assertionType == ""):
		return attempt{}, refuse(http.StatusBadRequest, "client_assertion and client_assertion_type belong together")
	case assertion != "":
		a, refusal := readAssertionParams(assertion, assertionType, id)
		a.token = f.get(paramToken)
		return a, refusal
	case id == "":
		return attempt{}, invalidClient(descNoClient)
	case secret != "":
		return attempt{method: AuthSecretPost, credentials: []credential{{id, secret}}}, nil
	default:
		return attempt{method: AuthNone, credentials: []credential{{id: id}}, bare: true}, nil
	}
}

// readBasic reads an Authorization header. A client_id next to it in the form is
// not a second method but has to name the same client; another one would let two
// readers of this request see two clients.
func readBasic(header, bodyID string, strict bool) (attempt, *answer) {
	credentials, err := parseBasic(header)
	if err != nil {
		return attempt{}, invalidClient(descBadClient)
	}
	if strict {
		credentials = credentials[:1]
	}
	if bodyID != "" {
		credentials = slices.DeleteFunc(credentials, func(c credential) bool { return c.id != bodyID })
		if len(credentials) == 0 {
			return attempt{}, refuse(http.StatusBadRequest, "client_id differs from the authorization header")
		}
	}
	if credentials[0].id == "" {
		return attempt{}, invalidClient(descNoClient)
	}
	if credentials[0].secret == "" {
		// Mobile libraries send Basic with an empty password for public clients.
		// It says no more than client_id alone, and counts as that.
		return attempt{method: AuthNone, credentials: credentials}, nil
	}
	return attempt{method: AuthSecretBasic, credentials: credentials}, nil
}

// authenticator decides whether an attempt succeeds.
type authenticator struct {
	*Guard

	clients    ClientStore
	decoy      func(id string) *Client
	assertions assertionRules
	maxToken   int
	now        func() time.Time
	retryAfter time.Duration
	log        *slog.Logger
}

// newAuthenticator takes options with their defaults filled in.
func newAuthenticator(o EndpointOptions) *authenticator {
	guard := o.Guard
	if guard == nil {
		guard = NewGuard(GuardOptions{
			FailuresPerMinute: o.FailuresPerMinute,
			HashConcurrency:   o.HashConcurrency,
			HashWait:          o.HashWait,
			VerifiedFor:       o.VerifiedFor,
			Now:               o.Now,
		})
	}
	return &authenticator{
		Guard:      guard,
		clients:    o.Clients,
		decoy:      DecoyOf(o.Clients),
		assertions: newAssertionRules(o),
		maxToken:   o.MaxToken,
		now:        o.Now,
		retryAfter: o.RetryAfter,
		log:        o.Logger,
	}
}

// check is one reading of the credentials with what it is compared with.
type check struct {
	credential
	client *Client // nil: unknown
	target *Client // the client, or a decoy; nil: nothing to compare with
}

// Why an attempt failed, for the log. The client is told nothing of it.
var (
	errNotRegistered = errors.New("the client is unknown, or not registered for this method")
	errWrongSecret   = errors.New("the client is unknown, not registered for this method, or the secret is wrong")
)

// authenticate returns the client of a, or the answer that refuses it. An unknown
// client, a wrong secret or assertion, and a method that the client may not use
// get the same answer after the same work. On success, a has the method that the
// client is registered for. state is that of the TLS connection, nil without TLS.
func (u *authenticator) authenticate(ctx context.Context, a *attempt, state *tls.ConnectionState, from netip.Addr) (*Client, *answer) {
	var j *assertion
	var failure error
	if a.assertion != "" {
		j, failure = u.readAssertion(a)
	}
	keys := u.throttleKeys(*a, from)
	if wait := u.blocked(keys); wait > 0 {
		return nil, throttled(wait)
	}
	var client *Client
	if failure == nil {
		client, failure = u.decide(ctx, a, j, state, from, keys)
	}
	if failure == nil {
		return client, nil
	}
	if refusal, ok := errors.AsType[*answer](failure); ok {
		return nil, refusal
	}
	for _, k := range keys {
		u.throttle.failed(k)
	}
	// The id in the request is anybody's text and is left out.
	u.log.LogAttrs(ctx, slog.LevelDebug, "client not authenticated",
		slog.String("method", string(a.method)), slog.Any("cause", failure))
	return nil, invalidClient(descBadClient)
}

// decide returns the client, an *answer, or why the attempt failed.
func (u *authenticator) decide(
	ctx context.Context, a *attempt, j *assertion, state *tls.ConnectionState, from netip.Addr, keys []throttleKey,
) (*Client, error) {
	checks := make([]check, 0, 2)
	for _, c := range a.credentials {
		client, err := u.lookUp(ctx, c.id)
		if err != nil {
			return nil, err
		}
		checks = append(checks, check{credential: c, client: client})
	}
	switch {
	case j != nil:
		return u.byAssertion(ctx, a, j, checks[0].client)
	case a.method == AuthNone:
		return u.byName(ctx, a, state, checks)
	default:
		return u.bySecret(ctx, a.method, checks, from, keys)
	}
}

// lookUp returns nil for an unknown client. One that another store's author did
// not check is checked here, and is unknown if it contradicts itself: half a
// client must not become a public one.
func (u *authenticator) lookUp(ctx context.Context, id string) (*Client, error) {
	client, err := u.clients.Client(ctx, id)
	switch {
	case errors.Is(err, ErrUnknownClient):
		return nil, nil
	case err != nil || client == nil:
		u.log.LogAttrs(ctx, slog.LevelWarn, "clients cannot be looked up", slog.Any("error", err))
		return nil, unavailable("the clients cannot be looked up now", u.retryAfter)
	case client.ID != id:
		// A store that ignores case, say: what follows compares ids byte by byte.
		return nil, nil
	case client.checked:
		return client, nil
	}
	client, err = NewClient(*client)
	if err != nil {
		u.log.LogAttrs(ctx, slog.LevelError, "client refused", slog.String("client_id", id), slog.Any("error", err))
		return nil, nil
	}
	return client, nil
}

// byName authenticates by the client_id, alone or with a TLS certificate. A
// certificate counts for clients only that are registered for one: others may
// have it for another reason, and are no less public for it.
func (u *authenticator) byName(ctx context.Context, a *attempt, state *tls.ConnectionState, checks []check) (*Client, error) {
	failure := errNotRegistered
	for _, c := range checks {
		switch {
		case c.client == nil:
		case c.client.allows(AuthNone):
			return c.client, nil
		case a.bare && (c.client.allows(AuthTLS) || c.client.allows(AuthSelfSignedTLS)):
			method, err := u.byCertificate(ctx, c.client, state)
			if err == nil {
				a.method = method
				return c.client, nil
			}
			failure = err
		}
	}
	return nil, failure
}

// bySecret authenticates by a secret in the header or in the form.
func (u *authenticator) bySecret(ctx context.Context, method AuthMethod, checks []check, from netip.Addr, keys []throttleKey) (*Client, error) {
	if len(checks[0].secret) > maxSecret {
		return nil, errWrongSecret // before any hash, whoever it is
	}
	slow := false
	for i := range checks {
		c := &checks[i]
		if c.client != nil && c.client.allows(method) && u.remembered(c) {
			return c.client, nil
		}
		c.target = u.target(c)
		slow = slow || c.target != nil && slices.ContainsFunc(c.target.Secrets, Secret.slow)
	}
	if slow {
		release, err := u.hashes.Acquire(ctx, from)
		switch {
		case errors.Is(err, turns.ErrCrowded):
			return nil, tooMany("too many clients authenticate at once from this network", u.retryAfter)
		case err != nil:
			return nil, unavailable("too many clients authenticate at once", u.retryAfter)
		}
		defer release()
		// Others may have failed while this one waited: without a second look,
		// a burst of guesses would all pass the first.
		if wait := u.blocked(keys); wait > 0 {
			return nil, throttled(wait)
		}
	}
	var found *Client
	for i := range checks {
		// No reading is skipped because another one matched: how long the
		// answer takes must not tell which.
		if u.compare(method, &checks[i]) && found == nil {
			found = checks[i].client
		}
	}
	if found == nil {
		return nil, errWrongSecret
	}
	return found, nil
}

// target returns the client whose secrets the presented one is compared with. For
// an unknown client, or a public one that has nothing to compare with, it is a
// decoy, whose verdict is thrown away.
func (u *authenticator) target(c *check) *Client {
	if c.client != nil && len(c.client.Secrets) > 0 {
		return c.client
	}
	return u.decoy(c.id)
}

// compare runs every comparison, whatever the first ones say, and also those
// whose verdict cannot count.
func (u *authenticator) compare(method AuthMethod, c *check) bool {
	if c.target == nil {
		return false
	}
	eligible := c.target == c.client && c.client.allows(method)
	matches := false
	for _, s := range c.target.Secrets {
		if s.verify(c.secret) && eligible {
			matches = true
			u.verified.add(c.id, s, c.secret)
		}
	}
	return matches
}

func (u *authenticator) remembered(c *check) bool {
	return slices.ContainsFunc(c.client.Secrets, func(s Secret) bool {
		return u.verified.has(c.id, s, c.secret)
	})
}

func (u *authenticator) throttleKeys(a attempt, from netip.Addr) []throttleKey {
	if u.throttle == nil {
		return nil
	}
	keys := make([]throttleKey, 0, 2)
	for _, c := range a.credentials {
		if k, ok := throttleKeyOf(c.id, from); ok && !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	return keys
}

func (u *authenticator) blocked(keys []throttleKey) time.Duration {
	var wait time.Duration
	for _, k := range keys {
		wait = max(wait, u.throttle.blocked(k))
	}
	return wait
}
