package oauth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/intent"
	"github.com/edge-revocation/caddy-token-revocation/revocation/internal/turns"
)

// Results of a request that is passed on to an authorization server, besides
// those of an [Endpoint]. Of the latter, those that end without a revocation
// there, such as [ResultTokenInvalid] and [ResultNotOwner], have the status that
// the server has answered with.
const (
	ResultPassedBy        Result = "passed_by"        // it is no request for a revocation
	ResultNoToken         Result = "no_token"         // it names no token
	ResultServerRefused   Result = "server_refused"   // the server did not answer with 200, or with an error in it
	ResultServerUnclear   Result = "server_unclear"   // a 200 that is no answer to a revocation
	ResultServerFailed    Result = "server_failed"    // 503, or the 5xx that the server has answered with
	ResultStillActive     Result = "still_active"     // 200, but introspection says that the token lives
	ResultRechecked       Result = "rechecked"        // 200; the issuer's introspected tokens are asked about again
	ResultIntentFailed    Result = "intent_failed"    // 503, not forwarded: the revocation could have got lost
	ResultAmbiguousClient Result = "ambiguous_client" // 400, not forwarded
)

// UpstreamResults are all values of [Result] that an [Upstream] reports.
var UpstreamResults = [...]Result{
	ResultRevoked, ResultTokenInvalid, ResultTokenExpired, ResultTokenUnsupported, ResultNotOwner, ResultInvalidRequest,
	ResultInvalidClient, ResultUnavailable, ResultPassedBy, ResultNoToken, ResultServerRefused,
	ResultServerUnclear, ResultServerFailed, ResultStillActive, ResultRechecked, ResultIntentFailed, ResultAmbiguousClient,
	ResultThrottled,
}

// afterAnswer is what recording gets at least, however long the authorization
// server took.
const afterAnswer = 3 * time.Second

// Intents remembers what is not recorded yet; [intent.Journal] does.
type Intents interface {
	Begin(ctx context.Context, i intent.Intent) (*intent.Entry, error)
	Resume(ctx context.Context, issuer, client, token string) (*intent.Entry, error)
}

// UpstreamOptions configure an [Upstream]. Issuer, Tokens, Revoker and Intents are
// required.
type UpstreamOptions struct {
	// Issuer is the name of the issuer whose revocation endpoint this is. Tokens of
	// others are not recorded: a client of that name is another one there. It is
	// asked about tokens that do not say whose they are.
	Issuer string
	// Tokens verifies what is presented.
	Tokens TokenResolver
	// Revoker records the revocation.
	Revoker Revoker
	// Intents remembers what is not recorded yet.
	Intents Intents
	// IssuerSkew is that of the Revoker's policy.
	IssuerSkew time.Duration

	// Confirm, if not nil, tells whether the token is still active. It is asked
	// after the authorization server has answered 200, and nothing is recorded if
	// the token is. It must not answer from memory.
	//
	// A server that needs it may say 200 to anybody. So only the token itself is
	// recorded, and not its grant, unless the token was active when the request
	// came.
	Confirm func(ctx context.Context, issuer, token string) (active bool, err error)
	// Recheck, if not nil, makes every edge ask again about the issuer's tokens.
	// It is called after a 200 for a token that nobody here can resolve.
	Recheck func(ctx context.Context, issuer string) error
	// Refused, if not nil, tells whether an error of the next handler is the
	// answer of one that stands before the authorization server, and returns its
	// status, 400 to 499, or zero. The error is handed on then.
	Refused func(error) (status int)

	// Cascade and GrantClaim are as in [EndpointOptions].
	Cascade    Cascade
	GrantClaim string
	// StrictBasic says that the authorization server reads HTTP Basic credentials
	// as RFC 6749, section 2.3.1, has them. Without it, a client whose id can be
	// read in two ways has to send client_id in the form, too.
	StrictBasic bool
	// Guard counts requests that revoke nothing. Nil means one of its own.
	Guard *Guard
	// Realm, MaxBody, MaxToken, Leeway, Timeout, RetryAfter, Secure, ClientIP, Now
	// and Logger are as in [EndpointOptions]. Timeout bounds the time until the
	// authorization server has answered.
	Realm      string
	MaxBody    int64
	MaxToken   int
	Leeway     time.Duration
	Timeout    time.Duration
	RetryAfter time.Duration
	Secure     func(*http.Request) bool
	ClientIP   func(*http.Request) netip.Addr
	Now        func() time.Time
	Logger     *slog.Logger

	// Observe, if not nil, is called once for each request, after it was
	// answered. Its outcome has a client if the token was found to be that one's,
	// or if the authorization server has answered 200 to it.
	Observe func(Outcome)
}

