package denylist

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

func TestHeldUntilIsAfterTheLastEnd(t *testing.T) {
	d, clock := newTest(t, Options{})
	c := criteria("sub", "alice")
	wants := func(what string, end int64) {
		t.Helper()
		until, ok := d.HeldUntil(c)
		if end == 0 && ok || end != 0 && (!ok || until != end+int64(time.Hour/time.Second)) {
			t.Errorf("%s: until %d, %t; the end is %d", what, until, ok, end)
		}
	}
	wants("nothing", 0)
	d.Revoke(1, block(epoch0+5000, "sub", "bob"))
	wants("another user", 0)
	d.Revoke(2, block(epoch0+100, "sub", "alice"))
	wants("a block", epoch0+100)
	d.Revoke(3, cutoff(revocation.AuthenticatedBefore, epoch0, epoch0+300, "sub", "alice"))
	d.Revoke(4, cutoff(revocation.IssuedBefore, epoch0, epoch0+200, "sub", "alice"))
	wants("three modes", epoch0+300)
	d.Revoke(5, block(epoch0+400, "sub", "alice"))
	d.Revoke(6, block(epoch0+50, "sub", "alice"))
	wants("merged", epoch0+400)
	clock.pass(time.Minute * 20)
	wants("ended a while ago", epoch0+400)
	d.Revoke(7, block(epoch0+9000, "sub", "alice"))
	d.Restore(8, restoration("sub", "alice"))
	wants("restored", 0)
	d.Revoke(9, block(clock.unix()+100, "sub", "alice"))
	wants("revoked again", clock.unix()+100)
	d.Revoke(10, block(1<<33, "sub", "alice"))
	wants("for ever", 0)
	d.Revoke(11, cutoff(revocation.IssuedBefore, epoch0, epoch0+200, "sub", "alice"))
	wants("one of two for ever", 0)
}

func TestHeldUntilIsSilentWhereSomethingMayBeMissing(t *testing.T) {
	c := criteria("sub", "alice")
	for name, spoil := range map[string]func(*Denylist, *testClock){
		"an entry that can't be read":      func(d *Denylist, _ *testClock) { d.MarkUnreadable(4, "garbage", epoch0+10) },
		"an entry that can't be applied":   func(d *Denylist, _ *testClock) { d.MarkIncomplete("garbage", epoch0+10) },
		"no room for one of another shape": func(d *Denylist, _ *testClock) { d.Revoke(4, block(epoch0+10, "sid", "s")) },
		"another history":                  func(d *Denylist, _ *testClock) { d.NewHistory(position("b", 0), 0) },
		"merged with an entry from before": func(d *Denylist, _ *testClock) {
			d.NewHistory(position("b", 0), 0)
			d.Revoke(1, block(epoch0+50, "sub", "alice"))
		},
		"the clock went back": func(d *Denylist, clock *testClock) {
			clock.pass(3 * time.Hour)
			d.Revoke(4, block(epoch0+10, "sub", "alice"))
			clock.step(-3 * time.Hour)
		},
	} {
		t.Run(name, func(t *testing.T) {
			d, clock := newTest(t, Options{MaxEntries: 2})
			d.Revoke(1, block(epoch0+5000, "jti", "1"))
			d.Revoke(2, block(epoch0+100, "sub", "alice"))
			d.SetPosition(position("a", 3))
			if _, ok := d.HeldUntil(c); !ok {
				t.Fatal("silent before")
			}
			spoil(d, clock)
			if until, ok := d.HeldUntil(c); ok {
				t.Errorf("until %d", until)
			}
		})
	}
}

// A newer version may read in an acknowledged entry what this one can't, also after
// this one was started again.
func TestHeldUntilIsNotBeforeTheEndOfWhatWasAcknowledged(t *testing.T) {
	old, _ := newTest(t, Options{})
	old.Revoke(3, block(epoch0+100, "sub", "alice"))
	old.MarkUnreadable(4, "a later version", epoch0+900)
	old.MarkUnreadable(5, "a later version", epoch0+800)
	old.Acknowledge(4)
	old.Acknowledge(5)
	old.SetPosition(position("a", 7))
	path := filepath.Join(t.TempDir(), "checkpoint")
	if err := old.WriteCheckpoint(path, testPlace, old.now()); err != nil {
		t.Fatal(err)
	}
	started, _ := newTest(t, Options{})
	if _, _, err := started.LoadCheckpoint(path, testPlace); err != nil {
		t.Fatal(err)
	}
	for name, d := range map[string]*Denylist{"before": old, "after": started} {
		if until, ok := d.HeldUntil(criteria("sub", "alice")); !ok || until != epoch0+900+purgeMargin {
			t.Errorf("%s the start: until %d, %t", name, until, ok)
		}
		if until, ok := d.HeldUntil(criteria("sub", "bob")); ok {
			t.Errorf("%s the start: of nothing, until %d", name, until)
		}
	}
}

func TestHeldUntilOfACheckpoint(t *testing.T) {
	c := criteria("sub", "alice")
	old, _ := newTest(t, Options{})
	old.SetPosition(position("a", 4))
	old.Revoke(3, block(epoch0+100, "sub", "alice"))
	path := filepath.Join(t.TempDir(), "checkpoint")
	if err := old.WriteCheckpoint(path, testPlace, old.now()); err != nil {
		t.Fatal(err)
	}
	d, _ := newTest(t, Options{})
	if _, _, err := d.LoadCheckpoint(path, testPlace); err != nil {
		t.Fatal(err)
	}
	if until, ok := d.HeldUntil(c); !ok || until != epoch0+100+purgeMargin {
		t.Errorf("until %d, %t", until, ok)
	}
	// The follower finds another history than that of the file.
	d.NewHistory(position("b", 0), 0)
	if until, ok := d.HeldUntil(c); ok {
		t.Errorf("until %d in another history", until)
	}
}
