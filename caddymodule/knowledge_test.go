package caddymodule

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/denylist"
	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// onNATS is the usual global option with the ledger on an external server.
func onNATS(url string) string {
	return strings.Replace(demo, "embedded", "nats "+url+" {\ncreate\n}", 1)
}

// writeCheckpoint leaves a checkpoint for the site's next start, as an edge would
// have that knew everything up to the given moment.
func (s *site) writeCheckpoint(options string, proven time.Time) {
	s.t.Helper()
	d, err := denylist.New(denylist.Options{})
	if err != nil {
		s.t.Fatal(err)
	}
	defer d.Close()
	d.SetPosition(revocation.Position{Ledger: "some-ledger", Sequence: 7, Created: time.Now(), Stored: time.Now()})
	if err := s.load(options, "token_denylist"); err != nil {
		s.t.Fatal(err)
	}
	file, place := currentApp().ledger.checkpointFile(), currentApp().ledger.place()
	if err := caddy.Stop(); err != nil {
		s.t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		s.t.Fatal(err)
	}
	if err := d.WriteCheckpoint(file, place, proven); err != nil {
		s.t.Fatal(err)
	}
}

// Promise 3: what a checkpoint holds counts from the moment it was complete, and
// only while the ledger can't be asked.
func TestCheckpointStandsInOnlyIfProvenAndOnlyInAnOutage(t *testing.T) {
	const unreachable = "nats://127.0.0.1:1"
	cases := map[string]struct {
		proven time.Time
		after  int // the status once the checkpoint may be relied on
	}{
		"fresh":           {time.Now(), http.StatusOK},
		"too old":         {time.Now().Add(-time.Hour), http.StatusServiceUnavailable},
		"never in sync":   {time.Time{}, http.StatusServiceUnavailable},
		"from the future": {time.Now().Add(time.Hour), http.StatusServiceUnavailable},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.writeCheckpoint(onNATS(unreachable), c.proven)
			if err := s.load(onNATS(unreachable), "token_denylist"); err != nil {
				t.Fatal(err)
			}
			s.eventually("the signing keys", func() bool { return currentApp().development.Ready() })
			token := aliceToken(s)
			s.wantStatus(token, http.StatusServiceUnavailable, "before the ledger was tried")
			// as if the grace were over
			f := currentApp().replica.following.Load()
			later := &following{source: f.source, follower: f.follower, known: f.known}
			later.known.from = time.Time{}
			currentApp().replica.following.Store(later)
			s.wantStatus(token, c.after, "when the ledger could not be reached")
			if ready := currentApp().ready(); ready != (c.after == http.StatusOK) {
				t.Errorf("ready is %v", ready)
			}
		})
	}
}

// A checkpoint does not let an edge serve that can read its ledger: revocations
// since then would be let through.
func TestRevocationAfterTheCheckpointIsKnownBeforeTheFirstRequest(t *testing.T) {
	s := newSite(t)
	server := revocationtest.StartNATS(t)
	s.mustLoad(onNATS(server.URL()), "token_denylist")
	token := aliceToken(s)
	var before answer
	if err := caddy.Stop(); err != nil { // writes a checkpoint
		t.Fatal(err)
	}
	s.mustLoad(onNATS(server.URL()), "token_denylist")
	r := currentApp().replica
	r.mu.Lock()
	r.checkpoint = "" // no further checkpoint: the process is killed
	r.mu.Unlock()
	s.mustRevoke(token, "demo-app")
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := s.load(onNATS(server.URL()), "token_denylist"); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		if before = s.get(token); before.status == http.StatusUnauthorized {
			break
		}
		if before.status != http.StatusServiceUnavailable {
			t.Fatalf("status %d for a revoked token after the restart", before.status)
		}
		if time.Now().After(deadline) {
			t.Fatal("never in sync")
		}
	}
}

// How fresh one ledger was known says nothing about another.
func TestKnowledgeOfOneLedgerIsNoneOfAnother(t *testing.T) {
	s := newSite(t)
	s.mustLoad(demo, "token_denylist")
	alive := aliceToken(s)
	s.wantStatus(alive, http.StatusOK, "in sync")
	if err := s.load(onNATS("nats://127.0.0.1:1"), "token_denylist"); err != nil {
		t.Fatal(err)
	}
	s.wantStatus(alive, http.StatusServiceUnavailable, "with a ledger that was never reached")
	if err := s.load(demo, "token_denylist\nheader X-Config 3"); err != nil {
		t.Fatal(err)
	}
	s.wantStatus(alive, http.StatusOK, "back at the ledger that is known")
}

// New credentials for the same servers pause nothing.
func TestOtherCredentialsKeepWhatIsKnown(t *testing.T) {
	s := newSite(t)
	server := revocationtest.StartNATS(t)
	s.mustLoad(onNATS(server.URL()), "token_denylist")
	revoked, alive := aliceToken(s), aliceToken(s)
	s.mustRevoke(revoked, "demo-app")
	for i := range 5 {
		changed := strings.Replace(onNATS(server.URL()), "create", fmt.Sprintf("create\ntoken rotated-%d", i), 1)
		if err := s.load(changed, "token_denylist"); err != nil {
			t.Fatal(err)
		}
		s.wantStatus(revoked, http.StatusUnauthorized, "a revoked token right after the credentials changed")
		s.wantStatus(alive, http.StatusOK, "a live token right after the credentials changed")
	}
	wantOneReferenceEach(t, "after five changes of credentials")
}

