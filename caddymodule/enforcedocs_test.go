package caddymodule

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

var documented = regexp.MustCompile("(?s)```caddyfile\n# ([^\n]+)\n(.*?)```")

// documentedSites returns the Caddyfiles of docs/enforcement.md by their names.
func documentedSites(t *testing.T) map[string]string {
	t.Helper()
	docs, err := os.ReadFile("../docs/enforcement.md")
	if err != nil {
		t.Fatal(err)
	}
	sites := make(map[string]string)
	for _, match := range documented.FindAllStringSubmatch(string(docs), -1) {
		sites[match[1]] = match[2]
	}
	return sites
}

// docSite is a documented Caddyfile that runs, with an upstream and an
// authorization service behind it.
type docSite struct {
	*site
	as          *revocationtest.AuthServer
	up          *echo
	asked       atomic.Int64 // requests to the authorization service
	brings      atomic.Value // the Authorization field that it brings
	good, alive string       // tokens of alice, and of bob
	log         string
}

func newDocSite(t *testing.T, caddyfile string) *docSite {
	t.Helper()
	d := &docSite{site: newSite(t), as: revocationtest.NewAuthServer(t), up: newEcho(t)}
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		d.asked.Add(1)
		w.Header().Set("X-Scopes", "orders")
		if brings, _ := d.brings.Load().(string); brings != "" {
			w.Header().Set("Authorization", brings)
		}
	}))
	t.Cleanup(service.Close)
	d.log = filepath.Join(t.TempDir(), "access.log")
	address := regexp.MustCompile(`(?m)^(api|app)\.example\.com \{`)
	head, _, _ := strings.Cut(d.caddyfile(trusting(d.as), ""), d.url(" {"))
	text := strings.NewReplacer(
		"localhost:3000", strings.TrimPrefix(d.up.URL, "http://"), "localhost:9000", strings.TrimPrefix(service.URL, "http://"),
		"/var/log/caddy/api.log", d.log,
	).Replace(address.ReplaceAllString(caddyfile, d.url(" {")+"\n\tbind 127.0.0.1"))
	if err := d.loadConfig(head + text); err != nil {
		t.Fatal(err)
	}
	d.eventually("the edge to be in sync", func() bool {
		status := currentApp().status()
		return status.State == "in_sync" && status.Issuers[0].Ready
	})
	d.good, d.alive = d.as.Token(nil), d.as.Token(map[string]any{"sub": "bob"})
	return d
}

// revokeGood revokes alice's token.
func (d *docSite) revokeGood() {
	d.t.Helper()
	if got, _ := d.adminPost("revocations", revocationRequest{Token: d.good}); got.status != 200 {
		d.t.Fatal(got)
	}
}

func (d *docSite) with(fields ...string) (answer, *arrived) {
	d.t.Helper()
	return d.send(d.request("GET", "/orders/1", nil, fields...))
}

// refused sends a request that must not reach the upstream.
func (d *docSite) refused(want int, fields ...string) answer {
	d.t.Helper()
	before := d.up.requests.Load()
	got, _ := d.with(fields...)
	if got.status != want || d.up.requests.Load() != before {
		d.t.Errorf("%v: %d, want %d", fields[:1], got.status, want)
	}
	return got
}

