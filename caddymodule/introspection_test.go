package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

const edgeSecret = "geheim: 100% ä"

// opaqueOptions trusts an issuer without keys, which is asked about its tokens.
func opaqueOptions(t *testing.T, as *revocationtest.OpaqueServer) string {
	t.Helper()
	t.Setenv("EDGE_SECRET", edgeSecret)
	return fmt.Sprintf(`
	embedded
	issuer %[1]s {
		alias https://old.example
		opaque
		introspection %[1]s/introspect {
			client_id     edge
			client_secret {env.EDGE_SECRET}
			cache_ttl     10m
		}
	}
`, as.URL)
}

// ask asks the running app's introspector about a token, as enforcement does.
func (s *site) ask(as, token string) (issuer.Introspection, error) {
	s.t.Helper()
	app := currentApp()
	names, _ := app.replica.denylist.ClaimNames()
	return app.introspector(as).Introspect(s.t.Context(), token, issuer.IntrospectionRequest{ClaimNames: names})
}

func (s *site) mustAsk(as, token string) *revocation.Identity {
	s.t.Helper()
	answer, err := s.ask(as, token)
	if err != nil {
		s.t.Fatalf("asking: %v", err)
	}
	return answer.Identity
}

// denied tells whether a token is denied by what was answered about it.
func (s *site) denied(as, token string) bool {
	s.t.Helper()
	return currentApp().replica.denylist.Check(s.mustAsk(as, token)).Denied
}

func purgers() int {
	stacks := make([]byte, 16<<20)
	return strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "caddymodule.(*purger).run(")
}

func TestAnIssuerWithoutKeysIsReadyAndAsked(t *testing.T) {
	s := newSite(t)
	as := revocationtest.NewOpaqueServer(t, edgeSecret)
	s.mustLoad(opaqueOptions(t, as), "token_denylist")
	if as.Hits() != 0 {
		t.Errorf("%d requests before anything was asked", as.Hits())
	}
	token := as.Issue(nil)
	for _, name := range []string{as.URL, "https://old.example"} {
		if sub, _ := s.mustAsk(name, token).Value("sub"); sub != "alice" {
			t.Errorf("asked at %s: sub %q", name, sub)
		}
	}
	if as.Asked(token) != 1 || as.Hits() != 1 {
		t.Errorf("asked %d times, %d requests", as.Asked(token), as.Hits())
	}
	if currentApp().introspector("https://nobody.example") != nil {
		t.Error("an issuer that is not configured can be asked")
	}
	// A JWT that names the issuer is none of its tokens.
	now := time.Now()
	jwt := revocationtest.SignWith(t, revocationtest.NewKey(t, "ES256", "k"), map[string]any{"typ": "at+jwt"}, map[string]any{
		"iss": as.URL, "sub": "alice", "client_id": "app", "jti": "1", "iat": now.Unix(), "exp": now.Add(time.Minute).Unix(),
	})
	s.wantStatus(jwt, http.StatusUnauthorized, "a JWT of an issuer without keys")
}

func TestIntrospectionSurvivesReloads(t *testing.T) {
	s := newSite(t)
	as := revocationtest.NewOpaqueServer(t, edgeSecret)
	options := opaqueOptions(t, as)
	s.mustLoad(options, "token_denylist")
	token := as.Issue(nil)
	s.mustAsk(as.URL, token)
	before := currentApp().introspector(as.URL)

	if err := s.load(options, "token_denylist\nheader X-Config 2"); err != nil {
		t.Fatal(err)
	}
	s.mustAsk(as.URL, token)
	if currentApp().introspector(as.URL) != before || as.Asked(token) != 1 {
		t.Errorf("a reload forgot what was answered: asked %d times", as.Asked(token))
	}

	// A failed reload neither takes anything away nor leaves anything behind.
	for _, change := range []string{"max_entries 5000", "client x public {\nissuer https://nobody.example\n}"} {
		if err := s.load(strings.Replace(options, "10m", "9m", 1)+change, "token_denylist"); err == nil {
			t.Fatal("loaded")
		}
	}
	s.mustAsk(as.URL, token)
	if as.Asked(token) != 1 {
		t.Error("a failed reload forgot what was answered")
	}
	if n := purgers(); n != 1 {
		t.Errorf("%d purgers are running, want 1", n)
	}
	count := 0
	introspectors.Range(func(key, _ any) bool {
		n, _ := introspectors.References(key)
		count += n
		return true
	})
	if count != 1 {
		t.Errorf("%d references to introspectors, want 1", count)
	}
}

