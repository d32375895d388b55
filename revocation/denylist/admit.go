package denylist

import (
	"fmt"
	"log/slog"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// Admit tells whether there is room for a decision, before it is recorded in
// the ledger. The error wraps [revocation.ErrFull]. Nothing is stored.
//
// A decision on criteria that has an entry already needs no room. Otherwise,
// cutoffs and decisions that name more than one token are admitted as long as any
// room is left, since one of them replaces many entries. Revocations of single
// tokens are refused from 90 % of the maximum on, an operator's from 95 % on. Any
// actor that is no operator is refused beyond its quota. Entries of which only the
// fingerprint is known ([Denylist.RevokeHeld]) count for every actor of that name,
// whatever the issuer.
func (d *Denylist) Admit(r *revocation.Revocation, operator bool) error {
	print := r.Criteria.Fingerprint(r.Mode)
	names := r.Criteria.Names()

	d.mu.Lock()
	defer d.unlock()
	if _, s := d.index.find(print); s != nil && s.term.Load() != 0 {
		return nil
	}
	most := d.limits.max
	if r.Mode == revocation.Block && r.Criteria.NamesOneToken() {
		most = d.limits.tokens
		if !operator {
			most = d.limits.clients
		}
	}
	if d.index.live >= most {
		if d.makeRoom(d.clock.advance(d.now())); d.index.live >= most {
			return fmt.Errorf("%w: the denylist has %d entries of at most %d", revocation.ErrFull, d.index.live, d.limits.max)
		}
	}
	if q := d.limits.quota; !operator && q >= 0 && d.actors.countOf(r.Actor, r.Criteria.Issuer) >= q {
		return fmt.Errorf("%w: the actor has the most entries that one may have, %d", revocation.ErrFull, q)
	}
	if _, ok := d.shapes.lookup(r.Mode, names); !ok {
		most := maxShapes
		if !operator {
			most = clientShapes
		}
		if d.shapes.busy() >= most {
			return fmt.Errorf("%w: entries combine claims in too many ways", revocation.ErrFull)
		}
	}
	return nil
}

// Room returns for how many decisions on criteria of their own there is room,
// whoever makes them: it counts entries up to where clients are refused. A quota
// may be used up before, and so may the ways to combine claims.
func (d *Denylist) Room() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return max(d.limits.clients-d.index.live, 0)
}

// raise gives the alarm once when the denylist fills up. It is called with d.mu
// held.
func (d *Denylist) raise() {
	if d.alarmed || d.index.live < d.limits.alarm {
		return
	}
	d.alarmed = true
	entries := d.index.live
	d.later(func() {
		d.logger.Warn("denylist is filling up",
			slog.Int("entries", entries), slog.Int("max_entries", d.limits.max))
		if d.limits.onAlarm != nil {
			d.limits.onAlarm(entries, d.limits.max)
		}
	})
}

// rearm makes the next alarm possible after entries went. It is called with
// d.mu held.
func (d *Denylist) rearm() {
	if d.index.live < d.limits.rearm {
		d.alarmed = false
	}
}

// later has f called once d.mu is released: neither a log handler nor a caller's
// function may hold up the denylist. It is called with d.mu held.
func (d *Denylist) later(f func()) { d.pending = append(d.pending, f) }

// unlock releases d.mu, then does what [Denylist.later] was told.
func (d *Denylist) unlock() {
	pending := d.pending
	d.pending = nil
	d.mu.Unlock()
	for _, f := range pending {
		f()
	}
}
