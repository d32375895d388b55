package caddymodule

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// An operator's opaque token is asked about, and revoked by its hash for as long
// as it lives.
func TestAnOperatorRevokesAnOpaqueToken(t *testing.T) {
	s := newSite(t)
	as := revocationtest.NewOpaqueServer(t, edgeSecret)
	s.mustLoad(opaqueOptions(t, as), "token_denylist")
	end := time.Now().Add(20 * time.Minute).Unix()
	token := as.Issue(map[string]any{"exp": end, "jti": "j1"})
	if s.denied(as.URL, token) {
		t.Fatal("denied before it was revoked")
	}
	got, answer := s.adminPost("revocations", revocationRequest{Token: token})
	hash, _ := issuer.OpaqueTokenHash(token)
	if got.status != http.StatusOK || answer.Issuer != as.URL || len(answer.Claims) != 1 || answer.Claims["token"] != hash ||
		answer.Mode != "block" || answer.Expires != end+300 || !strings.Contains(answer.Effect, hash) {
		t.Fatalf("%d %s", got.status, got.body)
	}
	if strings.Contains(got.body, token) {
		t.Error("the token itself is in the answer")
	}
	if !s.denied(as.URL, token) || s.denied(as.URL, as.Issue(nil)) {
		t.Error("it is not this token that is denied")
	}
	// What was recorded can be undone as it was told.
	got, _ = s.adminPost("restorations", revocationRequest{Issuer: answer.Issuer, Claims: answer.Claims})
	if got.status != http.StatusOK || s.denied(as.URL, token) {
		t.Errorf("restoring: %s", got.body)
	}

	for name, c := range map[string]struct {
		request revocationRequest
		want    string
	}{
		"inactive":        {revocationRequest{Token: "never-issued"}, "is not active"},
		"a refresh token": {revocationRequest{Token: as.Issue(map[string]any{"token_use": "refresh_token"})}, "sid=session-1"},
		"one without sid": {revocationRequest{Token: as.Issue(map[string]any{"token_use": "refresh_token", "sid": nil})}, "sub=alice and client_id=app"},
		"no token at all": {revocationRequest{Token: "two words"}, "not a token"},
		"unknown issuer":  {revocationRequest{Token: token, Issuer: "https://nobody.example"}, "not configured here"},
		"claims too":      {revocationRequest{Token: token, Claims: map[string]string{"sub": "alice"}}, "not both"},
	} {
		if got, _ := s.adminPost("revocations", c.request); got.status != http.StatusBadRequest || !strings.Contains(got.body, c.want) {
			t.Errorf("%s: %d %s, want %q", name, got.status, got.body, c.want)
		}
	}

	// An authorization server that is down does not keep an operator waiting.
	as.Fail(http.StatusInternalServerError)
	unknown := as.Issue(nil)
	got, answer = s.adminPost("revocations", revocationRequest{Token: unknown, Issuer: "https://old.example"})
	if got.status != http.StatusOK || !strings.Contains(answer.Effect, "without proof") || !strings.Contains(answer.Effect, "500") ||
		answer.Expires < time.Now().Add(7*24*time.Hour).Unix() {
		t.Fatalf("%d %s", got.status, got.body)
	}
	as.Fail(0)
	if !s.denied(as.URL, unknown) {
		t.Error("a token that was revoked while nobody could be asked is not denied")
	}
}

// Without introspection, nothing is known of opaque tokens but their hash.
func TestCriteriaThatCouldMatchNothingAreRefused(t *testing.T) {
	s := newSite(t)
	const other = "https://other.example"
	s.mustLoad("embedded\nissuer https://as.example {\nopaque\n}\nissuer "+other+" {\nopaque\nintrospection https://other.example/i {\nauth_method none\n}\n}",
		"token_denylist {\nopaque_issuer https://as.example\n}")
	app := currentApp()
	if !app.onlyTokenCriteria("https://as.example") || app.onlyTokenCriteria(other) || app.onlyTokenCriteria("https://nobody.example") {
		t.Error("it is not known of which tokens only the hash is known")
	}
	for _, claims := range []map[string]string{{"sub": "alice"}, {"jti": "1"}, {"token": "x", "sub": "alice"}, {"kid": "x"}} {
		got, _ := s.adminPost("revocations", revocationRequest{Issuer: "https://as.example", Claims: claims})
		if got.status != http.StatusBadRequest || !strings.Contains(got.body, "would deny nothing") || !strings.Contains(got.body, "introspection") {
			t.Errorf("%v: %d %s", claims, got.status, got.body)
		}
	}
	lines := fmt.Sprintf("{\"issuer\":%q,\"claims\":{\"sub\":\"alice\"}}\n{\"issuer\":%q,\"claims\":{\"sub\":\"alice\"}}\n", "https://as.example", other)
	got := s.do(http.MethodPost, fmt.Sprintf("http://127.0.0.1:%d%simport", s.admin, adminPrefix), nil, lines)
	if got.status != http.StatusUnprocessableEntity || !strings.Contains(got.body, `"line":1`) || !strings.Contains(got.body, "would deny nothing") ||
		!strings.Contains(got.body, `"recorded":1`) {
		t.Errorf("importing: %d %s", got.status, got.body)
	}
	if got, _ := s.adminPost("restorations", revocationRequest{Issuer: "https://as.example", Claims: map[string]string{"sub": "alice"}}); got.status != http.StatusOK {
		t.Errorf("undoing what an older config took: %s", got.body)
	}

	// The token itself, and the whole issuer, do match.
	s.wantStatus("an-opaque-token", http.StatusOK, "before the revocation")
	if got, _ := s.adminPost("revocations", revocationRequest{Token: "an-opaque-token"}); got.status != http.StatusBadRequest ||
		!strings.Contains(got.body, "say whose it is") {
		t.Errorf("a token of one of two issuers: %d %s", got.status, got.body)
	}
	got, answer := s.adminPost("revocations", revocationRequest{Token: "an-opaque-token", Issuer: "https://as.example"})
	if got.status != http.StatusOK || !strings.Contains(answer.Effect, "without proof") {
		t.Fatalf("%d %s", got.status, got.body)
	}
	s.wantStatus("an-opaque-token", http.StatusUnauthorized, "after the revocation")
	s.wantStatus("another-opaque-token", http.StatusOK, "another token")
	if got, _ := s.adminPost("revocations", revocationRequest{Issuer: "https://as.example", WholeIssuer: true}); got.status != http.StatusOK {
		t.Fatalf("%d %s", got.status, got.body)
	}
	s.wantStatus("another-opaque-token", http.StatusUnauthorized, "the whole issuer is revoked")
}

