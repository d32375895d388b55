package caddymodule

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// What a handler between this one and the proxy answers was not forwarded: it is
// the answer, and nothing of unknown outcome is left.
func TestAnswersOfHandlersInBetween(t *testing.T) {
	s, as := newSite(t), newFakeServer(t)
	for _, tt := range []struct {
		name, between string
		status        int
		field         string
	}{
		{"401", "basic_auth {\nbob $2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG\n}", 401, "Www-Authenticate"},
		{"429", "header >Retry-After 7\nerror 429", 429, ""},
		{"413", "request_body {\nmax_size 10\n}", 413, ""},
		{"written", "respond busy 429", 429, ""},
		{"503", "error 503", 503, "Retry-After"},
		{"nobody listens", "reverse_proxy 127.0.0.1:1", 503, "Retry-After"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.mustLoad(demo, "route /as/revoke {\ntoken_revocation upstream\n"+tt.between+"\nreverse_proxy "+
				as.Listener.Addr().String()+"\n}\ntoken_denylist /")
			seen := as.seen()
			got := s.pass(own(aliceToken(s)))
			if got.status != tt.status || tt.field != "" && got.header.Get(tt.field) == "" {
				t.Errorf("status %d, %v: %s", got.status, got.header, got.body)
			}
			if strings.Contains(got.body, "authorization server") != (tt.status == 503) {
				t.Errorf("body %s", got.body)
			}
			if tt.name != "413" { // a part of that was sent
				s.wantIntents(0, 0)
			}
			if as.seen() != seen && tt.name != "413" {
				t.Error("it was forwarded: the test is broken")
			}
		})
	}
}

// Names of clients are those of one issuer: another tenant's server, which knows
// neither the token nor its client, says 200 as well.
func TestAClientOfAnotherIssuerIsAnotherClient(t *testing.T) {
	s, as, opaque := newSite(t), newFakeServer(t), revocationtest.NewOpaqueServer(t, edgeSecret)
	s.mustLoad("issuer development\n"+opaqueOptions(t, opaque), as.behind("issuer "+opaque.URL))
	as.set(write(200, "application/json", "{}"))
	token := aliceToken(s)
	if got := s.pass(own(token)); got.status != 200 {
		t.Fatalf("status %d", got.status)
	}
	if n := entries(); n != 0 || s.get(token).status != http.StatusOK {
		t.Errorf("%d entries", n)
	}
}

// Nobody holds answers of an authorization server that nobody asks.
func TestGarbageWritesNothingForAnIssuerThatIsNotAsked(t *testing.T) {
	s, as := newSite(t), newFakeServer(t)
	s.mustLoad(demo, as.behind(""))
	as.set(write(200, "application/json", "{}"))
	sequence := func() uint64 { return currentApp().replica.denylist.Position().Sequence }
	before := sequence()
	for n := range 6 {
		if got := s.pass(url.Values{"token": {fmt.Sprint("garbage", n)}, "client_id": {"anybody"}}); got.status != 200 {
			t.Fatalf("status %d", got.status)
		}
	}
	if grown := sequence() - before; grown > 2 { // heartbeats
		t.Errorf("%d entries", grown)
	}
	metrics := s.do(http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/metrics", s.admin), nil, "").body
	if strings.Contains(metrics, `upstream_requests_total{result="rechecked"}`) {
		t.Error("it was rechecked")
	}
}

// A script has to see that it has to try again.
func TestOurAnswersAfterTheServersAllowWhatItsOwnAllow(t *testing.T) {
	s, as := newSite(t), newFakeServer(t)
	s.mustLoad(demo, as.behind("timeout 500ms"))
	as.set(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "https://app.example")
		w.Header().Set("Access-Control-Expose-Headers", "Retry-After")
		w.Header().Set("Vary", "Origin")
		w.Header().Set("Set-Cookie", "a=b")
		w.WriteHeader(200)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	got := s.pass(own(aliceToken(s)), func(h http.Header) { h.Set("Origin", "https://app.example") })
	h := got.header
	if got.status != 503 || h.Get("Access-Control-Allow-Origin") != "https://app.example" ||
		h.Get("Access-Control-Expose-Headers") != "Retry-After" || h.Get("Vary") != "Origin" || h.Get("Set-Cookie") != "" {
		t.Errorf("status %d, %v", got.status, h)
	}
}

// Garbage must not keep the enforcement from asking, and is stopped before anybody
// is asked about it; a client that has much to revoke is not.
func TestAFloodOfGarbageIsThrottledBeforeTheServerIsAsked(t *testing.T) {
	s, as, opaque := opaqueSite(t, "")
	as.set(write(401, "application/json", `{"error":"invalid_client"}`))
	const posts = 90
	refused := 0
	asked, seen := opaque.Hits(), as.seen()
	for range posts {
		got := s.pass(url.Values{"token": {"same-garbage"}, "client_id": {"nobody"}})
		switch got.status {
		case http.StatusUnauthorized:
		case http.StatusTooManyRequests:
			refused++
			if got.header.Get("Retry-After") == "" {
				t.Fatalf("without Retry-After: %v", got.header)
			}
		default:
			t.Fatalf("status %d: %s", got.status, got.body)
		}
	}
	if refused == 0 || opaque.Hits()-asked != posts-refused || as.seen()-seen != posts-refused {
		t.Errorf("%d of %d refused, %d questions, %d forwarded", refused, posts, opaque.Hits()-asked, as.seen()-seen)
	}
	as.set(write(200, "", ""))
	for range posts {
		if got := s.pass(app(opaque.Issue(map[string]any{"token_use": "access_token"}))); got.status != http.StatusOK {
			t.Fatalf("a client that revokes its own: %d", got.status)
		}
	}
	// A reload is no new set of guesses.
	s.mustLoad(opaqueOptions(t, opaque), as.behind("timeout 9s"))
	if got := s.pass(url.Values{"token": {"same-garbage"}, "client_id": {"nobody"}}); got.status != http.StatusTooManyRequests {
		t.Errorf("after a reload: %d", got.status)
	}
}
