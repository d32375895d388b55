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

// DefaultIntrospectionRealm is the realm of an [IntrospectionEndpoint].
const DefaultIntrospectionRealm = "token introspection"

// IntrospectionOptions configure an [IntrospectionEndpoint]. Clients and Tokens
// are required; everything else has a default. Where a name is that of a member
// of [EndpointOptions], so is its meaning.
type IntrospectionOptions struct {
	// Clients are the clients that may ask: those of them that authenticate.
	Clients ClientStore
	// Tokens finds out what is known of a token.
	Tokens TokenIntrospector
	// Current returns why this place can't vouch for a token at the moment, for
	// example because its denylist is stale; nil if it can. A token is not called
	// active otherwise, and the answer is 503. Nil means that it always can.
	Current func() error

	// Issuers are the only issuers whose clients the endpoint knows. Empty means
	// all that Clients has.
	Issuers []string
	// Members are the names of the members that an answer has besides active,
	// as far as they are known (RFC 7662, section 5). Empty means all.
	Members []string

	Realm              string
	MaxBody            int64
	MaxToken           int
	StrictBasic        bool
	RefusePlainHTTP    bool
	Secure             func(*http.Request) bool
	Guard              *Guard
	Assertions         AssertionStore
	AssertionAudiences []string
	AssertionLifetime  time.Duration
	ClientIP           func(*http.Request) netip.Addr
	Timeout            time.Duration
	RetryAfter         time.Duration

	// Observe, if not nil, is called once for each request, after the answer was
	// written. It must return quickly.
	Observe func(IntrospectionOutcome)
	// Now returns the time. Nil means time.Now.
	Now func() time.Time
	// Logger may be nil.
	Logger *slog.Logger
}

// Results of a request to an [IntrospectionEndpoint], besides
// [ResultInvalidRequest], [ResultInvalidClient], [ResultPlainHTTP],
// [ResultThrottled] and [ResultUnavailable]. All but the first are answered with
// the same {"active":false}, so that they are known here and to nobody who asks.
const (
	ResultActive       Result = "active"
	ResultTokenRevoked Result = "token_revoked"
	ResultNotForCaller Result = "not_for_caller"
	ResultTokenUnknown Result = "token_unknown"
	// ResultStale is a 503: the token would be active, but this place can't vouch
	// for it.
	ResultStale Result = "stale"
)

// IntrospectionResults are all values that [IntrospectionOutcome].Result has.
var IntrospectionResults = [...]Result{
	ResultActive, ResultTokenRevoked, ResultTokenExpired, ResultTokenInvalid, ResultTokenUnknown, ResultNotForCaller,
	ResultInvalidRequest, ResultInvalidClient, ResultPlainHTTP, ResultThrottled, ResultStale, ResultUnavailable,
}

// IntrospectionOutcome describes one request after it was answered. It holds no
// token, no secret and no text that an unauthenticated client wrote.
type IntrospectionOutcome struct {
	Result Result
	// Status is the HTTP status of the answer.
	Status int
	// Reason is the description of the error, empty without one.
	Reason string
	// ClientID and Issuer are those of the authenticated client, empty if none
	// was authenticated, and Method is how it authenticated.
	ClientID string
	Issuer   string
	Method   AuthMethod
	// ClientIP is where the request came from; not valid if unknown.
	ClientIP netip.Addr
	// Token is the criteria of the token, if it is active, for whomever. Its
	// issuer is empty otherwise.
	Token revocation.Criteria
	// Answered is true if the authorization server was asked about the token, or
	// had been asked a moment ago.
	Answered bool
	Duration time.Duration
}

// IntrospectionEndpoint is a token introspection endpoint (RFC 7662). It answers
//
//	200  {"active":false} for every token that is revoked, expired, unknown,
//	     malformed, of another kind or not for this client; for any other, active
//	     is true, and what is known of the token stands beside it
//	400  invalid_request: malformed, repeated or missing parameters, another
//	     media type than a form, several authentication methods
//	401  invalid_client, with a challenge; public clients are not known here
//	403  invalid_request: it came over plain HTTP
//	405  another method than POST, with Allow
//	413  the body is too large
//	415  the body has a content coding
//	429  this client failed too often from this network, too many of this network
//	     authenticate at once, or the client sends too many assertions, with
//	     Retry-After
//	503  nothing is known of the token now, with Retry-After
//
// Answers are plain JSON whatever the request accepts: signed ones (RFC 9701) are
// not supported. No answer may be cached. An IntrospectionEndpoint is safe for
// concurrent use.
type IntrospectionEndpoint struct {
	options IntrospectionOptions
	auth    *authenticator
	members map[string]bool // nil: all
	log     *slog.Logger
}

