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

// trusting are the options of an edge that verifies this server's tokens.
func trusting(as *revocationtest.AuthServer) string {
	return "embedded\nissuer " + as.Issuer() + "\n"
}

func bearer(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }

// RFC 6750, section 3; RFC 9449, section 7.1; RFC 9728, section 5.1.
func TestChallenges(t *testing.T) {
	s := newSite(t)
	const metadata = "https://api.example/.well-known/oauth-protected-resource"
	s.mustLoad(demo, "token_denylist {\nrequire_token\nrealm orders\nresource_metadata "+metadata+"\ndpop_algorithms ES256 RS256\n}")
	revoked := aliceToken(s)
	s.mustRevoke(revoked, "demo-app")
	const rest = `resource_metadata="` + metadata + `"`
	for name, c := range map[string]struct {
		header http.Header
		status int
		want   []string
	}{
		"no token: no error code": {nil, 401, []string{
			`Bearer realm="orders", ` + rest, `DPoP realm="orders", ` + rest + `, algs="ES256 RS256"`,
		}},
		"revoked": {bearer(revoked), 401, []string{
			`Bearer realm="orders", error="invalid_token", error_description="the token has been revoked", ` + rest,
			`DPoP realm="orders", ` + rest + `, algs="ES256 RS256"`,
		}},
		"revoked, for DPoP": {http.Header{"Authorization": {"dpop " + revoked}, "Dpop": {"proof"}}, 401, []string{
			`DPoP realm="orders", error="invalid_token", error_description="the token has been revoked", ` + rest + `, algs="ES256 RS256"`,
		}},
		"two proofs": {http.Header{"Authorization": {"DPoP " + revoked}, "Dpop": {"a", "b"}}, 400, []string{
			`DPoP realm="orders", error="invalid_request", error_description="the request must have exactly one DPoP proof", ` + rest + `, algs="ES256 RS256"`,
		}},
	} {
		got := s.do("GET", s.url("/"), c.header, "")
		if challenges := got.header["Www-Authenticate"]; got.status != c.status || strings.Join(challenges, "\n") != strings.Join(c.want, "\n") {
			t.Errorf("%s: %d\n%s\nwant\n%s", name, got.status, strings.Join(challenges, "\n"), strings.Join(c.want, "\n"))
		}
		if got.header.Get("Cache-Control") != "no-store" || strings.Contains(fmt.Sprint(got), "alice") {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// What a site adds to its answers is on refusals too, and handle_errors renders
// them without losing the challenge or learning whose token it was.
func TestRefusalsAreRenderedWithTheSitesFields(t *testing.T) {
	s := newSite(t)
	s.mustLoad(demo, `
	header Access-Control-Allow-Origin https://app.example
	handle_errors {
		header Content-Type text/plain
		respond "sorry: {http.error.status_code} {http.error.message}"
	}
	token_denylist {
		require_token
	}`)
	revoked := aliceToken(s)
	s.mustRevoke(revoked, "demo-app")
	header := bearer(revoked)
	header.Set("Origin", "https://app.example")
	got := s.do("GET", s.url("/"), header, "")
	if got.status != 401 || got.body != "sorry: 401 the token has been revoked" || !strings.Contains(got.header.Get("WWW-Authenticate"), "invalid_token") {
		t.Errorf("%d %q %v", got.status, got.body, got.header)
	}
	if h := got.header; h.Get("Access-Control-Allow-Origin") != "https://app.example" || h.Get("Access-Control-Expose-Headers") != "WWW-Authenticate" || h.Get("Cache-Control") != "no-store" {
		t.Errorf("a script can't read it: %v", h)
	}
	preflight := s.do("OPTIONS", s.url("/"), http.Header{"Origin": {"https://app.example"}, "Access-Control-Request-Method": {"PUT"}}, "")
	if preflight.status != 200 || preflight.header.Get("Access-Control-Allow-Origin") == "" {
		t.Errorf("preflight: %d %v", preflight.status, preflight.header)
	}
}

// 9728-02: the upstream's own challenges are its own.
func TestChallengesOfTheUpstreamStay(t *testing.T) {
	s := newSite(t)
	s.mustLoad(demo, "token_denylist {\nrealm ours\n}\nrespond /denied 401\nheader /denied WWW-Authenticate `Bearer realm=\"theirs\"`")
	got := s.do("GET", s.url("/denied"), bearer(aliceToken(s)), "")
	if c := got.header["Www-Authenticate"]; got.status != 401 || len(c) != 1 || c[0] != `Bearer realm="theirs"` {
		t.Errorf("%d %q", got.status, c)
	}
}

// The access log of a refusal names the entry, and neither log holds the token.
func TestLogsNameTheEntryAndNotTheToken(t *testing.T) {
	s := newSite(t)
	file := filepath.Join(t.TempDir(), "log.json")
	config := strings.Replace(s.caddyfile(demo, "log\ntoken_denylist"), "level ERROR", "level DEBUG\noutput file "+file, 1)
	if err := s.loadConfig(config); err != nil {
		t.Fatal(err)
	}
	s.eventually("the edge to be in sync", func() bool { return currentApp().status().State == "in_sync" && currentApp().development.Ready() })
	revoked := aliceToken(s)
	s.mustRevoke(revoked, "demo-app")
	s.wantStatus(revoked, http.StatusUnauthorized, "revoked")
	var text string
	s.eventually("the access log", func() bool {
		content, err := os.ReadFile(file)
		text = string(content)
		return err == nil && strings.Contains(text, `"token_denylist":{"decision":"revoked","place":"header","entry":`)
	})
	if !strings.Contains(text, `"shape":"jti"`) || !strings.Contains(text, `"msg":"request refused"`) {
		t.Error("entry and line are missing")
	}
	for part := range strings.SplitSeq(revoked, ".") {
		if strings.Contains(text, part) {
			t.Error("a part of the token is in the log")
		}
	}
}

func TestLogOfRefusalsIsLimited(t *testing.T) {
	var l logLimit
	now := time.Unix(1000, 0)
	written := 0
	for range 100 {
		if ok, _ := l.allow(now); ok {
			written++
		}
	}
	ok, omitted := l.allow(now.Add(time.Second))
	if written != maxLines || !ok || omitted != 100-maxLines {
		t.Errorf("%d lines, then %v with %d omitted", written, ok, omitted)
	}
}

const shown = `respond "{http.token_denylist.decision}|{http.token_denylist.sub}|{http.token_denylist.client_id}|{http.token_denylist.sid}|{http.token_denylist.issuer}|{http.token_denylist.claims.org.id}|{http.token_denylist.claims.roles}|{http.token_denylist.claims.n}|{http.token_denylist.claims.none}"`

// Placeholders tell of a token what was verified, and nothing that was only read.
func TestPlaceholdersTellOnlyWhatWasVerified(t *testing.T) {
	s := newSite(t)
	as := revocationtest.NewAuthServer(t)
	s.mustLoad(trusting(as), `
	handle /lax {
		token_denylist {
			verify off
		}
		`+shown+`
	}
	handle /twice {
		route {
			token_denylist {
				verify off
			}
			token_denylist
			`+shown+`
		}
	}
	handle /monitor {
		token_denylist {
			monitor
		}
		`+shown+`
	}
	handle {
		token_denylist
		`+shown+`
	}
	handle_errors {
		`+shown+`
	}`)
	token := as.Token(map[string]any{"org": map[string]any{"id": "acme"}, "roles": []string{"a", "b"}, "n": 12345678901})
	forged := token[:len(token)-10] + "AAAAAAAAAA"
	const claims = `|alice|app|session-1|%s|acme|["a","b"]|12345678901|`
	verified := fmt.Sprintf(claims, as.Issuer())
	for path, c := range map[string]struct{ token, want string }{
		"/":             {token, "allowed" + verified},
		"/none":         {"", "no_token||||||||"},
		"/forged":       {forged, "invalid||||||||"},
		"/lax":          {token, "allowed||||||||"},
		"/twice":        {token, "allowed" + verified},
		"/monitor":      {forged, "invalid||||||||"},
		"/monitor?good": {token, "allowed" + verified},
	} {
		header := http.Header{}
		if c.token != "" {
			header = bearer(c.token)
		}
		for range 3 { // from the cache as well
			if got := s.do("GET", s.url(strings.TrimSuffix(path, "?good")), header, ""); got.body != c.want {
				t.Errorf("%s: %q, want %q", path, got.body, c.want)
			}
		}
	}
}

func TestPlaceholdersInExpressions(t *testing.T) {
	s := newSite(t)
	as := revocationtest.NewAuthServer(t)
	s.mustLoad(trusting(as), `
	route {
		token_denylist
		@admin expression `+"`\"admin\" in {http.token_denylist.claims.roles} && {http.token_denylist.claims.level} > 3`"+`
		respond @admin "admin"
		respond "user"
	}`)
	for want, token := range map[string]string{
		"admin": as.Token(map[string]any{"roles": []string{"x", "admin"}, "level": 4}),
		"user":  as.Token(map[string]any{"roles": []string{"x"}, "level": 4}),
	} {
		if got := s.do("GET", s.url("/"), bearer(token), ""); got.body != want {
			t.Errorf("%q, want %q", got.body, want)
		}
	}
}

// The matcher knows revoked tokens with and without the handler; where that can't
// be told, the request goes nowhere.
func TestRevokedTokensMatch(t *testing.T) {
	s := newSite(t)
	options := demo
	s.mustLoad(options, `
	@revoked token_revoked {
		inspect cookie session
		opaque_issuer `+issuer.DevelopmentIssuer+`
	}
	handle @revoked {
		respond "revoked"
	}`)
	token, other := aliceToken(s), aliceToken(s)
	s.mustRevoke(token, "demo-app")
	hash, err := issuer.OpaqueTokenHash("opaque-token")
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := s.adminPost("revocations", revocationRequest{Claims: map[string]string{"token": hash}}); got.status != 200 {
		t.Fatal(got)
	}
	const reached = "upstream reached"
	for name, c := range map[string]struct {
		header http.Header
		want   string
	}{
		"revoked":                {bearer(token), "revoked"},
		"with another signature": {bearer(token[:len(token)-10] + "AAAAAAAAAA"), "revoked"},
		"in a cookie":            {http.Header{"Cookie": {"session=" + token}}, "revoked"},
		"opaque":                 {bearer("opaque-token"), "revoked"},
		"not revoked":            {bearer(other), reached},
		"another opaque one":     {bearer("opaque-token-2"), reached},
		"rubbish":                {bearer("a.b.c"), reached},
		"none":                   {nil, reached},
		"two":                    {http.Header{"Authorization": {"Bearer " + other}, "Cookie": {"session=" + token}}, ""},
	} {
		got := s.do("GET", s.url("/"), c.header, "")
		if got.body != c.want || c.want == "" && got.status != 400 {
			t.Errorf("%s: %d %q, want %q", name, got.status, got.body, c.want)
		}
	}
	unreachable := strings.Replace(options, "embedded", "nats nats://127.0.0.1:1\nstream OTHER", 1)
	directives := "@revoked token_revoked\nrespond @revoked 403\nhandle_errors {\nrespond \"{http.error.message}\"\n}"
	if err := s.load(unreachable, directives); err != nil {
		t.Fatal(err)
	}
	if got := s.do("GET", s.url("/"), bearer(other), ""); got.status != http.StatusServiceUnavailable {
		t.Errorf("never synced: %d", got.status)
	} else if got.body != "the token can't be checked at the moment" {
		t.Errorf("strangers are told %q", got.body)
	}
}

// With introspect, the matcher and the handler agree about opaque tokens.
func TestRevokedOpaqueTokensMatch(t *testing.T) {
	s := newSite(t)
	as := revocationtest.NewOpaqueServer(t, edgeSecret)
	s.mustLoad(opaqueOptions(t, as), "@hash token_revoked {\nopaque_issuer "+as.URL+"\n}\nhandle /hash {\nrespond @hash revoked\n}\n"+
		"@open token_revoked {\nintrospect fail_open\n}\nhandle /open {\nrespond @open revoked\n}\n"+
		"@asked token_revoked {\nintrospect 1m\n}\nhandle /asked {\nrespond @asked revoked\n}")
	alice, bob := as.Issue(nil), as.Issue(map[string]any{"sub": "bob"})
	if got, _ := s.adminPost("revocations", revocationRequest{Issuer: as.URL, Claims: map[string]string{"sub": "alice"}, Mode: "block"}); got.status != 200 {
		t.Fatal(got)
	}
	want := func(path, token string, status int, body string) {
		t.Helper()
		if got := s.do("GET", s.url(path), bearer(token), ""); got.status != status || got.body != body {
			t.Errorf("%s: %d %q, want %d %q", path, got.status, got.body, status, body)
		}
	}
	const reached = "upstream reached"
	want("/hash", alice, 200, reached) // nothing is known of it
	want("/asked", alice, 200, "revoked")
	want("/open", alice, 200, "revoked")
	want("/asked", bob, 200, reached)
	want("/asked", "nobody-knows-it", 200, reached)
	as.Fail(http.StatusInternalServerError)
	unseen := as.Issue(nil)
	want("/asked", unseen, 503, "")
	want("/open", unseen, 200, reached)
	want("/asked", bob, 200, reached) // kept
}
