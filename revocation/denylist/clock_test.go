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
	var c wallClock
	if !near(c.unix()) {
		t.Error("wrong before it is wound up")
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() { c.run(stop); close(stopped) }()
	within(t, 30*time.Second, "it is wound up", func() bool { return c.second.Load() != 0 })
	c.second.Store(5) // as if it had been wound up long ago
	within(t, 30*time.Second, "it is wound up again", func() bool { return near(c.unix()) })
	close(stop)
	<-stopped
	if c.second.Load() != 0 || !near(c.unix()) {
		t.Error("stands still after it was stopped")
	}
}
