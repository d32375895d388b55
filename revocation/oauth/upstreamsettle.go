package oauth

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation/intent"
)

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
		x.refuse(ResultServerFailed)
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
		return u.record(ctx, x)
	}
	if !x.recheck || u.options.Recheck == nil {
		return nil
	}
	if err := u.options.Recheck(ctx, x.outcome.Issuer); err != nil {
		u.log.LogAttrs(ctx, slog.LevelWarn, "introspected tokens can't be made to be asked about again", slog.Any("error", err))
		x.outcome.Result = ResultUnavailable
		return unavailable("the revocation was not recorded; try again", u.options.RetryAfter)
	}
	x.outcome.Result = ResultRechecked
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

// record makes the revocation durable, and has the issuer's tokens asked about
// again if that goes with it.
func (u *Upstream) record(ctx context.Context, x *passage) *answer {
	e := x.entry
	x.entry = nil
	_ = e.Accept() // logged there, and recorded all the same
	start := u.options.Now()
	err := e.Record(ctx, func(ctx context.Context, i *intent.Intent) error {
		what := *i
		if x.alone {
			what.Requests = i.Requests[:1]
		}
		done, err := intent.RecordAll(ctx, u.options.Revoker, &what, u.options.Now(), u.options.IssuerSkew)
		for _, d := range done {
			x.outcome.add(d.Request, d.Receipt)
		}
		if err == nil && (i.Recheck || x.recheck) && u.options.Recheck != nil {
			err = u.options.Recheck(ctx, i.Issuer)
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
	if e := x.entry; e != nil {
		x.entry = nil
		e.Drop()
	}
	x.outcome.Result = result
}

// leave ends a request whose outcome nobody knows.
func (x *passage) leave(result Result) {
	if e := x.entry; e != nil {
		x.entry = nil
		token := ""
		if x.active {
			token = x.request.token
		}
		e.Leave(token)
	}
	x.outcome.Result = result
}

// refuse ends a request that was not answered by the authorization server, which
// may have it all the same if somebody has read the body.
func (x *passage) refuse(result Result) {
	if x.read.Load() {
		x.leave(result)
	} else {
		x.drop(result)
	}
}