// Rotating the secret, or any other change of the introspection block, keeps the
// issuer and with it its keys, even while nobody could load them again.
func TestAnotherSecretKeepsTheKeys(t *testing.T) {
	s := newSite(t)
	signs := revocationtest.NewAuthServer(t)
	answers := revocationtest.NewOpaqueServer(t, "first secret")
	file := filepath.Join(t.TempDir(), "a secret")
	write := func(secret string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("first secret")
	options := func(ttl string) string {
		return fmt.Sprintf("embedded\nissuer %s {\nintrospection %s/introspect {\nclient_id edge\nclient_secret \"{file.%s}\"\ncache_ttl %s\n}\n}",
			signs.URL, answers.URL, file, ttl)
	}
	s.mustLoad(options("1m"), "token_denylist")
	jwt := signs.Token(nil)
	opaque := answers.Issue(map[string]any{"iss": signs.URL})
	s.wantStatus(jwt, http.StatusOK, "a token before the reload")
	s.mustAsk(signs.URL, opaque)
	keys, asks := currentApp().issuers[0], currentApp().introspectors[0]

	signs.Fail(http.StatusInternalServerError)
	for n, change := range []string{"2m", "1m"} {
		secret := fmt.Sprintf("secret %d", n)
		write(secret)
		answers.SetSecret(secret)
		if err := s.load(options(change), "token_denylist"); err != nil {
			t.Fatal(err)
		}
		if currentApp().issuers[0] != keys {
			t.Error("the issuer is another one")
		}
		if currentApp().introspectors[0] == asks {
			t.Error("the introspector is the same")
		}
		s.wantStatus(jwt, http.StatusOK, "a token right after the reload")
		s.mustAsk(signs.URL, opaque)
	}
	if answers.Asked(opaque) != 3 {
		t.Errorf("asked %d times, want once with each secret", answers.Asked(opaque))
	}
}

// `caddy validate` provisions a config, and asks nobody.
func TestValidatingAsksNobody(t *testing.T) {
	s := newSite(t)
	as := revocationtest.NewOpaqueServer(t, edgeSecret)
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(s.caddyfile(opaqueOptions(t, as), "token_denylist")), nil)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(adapted), edgeSecret) || !strings.Contains(string(adapted), "{env.EDGE_SECRET}") {
		t.Error("the placeholder was resolved while adapting")
	}
	var config caddy.Config
	if err := json.Unmarshal(adapted, &config); err != nil {
		t.Fatal(err)
	}
	if err := caddy.Validate(&config); err != nil {
		t.Fatal(err)
	}
	if as.Hits() != 0 || purgers() != 0 {
		t.Errorf("%d requests, %d purgers left", as.Hits(), purgers())
	}
}

func TestMistakesOfIntrospectionAreNamedWithoutSecrets(t *testing.T) {
	s := newSite(t)
	s.mustLoad(demo, "token_denylist")
	const secret = "s3cr3t-in-clear"
	for name, c := range map[string]struct{ block, want string }{
		"a secret in clear":         {`"client_id":"edge","client_secret":"` + secret + `"`, "client_secret is taken from a placeholder only"},
		"a bearer token in clear":   {`"bearer_token":"` + secret + `"`, "bearer_token is taken from a placeholder only"},
		"a JWK in clear":            {`"client_id":"edge","private_key":"{\"kty\":\"EC\",\"d\":\"` + secret + `\"}"`, "private_key is taken from a placeholder only"},
		"a placeholder without":     {`"client_id":"edge","client_secret":"{env.NOT_THERE_AT_ALL}"`, "NOT_THERE_AT_ALL"},
		"no key in the placeholder": {`"client_id":"edge","private_key":"{env.NOT_A_KEY}"`, "private_key: it is neither a JWK nor PEM"},
		"two credentials":           {`"client_id":"edge","client_secret":"{env.NOT_A_KEY}","bearer_token":"{env.NOT_A_KEY}"`, "remove one of them"},
		"plain http":                {`"endpoint":"http://as.example/","auth_method":"none"`, "allow_http"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("NOT_A_KEY", secret)
			block := c.block
			if !strings.Contains(block, "endpoint") {
				block = `"endpoint":"https://as.example/introspect",` + block
			}
			err := caddy.Load([]byte(fmt.Sprintf(`{"admin":{"listen":"127.0.0.1:%d"},"apps":{"token_revocation":{"issuers":[`+
				`{"issuer":"https://as.example","opaque":true,"introspection":{%s}}]}}}`, s.admin, block)), true)
			if err == nil {
				t.Fatal("loaded")
			}
			if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "https://as.example") {
				t.Errorf("error %q should name the issuer and contain %q", err, c.want)
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the secret is in the error %q", err)
			}
		})
	}
}

