package ledger_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/ledger"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// client is a plain NATS client, for what other programs do to a ledger.
func client(t testing.TB, url string, opts ...nats.Option) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect(url, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// put publishes as another producer would.
func put(t testing.TB, js jetstream.JetStream, kind ledger.Kind, payload string, opts ...jetstream.PublishOpt) uint64 {
	t.Helper()
	ack, err := js.Publish(t.Context(), kind.Subject(), []byte(payload), opts...)
	if err != nil {
		t.Fatal(err)
	}
	return ack.Sequence
}

func entry(id string) string {
	return fmt.Sprintf(`{"v":1,"id":%q,"issuer":"https://sso.example.com","criteria":{"jti":%q},"expires":%d}`,
		id, id, time.Now().Add(time.Hour).Unix())
}

// alarms collects what an observer is told.
type alarms struct {
	mu      sync.Mutex
	reasons []string
	synced  int
	stale   int
	delays  []time.Duration
}

func (a *alarms) observer() ledger.Observer {
	locked := func(f func()) { a.mu.Lock(); defer a.mu.Unlock(); f() }
	return ledger.Observer{
		Synced:  func() { locked(func() { a.synced++ }) },
		Stale:   func(time.Duration) { locked(func() { a.stale++ }) },
		Alarm:   func(reason string) { locked(func() { a.reasons = append(a.reasons, reason) }) },
		Applied: func(_ ledger.Kind, _ uint64, d time.Duration) { locked(func() { a.delays = append(a.delays, d) }) },
	}
}

func (a *alarms) raised() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string(nil), a.reasons...)
}

func (a *alarms) times() (synced, stale int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.synced, a.stale
}

func TestWhatOneEdgeRevokesAnotherRefuses(t *testing.T) {
	t.Parallel()
	o := embedded(t.TempDir())
	o.Embedded.Listen = "127.0.0.1:0"
	a := open(t, o)
	b := open(t, ledger.Options{External: &ledger.ExternalOptions{URLs: []string{"nats://" + a.Status().Listen}}})
	sa, sb := newSink(), newSink()
	seen := &alarms{}
	fa, fb := a.Follow(sa, ledger.Observer{}), b.Follow(sb, seen.observer())
	defer fa.Stop()
	defer fb.Stop()
	eventually(t, "both in sync", func() bool { return fa.State().InSync && fb.State().InSync })
	publish(t, a, "from-a")
	publish(t, b, "from-b")
	eventually(t, "both everywhere", func() bool {
		return sa.has("from-a") && sa.has("from-b") && sb.has("from-a") && sb.has("from-b")
	})
	if _, err := b.PublishRestoration(t.Context(), &revocation.Restoration{
		ID: "undo", Criteria: revoke("from-a").Criteria, Expires: time.Now().Add(time.Hour).Unix(),
	}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "restored on both", func() bool {
		sa.mu.Lock()
		sb.mu.Lock()
		defer sa.mu.Unlock()
		defer sb.mu.Unlock()
		return sa.restored["undo"] != nil && sb.restored["undo"] != nil
	})
	if a.Status().LedgerID != b.Status().LedgerID || a.Status().LedgerID == "" {
		t.Errorf("ledger ids %q and %q", a.Status().LedgerID, b.Status().LedgerID)
	}
	if st := a.Status(); st.Standalone {
		t.Errorf("a listening edge calls itself standalone: %+v", st)
	}
	seen.mu.Lock()
	defer seen.mu.Unlock()
	for _, d := range seen.delays {
		if d < 0 || d > 20*time.Second {
			t.Errorf("propagation delay %s", d)
		}
	}
}

func TestAFleetSharesItsHeartbeats(t *testing.T) {
	srv := revocationtest.StartNATS(t)
	const edges = 5
	var followers []*ledger.Follower
	for range edges {
		o := external(srv.URL())
		o.HeartbeatInterval = 200 * time.Millisecond
		f := open(t, o).Follow(newSink(), ledger.Observer{})
		defer f.Stop()
		followers = append(followers, f)
	}
	total := func() (sent uint64) {
		for _, f := range followers {
			sent += f.Stats().Beats
		}
		return sent
	}
	eventually(t, "all in sync", func() bool {
		for _, f := range followers {
			if !f.State().InSync {
				return false
			}
		}
		return true
	})
	before, from := total(), time.Now()
	time.Sleep(3 * time.Second)
	sent, intervals := float64(total()-before), float64(time.Since(from))/float64(200*time.Millisecond)
	t.Logf("%.0f heartbeats in %.0f intervals by %d edges", sent, intervals, edges)
	if sent > 2.5*intervals {
		t.Errorf("%.0f heartbeats in %.0f intervals: not shared", sent, intervals)
	}
	for _, f := range followers {
		if age := f.State().Age; age > 5*time.Second {
			t.Errorf("age %s", age)
		}
	}
}

func TestFollowingResumesBehindThePosition(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	l := open(t, external(srv.URL()))
	s := newSink()
	f := l.Follow(s, ledger.Observer{})
	for i := range 10 {
		publish(t, l, fmt.Sprint("old-", i))
	}
	eventually(t, "applied", func() bool { return s.count() == 10 })
	f.Stop()
	for i := range 10 {
		publish(t, l, fmt.Sprint("new-", i))
	}
	again := newSink()
	again.position = s.Position()
	seen := &alarms{}
	f = l.Follow(again, seen.observer())
	defer f.Stop()
	eventually(t, "in sync", func() bool { return f.State().InSync && again.count() == 10 })
	for id := range again.ids() {
		if !strings.HasPrefix(id, "new-") {
			t.Errorf("%s was delivered again", id)
		}
	}
	if r := seen.raised(); len(r) > 0 {
		t.Errorf("alarms: %q", r)
	}
	if again.backwards > 0 {
		t.Error("the position went back")
	}
}