func TestAnOperatorsTokenIsOfTheIssuerThatIsNamed(t *testing.T) {
	s := newSite(t)
	s.mustLoad("embedded\nissuer development\nissuer https://as.example {\nopaque\n}", "token_denylist")
	token := aliceToken(s)
	if got, _ := s.adminPost("revocations", revocationRequest{Token: token, Issuer: "https://as.example"}); got.status != http.StatusBadRequest {
		t.Errorf("a JWT of another issuer: %d %s", got.status, got.body)
	}
	s.wantStatus(token, http.StatusOK, "nothing was revoked")
	if got, _ := s.adminPost("revocations", revocationRequest{Token: "opaque", Issuer: issuer.DevelopmentIssuer}); got.status != http.StatusBadRequest {
		t.Errorf("an opaque token of the development issuer: %d %s", got.status, got.body)
	}
	// Of the two issuers, one has opaque tokens.
	if got, answer := s.adminPost("revocations", revocationRequest{Token: "opaque"}); got.status != http.StatusOK || answer.Issuer != "https://as.example" {
		t.Errorf("an opaque token: %d %s", got.status, got.body)
	}
	if got, _ := s.adminPost("revocations", revocationRequest{Token: token, Issuer: issuer.DevelopmentIssuer}); got.status != http.StatusOK {
		t.Errorf("a JWT of the issuer: %d %s", got.status, got.body)
	}
	s.wantStatus(token, http.StatusUnauthorized, "it was revoked")
}

// An alias names the issuer: what is recorded has its main spelling, and stands as
// long as its tokens can live.
func TestAnOperatorMayUseAnAlias(t *testing.T) {
	s := newSite(t)
	s.mustLoad("embedded\nissuer https://as.example {\nopaque\nalias https://old.example\nmax_token_lifetime 30d\n"+
		"introspection https://as.example/i {\nauth_method none\n}\n}", "token_denylist")
	got, answer := s.adminPost("revocations", revocationRequest{Issuer: "https://old.example", Claims: map[string]string{"sub": "alice"}})
	if got.status != http.StatusOK || answer.Issuer != "https://as.example" || answer.Expires < time.Now().Add(30*24*time.Hour).Unix() {
		t.Errorf("%d %s", got.status, got.body)
	}
	if currentApp().maxTokenLifetime("https://old.example") != 30*24*time.Hour {
		t.Error("tokens of an alias live as long as the issuer's")
	}
}

func TestTheCommandRevokesOpaqueTokens(t *testing.T) {
	s := newSite(t)
	s.mustLoad("embedded\nissuer https://as.example {\nopaque\n}\nissuer https://other.example {\nopaque\n}",
		"token_denylist {\nopaque_issuer https://as.example\n}")
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("an-opaque-token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	stdin, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	was := os.Stdin
	os.Stdin = stdin
	defer func() { os.Stdin = was }()
	if err := s.run(revokeCommand(), "--issuer", "https://as.example", "--token", "-"); err != nil {
		t.Fatalf("revoking: %v", err)
	}
	s.wantStatus("an-opaque-token", http.StatusUnauthorized, "after the revocation")
	s.wantStatus("another", http.StatusOK, "another token")
	err = s.run(revokeCommand(), "--issuer", "https://as.example", "--subject", "alice")
	if err == nil || !strings.Contains(err.Error(), "would deny nothing") || !strings.Contains(err.Error(), "introspection") {
		t.Errorf("a revocation that could match nothing: %v", err)
	}
}
