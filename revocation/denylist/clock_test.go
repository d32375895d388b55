package denylist

import (
	"testing"
	"time"
)

// TestClockStepsLoseNothingLive steps the wall clock while sweeps run, then sets
// it right: whatever was live must still deny.
func TestClockStepsLoseNothingLive(t *testing.T) {
	for _, c := range []struct {
		name string
		step time.Duration
		held time.Duration // for how long the clock is wrong
	}{
		{"an hour forward, for long", time.Hour, 12 * time.Hour},
		{"an hour back, for long", -time.Hour, 12 * time.Hour},
		{"a day forward, for less than an hour", 24 * time.Hour, 59 * time.Minute},
		{"a year forward, for a minute", 365 * 24 * time.Hour, time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, clock := newTest(t, Options{})
			live := int64((c.held + time.Second) / time.Second)
			d.Revoke(1, block(epoch0+live, "jti", "short"))
			d.Revoke(2, block(epoch0+live+3600, "jti", "long"))
			clock.step(c.step)
			for passed := time.Duration(0); passed < c.held; passed += c.held / 10 {
				clock.pass(c.held / 10)
				sweepAll(d)
			}
			clock.step(-c.step)
			for _, id := range []string{"short", "long"} {
				if !d.Check(identity("jti", id)).Denied {
					t.Errorf("%s is forgotten", id)
				}
			}
			if _, _, incomplete := d.Incomplete(clock.Now()); incomplete {
				t.Error("incomplete")
			}
			clock.pass(48 * time.Hour)
			for range 3 {
				clock.pass(time.Minute)
				sweepAll(d)
			}
			if n := d.Stats().Entries; n != 0 {
				t.Errorf("%d entries are kept after their end", n)
			}
		})
	}
}

func TestEndedEntriesStayForAnHourAndThenGo(t *testing.T) {
	d, clock := newTest(t, Options{})
	d.Revoke(1, block(epoch0+10, "jti", "1"))
	clock.pass(10 * time.Second)
	if !d.Check(identity("jti", "1")).Denied {
		t.Error("allowed in the last second")
	}
	clock.pass(time.Second)
	if d.Check(identity("jti", "1")).Denied {
		t.Error("denied after its end")
	}
	clock.pass(time.Hour - time.Second)
	sweepAll(d)
	if d.Stats().Entries != 1 {
		t.Error("deleted within the hour")
	}
	clock.pass(2 * time.Second)
	sweepAll(d)
	if s := d.Stats(); s.Entries != 0 || s.Expired != 1 {
		t.Errorf("%+v", s)
	}
	d.Revoke(2, block(epoch0+10, "jti", "1"))
	if d.Stats().Entries != 0 {
		t.Error("an entry that ended long ago is stored")
	}
}

// TestShortRoomIsNeverSilent deletes ended entries early, because room is short,
// and then learns that the clock was wrong.
func TestShortRoomIsNeverSilent(t *testing.T) {
	d, clock := newTest(t, Options{MaxEntries: 10})
	for i := range 10 {
		d.Revoke(uint64(i+1), block(epoch0+100, "jti", jti(i)))
	}
	clock.step(time.Hour)
	clock.pass(30 * time.Minute) // for so long that even the purge clock believes it
	for i := range 10 {
		d.Revoke(uint64(i+11), block(clock.unix()+100, "sub", jti(i)))
	}
	if s := d.Stats(); s.Entries != 10 || s.CapHits != 0 {
		t.Fatalf("%+v", s)
	}
	if _, _, incomplete := d.Incomplete(clock.Now()); incomplete {
		t.Error("incomplete although all that went had ended")
	}
	back := time.Unix(epoch0+50, 0)
	if reason, until, incomplete := d.Incomplete(back); !incomplete || until != epoch0+100 || reason == "" {
		t.Errorf("%q, %d, %t after the clock went back", reason, until, incomplete)
	}
}

// TestClockStepsEndNothingLive steps the wall clock and asks about an entry near
// its end: it denies until then, and not for longer than the clock can lag.
func TestClockStepsEndNothingLive(t *testing.T) {
	for _, c := range []struct {
		name string
		step time.Duration
		live int // seconds for which an entry with 90 s to go must deny
		gone int // seconds after which it must not
	}{
		{"none", 0, 90, 91},
		{"an hour forward", time.Hour, 79, 91},
		{"a minute forward", time.Minute, 79, 91},
		{"an hour back", -time.Hour, 90, 3600 + 91},
		{"a minute back", -time.Minute, 90, 60 + 91},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, clock := newTest(t, Options{})
			r := block(epoch0+90, "sub", "a")
			d.Revoke(1, r)
			d.MarkIncomplete("something", epoch0+90)
			clock.step(c.step)
			for second := 0; second <= c.gone; second++ {
				d.steady.wind(d.now())
				denied := d.Check(identity("sub", "a")).Denied
				if _, _, incomplete := d.Incomplete(clock.Now()); incomplete != denied {
					t.Fatalf("after %d s: denied is %t, incomplete is %t", second, denied, incomplete)
				}
				if !denied && second <= c.live || denied && second >= c.gone {
					t.Fatalf("after %d s: denied is %t", second, denied)
				}
				clock.pass(time.Second)
			}
		})
	}
}

// TestSteadyClockCatchesUp sets a clock right that was slow.
func TestSteadyClockCatchesUp(t *testing.T) {
	d, clock := newTest(t, Options{})
	lag := func() int64 { return clock.unix() - d.steady.unix(clock.Now()) }
	clock.step(20 * 365 * 24 * time.Hour)
	if got := lag(); got != 3600 {
		t.Errorf("behind by %d s", got)
	}
	for range 8 {
		d.steady.wind(clock.Now())
		clock.pass(time.Hour)
	}
	if got := lag(); got != 0 {
		t.Errorf("behind by %d s after eight hours", got)
	}
	clock.step(-time.Hour)
	if got := lag(); got != 0 {
		t.Errorf("ahead by %d s", -got)
	}
}

func TestClocksAreWoundUp(t *testing.T) {
	clock := newTestClock()
	d, err := New(Options{Now: clock.Now, monotonic: clock.monotonic})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	clock.step(-time.Hour)
	within(t, 30*time.Second, "the clock goes on from the new time", func() bool {
		return d.steady.at.Load().ns == clock.Now().UnixNano()
	})
}

func TestSweeperRunsByItself(t *testing.T) {
	clock := newTestClock()
	d, err := New(Options{Now: clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	d.Revoke(1, block(epoch0+10, "jti", "1"))
	clock.pass(2 * time.Hour)
	within(t, 30*time.Second, "the entry is deleted", func() bool {
		clock.pass(time.Minute)
		return d.Stats().Entries == 0
	})
}

func TestCoarseClockIsTheWallClock(t *testing.T) {
	near := func(got int64) bool { return got <= time.Now().Unix() && got >= time.Now().Unix()-2 }
	d, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	c := d.wall
	if !near(new(wallClock).unix()) || !near(c.unix()) {
		t.Error("wrong before it is wound up")
	}
	within(t, 30*time.Second, "it is wound up", func() bool { return c.second.Load() != 0 })
	c.second.Store(5) // as if it had been wound up long ago
	within(t, 30*time.Second, "it is wound up again", func() bool { return near(c.unix()) })
	d.Close()
	if c.second.Load() != 0 || !near(c.unix()) {
		t.Error("stands still after it was stopped")
	}
}
