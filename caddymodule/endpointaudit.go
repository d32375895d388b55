package caddymodule

import (
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
)

// observe is told of every request once it was answered. It counts it, writes its
// line of the audit trail, and announces it.
func (e *Endpoint) observe(o oauth.Outcome) {
	e.app.metrics.endpoint.WithLabelValues(string(o.Result)).Inc()
	e.stats.observe(&o)
	level := zap.DebugLevel
	if e.Audit == "all" || hasEffect(&o) {
		level = zap.InfoLevel
	}
	if c := e.logger.Check(level, "token revocation request"); c != nil {
		c.Write(auditFields(&o)...)
	}
	for _, d := range o.Decisions {
		e.app.replica.announce("token_revoked", map[string]any{
			"id": d.ID, "sequence": d.Sequence, "criteria": d.Criteria.String(), "mode": d.Mode.String(),
			"client_id": o.ClientID, "issuer": o.Issuer, "owner": o.Owner,
			"result": string(o.Result), "reason": o.Reason, "duration": o.Duration.Seconds(),
		})
	}
	// Not of requests that nobody authenticated: whoever sends a flood of them
	// would push the events out that matter.
	if len(o.Decisions) == 0 && o.Result != oauth.ResultRevoked && level == zap.InfoLevel && o.ClientID != "" {
		e.app.replica.announce("token_revocation_refused", map[string]any{
			"result": string(o.Result), "status": o.Status, "reason": o.Reason, "policy": o.Policy, "duration": o.Duration.Seconds(),
			"criteria": criteriaText(o.Token), "client_id": o.ClientID, "issuer": o.Issuer, "owner": o.Owner,
		})
	}
}

// hasEffect tells the requests that an operator wants to know of from those that
// changed nothing, or in which only the client was at fault. A client that has the
// token of another one is no such fault: where from?
func hasEffect(o *oauth.Outcome) bool {
	switch o.Result {
	case oauth.ResultRevoked, oauth.ResultPolicySkipped, oauth.ResultPolicyRefused, oauth.ResultPolicyFailed,
		oauth.ResultUnavailable, oauth.ResultNotOwner:
		return true
	default:
		return len(o.Decisions) > 0
	}
}

// auditFields describe a request. None holds a token or a secret, nor anything
// that a client wrote which was not authenticated.
func auditFields(o *oauth.Outcome) []zapcore.Field {
	fields := []zapcore.Field{
		zap.String("result", string(o.Result)),
		zap.Int("status", o.Status),
	}
	text := func(name, value string) {
		if value != "" {
			fields = append(fields, zap.String(name, value))
		}
	}
	text("reason", o.Reason)
	text("policy", o.Policy)
	text("client_id", o.ClientID)
	text("issuer", o.Issuer)
	text("auth_method", string(o.Method))
	if o.ClientIP.IsValid() {
		fields = append(fields, zap.Stringer("client_ip", o.ClientIP))
	}
	if o.PlainHTTP {
		fields = append(fields, zap.Bool("plain_http", true))
	}
	text("criteria", criteriaText(o.Token))
	if o.Token.Issuer != "" {
		text("use", o.Use.String())
	}
	if o.Owner != o.ClientID {
		text("owner", o.Owner)
	}
	if len(o.Decisions)+len(o.Stood) > 0 {
		fields = append(fields, zap.String("cascade", string(o.Cascade)))
	}
	if len(o.Decisions) > 0 {
		fields = append(fields, zap.Array("decisions", decisions(o.Decisions)))
	}
	if len(o.Stood) > 0 {
		fields = append(fields, zap.Array("stood", decisions(o.Stood)))
	}
	return append(fields,
		zap.Duration("duration", o.Duration),
		zap.Duration("client_duration", o.Latency.Client),
		zap.Duration("token_duration", o.Latency.Token),
		zap.Duration("policy_duration", o.Latency.Policy),
		zap.Duration("ledger_duration", o.Latency.Ledger),
		zap.Duration("apply_duration", o.Latency.Apply),
	)
}

func criteriaText(c revocation.Criteria) string {
	if c.Issuer == "" {
		return ""
	}
	return c.String()
}

type decisions []oauth.Decision

// MarshalLogArray implements zapcore.ArrayMarshaler.
func (list decisions) MarshalLogArray(enc zapcore.ArrayEncoder) error {
	for _, d := range list {
		err := enc.AppendObject(zapcore.ObjectMarshalerFunc(func(enc zapcore.ObjectEncoder) error {
			if d.ID != "" {
				enc.AddString("id", d.ID)
			}
			enc.AddUint64("sequence", d.Sequence)
			enc.AddString("criteria", d.Criteria.String())
			enc.AddString("mode", d.Mode.String())
			return nil
		}))
		if err != nil {
			return err
		}
	}
	return nil
}
