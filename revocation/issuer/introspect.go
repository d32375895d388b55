package issuer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/internal/turns"
)

// Errors of [Introspector.Introspect], besides [ErrNotAToken], [ErrMalformed],
// [ErrUnknownIssuer], [ErrInvalid] and [ErrNotYetValid]. No error text holds a
// token, a credential, or anything that the endpoint has sent.
var (
	// ErrInactive says that the authorization server does not know the token, or
	// no longer, or not for us (RFC 7662, section 2.2), or that exp is over.
	ErrInactive = errors.New("inactive token")
	// ErrIntrospectionUnavailable says that nothing is known: the authorization
	// server could not be asked, or what it said is no answer. Answer 503, never
	// 401 or a revocation's 200.
	ErrIntrospectionUnavailable = errors.New("introspection is unavailable")
	// ErrUnnameable says that the token is active, and that a claim which the caller
	// has asked for by name can't be compared with a revocation: it is too long,
	// say. Its errors wrap [ErrIntrospectionUnavailable], too. The answer is kept.
	ErrUnnameable = errors.New("unnameable claim")
)

// TokenUse is what a token is for, as far as the authorization server tells.
type TokenUse uint8

const (
	UseUnknown TokenUse = iota // not told
	UseAccess                  // an access token
	UseRefresh                 // a refresh token
	UseOther                   // something else, such as an ID token
)

// String returns "unknown", "access", "refresh" or "other".
func (u TokenUse) String() string {
	switch u {
	case UseUnknown:
		return "unknown"
	case UseAccess:
		return "access"
	case UseRefresh:
		return "refresh"
	case UseOther:
		return "other"
	default:
		return fmt.Sprintf("TokenUse(%d)", uint8(u))
	}
}

// IntrospectionRequest says how to ask about a token. The zero value is what
// enforcement needs: everything is checked, and a kept answer will do.
type IntrospectionRequest struct {
	// ClaimNames are canonical claim names to extract besides jti, sub,
	// client_id, sid and token. Other names than before do not cause another
	// question.
	ClaimNames []string
	// Hint is the token_type_hint to send: access_token, refresh_token, or
	// nothing. Other values are not sent.
	Hint string
	// MaxAge is how old a kept answer may be. Zero or more than cache_ttl means
	// cache_ttl. A negative value asks now, with a question of one's own: the
	// answer is newer than the call.
	MaxAge time.Duration
	// AnyUse accepts tokens that are told not to be access tokens, as a
	// revocation endpoint has to. Without it, they are [ErrInvalid].
	AnyUse bool
	// IgnoreAudience accepts tokens that are meant for others.
	IgnoreAudience bool
	// IgnoreExpiry accepts tokens without exp, those that live for longer than
	// the issuer's access tokens, and those that are not valid yet. One whose exp
	// is over is inactive all the same.
	IgnoreExpiry bool
	// Source is the address of whoever has presented the token, if it is known.
	// When more is asked than the authorization server may be asked at once,
	// networks (IPv4 addresses, the /64 of IPv6 addresses, and all whose address
	// is not known together) take turns.
	Source netip.Addr
}

// Introspection is what is known of a token that is active.
type Introspection struct {
	// Identity is Verified: not by a signature, but because the authorization
	// server vouches for it. Its claims are those of the answer under the
	// issuer's claim map. It has no kid, so revocations of a signing key do not
	// match it. IssuedAt is zero if the server does not tell, which every cutoff
	// denies. It is shared and must not be changed.
	Identity *revocation.Identity
	// Use is what the token is for.
	Use TokenUse
	// Asked is when the authorization server was asked.
	Asked time.Time
	// Response is the JSON object that was answered, without duplicate names.
	// It is shared and must not be changed. It holds personal data.
	Response json.RawMessage
}

