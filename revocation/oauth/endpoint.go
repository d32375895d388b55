package oauth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// Defaults of [EndpointOptions].
const (
	DefaultRealm             = "token revocation"
	DefaultMaxBody           = 64 << 10 // bytes
	DefaultMaxToken          = 16 << 10 // bytes
	DefaultFailuresPerMinute = 10
	DefaultHashWait          = 3 * time.Second
	DefaultVerifiedFor       = 5 * time.Minute
	DefaultTimeout           = 10 * time.Second
	DefaultRetryAfter        = 5 * time.Second
)

// EndpointOptions configure an [Endpoint]. Clients, Tokens and Revoker are
// required; everything else has a default.
type EndpointOptions struct {
	// Clients are the clients that may revoke. If it is a [DecoyStore], unknown
	// clients take as long to refuse as known ones.
	Clients ClientStore
	// Tokens verifies what is presented.
	Tokens TokenResolver
	// Revoker records the revocation.
	Revoker Revoker

	// Issuers are the only issuers whose clients the endpoint knows; those of
	// others are unknown to it. Empty means all that Clients has.
	Issuers []string
	// Cascade is what a revocation takes with it. Empty means [CascadeToken]. That
	// of a refresh token always takes its grant with it.
	Cascade Cascade
	// GrantClaim is the canonical name of the claim that identifies the grant a
	// token was issued under. Tokens has to put it into identities. Empty means
	// that there is none.
	GrantClaim string
	// Foreign is what a public client is told about a token of another client.
	// Empty means [ForeignRefuse]. Clients that authenticate are always told.
	Foreign Foreign
	// AllowRevokeAny lets clients that have RevokeAny set, and authenticate,
	// revoke every token of their issuer.
	AllowRevokeAny bool
	// Refuse are kinds of tokens that are answered with 400
	// unsupported_token_type, whoever presents them.
	Refuse []TokenKind
	// SeveralTokens takes up to [MaxTokens] tokens, separated by spaces. All are
	// looked at first: if one has to be refused, none is revoked.
	SeveralTokens bool
	// AllTokens takes the token "all", in any case, of clients that authenticate,
	// as every token that was issued to the client up to now. Since a token could
	// be called that, it is off by default.
	AllTokens bool
	// JSONBody takes the parameters from a JSON object, too, if the body says that
	// it is one.
	JSONBody bool
	// JSONP answers a request that has the parameter callback, and that succeeds,
	// with a script that calls it (RFC 7009, section 2.3). The request is a POST
	// all the same: a token in a URL ends up in logs.
	JSONP bool
	// Policies are asked, in this order, before anything is recorded.
	Policies []NamedPolicy

	// Origins are the origins whose scripts may use the endpoint (RFC 7009,
	// section 2.3), as [ValidateOrigin] has them. Empty means none: OPTIONS is
	// then answered with 405.
	Origins []string
	// RefusePlainHTTP answers requests that are not Secure with 403, before
	// anything of them is read. By default they are served, and marked in the
	// outcome: a token that went over plain HTTP has to die all the more (RFC
	// 7009, section 2).
	RefusePlainHTTP bool
	// Secure tells whether a request came over TLS. Nil means that its
	// connection here has to be one.
	Secure func(*http.Request) bool

	// Realm is named in challenges. Empty means [DefaultRealm].
	Realm string
	// MaxBody bounds the body, in bytes; a longer one is answered with 413. Zero
	// means [DefaultMaxBody].
	MaxBody int64
	// MaxToken bounds the token, in bytes; a longer one is answered with 400.
	// Zero means [DefaultMaxToken].
	MaxToken int
	// StrictBasic takes HTTP Basic credentials as RFC 6749, section 2.3.1, has
	// them: form-encoded before base64. By default they are also accepted as
	// they stand, since many clients send them raw.
	StrictBasic bool
	// Guard holds the counters against guessing, which several endpoints share
	// and which outlive them. Nil means one of this endpoint's own, made of the
	// next four options, which are not used otherwise.
	Guard *Guard
	// HashConcurrency is how many bcrypt or argon2id hashes are computed at
	// once. Zero means half of GOMAXPROCS, at least one.
	HashConcurrency int
	// HashWait is how long a request waits for its turn before it is answered
	// with 503. Zero means [DefaultHashWait].
	HashWait time.Duration
	// VerifiedFor is how long a secret that a slow hash accepted is accepted
	// without computing it again. Zero means [DefaultVerifiedFor], negative
	// that it is computed each time.
	VerifiedFor time.Duration
	// FailuresPerMinute is how often one client id may fail to authenticate from
	// one IPv4 address or IPv6 /64 before it is answered with 429. Zero means
	// [DefaultFailuresPerMinute], negative no limit.
	FailuresPerMinute int
	// Assertions makes client assertions single-use. Nil means that clients
	// can't authenticate with one.
	Assertions AssertionStore
	// AssertionAudiences are values of aud that client assertions may have
	// instead of the client's issuer, for example the URL of this endpoint, as
	// clients sent it before the update of RFC 7523. Default: none.
	AssertionAudiences []string
	// AssertionLifetime bounds how far the exp of an assertion may be ahead, and
	// how long ago its iat. Zero means [DefaultAssertionLifetime].
	AssertionLifetime time.Duration
	// ClientIP returns where a request comes from. Nil means the peer of the
	// connection, which behind a proxy is the proxy. Requests for which it
	// returns an invalid address are not throttled.
	ClientIP func(*http.Request) netip.Addr
	// Leeway is for how long after their exp tokens may still be accepted
	// somewhere: until then they can be revoked. Zero means
	// [revocation.DefaultLeeway]. It has to be that of the Revoker's policy.
	Leeway time.Duration
	// Timeout bounds the work for one request. A revocation is not abandoned
	// when its client hangs up. Zero means [DefaultTimeout].
	Timeout time.Duration
	// RetryAfter is sent with 503. Zero means [DefaultRetryAfter].
	RetryAfter time.Duration

	// Observe, if not nil, is called once for each request, after the answer was
	// written: for metrics, and for the audit trail, since the endpoint itself
	// logs no request. It must return quickly.
	Observe func(Outcome)
	// Now returns the time. Nil means time.Now.
	Now func() time.Time
	// Logger may be nil.
	Logger *slog.Logger
}

