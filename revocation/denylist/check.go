package denylist

import (
	"slices"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// maxLookups bounds what one token can cost: an array claim multiplies the
// lookups of each shape that names it.
const maxLookups = 64

// Decision is the denylist's answer for one token.
type Decision struct {
	// Denied is true if the token must be refused, for whatever reason.
	Denied bool
	// Sequence is the ledger's sequence of the entry that denies it.
	Sequence uint64
	// Mode is that entry's.
	Mode revocation.Mode
	// Shape is the claim names of that entry's criteria, for instance "jti" or
	// "client_id,sub"; empty for a whole issuer.
	Shape string
	// Overflow is true if the token is refused unseen, because its array claims
	// would take more than 64 lookups.
	Overflow bool
	// Stale is true if the identity was made before a criteria in use named a
	// claim that it may lack, so that the answer is not known. Denied is true as
	// well; the caller reads the token again with the present [Denylist.ClaimNames].
	Stale bool
}

// Check asks the index about an identity that is not in the cache. The caller
// makes sure that id has the claims that [Denylist.ClaimNames] returns.
//
// It takes no lock, and allocates only if issuer and values are long.
func (d *Denylist) Check(id *revocation.Identity) Decision {
	set := d.inUse.Load()
	var p prints
	p.compute(set, id)
	return d.judge(&p, id)
}

// CheckSeen asks the index about a token that [Denylist.Lookup] or
// [Denylist.Remember] returned. It takes no lock and allocates only after the
// shapes in use have changed.
func (d *Denylist) CheckSeen(s *Seen) Decision {
	set := d.inUse.Load()
	if s.epoch < set.epoch {
		return Decision{Denied: true, Stale: true}
	}
	p := s.prints.Load()
	if p.set != set {
		p = d.recompute(s, set)
	}
	return d.judge(p, s.identity)
}

// recompute makes the fingerprints of a token for a set of shapes that is not the
// one it was remembered with.
func (d *Denylist) recompute(s *Seen, set *shapeSet) *prints {
	p := new(prints)
	p.compute(set, s.identity)
	was := s.prints.Swap(p)
	if exp := s.identity.Expiry; cap(p.more) > cap(was.more) && (exp == 0 || d.wall.unix() < exp) {
		d.cache.set(s) // it costs more now
	}
	return p
}

// judge looks every fingerprint up. The clock is read only if one is found.
func (d *Denylist) judge(p *prints, id *revocation.Identity) Decision {
	if p.overflow {
		return d.judgeLive(p.set, id)
	}
	for i := range p.inline() {
		if t, o := d.index.get(p.first[i]); t != 0 {
			if dec, denied := d.decide(t, o, p.set.shapes[p.firstShape[i]], id); denied {
				return dec
			}
		}
	}
	for i := range p.more {
		m := &p.more[i]
		if t, o := d.index.get(m.print); t != 0 {
			if dec, denied := d.decide(t, o, p.set.shapes[m.shape], id); denied {
				return dec
			}
		}
	}
	return Decision{}
}

// judgeLive judges an identity that would take too many lookups, by those shapes
// only whose entries have not all ended: what is left of the others is looked for
// in vain, and must not have a token refused.
func (d *Denylist) judgeLive(set *shapeSet, id *revocation.Identity) Decision {
	now := d.steady.unix(d.now())
	ended := func(s shape) bool { return now > s.until.Load() }
	if !slices.ContainsFunc(set.shapes, ended) {
		return Decision{Denied: true, Overflow: true}
	}
	live := &shapeSet{shapes: slices.DeleteFunc(slices.Clone(set.shapes), ended), epoch: set.epoch}
	var p prints
	if p.compute(live, id); p.overflow {
		return Decision{Denied: true, Overflow: true}
	}
	return d.judge(&p, id)
}

func (d *Denylist) decide(t term, o origin, s shape, id *revocation.Identity) (Decision, bool) {
	if !t.denies(s.mode, id, d.steady.unix(d.now())) {
		return Decision{}, false
	}
	return Decision{Denied: true, Sequence: o.sequence(), Mode: s.mode, Shape: s.label}, true
}
