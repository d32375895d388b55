package caddymodule

import (
	"crypto"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

const inactiveAnswer = `{"active":false}`

// answeringServer is an introspection endpoint that answers about a few tokens,
// and says of all others that they are inactive.
type answeringServer struct {
	*httptest.Server

	mu      sync.Mutex
	answers map[string]map[string]any
	asked   int
	failing bool
}

func newAnsweringServer(t *testing.T) *answeringServer {
	t.Helper()
	s := &answeringServer{answers: make(map[string]map[string]any)}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.asked++
		if id, secret, _ := r.BasicAuth(); s.failing || id != "edge" || secret != "edge-secret" {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		answer := s.answers[r.PostFormValue("token")]
		if answer == nil {
			answer = map[string]any{"active": false}
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer)
	}))
	t.Cleanup(s.Close)
	return s
}

// knows makes the server answer that a token is active, with these members.
func (s *answeringServer) knows(token string, members map[string]any) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	members["active"] = true
	s.answers[token] = members
	return token
}

func (s *answeringServer) fail(failing bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failing = failing
}

func (s *answeringServer) questions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// introspectionRig is a Caddy with an introspection endpoint, an issuer with keys,
// and what that issuer answers about other tokens.
type introspectionRig struct {
	*site
	as     *revocationtest.AuthServer
	opaque *answeringServer
}

func newIntrospectionRig(t *testing.T) *introspectionRig {
	t.Helper()
	r := &introspectionRig{site: newSite(t), as: revocationtest.NewAuthServer(t), opaque: newAnsweringServer(t)}
	t.Setenv("EDGE_SECRET", "edge-secret")
	for _, client := range []string{"app", "api", "all"} {
		t.Setenv("SECRET_"+strings.ToUpper(client), client+"-secret")
	}
	return r
}

// options trusts the issuer; more is added to its block.
func (r *introspectionRig) options(more string) string {
	return fmt.Sprintf(`
	embedded
	issuer %s {
		jwks_uri %s
		audience https://only.example
		claim client_id %s
		%s
	}
	client app {env.SECRET_APP}
	client api {env.SECRET_API} {
		introspect https://api.example.com
	}
	client all {env.SECRET_ALL} {
		introspect any
	}
	client spa public
`, r.as.URL, r.as.URL+revocationtest.JWKSPath, "client_id azp", more)
}

// asking are the lines for an issuer that is asked about its other tokens.
func (r *introspectionRig) asking(more string) string {
	return fmt.Sprintf(`introspection %s/introspect {
			client_id     edge
			client_secret {env.EDGE_SECRET}
			allow_http
			%s
		}`, r.opaque.URL, more)
}

// introspect asks the endpoint as a client.
func (r *introspectionRig) introspect(client, token string) answer {
	r.t.Helper()
	return r.do(http.MethodPost, r.url("/oauth/introspect"), http.Header{
		"Content-Type":  {"application/x-www-form-urlencoded"},
		"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte(client+":"+client+"-secret"))},
	}, url.Values{"token": {token}, "token_type_hint": {"refresh_token"}}.Encode())
}

func (r *introspectionRig) wantInactive(client, token, why string) {
	r.t.Helper()
	if got := r.introspect(client, token); got.status != http.StatusOK || got.body != inactiveAnswer {
		r.t.Errorf("%s: %d %s", why, got.status, got.body)
	}
}

// wantActive returns the members of the answer.
func (r *introspectionRig) wantActive(client, token, why string) map[string]any {
	r.t.Helper()
	got := r.introspect(client, token)
	var members map[string]any
	if err := json.Unmarshal([]byte(got.body), &members); err != nil || got.status != http.StatusOK || members["active"] != true {
		r.t.Fatalf("%s: %d %s", why, got.status, got.body)
	}
	if got.header.Get("Cache-Control") != "no-store" || got.header.Get("Content-Type") != "application/json" {
		r.t.Errorf("%s: fields %v", why, got.header)
	}
	return members
}

func (r *introspectionRig) revokeAs(client, token string) {
	r.t.Helper()
	got := r.revoke(url.Values{"token": {token}, "client_id": {client}, "client_secret": {client + "-secret"}})
	if got.status != http.StatusOK {
		r.t.Fatalf("revoking: %d %s", got.status, got.body)
	}
}

