package caddymodule

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
)

func webhook(t *testing.T, p *WebhookPolicy) *WebhookPolicy {
	t.Helper()
	if err := p.Provision(caddy.Context{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Cleanup() })
	return p
}

func someFacts() *oauth.Facts {
	return &oauth.Facts{
		Client: oauth.ClientFacts{ID: "app"},
		Token:  oauth.TokenFacts{Subject: "alice", Claims: map[string]any{"scope": "a"}},
	}
}

func TestWebhookIsAskedAndItsAnswerCounts(t *testing.T) {
	t.Setenv("WEBHOOK_KEY", "Bearer hook-key")
	for _, tt := range []struct {
		name    string
		answer  func(http.ResponseWriter)
		verdict oauth.Verdict // zero: a failure
	}{
		{"allows", says(200, `{"decision":"allow"}`), oauth.Allow},
		{"denies with a reason", says(200, `{"decision": "deny", "reason": "later"}`), oauth.Deny},
		{"skips", says(200, `{"reason":"","decision":"skip"}`), oauth.Skip},

		{"says so with another status", says(201, `{"decision":"allow"}`), 0},
		{"fails", says(500, `{"decision":"allow"}`), 0},
		{"redirects", func(w http.ResponseWriter) {
			w.Header().Set("Location", "/elsewhere")
			says(302, `{"decision":"allow"}`)(w)
		}, 0},
		{"is no JSON", says(200, `allow`), 0},
		{"is empty", says(200, ``), 0},
		{"says nothing", says(200, `{}`), 0},
		{"says something else", says(200, `{"decision":"Allow"}`), 0},
		{"says it twice", says(200, `{"decision":"deny","decision":"allow"}`), 0},
		{"says it in another letter case", says(200, `{"Decision":"allow"}`), 0},
		{"says more", says(200, `{"decision":"allow","decisions":"deny"}`), 0},
		{"says no text", says(200, `{"decision":true}`), 0},
		{"says an object", says(200, `{"decision":"allow","reason":{}}`), 0},
		{"goes on", says(200, `{"decision":"allow"}{"decision":"deny"}`), 0},
		{"is a list", says(200, `["decision","allow"]`), 0},
		{"has no end", says(200, `{"decision":"allow","reason":"`+strings.Repeat("x", maxWebhookAnswer)+`"}`), 0},
		{"is cut off", says(200, `{"decision":"allow"`), 0},
		{"is of another type", func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, `{"decision":"allow"}`)
		}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var asked atomic.Int32
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				var got oauth.Facts
				if err := json.NewDecoder(r.Body).Decode(&got); err != nil || got.Client.ID != "app" || got.Token.Subject != "alice" {
					t.Errorf("posted %+v: %v", got, err)
				}
				if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" || r.Header.Get("Authorization") != "Bearer hook-key" {
					t.Errorf("%s %v", r.Method, r.Header)
				}
				tt.answer(w)
			}))
			defer server.Close()
			p := webhook(t, &WebhookPolicy{URL: server.URL, Headers: map[string]string{"Authorization": "{env.WEBHOOK_KEY}"}})
			d, err := p.Decide(t.Context(), someFacts())
			if d.Verdict != tt.verdict || (err == nil) != (tt.verdict != 0) || asked.Load() != 1 {
				t.Errorf("%+v, %v after %d requests", d, err, asked.Load())
			}
		})
	}
}

func says(status int, body string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func TestWebhookThatDoesNotAnswerIsGivenUp(t *testing.T) {
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer server.Close()
	defer close(release)
	p := webhook(t, &WebhookPolicy{URL: server.URL, Timeout: caddy.Duration(50 * time.Millisecond)})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if d, err := p.Decide(ctx, someFacts()); err == nil || ctx.Err() != nil {
		t.Errorf("%+v, %v, %v", d, err, ctx.Err())
	}
}

func TestWebhookVerifiesItsServer(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { says(200, `{"decision":"allow"}`)(w) }))
	defer server.Close()
	server.Config.ErrorLog = nil
	if d, err := webhook(t, &WebhookPolicy{URL: server.URL}).Decide(t.Context(), someFacts()); err == nil {
		t.Errorf("a certificate of nobody: %+v", d)
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(ca, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if d, err := webhook(t, &WebhookPolicy{URL: server.URL, TLSCA: ca}).Decide(t.Context(), someFacts()); err != nil || d.Verdict != oauth.Allow {
		t.Errorf("a certificate of tls_ca: %+v, %v", d, err)
	}
}

func TestWebhookErrorsHoldNoAddress(t *testing.T) {
	p := webhook(t, &WebhookPolicy{URL: "http://127.0.0.1:1/?key=canary"})
	if _, err := p.Decide(t.Context(), someFacts()); err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("error %v", err)
	}
	for _, address := range []string{"http://hooks.example/?key=canary", "https://u:canary@hooks.example", "://canary", "ftp://x/canary"} {
		if err := (&WebhookPolicy{URL: address}).Provision(caddy.Context{}); err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("error %v", err)
		}
	}
	for _, address := range []string{"http://localhost:1", "http://127.0.0.9", "http://[::1]:80/", "http://[::ffff:127.0.0.1]"} {
		if err := (&WebhookPolicy{URL: address}).Provision(caddy.Context{}); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
	if err := (&WebhookPolicy{URL: "http://hooks.example", AllowHTTP: true}).Provision(caddy.Context{}); err != nil {
		t.Error(err)
	}
}

// FuzzWebhookAnswer: an answer that is taken is taken by encoding/json too, with
// the same meaning.
func FuzzWebhookAnswer(f *testing.F) {
	for _, s := range []string{`{"decision":"allow"}`, `{"decision":"skip","reason":"x"}`, `{"decision":"deny"}x`, `{`, `[]`, `{"decision":"a","decision":"allow"}`, `{"decisio\u006e":"allow"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		d, err := parseWebhookAnswer(answer)
		if err != nil {
			if d.Verdict != 0 {
				t.Fatalf("%q: %+v with %v", answer, d, err)
			}
			return
		}
		var want struct{ Decision, Reason string }
		if err := json.Unmarshal(answer, &want); err != nil {
			t.Fatalf("%q is taken, but %v", answer, err)
		}
		word := map[oauth.Verdict]string{oauth.Allow: "allow", oauth.Deny: "deny", oauth.Skip: "skip"}[d.Verdict]
		if word != want.Decision || fmt.Sprintf("%q", d.Reason) != fmt.Sprintf("%q", want.Reason) {
			t.Fatalf("%q: %+v, want %+v", answer, d, want)
		}
	})
}
