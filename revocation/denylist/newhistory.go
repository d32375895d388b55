package denylist

import "github.com/edge-revocation/caddy-token-revocation/revocation"

// historyStride is how many entries are marked as being from before without
// letting others have the lock.
const historyStride = 2048

// SetPosition records that every entry of the ledger up to p was applied. Only
// the ledger's follower calls it: a decision that this edge's own endpoint
// applies ahead of the follower says nothing about the entries before it.
//
// A follower that finds another history calls [Denylist.NewHistory] before it
// applies the first entry. If it does not, a position that is not in the history
// of the one before is taken for that of a new history which ends there.
func (d *Denylist) SetPosition(p revocation.Position) {
	d.mu.Lock()
	if was := d.position; was == (revocation.Position{}) || sameHistory(p, was) && p.Sequence >= was.Sequence {
		d.position = p
		d.history.passed(p.Sequence)
		d.mu.Unlock()
		return
	}
	last := p.Sequence
	if sameHistory(p, d.position) {
		last = max(last, d.before)
	}
	d.mu.Unlock()
	d.NewHistory(p, last)
}

func sameHistory(p, q revocation.Position) bool {
	return p.Ledger == q.Ledger && p.Created.Equal(q.Created)
}

// NewHistory says that the ledger is another one than the denylist followed so
// far: it was created again or rolled back, or it is a different ledger. Its
// newest entry at this moment has the sequence last; p is the follower's place
// in it, usually before its first entry. Only the ledger's follower calls it.
//
// Sequences of the two histories can't be compared. What the index holds stays
// in force until it ends, or until a restoration above last undoes it: one up to
// last may have been decided earlier than what it would undo. If the new history
// has the same decision at the same sequence, the entry belongs to it again.
// Memory of the old history's restorations is dropped, so that none of them
// undoes a decision of the new one.
//
// Decisions that are applied from the call on are taken for ones of the new
// history. One that the old history acknowledged just before, and that this edge's
// own endpoint applies just after, can't be told from them: it denies, but a
// restoration in the new history undoes it only from its old sequence on, and
// [Denylist.HeldEntries] yields that as if the new history had it. NewHistory
// looks at every entry once; checks never wait for it, changes for microseconds.
func (d *Denylist) NewHistory(p revocation.Position, last uint64) {
	d.turning.Lock()
	defer d.turning.Unlock()
	d.mu.Lock()
	d.history.forget()
	d.lack.newHistory(last)
	d.era, d.before, d.position = d.era.next(), last, p
	d.turn++
	d.mu.Unlock()
	for i := range d.index.shards {
		d.markBefore(i)
	}
}

// markBefore gives the entries of one shard that are of a history before the
// present one the era that says so: after another two, their own would mean the
// present one again.
func (d *Denylist) markBefore(shard int) {
	var t *table
	for from := 0; t == nil || from < len(t.slots); {
		t, from = d.markSome(shard, t, from)
	}
}

// markSome marks a part of t, or of the table that has taken its place, which has
// its entries elsewhere. It returns where to go on.
func (d *Denylist) markSome(shard int, t *table, from int) (*table, int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now := d.index.shards[shard].Load(); now != t {
		t, from = now, 0
	}
	t.each(from, from+historyStride, func(_ *table, s *slot) {
		if o := origin(s.origin.Load()); !d.isPresent(o.era()) {
			s.origin.Store(uint64(o.lost()))
		}
	})
	return t, from + historyStride
}