// Introspector asks one authorization server about its tokens (RFC 7662), and
// keeps the answers for a short while. All methods are safe for concurrent use.
type Introspector struct {
	issuer    *Issuer
	config    IntrospectionConfig // with defaults
	client    *http.Client
	transport *http.Transport // our own, or nil
	auth      clientAuth
	endpoint  *endpointSource
	breaker   breaker
	turns     *turns.Limiter // a slot for each question that is being asked
	lastError atomic.Pointer[string]
	away      atomic.Bool // why is [ErrUnreachable]
	counts    introspectionCounts
	durations durationCounts

	ctx    context.Context // of all flights
	cancel context.CancelCauseFunc
	flying sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	seq      uint64
	cache    answerCache
	running  map[*introspectionFlight]struct{}
	joinable map[flightKey]*introspectionFlight // those of running that callers may still join
}

type introspectionCounts struct {
	asked, active, inactive, failed, hits, shared, refused, purged, opened atomic.Uint64
}

// NewIntrospector returns what asks about the tokens of the issuer, as c says.
// It does no I/O. Signed answers are verified with the issuer's keys, so it has
// to be started. The issuer's clock and logger are used.
//
// The client may be nil. Of a given one, the transport is used: no redirects are
// followed, no cookies kept, and the timeout is that of c. The error says what is
// wrong with c and holds no secret.
func NewIntrospector(i *Issuer, c IntrospectionConfig, client *http.Client) (*Introspector, error) {
	c = c.withDefaults(i.config.Issuer)
	if err := c.validate(i.config); err != nil {
		return nil, err
	}
	n := &Introspector{
		issuer:  i,
		config:  c,
		breaker: breaker{limit: c.BreakerFailures, cooldown: time.Duration(c.BreakerCooldown), now: i.now},
		turns: turns.New(turns.Options{
			Slots: c.MaxConcurrent, Wait: time.Duration(c.Timeout) / maxWaitPart, Queue: maxWaiting,
		}),
		cache:    newAnswerCache(time.Duration(c.CacheTTL), c.CacheSize),
		running:  make(map[*introspectionFlight]struct{}),
		joinable: make(map[flightKey]*introspectionFlight),
	}
	n.client, n.transport = newIntrospectionClient(client, c.MaxConcurrent)
	var err error
	if n.auth, err = newClientAuth(c, i.now); err != nil {
		return nil, err
	}
	if n.endpoint, err = newEndpointSource(c, i, n.client); err != nil {
		return nil, err
	}
	n.ctx, n.cancel = context.WithCancelCause(context.Background())
	return n, nil
}

// Issuer returns the issuer whose tokens are asked about.
func (n *Introspector) Issuer() *Issuer { return n.issuer }

// Introspect returns what is known of an active token. For any other, and if
// nothing is known, it returns one of the errors that [ErrInactive] and
// [ErrIntrospectionUnavailable] are declared with; each wraps exactly one of them.
//
// A JWT of another issuer and what looks like a broken JWT are refused and sent
// to nobody. Questions about the same token at the same time are asked once;
// when ctx ends, only this caller stops waiting. There are no retries: a caller
// that gets [ErrIntrospectionUnavailable] has to decide. One whose question does not
// get its turn in half of the timeout, or at once if too many wait already, gets
// it, too.
func (n *Introspector) Introspect(ctx context.Context, token string, req IntrospectionRequest) (Introspection, error) {
	switch {
	case token == "" || len(token) > maxToken:
		return Introspection{}, ErrNotAToken
	case req.Hint != "access_token" && req.Hint != "refresh_token":
		req.Hint = ""
	}
	if req.MaxAge == 0 {
		req.MaxAge = MaxIntrospectionTTL
	}
	a, f, err := n.board(token, req)
	switch {
	case err != nil:
		return Introspection{}, err
	case a != nil:
		return n.judge(a, req)
	}
	defer n.leave(f)
	if err := n.await(ctx, f); err != nil {
		return Introspection{}, err
	}
	return n.judge(f.answer, req)
}