func TestStatusAndMetricsTellHowAskingGoes(t *testing.T) {
	s := newSite(t)
	as := revocationtest.NewOpaqueServer(t, edgeSecret)
	options := strings.Replace(opaqueOptions(t, as), "cache_ttl     10m", "breaker_failures 2\nbreaker_cooldown 5m", 1)
	s.mustLoad(options, "token_denylist")
	token := as.Issue(nil)
	s.mustAsk(as.URL, token)
	s.mustAsk(as.URL, token)
	if _, err := s.ask(as.URL, "unknown-token"); !errors.Is(err, issuer.ErrInactive) {
		t.Errorf("an unknown token: %v", err)
	}
	as.Fail(http.StatusInternalServerError)
	for range 3 {
		if _, err := s.ask(as.URL, "another-token"); !errors.Is(err, issuer.ErrIntrospectionUnavailable) {
			t.Errorf("a failing server: %v", err)
		}
	}
	var status statusAnswer
	got := s.do(http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%sstatus", s.admin, adminPrefix), nil, "")
	if err := json.Unmarshal([]byte(got.body), &status); err != nil {
		t.Fatal(err)
	}
	is := status.Issuers[0].Introspection
	if is == nil || is.Breaker != "open" || is.Failures != 2 || is.Endpoint != as.URL+"/introspect" || is.Answers != 1 ||
		is.Asked != 4 || is.Active != 1 || is.Inactive != 1 || is.Failed != 2 || is.Hits != 1 || is.Refused != 1 || is.Opened != 1 ||
		!strings.Contains(is.LastError, "500") {
		t.Errorf("status %s", got.body)
	}
	metrics := s.do(http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/metrics", s.admin), nil, "").body
	for _, want := range []string{
		`questions_total{issuer="%s",outcome="active"} 1`, `questions_total{issuer="%s",outcome="failed"} 2`,
		`questions_total{issuer="%s",outcome="inactive"} 1`, `callers_total{issuer="%s",result="kept"} 1`,
		`callers_total{issuer="%s",result="refused"} 1`, `callers_total{issuer="%s",result="shared"} 0`,
		`breaker_open{issuer="%s"} 1`, `breaker_opened_total{issuer="%s"} 1`, `answers{issuer="%s"} 1`,
		`purged_total{issuer="%s"} 0`, `running{issuer="%s"} 0`, `seconds_count{issuer="%s"} 4`, `seconds_bucket{issuer="%s",le="+Inf"} 4`,
	} {
		want = "caddy_token_revocation_introspection_" + fmt.Sprintf(want, as.URL)
		if !strings.Contains(metrics, want+"\n") {
			t.Errorf("no %s", want)
		}
	}
	for _, text := range []string{got.body, metrics} {
		if strings.Contains(text, token) || strings.Contains(text, "geheim") || strings.Contains(text, "another-token") {
			t.Error("a token or a secret is shown")
		}
	}
}

// What a preset says of introspection counts in a JSON config as well, in which it
// is not written out.
func TestAPresetCountsForIntrospection(t *testing.T) {
	s := newSite(t)
	err := caddy.Load([]byte(fmt.Sprintf(`{"admin":{"listen":"127.0.0.1:%d"},"apps":{"token_revocation":{"issuers":[`+
		`{"issuer":"https://as.example","preset":"django","opaque":true,"introspection":{"endpoint":"https://as.example/i","auth_method":"none"}}]}}}`,
		s.admin)), true)
	if err != nil {
		t.Fatal(err)
	}
	if currentApp().introspectors[0].KnowsRefreshTokens() {
		t.Error("an inactive token is taken for a dead refresh token")
	}
}

// An opaque token from the request to the authorization server and back: what it
// says of the token is what revocations by user, session and client are compared
// with, while its answer is kept, and after.
func TestAnOpaqueTokenIsRevokedByWhatIsAnsweredAboutIt(t *testing.T) {
	s := newSite(t)
	as := revocationtest.NewOpaqueServer(t, edgeSecret)
	s.mustLoad(opaqueOptions(t, as), "token_denylist {\nintrospect 5m\n}")
	for _, claims := range []map[string]string{{"sub": "alice"}, {"sid": "session-1"}, {"client_id": "app"}, {"team": "red"}} {
		token, other := as.Issue(map[string]any{"team": "red"}), as.Issue(map[string]any{"sub": "bob", "sid": "s2", "client_id": "b"})
		s.wantStatus(token, http.StatusOK, "before the revocation")
		s.wantStatus(token, http.StatusOK, "from a kept answer")
		s.wantStatus(other, http.StatusOK, "another token")
		if as.Asked(token) != 1 {
			t.Errorf("asked %d times", as.Asked(token))
		}
		if got, _ := s.adminPost("revocations", revocationRequest{Claims: claims, Mode: "block"}); got.status != http.StatusOK {
			t.Fatalf("revoking %v: %s", claims, got.body)
		}
		s.wantStatus(token, http.StatusUnauthorized, fmt.Sprintf("%v is revoked", claims))
		s.wantStatus(other, http.StatusOK, "another token after the revocation")
		if got, _ := s.adminPost("restorations", revocationRequest{Claims: claims}); got.status != http.StatusOK {
			t.Fatalf("restoring %v: %s", claims, got.body)
		}
		s.wantStatus(token, http.StatusOK, "after the restoration")
	}
	token := as.Issue(nil)
	s.wantStatus(token, http.StatusOK, "a new token")
	as.Kill(token)
	s.wantStatus(token, http.StatusOK, "ended by the authorization server, within the time that an answer counts")
	if _, err := currentApp().service.Recheck(t.Context(), revocation.RecheckRequest{Issuer: as.URL}); err != nil {
		t.Fatal(err)
	}
	s.wantStatus(token, http.StatusUnauthorized, "the ledger says that it has to be asked again")
}
