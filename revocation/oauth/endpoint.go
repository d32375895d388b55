package oauth

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
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
	// ClientIP returns where a request comes from. Nil means the peer of the
	// connection, which behind a proxy is the proxy. Requests for which it
	// returns an invalid address are not throttled.
	ClientIP func(*http.Request) netip.Addr
	// Timeout bounds the work for one request. A revocation is not abandoned
	// when its client hangs up. Zero means [DefaultTimeout].
	Timeout time.Duration
	// RetryAfter is sent with 503. Zero means [DefaultRetryAfter].
	RetryAfter time.Duration

	// Observe, if not nil, is called once for each request, after the answer was
	// written. It must return quickly.
	Observe func(Outcome)
	// Now returns the time. Nil means time.Now.
	Now func() time.Time
	// Logger may be nil.
	Logger *slog.Logger
}

// Endpoint is a token revocation endpoint (RFC 7009). It answers
//
//	200  the revocation is durable, or there is nothing to revoke: the token is
//	     invalid, unknown or expired
//	400  invalid_request: malformed, repeated or missing parameters, another
//	     media type than a form, several authentication methods;
//	     invalid_grant: the token was not issued to this client;
//	     unsupported_token_type: it cannot be revoked here, and lives on
//	401  invalid_client, with a challenge
//	405  another method than POST, with Allow
//	413  the body is too large
//	415  the body has a content coding
//	429  this client failed too often from this network, with Retry-After
//	503  the token cannot be verified, or its revocation is not durable, and it
//	     lives on, with Retry-After
//
// No answer may be cached. An Endpoint is safe for concurrent use.
type Endpoint struct {
	options EndpointOptions
	auth    *authenticator
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
	case o.MaxBody < 0, o.MaxToken < 0, o.HashConcurrency < 0, o.HashWait < 0, o.Timeout < 0, o.RetryAfter < 0:
		return nil, errors.New("making revocation endpoint: a bound is negative")
	}
	setDefault(&o.Realm, DefaultRealm)
	setDefault(&o.MaxBody, DefaultMaxBody)
	setDefault(&o.MaxToken, DefaultMaxToken)
	setDefault(&o.HashConcurrency, max(1, runtime.GOMAXPROCS(0)/2))
	setDefault(&o.HashWait, DefaultHashWait)
	setDefault(&o.VerifiedFor, DefaultVerifiedFor)
	setDefault(&o.FailuresPerMinute, DefaultFailuresPerMinute)
	setDefault(&o.Timeout, DefaultTimeout)
	setDefault(&o.RetryAfter, DefaultRetryAfter)
	if o.ClientIP == nil {
		o.ClientIP = peerIP
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	auth := &authenticator{
		clients:    o.Clients,
		decoy:      decoyOf(o.Clients),
		hashes:     newLimiter(o.HashConcurrency, o.HashWait),
		verified:   newVerified(o.VerifiedFor, maxVerified, o.Now),
		retryAfter: o.RetryAfter,
	}
	if o.FailuresPerMinute > 0 {
		auth.throttle = newThrottle(o.FailuresPerMinute, o.Now)
	}
	return &Endpoint{options: o, auth: auth, log: o.Logger}, nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// ServeHTTP answers one revocation request. Errors have the form of RFC 6749,
// section 5.2; their descriptions are constant and reflect nothing of the request.
func (e *Endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := e.options.Now()
	forbidCaching(w.Header())
	outcome := Outcome{ClientIP: e.options.ClientIP(r)}
	refusal := e.handle(w, r, &outcome)
	if refusal == nil {
		outcome.Status = http.StatusOK
		// RFC 7009, section 2.2, gives the body no meaning. It is not empty
		// because some clients parse every answer as JSON.
		writeJSON(w, http.StatusOK, []byte("{}"))
	} else {
		outcome.Status, outcome.Result = refusal.status, refusal.result
		refusal.write(w, e.options.Realm)
	}
	outcome.Duration = e.options.Now().Sub(start)
	e.log.LogAttrs(r.Context(), slog.LevelDebug, "token revocation request answered",
		slog.String("result", string(outcome.Result)),
		slog.Int("status", outcome.Status),
		slog.String("client_id", outcome.ClientID),
		slog.String("decision_id", outcome.DecisionID),
		slog.Uint64("sequence", outcome.Sequence),
		slog.Duration("duration", outcome.Duration),
	)
	if e.options.Observe != nil {
		e.options.Observe(outcome)
	}
}

// handle returns nil for a 200. The order is that of RFC 7009, section 2.1: what
// is sent must be a request at all, then comes the client, then the token, then
// whether the one belongs to the other.
func (e *Endpoint) handle(w http.ResponseWriter, r *http.Request, outcome *Outcome) *answer {
	if r.Method != http.MethodPost {
		return refuse(http.StatusMethodNotAllowed, "the method has to be POST")
	}
	if refusal := checkQuery(r.URL.RawQuery); refusal != nil {
		return refusal
	}
	f, refusal := readForm(w, r, e.options.MaxBody)
	if refusal != nil {
		return refusal
	}
	// A client that hangs up wanted the token dead: its revocation goes on.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), e.options.Timeout)
	defer cancel()

	a, refusal := readAttempt(r.Header, f, e.options.StrictBasic)
	if refusal != nil {
		return refusal
	}
	client, refusal := e.auth.authenticate(ctx, a, outcome.ClientIP)
	if refusal != nil {
		return refusal
	}
	outcome.ClientID, outcome.Issuer, outcome.Method = client.ID, client.Issuer, a.method
	return e.revoke(ctx, client, f, outcome)
}

// revoke ends the life of the token in f on behalf of client.
func (e *Endpoint) revoke(ctx context.Context, client *Client, f form, outcome *Outcome) *answer {
	token := f.get(paramToken)
	switch {
	case trimSpace(token) == "":
		return refuse(http.StatusBadRequest, "the token is missing")
	case len(token) > e.options.MaxToken:
		// Not 200: it may be a live one.
		return refuse(http.StatusBadRequest, "the token is too long")
	case strings.TrimRight(token, "\r\n") != token:
		// Not 200: it is a live one perhaps, read from a file with its newline.
		return refuse(http.StatusBadRequest, "the token ends in a line break")
	case !printable(token):
		// Nothing that could be presented as a token has such characters.
		return e.unresolved(ctx, ErrTokenOpaque, f.get(paramTokenTypeHint), outcome)
	}
	id, err := e.options.Tokens.Resolve(ctx, token)
	if err != nil {
		return e.unresolved(ctx, err, f.get(paramTokenTypeHint), outcome)
	}
	if id == nil || !id.Verified {
		// Claims that nobody verified are whatever their sender liked. Storing
		// them would let one client revoke the tokens of another.
		e.log.LogAttrs(ctx, slog.LevelError, "token resolver returned an unverified identity")
		return unavailable("the token cannot be verified now", e.options.RetryAfter)
	}
	if !owns(client, id) {
		return &answer{
			result: ResultNotOwner, status: http.StatusBadRequest,
			code: ErrorInvalidGrant, description: "the token was not issued to this client",
		}
	}
	return e.record(ctx, client, id, outcome)
}

// owns tells whether the token was issued to client. The same client_id at
// another issuer is another client, and a token that does not say whom it was
// issued to belongs to nobody.
func owns(client *Client, id *revocation.Identity) bool {
	owner, ok := id.Value(revocation.ClaimClientID)
	return ok && owner == client.ID && id.Issuer == client.Issuer
}

// unresolved answers for a token without an identity.
func (e *Endpoint) unresolved(ctx context.Context, err error, hint string, outcome *Outcome) *answer {
	switch {
	case errors.Is(err, ErrTokenInvalid):
		outcome.Result = ResultTokenInvalid
		return nil
	case errors.Is(err, ErrTokenExpired):
		outcome.Result = ResultTokenExpired
		return nil
	case errors.Is(err, ErrTokenOpaque) && !hintsRefreshToken(hint):
		outcome.Result = ResultTokenInvalid
		return nil
	case errors.Is(err, ErrTokenUnsupported):
		return &answer{
			result: ResultTokenUnsupported, status: http.StatusBadRequest,
			code: ErrorUnsupportedTokenType, description: "tokens of this type cannot be revoked here",
		}
	default:
		e.log.LogAttrs(ctx, slog.LevelWarn, "token cannot be verified for revocation", slog.Any("error", err))
		return unavailable("the token cannot be verified now", e.options.RetryAfter)
	}
}

// hintsRefreshToken is the only use of the hint: it tells a token of a type that
// is not supported from one that is unknown. It never changes what is revoked
// (RFC 7009, section 2.1).
func hintsRefreshToken(hint string) bool {
	return hint == "refresh_token" || hint == "urn:ietf:params:oauth:token-type:refresh_token"
}

// record makes the revocation durable. Nothing but its success is a 200.
func (e *Endpoint) record(ctx context.Context, client *Client, id *revocation.Identity, outcome *Outcome) *answer {
	criteria, ok := id.TokenCriteria()
	if !ok {
		e.log.LogAttrs(ctx, slog.LevelError, "token has neither jti nor hash")
		return unavailable("the token cannot be revoked now", e.options.RetryAfter)
	}
	expiry := id.Expiry
	if expiry == 0 {
		expiry = revocation.NoExpiry
	}
	receipt, err := e.options.Revoker.Revoke(ctx, revocation.Request{
		Criteria:      criteria,
		Mode:          revocation.Block,
		TokenExpiry:   expiry,
		TokenIssuedAt: id.IssuedAt,
		Reason:        "client request",
		Actor:         "client:" + client.ID,
	})
	switch {
	case err == nil:
		outcome.Result = ResultRevoked
		outcome.DecisionID, outcome.Sequence = receipt.ID, receipt.Sequence
		return nil
	case errors.Is(err, revocation.ErrExpired):
		outcome.Result = ResultTokenExpired
		return nil
	case errors.Is(err, revocation.ErrUnavailable), errors.Is(err, revocation.ErrFull):
		e.log.LogAttrs(ctx, slog.LevelWarn, "revocation not recorded", slog.Any("error", err))
	default:
		e.log.LogAttrs(ctx, slog.LevelError, "revocation refused by the service", slog.Any("error", err))
	}
	return unavailable("the revocation was not recorded; the token is still valid", e.options.RetryAfter)
}

// printable tells whether s consists of visible ASCII characters, as a token
// that is presented in a header does.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}
