package caddymodule

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// references counts who holds the shared objects.
func references(t *testing.T) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for name, pool := range map[string]*caddy.UsagePool{"replicas": replicas, "ledgers": ledgers, "issuers": issuers} {
		pool.Range(func(key, _ any) bool {
			n, _ := pool.References(key)
			counts[fmt.Sprintf("%s %v", name, key)] = n
			return true
		})
	}
	return counts
}

func wantOneReferenceEach(t *testing.T, when string) {
	t.Helper()
	counts := references(t)
	if len(counts) != 3 {
		t.Errorf("%s: %d shared objects, want a replica, a ledger and an issuer: %v", when, len(counts), counts)
	}
	for name, n := range counts {
		if n != 1 {
			t.Errorf("%s: %d references to %s, want 1", when, n, name)
		}
	}
}

// Promise 9: reloads neither empty nor pause the denylist.
func TestReloadKeepsTheDenylist(t *testing.T) {
	s := newSite(t)
	s.mustLoad(demo, "token_denylist")
	revoked, alive := aliceToken(s), aliceToken(s)
	s.mustRevoke(revoked, "demo-app")
	follower := currentApp().replica.following.Load().follower

	for i := range 10 {
		// each config differs, else Caddy would not load it
		if err := s.load(demo, fmt.Sprintf("token_denylist\nheader X-Config %d", i)); err != nil {
			t.Fatalf("reload %d: %v", i, err)
		}
		// asked at once, without waiting for anything
		s.wantStatus(revoked, http.StatusUnauthorized, "a revoked token right after a reload")
		s.wantStatus(alive, http.StatusOK, "a live token right after a reload")
	}
	wantOneReferenceEach(t, "after ten reloads")
	if currentApp().replica.following.Load().follower != follower {
		t.Error("a reload that left the ledger alone started another follower")
	}
}

func TestFailedReloadChangesNothing(t *testing.T) {
	s := newSite(t)
	s.mustLoad(demo, "token_denylist")
	revoked, alive := aliceToken(s), aliceToken(s)
	s.mustRevoke(revoked, "demo-app")
	before := currentApp()

	failures := map[string]struct{ options, directives, want string }{
		"another setting of the embedded store": {
			strings.Replace(demo, "embedded", "embedded {\nsync 1s\n}", 1), "token_denylist", "restart",
		},
		"limits of the running denylist": {demo + "max_entries 5000", "token_denylist", "restart"},
		"a client of an unknown issuer": {
			demo + "client x public {\nissuer https://nobody.example\n}", "token_denylist", "not configured",
		},
		"a handler that fails to provision": {
			demo, "token_denylist {\nopaque_issuer https://nobody.example\n}", "not configured",
		},
	}
	for name, f := range failures {
		t.Run(name, func(t *testing.T) {
			err := s.load(f.options, f.directives)
			if err == nil {
				t.Fatal("loaded")
			}
			if !strings.Contains(err.Error(), f.want) {
				t.Errorf("error %q does not say %q", err, f.want)
			}
			s.t = t
			s.wantStatus(revoked, http.StatusUnauthorized, "a revoked token after a failed reload")
			s.wantStatus(alive, http.StatusOK, "a live token after a failed reload")
			wantOneReferenceEach(t, "after a failed reload")
			if currentApp() != before {
				t.Error("the admin API talks to the app of the failed config")
			}
			another := aliceToken(s)
			s.mustRevoke(another, "demo-app")
			s.wantStatus(another, http.StatusUnauthorized, "a token revoked after a failed reload")
		})
	}
}

// An issuer whose settings change is a new object; it has its keys at once.
func TestReloadThatChangesAnIssuerRefusesNobody(t *testing.T) {
	s := newSite(t)
	s.mustLoad(demo, "token_denylist")
	revoked, alive := aliceToken(s), aliceToken(s)
	s.mustRevoke(revoked, "demo-app")
	for i := range 5 {
		changed := strings.Replace(demo, "issuer development",
			fmt.Sprintf("issuer development {\nmax_token_lifetime %dh\n}", i+2), 1)
		if err := s.load(changed, "token_denylist"); err != nil {
			t.Fatal(err)
		}
		s.wantStatus(alive, http.StatusOK, "a live token right after the issuer changed")
		s.wantStatus(revoked, http.StatusUnauthorized, "a revoked token right after the issuer changed")
	}
	wantOneReferenceEach(t, "after five reloads")
}

// Another ledger is followed after a reload, and what the old one revoked stays
// revoked: entries are joined.
func TestReloadToAnotherLedgerKeepsWhatWasRevoked(t *testing.T) {
	s := newSite(t)
	s.mustLoad(demo, "token_denylist")
	revoked := aliceToken(s)
	s.mustRevoke(revoked, "demo-app")

	other := strings.Replace(demo, "embedded", "embedded "+t.TempDir(), 1)
	if err := s.load(other, "token_denylist"); err != nil {
		t.Fatal(err)
	}
	s.wantStatus(revoked, http.StatusUnauthorized, "right after the change of ledgers")
	s.mustLoad(other, "token_denylist\nheader X-Config 2")
	s.wantStatus(revoked, http.StatusUnauthorized, "in sync with the other ledger")
	another := aliceToken(s)
	s.mustRevoke(another, "demo-app")
	s.wantStatus(another, http.StatusUnauthorized, "revoked in the other ledger")
	wantOneReferenceEach(t, "after the change of ledgers")
}

// A restart finds everything in the ledger again.
func TestRestartForgetsNothing(t *testing.T) {
	s := newSite(t)
	s.mustLoad(demo, "token_denylist")
	revoked, alive := aliceToken(s), aliceToken(s)
	s.mustRevoke(revoked, "demo-app")
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	s.mustLoad(demo, "token_denylist")
	s.wantStatus(revoked, http.StatusUnauthorized, "a revoked token after a restart")
	s.wantStatus(alive, http.StatusOK, "a live token after a restart")
}

func TestMetricsSurviveReloads(t *testing.T) {
	s := newSite(t)
	s.mustLoad(demo, "token_denylist")
	revoked := aliceToken(s)
	s.mustRevoke(revoked, "demo-app")
	metric := func() string {
		got := s.do(http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/metrics", s.admin), nil, "")
		for line := range strings.SplitSeq(got.body, "\n") {
			if strings.HasPrefix(line, `caddy_token_revocation_checks_total{result="revoked"}`) {
				return line[strings.LastIndex(line, " ")+1:]
			}
		}
		t.Fatalf("no such metric in\n%s", got.body)
		return ""
	}
	s.wantStatus(revoked, http.StatusUnauthorized, "before the reload")
	if got := metric(); got != "1" {
		t.Fatalf("revoked checks: %s, want 1", got)
	}
	if err := s.load(demo, "token_denylist\nheader X-Config 2"); err != nil {
		t.Fatal(err)
	}
	s.wantStatus(revoked, http.StatusUnauthorized, "after the reload")
	if got := metric(); got != "2" {
		t.Errorf("revoked checks after a reload: %s, want 2", got)
	}
}
