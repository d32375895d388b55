package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
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

// withAudience adds an audience to what [opaqueOptions] trusts.
func withAudience(options string) string {
	return strings.Replace(options, "\t\topaque\n", "\t\topaque\n\t\taudience orders\n", 1)
}

// Only its issuer knows how old an opaque token is.
func TestACutoffOfTheWholeIssuerSparesNewerOpaqueTokens(t *testing.T) {
	for _, option := range []string{"", "fail_open"} {
		s := newSite(t)
		as := revocationtest.NewOpaqueServer(t, edgeSecret)
		s.mustLoad(opaqueOptions(t, as), "handle {\ntoken_denylist {\nintrospect 10s "+option+"\n}\nrespond ok\n}")
		now := time.Now()
		if got, _ := s.adminPost("revocations", revocationRequest{
			Issuer: as.URL, WholeIssuer: true, Mode: "issued_before", Cutoff: now.Add(-time.Hour).Unix(),
		}); got.status != http.StatusOK {
			t.Fatal(got)
		}
		older, newer := as.Issue(map[string]any{"iat": now.Add(-2 * time.Hour).Unix()}), as.Issue(map[string]any{"iat": now.Unix()})
		if got := s.get(newer); got.status != http.StatusOK {
			t.Errorf("newer: %d", got.status)
		}
		if got := s.get(older); got.status != http.StatusUnauthorized {
			t.Errorf("older: %d", got.status)
		}
		unseen := as.Issue(map[string]any{"iat": now.Unix()})
		as.Close()
		if got := s.get(unseen); got.status == http.StatusOK {
			t.Errorf("of unknown age: %d", got.status)
		}
	}
}

// Opaque tokens are asked about on routes that say so, and revocations of their
// user, session and client count.
func TestOpaqueTokensAreAskedAbout(t *testing.T) {
	s := newSite(t)
	as := revocationtest.NewOpaqueServer(t, edgeSecret)
	s.mustLoad(opaqueOptions(t, as), "handle {\ntoken_denylist {\nintrospect 10s\n}\nrespond \"{http.token_denylist.sub} {http.token_denylist.claims.client_id}\"\n}")
	get := func(token string, want int, when string) {
		t.Helper()
		got := s.get(token)
		if got.status != want || want == 200 && !strings.HasSuffix(got.body, " app") {
			t.Errorf("%s: %d %q, want %d", when, got.status, got.body, want)
		}
	}
	token := as.Issue(nil)
	get(token, 200, "active")
	get(token, 200, "again")
	if n := as.Asked(token); n != 1 {
		t.Errorf("asked %d times within the time", n)
	}
	get("nobody-knows-it", 401, "unknown")

	for name, claims := range map[string]map[string]string{
		"user":    {"sub": "u1"},
		"client":  {"client_id": "app", "sub": "u2"},
		"session": {"sid": "s3"},
	} {
		members := map[string]any{}
		for claim, value := range claims {
			members[claim] = value
		}
		named, spared := as.Issue(members), as.Issue(map[string]any{"sub": "other"})
		get(named, 200, name)
		if got, _ := s.adminPost("revocations", revocationRequest{Issuer: as.URL, Claims: claims, Mode: "block"}); got.status != 200 {
			t.Fatal(got)
		}
		get(named, 401, name+" revoked")
		get(spared, 200, name+" of somebody else")
	}

	// A token that is revoked by itself costs no question.
	self := as.Issue(nil)
	hash, err := issuer.OpaqueTokenHash(self)
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := s.adminPost("revocations", revocationRequest{Issuer: as.URL, Claims: map[string]string{"token": hash}}); got.status != 200 {
		t.Fatal(got)
	}
	get(self, 401, "revoked by its hash")
	if n := as.Asked(self); n != 0 {
		t.Errorf("asked %d times about a revoked token", n)
	}
}

func TestAudienceOfOpaqueTokensIsChecked(t *testing.T) {
	s := newSite(t)
	as := revocationtest.NewOpaqueServer(t, edgeSecret)
	s.mustLoad(withAudience(opaqueOptions(t, as)), "token_denylist {\nintrospect\n}")
	s.wantStatus(as.Issue(map[string]any{"aud": "orders"}), 200, "for us")
	s.wantStatus(as.Issue(map[string]any{"aud": "billing"}), 401, "for others")
	s.wantStatus(as.Issue(map[string]any{"aud": "orders", "token_type": "refresh_token"}), 401, "a refresh token")
}

// Where the authorization server can't be asked, requests are refused, or let
// through by choice, which is counted; a revoked token is refused in any case.
func TestAuthorizationServerThatCanNotBeAsked(t *testing.T) {
	s := newSite(t)
	as := revocationtest.NewOpaqueServer(t, edgeSecret)
	token := as.Issue(nil)
	s.mustLoad(opaqueOptions(t, as), "handle /open {\ntoken_denylist {\nintrospect 10s fail_open\n}\nrespond \"{http.token_denylist.decision}{http.token_denylist.sub}\"\n}\nhandle {\ntoken_denylist {\nintrospect\n}\nrespond \"upstream reached\"\n}")
	as.Fail(http.StatusInternalServerError)
	if got := s.wantStatus(token, 503, "closed"); got.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	open := func() answer { return s.do("GET", s.url("/open"), bearer(token), "") }
	if got := open(); got.status != 200 || got.body != "introspection_failed_open" {
		t.Errorf("open: %d %q", got.status, got.body)
	}
	metrics := s.do("GET", fmt.Sprintf("http://127.0.0.1:%d/metrics", s.admin), nil, "").body
	if !strings.Contains(metrics, `checks_total{result="introspection_failed_open"} 1`) {
		t.Error("not counted")
	}
	// A client that goes away is no way past the question.
	d := &Denylist{Introspect: &IntrospectTokens{FailOpen: true}}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if v := d.unasked(gone, token, nil, errors.Join(issuer.ErrIntrospectionUnavailable, issuer.ErrUnreachable)); v.result != unaskable {
		t.Errorf("a request that was taken back: %s", v.result)
	}
	hash, err := issuer.OpaqueTokenHash(token)
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := s.adminPost("revocations", revocationRequest{Issuer: as.URL, Claims: map[string]string{"token": hash}}); got.status != 200 {
		t.Fatal(got)
	}
	if got := open(); got.status != 401 {
		t.Errorf("open, revoked: %d", got.status)
	}
}

