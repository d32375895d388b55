package denylist

import (
	"fmt"
	"log/slog"
	"slices"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// decision is what the denylist needs to know of a revocation.
type decision struct {
	print    revocation.Fingerprint
	sequence uint64
	era      era
	term     term
	mode     revocation.Mode
	names    []string // sorted
	actor    string
}

// Revoke puts the decision in force. It is visible to every goroutine when
// Revoke returns. Applying the same sequence again changes nothing.
//
// If r can't be held, because there is no room or because it isn't valid, the
// denylist is incomplete until r ends; see [Denylist.Incomplete].
func (d *Denylist) Revoke(sequence uint64, r *revocation.Revocation) {
	if err := r.Validate(); err != nil {
		d.unreadable(sequence, err, r.Expires)
		return
	}
	e := decision{
		print:    r.Criteria.Fingerprint(r.Mode),
		sequence: sequence,
		term:     newTerm(r.Expires, r.Cutoff),
		mode:     r.Mode,
		names:    r.Criteria.Names(),
		actor:    actorKey(r.Actor, r.Criteria.Issuer),
	}
	d.revoke(e)
	d.tell(Change{Fingerprint: e.print, Mode: e.mode, Names: e.names, Criteria: &r.Criteria})
}

// RevokeHeld is [Denylist.Revoke] for a decision of which only the fingerprint
// is known any more: one that an edge recorded again after the ledger had lost
// it.
func (d *Denylist) RevokeHeld(sequence uint64, e *revocation.HeldEntry) {
	if err := e.Validate(); err != nil {
		d.unreadable(sequence, err, e.Expires)
		return
	}
	d.revoke(decision{
		print:    e.Fingerprint,
		sequence: sequence,
		term:     newTerm(e.Expires, e.Cutoff),
		mode:     e.Mode,
		names:    e.Names,
		actor:    actorKey(e.Actor, ""), // the issuer is not known any more
	})
	d.tell(Change{Fingerprint: e.Fingerprint, Mode: e.Mode, Names: e.Names})
}

func (d *Denylist) unreadable(sequence uint64, err error, until int64) {
	d.MarkUnreadable(sequence, fmt.Sprintf("ledger entry %d: %v", sequence, err), until)
}

func (d *Denylist) revoke(e decision) {
	if e.sequence > maxSequence {
		d.MarkIncomplete("the ledger's sequence is out of range", e.term.expires())
		return
	}
	d.mu.Lock()
	defer d.unlock()
	d.lack.readable(e.sequence)
	now := d.clock.advance(d.now())
	if over(e.term.expires(), now, false) {
		if !d.history.isUndone(e.print, e.sequence) {
			d.lack.ended(e.term.expires())
		}
		return
	}
	if _, s := d.index.find(e.print); d.index.live >= d.limits.most(&e) && (s == nil || s.term.Load() == 0) {
		d.makeRoom(now)
	}
	if d.history.isUndone(e.print, e.sequence) {
		return
	}
	e.era = d.era
	if e.sequence > d.position.Sequence {
		d.history.applied(e.print, e.sequence, e.term)
	}
	d.hold(e)
}

// hold puts an entry into the index, or says that it can't. It is called with
// d.mu held.
func (d *Denylist) hold(e decision) {
	if slices.Contains(e.names, revocation.ClaimKeyID) {
		d.keyNamed(e.term)
	}
	tab, s := d.index.find(e.print)
	if s != nil && s.term.Load() != 0 {
		d.merge(e, s)
		return
	}
	if d.index.live >= d.limits.most(&e) {
		d.counts.capHits++
		d.miss("there are more entries than max_entries", e)
		return
	}
	n, changed, ok := d.shapes.use(e.mode, e.names)
	if !ok {
		d.counts.shapeHits++
		d.miss("entries combine claims in too many ways", e)
		return
	}
	if changed {
		// Before the entry: a check that sees the entry's shape too early finds
		// nothing, one that sees it too late would find nothing as well.
		d.publishShapes()
	}
	who := d.actors.use(e.actor)
	d.shapes.add(n)
	d.shapes.lasts(n, e.term.expires())
	d.actors.add(who)
	d.index.put(e.print, tab, s, e.term, newOrigin(e.sequence, e.era, who, n))
	d.counts.inserted++
	d.lack.found(e.print, e.term)
	d.raise()
}

// most is how many entries there may be for one more to be held.
func (l *limits) most(e *decision) int {
	if e.mode == revocation.Block && namesOneToken(e.names) {
		return l.tokens // one entry for a user, client or issuer replaces many
	}
	return l.max
}

func namesOneToken(names []string) bool {
	return slices.Contains(names, revocation.ClaimTokenID) || slices.Contains(names, revocation.ClaimToken)
}

func (d *Denylist) merge(e decision, s *slot) {
	o, was := origin(s.origin.Load()), term(s.term.Load())
	t := e.term.merge(was)
	d.lack.found(e.print, t)
	sequence, era := d.joined(o, was, e)
	if t == was && sequence == o.sequence() && era == o.era() {
		return
	}
	d.shapes.lasts(o.shape(), t.expires())
	s.set(t, o.at(sequence, era))
	d.counts.merged++
}

// joined returns where an entry stands in the ledger after e has merged with it.
func (d *Denylist) joined(o origin, was term, e decision) (uint64, era) {
	switch present := d.isPresent(o.era()); {
	case e.era == eraBefore && !present:
		if o.era() != eraBefore || o.sequence() != e.sequence || was != e.term {
			return 0, eraBefore // several, none of which has the whole term
		}
		return e.sequence, eraBefore
	case e.era == eraBefore:
		return o.sequence(), d.era.mixed()
	case o.era() == d.era && e.era == d.era:
		return max(e.sequence, o.sequence()), d.era
	case present && (e.sequence <= d.before || !e.term.covers(was) || e.era != d.era):
		return max(e.sequence, o.sequence()), d.era.mixed()
	case present:
		// Recorded again, after all that could undo what was there before.
		return max(e.sequence, o.sequence()), d.era
	case !o.era().isMixed() && e.era == d.era && o.sequence() == e.sequence && was == e.term:
		// The same decision: the present history shares it with the one before.
		return e.sequence, d.era
	case e.era == d.era && e.sequence > d.before && e.term.covers(was):
		return e.sequence, d.era
	default:
		return e.sequence, d.era.mixed()
	}
}

// isPresent tells whether an entry's sequence counts in the present history.
func (d *Denylist) isPresent(e era) bool { return e == d.era || e == d.era.mixed() }

// undoneAbove returns the sequence above which a restoration undoes the whole
// entry. What is from before the present history was decided at an unknown time,
// seen from there: only a restoration from after its discovery surely came later.
func (d *Denylist) undoneAbove(o origin) uint64 {
	switch {
	case o.era() == d.era:
		return o.sequence()
	case o.era() == d.era.mixed():
		return max(o.sequence(), d.before)
	default:
		return d.before
	}
}

// miss records that an entry is not held. It is called with d.mu held.
func (d *Denylist) miss(reason string, e decision) {
	mixed := e.era != d.era
	if mixed {
		e.sequence = max(e.sequence, d.before)
	}
	if d.lack.miss(reason, &e, mixed, d.now().Unix()) {
		entries := d.index.live
		d.later(func() {
			d.logger.Error("denylist is incomplete: an entry can not be held",
				slog.String("reason", reason), slog.Int("entries", entries),
				slog.Int("max_entries", d.limits.max), slog.Int64("until", e.term.expires()))
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
	var prints [modes]revocation.Fingerprint
	for mode := range prints {
		prints[mode] = r.Criteria.Fingerprint(revocation.Mode(mode))
	}

	d.mu.Lock()
	defer d.unlock()
	d.lack.readable(sequence)
	now := d.clock.advance(d.now())
	for mode, print := range prints {
		// One that is remembered is carried out again: a checkpoint may have
		// brought it together with an entry that was copied before it came.
		sequence := d.history.undo(print, sequence, now)
		d.lack.undo(print, sequence)
		if _, ok := d.shapes.lookup(revocation.Mode(mode), names); ok {
			d.undo(print, sequence)
		}
	}
}

// modes is how many there are: a restoration is one for each.
const modes = int(revocation.AuthenticatedBefore) + 1

// undo removes from one entry what has a lower sequence. It is called with d.mu
// held.
func (d *Denylist) undo(print revocation.Fingerprint, sequence uint64) {
	tab, s := d.index.find(print)
	if s == nil || s.term.Load() == 0 {
		return
	}
	o := origin(s.origin.Load())
	if d.undoneAbove(o) < sequence {
		d.kill(tab, s)
		d.counts.restored++
		return
	}
	if !d.isPresent(o.era()) || o.era() != d.era && sequence <= d.before {
		return
	}
	if sequence <= d.position.Sequence {
		// It comes again, and what it undid is undone: later decisions that the
		// follower has passed are not remembered one by one.
		return
	}
	// A later decision came before this restoration and merged with what it
	// undoes. If all that is later is known, that is what remains.
	t, last, ok := d.history.since(print, sequence)
	if ok && last == o.sequence() && (t != term(s.term.Load()) || o.era() != d.era) {
		s.set(t, o.at(last, d.era))
		d.counts.restored++
	}
}
