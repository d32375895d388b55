package caddymodule

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/edge-revocation/caddy-token-revocation/revocation/denylist"
	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// Promise 7: going back to a ledger address that has an older checkpoint does not
// bring back what was restored since.
func TestOldCheckpointDoesNotUndoARestoration(t *testing.T) {
	s := newSite(t)
	server := revocationtest.StartNATS(t)
	one := onNATS(server.URL())
	two := strings.Replace(one, server.URL(), server.URL()+" nats://127.0.0.1:1", 1)
	s.mustLoad(one, "token_denylist")
	token := aliceToken(s)
	claims := map[string]string{"sub": "alice"}
	if got, _ := s.adminPost("revocations", revocationRequest{Claims: claims, Mode: "block"}); got.status != http.StatusOK {
		t.Fatal(got.body)
	}
	s.wantStatus(token, http.StatusUnauthorized, "revoked")
	r := currentApp().replica
	position := r.denylist.Position().Sequence
	s.eventually("the follower to be past the revocation", func() bool { return r.denylist.Position().Sequence > position })
	r.mu.Lock()
	r.save()
	r.mu.Unlock()

	s.mustLoad(two, "token_denylist")
	if got, _ := s.adminPost("restorations", revocationRequest{Claims: claims}); got.status != http.StatusOK {
		t.Fatal(got.body)
	}
	s.wantStatus(token, http.StatusOK, "restored")
	s.mustLoad(one, "token_denylist\nheader X-Config 3")
	s.wantStatus(token, http.StatusOK, "restored, back at the first address")
}

// Promise 3: an edge that was stopped regularly may serve in an outage, as one that
// was killed, for as long as its knowledge is fresh: the checkpoint says since when.
func TestCheckpointOfARegularStopSaysHowFreshItIs(t *testing.T) {
	s := newSite(t)
	s.mustLoad(onNATS(revocationtest.StartNATS(t).URL()), "token_denylist")
	s.mustRevoke(aliceToken(s), "demo-app")
	s.eventually("the edge to be in sync", func() bool { return currentApp().replica.state().InSync })
	place := currentApp().ledger.place()
	file := currentApp().ledger.checkpointFile()
	before := time.Now()
	if err := caddy.Stop(); err != nil { // writes it
		t.Fatal(err)
	}
	list, err := denylist.New(denylist.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer list.Close()
	_, proven, err := list.LoadCheckpoint(file, place)
	if err != nil {
		t.Fatal(err)
	}
	if age := before.Sub(proven); age > 15*time.Second || age < -15*time.Second {
		t.Errorf("known up to %s, stopped at %s", proven, before)
	}
}

// A checkpoint of another ledger, put where this one's is expected, is refused
// with a clear log line, and the whole ledger is read.
func TestCheckpointOfAnotherLedgerIsRefused(t *testing.T) {
	s := newSite(t)
	one := onNATS("nats://somebody:a-secret@" + strings.TrimPrefix(revocationtest.StartNATS(t).URL(), "nats://"))
	two := onNATS(revocationtest.StartNATS(t).URL())
	s.mustLoad(one, "token_denylist")
	foreign := aliceToken(s)
	s.mustRevoke(foreign, "demo-app")
	file := currentApp().ledger.checkpointFile()
	if err := caddy.Stop(); err != nil { // writes it
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s.mustLoad(two, "token_denylist")
	own := aliceToken(s)
	s.mustRevoke(own, "demo-app")
	file = currentApp().ledger.checkpointFile()
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}

	log := filepath.Join(t.TempDir(), "log")
	config := strings.Replace(s.caddyfile(two, "token_denylist"), "level ERROR", "output file "+log+"\nformat json\nlevel ERROR", 1)
	if err := s.loadConfig(config); err != nil {
		t.Fatal(err)
	}
	s.eventually("the edge to be in sync", func() bool { return currentApp().replica.state().InSync })
	s.wantStatus(own, http.StatusUnauthorized, "revoked in the ledger that is followed")
	s.wantStatus(foreign, http.StatusOK, "revoked in another one")
	s.eventually("the log line", func() bool {
		lines, _ := os.ReadFile(log)
		return strings.Contains(string(lines), "checkpoint refused") && strings.Contains(string(lines), "another ledger")
	})
	lines, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(lines), "a-secret") || strings.Contains(string(lines), "somebody") || strings.Contains(string(b), "a-secret") {
		t.Error("a password is in the log or in the checkpoint")
	}
	if strings.Contains(string(lines), "is not what it was") {
		t.Error("a foreign checkpoint raises the alarm of another history")
	}
}

// The place of a checkpoint does not depend on the order of servers, nor on
// passwords in their URLs.
func TestPlaceOfALedger(t *testing.T) {
	nats := func(urls ...string) string {
		return (&LedgerConfig{NATS: &NATSConfig{URLs: urls}}).place()
	}
	want := nats("nats://a:4222", "nats://b:4222")
	for _, urls := range [][]string{
		{"nats://b:4222", "nats://a:4222"},
		{"nats://a:4222, nats://b:4222"},
		{"nats://u:p@a:4222", "nats://token@b:4222"},
		{"nats://u:p@ss@a:4222,nats://b:4222"},
	} {
		if got := nats(urls...); got != want {
			t.Errorf("%q: %s", urls, got)
		}
	}
	others := map[string]bool{want: true}
	for _, c := range []*LedgerConfig{
		{NATS: &NATSConfig{URLs: []string{"nats://a:4222"}}},
		{NATS: &NATSConfig{URLs: []string{"tls://a:4222", "nats://b:4222"}}},
		{Stream: "OTHER", NATS: &NATSConfig{URLs: []string{"nats://a:4222", "nats://b:4222"}}},
		{Embedded: &EmbeddedConfig{StoreDir: "/a"}},
		{Embedded: &EmbeddedConfig{StoreDir: "/b"}},
		{Stream: "OTHER", Embedded: &EmbeddedConfig{StoreDir: "/b"}},
	} {
		if others[c.place()] {
			t.Errorf("two ledgers at %s", c.place())
		}
		others[c.place()] = true
	}
}

// An opaque token is hashed once, and a revocation under an alias of its issuer
// counts.
func TestOpaqueTokensAreCachedAndKnownByAlias(t *testing.T) {
	s := newSite(t)
	authority := revocationtest.NewAuthServer(t)
	options := "embedded\nissuer " + authority.Issuer() + " {\nalias https://old.example\n}\n"
	s.mustLoad(options, "token_denylist {\nopaque_issuer "+authority.Issuer()+"\n}")
	const token = "an-opaque-token"
	stats := func() uint64 { return currentApp().replica.denylist.Stats().CacheHits }
	before := stats()
	s.eventually("the token to be remembered", func() bool {
		s.wantStatus(token, http.StatusOK, "not revoked")
		return stats() > before
	})
	hash, err := issuer.OpaqueTokenHash(token)
	if err != nil {
		t.Fatal(err)
	}
	currentApp().replica.denylist.Revoke(1000, tokenBlock("https://old.example", hash, time.Now().Add(time.Hour)))
	s.wantStatus(token, http.StatusUnauthorized, "revoked under the issuer's old name")
}