// NewIntrospectionEndpoint returns an endpoint, or an error if the options are
// incomplete.
func NewIntrospectionEndpoint(o IntrospectionOptions) (*IntrospectionEndpoint, error) {
	switch {
	case o.Clients == nil:
		return nil, errors.New("making introspection endpoint: the clients are missing")
	case o.Tokens == nil:
		return nil, errors.New("making introspection endpoint: the token introspector is missing")
	case o.MaxBody < 0, o.MaxToken < 0, o.Timeout < 0, o.RetryAfter < 0:
		return nil, errors.New("making introspection endpoint: a bound is negative")
	case o.AssertionLifetime < 0, o.AssertionLifetime > MaxAssertionLifetime:
		return nil, fmt.Errorf("making introspection endpoint: the lifetime of assertions is not between 0 and %s", MaxAssertionLifetime)
	case slices.Contains(o.Members, ""):
		return nil, errors.New("making introspection endpoint: the name of a member is empty")
	}
	if len(o.Issuers) > 0 {
		o.Clients = clientsOf(o.Clients, o.Issuers)
	}
	o.Clients = confidentialClients{o.Clients, DecoyOf(o.Clients)}
	setDefault(&o.Realm, DefaultIntrospectionRealm)
	setDefault(&o.MaxBody, DefaultMaxBody)
	setDefault(&o.MaxToken, DefaultMaxToken)
	setDefault(&o.AssertionLifetime, DefaultAssertionLifetime)
	setDefault(&o.Timeout, DefaultTimeout)
	setDefault(&o.RetryAfter, DefaultRetryAfter)
	setSurroundings(&o.ClientIP, &o.Secure, &o.Now, &o.Logger)
	if o.Current == nil {
		o.Current = func() error { return nil }
	}
	e := &IntrospectionEndpoint{options: o, log: o.Logger, auth: newAuthenticator(EndpointOptions{
		Clients: o.Clients, MaxToken: o.MaxToken, Guard: o.Guard,
		Assertions: o.Assertions, AssertionAudiences: o.AssertionAudiences, AssertionLifetime: o.AssertionLifetime,
		RetryAfter: o.RetryAfter, Now: o.Now, Logger: o.Logger,
	})}
	if len(o.Members) > 0 {
		e.members = make(map[string]bool)
		for _, name := range o.Members {
			e.members[name] = true
		}
	}
	return e, nil
}

// ServeHTTP answers one request. Errors have the form of RFC 6749, section 5.2;
// their descriptions are constant and reflect nothing of the request.
func (e *IntrospectionEndpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := e.options.Now()
	outcome := IntrospectionOutcome{ClientIP: e.options.ClientIP(r), Status: http.StatusOK}
	forbidCaching(w.Header())
	body, refusal := e.handle(w, r, &outcome)
	if refusal != nil {
		outcome.Status, outcome.Reason = refusal.status, refusal.description
		if outcome.Result == "" {
			outcome.Result = refusal.result
		}
		refusal.write(w, e.options.Realm)
	} else {
		writeJSON(w, http.StatusOK, body)
	}
	outcome.Duration = e.options.Now().Sub(start)
	if e.options.Observe != nil {
		e.options.Observe(outcome)
	}
}