// Upstream stands in front of an authorization server's revocation endpoint, and
// records what was revoked there. The server authenticates the clients. Its answer
// is passed on as it is; but a 200 only after the revocation is durable here.
//
// A 200 proves nothing by itself: some servers say it of tokens of other clients,
// and of failures. So what is recorded is what was verified here before: that the
// token is of this server and was issued to the one client that the request names.
//
// It answers by itself, without the server having seen the request:
//
//	400  invalid_request: it could be read in two ways, or is no form
//	401  invalid_client: it names no client
//	405  another method than POST, GET, HEAD and OPTIONS
//	413  the body is too large
//	415  the body has a content coding
//	429  too many requests of this client from its network had nothing to revoke
//	503  the token can't be verified now, or the revocation could get lost
//
// and 503 instead of the server's answer if there is none, or if the revocation is
// not durable. Then the revocation may still come; trying again is safe. An
// Upstream is safe for concurrent use.
type Upstream struct {
	options UpstreamOptions
	cascade cascadeRules
	guard   *Guard
	turns   *turns.Limiter
	log     *slog.Logger
}

// NewUpstream returns an Upstream, or an error if the options are incomplete.
func NewUpstream(o UpstreamOptions) (*Upstream, error) {
	switch {
	case o.Issuer == "":
		return nil, errors.New("making upstream: the issuer is missing")
	case o.Tokens == nil || o.Revoker == nil || o.Intents == nil:
		return nil, errors.New("making upstream: the token resolver, the revoker or the intents are missing")
	case o.MaxBody < 0, o.MaxToken < 0, o.Timeout < 0, o.RetryAfter < 0, o.Leeway < 0:
		return nil, errors.New("making upstream: a bound is negative")
	case o.Cascade != "" && o.Cascade != CascadeToken && o.Cascade != CascadeGrant:
		return nil, fmt.Errorf("making upstream: unknown cascade %q", string(o.Cascade))
	}
	setDefault(&o.Cascade, CascadeToken)
	setDefault(&o.Realm, DefaultRealm)
	setDefault(&o.MaxBody, DefaultMaxBody)
	setDefault(&o.MaxToken, DefaultMaxToken)
	setDefault(&o.Timeout, DefaultTimeout)
	setDefault(&o.RetryAfter, DefaultRetryAfter)
	setDefault(&o.Leeway, revocation.DefaultLeeway)
	setSurroundings(&o.ClientIP, &o.Secure, &o.Now, &o.Logger)
	if o.Guard == nil {
		o.Guard = NewGuard(GuardOptions{Now: o.Now})
	}
	return &Upstream{
		options: o, cascade: cascadeRules{o.Cascade, o.GrantClaim, o.Now},
		guard: o.Guard, turns: newUpstreamTurns(o.Timeout), log: o.Logger,
	}, nil
}

// passage is one request on its way.
type passage struct {
	outcome Outcome
	request *passedRequest
	// entry is what is recorded after a 200; nil: nothing is.
	entry *intent.Entry
	// active is true if the authorization server has called the token active
	// before: then it can be asked what became of it.
	active bool
	// alone is true if only the token itself may be recorded.
	alone bool
	// recheck is true if the token may be one that nobody here can resolve.
	recheck bool
	// dead is true if the authorization server has called it inactive.
	dead bool
	// read tells whether anybody has read the body that is forwarded. Without it,
	// nobody knows of which token the request is.
	read atomic.Bool
}