// A route that does not ask must not vouch for tokens on one that does.
func TestTokensOfARouteThatDoesNotAskAreAskedAboutElsewhere(t *testing.T) {
	s := newSite(t)
	as := revocationtest.NewOpaqueServer(t, edgeSecret)
	s.mustLoad(opaqueOptions(t, as), "handle /lax {\ntoken_denylist {\nopaque_issuer "+as.URL+"\n}\nrespond \"upstream reached\"\n}\nhandle {\ntoken_denylist {\nintrospect\n}\nrespond \"upstream reached\"\n}")
	for range 30 {
		if got := s.do("GET", s.url("/lax"), bearer("made-up"), ""); got.status != 200 {
			t.Fatal(got)
		}
	}
	s.wantStatus("made-up", 401, "where it is asked")
}

// A JWT that only its issuer understands is asked about; others are not.
func TestJWTsThatOnlyTheirIssuerUnderstandsAreAskedAbout(t *testing.T) {
	s := newSite(t)
	as := revocationtest.NewOpaqueServer(t, edgeSecret)
	options := strings.Replace(opaqueOptions(t, as), "\t\topaque\n", "\t\tjwks_file "+emptyKeys(t)+"\n\t\talgorithms ES256\n", 1)
	if err := s.load(options, "token_denylist {\nintrospect\n}"); err != nil {
		t.Fatal(err)
	}
	s.eventually("the edge to be in sync", func() bool { return currentApp().status().State == "in_sync" })
	now := time.Now()
	claims := map[string]any{"iss": as.URL, "sub": "alice", "client_id": "app", "jti": "1", "iat": now.Unix(), "exp": now.Add(time.Minute).Unix()}
	key := revocationtest.NewKey(t, "RS256", "k")
	other := revocationtest.SignWith(t, key, map[string]any{"typ": "at+jwt"}, claims)
	if s.get(other); as.Asked(other) != 1 {
		t.Errorf("a JWT with another algorithm: asked %d times", as.Asked(other))
	}
	claims["iss"] = "https://old.example"
	alias := revocationtest.SignWith(t, key, map[string]any{"typ": "at+jwt"}, claims)
	if s.get(alias); as.Asked(alias) != 1 {
		t.Errorf("a JWT under the issuer's alias: asked %d times", as.Asked(alias))
	}
	claims["iss"] = "https://nobody.example"
	foreign := revocationtest.SignWith(t, key, map[string]any{"typ": "at+jwt"}, claims)
	if s.wantStatus(foreign, 401, "foreign"); as.Asked(foreign) != 0 {
		t.Error("asked about the token of somebody else")
	}
	broken := other[:len(other)-4] + "\x2e\x2e"
	if s.wantStatus(broken, 401, "broken"); as.Asked(broken) != 0 {
		t.Error("asked about a broken JWT")
	}
}

func TestOptionsThatContradictAreErrors(t *testing.T) {
	s := newSite(t)
	as := revocationtest.NewOpaqueServer(t, edgeSecret)
	for name, c := range map[string]struct{ options, directive, want string }{
		"nobody":                 {demo, "token_denylist {\nintrospect\n}", "add one to the issuer of the opaque tokens"},
		"another one":            {"issuer development\n" + opaqueOptions(t, as), "token_denylist {\nintrospect\nopaque_issuer " + issuer.DevelopmentIssuer + "\n}", "has no introspection block"},
		"asked about and passed": {opaqueOptions(t, as), "token_denylist {\nintrospect\npass_unknown\n}", "remove one of them"},
		"monitored and cut":      {demo, "token_denylist {\nmonitor\ncut_streams\n}", "remove one of them"},
		"a plain metadata URL":   {demo, "token_denylist {\nresource_metadata http://api.example/x\n}", "has to be https"},
		"an illegal URL":         {demo, "token_denylist {\nresource_metadata https://api.example/\\\\x\n}", "can't hold"},
		"a symmetric algorithm":  {demo, "token_denylist {\ndpop_algorithms HS256\n}", "is none of"},
		"an unknown issuer":      {demo, "@r token_revoked {\nopaque_issuer https://x.example\n}\nrespond @r 401", "is not configured"},
	} {
		if err := s.load(c.options, c.directive); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// emptyKeys is a file with a key that has signed nothing.
func emptyKeys(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "keys.json")
	key := revocationtest.NewKey(t, "ES256", "unused")
	keys, err := json.Marshal(map[string]any{"keys": []any{key.Public()}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, keys, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
