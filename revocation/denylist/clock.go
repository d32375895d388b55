package denylist

import (
	"sync/atomic"
	"time"
)

// wallClock tells the second for nothing: reading a clock costs as much as
// finding a token in the cache. It is wound up every tickInterval, and late by no
// more than that if the machine is not overloaded.
//
// It serves to find that a remembered token has expired, upon which the token is
// read, and judged by an exact clock, again. Entries are compared with the
// steadyClock.
type wallClock struct {
	now    func() time.Time // nil for the clock of the system
	second atomic.Int64     // 0: not wound up, ask the clock
}

const tickInterval = 100 * time.Millisecond

func (c *wallClock) unix() int64 {
	if c.now != nil {
		return c.now().Unix()
	}
	if s := c.second.Load(); s != 0 {
		return s
	}
	return time.Now().Unix()
}

// wind sets the clock, or stops it with zero.
func (c *wallClock) wind(second int64) {
	if c.now == nil {
		c.second.Store(second)
	}
}

// windClocks winds the clocks up until d is closed.
func (d *Denylist) windClocks() {
	ticker := time.NewTicker(tickInterval)
	defer ticker.Stop()
	defer d.wall.wind(0)
	for {
		now := d.now()
		d.wall.wind(now.Unix())
		d.steady.wind(now)
		select {
		case <-d.stop:
			return
		case <-ticker.C:
		}
	}
}

// steadyClock tells when entries have ended. A wall clock that was just set
// wrong must not end what is live: this one is never ahead of it, behind by at
// most maxLag, and otherwise runs with monotonic time. Should the wall clock be
// ahead because it was set right, it catches up: by an eighth of the time that
// passes, so that an entry which is live ends early by a ninth of the rest of its
// life at most.
type steadyClock struct {
	at atomic.Pointer[reading]
	// monotonic returns the monotonic time of now since some moment.
	monotonic func(now time.Time) time.Duration
}

// reading is what the clock said at a moment.
type reading struct {
	ns   int64 // Unix time
	mono time.Duration
}

const (
	maxLag  = int64(time.Hour)
	catchUp = 8
)

func newSteadyClock(now time.Time, monotonic func(time.Time) time.Duration) *steadyClock {
	c := &steadyClock{monotonic: monotonic}
	c.at.Store(&reading{ns: now.UnixNano(), mono: monotonic(now)})
	return c
}

func (c *steadyClock) read(now time.Time) reading {
	last, mono, wall := c.at.Load(), c.monotonic(now), now.UnixNano()
	elapsed := max(int64(mono-last.mono), 0)
	return reading{ns: max(min(last.ns+elapsed+elapsed/catchUp, wall), wall-maxLag), mono: mono}
}

func (c *steadyClock) unix(now time.Time) int64 { return c.read(now).ns / int64(time.Second) }

// wind makes now the moment from which the clock goes on. Only one goroutine may
// call it.
func (c *steadyClock) wind(now time.Time) {
	r := c.read(now)
	c.at.Store(&r)
}

// purgeMargin is for how long an entry stays after its end. It is not less than
// the steady clock can be behind.
const purgeMargin = maxLag / int64(time.Second)

// purgeClock tells when entries may be deleted. Deleting cannot be taken back,
// so it must not trust a wall clock that was just set wrong. This clock is
// never ahead of the wall clock, and advances at most twice as fast as
// monotonic time: fast enough to catch up with a clock that was set right.
type purgeClock struct {
	ns        int64
	last      time.Duration
	monotonic func(now time.Time) time.Duration
}

func newPurgeClock(now time.Time, monotonic func(time.Time) time.Duration) purgeClock {
	return purgeClock{ns: now.UnixNano(), last: monotonic(now), monotonic: monotonic}
}

// advance moves the clock and returns it in Unix seconds.
func (c *purgeClock) advance(now time.Time) int64 {
	mono := c.monotonic(now)
	elapsed := max(mono-c.last, 0)
	c.last = mono
	c.ns = min(now.UnixNano(), c.ns+2*int64(elapsed))
	return c.seconds()
}

func (c *purgeClock) seconds() int64 { return c.ns / int64(time.Second) }

// over tells whether an entry with this end may be deleted, with the margin or,
// where room is short, without.
func over(expires, now int64, short bool) bool {
	if short {
		return expires < now
	}
	return expires < now-purgeMargin
}
