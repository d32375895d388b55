package caddymodule

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// hotRoute is a handler of the running app, a request with a token that it has
// cached, and what is behind it.
func hotRoute(tb testing.TB, app *App, token string) (*Denylist, *http.Request, caddyhttp.Handler) {
	tb.Helper()
	places, err := oauth.NewPlaces(nil)
	if err != nil {
		tb.Fatal(err)
	}
	d := &Denylist{app: app, counts: app.metrics.checks, places: places, Stale: app.Stale, told: new(logLimit)}
	r := httptest.NewRequest("GET", "/orders?page=1", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		v := d.judgeRequest(r)
		if _, known := app.replica.denylist.Lookup(token, d.scope()); known && v.result == allowed {
			break
		}
		if time.Now().After(deadline) {
			tb.Fatalf("the token is not cached; %s: %v", v.result, v.err)
		}
	}
	return d, r, caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })
}

// withPlaceholders gives a request what Caddy's server gives it.
func withPlaceholders(r *http.Request) *http.Request {
	ctx := context.WithValue(r.Context(), caddy.ReplacerCtxKey, caddy.NewReplacer())
	return r.WithContext(context.WithValue(ctx, caddyhttp.VarsCtxKey, map[string]any{"client_ip": "", "start_time": ""}))
}

// A token that was seen before costs no memory, but for what placeholders keep.
func TestSeenTokensCostNoAllocation(t *testing.T) {
	s := newSite(t)
	s.mustLoad(demo, "token_denylist")
	d, r, next := hotRoute(t, currentApp(), aliceToken(s))
	if n := testing.AllocsPerRun(1000, func() { _ = d.ServeHTTP(nil, r, next) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	prepared := testing.AllocsPerRun(1000, func() { withPlaceholders(r) })
	whole := testing.AllocsPerRun(1000, func() { _ = d.ServeHTTP(nil, withPlaceholders(r), next) })
	// the outcome, its function, and the replacer's longer list of functions,
	// which has room already in Caddy's server
	if whole-prepared > 3 {
		t.Errorf("placeholders take %v allocations", whole-prepared)
	}
}

// BenchmarkSeenToken is what token_denylist adds to a request whose token it has
// seen before, with and without what Caddy prepares for placeholders.
func BenchmarkSeenToken(b *testing.B) {
	b.Setenv("XDG_DATA_HOME", b.TempDir())
	b.Setenv("XDG_CONFIG_HOME", b.TempDir())
	as := revocationtest.NewAuthServer(b)
	app := benchApp(b, as, revocationtest.NewKey(b, "ES256", "signer-1"))
	d, r, next := hotRoute(b, app, as.Token(nil))
	b.Run("bare", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = d.ServeHTTP(nil, r, next)
		}
	})
	b.Run("prepared only", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			withPlaceholders(r)
		}
	})
	b.Run("with placeholders", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = d.ServeHTTP(nil, withPlaceholders(r), next)
		}
	})
}