// A config that fails to load has not touched the ledger that is followed.
func TestFailedReloadWithAnotherLedgerLeavesTheFollowerAlone(t *testing.T) {
	s := newSite(t)
	s.mustLoad(demo, "token_denylist")
	follower := currentApp().replica.following.Load().follower
	alive := aliceToken(s)
	other := strings.Replace(demo, "embedded", "embedded "+t.TempDir(), 1)
	for range 5 { // apps start in random order
		// not an address of this machine, which the http app finds at start
		config := s.caddyfile(other, "token_denylist") + "\nhttp://elsewhere.example:8888 {\nbind 192.0.2.1\n}\n"
		if err := s.loadConfig(config); err == nil {
			t.Fatal("loaded, although the address can't be bound")
		}
		s.wantStatus(alive, http.StatusOK, "after a failed reload")
		if currentApp().replica.following.Load().follower != follower {
			t.Fatal("another follower after a failed reload")
		}
		wantOneReferenceEach(t, "after a failed reload")
	}
}

// Another stream is another ledger with a denylist of its own, which is followed
// while the config that it replaces still runs.
func TestReloadToAnotherStreamFollowsItAtOnce(t *testing.T) {
	s := newSite(t)
	server := revocationtest.StartNATS(t)
	s.mustLoad(onNATS(server.URL()), "token_denylist")
	first := currentApp()
	revoked := aliceToken(s)
	s.mustRevoke(revoked, "demo-app")

	// on a server of its own: the subjects of two streams would overlap
	s.mustLoad(onNATS(revocationtest.StartNATS(t).URL())+"stream OTHER\n", "token_denylist")
	if currentApp().replica == first.replica {
		t.Error("two streams share a denylist")
	}
	s.wantStatus(revoked, http.StatusOK, "a token that the other ledger does not know")
	s.mustRevoke(revoked, "demo-app")
	s.wantStatus(revoked, http.StatusUnauthorized, "revoked there too")
	wantOneReferenceEach(t, "after the change of streams")
}

// Promise 2: no revocation ends while its token is still accepted somewhere.
func TestLeewayBelowTheIssuersIsRefused(t *testing.T) {
	s := newSite(t)
	err := s.load(demo+"leeway 1s\n", "token_denylist")
	if err == nil || !strings.Contains(err.Error(), "leeway") {
		t.Fatalf("error %v, want one about the leeway", err)
	}
}

// A token that is too long-lived to be accepted here can be revoked all the
// same: with verify off, the upstream may accept it.
func TestTokensThatBreakTheRulesOfTimeCanBeRevoked(t *testing.T) {
	s := newSite(t)
	authority := revocationtest.NewAuthServer(t)
	options := "embedded\nissuer " + authority.Issuer() + "\nclient app public\n"
	s.mustLoad(options, "token_denylist {\nverify off\n}")
	for name, claims := range map[string]map[string]any{
		"a life of a month": {"exp": time.Now().Add(30 * 24 * time.Hour).Unix()},
		"no exp":            {"exp": nil},
		"not valid yet":     {"nbf": time.Now().Add(time.Hour).Unix()},
	} {
		claims["client_id"] = "app"
		claims["jti"] = "jti of " + name
		token := authority.Token(claims)
		s.wantStatus(token, http.StatusOK, name)
		if got := s.revoke(url.Values{"token": {token}, "client_id": {"app"}}); got.status != http.StatusOK {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
		s.wantStatus(token, http.StatusUnauthorized, name+", revoked")
	}
	token := authority.Token(map[string]any{"exp": nil, "client_id": "app", "jti": "eternal"})
	_, answer := s.adminPost("revocations", revocationRequest{Token: token})
	if years := time.Until(time.Unix(answer.Expires, 0)).Hours() / 24 / 365; years < 9 {
		t.Errorf("the revocation of a token without exp ends after %.1f years", years)
	}
}

// An issuer that is renamed keeps what was revoked under its old name.
func TestRenamedIssuerKeepsItsRevocations(t *testing.T) {
	s := newSite(t)
	authority := revocationtest.NewAuthServer(t)
	const other = "https://new.example"
	jwks := filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(jwks, authority.KeySet(), 0o600); err != nil {
		t.Fatal(err)
	}
	options := func(name, alias string) string {
		return fmt.Sprintf("embedded\nissuer %s {\nalias %s\njwks_file %s\n}\nclient app public\n", name, alias, jwks)
	}
	s.mustLoad(options(authority.Issuer(), other), "token_denylist")
	revoked := authority.Token(map[string]any{"client_id": "app", "jti": "1"})
	alive := authority.Token(map[string]any{"client_id": "app", "jti": "2"})
	s.mustRevoke(revoked, "app")
	s.wantStatus(revoked, http.StatusUnauthorized, "revoked")

	s.mustLoad(options(other, authority.Issuer()), "token_denylist")
	s.wantStatus(revoked, http.StatusUnauthorized, "revoked under the old name")
	s.wantStatus(alive, http.StatusOK, "another token")
}

// Development keys and last known keys are found after the config that loaded
// them is gone.
func TestMintWorksAfterReloads(t *testing.T) {
	s := newSite(t)
	s.mustLoad(demo, "token_denylist")
	for i := range 3 {
		if err := s.load(demo, fmt.Sprintf("token_denylist\nheader X-Config %d", i)); err != nil {
			t.Fatal(err)
		}
		s.wantStatus(s.mint(issuer.MintRequest{Subject: "alice", Algorithm: "RS256"}), http.StatusOK, "a token minted after a reload")
	}
}
