package caddymodule

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
)

func init() {
	caddy.RegisterModule(MatchRevoked{})
}

// MatchRevoked matches requests whose access token is revoked, wherever the
// configuration wants to know: to answer them in another way than
// `token_denylist` does, to log them elsewhere, to send them to another upstream.
// It works with and without that handler.
//
// It does not say whether a token is valid: a request without a token, or with
// one that is no good for another reason, does not match. Whether it matches
// where that can't be told is an error, which ends the request: 400 if there is
// not exactly one token, 503 while this edge is stale or incomplete, unless the
// app's policy is to fail open. A matcher can't set header fields: what
// token_denylist adds to such answers, handle_errors has to add to these.
type MatchRevoked struct {
	// Where else tokens may be, as with the handler. strip has the same effect as
	// not to look there.
	Places []TokenPlace `json:"places,omitempty"`

	// The issuer of opaque tokens. Without it, they do not match. Without introspect,
	// they match only if they are revoked by their hash: revocations by user, session
	// or client do not match them.
	OpaqueIssuer string `json:"opaque_issuer,omitempty"`

	// Ask the issuer of opaque tokens about them, as the handler does: revocations
	// by any claim then match. An issuer that can't be asked is an error, too, 503.
	Introspect *IntrospectTokens `json:"introspect,omitempty"`

	app    *App
	places *oauth.Places
	judge  *Denylist // judges tokens by the defaults
}

// CaddyModule returns the Caddy module information.
func (MatchRevoked) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.matchers.token_revoked",
		New: func() caddy.Module { return new(MatchRevoked) },
	}
}

// Provision looks the app up.
func (m *MatchRevoked) Provision(ctx caddy.Context) error {
	var err error
	if m.app, err = configuredApp(ctx); err != nil {
		return err
	}
	if m.Introspect != nil && m.Introspect.TTL < 0 {
		return errors.New("token_revoked: introspect: the time must not be negative")
	}
	m.judge = &Denylist{OpaqueIssuer: m.OpaqueIssuer, Introspect: m.Introspect, app: m.app, logger: ctx.Logger()}
	if err := m.judge.provisionOpaque(); err != nil {
		return fmt.Errorf("token_revoked: %w", err)
	}
	m.places, err = newPlaces(m.Places)
	return err
}

// Match returns true if the request's token is revoked, and false if that can't
// be told.
func (m *MatchRevoked) Match(r *http.Request) bool {
	match, err := m.MatchWithError(r)
	return match && err == nil
}

// MatchWithError returns true if the request's token is revoked.
func (m *MatchRevoked) MatchWithError(r *http.Request) (bool, error) {
	presented, err := m.places.Read(r)
	switch {
	case errors.Is(err, oauth.ErrNoToken):
		return false, nil
	case err != nil:
		status, _ := malformedAnswer(err)
		return false, caddyhttp.Error(status, err)
	}
	revoked, unverified, err := m.isRevoked(r, presented.Token)
	switch {
	case err != nil:
		return false, untold(r, unaskable, err)
	case revoked:
		return true, nil
	}
	policy := m.app.Stale
	if err := m.app.replica.unproven(time.Duration(policy.MaxAge), unverified); err != nil && !policy.FailOpen {
		return false, untold(r, stale, err)
	}
	return false, nil
}

// untold is the error of a request of which it can't be told whether its token is
// revoked. Why is in the log.
func untold(r *http.Request, result result, err error) error {
	if extra, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		extra.Set(zap.Dict("token_revoked", zap.Stringer("decision", result), zap.String("reason", err.Error())))
	}
	return caddyhttp.Error(http.StatusServiceUnavailable, &refusal{result, err})
}

// isRevoked asks the denylist about the token, as the handler does. If it is not
// good, what it says of itself still counts: whoever changes the signature of a
// revoked token changes nothing about that. A revoked signing key is known by the
// signature only; unverified says that there was none to go by. The error says that
// its issuer could not be asked.
func (m *MatchRevoked) isRevoked(r *http.Request, token string) (revoked, unverified bool, err error) {
	switch v := m.judge.judge(r.Context(), token); v.result {
	case denied:
		return true, false, nil
	case allowed:
		return false, false, nil
	case unaskable:
		return false, false, v.err
	case unverifiable, unknownIssuer:
		unverified = true
	}
	list := m.app.replica.denylist
	for range 3 {
		names, epoch := list.ClaimNames()
		id, _ := m.app.identify(r.Context(), token, issuer.Request{ClaimNames: names, SkipVerify: true})
		if _, now := list.ClaimNames(); now != epoch {
			continue
		}
		return id != nil && list.Check(id).Denied, unverified, nil
	}
	return false, true, nil
}

// UnmarshalCaddyfile parses the matcher. Syntax:
//
//	token_revoked {
//		inspect|reject header <name>|cookie <name>|query [<name>]|form [<name>]
//		opaque_issuer  <issuer>
//		introspect     [<ttl>] [fail_open]
//	}
func (m *MatchRevoked) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	for d.Next() {
		if d.NextArg() {
			return d.ArgErr()
		}
		for d.NextBlock(0) {
			var err error
			switch d.Val() {
			case "inspect", "strip", "reject":
				err = unmarshalPlace(d, &m.Places)
			case "opaque_issuer":
				err = stringOption(d, &m.OpaqueIssuer)
			case "introspect":
				err = unmarshalIntrospectTokens(d, &m.Introspect)
			default:
				err = unknownOption(d, "inspect, strip, reject, opaque_issuer, introspect")
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner                 = (*MatchRevoked)(nil)
	_ caddyhttp.RequestMatcherWithError = (*MatchRevoked)(nil)
	_ caddyfile.Unmarshaler             = (*MatchRevoked)(nil)
)
