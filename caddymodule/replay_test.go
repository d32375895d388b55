package caddymodule

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

func (r *conformanceRig) revokePublic(token string) answer {
	return r.do(http.MethodPost, r.url("/oauth/revoke"),
		http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, "client_id=spa&token="+token)
}

// A token that was revoked with its grant cuts off no new login, however often
// whoever kept it presents it.
func TestReplayedTokenLeavesNewLoginsAlone(t *testing.T) {
	r := newConformanceRig(t)
	r.start(t, &conformanceCase{Config: "cascade grant"})
	log := r.loadFull(t, onEvents, "cascade grant", "")
	login := func() string {
		return r.as.Token(map[string]any{"sub": "bob", "sid": nil, "client_id": "spa"})
	}
	stolen := login()
	if got := r.revokePublic(stolen); got.status != http.StatusOK {
		t.Fatalf("status %d", got.status)
	}
	takeEvents(r.as.URL, "token_revoked")
	takeEvents(r.as.URL, "token_revocation_refused")
	var fresh string
	// The cutoff is two seconds ahead, for issuers whose clocks are.
	r.eventually("a new login", func() bool {
		fresh = login()
		return r.protected(fresh).status == http.StatusOK
	})
	const replays = 3
	for range replays {
		if got := r.revokePublic(stolen); got.status != http.StatusOK {
			t.Errorf("status %d", got.status)
		}
	}
	if got := r.protected(fresh); got.status != http.StatusOK {
		t.Errorf("the new login was cut off: status %d", got.status)
	}
	if got := r.protected(stolen); got.status != http.StatusUnauthorized {
		t.Errorf("the old token: status %d", got.status)
	}
	// On a machine that is slow at the moment there may be doubt, and another
	// entry for the same; never one without an id.
	stood := 0
	for _, line := range r.auditLines(t, log, 1+replays)[1:] {
		if line["level"] != "info" || line["result"] != "revoked" {
			t.Errorf("line %v", line)
		}
		if line["stood"] != nil {
			stood++
		}
	}
	if stood == 0 {
		t.Error("no line says that it stood already")
	}
	for _, e := range takeEvents(r.as.URL, "token_revoked") {
		if id, _ := e["id"].(string); id == "" {
			t.Errorf("announced: %v", e)
		}
	}
	if refused := takeEvents(r.as.URL, "token_revocation_refused"); len(refused) != 0 {
		t.Errorf("announced as refused: %v", refused)
	}
}

// Never a false 200: a refresh token that is a JWT either lives on, and the client
// is told so, or takes the access tokens of its grant with it.
func TestRefreshTokenThatIsAJWT(t *testing.T) {
	r := newConformanceRig(t)
	r.start(t, new(conformanceCase))
	es := r.as.Key("ES256")
	realm := jose.JSONWebKey{Key: []byte(strings.Repeat("k", 64)), KeyID: "realm", Algorithm: "HS512"}
	for name, c := range map[string]struct {
		key     jose.JSONWebKey
		header  map[string]any
		claims  map[string]any
		revoked bool
	}{
		"with the realm's own key": {realm, map[string]any{"typ": "JWT"}, map[string]any{"typ": "Refresh"}, false},
		"with the same key":        {es, map[string]any{"typ": "JWT"}, map[string]any{"typ": "Refresh"}, true},
		"by its typ":               {es, map[string]any{"typ": "rt+jwt"}, map[string]any{}, true},
	} {
		c.claims["sub"], c.claims["sid"] = "user "+name, "session "+name
		access := r.as.Token(map[string]any{"sub": c.claims["sub"], "sid": c.claims["sid"]})
		refresh := revocationtest.SignWith(t, c.key, c.header, r.as.Claims(c.claims))
		if got := r.protected(access); got.status != http.StatusOK {
			t.Errorf("%s: its access token: status %d", name, got.status)
		}
		want := http.StatusBadRequest
		if c.revoked {
			want = http.StatusOK
		}
		got := r.revokeAs("/oauth/revoke", "app", "app-secret", refresh)
		if got.status != want || !c.revoked && !strings.Contains(got.body, "unsupported_token_type") {
			t.Errorf("%s: status %d, %s", name, got.status, got.body)
		}
		if got := r.protected(refresh); got.status != http.StatusUnauthorized {
			t.Errorf("%s: it passes: status %d", name, got.status)
		}
		want = http.StatusOK
		if c.revoked {
			want = http.StatusUnauthorized
		}
		if got := r.protected(access); got.status != want {
			t.Errorf("%s: afterwards, its access token: status %d, not %d", name, got.status, want)
		}
	}
}

// A token that names two clients belongs to neither, and dies with either.
func TestTokenOfTwoClients(t *testing.T) {
	r := newConformanceRig(t)
	r.start(t, new(conformanceCase))
	for _, revoked := range []string{"app", "other"} {
		token := r.as.Token(map[string]any{"client_id": "app", "azp": "other", "sub": "both-" + revoked})
		for _, id := range []string{"app", "other"} {
			if got := r.revokeAs("/oauth/revoke", id, id+"-secret", token); got.status != http.StatusBadRequest || !strings.Contains(got.body, "invalid_grant") {
				t.Errorf("%s: status %d, %s", id, got.status, got.body)
			}
		}
		if got := r.protected(token); got.status != http.StatusOK {
			t.Fatalf("before: status %d", got.status)
		}
		if got, _ := r.adminPost("revocations", map[string]any{
			"issuer": r.as.URL, "claims": map[string]string{"client_id": revoked, "sub": "both-" + revoked}, "mode": "block",
		}); got.status != http.StatusOK {
			t.Fatalf("revoking: status %d, %s", got.status, got.body)
		}
		if got := r.protected(token); got.status != http.StatusUnauthorized {
			t.Errorf("client %s is revoked, and the token passes: status %d", revoked, got.status)
		}
	}
}

