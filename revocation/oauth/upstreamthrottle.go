package oauth

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation/internal/turns"
)

// What an [Upstream] bounds before the authorization server has authenticated
// anybody. Each token costs a question to that server, with this edge's own
// credentials, and the enforcement has to ask it, too.
const (
	// upstreamFailures is how often a minute the server may refuse a client from
	// one network, or what it sends may be no token at all.
	upstreamFailures = 60
	// upstreamDeadTokens is how often a minute there may be nothing to revoke. A
	// client that gives its tokens back after they have ended does nothing wrong.
	upstreamDeadTokens = 600
	// upstreamQuestions is how many tokens are resolved at the same time.
	upstreamQuestions = 8
	// upstreamQueue is how many requests may wait for that, and
	// upstreamNetworkQueue how many of one network: a client that revokes all that
	// it has is not to be refused.
	upstreamQueue        = 1024
	upstreamNetworkQueue = 256
)

// upstreamThrottle counts requests that revoke nothing.
type upstreamThrottle struct{ failures, dead *throttle }

func newUpstreamThrottle(now func() time.Time) *upstreamThrottle {
	return &upstreamThrottle{newThrottle(upstreamFailures, now), newThrottle(upstreamDeadTokens, now)}
}

func newUpstreamTurns(wait time.Duration) *turns.Limiter {
	return turns.New(turns.Options{
		Slots: upstreamQuestions, Wait: wait, Queue: upstreamQueue, NetworkQueue: upstreamNetworkQueue,
	})
}

// throttled returns the answer to a client that has failed too often from where it
// is. It is nil if it may go on.
func (u *Upstream) throttled(x *passage) *answer {
	t := u.guard.passing
	if t == nil {
		return nil
	}
	var wait time.Duration
	for _, client := range x.request.clients {
		if k, ok := throttleKeyOf(client, x.outcome.ClientIP); ok {
			wait = max(wait, t.failures.blocked(k), t.dead.blocked(k))
		}
	}
	if wait == 0 {
		return nil
	}
	return tooMany("too many requests that revoke nothing", wait)
}

// count counts a request that has revoked nothing.
func (u *Upstream) count(x *passage) {
	t := u.guard.passing
	if t == nil || x.request == nil {
		return
	}
	by := t.dead
	switch x.outcome.Result {
	case ResultTokenInvalid:
		if !x.dead {
			by = t.failures
		}
	case ResultServerRefused:
		if s := x.outcome.Status; s == http.StatusUnauthorized || s == http.StatusForbidden {
			by = t.failures
		}
	case ResultTokenExpired, ResultTokenUnsupported, ResultNotOwner, ResultStillActive, ResultRechecked,
		ResultAmbiguousClient, ResultServerUnclear:
	default:
		return
	}
	for _, client := range x.request.clients {
		if k, ok := throttleKeyOf(client, x.outcome.ClientIP); ok {
			by.failed(k)
		}
	}
}

// turn waits until a token may be resolved. The caller calls release after that.
func (u *Upstream) turn(ctx context.Context, from netip.Addr) (release func(), refusal *answer) {
	release, err := u.turns.Acquire(ctx, from)
	switch {
	case errors.Is(err, turns.ErrCrowded):
		return nil, tooMany("too many tokens at once from this network", u.options.RetryAfter)
	case err != nil:
		return nil, unavailable("too many tokens are verified at once", u.options.RetryAfter)
	default:
		return release, nil
	}
}
