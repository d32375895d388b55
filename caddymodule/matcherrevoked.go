package caddymodule

import (
	"errors"
	"fmt"
	"net/http"
	"time"

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
// app's policy is to fail open.
type MatchRevoked struct {
	// Where else tokens may be, as with the handler. strip has the same effect as
	// not to look there.
	Places []TokenPlace `json:"places,omitempty"`

	// The issuer of opaque tokens. Without it, they do not match.
	OpaqueIssuer string `json:"opaque_issuer,omitempty"`

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
	m.judge = &Denylist{OpaqueIssuer: m.OpaqueIssuer, app: m.app, logger: ctx.Logger()}
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
	revoked, unverified := m.isRevoked(r, presented.Token)
	if revoked {
		return true, nil
	}
	policy := m.app.Stale
	if err := m.app.replica.unproven(time.Duration(policy.MaxAge), unverified); err != nil && !policy.FailOpen {
		return false, caddyhttp.Error(http.StatusServiceUnavailable, err)
	}
	return false, nil
}

// isRevoked asks the denylist about the token, as the handler does. If it is not
// good, what it says of itself still counts: whoever changes the signature of a
// revoked token changes nothing about that. A revoked signing key is known by the
// signature only; unverified says that there was none to go by.
func (m *MatchRevoked) isRevoked(r *http.Request, token string) (revoked, unverified bool) {
	switch v := m.judge.judge(r.Context(), token); v.result {
	case denied:
		return true, false
	case allowed:
		return false, false
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
		return id != nil && list.Check(id).Denied, unverified
	}
	return false, true
}

// UnmarshalCaddyfile parses the matcher. Syntax:
//
//	token_revoked {
//		inspect|reject header <name>|cookie <name>|query [<name>]|form [<name>]
//		opaque_issuer  <issuer>
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
			default:
				err = unknownOption(d, "inspect, strip, reject, opaque_issuer")
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