// await waits until the flight has ended, and returns its error. Of a question
// that had to wait for its turn, only the caller gives up when the timeout is
// over: the server has as much time for it as for any other, and is not to blame
// before that is over, too.
func (n *Introspector) await(ctx context.Context, f *introspectionFlight) error {
	patience := time.NewTimer(time.Duration(n.config.Timeout))
	defer patience.Stop()
	for {
		select {
		case <-f.done:
			if errors.Is(f.err, errNoTurn) {
				n.counts.refused.Add(1)
			}
			return f.err
		case <-ctx.Done():
			return unavailable("%w", context.Cause(ctx))
		case <-patience.C:
			if f.waited.Load() {
				return unavailable("no answer within %s, the wait for its turn included", n.config.Timeout)
			}
		}
	}
}

// judge tells whether what is known of the token is good enough for req.
func (n *Introspector) judge(a *activeAnswer, req IntrospectionRequest) (Introspection, error) {
	i := n.issuer
	v, err := i.viewOf(a, req.ClaimNames)
	if err != nil {
		return Introspection{}, err
	}
	if req.IgnoreExpiry {
		err = i.checkExpired(a.expiry)
	} else {
		err = i.checkTimes(times{iat: v.id.IssuedAt, nbf: v.id.NotBefore, exp: v.id.Expiry}, false)
		if errors.Is(err, ErrExpired) { // while the answer was kept, or on its way
			err = errOver
		}
	}
	if err != nil {
		return Introspection{}, err
	}
	if !req.AnyUse && a.use > UseAccess {
		return Introspection{}, invalidError("it is not an access token")
	}
	if !req.IgnoreAudience && v.audience != nil {
		return Introspection{}, v.audience
	}
	return Introspection{Identity: v.id, Use: a.use, Asked: a.asked, Response: a.text}, nil
}

// Close takes all questions back, waits until they have ended and forgets all
// answers. Whoever waits or asks later gets [ErrIntrospectionUnavailable].
func (n *Introspector) Close() {
	n.mu.Lock()
	n.closed = true
	n.cache = newAnswerCache(0, 0)
	n.mu.Unlock()
	n.cancel(errIntrospectClosed)
	n.flying.Wait()
	if n.transport != nil {
		n.transport.CloseIdleConnections()
	}
}

// IntrospectionStatus describes an Introspector for operators and metrics. The
// counters only grow.
type IntrospectionStatus struct {
	// Endpoint is the address that is asked, empty if it was not discovered yet.
	Endpoint string
	// Breaker says whether anything is asked at all, and Failures how many
	// questions failed in a row.
	Breaker  BreakerState
	Failures int
	// LastError is why the last failed question failed, empty if none ever did.
	LastError string
	// Running counts the questions on their way or waiting for their turn.
	Running int
	// Answers and Bytes are those that are kept.
	Answers int
	Bytes   int64

	Asked    uint64 // questions sent
	Active   uint64 // of these, answered active
	Inactive uint64 // answered inactive, or active and over
	Failed   uint64 // not answered, or not usably
	Hits     uint64 // callers who got a kept answer
	Shared   uint64 // callers who joined another's question
	Refused  uint64 // callers turned away: open breaker, or no turn in time
	Purged   uint64 // answers forgotten by Purge and PurgeToken
	Opened   uint64 // how often the breaker has opened

	// Durations are those of all questions that were sent.
	Durations Durations
}

// Status returns the present state.
func (n *Introspector) Status() IntrospectionStatus {
	c := &n.counts
	s := IntrospectionStatus{
		Asked: c.asked.Load(), Active: c.active.Load(), Inactive: c.inactive.Load(), Failed: c.failed.Load(),
		Hits: c.hits.Load(), Shared: c.shared.Load(), Refused: c.refused.Load(), Purged: c.purged.Load(), Opened: c.opened.Load(),
	}
	s.Breaker, s.Failures = n.breaker.status()
	s.Durations = n.durations.read()
	if last := n.lastError.Load(); last != nil {
		s.LastError = *last
	}
	if u, _ := n.endpoint.known(); u != nil {
		s.Endpoint = u.String()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	s.Running, s.Answers, s.Bytes = len(n.running), len(n.cache.bySum), n.cache.size
	return s
}

// reasonUnavailable returns an error's text without the class.
func reasonUnavailable(err error) string {
	return strings.TrimPrefix(err.Error(), ErrIntrospectionUnavailable.Error()+": ")
}
