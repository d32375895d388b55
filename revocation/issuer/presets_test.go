package issuer

import (
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// The payloads below have the shape of each product's access tokens; all values
// are made up.
func TestPresetsReadTheTokensOfTheirProduct(t *testing.T) {
	now := time.Now().Unix()
	for _, c := range []struct {
		preset, name, typ, alg string
		claims                 map[string]any
		want                   map[string]string // empty: absent
	}{
		{"keycloak", "user token", "JWT", "RS256", map[string]any{
			"exp": now + 300, "iat": now, "auth_time": now - 10, "jti": "onrtac:1f0e", "aud": "account", "sub": "f3a9", "typ": "Bearer",
			"azp": "web", "sid": "9d1c", "acr": "1", "allowed-origins": []string{"*"},
			"realm_access": map[string]any{"roles": []string{"user"}}, "scope": "openid profile", "preferred_username": "alice",
		}, map[string]string{"jti": "onrtac:1f0e", "sub": "f3a9", "client_id": "web", "sid": "9d1c"}},
		{"keycloak", "service account", "JWT", "ES256", map[string]any{
			"exp": now + 300, "iat": now, "jti": "j", "sub": "s", "typ": "Bearer", "azp": "backend", "client_id": "backend", "scope": "email",
		}, map[string]string{"client_id": "backend", "sid": ""}},
		{"keycloak", "before version 15", "JWT", "RS256", map[string]any{
			"exp": now + 300, "iat": now, "jti": "j", "sub": "s", "typ": "Bearer", "azp": "web", "session_state": "old-session",
		}, map[string]string{"sid": "old-session"}},
		{"auth0", "default profile", "JWT", "RS256", map[string]any{
			"sub": "auth0|5f7c", "aud": []string{"https://api.example", "https://t.eu.auth0.com/userinfo"}, "iat": now, "exp": now + 86400,
			"scope": "openid", "azp": "my_client_id",
		}, map[string]string{"jti": "", "client_id": "my_client_id", "sub": "auth0|5f7c"}},
		{"auth0", "RFC 9068 profile", "at+jwt", "RS256", map[string]any{
			"sub": "auth0|5f7c", "aud": "https://api.example", "iat": now, "exp": now + 86400, "scope": "openid", "jti": "H2pk", "client_id": "my_client_id",
		}, map[string]string{"jti": "H2pk", "client_id": "my_client_id"}},
		{"okta", "user token", "", "RS256", map[string]any{
			"ver": 1, "jti": "AT.0mP4", "aud": "api://default", "iat": now, "exp": now + 3600, "cid": "0oab8e", "uid": "00uid4", "scp": []string{"openid"},
			"auth_time": now, "sub": "alice@example.com",
		}, map[string]string{"jti": "AT.0mP4", "client_id": "0oab8e", "sub": "alice@example.com", "uid": "00uid4"}},
		{"entra", "version 2.0", "JWT", "RS256", map[string]any{
			"aud": "6e74172b", "iat": now, "nbf": now, "exp": now + 4500, "azp": "6e74172b-be56", "azpacr": "0", "oid": "690222be", "rh": "x",
			"scp": "access_as_user", "sub": "HKZpfaHy", "tid": "fa15d692", "uti": "fqiBqXLP", "ver": "2.0", "sid": "00a8",
		}, map[string]string{"jti": "fqiBqXLP", "client_id": "6e74172b-be56", "sub": "HKZpfaHy", "oid": "690222be", "sid": "00a8"}},
		{"entra", "version 1.0, 28 hours", "JWT", "RS256", map[string]any{
			"aud": "api", "iat": now, "nbf": now, "exp": now + 28*3600, "appid": "75dbe77f", "oid": "o", "sub": "s", "uti": "u", "ver": "1.0",
		}, map[string]string{"jti": "u", "client_id": "75dbe77f"}},
		{"hydra", "JWT strategy", "JWT", "RS256", map[string]any{
			"aud": []string{}, "client_id": "c", "exp": now + 3600, "ext": map[string]any{"sid": "inner"}, "iat": now, "jti": "a5f1", "nbf": now,
			"scp": []string{"offline"}, "sub": "foo@bar.com",
		}, map[string]string{"jti": "a5f1", "client_id": "c", "sid": ""}},
		{"authentik", "hybrid flow, jti from a scope mapping", "JWT", "RS256", map[string]any{
			"sub": "hash", "aud": "client", "exp": now + 300, "iat": now, "auth_time": now, "acr": "goauthentik.io/providers/oauth2/default",
			"sid": "s256", "jti": "j1", "azp": "client", "uid": "u1", "nonce": "n", "c_hash": "h",
		}, map[string]string{"jti": "u1", "client_id": "client", "sid": "s256"}},
		{"authentik", "code flow", "JWT", "ES256", map[string]any{
			"sub": "hash", "aud": "client", "exp": now + 300, "iat": now, "azp": "client", "uid": "u1",
		}, map[string]string{"jti": "u1"}},
		{"zitadel", "JWT", "JWT", "RS256", map[string]any{
			"sub": "2215", "aud": []string{"2214"}, "exp": now + 43199, "iat": now, "nbf": now, "client_id": "2214@p", "jti": "V2_1",
			"urn:zitadel:iam:org:project:roles": map[string]any{"admin": map[string]any{"1": "x"}},
		}, map[string]string{"jti": "V2_1", "client_id": "2214@p"}},
		{"django", "JWT", "JWT", "RS256", map[string]any{
			"sub": 17, "exp": now + 36000, "iat": now, "jti": "d1", "client_id": "app", "scope": "read",
		}, map[string]string{"jti": "d1", "client_id": "app", "sub": "17"}},
	} {
		t.Run(c.preset+"/"+c.name, func(t *testing.T) {
			as := revocationtest.NewAuthServer(t)
			set, _ := trustServer(t, as, func(config *Config) { config.Preset = c.preset })
			c.claims["iss"] = as.Issuer()
			header := map[string]any{"typ": c.typ}
			if c.typ == "" {
				header["typ"] = nil
			}
			id := accept(t, set, revocationtest.SignWith(t, as.Key(c.alg), header, c.claims), Request{ClaimNames: []string{"uid", "oid"}})
			for name, want := range c.want {
				if got, _ := id.Value(name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			criteria, ok := id.TokenCriteria()
			if _, byHash := criteria.Claims[revocation.ClaimToken]; !ok || c.claims["jti"] == nil && c.want["jti"] == "" && !byHash {
				t.Errorf("the token is named by %v", criteria)
			}
		})
	}
}
