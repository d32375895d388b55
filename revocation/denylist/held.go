package denylist

import (
	"iter"
	"math"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// heldStride is how many slots are copied without letting others have the lock.
const heldStride = 1024

// Standing tells whether an entry stands that denies at least what r would: of
// the same criteria and mode, with no earlier cutoff and no earlier end. It
// returns the entry's sequence in the ledger's present history; an entry that is
// from before that, or has been merged with one, does not count.
//
// Where several decisions have merged, the sequence is the highest of theirs.
// The ledger's entry there need not carry the whole term by itself, nor need it
// still exist: a caller that answers "already revoked" looks at it first.
func (d *Denylist) Standing(r *revocation.Revocation) (sequence uint64, ok bool) {
	print := r.Criteria.Fingerprint(r.Mode)
	t := newTerm(r.Expires, r.Cutoff)
	d.mu.Lock()
	defer d.mu.Unlock()
	_, s := d.index.find(print)
	if s == nil || !term(s.term.Load()).covers(t) {
		return 0, false
	}
	o := origin(s.origin.Load())
	if o.era() != d.era {
		return 0, false
	}
	return o.sequence(), true
}

// HeldUntil returns the second, in Unix seconds, from which on no edge denies any
// token by the entries that are held for exactly these criteria, of whatever mode:
// the latest of their ends, and how far an edge's clock may be behind its machine's.
// What ends them may be forgotten then. Clocks that differ are the caller's affair.
// It is not before the end of any entry that could not be read and was acknowledged:
// a newer version may read a revocation of these criteria in it.
//
// It returns false wherever another edge may hold one that ends later: if anything
// is missing here ([Denylist.Incomplete]), if an entry is from before the ledger's
// present history or has merged with one, or never ends; also if there is none,
// since whoever asks knows of one.
func (d *Denylist) HeldUntil(c revocation.Criteria) (until int64, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, _, incomplete := d.Incomplete(d.now()); incomplete {
		return 0, false
	}
	for mode := range revocation.Mode(modes) {
		_, s := d.index.find(c.Fingerprint(mode))
		if s == nil || s.term.Load() == 0 {
			continue
		}
		end := term(s.term.Load()).expires()
		if origin(s.origin.Load()).era() != d.era || end == math.MaxInt64 {
			return 0, false
		}
		until = max(until, end+purgeMargin)
	}
	if until > 0 {
		until = max(until, d.lack.waivedUntil()+purgeMargin)
	}
	return until, until > 0
}

// HeldEntries returns what the index holds and has not ended, in no order, each
// with its sequence in the ledger's present history. The sequence is zero for an
// entry which that history may lack, in whole or in part: it is from before, see
// [Denylist.NewHistory]. These are the ones to be recorded again in a ledger that
// lost them.
//
// An entry that is there from the first to the last moment of the walk comes
// once; one that comes or goes meanwhile may be missed. No lock is held while
// the caller has an entry, so that it may be undone before the caller is done
// with it: who records it again looks for restorations since the walk began.
// Names must not be changed.
func (d *Denylist) HeldEntries() iter.Seq2[uint64, revocation.HeldEntry] {
	return func(yield func(uint64, revocation.HeldEntry) bool) {
		held := make([]heldEntry, 0, heldStride)
		for i := range d.index.shards {
			t := d.index.shards[i].Load()
			for from := 0; from < len(t.slots); from += heldStride {
				held = d.copyHeld(held[:0], i, t, from)
				for _, h := range held {
					if !yield(h.sequence, h.HeldEntry) {
						return
					}
				}
			}
		}
	}
}

type heldEntry struct {
	sequence uint64
	revocation.HeldEntry
}

func (d *Denylist) copyHeld(held []heldEntry, shard int, t *table, from int) []heldEntry {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.steady.unix(d.now())
	t.each(from, from+heldStride, func(tab *table, s *slot) {
		print := s.fingerprint()
		if tab != d.index.shards[shard].Load() {
			// Replaced since the walk began to look at it: what it says is old.
			if _, s = d.index.find(print); s == nil || s.term.Load() == 0 {
				return
			}
		}
		tm, o := term(s.term.Load()), origin(s.origin.Load())
		if tm.expires() < now {
			return
		}
		shape := &d.shapes.slots[o.shape()]
		h := heldEntry{HeldEntry: revocation.HeldEntry{
			Fingerprint: print,
			Mode:        shape.mode,
			Names:       shape.names,
			Expires:     min(tm.expires(), forever),
			Actor:       actorOf(d.actors.slots[o.actor()].name),
		}}
		if shape.mode != revocation.Block {
			h.Cutoff = min(tm.cutoff(), forever)
		}
		if o.era() == d.era {
			h.sequence = o.sequence()
		}
		held = append(held, h)
	})
	return held
}
