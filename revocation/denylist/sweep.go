package denylist

import "time"

const (
	// sweepInterval is how often a part of the index is looked through for
	// entries that have ended.
	sweepInterval = 500 * time.Millisecond
	// sweepRound is how many intervals the whole index takes: one minute.
	sweepRound = 120
	// sweepStride is how many slots are looked through without letting others
	// have the lock: some ten microseconds.
	sweepStride = 2048
	// capStride is how many slots each entry that finds no room looks through.
	capStride = 512
)

// cursor is how far the sweep has come.
type cursor struct {
	shard, slot int
	table       *table // the one that slot counts in
	full        int64  // when everything was last looked through at once, in seconds of the purge clock
}

func (d *Denylist) sweepUntilClosed() {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		select {
		case <-d.stop:
			return
		case <-ticker.C:
			d.sweep(sweepRound)
		}
	}
}

// sweep looks through one nth of the index.
func (d *Denylist) sweep(nth int) {
	d.mu.Lock()
	slots := d.index.slots/nth + shardCount
	now := d.clock.advance(d.now())
	d.history.expire(now, d.position.Sequence)
	d.lack.expire(now)
	if d.shapes.expire(now) {
		d.publishShapes()
	}
	d.mu.Unlock()
	for ; slots > 0; slots -= sweepStride {
		d.mu.Lock()
		d.sweepSome(min(slots, sweepStride), now)
		d.mu.Unlock()
	}
	d.mu.Lock()
	d.rearm()
	d.mu.Unlock()
}

// sweepSome deletes what has ended among the next n slots. It is called with
// d.mu held.
func (d *Denylist) sweepSome(n int, now int64) {
	c := &d.cursor
	for n > 0 {
		t := d.index.shards[c.shard].Load()
		if t == d.index.empty {
			c.shard = (c.shard + 1) % shardCount
			n--
			continue
		}
		if t != c.table {
			c.table, c.slot = t, 0
		}
		end, short := now, d.index.live >= d.limits.pressure
		if short {
			// The purge clock may be behind for long after the wall clock was set
			// right. The steady clock is not.
			end = max(now, d.steady.unix(d.now()))
		}
		ended := int64(0)
		t.each(c.slot, c.slot+n, func(_ *table, s *slot) {
			if expires := term(s.term.Load()).expires(); over(expires, end, short) {
				ended = max(ended, expires)
			}
		})
		if ended > 0 {
			// First, so that nobody finds neither the entry nor the gap.
			d.lack.ended(ended)
			t.each(c.slot, c.slot+n, func(t *table, s *slot) {
				if over(term(s.term.Load()).expires(), end, short) {
					d.kill(t, s)
					d.counts.expired++
				}
			})
		}
		looked := min(n, len(t.slots)-c.slot)
		c.slot += looked
		n -= max(looked, 1)
		if c.slot >= len(t.slots) {
			d.index.tidy(c.shard)
			c.shard = (c.shard + 1) % shardCount
			c.table = nil
		}
	}
}

// makeRoom deletes what has ended, because an entry finds no room: everything,
// once a second at most. That takes milliseconds, so it lets others have the lock
// now and then. It is called with d.mu held, and what the caller knew before may
// have changed.
func (d *Denylist) makeRoom(now int64) {
	if now == d.cursor.full {
		d.sweepSome(capStride, now)
		return
	}
	d.cursor.full = now
	for slots := d.index.slots + shardCount; slots > 0; slots -= sweepStride {
		d.sweepSome(min(slots, sweepStride), now)
		d.mu.Unlock()
		d.mu.Lock()
	}
}

// kill removes an entry and what was counted for it. It is called with d.mu held.
func (d *Denylist) kill(t *table, s *slot) {
	o := origin(s.origin.Load())
	d.index.kill(t, s)
	d.actors.remove(o.actor())
	if d.shapes.remove(o.shape(), d.clock.seconds()); d.shapes.slots[o.shape()].key && !d.shapes.namesKeys() {
		d.keysUntil.Store(0)
	}
}