// Endpoint is a token revocation endpoint (RFC 7009). It answers
//
//	200  the revocation is durable, or there is nothing to revoke: the token is
//	     invalid, unknown or expired, or a policy skipped it
//	204  a preflight request, if there are origins
//	400  invalid_request: malformed, repeated or missing parameters, another
//	     media type than a form, several authentication methods;
//	     invalid_grant: the token was not issued to this client;
//	     unsupported_token_type: it cannot be revoked here, or is of a kind that
//	     is refused, and lives on
//	401  invalid_client, with a challenge
//	403  access_denied: a policy refuses; invalid_request: it came over plain HTTP
//	405  another method than POST, with Allow
//	413  the body is too large
//	415  the body has a content coding
//	429  this client failed too often from this network, too many of this network
//	     authenticate at once, or the client sends too many assertions, with
//	     Retry-After
//	503  the token cannot be verified, a policy fails, or the revocation is not
//	     durable, and the token lives on, with Retry-After
//
// No answer may be cached. An Endpoint is safe for concurrent use.
type Endpoint struct {
	options EndpointOptions
	auth    *authenticator
	cascade cascadeRules
	cors    cors
	log     *slog.Logger
}

// NewEndpoint returns an endpoint, or an error if the options are incomplete.
func NewEndpoint(o EndpointOptions) (*Endpoint, error) {
	switch {
	case o.Clients == nil:
		return nil, errors.New("making revocation endpoint: the clients are missing")
	case o.Tokens == nil:
		return nil, errors.New("making revocation endpoint: the token resolver is missing")
	case o.Revoker == nil:
		return nil, errors.New("making revocation endpoint: the revoker is missing")
	case o.MaxBody < 0, o.MaxToken < 0, o.HashConcurrency < 0, o.HashWait < 0, o.Timeout < 0, o.RetryAfter < 0, o.Leeway < 0:
		return nil, errors.New("making revocation endpoint: a bound is negative")
	case o.AssertionLifetime < 0, o.AssertionLifetime > MaxAssertionLifetime:
		return nil, fmt.Errorf("making revocation endpoint: the lifetime of assertions is not between 0 and %s", MaxAssertionLifetime)
	}
	if err := o.validateChoices(); err != nil {
		return nil, fmt.Errorf("making revocation endpoint: %w", err)
	}
	if len(o.Issuers) > 0 {
		if s, ok := o.Clients.(IssuerStore); ok {
			o.Clients = s.Of(o.Issuers...)
		}
		o.Clients = clientsOf(o.Clients, o.Issuers)
	}
	setDefault(&o.Cascade, CascadeToken)
	setDefault(&o.Foreign, ForeignRefuse)
	setDefault(&o.Realm, DefaultRealm)
	setDefault(&o.MaxBody, DefaultMaxBody)
	setDefault(&o.MaxToken, DefaultMaxToken)
	setDefault(&o.AssertionLifetime, DefaultAssertionLifetime)
	setDefault(&o.Timeout, DefaultTimeout)
	setDefault(&o.RetryAfter, DefaultRetryAfter)
	setDefault(&o.Leeway, revocation.DefaultLeeway)
	setSurroundings(&o.ClientIP, &o.Secure, &o.Now, &o.Logger)
	return &Endpoint{
		options: o, auth: newAuthenticator(o), cascade: cascadeRules{o.Cascade, o.GrantClaim, o.Now}, cors: cors{o.Origins}, log: o.Logger,
	}, nil
}

