package caddymodule

import (
	"go.uber.org/zap"

	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
)

// observe is told of every request once it was answered. It counts it, writes its
// line of the audit trail, and announces it, as the endpoint does.
func (u *Upstream) observe(o oauth.Outcome) {
	u.state.requests.WithLabelValues(string(o.Result)).Inc()
	if o.Result != oauth.ResultPassedBy {
		u.state.seconds.WithLabelValues("total").Observe(o.Duration.Seconds())
	}
	if took := o.Latency.Token; took > 0 {
		u.state.seconds.WithLabelValues("token").Observe(took.Seconds())
	}
	if took := o.Latency.Ledger; took > 0 {
		u.state.seconds.WithLabelValues("ledger").Observe(took.Seconds())
	}
	level := zap.DebugLevel
	if u.Audit == "all" || upstreamEffect(&o) {
		level = zap.InfoLevel
	}
	if c := u.logger.Check(level, "token revocation passed through"); c != nil {
		c.Write(auditFields(&o)...)
	}
	for _, d := range o.Decisions {
		u.app.replica.announce("token_revoked", map[string]any{
			"id": d.ID, "sequence": d.Sequence, "criteria": d.Criteria.String(), "mode": d.Mode.String(),
			"client_id": o.ClientID, "issuer": o.Issuer, "owner": o.Owner,
			"result": string(o.Result), "reason": o.Reason, "duration": o.Duration.Seconds(),
		})
	}
}

// upstreamEffect tells the requests that an operator wants to know of from those
// that changed nothing, or in which only the client was at fault.
func upstreamEffect(o *oauth.Outcome) bool {
	switch o.Result {
	case oauth.ResultRechecked, oauth.ResultStillActive, oauth.ResultServerUnclear, oauth.ResultServerFailed,
		oauth.ResultIntentFailed, oauth.ResultAmbiguousClient:
		return true
	default:
		return hasEffect(o)
	}
}
