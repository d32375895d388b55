package denylist

import (
	"fmt"
	"log/slog"
	"slices"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// Revoke puts the decision in force. It is visible to every goroutine when
// Revoke returns. Applying the same sequence again changes nothing.
//
// If r can't be held, because there is no room or because it isn't valid, the
// denylist is incomplete until r ends; see [Denylist.Incomplete].
func (d *Denylist) Revoke(sequence uint64, r *revocation.Revocation) {
	if err := r.Validate(); err != nil {
		d.MarkIncomplete(fmt.Sprintf("ledger entry %d: %v", sequence, err), r.Expires)
		return
	}
	if sequence > maxSequence {
		d.MarkIncomplete("the ledger's sequence is out of range", r.Expires)
		return
	}
	print := r.Criteria.Fingerprint(r.Mode)
	names := r.Criteria.Names()

	d.mu.Lock()
	defer d.unlock()
	now := d.clock.advance(d.now())
	if over(r.Expires, now, false) || d.history.isUndone(r.Criteria, sequence) {
		return
	}
	t := newTerm(r.Expires, r.Cutoff)
	if sequence > d.position.Sequence {
		d.history.applied(print, sequence, t)
	}
	d.hold(print, sequence, t, r.Mode, names, r.Actor, now)
}

// hold puts an entry into the index, or says that it can't. It is called with
// d.mu held.
func (d *Denylist) hold(print revocation.Fingerprint, sequence uint64, t term, mode revocation.Mode, names []string, actor string, now int64) {
	tab, s := d.index.find(print)
	if s != nil && s.term.Load() != 0 {
		d.merge(print, s, sequence, t)
		return
	}
	most := d.limits.max
	if mode == revocation.Block && namesOneToken(names) {
		most = d.limits.tokens // one entry for a user, client or issuer replaces many
	}
	if d.index.live >= most {
		d.makeRoom(now)
		if tab, s = d.index.find(print); d.index.live >= most {
			d.counts.capHits++
			d.miss("there are more entries than max_entries", print, sequence, t)
			return
		}
	}
	n, changed, ok := d.shapes.use(mode, names)
	if !ok {
		d.counts.shapeHits++
		d.miss("entries combine claims in too many ways", print, sequence, t)
		return
	}
	if changed {
		// Before the entry: a check that sees the entry's shape too early finds
		// nothing, one that sees it too late would find nothing as well.
		d.publishShapes()
	}
	who := d.actors.use(actor)
	d.shapes.add(n)
	d.actors.add(who)
	d.index.put(print, tab, s, t, newOrigin(sequence, who, n))
	d.counts.inserted++
	d.lack.found(print, t)
	d.raise()
}

func namesOneToken(names []string) bool {
	return slices.Contains(names, revocation.ClaimTokenID) || slices.Contains(names, revocation.ClaimToken)
}

func (d *Denylist) merge(print revocation.Fingerprint, s *slot, sequence uint64, t term) {
	o, was := origin(s.origin.Load()), term(s.term.Load())
	t = t.merge(was)
	d.lack.found(print, t)
	if t == was && sequence <= o.sequence() {
		return
	}
	s.set(t, o.withSequence(max(sequence, o.sequence())))
	d.counts.merged++
}

// miss records that an entry is not held. It is called with d.mu held.
func (d *Denylist) miss(reason string, print revocation.Fingerprint, sequence uint64, t term) {
	if d.lack.miss(reason, print, sequence, t, d.now().Unix()) {
		entries := d.index.live
		d.later(func() {
			d.logger.Error("denylist is incomplete: an entry can not be held",
				slog.String("reason", reason), slog.Int("entries", entries),
				slog.Int("max_entries", d.limits.max), slog.Int64("until", t.expires()))
		})
	}
}

// Restore undoes the decisions on exactly r's criteria, of every mode, whose
// sequence is lower than the given one, also those that arrive later. It is
// visible to every goroutine when it returns.
func (d *Denylist) Restore(sequence uint64, r *revocation.Restoration) {
	if r.Criteria.Validate() != nil {
		return // no entry can have such criteria
	}
	names := r.Criteria.Names()
	block := r.Criteria.Fingerprint(revocation.Block)

	d.mu.Lock()
	defer d.unlock()
	now := d.clock.advance(d.now())
	// One that is remembered is carried out again: a checkpoint may have brought
	// it together with an entry that was copied before it came.
	sequence = d.history.undo(block, sequence, now)
	for mode := revocation.Mode(0); mode.Valid(); mode++ {
		print := block
		if mode != revocation.Block {
			print = r.Criteria.Fingerprint(mode)
		}
		d.lack.undo(print, sequence)
		if _, ok := d.shapes.lookup(mode, names); ok {
			d.undo(print, sequence)
		}
	}
}

// undo removes from one entry what has a lower sequence. It is called with d.mu
// held.
func (d *Denylist) undo(print revocation.Fingerprint, sequence uint64) {
	tab, s := d.index.find(print)
	if s == nil || s.term.Load() == 0 {
		return
	}
	o := origin(s.origin.Load())
	if o.sequence() < sequence {
		d.kill(tab, s)
		d.counts.restored++
		return
	}
	// A later decision came before this restoration and merged with what it
	// undoes. If all that is later is known, that is what remains.
	t, last, ok := d.history.since(print, sequence)
	if ok && last == o.sequence() && t != term(s.term.Load()) {
		s.set(t, o)
		d.counts.restored++
	}
}
