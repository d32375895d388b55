package caddymodule

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// openRoute fails open at /open, and is closed elsewhere.
const openRoute = "handle /open {\ntoken_denylist {\nintrospect 5m fail_open\nrequire_token\n}\nrespond \"{http.token_denylist.decision}\"\n}\n" +
	"handle {\ntoken_denylist {\nintrospect 5m\n}\nrespond \"upstream reached\"\n}\nhandle_errors {\nrespond \"{http.token_denylist.decision}: {http.error.message}\"\n}"

func (s *site) open(token string) string {
	s.t.Helper()
	got := s.do("GET", s.url("/open"), bearer(token), "")
	return fmt.Sprintf("%d %s", got.status, got.body)
}

// neverBroken are options with which the server is asked however often it failed.
func neverBroken(t *testing.T, as *revocationtest.OpaqueServer) string {
	t.Helper()
	return strings.Replace(opaqueOptions(t, as), "cache_ttl     10m", "cache_ttl     10m\nbreaker_failures off", 1)
}

const (
	failedOpenAnswer = "200 introspection_failed_open"
	revokedAnswer    = "401 revoked: the token has been revoked"
)

// A revocation ends the answer that is kept about a token. That must not be what
// lets it through while its issuer can't be asked.
func TestRevocationDoesNotLetTokensThroughWhereRoutesFailOpen(t *testing.T) {
	s := newSite(t)
	as := revocationtest.NewOpaqueServer(t, edgeSecret)
	s.mustLoad(neverBroken(t, as), openRoute)
	want := func(token, answer, when string) {
		t.Helper()
		if got := s.open(token); got != answer {
			t.Errorf("%s: %s, want %s", when, got, answer)
		}
	}
	revoke := func(claims map[string]string) {
		t.Helper()
		if got, _ := s.adminPost("revocations", revocationRequest{Issuer: as.URL, Claims: claims, Mode: "block"}); got.status != http.StatusOK {
			t.Fatal(got)
		}
	}
	forget := func() { currentApp().introspector(as.URL).PurgeAll() }
	alice, bob := as.Issue(nil), as.Issue(map[string]any{"sub": "bob", "tenant": "t1"})
	carol, unseen := as.Issue(map[string]any{"sub": "carol"}), as.Issue(map[string]any{"sub": "dora"})
	for _, token := range []string{alice, bob} {
		want(token, "200 allowed", "active")
	}
	s.wantStatus(carol, 200, "on a route that does not fail open")
	as.Fail(http.StatusInternalServerError)
	want(alice, "200 allowed", "kept")
	revoke(map[string]string{"sub": "alice"})
	revoke(map[string]string{"sub": "carol"})
	forget()
	want(alice, revokedAnswer, "revoked, and its issuer is away")
	want(carol, revokedAnswer, "seen on another route")
	want(bob, failedOpenAnswer, "of somebody else")
	want(unseen, failedOpenAnswer, "never seen")
	// Also by a claim that no revocation named before.
	revoke(map[string]string{"tenant": "t1"})
	want(bob, revokedAnswer, "revoked by another claim")

	as.Fail(0)
	dead := as.Issue(map[string]any{"sub": "eve"})
	want(dead, "200 allowed", "active")
	as.Kill(dead)
	forget()
	want(dead, "401 inactive: the token is not valid here", "ended by its issuer")
	as.Fail(http.StatusInternalServerError)
	want(dead, "401 inactive: the token is not valid here", "and its issuer is away")

	// A reload forgets nothing of it.
	s.mustLoad(neverBroken(t, as), openRoute+"\nheader X-Reloaded yes")
	want(alice, revokedAnswer, "after a reload")
}

