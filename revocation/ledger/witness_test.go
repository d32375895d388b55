package ledger_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/ledger"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// resumed follows again, after the history was damaged, and expects that it is
// noticed, and that reseeding brings back what x0 to x(n-1) revoke.
func (e *edge) resumed(t *testing.T, url string, n int) {
	t.Helper()
	e.Follower = e.Follow(e.denylist, e.seen.observer())
	eventually(t, "the alarm", func() bool { return len(e.seen.raised()) > 0 })
	e.synced(t)
	if r := e.seen.raised(); len(r) != 1 || !strings.Contains(r[0], "rolled back") {
		t.Errorf("alarms: %q", r)
	}
	for i := range n {
		if !e.denies(fmt.Sprint("x", i)) {
			t.Errorf("x%d is not denied any more", i)
		}
	}
	eventually(t, "reseeded", func() bool {
		done, err := e.Reseed(t.Context(), e.denylist)
		return err == nil && done.Entries > 0
	})
	fresh := newEdge(t, impatient(url)).synced(t)
	for i := range n {
		if !fresh.denies(fmt.Sprint("x", i)) {
			t.Errorf("x%d is not denied by an edge that starts now", i)
		}
	}
}

// Heartbeats fill the gap that a roll-back made, and are forgotten themselves
// before the edge looks: no message tells of it, only one that is missing.
func TestARollBackThatOnlyHeartbeatsFilledIsNoticed(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	e := newEdge(t, impatient(srv.URL())).synced(t)
	expires := time.Now().Add(time.Hour).Unix()
	for i := range 5 {
		e.revoke(t, fmt.Sprint("x", i), expires)
	}
	srv.Stop()
	backup := t.TempDir()
	copyTree(t, srv.StoreDir(), backup)
	srv.Start()
	e.synced(t)
	var last uint64
	for i := range 20 {
		id := fmt.Sprint("x", 5+i)
		eventually(t, "revoked", func() bool {
			r, err := e.service.Revoke(t.Context(), tokenRequest(id, expires))
			last = r.Sequence
			return err == nil
		})
	}
	eventually(t, "applied", func() bool { return e.denylist.Position().Witness >= last })
	e.Stop()
	last = e.denylist.Position().Sequence
	srv.Stop()
	copyTree(t, backup, srv.StoreDir())
	srv.Start()
	js := client(t, srv.URL())
	var beat uint64
	for beat <= last {
		beat = put(t, js, ledger.KindHeartbeat, `{"v":1}`, jetstream.WithMsgTTL(time.Second))
	}
	stream, err := js.Stream(t.Context(), ledger.DefaultStream)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the heartbeats are forgotten", func() bool {
		_, err := stream.GetMsg(t.Context(), beat)
		return err != nil
	})
	e.resumed(t, srv.URL(), 25)
}

func TestATruncatedStoreIsNoticed(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	e := newEdge(t, impatient(srv.URL())).synced(t)
	expires := time.Now().Add(time.Hour).Unix()
	for i := range 20 {
		e.revoke(t, fmt.Sprint("x", i), expires)
	}
	eventually(t, "applied", func() bool { return e.denylist.Position().Witness > 20 })
	e.Stop()
	srv.Stop()
	var block string
	err := filepath.WalkDir(srv.StoreDir(), func(path string, _ os.DirEntry, err error) error {
		if strings.HasSuffix(path, ".blk") && strings.Contains(path, ledger.DefaultStream) {
			block = path
		}
		return err
	})
	if err != nil || block == "" {
		t.Fatalf("no message block: %v", err)
	}
	info, err := os.Stat(block)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(block, info.Size()/2); err != nil {
		t.Fatal(err)
	}
	srv.Start()
	e.resumed(t, srv.URL(), 20)
}

// Reading starts at the witness each time: what was applied is not applied again,
// and what has not changed is no reason for an alarm.
func TestFollowingAgainRaisesNoAlarm(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	e := newEdge(t, impatient(srv.URL())).synced(t)
	for i := range 3 {
		id := fmt.Sprint("x", i)
		e.revoke(t, id, time.Now().Add(time.Hour).Unix())
		beats := e.Stats().Heartbeats
		eventually(t, "applied, and heartbeats behind it", func() bool {
			return e.Stats().Applied == 1 && e.Stats().Heartbeats > beats+1
		})
		e.Stop()
		if p := e.denylist.Position(); p.Witness == 0 || p.Witness >= p.Sequence || p.WitnessEnds.Before(time.Now().Add(time.Hour)) {
			t.Errorf("position %+v", p)
		}
		e.Follower = e.Follow(e.denylist, e.seen.observer())
		beats = e.Stats().Heartbeats
		e.synced(t)
		eventually(t, "heartbeats", func() bool { return e.Stats().Heartbeats > beats+2 })
		if st := e.Stats(); st.Applied != 0 || st.Gaps != 0 || st.Sessions != 1 {
			t.Errorf("applied again: %+v", st)
		}
	}
	if r := e.seen.raised(); len(r) > 0 {
		t.Errorf("alarms: %q", r)
	}
}

// The newest time stamp seen outlives the process: after it, the server's clock
// may have been set back, and the position's own is an older one.
func TestThePositionKeepsTheNewestTimeStamp(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	l := open(t, external(srv.URL()))
	publish(t, l, "a")
	stream, err := client(t, srv.URL()).Stream(t.Context(), ledger.DefaultStream)
	if err != nil {
		t.Fatal(err)
	}
	genesis, err := stream.GetMsg(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	st, s := l.Status(), newSink()
	future := time.Now().Add(time.Hour)
	s.position = revocation.Position{Ledger: st.LedgerID, Created: st.Created, Sequence: 1, Stored: genesis.Time, Latest: future}
	seen := &alarms{}
	f := l.Follow(s, seen.observer())
	defer f.Stop()
	eventually(t, "applied", func() bool { return s.has("a") && f.State().InSync })
	if p := s.Position(); !p.Latest.Equal(future) || p.Stored.IsZero() || !p.Stored.Before(future) {
		t.Errorf("position %+v", p)
	}
	if r := seen.raised(); len(r) > 0 {
		t.Errorf("alarms: %q", r)
	}
}