// Every Caddyfile of docs/enforcement.md does what is said of it.
func TestDocumentedCaddyfiles(t *testing.T) {
	checks := map[string]func(*testing.T, *docSite){
		"header_up": func(t *testing.T, d *docSite) {
			_, a := d.with("Authorization", "Bearer "+d.good, "X-User", "mallory", "X-Client", "mallory")
			if a == nil || a.Header.Get("Authorization") != "" || a.Header.Get("X-User") != "alice" || a.Header.Get("X-Client") != "app" {
				t.Errorf("%+v", a)
			}
			d.refused(401, "X-User", "mallory")
			d.revokeGood()
			d.refused(401, "Authorization", "Bearer "+d.good)
		},
		"cookie": func(t *testing.T, d *docSite) {
			_, a := d.with("Cookie", "session="+d.good)
			if a == nil || a.Header.Get("Authorization") != "Bearer "+d.good || a.Header.Get("Cookie") != "" {
				t.Errorf("%+v", a)
			}
			d.refused(400, "Cookie", "session="+d.alive, "Authorization", "Bearer "+d.good)
			d.revokeGood()
			d.refused(401, "Cookie", "session="+d.good)
			d.refused(401, "Accept", "*/*")
		},
		"forward_auth": func(t *testing.T, d *docSite) {
			if _, a := d.with("Authorization", "Bearer "+d.good); a == nil || a.Header.Get("X-Scopes") != "orders" {
				t.Errorf("%+v", a)
			}
			d.revokeGood()
			asked := d.asked.Load()
			d.refused(401, "Authorization", "Bearer "+d.good)
			if d.asked.Load() != asked || asked == 0 {
				t.Error("the service was asked about a revoked token")
			}
		},
		"forward_auth that brings the token": func(t *testing.T, d *docSite) {
			d.brings.Store("Bearer " + d.good)
			if _, a := d.with("Cookie", "id=1"); a == nil || a.Header.Get("Authorization") != "Bearer "+d.good {
				t.Errorf("%+v", a)
			}
			d.revokeGood()
			d.refused(401, "Cookie", "id=1")
		},
		"basic_auth": func(t *testing.T, d *docSite) {
			if got, _ := d.with("Authorization", "Basic Ym9iOng="); got.status != 200 {
				t.Errorf("another scheme: %d", got.status)
			}
			if got, _ := d.send(d.request("GET", "/admin/", nil, "Authorization", "Bearer "+d.good)); got.status != 401 || !strings.HasPrefix(got.header.Get("WWW-Authenticate"), "Basic") {
				t.Errorf("a token where a password is asked for: %d", got.status)
			}
			d.revokeGood()
			d.refused(401, "Authorization", "Bearer "+d.good)
		},
		"handle_errors": func(t *testing.T, d *docSite) {
			d.revokeGood()
			got := d.refused(401, "Authorization", "Bearer "+d.good, "Origin", "https://app.example.com")
			h := got.header
			if got.body != `{"title": "the token has been revoked", "status": 401}` || h.Get("Content-Type") != "application/problem+json" ||
				!strings.Contains(h.Get("WWW-Authenticate"), "invalid_token") || h.Get("Access-Control-Allow-Origin") == "" || h.Get("Access-Control-Expose-Headers") == "" {
				t.Errorf("%q %v", got.body, h)
			}
		},
		"token_revoked": func(t *testing.T, d *docSite) {
			d.revokeGood()
			if got := d.refused(401, "Authorization", "Bearer "+d.good); got.body != "signed out" || got.header.Get("Clear-Site-Data") == "" {
				t.Errorf("%+v", got)
			}
			if got, _ := d.with("Authorization", "Bearer "+d.alive); got.status != 200 {
				t.Errorf("another token: %d", got.status)
			}
			d.refused(401, "Authorization", "Bearer rubbish")
		},
		"log": func(t *testing.T, d *docSite) {
			d.with("Authorization", "Bearer "+d.good)
			d.eventually("the access log", func() bool {
				text, _ := os.ReadFile(d.log)
				return strings.Contains(string(text), `"user":"alice"`) && strings.Contains(string(text), `"decision":"allowed"`)
			})
			if text, _ := os.ReadFile(d.log); strings.Contains(string(text), d.good) {
				t.Error("the token is in the log")
			}
		},
		"monitor": func(t *testing.T, d *docSite) {
			d.revokeGood()
			d.refused(401, "Authorization", "Bearer "+d.good)
			if got, a := d.send(d.request("GET", "/other", nil, "Authorization", "Bearer "+d.good)); got.status != 200 || a.Header.Get("Authorization") == "" {
				t.Errorf("monitored: %d", got.status)
			}
		},
	}
	sites := documentedSites(t)
	if len(sites) != len(checks) {
		t.Errorf("%d Caddyfiles, %d are tried", len(sites), len(checks))
	}
	for name, check := range checks {
		t.Run(name, func(t *testing.T) {
			if sites[name] == "" {
				t.Fatal("not documented")
			}
			d := newDocSite(t, sites[name])
			if got, _ := d.with("Authorization", "Bearer "+d.alive); got.status != 200 && name != "forward_auth that brings the token" {
				t.Fatalf("a good token: %d %s", got.status, got.body)
			}
			check(t, d)
		})
	}
}
