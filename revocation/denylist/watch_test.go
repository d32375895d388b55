package denylist

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

func TestWatchersAreToldOfEachChange(t *testing.T) {
	d, _ := newTest(t, Options{MaxEntries: 2})
	var got []Change
	stop := d.Watch(func(c Change) { got = append(got, c) })
	var others int
	d.Watch(func(Change) { others++ })

	r := cutoff(revocation.IssuedBefore, epoch0, epoch0+100, "sub", "alice", "client_id", "app")
	d.Revoke(1, r)
	held := &revocation.HeldEntry{
		Fingerprint: criteria("jti", "1").Fingerprint(revocation.Block), Names: []string{"jti"}, Expires: epoch0 + 100,
	}
	d.RevokeHeld(2, held)
	d.Recheck(3, testIssuer)
	if len(got) != 3 || others != 3 {
		t.Fatalf("told of %+v, the other of %d", got, others)
	}
	if c := got[0]; c.Fingerprint != r.Criteria.Fingerprint(r.Mode) || c.Mode != revocation.IssuedBefore ||
		!slices.Equal(c.Names, []string{"client_id", "sub"}) || c.Criteria == nil || c.Criteria.String() != r.Criteria.String() || c.Recheck != "" {
		t.Errorf("a revocation: %+v", c)
	}
	if c := got[1]; c.Fingerprint != held.Fingerprint || c.Mode != revocation.Block || !slices.Equal(c.Names, held.Names) || c.Criteria != nil || c.Recheck != "" {
		t.Errorf("a revocation by its fingerprint: %+v", c)
	}
	if c := got[2]; c.Recheck != testIssuer || c.Criteria != nil || c.Fingerprint != (revocation.Fingerprint{}) || c.Names != nil {
		t.Errorf("a recheck: %+v", c)
	}
	// The denylist is full: what it can't hold may deny all the same.
	d.Revoke(4, block(epoch0+100, "sid", "s"))
	if len(got) != 4 || untilWhen(d, d.now()) == 0 {
		t.Errorf("told of %d, incomplete until %d", len(got), untilWhen(d, d.now()))
	}
	// What can't be applied names nothing.
	d.Revoke(5, block(epoch0+100, "sub", ""))
	d.RevokeHeld(6, &revocation.HeldEntry{})
	d.Restore(7, restoration("jti", "1"))
	if len(got) != 4 {
		t.Errorf("told of %+v", got[4:])
	}
	stop()
	stop()
	d.Revoke(8, block(epoch0+100, "jti", "2"))
	d.Recheck(9, testIssuer)
	if len(got) != 4 || others != 6 {
		t.Errorf("told of %d after stop, the other of %d", len(got), others)
	}
}

// Who ends a stream, or drops an answer, upon a change must not meet a denylist
// that still lets the token through.
func TestWatchersAreToldAfterTheEntryIsInForce(t *testing.T) {
	d, _ := newTest(t, Options{})
	id := identity("jti", "1", "sub", "alice")
	told := 0
	defer d.Watch(func(Change) {
		told++
		if !d.Check(id).Denied {
			t.Error("told before it is in force")
		}
		// No lock is held: a watcher may ask anything.
		d.Position()
		d.Stats()
	})()
	d.Revoke(1, block(epoch0+100, "jti", "1"))
	d.Restore(2, restoration("jti", "1"))
	d.RevokeHeld(3, &revocation.HeldEntry{
		Fingerprint: criteria("sub", "alice").Fingerprint(revocation.Block), Names: []string{"sub"}, Expires: epoch0 + 100,
	})
	if told != 2 {
		t.Errorf("told %d times", told)
	}
}

func TestWatchersComeAndGoWhileOthersRevoke(t *testing.T) {
	d, _ := newTest(t, Options{})
	var first atomic.Int64
	defer d.Watch(func(Change) { first.Add(1) })()
	const revokers, watchers, rounds = 2, 4, 200
	var wg sync.WaitGroup
	for n := range revokers {
		wg.Go(func() {
			for i := range rounds {
				d.Revoke(uint64(n*rounds+i+1), block(epoch0+1000, "jti", jti(n*rounds+i)))
				d.Recheck(uint64(n*rounds+i+1), testIssuer)
			}
		})
	}
	for range watchers {
		wg.Go(func() {
			for range rounds {
				var mine atomic.Int64
				stop := d.Watch(func(Change) { mine.Add(1) })
				d.Recheck(1, testIssuer)
				if mine.Load() == 0 {
					t.Error("not told of a change after Watch")
				}
				stop()
			}
		})
	}
	wg.Wait()
	if n := first.Load(); n != 2*revokers*rounds+watchers*rounds {
		t.Errorf("told %d times", n)
	}
	if ws := d.watchers.Load(); len(*ws) != 1 {
		t.Errorf("%d watchers are left", len(*ws))
	}
}

// An earlier version did not know rechecks: a checkpoint of it says that the entry
// could not be read.
func TestARecheckClosesTheGapOfAnEarlierVersion(t *testing.T) {
	old, _ := newTest(t, Options{})
	old.SetPosition(revocation.Position{Ledger: "a", Sequence: 4})
	old.MarkUnreadable(5, "a later version", epoch0+500)
	old.MarkUnreadable(6, "another one", epoch0+400)
	path := t.TempDir() + "/checkpoint"
	if err := old.WriteCheckpoint(path, testPlace, old.now()); err != nil {
		t.Fatal(err)
	}
	d, clock := newTest(t, Options{})
	if _, _, err := d.LoadCheckpoint(path, testPlace); err != nil {
		t.Fatal(err)
	}
	d.Recheck(4, testIssuer)
	if got := untilWhen(d, clock.Now()); got != epoch0+500 {
		t.Fatalf("incomplete until %d", got)
	}
	d.Recheck(5, testIssuer)
	if got := untilWhen(d, clock.Now()); got != epoch0+400 {
		t.Fatalf("incomplete until %d", got)
	}
}
