//go:build e2e

package e2e

import (
	"net/http"
	"strings"
	"testing"
)

// The tests with authorization servers that are not ours rest on what these do
// and don't do. If a new version behaves otherwise, this says so, before the
// tests behind it prove nothing any more.

// rigs are the servers, by name.
var rigs = []struct {
	name  string
	start func(t testing.TB) *authServer
}{
	{"django-oauth-toolkit", startDjango},
	{"node-oidc-provider, opaque", func(t testing.TB) *authServer { return startOIDC(t, false) }},
	{"node-oidc-provider, JWT", func(t testing.TB) *authServer { return startOIDC(t, true) }},
	{"fosite, opaque", func(t testing.TB) *authServer { return startFosite(t, false, false) }},
	{"fosite, JWT", func(t testing.TB) *authServer { return startFosite(t, true, true) }},
}

func TestAuthServersIssueIntrospectAndRevoke(t *testing.T) {
	t.Parallel()
	for _, rig := range rigs {
		t.Run(rig.name, func(t *testing.T) {
			t.Parallel()
			s := rig.start(t)
			first, second := s.signIn(asService, asAlice), s.signIn(asService, asAlice)
			refreshed := s.refresh(asService, second.Refresh)
			if refreshed.Access == second.Access || first.Access == second.Access {
				t.Error("the same access token twice")
			}
			owner, own := s.ownToken()
			if owner != asBatch || own == "" {
				t.Errorf("%s got %q", owner, own)
			}
			if s.name == "node-oidc-provider" && s.jwt {
				// It neither introspects nor revokes what it has signed.
				if a := s.revokeDirectly(asService, first.Access); a.status != http.StatusBadRequest || !strings.Contains(a.body, "unsupported_token_type") {
					t.Errorf("revoking a JWT: %s", a)
				}
			} else {
				for what, token := range map[string]string{"a user's": first.Access, "a refreshed": refreshed.Access, "a client's": own} {
					if active, members := s.introspect(token); !active || members["exp"] == nil || members["client_id"] == nil {
						t.Errorf("introspecting %s token: %v", what, members)
					}
				}
				if a := s.revokeDirectly(asService, first.Access); a.status != http.StatusOK || s.active(first.Access) {
					t.Errorf("revoking a token: %s", a)
				}
				if a := s.revokeDirectly(asService, refreshed.Refresh); a.status != http.StatusOK || s.active(refreshed.Access) {
					t.Errorf("revoking a refresh token: %s", a)
				}
			}
			// A refresh token: what can be learned of it?
			third := s.signIn(asService, asAlice)
			active, members := s.introspect(third.Refresh)
			switch s.name {
			case "django-oauth-toolkit":
				if active {
					t.Errorf("django-oauth-toolkit introspects refresh tokens now: %v", members)
				}
			default:
				if !active || members["sid"] == nil || members["sub"] != asAlice || members["client_id"] != asService {
					t.Errorf("introspecting a refresh token: %v", members)
				}
			}
		})
	}
}

func TestAuthServersAnswer200ToWhatTheyDoNotDo(t *testing.T) {
	t.Parallel()
	t.Run("django-oauth-toolkit revokes what belongs to others", func(t *testing.T) {
		t.Parallel()
		s := startDjango(t)
		foreign := s.signIn(asService, asAlice)
		if a := s.revokeDirectly(asOther, foreign.Access); a.status != http.StatusOK || s.active(foreign.Access) {
			t.Errorf("another client's token: %s, active: %t", a, s.active(foreign.Access))
		}
	})
	t.Run("node-oidc-provider answers 200 to a public client with another's token", func(t *testing.T) {
		t.Parallel()
		s := startOIDC(t, false)
		foreign := s.signIn(asService, asAlice)
		if a := s.revokeDirectly(providerApp, foreign.Access); a.status != http.StatusOK || !s.active(foreign.Access) {
			t.Errorf("another client's token: %s, active: %t", a, s.active(foreign.Access))
		}
	})
	t.Run("fosite answers 200 to foreign tokens and to a failing store", func(t *testing.T) {
		t.Parallel()
		s := startFosite(t, false, false)
		foreign := s.signIn(asService, asAlice)
		if a := s.revokeDirectly(asOther, foreign.Access); a.status != http.StatusOK || !s.active(foreign.Access) {
			t.Errorf("another client's token: %s, active: %t", a, s.active(foreign.Access))
		}
		s.failStorage(true)
		if a := s.revokeDirectly(asService, foreign.Access); a.status != http.StatusOK || !s.active(foreign.Access) {
			t.Errorf("while the store fails: %s, active: %t", a, s.active(foreign.Access))
		}
		s.failStorage(false)
		if a := s.revokeDirectly(asService, foreign.Access); a.status != http.StatusOK || s.active(foreign.Access) {
			t.Errorf("afterwards: %s, active: %t", a, s.active(foreign.Access))
		}
	})
}