func (o *EndpointOptions) validateChoices() error {
	switch {
	case o.Cascade != "" && o.Cascade != CascadeToken && o.Cascade != CascadeGrant:
		return fmt.Errorf("unknown cascade %q", string(o.Cascade))
	case o.Foreign != "" && o.Foreign != ForeignRefuse && o.Foreign != ForeignSilent:
		return fmt.Errorf("unknown answer %q to foreign tokens", string(o.Foreign))
	case slices.ContainsFunc(o.Policies, func(p NamedPolicy) bool { return p.Policy == nil }):
		return errors.New("a policy is missing")
	}
	if err := validateKinds(o.Refuse); err != nil {
		return err
	}
	if o.AllTokens {
		for _, k := range o.Refuse {
			if k != KindRefresh {
				return fmt.Errorf("tokens that are refused (%s) would be revoked with all tokens of a client: choose one", k)
			}
		}
	}
	for _, origin := range o.Origins {
		if err := ValidateOrigin(origin); err != nil {
			return err
		}
	}
	return nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// setSurroundings sets what an endpoint learns about requests and the time from,
// where the options leave it open.
func setSurroundings(ip *func(*http.Request) netip.Addr, secure *func(*http.Request) bool, now *func() time.Time, logger **slog.Logger) {
	if *ip == nil {
		*ip = peerIP
	}
	if *secure == nil {
		*secure = tlsOnly
	}
	if *now == nil {
		*now = time.Now
	}
	if *logger == nil {
		*logger = slog.New(slog.DiscardHandler)
	}
}

// exchange is one request on its way through the endpoint.
type exchange struct {
	request *http.Request
	outcome Outcome
	header  http.Header // what policies add to a 200
	secrets []string    // what was presented; see secretsOf
	token   string      // that is being judged
	watch   stopwatch

	callback string // what a 200 calls; see [EndpointOptions].JSONP
}

// ServeHTTP answers one revocation request. Errors have the form of RFC 6749,
// section 5.2; their descriptions are constant and reflect nothing of the request.
func (e *Endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := e.options.Now()
	x := &exchange{request: r, outcome: Outcome{
		ClientIP:  e.options.ClientIP(r),
		PlainHTTP: !e.options.Secure(r),
		Cascade:   e.options.Cascade,
	}}
	o := &x.outcome
	forbidCaching(w.Header())
	e.cors.set(w.Header(), r.Header)
	switch refusal := e.handle(w, r, x); {
	case refusal != nil:
		o.Status, o.Result = refusal.status, refusal.result
		if o.Reason == "" {
			o.Reason = refusal.description
		}
		refusal.write(w, e.options.Realm)
	case o.Result == ResultPreflight:
		o.Status = http.StatusNoContent
		e.cors.preflight(w, r)
	default:
		o.Status = http.StatusOK
		copyFields(w.Header(), x.header)
		if x.callback != "" {
			writeScript(w, x.callback)
			break
		}
		// RFC 7009, section 2.2, gives the body no meaning. It is not empty
		// because some clients parse every answer as JSON.
		writeJSON(w, http.StatusOK, []byte("{}"))
	}
	o.Duration = e.options.Now().Sub(start)
	if e.options.Observe != nil {
		e.options.Observe(*o)
	}
}

// handle returns nil for a 200 and for a preflight. The order is that of RFC 7009,
// section 2.1: what is sent must be a request at all, then comes the client, then
// the token, then whether the one belongs to the other.
func (e *Endpoint) handle(w http.ResponseWriter, r *http.Request, x *exchange) *answer {
	switch {
	case r.Method == http.MethodOptions && e.cors.on():
		x.outcome.Result = ResultPreflight
		return nil
	case r.Method != http.MethodPost:
		return refuseMethod(e.cors.allow())
	case x.outcome.PlainHTTP && e.options.RefusePlainHTTP:
		return refusePlainHTTP()
	}
	if refusal := checkQuery(r.URL.RawQuery); refusal != nil {
		return refusal
	}
	f, refusal := e.readParameters(w, r)
	if refusal != nil {
		return refusal
	}
	if callback := f.get(paramCallback); e.options.JSONP && callback != "" {
		if !isCallback(callback) {
			return refuse(http.StatusBadRequest, "the callback is not a path of identifiers")
		}
		x.callback = callback
	}
	// A client that hangs up wanted the token dead: its revocation goes on.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), e.options.Timeout)
	defer cancel()
	ctx = context.WithValue(ctx, stopwatchKey{}, &x.watch)

	a, refusal := readAttempt(r.Header, f, e.options.StrictBasic)
	if refusal != nil {
		return refusal
	}
	x.secrets = secretsOf(r.Header, f)
	start := e.options.Now()
	client, refusal := e.auth.authenticate(ctx, &a, r.TLS, x.outcome.ClientIP)
	x.outcome.Latency.Client = e.options.Now().Sub(start)
	if refusal != nil {
		return refusal
	}
	x.outcome.ClientID, x.outcome.Issuer, x.outcome.Method = client.ID, client.Issuer, a.method
	return e.revoke(ctx, client, f, x)
}

// tlsOnly is the default of [EndpointOptions].Secure.
func tlsOnly(r *http.Request) bool { return r.TLS != nil }