// handle returns the body of a 200. The client is authenticated before anything
// is said about a token (RFC 7662, section 2.1).
func (e *IntrospectionEndpoint) handle(w http.ResponseWriter, r *http.Request, outcome *IntrospectionOutcome) ([]byte, *answer) {
	switch {
	case r.Method != http.MethodPost:
		// RFC 7662, section 4, allows to refuse GET: it would put tokens into
		// addresses, and those into logs.
		return nil, refuseMethod(http.MethodPost)
	case e.options.RefusePlainHTTP && !e.options.Secure(r):
		return nil, refusePlainHTTP()
	}
	if refusal := checkQuery(r.URL.RawQuery); refusal != nil {
		return nil, refusal
	}
	f, refusal := readForm(w, r, e.options.MaxBody)
	if refusal != nil {
		return nil, refusal
	}
	// Unlike a revocation, an answer is of no use to a client that has gone.
	ctx, cancel := context.WithTimeout(r.Context(), e.options.Timeout)
	defer cancel()
	a, refusal := readAttempt(r.Header, f, e.options.StrictBasic)
	if refusal != nil {
		return nil, refusal
	}
	client, refusal := e.auth.authenticate(ctx, &a, r.TLS, outcome.ClientIP)
	if refusal != nil {
		return nil, refusal
	}
	outcome.ClientID, outcome.Issuer, outcome.Method = client.ID, client.Issuer, a.method
	token := f.get(paramToken)
	if refusal := refuseToken(token, e.options.MaxToken); refusal != nil {
		return nil, refusal
	}
	return e.introspect(ctx, client, token, f.get(paramTokenTypeHint), outcome)
}

// inactive is the answer for every token that is not active for whoever asks, to
// the byte: nothing else may tell why (RFC 7662, sections 2.2 and 4).
const inactive = `{"active":false}`

// introspect answers an authenticated client.
func (e *IntrospectionEndpoint) introspect(ctx context.Context, client *Client, token, hint string, outcome *IntrospectionOutcome) ([]byte, *answer) {
	if !isVSChar(token) {
		// No token has such characters (RFC 6749, appendix A).
		outcome.Result = ResultTokenInvalid
		return []byte(inactive), nil
	}
	t, err := e.options.Tokens.Introspect(ctx, token, IntrospectionQuery{Issuer: client.Issuer, Hint: hint})
	if err != nil {
		if outcome.Result = inactiveResult(err); outcome.Result != "" {
			return []byte(inactive), nil
		}
		e.log.LogAttrs(ctx, slog.LevelWarn, "token cannot be introspected", slog.Any("error", err))
		return nil, unavailable("nothing is known of the token now", e.options.RetryAfter)
	}
	if t == nil || t.Identity == nil || !t.Identity.Verified {
		e.log.LogAttrs(ctx, slog.LevelError, "token introspector returned an unverified identity")
		return nil, unavailable("nothing is known of the token now", e.options.RetryAfter)
	}
	outcome.Token, _ = t.Identity.TokenCriteria()
	outcome.Answered = t.Answered
	members, err := splitObject(t.Claims)
	if err != nil {
		e.log.LogAttrs(ctx, slog.LevelError, "token introspector returned no claims", slog.Any("error", err))
		return nil, unavailable("nothing is known of the token now", e.options.RetryAfter)
	}
	var audiences []string
	if aud, ok := findMember(members, "aud"); ok {
		audiences = aud.textValues()
	}
	if !mayIntrospect(client, t, audiences) {
		outcome.Result = ResultNotForCaller
		return []byte(inactive), nil
	}
	// Last, so that a place which can't vouch for anything says so only of tokens
	// that the client may know about.
	if err := e.options.Current(); err != nil {
		outcome.Result = ResultStale
		e.log.LogAttrs(ctx, slog.LevelDebug, "active token not vouched for", slog.Any("error", err))
		return nil, unavailable("whether the token is revoked is not known now", e.options.RetryAfter)
	}
	outcome.Result = ResultActive
	return activeAnswer(t, members, e.members), nil
}

// inactiveResult returns what is wrong with a token, or "" if nothing is known.
func inactiveResult(err error) Result {
	switch {
	case errors.Is(err, ErrTokenRevoked):
		return ResultTokenRevoked
	case errors.Is(err, ErrTokenExpired):
		return ResultTokenExpired
	case errors.Is(err, ErrTokenInvalid):
		return ResultTokenInvalid
	case errors.Is(err, ErrTokenUnsupported):
		return ResultTokenUnknown
	default:
		return ""
	}
}