func TestAHoleLeftByExpiredEntriesIsNoGap(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	l := open(t, external(srv.URL()))
	publish(t, l, "first")
	js := client(t, srv.URL())
	for i := range 5 {
		put(t, js, ledger.KindEntry, entry(fmt.Sprint("short-", i)), jetstream.WithMsgTTL(time.Second))
	}
	position := revocation.Position{Ledger: l.Status().LedgerID, Created: l.Status().Created}
	// The position's own entry expires, and so do those behind it.
	msg := func(seq uint64) *jetstream.RawStreamMsg {
		st, err := js.Stream(t.Context(), ledger.DefaultStream)
		if err != nil {
			t.Fatal(err)
		}
		m, err := st.GetMsg(t.Context(), seq)
		if err != nil {
			return nil
		}
		return m
	}
	m := msg(4)
	position.Sequence, position.Stored = m.Sequence, m.Time
	publish(t, l, "last")
	eventually(t, "expired", func() bool { return msg(4) == nil && msg(6) == nil })

	for name, from := range map[string]revocation.Position{"from the beginning": {}, "from an expired entry": position} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSink()
			s.position = from
			seen := &alarms{}
			f := l.Follow(s, seen.observer())
			defer f.Stop()
			eventually(t, "in sync", func() bool { return f.State().InSync && s.has("last") })
			if st := f.Stats(); st.Gaps != 0 || st.Sessions != 1 || len(seen.raised()) > 0 {
				t.Errorf("%+v, alarms %q", st, seen.raised())
			}
		})
	}
}

func TestANewerVersionMakesTheEdgeIncompleteAndIsReadAgainLater(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	l := open(t, external(srv.URL()))
	publish(t, l, "before")
	js := client(t, srv.URL())
	end := time.Now().Add(90 * time.Minute).Unix()
	newer := put(t, js, ledger.KindEntry, fmt.Sprintf(`{"v":2,"expires":%d,"who":"knows"}`, end), jetstream.WithMsgTTL(time.Hour))
	kind := put(t, js, "purge", `{}`, jetstream.WithMsgTTL(time.Hour))
	publish(t, l, "after")
	s := newSink()
	f := l.Follow(s, ledger.Observer{})
	defer f.Stop()
	eventually(t, "the rest is applied", func() bool { return s.has("before") && s.has("after") && f.State().InSync })
	reasons := s.incompletes()
	if len(reasons) != 2 {
		t.Fatalf("incomplete: %q", reasons)
	}
	for i, sequence := range []uint64{newer, kind} {
		if !strings.Contains(reasons[i], fmt.Sprint("entry ", sequence)) {
			t.Errorf("incomplete: %q", reasons[i])
		}
	}
	if at := s.Position().Sequence; at != newer-1 {
		t.Errorf("the position passed entry %d, which was not applied: %d", newer, at)
	}
	if f.State().Sequence <= kind || f.Stats().Newer != 2 {
		t.Errorf("state %+v, stats %+v", f.State(), f.Stats())
	}
}

func TestPoisonNeitherStopsNorLoopsTheFollower(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	l, out := openLogged(t, external(srv.URL()))
	publish(t, l, "before")
	js := client(t, srv.URL())
	for _, payload := range []string{"", "garbage hunter2", `{"v":1}`, `{"v":1,"issuer":"x","criteria":{},"expires":"hunter2"}`} {
		put(t, js, ledger.KindEntry, payload)
	}
	put(t, js, ledger.KindRestore, `hunter2`)
	put(t, js, ledger.KindHeartbeat, `hunter2`)
	put(t, js, ledger.KindGenesis, `hunter2`)
	put(t, js, "hunter2", `{}`)
	publish(t, l, "after")
	s := newSink()
	f := l.Follow(s, ledger.Observer{})
	defer f.Stop()
	eventually(t, "the rest is applied", func() bool { return s.has("before") && s.has("after") && f.State().InSync })
	if st := f.Stats(); st.Poison != 6 || st.Newer != 1 || st.Sessions != 1 {
		t.Errorf("%+v", st)
	}
	// Only what may be a revocation makes the edge incomplete.
	if n := len(s.incompletes()); n != 5 {
		t.Errorf("incomplete: %q", s.incompletes())
	}
	if strings.Contains(out.String(), "hunter2") {
		t.Errorf("the log quotes the entry:\n%s", out)
	}
	if n := strings.Count(out.String(), "can't be applied"); n != 7 {
		t.Errorf("logged %d times", n)
	}
}

func TestAnEntryOfTheCommandLineToolIsHonoured(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	l := open(t, external(srv.URL()))
	s := newSink()
	f := l.Follow(s, ledger.Observer{})
	defer f.Stop()
	eventually(t, "in sync", func() bool { return f.State().InSync })
	js := client(t, srv.URL())
	payload := `{"v":1,"issuer":"https://sso.example.com","criteria":{"sub":"alice"},"expires":1900000000}`
	put(t, js, ledger.KindEntry, payload, jetstream.WithMsgID("4f1c2a"), jetstream.WithMsgTTL(2*time.Hour))
	bare := put(t, js, ledger.KindEntry, payload)
	eventually(t, "applied", func() bool { return s.has("4f1c2a") && s.has(fmt.Sprint("sequence-", bare)) })
	r := s.get("4f1c2a")
	if r.Criteria.Claims["sub"] != "alice" || r.Mode != revocation.Block || r.Expires != 1900000000 || r.DecidedAt == 0 {
		t.Errorf("%+v", r)
	}
}