// RFC 7662, section 4: signature, times, revocation, and whom a token is for.
func TestIntrospectionOfJWTs(t *testing.T) {
	r := newIntrospectionRig(t)
	r.mustLoad(r.options(""), "token_denylist\ntoken_introspection /oauth/introspect")
	api := map[string]any{"aud": []string{"https://api.example.com", "x"}}
	token := r.as.Token(api)
	members := r.wantActive("api", token, "a token for the api")
	for name, want := range map[string]any{
		"client_id": "app", "sub": "alice", "sid": "session-1", "iss": r.as.URL, "token_type": "Bearer",
	} {
		if members[name] != want {
			t.Errorf("%s is %v, want %v", name, members[name], want)
		}
	}
	for _, name := range []string{"exp", "iat", "jti", "aud"} {
		if members[name] == nil {
			t.Errorf("%s is missing: %v", name, members)
		}
	}
	bound := r.wantActive("app", r.as.Token(map[string]any{
		"cnf": map[string]any{"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}, "scp": []string{"a", "b"}, "client_id": nil, "azp": "app",
	}), "a bound token")
	if bound["token_type"] != "DPoP" || bound["scope"] != "a b" || bound["azp"] != "app" {
		t.Errorf("got %v", bound)
	}

	now := time.Now()
	other := revocationtest.NewAuthServer(t)
	forger := revocationtest.NewKey(t, "ES256", r.as.Key("ES256").KeyID)
	claims := func(overrides map[string]any) map[string]any { return r.as.Claims(overrides) }
	for why, token := range map[string]string{
		"forged":              revocationtest.SignWith(t, forger, map[string]any{"typ": "at+jwt"}, claims(nil)),
		"unsigned":            revocationtest.SignInput(t, jose.JSONWebKey{Key: []byte("x"), Algorithm: "HS256"}, "eyJhbGciOiJub25lIn0."+base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"`+r.as.URL+`","client_id":"app"}`))),
		"expired":             r.as.Token(map[string]any{"iat": now.Add(-time.Hour).Unix(), "exp": now.Add(-30 * time.Minute).Unix()}),
		"not yet valid":       r.as.Token(map[string]any{"nbf": now.Add(30 * time.Minute).Unix()}),
		"living for too long": r.as.Token(map[string]any{"exp": now.Add(9000 * time.Hour).Unix()}),
		"an ID token":         revocationtest.SignWith(t, r.as.Key("ES256"), map[string]any{"typ": "JWT"}, claims(map[string]any{"nonce": "n", "at_hash": "h"})),
		"a logout token":      revocationtest.SignWith(t, r.as.Key("ES256"), map[string]any{"typ": "logout+jwt"}, claims(nil)),
		"an introspection":    revocationtest.SignWith(t, r.as.Key("ES256"), map[string]any{"typ": "token-introspection+jwt"}, claims(nil)),
		"of another issuer":   other.Token(nil),
		"another client's":    r.as.Token(map[string]any{"client_id": "other"}),
		"malformed":           "eyJhbGciOiJFUzI1NiJ9.eyJ.x",
		"opaque":              "2YotnFZFEjr1zCsicMWpAA",
	} {
		r.wantInactive("app", token, why)
	}
	r.wantInactive("api", r.as.Token(map[string]any{"aud": "https://elsewhere.example"}), "for another audience")
	r.wantActive("all", r.as.Token(map[string]any{"aud": "https://elsewhere.example"}), "for another audience, to one that may ask about any")
}

func TestIntrospectionKnowsRevocationsOfAllKinds(t *testing.T) {
	r := newIntrospectionRig(t)
	r.mustLoad(r.options(""), "token_introspection /oauth/introspect")
	for _, tt := range []struct {
		what     string
		claims   map[string]any
		criteria map[string]string
	}{
		{"token", map[string]any{"jti": "one"}, map[string]string{"jti": "one"}},
		{"user", map[string]any{"sub": "bob"}, map[string]string{"sub": "bob"}},
		{"session", map[string]any{"sid": "s9"}, map[string]string{"sid": "s9"}},
		{"claim that none named before", map[string]any{"tenant": "t9"}, map[string]string{"tenant": "t9"}},
		{"client", nil, map[string]string{"client_id": "app"}},
	} {
		token := r.as.Token(tt.claims)
		r.wantActive("app", token, tt.what+" before its revocation")
		if got, _ := r.adminPost("revocations", map[string]any{"issuer": r.as.URL, "claims": tt.criteria, "reason": "test"}); got.status != http.StatusOK {
			t.Fatalf("%s: %d %s", tt.what, got.status, got.body)
		}
		r.wantInactive("app", token, tt.what+" revoked")
	}
	if n := r.metric(`caddy_token_revocation_introspection_endpoint_requests_total{result="token_revoked"}`); n == "" || n == "0" {
		t.Errorf("revoked tokens counted: %q", n)
	}
}

func TestIntrospectionKnowsRevocationsOfKeysAndByTheEndpoint(t *testing.T) {
	r := newIntrospectionRig(t)
	r.mustLoad(r.options(""), "token_introspection /oauth/introspect")
	token, alive := r.as.Token(nil), r.as.Token(nil)
	r.wantActive("app", token, "before")
	r.revokeAs("app", token)
	r.wantInactive("app", token, "revoked by its client")
	for _, spelling := range revocationtest.Respellings(token) {
		r.wantInactive("app", spelling, "another spelling")
	}
	r.wantActive("app", alive, "another token")

	key := r.as.Key("ES256")
	thumbprint, err := key.Thumbprint(crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	kid := base64.RawURLEncoding.EncodeToString(thumbprint)
	if got, _ := r.adminPost("revocations", map[string]any{"issuer": r.as.URL, "claims": map[string]string{"kid": kid}, "reason": "leaked"}); got.status != http.StatusOK {
		t.Fatalf("%d %s", got.status, got.body)
	}
	r.wantInactive("app", alive, "signed with a revoked key")
	r.wantActive("app", r.as.Sign(r.as.Claims(nil), "RS256"), "signed with another one")
}

func TestIntrospectionOfOpaqueTokensAsksTheServerOfTheClient(t *testing.T) {
	r := newIntrospectionRig(t)
	r.mustLoad(r.options(r.asking("cache_ttl 10m")), "token_introspection /oauth/introspect")
	end := time.Now().Add(5 * time.Minute).Unix()
	token := r.opaque.knows("opaque-1", map[string]any{
		"client_id": "app", "sub": "alice", "sid": "s1", "exp": end, "iat": end - 600, "scope": "read", "tenant": map[string]any{"id": 1e3},
	})
	members := r.wantActive("app", token, "its own")
	if members["scope"] != "read" || members["tenant"] == nil {
		t.Errorf("got %v", members)
	}
	r.wantInactive("api", token, "not for this client")
	r.wantActive("all", token, "to one that may ask about any")
	if n := r.opaque.questions(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	for why, token := range map[string]string{
		"unknown":       "never-issued",
		"another kind":  r.opaque.knows("opaque-id", map[string]any{"client_id": "app", "token_use": "id_token", "exp": end}),
		"not yet valid": r.opaque.knows("opaque-early", map[string]any{"client_id": "app", "exp": end, "nbf": end - 60}),
		"too long":      r.opaque.knows("opaque-long", map[string]any{"client_id": "app", "token_use": "access_token", "exp": end + 9000*3600}),
	} {
		r.wantInactive("app", token, why)
	}
	for name, members := range map[string]map[string]any{
		"that says so":            {"client_id": "app", "token_type": "refresh_token", "exp": end + 9000*3600},
		"that never ends":         {"client_id": "app", "token_use": "refresh_token"},
		"that is called a bearer": {"client_id": "app", "token_type": "Bearer", "exp": end + 9000*3600},
	} {
		token := r.opaque.knows("refresh-"+strings.ReplaceAll(name, " ", "-"), members)
		r.wantActive("app", token, "a refresh token "+name)
		r.wantInactive("all", token, "another client's refresh token "+name)
	}

	// Revoked here: the server still says that it is active.
	if got, _ := r.adminPost("revocations", map[string]any{"issuer": r.as.URL, "claims": map[string]string{"sid": "s1"}, "reason": "test"}); got.status != http.StatusOK {
		t.Fatalf("%d %s", got.status, got.body)
	}
	r.wantInactive("app", token, "its session revoked")

	r.opaque.fail(true)
	got := r.introspect("app", "opaque-unseen")
	if got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" || strings.Contains(got.body, "active") {
		t.Errorf("the server is down: %d %s", got.status, got.body)
	}
	r.wantInactive("app", "eyJ.not.ajwt", "malformed, with the server down")
}

// A refresh token may be a JWT that only its server judges. What that tells less
// of it than the token itself says must not hide a revocation.
func TestIntrospectionOfJWTsThatOnlyTheServerJudges(t *testing.T) {
	r := newIntrospectionRig(t)
	end := time.Now().Add(5 * time.Minute).Unix()
	r.mustLoad(r.options(r.asking("cache_ttl 10m")), "token_introspection /oauth/introspect")
	shared := jose.JSONWebKey{Key: []byte("the server's own secret, which nobody else knows"), Algorithm: "HS512"}
	mine := revocationtest.SignWith(t, shared, nil, r.as.Claims(map[string]any{"typ": "Refresh", "sid": "s7"}))
	r.wantInactive("app", mine, "unknown to the server")
	// As a fresh token: inactive answers are not kept.
	r.opaque.knows(mine, map[string]any{"client_id": "app", "token_type": "refresh_token", "exp": end})
	r.wantActive("app", mine, "a refresh token")
	if got, _ := r.adminPost("revocations", map[string]any{"issuer": r.as.URL, "claims": map[string]string{"sid": "s7"}, "reason": "test"}); got.status != http.StatusOK {
		t.Fatalf("%d %s", got.status, got.body)
	}
	r.wantInactive("app", mine, "its session revoked, of which the server does not tell")
	before := r.opaque.questions()
	foreign := revocationtest.SignWith(t, shared, nil, map[string]any{"iss": "https://other.example", "typ": "Refresh"})
	r.wantInactive("app", foreign, "of another issuer")
	if r.opaque.questions() != before {
		t.Error("the token of another issuer was sent to this one")
	}
}

func TestIntrospectionTellsNothingToWhoeverMayNotAsk(t *testing.T) {
	r := newIntrospectionRig(t)
	r.mustLoad(r.options(""), "token_introspection /oauth/introspect")
	token := r.as.Token(map[string]any{"client_id": "spa"})
	form := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	for why, body := range map[string]string{
		"nobody":          "token=" + token,
		"a public client": "client_id=spa&token=" + token,
		"a wrong secret":  "client_id=app&client_secret=wrong&token=" + token,
	} {
		got := r.do(http.MethodPost, r.url("/oauth/introspect"), form, body)
		if got.status != http.StatusUnauthorized || !strings.HasPrefix(got.header.Get("WWW-Authenticate"), `Basic realm="token introspection"`) {
			t.Errorf("%s: %d %v %s", why, got.status, got.header, got.body)
		}
	}
	if got := r.do(http.MethodGet, r.url("/oauth/introspect?token="+token), nil, ""); got.status != http.StatusMethodNotAllowed || got.header.Get("Allow") != "POST" {
		t.Errorf("GET: %d %s", got.status, got.body)
	}
	// Nor is a reload a new set of guesses.
	for range 12 {
		r.do(http.MethodPost, r.url("/oauth/introspect"), form, "client_id=app&client_secret=guess&token=x")
	}
	if err := r.load(r.options(""), "token_introspection /oauth/introspect {\nrealm other\n}"); err != nil {
		t.Fatal(err)
	}
	if got := r.introspect("app", r.as.Token(nil)); got.status != http.StatusTooManyRequests {
		t.Errorf("after the guesses: %d %s", got.status, got.body)
	}
	if n := r.metric(`caddy_token_revocation_introspection_endpoint_requests_total{result="invalid_client"}`); n == "" || n == "0" {
		t.Errorf("after the reload, refused clients are counted as %q", n)
	}
}

// Promise 3 and 4: an edge that does not know whether a token is revoked does not
// call it active.
func TestIntrospectionOfAnEdgeThatDoesNotKnow(t *testing.T) {
	r := newIntrospectionRig(t)
	down := strings.Replace(r.options(""), "embedded", "nats nats://127.0.0.1:1", 1)
	if err := r.load(down, "token_introspection /oauth/introspect"); err != nil {
		t.Fatal(err)
	}
	r.eventually("the keys", func() bool { return currentApp().issuers[0].Ready() })
	got := r.introspect("app", r.as.Token(nil))
	if got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" || got.header.Get("Cache-Control") != "no-store" {
		t.Errorf("%d %v %s", got.status, got.header, got.body)
	}
	r.wantInactive("app", "eyJ.not.ajwt", "malformed")
	r.wantInactive("api", r.as.Token(map[string]any{"aud": "x"}), "not for this client")
	if err := r.load(down, "token_introspection /oauth/introspect {\nstale fail_open\n}"); err != nil {
		t.Fatal(err)
	}
	r.wantActive("app", r.as.Token(nil), "fail_open")
	if n := r.metric("caddy_token_revocation_introspection_endpoint_failed_open_total"); n == "" || n == "0" {
		t.Errorf("failing open is counted as %q", n)
	}
}

func TestIntrospectionComesBeforeTheDenylist(t *testing.T) {
	r := newIntrospectionRig(t)
	r.mustLoad(r.options(""), "token_denylist {\nrequire_token\n}\ntoken_introspection /oauth/introspect {\nmembers sub exp\n}")
	members := r.wantActive("app", r.as.Token(nil), "with a denylist that requires a token")
	if len(members) != 3 || members["sub"] != "alice" {
		t.Errorf("got %v", members)
	}
}

// Nothing that was sent to the endpoint is in the log, at whatever level.
func TestIntrospectionLogsNoToken(t *testing.T) {
	r := newIntrospectionRig(t)
	log := t.TempDir() + "/log"
	config := strings.Replace(r.caddyfile(r.options(r.asking("cache_ttl 10m")), "token_introspection /oauth/introspect"),
		"level ERROR", "output file "+log+"\nformat json\nlevel DEBUG", 1)
	if err := r.loadConfig(config); err != nil {
		t.Fatal(err)
	}
	r.eventually("the edge to be in sync", func() bool {
		return currentApp().status().State == "in_sync" && currentApp().issuers[0].Ready()
	})
	token := r.as.Token(nil)
	r.wantActive("app", token, "a JWT")
	r.opaque.fail(true)
	r.introspect("app", "opaque-and-secret")
	r.introspect("app", "eyJ.broken.token")
	r.eventually("the log", func() bool {
		return logged(log, "token introspection request") && logged(log, "token cannot be introspected")
	})
	for _, secret := range []string{token, token[strings.LastIndexByte(token, '.')+1:], "opaque-and-secret", "broken.token", "app-secret", "edge-secret"} {
		if logged(log, secret) {
			t.Errorf("%q is in the log", secret)
		}
	}
}

func TestIntrospectionRefusesPlainHTTPFromElsewhere(t *testing.T) {
	for remote, want := range map[string]bool{"127.0.0.1:1": true, "[::1]:1": true, "[::ffff:127.0.0.1]:1": true, "192.0.2.1:1": false, "": false} {
		req := httptest.NewRequest(http.MethodPost, "/", nil)
		req.RemoteAddr = remote
		if got := cameProtected(req); got != want {
			t.Errorf("%s: %v", remote, got)
		}
	}
}

// A proxy on the same machine is no reason to believe that the request came from
// there.
func TestIntrospectionRefusesWhatALocalProxyGotOverPlainHTTP(t *testing.T) {
	r := newIntrospectionRig(t)
	config := r.caddyfile(r.options(""), "token_introspection /oauth/introspect")
	tests := []struct {
		name, value     string
		alone, trusting int // statuses without and with the proxy among the trusted ones
	}{
		{"Accept", "application/json", 200, 200},
		{"X-Forwarded-Proto", "http", 403, 403},
		{"X-Forwarded-Proto", "https", 403, 200},
		{"X-Forwarded-For", "203.0.113.5", 403, 403},
		{"X-Forwarded-Host", "edge.example", 403, 403},
		{"X-Real-IP", "203.0.113.5", 403, 403},
		{"Forwarded", "for=203.0.113.5;proto=http", 403, 403},
		{"Via", "1.1 proxy", 403, 403},
	}
	for _, trusted := range []string{"192.0.2.1", "127.0.0.1"} {
		if err := r.loadConfig(strings.Replace(config, "\tadmin ", "\tservers {\n\t\ttrusted_proxies static "+trusted+"\n\t}\n\tadmin ", 1)); err != nil {
			t.Fatal(err)
		}
		r.eventually("the edge to be in sync", func() bool { return currentApp().status().State == "in_sync" })
		for _, c := range tests {
			header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
			header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("app:app-secret")))
			header.Set(c.name, c.value)
			want := c.alone
			if trusted == "127.0.0.1" {
				want = c.trusting
			}
			if got := r.do(http.MethodPost, r.url("/oauth/introspect"), header, "token=no.such.token"); got.status != want {
				t.Errorf("%s: %s, %s is trusted: %d %s, want %d", c.name, c.value, trusted, got.status, got.body, want)
			}
		}
	}
}

func TestIntrospectionForAnIssuerThatIsNotConfiguredIsRefused(t *testing.T) {
	r := newIntrospectionRig(t)
	err := r.load(r.options(""), "token_introspection /oauth/introspect {\nissuer https://nobody.example\n}")
	if err == nil || !strings.Contains(err.Error(), "is not configured") {
		t.Errorf("%v", err)
	}
}
