//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// TestEdgesIntrospectAtServersThatAreNotOurs has edges authenticate at introspection
// endpoints in all the ways that these have, and notice what the servers do on
// their own: nothing is kept there.
func TestEdgesIntrospectAtServersThatAreNotOurs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		start func(t *testing.T) *authServer
		// block is the introspection block, SERVER being the endpoint.
		block func(s *authServer) string
		keys  bool // whether the issuer has some
	}{
		{"django-oauth-toolkit, client_secret_post", func(t *testing.T) *authServer { return startDjango(t) }, func(*authServer) string {
			return "auth_method client_secret_post\nclient_id e2e-edge\nclient_secret {env.E2E_EDGE}"
		}, false},
		{"django-oauth-toolkit, bearer", func(t *testing.T) *authServer { return startDjango(t) }, func(*authServer) string {
			return "bearer_token {env.E2E_TOKEN}"
		}, false},
		{"node-oidc-provider, private_key_jwt and signed answers", func(t *testing.T) *authServer { return startOIDC(t, false) }, func(s *authServer) string {
			return fmt.Sprintf("client_id e2e-keyed\nprivate_key {file.%s}\nsigned_response", s.keyFile)
		}, true},
		{"fosite, client_secret_basic", func(t *testing.T) *authServer { return startFosite(t, false, true) }, func(*authServer) string {
			return "client_id e2e-edge\nclient_secret {env.E2E_EDGE}"
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := c.start(t)
			kind := "opaque"
			if c.keys {
				kind = ""
			}
			e := newEdge(t, "edge", fmt.Sprintf(`{
	token_revocation {
		issuer %s {
			%s
			introspection %s {
				%s
				cache_ttl off
			}
		}
	}
}

http://localhost:8080 {
	bind 127.0.0.1
	token_denylist {
		introspect
	}
	respond "API"
}
`, s.Issuer, kind, s.Issuer+s.introspectPath, c.block(s)))
			e.env = append(e.env, "E2E_EDGE="+s.secrets[asEdge])
			if strings.Contains(c.name, "bearer") {
				token := s.grant(asBatch, url.Values{"grant_type": {"client_credentials"}, "scope": {"introspection"}}).Access
				e.env = append(e.env, "E2E_TOKEN="+token)
				e.logs.forbid(token)
			}
			e.logs.forbid(s.secrets[asEdge])
			e.run()

			granted := s.signIn(asService, asAlice)
			e.wantPass("a user's token", granted.Access)
			e.wantRefused("a token that the server does not know", "not-a-token-of-anybodys")
			if a := e.get(granted.Refresh); a.status == http.StatusOK {
				t.Errorf("a refresh token opens the API: %s", a)
			}
			if a := s.revokeDirectly(asService, granted.Access); a.status != http.StatusOK {
				t.Fatalf("revoking at the server: %s", a)
			}
			e.wantRefused("a token that was revoked at the server, past the edge", granted.Access)
		})
	}
}
