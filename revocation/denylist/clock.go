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
// read, and judged by an exact clock, again. Entries are compared with the clock
// itself.
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

// run winds the clock up until stop is closed.
func (c *wallClock) run(stop <-chan struct{}) {
	if c.now != nil {
		return
	}
	ticker := time.NewTicker(tickInterval)
	defer ticker.Stop()
	defer c.second.Store(0)
	for {
		c.second.Store(time.Now().Unix())
		select {
		case <-stop:
			return
		case <-ticker.C:
		}
	}
}

// purgeMargin is for how long an entry stays after its end.
const purgeMargin = int64(time.Hour / time.Second)

// purgeClock tells when entries may be deleted. Deleting cannot be taken back,
// so it must not trust a wall clock that was just set wrong. This clock is
// never ahead of the wall clock, and advances at most twice as fast as
// monotonic time: fast enough to catch up with a clock that was set right.
type purgeClock struct {
	ns   int64
	last time.Time
	// elapsed returns the monotonic time from a to b.
	elapsed func(a, b time.Time) time.Duration
}

func newPurgeClock(now time.Time) purgeClock {
	return purgeClock{
		ns:      now.UnixNano(),
		last:    now,
		elapsed: func(a, b time.Time) time.Duration { return b.Sub(a) },
	}
}

// advance moves the clock and returns it in Unix seconds.
func (c *purgeClock) advance(now time.Time) int64 {
	elapsed := max(c.elapsed(c.last, now), 0)
	c.last = now
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
