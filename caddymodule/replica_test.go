package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/edge-revocation/caddy-token-revocation/revocation/denylist"
	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
	"github.com/edge-revocation/caddy-token-revocation/revocation/ledger"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

func natsWithUser(t *testing.T, name, password string) *revocationtest.NATS {
	t.Helper()
	return revocationtest.StartNATS(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: name, Password: password}}
	})
}

// loadWithLog runs a config and returns the name of the file that is logged to.
func (s *site) loadWithLog(options, directives string) string {
	s.t.Helper()
	log := filepath.Join(s.t.TempDir(), "log")
	config := strings.Replace(s.caddyfile(options, directives), "level ERROR", "output file "+log+"\nformat json\nlevel INFO", 1)
	if err := s.loadConfig(config); err != nil {
		s.t.Fatal(err)
	}
	return log
}

func logged(file, text string) bool {
	lines, _ := os.ReadFile(file)
	return strings.Contains(string(lines), text)
}

// Promise 9: a password that changes inside a URL pauses nothing; if it is wrong,
// the edge says that it is stale, although its new follower was never in sync.
func TestAnotherPasswordInAURLPausesNothing(t *testing.T) {
	s := newSite(t)
	srv := natsWithUser(t, "edge", "right")
	with := func(password string) string {
		return onNATS("nats://edge:" + password + "@" + srv.Addr())
	}
	log := s.loadWithLog(with("right"), "token_denylist")
	s.eventually("the edge to be in sync", func() bool { return currentApp().status().State == "in_sync" })
	s.eventually("the log to say so", func() bool { return logged(log, "denylist in sync") })
	s.eventually("the signing keys", func() bool { return currentApp().development.Ready() })
	revoked, alive := aliceToken(s), aliceToken(s)
	s.mustRevoke(revoked, "demo-app")

	log = s.loadWithLog(with("wrong"), "token_denylist")
	s.wantStatus(revoked, http.StatusUnauthorized, "a revoked token with a wrong password")
	s.wantStatus(alive, http.StatusOK, "a live token with a wrong password")
	if logged(log, "denylist stale") {
		t.Error("stale at once")
	}
	// As if some time had gone by.
	r := currentApp().replica
	r.mu.Lock()
	f := r.following.Load()
	later := &following{source: f.source, follower: f.follower, known: f.known}
	later.known.at = later.known.at.Add(-2 * staleVisible)
	r.following.Store(later)
	r.mu.Unlock()
	s.eventually("the edge to say that it is stale", func() bool { return logged(log, "denylist stale") })

	log = s.loadWithLog(with("right"), "token_denylist")
	s.eventually("the edge to say that it is in sync again", func() bool { return logged(log, "denylist in sync") })
	s.wantStatus(alive, http.StatusOK, "a live token in the end")
}

func TestServersOfALedgerAreKnownWithoutUsers(t *testing.T) {
	at := func(urls ...string) *source {
		return &source{servers: (&LedgerConfig{NATS: &NATSConfig{URLs: urls}}).servers()}
	}
	one := at("nats://u:p@a:4222, nats://u:p@b:4222")
	for _, urls := range [][]string{{"nats://a:4222"}, {"nats://u:q@b:4222"}, {"nats://token@c:4222,nats://a:4222"}} {
		if !at(urls...).same(one) {
			t.Errorf("%q is another ledger", urls)
		}
	}
	if at("nats://u:p@c:4222").same(one) {
		t.Error("another server is the same ledger")
	}
}

func TestTheWatcherTellsOfEachChangeOnce(t *testing.T) {
	const never = time.Duration(1<<63 - 1)
	synced := ledger.State{EverSynced: true, InSync: true, Age: time.Second}
	known := func(age time.Duration) ledger.State { return ledger.State{EverSynced: true, Age: age} }
	unknown := ledger.State{Age: never}
	type step struct {
		state ledger.State
		event string
	}
	for name, steps := range map[string][]step{
		"starting":                     {{unknown, ""}, {synced, "denylist_synced"}, {synced, ""}},
		"an outage":                    {{synced, "denylist_synced"}, {known(staleVisible), "denylist_stale"}, {known(time.Minute), ""}, {synced, "denylist_synced"}},
		"a reload":                     {{synced, "denylist_synced"}, {known(time.Second), ""}, {synced, ""}},
		"a reload that never connects": {{synced, "denylist_synced"}, {known(time.Second), ""}, {known(staleVisible + 1), "denylist_stale"}, {known(time.Hour), ""}},
		"another ledger":               {{synced, "denylist_synced"}, {unknown, "denylist_stale"}, {unknown, ""}, {synced, "denylist_synced"}},
		"a checkpoint":                 {{known(time.Second), ""}, {known(time.Minute), "denylist_stale"}, {synced, "denylist_synced"}},
		"never":                        {{unknown, ""}, {unknown, ""}},
	} {
		var w watcher
		now := time.Now()
		for i, s := range steps {
			event, age := w.look(s.state, now)
			if event != s.event {
				t.Errorf("%s, step %d: %q, want %q", name, i, event, s.event)
			}
			if event != "" && age > time.Hour {
				t.Errorf("%s, step %d: an age of %s", name, i, age)
			}
			now = now.Add(time.Second)
		}
	}
}