// ServeHTTP passes one request on to next, which is to forward it to the
// authorization server and to write its answer, or to return an error if there is
// none.
func (u *Upstream) ServeHTTP(w http.ResponseWriter, r *http.Request, next func(http.ResponseWriter, *http.Request) error) error {
	start := u.options.Now()
	x := &passage{outcome: Outcome{
		ClientIP: u.options.ClientIP(r), PlainHTTP: !u.options.Secure(r), Cascade: u.options.Cascade,
	}}
	defer func() { // also when a broken answer is aborted
		if x.entry != nil { // a handler has panicked
			x.leave(ResultServerFailed)
		}
		u.count(x)
		x.outcome.Duration = u.options.Now().Sub(start)
		if u.options.Observe != nil {
			u.options.Observe(x.outcome)
		}
	}()
	if passesBy(r) {
		x.outcome.Result = ResultPassedBy
		return next(w, r)
	}
	q, refusal := readPassed(w, r, u.options.MaxBody, u.options.MaxToken, u.options.StrictBasic)
	if refusal != nil {
		u.refuse(w, x, refusal)
		return nil
	}
	x.request, x.outcome.Method = q, q.method
	x.outcome.Issuer = u.options.Issuer
	if refusal := u.throttled(x); refusal != nil {
		u.refuse(w, x, refusal)
		return nil
	}
	// A client that hangs up wanted the token dead: its revocation goes on.
	base := context.WithoutCancel(r.Context())
	ctx, cancel := context.WithTimeout(base, u.options.Timeout)
	defer cancel()
	if refusal := u.prepare(ctx, x); refusal != nil {
		u.refuse(w, x, refusal)
		return nil
	}
	answer := newServerAnswer(w, maxAnswer)
	aborted, err := u.forward(next, answer, q.replay(ctx, r, &x.read))
	if status := u.refused(x, answer, err); status != 0 {
		x.outcome.Status = status
		replaceFields(w.Header(), answer.header)
		return err
	}
	refusal = u.settle(ctx, base, x, answer, aborted || err != nil || answer.status == 0)
	if err != nil || answer.status == 0 {
		u.log.LogAttrs(ctx, slog.LevelWarn, "no answer from the authorization server", slog.Any("error", err))
	}
	switch {
	case refusal != nil && !answer.passed:
		shareFields(w.Header(), answer.sent)
		u.refuse(w, x, refusal)
		return nil
	case aborted:
		x.outcome.Status = answer.status
		panic(http.ErrAbortHandler) // the client has a part of the answer
	case err != nil:
		x.outcome.Status = answer.status
		return err
	default:
		x.outcome.Status = answer.status
		answer.finish()
		return nil
	}
}

// refuse answers instead of the authorization server.
func (u *Upstream) refuse(w http.ResponseWriter, x *passage, refusal *answer) {
	x.outcome.Status, x.outcome.Reason = refusal.status, refusal.description
	if x.outcome.Result == "" {
		x.outcome.Result = refusal.result
	}
	forbidCaching(w.Header())
	refusal.write(w, u.options.Realm)
}

// refused returns the status of an answer that a handler before the authorization
// server has given by returning an error, and ends the request then. The server
// has seen nothing of it, unless somebody has read the body.
func (u *Upstream) refused(x *passage, a *serverAnswer, err error) (status int) {
	if err == nil || a.status != 0 || u.options.Refused == nil {
		return 0
	}
	if status = u.options.Refused(err); status == 0 {
		return 0
	}
	x.refuse(ResultServerRefused)
	return status
}

// shareFields copies what a browser needs to let a script see the answer. The
// authorization server has decided on that.
func shareFields(h, sent http.Header) {
	for name, values := range sent {
		if name == "Vary" || strings.HasPrefix(name, "Access-Control-") {
			h[name] = values
		}
	}
}

// forward calls next, and tells whether it gave up in the middle of an answer. It
// does so with this panic only, as net/http's own proxy does.
func (u *Upstream) forward(next func(http.ResponseWriter, *http.Request) error, w *serverAnswer, r *http.Request) (aborted bool, err error) {
	start := u.options.Now()
	defer func() {
		if p := recover(); p != nil {
			if p != http.ErrAbortHandler { //nolint:errorlint // a panic's value, compared as net/http does
				panic(p)
			}
			aborted = true
		}
		u.log.LogAttrs(r.Context(), slog.LevelDebug, "authorization server answered",
			slog.Int("status", w.status), slog.Duration("duration", u.options.Now().Sub(start)))
	}()
	return false, next(w, r)
}
