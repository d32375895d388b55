package denylist

import (
	"bytes"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// newTestAhead returns a denylist that starts while the wall clock is ahead.
func newTestAhead(t *testing.T, by time.Duration) (*Denylist, *testClock) {
	t.Helper()
	clock := newTestClock()
	clock.step(by)
	o, err := Options{Now: clock.Now, monotonic: clock.monotonic}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	d := newDenylist(o)
	if d.cache, err = newCache(o.CacheBytes); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d, clock
}

// TestWrongClockIsNeverSilent has a clock that is ahead by more than an hour, from
// the start or for hours, drop what is live. When it is set right, the denylist
// denies it or says until when it is incomplete; while it is wrong, and after the
// end, it says nothing.
func TestWrongClockIsNeverSilent(t *testing.T) {
	const ahead, live = 3 * time.Hour, int64(3600)
	r := block(epoch0+live, "sub", "x")
	held := &revocation.HeldEntry{Fingerprint: r.Criteria.Fingerprint(r.Mode), Mode: r.Mode, Names: r.Criteria.Names(), Expires: r.Expires}

	a, _ := newTest(t, Options{MaxEntries: 2})
	a.Revoke(1, r)
	a.SetPosition(position("l", 1))
	var saved bytes.Buffer
	if err := a.writeCheckpoint(&saved, testPlace, time.Now()); err != nil {
		t.Fatal(err)
	}
	a.Revoke(2, block(epoch0+live-20, "sub", "y"))
	a.Restore(3, restoration("sub", "x"))
	a.Revoke(4, block(epoch0+live-10, "sub", "z"))
	a.Revoke(5, r) // finds no room
	var full bytes.Buffer
	if err := a.writeCheckpoint(&full, testPlace, time.Now()); err != nil {
		t.Fatal(err)
	}
	join := func(d *Denylist, b *bytes.Buffer) {
		c, err := parseCheckpoint(b.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		d.join(c)
	}

	for name, take := range map[string]func(d *Denylist, clock *testClock) *Denylist{
		"the follower's":        func(d *Denylist, _ *testClock) *Denylist { d.Revoke(1, r); return d },
		"recorded again":        func(d *Denylist, _ *testClock) *Denylist { d.RevokeHeld(1, held); return d },
		"a checkpoint's":        func(d *Denylist, _ *testClock) *Denylist { join(d, &saved); return d },
		"missing in checkpoint": func(d *Denylist, _ *testClock) *Denylist { join(d, &full); return d },
		"unreadable": func(d *Denylist, _ *testClock) *Denylist {
			d.MarkUnreadable(1, "a later version", r.Expires)
			d.sweep(1)
			return d
		},
		"in a second checkpoint": func(d *Denylist, clock *testClock) *Denylist {
			join(d, &saved)
			var b bytes.Buffer
			if err := d.writeCheckpoint(&b, testPlace, clock.Now()); err != nil {
				t.Fatal(err)
			}
			d, _ = newTest(t, Options{Now: clock.Now})
			d.now, d.clock = clock.Now, newPurgeClock(clock.Now(), clock.monotonic)
			d.steady = newSteadyClock(clock.Now(), clock.monotonic)
			join(d, &b)
			return d
		},
	} {
		t.Run(name, func(t *testing.T) {
			d, clock := newTestAhead(t, ahead)
			d = take(d, clock)
			clock.pass(20 * time.Second)
			if _, until, incomplete := d.Incomplete(clock.Now()); incomplete {
				t.Errorf("incomplete until %d although it has ended", until)
			}
			clock.step(-ahead)
			if reason, until, incomplete := d.Incomplete(clock.Now()); !incomplete || until < r.Expires {
				t.Errorf("%q until %d, %t: allowed in silence", reason, until, incomplete)
			}
			clock.pass(time.Duration(live) * time.Second)
			if _, _, incomplete := d.Incomplete(clock.Now()); incomplete {
				t.Error("incomplete after the end")
			}
		})
	}

	t.Run("for hours", func(t *testing.T) {
		d, clock := newTest(t, Options{})
		d.Revoke(1, block(epoch0+6*3600, "sub", "x"))
		clock.step(12 * time.Hour)
		for range 24 {
			clock.pass(10 * time.Minute)
			d.steady.wind(clock.Now())
			sweepAll(d)
		}
		clock.step(-12 * time.Hour)
		if d.Check(identity("sub", "x")).Denied {
			t.Fatal("not deleted: this tests nothing")
		}
		if _, until, incomplete := d.Incomplete(clock.Now()); !incomplete || until != epoch0+6*3600 {
			t.Errorf("until %d, %t: allowed in silence", until, incomplete)
		}
	})

	t.Run("missing", func(t *testing.T) {
		d, clock := newTest(t, Options{MaxEntries: 1})
		d.Revoke(1, block(epoch0+1<<20, "sub", "y"))
		d.Revoke(2, block(epoch0+6*3600, "sub", "x"))
		clock.step(12 * time.Hour)
		for range 24 {
			clock.pass(10 * time.Minute)
			d.steady.wind(clock.Now())
			sweepAll(d)
		}
		if d.Stats().Missing != 0 {
			t.Fatal("not forgotten: this tests nothing")
		}
		clock.step(-12 * time.Hour)
		if _, until, incomplete := d.Incomplete(clock.Now()); !incomplete || until != epoch0+6*3600 {
			t.Errorf("until %d, %t: allowed in silence", until, incomplete)
		}
	})

	t.Run("undone", func(t *testing.T) {
		d, clock := newTestAhead(t, ahead)
		d.Restore(2, restoration("sub", "x"))
		d.Revoke(1, r)
		clock.step(-ahead)
		if _, _, incomplete := d.Incomplete(clock.Now()); incomplete {
			t.Error("incomplete for what was restored")
		}
	})
}

// TestClockSetRightDoesNotFillTheIndex sets a clock right that was days behind.
// What ends from then on has to make room, although the clock that deletes takes
// days to catch up.
func TestClockSetRightDoesNotFillTheIndex(t *testing.T) {
	d, clock := newTest(t, Options{MaxEntries: 1000, ActorQuota: -1})
	clock.step(10 * 24 * time.Hour)
	sequence := uint64(0)
	for hour := range 24 {
		for range 100 {
			sequence++
			d.Revoke(sequence, block(clock.unix()+300, "jti", jti(int(sequence))))
		}
		if reason, until, incomplete := d.Incomplete(clock.Now()); incomplete {
			t.Fatalf("hour %d: %d entries, %d of them live; %s until in %d s", hour, d.Stats().Entries, 100, reason, until-clock.unix())
		}
		for range 6 {
			clock.pass(10 * time.Minute)
			d.steady.wind(clock.Now())
			d.sweep(1)
		}
	}
	if s := d.Stats(); s.CapHits != 0 || s.Expired == 0 {
		t.Errorf("%+v", s)
	}
}