// Past exp and leeway there is nothing left to own, or to decide about.
func TestExpiredTokenIsAnsweredWith200WhoeverAsks(t *testing.T) {
	r := newConformanceRig(t)
	for _, config := range []string{"", "policy expression false", "policy webhook http://127.0.0.1:1/"} {
		r.start(t, &conformanceCase{Config: config})
		old := time.Now().Add(-24 * time.Hour).Unix()
		for _, client := range []string{"app", "other"} {
			token := r.as.Token(map[string]any{"exp": old, "iat": old - 300, "client_id": client})
			if got := r.revokeAs("/oauth/revoke", "app", "app-secret", token); got.status != http.StatusOK {
				t.Errorf("%q, a token of %s: status %d, %s", config, client, got.status, got.body)
			}
		}
	}
	r.start(t, &conformanceCase{Options: "leeway 48h"})
	old := time.Now().Add(-24 * time.Hour).Unix()
	token := r.as.Token(map[string]any{"exp": old, "iat": old - 300, "client_id": "other"})
	if got := r.revokeAs("/oauth/revoke", "app", "app-secret", token); got.status != http.StatusBadRequest {
		t.Errorf("within the app's leeway: status %d", got.status)
	}
}

// A file must not make a client ambiguous for an endpoint that knows it.
func TestClientsFileThatMakesAClientAmbiguousIsRefused(t *testing.T) {
	r := newConformanceRig(t)
	r.start(t, new(conformanceCase))
	path := filepath.Join(t.TempDir(), "clients.json")
	entry := func(id, iss string) string { return fmt.Sprintf(`{"id": %q, "issuer": %q, "public": true}`, id, iss) }
	file := func(entries ...string) string { return `{"clients": [` + strings.Join(entries, ",") + `]}` }
	writeFile(t, path, file(entry("filed", r.as.URL)))
	text := r.config(&conformanceCase{Options: "issuer https://b.example {\n jwks_uri " + r.as.URL + "/jwks\n allow_http\n}\nclients_file " + path + " 20ms\n"})
	for _, id := range []string{"app", "other", "an:identifier", "admin", "mac"} {
		text = issuerOfClient(text, id, r.as.URL)
	}
	text = strings.ReplaceAll(text, "client spa public", "client spa public {\n issuer "+r.as.URL+"\n}")
	text = strings.Replace(text, "client signer {", "client signer {\n issuer "+r.as.URL, 1)
	if err := r.loadConfig(text); err != nil {
		t.Fatal(err)
	}
	r.eventually("sync", func() bool { return currentApp().status().State == "in_sync" && currentApp().status().Issuers[0].Ready })

	writeFile(t, path, file(entry("filed", r.as.URL), entry("app", "https://b.example")))
	r.eventually("the file to be refused", func() bool {
		return strings.Contains(currentApp().status().ClientFiles[0].Error, "client app would be registered at several issuers")
	})
	if got := r.revokeAs("/oauth/revoke", "app", "app-secret", r.tokens["AT"]); got.status != http.StatusOK {
		t.Errorf("the client is locked out: status %d, %s", got.status, got.body)
	}
	if !r.knows("filed") {
		t.Error("the last good file is not in use")
	}
	// Another id at the other issuer is no trouble.
	writeFile(t, path, file(entry("filed", r.as.URL), entry("b-app", "https://b.example")))
	r.eventually("a good file", func() bool { return currentApp().status().ClientFiles[0].Error == "" })

	// Nor is the same id where no endpoint serves both issuers.
	if err := r.loadConfig(strings.Replace(text, "	token_revocation /oauth/revoke {", "	token_revocation /oauth/revoke {\n		issuer "+r.as.URL, 1)); err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, file(entry("filed", r.as.URL), entry("app", "https://b.example")))
	r.eventually("the file", func() bool {
		f := currentApp().status().ClientFiles[0]
		return f.Error == "" && f.Clients == 2
	})
	if got := r.revokeAs("/oauth/revoke", "app", "app-secret", r.tokens["AT2"]); got.status != http.StatusOK {
		t.Errorf("the client is locked out: status %d, %s", got.status, got.body)
	}
}

func TestStrictBasicTakesEncodedCredentialsOnly(t *testing.T) {
	r := newConformanceRig(t)
	t.Setenv("CONFORMANCE_PLUS", "a+b-secret")
	for config, want := range map[string]int{"": http.StatusOK, "strict_basic": http.StatusUnauthorized} {
		r.start(t, &conformanceCase{Options: "client plus {env.CONFORMANCE_PLUS}", Config: config})
		token := r.as.Token(map[string]any{"client_id": "plus"})
		if got := r.revokeAs("/oauth/revoke", "plus", "a+b-secret", token); got.status != want {
			t.Errorf("%q, as it stands: status %d", config, got.status)
		}
		if got := r.revokeAs("/oauth/revoke", "plus", "a%2Bb-secret", token); got.status != http.StatusOK {
			t.Errorf("%q, encoded: status %d", config, got.status)
		}
	}
}
