package caddymodule

import (
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// introspection returns the lines that have the issuer asked about its tokens.
func (r *conformanceRig) introspection(c *conformanceCase) string {
	if c.Introspection == "" {
		return ""
	}
	tokens := "all"
	if c.Introspection == "access" {
		tokens = "access"
	}
	return fmt.Sprintf(`introspection %s%s {
				client_id edge
				client_secret {env.CONFORMANCE_EDGE}
				tokens %s
			}
			refresh_types RT`, r.opaque.URL, revocationtest.IntrospectPath, tokens)
}

// introspect returns the line that has the protected route take opaque tokens, and
// ask about them unless only the endpoint does.
func (r *conformanceRig) introspect(c *conformanceCase) string {
	switch c.Introspection {
	case "":
		return ""
	case "endpoint":
		return "opaque_issuer " + r.as.URL
	default:
		return "introspect"
	}
}

// issueOpaque makes the tokens of the case that only their authorization server
// understands.
func (r *conformanceRig) issueOpaque(c *conformanceCase, user, session string) {
	issue := func(members map[string]any) string {
		full := map[string]any{"iss": r.as.Issuer(), "sub": user, "sid": session}
		maps.Copy(full, members)
		return r.opaque.Issue(full)
	}
	maps.Copy(r.tokens, map[string]string{
		// Its jti is known to those who ask only.
		"OAT":          issue(map[string]any{"jti": "jti-" + session}),
		"FOREIGN_OAT":  issue(map[string]any{"client_id": "other"}),
		"SESSION2_OAT": issue(map[string]any{"sid": session + "-other"}),
		"PUB_OAT":      issue(map[string]any{"client_id": "spa"}),
	})
	month := time.Now().Add(30 * 24 * time.Hour).Unix()
	refresh := func(members map[string]any) string {
		full := map[string]any{"token_type": nil, "token_use": "refresh_token", "exp": month}
		maps.Copy(full, members)
		return issue(full)
	}
	r.others = map[string]string{
		"RT":         refresh(nil),
		"PUB_RT":     refresh(map[string]any{"client_id": "spa"}),
		"FOREIGN_RT": refresh(map[string]any{"client_id": "other"}),
		"OFFLINE_RT": refresh(map[string]any{"token_use": nil, "typ": "Offline", "exp": nil}),
		// Of this one the server says no more than that it lives for a month.
		"LONG_RT": refresh(map[string]any{"token_use": nil, "token_type": "Bearer"}),
		// And of this one, not even that.
		"SHORT_RT":  refresh(map[string]any{"token_use": nil, "exp": time.Now().Add(time.Hour).Unix()}),
		"GRANTLESS": refresh(map[string]any{"sub": nil, "sid": nil}),
		"OWNERLESS": refresh(map[string]any{"client_id": nil}),
		"JWT_RT": revocationtest.SignWith(r.t, r.as.Key("ES256"), map[string]any{"typ": "JWT"},
			r.as.Claims(map[string]any{"typ": "RT", "sub": user, "sid": session, "exp": month})),
	}
	// Keycloak signs refresh tokens with a key of its own, which nobody else has.
	mac := jose.JSONWebKey{Key: []byte(strings.Repeat("k", 64)), KeyID: "realm", Algorithm: "HS512"}
	claims := r.as.Claims(map[string]any{"typ": "Refresh", "sub": user, "sid": session, "exp": month})
	r.others["MAC_RT"] = revocationtest.SignWith(r.t, mac, map[string]any{"typ": "JWT"}, claims)
	r.opaque.Know(r.others["MAC_RT"], claims)
	dead := r.opaque.Issue(nil)
	r.opaque.Kill(dead)
	r.others["DEAD_RT"] = dead
	switch c.Introspection {
	case "down":
		r.opaque.Fail(http.StatusInternalServerError)
	case "access":
		for name, token := range r.others {
			if name != "JWT_RT" {
				r.opaque.Kill(token)
			}
		}
	}
}
