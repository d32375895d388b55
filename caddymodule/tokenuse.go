package caddymodule

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
)

// introspectAnyHint asks about a token, and once more without the hint if the
// answer is that it is not active. The hint must not limit the server's search (RFC
// 7662, section 2.1), but with some it does: a live refresh token that its client
// calls an access token would be taken for a dead one (RFC 7009, section 2.1).
func introspectAnyHint(
	ctx context.Context, n *issuer.Introspector, token string, req issuer.IntrospectionRequest,
) (issuer.Introspection, error) {
	if req.Hint != "access_token" && req.Hint != "refresh_token" {
		req.Hint = "" // not sent: the second question would be the first one
	}
	answer, err := n.Introspect(ctx, token, req)
	if req.Hint == "" || !errors.Is(err, issuer.ErrInactive) {
		return answer, err
	}
	req.Hint = ""
	return n.Introspect(ctx, token, req)
}

// useOfVerified returns what a JWT is for that the keys of its issuer have
// verified, and that is not known to be a refresh token: by the same facts as one
// that is asked about. Where nothing is told, its client's word counts, and is all
// that there is; see [oauth.Resolved.IsRefresh].
func useOfVerified(token, hint string, id *revocation.Identity, claims map[string]any, c issuer.Config) oauth.TokenUse {
	jwt, err := issuer.ReadJWT(token)
	if err != nil { // verified before: cannot happen
		return oauth.UseUnknown
	}
	isAccepted := func(t string) bool { return strings.TrimPrefix(strings.ToLower(t), "application/") == jwt.Type() }
	switch {
	case jwt.Type() != "jwt" && slices.ContainsFunc(c.Types, isAccepted), jwt.Type() == "at+jwt",
		jwt.Use() == issuer.UseAccess && !saysBearerOnly(claims):
		return oauth.UseAccess
	case outlivesAccessTokens(id, time.Now(), c):
		return oauth.UseRefresh
	case hint == "refresh_token":
		return oauth.UseUnknown
	default:
		return oauth.UseAccess
	}
}

// saysBearerOnly tells whether all that an answer says of the token's use is a
// token_type like Bearer. That is meant for access tokens (RFC 6749, section 7.1);
// but a server that keeps both tokens of a grant in one record, as Doorkeeper does,
// may write it for refresh tokens, too.
func saysBearerOnly(answer map[string]any) bool {
	for _, name := range []string{"token_use", "typ"} {
		if _, says := answer[name].(string); says {
			return false
		}
	}
	kind, _ := answer["token_type"].(string)
	switch strings.ToLower(kind) {
	case "bearer", "dpop", "pop", "mac":
		return true
	}
	return false
}

// outlivesAccessTokens tells whether no edge would take the token for one of the
// issuer's access tokens, because it lived for too long when that was looked at:
// then it is a refresh token.
func outlivesAccessTokens(id *revocation.Identity, at time.Time, c issuer.Config) bool {
	if id.Expiry == 0 {
		return !c.AllowMissingExpiry
	}
	most, leeway := int64(time.Duration(c.MaxTokenLifetime)/time.Second), int64(time.Duration(c.Leeway)/time.Second)
	return id.IssuedAt != 0 && id.Expiry-id.IssuedAt > most || id.Expiry-at.Unix() > most+leeway
}
