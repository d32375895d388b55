//go:build e2e

package e2e

import (
	"net/http"

	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// What the recipes' pages say of products that are not tried themselves. Where a
// page says nothing, the stand-in does what RFC 7009 and RFC 7662 have.

// ownOnly revokes a client's own tokens, and refuses all others.
func ownOnly(client string, t revocationtest.ProductToken) (bool, int, string) {
	if client != t.Client {
		return false, http.StatusBadRequest, `{"error":"invalid_request"}`
	}
	return true, http.StatusOK, ""
}

// keycloak is as since version 26.6.2; before, it told everybody of refresh tokens.
func keycloakShape(tellsEverybody bool) revocationtest.Shape {
	claims := func(t revocationtest.ProductToken) map[string]any {
		kind := "Bearer"
		if t.Refresh {
			kind = "Refresh"
		}
		return map[string]any{"jti": t.ID, "azp": t.Client, "sid": t.Session, "typ": kind, "aud": "account"}
	}
	return revocationtest.Shape{
		IssuerPath: "/realms/prod", Type: "JWT", Claims: claims, RefreshKey: true,
		RevokePath:     "/realms/prod/protocol/openid-connect/revoke",
		IntrospectPath: "/realms/prod/protocol/openid-connect/token/introspect",
		Introspects: func(asker string, t revocationtest.ProductToken) map[string]any {
			if t.Refresh && asker != t.Client && !tellsEverybody {
				return nil
			}
			answer := claims(t)
			answer["client_id"], answer["username"] = t.Client, t.Subject
			return answer
		},
		Revokes: ownOnly, Unknown: `{"error":"invalid_token","error_description":"Invalid token"}`,
	}
}

func auth0Shape() revocationtest.Shape {
	return revocationtest.Shape{
		IssuerPath: "/", Type: "JWT",
		Claims: func(t revocationtest.ProductToken) map[string]any {
			return map[string]any{"azp": t.Client, "aud": []string{"https://api.example.com", "https://tenant.eu.auth0.com/userinfo"}}
		},
		RevokePath: "/oauth/revoke",
		Revokes: func(client string, t revocationtest.ProductToken) (bool, int, string) {
			return t.Refresh && client == t.Client, http.StatusOK, "OK"
		},
		Unknown: "OK",
	}
}

func oktaShape() revocationtest.Shape {
	return revocationtest.Shape{
		IssuerPath: "/oauth2/default", Type: "at+jwt",
		Claims: func(t revocationtest.ProductToken) map[string]any {
			return map[string]any{"ver": 1, "jti": t.ID, "cid": t.Client, "uid": "id of " + t.Subject, "aud": "api://default"}
		},
		RevokePath: "/oauth2/default/v1/revoke", IntrospectPath: "/oauth2/default/v1/introspect",
		Introspects: func(_ string, t revocationtest.ProductToken) map[string]any {
			answer := map[string]any{"jti": t.ID, "client_id": t.Client, "uid": "id of " + t.Subject, "token_type": "Bearer", "aud": "api://default"}
			if t.Refresh {
				delete(answer, "token_type")
			}
			return answer
		},
		Revokes: ownOnly,
	}
}

func entraShape() revocationtest.Shape {
	return revocationtest.Shape{
		IssuerPath: "/11111111-2222-3333-4444-555555555555/v2.0", Type: "JWT",
		Claims: func(t revocationtest.ProductToken) map[string]any {
			return map[string]any{
				"uti": t.ID, "azp": t.Client, "oid": "id of " + t.Subject, "ver": "2.0",
				"aud": "66666666-7777-8888-9999-000000000000", "tid": "11111111-2222-3333-4444-555555555555",
			}
		},
	}
}

func hydraShape() revocationtest.Shape {
	return revocationtest.Shape{
		Claims:     func(revocationtest.ProductToken) map[string]any { return nil },
		RevokePath: "/oauth2/revoke", IntrospectPath: "/admin/oauth2/introspect",
		Introspects: func(_ string, t revocationtest.ProductToken) map[string]any {
			use := "access_token"
			if t.Refresh {
				use = "refresh_token"
			}
			return map[string]any{"client_id": t.Client, "token_type": "Bearer", "token_use": use, "aud": []string{}, "ext": map[string]any{}}
		},
		Revokes: func(client string, t revocationtest.ProductToken) (bool, int, string) {
			return client == t.Client, http.StatusOK, "" // to others too
		},
	}
}

func authentikShape() revocationtest.Shape {
	idToken := func(t revocationtest.ProductToken) map[string]any {
		return map[string]any{"aud": t.Client, "sid": t.Session, "acr": "goauthentik.io/providers/oauth2/default"}
	}
	return revocationtest.Shape{
		IssuerPath: "/application/o/shop/", Type: "JWT",
		Claims: func(t revocationtest.ProductToken) map[string]any {
			claims := idToken(t)
			claims["azp"], claims["uid"] = t.Client, t.ID
			return claims
		},
		RevokePath: "/application/o/revoke/", IntrospectPath: "/application/o/introspect/",
		Introspects: func(asker string, t revocationtest.ProductToken) map[string]any {
			answer := idToken(t)
			answer["client_id"], answer["scope"] = asker, "openid"
			return answer
		},
		Revokes: func(string, revocationtest.ProductToken) (bool, int, string) {
			return true, http.StatusOK, "{}" // whoever it belongs to
		},
		Unknown: "{}",
	}
}

func zitadelShape() revocationtest.Shape {
	return revocationtest.Shape{
		Claims:     func(revocationtest.ProductToken) map[string]any { return nil },
		RevokePath: "/oauth/v2/revoke", IntrospectPath: "/oauth/v2/introspect",
		Introspects: func(_ string, t revocationtest.ProductToken) map[string]any {
			if t.Refresh {
				return nil
			}
			return map[string]any{
				"client_id": t.Client, "token_type": "Bearer", "jti": t.ID, "nbf": t.Issued.Unix(),
				"username": t.Subject, "aud": []string{t.Client, "project"}, "scope": "openid",
			}
		},
		Revokes: ownOnly,
	}
}