// What a token brings about by itself is no way past the question: only an
// authorization server that can't be asked about any token is.
func TestWhatATokenBringsAboutDoesNotFailOpen(t *testing.T) {
	s := newSite(t)
	as := revocationtest.NewOpaqueServer(t, edgeSecret)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		form, _ := url.ParseQuery(string(text))
		switch token := form.Get("token"); {
		case strings.HasPrefix(token, "../"):
			w.WriteHeader(http.StatusForbidden) // as a firewall does
		case strings.HasPrefix(token, "page"):
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "blocked")
		case strings.HasPrefix(token, "broken"):
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"active":`)
		default:
			r.Body = io.NopCloser(bytes.NewReader(text))
			as.Config.Handler.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(front.Close)
	s.mustLoad(strings.Replace(neverBroken(t, as), "introspection "+as.URL, "introspection "+front.URL, 1), openRoute)
	const unavailableAnswer = "503 introspection_unavailable: the token can't be checked at the moment"
	for name, token := range map[string]string{
		"refused by a firewall":     "../../etc/passwd",
		"answered with a page":      "page-1",
		"answered with broken JSON": "broken-1",
		"with an odd binding":       as.Issue(map[string]any{"cnf": map[string]any{"jkt": map[string]any{}}}),
		"with a very long claim":    as.Issue(map[string]any{"sid": strings.Repeat("x", 1100)}),
		"with a very long answer":   as.Issue(map[string]any{"note": strings.Repeat("x", 70<<10)}),
	} {
		if got := s.open(token); got != unavailableAnswer {
			t.Errorf("%s: %s", name, got)
		}
	}
	as.Fail(http.StatusBadRequest)
	if got := s.open("made-up"); got != unavailableAnswer {
		t.Errorf("status 400: %s", got)
	}
	for _, status := range []int{http.StatusInternalServerError, http.StatusServiceUnavailable} {
		as.Fail(status)
		if got := s.open("made-up"); got != failedOpenAnswer {
			t.Errorf("status %d: %s", status, got)
		}
	}
	front.Close()
	if got := s.open("made-up"); got != failedOpenAnswer {
		t.Errorf("no connection: %s", got)
	}
	// Why is for operators, not for strangers.
	if got := s.do("GET", s.url("/"), bearer("made-up"), ""); got.status != 503 || strings.Contains(got.body, "127.0.0.1") || got.body != strings.TrimPrefix(unavailableAnswer, "503 ") {
		t.Errorf("closed: %d %q", got.status, got.body)
	}
}

// Nor is a breaker that tokens have opened.
func TestBreakerThatTokensOpenDoesNotFailOpen(t *testing.T) {
	s := newSite(t)
	as := revocationtest.NewOpaqueServer(t, edgeSecret)
	s.mustLoad(strings.Replace(opaqueOptions(t, as), "cache_ttl     10m", "cache_ttl     10m\nbreaker_failures 3\nbreaker_cooldown 1m", 1), openRoute)
	for _, status := range []int{http.StatusForbidden, http.StatusInternalServerError} {
		as.Fail(status)
		for i := range 4 {
			got := s.open(fmt.Sprintf("made-up-%d-%d", status, i))
			if passed := got == failedOpenAnswer; passed != (status == http.StatusInternalServerError) {
				t.Errorf("status %d: %s", status, got)
			}
		}
		as.Fail(0)
		s.mustLoad(strings.Replace(opaqueOptions(t, as), "cache_ttl     10m", "cache_ttl     10m\nbreaker_failures 3\nbreaker_cooldown 2m", 1), openRoute)
	}
}

// What is kept is bounded, and what was used last stays.
func TestLastAnswersAreBounded(t *testing.T) {
	var l lastAnswers
	text := bytes.Repeat([]byte("x"), 64<<10)
	l.keep("https://as.example", "unwanted", text)
	if _, known := l.find("https://as.example", "unwanted"); known {
		t.Error("kept where no route fails open")
	}
	l.wanted.Store(true)
	l.end("https://as.example", "made-up")
	if len(l.bySum) != 0 {
		t.Error("a token that never was active takes memory")
	}
	const most = maxLastBytes / (64<<10 + lastOverhead)
	for i := range 2 * most {
		l.keep("https://as.example", fmt.Sprint(i), text)
		if _, known := l.find("https://as.example", "0"); !known {
			t.Fatal("what was used last was dropped")
		}
		if i%3 == 0 {
			l.end("https://as.example", fmt.Sprint(i/2+1))
		}
	}
	var bytes int
	for _, e := range l.bySum {
		bytes += e.Value.(*lastAnswer).cost()
	}
	if bytes != l.bytes || bytes > maxLastBytes || len(l.bySum) != l.order.Len() || len(l.bySum) < most {
		t.Errorf("%d answers of %d bytes, counted as %d and %d", len(l.bySum), bytes, l.order.Len(), l.bytes)
	}
	if _, known := l.find("https://as.example", "1"); known {
		t.Error("the oldest one was not dropped")
	}
	if _, known := l.find("https://other.example", "0"); known {
		t.Error("found for another issuer")
	}
}