// A decision that is under way while a reload closes its connection is recorded
// over the next one, under the same id.
func TestADecisionSurvivesTheEndOfItsConnection(t *testing.T) {
	s := newSite(t)
	srv := revocationtest.StartNATS(t)
	s.mustLoad(onNATS(srv.URL()), "token_denylist")
	d := tokenBlock(currentApp().issuers[0].Name(), "hash", time.Now().Add(time.Hour))
	attempts := 0
	var sequence uint64
	err := currentApp().replica.onLedger(func(l *ledger.Ledger) (err error) {
		if attempts++; attempts == 1 {
			s.mustLoad(strings.Replace(onNATS(srv.URL()), "create", "create\ntoken another", 1), "token_denylist")
			s.eventually("the first connection to be closed", func() bool { return l.Status().Problem != nil })
		}
		sequence, err = l.PublishRevocation(t.Context(), d)
		return err
	})
	if err != nil || attempts != 2 || sequence == 0 {
		t.Errorf("entry %d after %d attempts: %v", sequence, attempts, err)
	}
	attempts = 0
	err = currentApp().replica.onLedger(func(*ledger.Ledger) error {
		attempts++
		return ledger.ErrClosed
	})
	if !errors.Is(err, ledger.ErrClosed) || attempts != 1 {
		t.Errorf("without another ledger: %d attempts, %v", attempts, err)
	}
}

func TestReloadsRefuseNoRevocationInFlight(t *testing.T) {
	s := newSite(t)
	srv := revocationtest.StartNATS(t)
	s.mustLoad(onNATS(srv.URL()), "token_denylist")
	var (
		wg   sync.WaitGroup
		stop = make(chan struct{})
	)
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				token, err := currentApp().development.Mint(context.Background(), issuer.MintRequest{Subject: "alice", ClientID: "demo-app"})
				if err != nil {
					t.Error(err)
					return
				}
				response, err := http.PostForm(s.url("/oauth/revoke"), url.Values{"token": {token}, "client_id": {"demo-app"}})
				if err != nil {
					continue // a reload closes connections on which nothing was answered
				}
				_ = response.Body.Close()
				if response.StatusCode != http.StatusOK {
					t.Errorf("status %d", response.StatusCode)
				}
			}
		})
	}
	for i := range 8 {
		changed := strings.Replace(onNATS(srv.URL()), "create", fmt.Sprintf("create\ntoken rotated-%d", i), 1)
		if err := s.load(changed, "token_denylist"); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
}

// While an entry of a newer version holds the position, checkpoints still keep
// what comes behind it.
func TestAHeldPositionDoesNotFreezeTheCheckpoint(t *testing.T) {
	s := newSite(t)
	srv := revocationtest.StartNATS(t)
	s.mustLoad(onNATS(srv.URL()), "token_denylist")
	nc, err := nats.Connect(srv.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	newer := fmt.Sprintf(`{"v":99,"expires":%d}`, time.Now().Add(time.Hour).Unix())
	if err := nc.Publish(ledger.KindEntry.Subject(), []byte(newer)); err != nil {
		t.Fatal(err)
	}
	r := currentApp().replica
	s.eventually("the entry to be met", func() bool {
		return r.following.Load().follower.Stats().Newer > 0
	})
	save := func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.save()
	}
	save()
	held := r.denylist.Position().Sequence
	r.Revoke(held+2, tokenBlock(currentApp().issuers[0].Name(), "behind", time.Now().Add(time.Hour)))
	r.mu.Lock()
	r.written.proven = time.Now().Add(time.Hour) // what is decided by it is not meant here
	r.mu.Unlock()
	save()
	if now := r.denylist.Position().Sequence; now != held {
		t.Fatalf("the position is not held: %d, then %d", held, now)
	}
	d, err := denylist.New(denylist.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, _, err := d.LoadCheckpoint(r.checkpoint, r.place); err != nil {
		t.Fatal(err)
	}
	if n := d.Stats().Entries; n != 1 {
		t.Errorf("%d entries in the checkpoint, want the one that came behind", n)
	}
	// How far all is known moves on too.
	was := written{sequence: held, proven: time.Now()}
	for name, c := range map[string]struct {
		now  written
		want bool
	}{
		"nothing":                   {was, false},
		"the same moment, computed": {written{sequence: held, proven: was.proven.Add(time.Millisecond)}, false},
		"a later moment":            {written{sequence: held, proven: was.proven.Add(time.Minute)}, true},
		"a decision":                {written{sequence: held, changes: 1, proven: was.proven}, true},
		"a position":                {written{sequence: held + 1, proven: was.proven}, true},
		"nothing known":             {written{sequence: held}, false},
	} {
		if c.now.differs(was) != c.want {
			t.Errorf("%s is new: %t", name, !c.want)
		}
	}
}
