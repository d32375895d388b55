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
	"github.com/edge-revocation/caddy-token-revocation/revocation/intent"
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
}

// afterAnswer is what recording gets at least, however long the authorization
// server took.
const afterAnswer = 3 * time.Second

// Intents remembers what is not recorded yet; [intent.Journal] does.
type Intents interface {
	Begin(i intent.Intent) (*intent.Entry, error)
	Resume(ctx context.Context, issuer, client, token string) (*intent.Entry, error)
}

// UpstreamOptions configure an [Upstream]. Issuers, Tokens, Revoker and Intents
// are required.
type UpstreamOptions struct {
	// Issuers are the names of the issuers whose revocation endpoint this is.
	// Tokens of others are not recorded. The first one is asked about tokens that
	// do not say whose they are.
	Issuers []string
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
	Confirm func(ctx context.Context, issuer, token string) (active bool, err error)
	// Recheck, if not nil, makes every edge ask again about the issuer's tokens.
	// It is called after a 200 for a token that nobody here can resolve.
	Recheck func(ctx context.Context, issuer string) error

	// Cascade and GrantClaim are as in [EndpointOptions].
	Cascade    Cascade
	GrantClaim string
	// StrictBasic says that the authorization server reads HTTP Basic credentials
	// as RFC 6749, section 2.3.1, has them. Without it, a client whose id can be
	// read in two ways has to send client_id in the form, too.
	StrictBasic bool
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
//	503  the token can't be verified now, or the revocation could get lost
//
// and 503 instead of the server's answer if there is none, or if the revocation is
// not durable. Then the revocation may still come; trying again is safe. An
// Upstream is safe for concurrent use.
type Upstream struct {
	options UpstreamOptions
	cascade cascadeRules
	log     *slog.Logger
}

// NewUpstream returns an Upstream, or an error if the options are incomplete.
func NewUpstream(o UpstreamOptions) (*Upstream, error) {
	switch {
	case len(o.Issuers) == 0 || slices.Contains(o.Issuers, ""):
		return nil, errors.New("making upstream: the issuers are missing")
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
	if o.ClientIP == nil {
		o.ClientIP = peerIP
	}
	if o.Secure == nil {
		o.Secure = tlsOnly
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Upstream{options: o, cascade: cascadeRules{o.Cascade, o.GrantClaim, o.Now}, log: o.Logger}, nil
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
	// recheck is true if the token may be one that nobody here can resolve.
	recheck bool
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
	x.outcome.Issuer = u.options.Issuers[0]
	// A client that hangs up wanted the token dead: its revocation goes on.
	base := context.WithoutCancel(r.Context())
	ctx, cancel := context.WithTimeout(base, u.options.Timeout)
	defer cancel()
	if refusal := u.prepare(ctx, x); refusal != nil {
		u.refuse(w, x, refusal)
		return nil
	}
	answer := newServerAnswer(w, maxAnswer)
	aborted, err := u.forward(next, answer, q.replay(ctx, r))
	refusal = u.settle(ctx, base, x, answer, aborted || err != nil || answer.status == 0)
	if err != nil || answer.status == 0 {
		u.log.LogAttrs(ctx, slog.LevelWarn, "no answer from the authorization server", slog.Any("error", err))
	}
	switch {
	case refusal != nil && !answer.passed:
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

// settle acts on the authorization server's answer. It returns our own answer, if
// that is the one to give. broken says that there is no whole answer.
func (u *Upstream) settle(ctx, base context.Context, x *passage, a *serverAnswer, broken bool) *answer {
	switch {
	case a.status != 0 && a.status != http.StatusOK && a.status < 500 && a.status != statusClientClosed:
		x.drop(ResultServerRefused)
		return nil
	case broken, a.status >= 500, a.status == statusClientClosed:
		// The request may have arrived. Nothing is recorded for that, but the
		// client's next attempt may find the token dead.
		x.leave(ResultServerFailed)
		return unavailable("the authorization server does not answer; try again", u.options.RetryAfter)
	case a.passed: // longer than any answer to a revocation
		x.drop(ResultServerUnclear)
		return nil
	}
	switch judge(a.sent, a.body) {
	case verdictError:
		x.drop(ResultServerRefused)
		return nil
	case verdictUnclear:
		u.log.LogAttrs(ctx, slog.LevelWarn, "the authorization server answered 200 with something that is no answer to a revocation",
			slog.String("content_type", cleanMediaType(a.sent.Get("Content-Type"))))
		x.drop(ResultServerUnclear)
		return nil
	}
	deadline, _ := ctx.Deadline()
	ctx, cancel := context.WithTimeout(base, max(time.Until(deadline), afterAnswer))
	defer cancel()
	return u.accepted(ctx, x)
}

// statusClientClosed is what a proxy writes for an exchange that it gave up.
const statusClientClosed = 499

// accepted does what a 200 asks for.
func (u *Upstream) accepted(ctx context.Context, x *passage) *answer {
	if x.outcome.ClientID == "" && len(x.request.clients) == 1 {
		x.outcome.ClientID = cleanText(x.request.clients[0])
	}
	if x.entry != nil {
		if done, refusal := u.confirm(ctx, x); done {
			return refusal
		}
		if refusal := u.record(ctx, x); refusal != nil {
			return refusal
		}
	}
	if !x.recheck || u.options.Recheck == nil {
		return nil
	}
	if err := u.options.Recheck(ctx, x.outcome.Issuer); err != nil {
		u.log.LogAttrs(ctx, slog.LevelWarn, "introspected tokens can't be made to be asked about again", slog.Any("error", err))
		x.outcome.Result = ResultUnavailable
		return unavailable("the revocation was not recorded; try again", u.options.RetryAfter)
	}
	if x.entry == nil {
		x.outcome.Result = ResultRechecked
	}
	return nil
}

// confirm asks whether the token is really dead, if it is to. It tells whether
// that is the end of it.
func (u *Upstream) confirm(ctx context.Context, x *passage) (done bool, refusal *answer) {
	if u.options.Confirm == nil {
		return false, nil
	}
	active, err := u.options.Confirm(ctx, x.entry.Intent().Issuer, x.request.token)
	switch {
	case err != nil:
		u.log.LogAttrs(ctx, slog.LevelWarn, "a revocation can't be confirmed by introspection", slog.Any("error", err))
		x.active = true // its 200, and "inactive" later, are proof enough
		x.leave(ResultUnavailable)
		return true, unavailable("the revocation cannot be confirmed now; try again", u.options.RetryAfter)
	case active:
		u.log.LogAttrs(ctx, slog.LevelWarn, "the authorization server answered 200, but the token is still active",
			slog.String("issuer", x.outcome.Issuer), slog.String("client_id", x.outcome.ClientID))
		x.drop(ResultStillActive)
		return true, nil
	default:
		return false, nil
	}
}

// record makes the revocation durable.
func (u *Upstream) record(ctx context.Context, x *passage) *answer {
	_ = x.entry.Accept() // logged there, and recorded all the same
	start := u.options.Now()
	err := x.entry.Record(ctx, func(ctx context.Context, i *intent.Intent) error {
		done, err := intent.RecordAll(ctx, u.options.Revoker, i, u.options.Now(), u.options.IssuerSkew)
		for _, d := range done {
			x.outcome.add(d.Request, d.Receipt)
		}
		return err
	})
	x.outcome.Latency.Ledger = u.options.Now().Sub(start)
	if err != nil {
		u.log.LogAttrs(ctx, slog.LevelWarn, "revocation not recorded yet; it is tried again until it is", slog.Any("error", err))
		x.outcome.Result = ResultUnavailable
		return unavailable("the revocation is not recorded yet; try again", u.options.RetryAfter)
	}
	x.outcome.Result = ResultRevoked
	return nil
}

// drop ends a request of which nothing is recorded. The outcome keeps why nothing
// would have been anyhow.
func (x *passage) drop(result Result) {
	if x.entry != nil {
		x.entry.Drop()
	}
	x.outcome.Result = result
}

// leave ends a request whose outcome nobody knows.
func (x *passage) leave(result Result) {
	if x.entry != nil {
		token := ""
		if x.active {
			token = x.request.token
		}
		x.entry.Leave(token)
	}
	x.outcome.Result = result
}
