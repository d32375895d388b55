package denylist

import (
	"fmt"
	"slices"

	"pgregory.net/rapid"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// event is one entry of the model's ledger.
type event struct {
	revoke  *revocation.Revocation
	restore *revocation.Restoration
	held    bool // a revocation of which only the fingerprint is recorded
}

func (e *event) criteria() revocation.Criteria {
	if e.revoke != nil {
		return e.revoke.Criteria
	}
	return e.restore.Criteria
}

func (e *event) apply(d *Denylist, sequence uint64) {
	switch {
	case e.restore != nil:
		d.Restore(sequence, e.restore)
	case e.held:
		r := e.revoke
		d.RevokeHeld(sequence, &revocation.HeldEntry{
			Fingerprint: r.Criteria.Fingerprint(r.Mode), Mode: r.Mode, Names: r.Criteria.Names(),
			Cutoff: r.Cutoff, Expires: r.Expires, Actor: r.Actor,
		})
	default:
		d.Revoke(sequence, e.revoke)
	}
}

// model is the naive denylist: all that was applied, by hand and by history. It
// is slow and obviously right.
type model struct {
	gen     int    // of the present history
	before  uint64 // what that had when it was found
	applied []*applied
}

// applied is an event at a place in a history. What it says once that history is
// over was fixed then.
type applied struct {
	*event
	sequence  uint64
	gen       int
	must, may bool
	// revived is set if a checkpoint was loaded after it was undone: it may have
	// come back.
	revived bool
}

func (m *model) clone() *model {
	c := *m
	c.applied = nil
	for _, a := range m.applied {
		copied := *a
		c.applied = append(c.applied, &copied)
	}
	return &c
}

func (m *model) apply(e *event, sequence uint64) {
	if e.restore != nil {
		for _, a := range m.applied {
			if same(a.event, e) && m.threshold(a) < sequence {
				a.revived = false
			}
		}
	}
	for _, a := range m.applied {
		if a.event == e && a.gen == m.gen && a.sequence == sequence {
			return
		}
	}
	m.applied = append(m.applied, &applied{event: e, sequence: sequence, gen: m.gen, must: true, may: true})
}

func same(a, b *event) bool { return a.criteria().String() == b.criteria().String() }

func (m *model) threshold(a *applied) uint64 {
	if a.gen == m.gen {
		return a.sequence
	}
	return m.before
}

func (m *model) restoredAbove(e *event, sequence uint64) bool {
	for _, a := range m.applied {
		if a.restore != nil && a.gen == m.gen && a.sequence > sequence && same(a.event, e) {
			return true
		}
	}
	return false
}

// state returns whether a revocation surely counts, and whether it may.
func (m *model) state(a *applied) (must, may bool) {
	if a.revoke == nil {
		return false, false
	}
	undone := m.restoredAbove(a.event, m.threshold(a))
	switch {
	case a.gen == m.gen && !undone:
		return true, true
	case a.gen == m.gen && m.restoredAbove(a.event, max(a.sequence, m.before)):
		return false, a.revived
	case a.gen == m.gen:
		// Undone, by a restoration that leaves what is from before: where both
		// have merged, they stay.
		for _, b := range m.applied {
			if b.gen < m.gen && b.may && b.revoke != nil && b.revoke.Mode == a.revoke.Mode && same(a.event, b.event) {
				return false, true
			}
		}
		return false, a.revived
	case undone:
		return false, a.revived && a.may
	}
	for _, b := range m.applied {
		if b.event == a.event && b.gen == m.gen {
			return false, a.may // the present history shares it, and says more
		}
	}
	return a.must, a.may
}

// turn makes another history the present one.
func (m *model) turn(gen int, last uint64) {
	m.freeze(true)
	m.gen, m.before = gen, last
}

// freeze fixes what is known of the histories that are over.
func (m *model) freeze(present bool) {
	type verdict struct{ must, may bool }
	verdicts := make([]verdict, len(m.applied))
	for i, a := range m.applied {
		verdicts[i].must, verdicts[i].may = m.state(a)
	}
	kept := m.applied[:0]
	for i, a := range m.applied {
		if a.gen < m.gen || present {
			if a.restore != nil || !verdicts[i].may {
				continue
			}
			a.must, a.may = verdicts[i].must, verdicts[i].may
		}
		kept = append(kept, a)
	}
	m.applied = kept
}

func matches1(c revocation.Criteria, id *revocation.Identity) bool {
	if c.Issuer != id.Issuer && !slices.Contains(id.Aliases, c.Issuer) {
		return false
	}
	for name, value := range c.Claims {
		found := false
		for _, claim := range id.Claims {
			found = found || claim.Name == name && claim.Value == value
		}
		if !found {
			return false
		}
	}
	return true
}

func denies1(r *revocation.Revocation, id *revocation.Identity, now int64) bool {
	if now > r.Expires {
		return false
	}
	switch r.Mode {
	case revocation.IssuedBefore:
		return id.IssuedAt == 0 || id.IssuedAt <= r.Cutoff
	case revocation.AuthenticatedBefore:
		return id.AuthTime == 0 || id.AuthTime <= r.Cutoff
	}
	return true
}

// verdict returns whether the identity must be denied, at the latest time that
// it may be, and whether it may be, at the earliest: decisions on the same
// criteria merge, so that the longer one may lend its end to the one with the
// later cutoff.
func (m *model) verdict(id *revocation.Identity, latest, earliest int64) (must *revocation.Revocation, may bool) {
	together := map[string]*revocation.Revocation{}
	for _, a := range m.applied {
		if a.revoke == nil || !matches1(a.revoke.Criteria, id) {
			continue
		}
		surely, maybe := m.state(a)
		if surely && denies1(a.revoke, id, latest) && (must == nil || must.Expires < a.revoke.Expires) {
			must = a.revoke
		}
		if !maybe {
			continue
		}
		key := fmt.Sprint(a.revoke.Mode, a.revoke.Criteria)
		merged := *a.revoke
		if was := together[key]; was != nil {
			merged.Cutoff = max(merged.Cutoff, was.Cutoff)
			merged.Expires = max(merged.Expires, was.Expires)
		}
		together[key] = &merged
	}
	for _, r := range together {
		may = may || denies1(r, id, earliest)
	}
	return must, may
}

var (
	someNames  = []string{"jti", "sub", "client_id", "tenant", "role"}
	someValues = []string{"a", "b", "c"}

	otherIssuer = "https://other.example"
	aliasIssuer = "https://alias.example"
)

func drawCriteria(t *rapid.T) revocation.Criteria {
	c := criteria()
	for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom(someNames), 0, 2, rapid.ID[string]).Draw(t, "names") {
		c.Claims[name] = rapid.SampledFrom(someValues).Draw(t, "value")
	}
	switch rapid.IntRange(0, 9).Draw(t, "issuer") {
	case 0:
		c.Issuer = otherIssuer
	case 1, 2:
		c.Issuer = aliasIssuer
	}
	return c
}

func drawIdentity(t *rapid.T, now int64) *revocation.Identity {
	id := identity()
	switch rapid.IntRange(0, 9).Draw(t, "issuer") {
	case 0:
		id.Issuer = otherIssuer
	case 1, 2, 3:
		id.Aliases = []string{aliasIssuer}
	case 4:
		id.Aliases = []string{"https://unused.example", aliasIssuer}
	}
	for _, name := range someNames {
		// Up to two values: array claims.
		for _, v := range rapid.SliceOfNDistinct(rapid.SampledFrom(someValues), 0, 2, rapid.ID[string]).Draw(t, name) {
			id.Claims = append(id.Claims, revocation.Claim{Name: name, Value: v})
		}
	}
	revocation.SortClaims(id.Claims)
	moments := rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(now-7200, now+60))
	id.IssuedAt = moments.Draw(t, "iat")
	id.AuthTime = moments.Draw(t, "auth_time")
	return id
}

func drawEvent(t *rapid.T, now int64) *event {
	c := drawCriteria(t)
	if rapid.IntRange(0, 3).Draw(t, "restore") == 0 {
		return &event{restore: &revocation.Restoration{ID: "x", Criteria: c, Expires: now + 1<<20}}
	}
	r := &revocation.Revocation{
		ID: "x", Criteria: c, Actor: rapid.SampledFrom([]string{"", "operator", "client:a"}).Draw(t, "actor"),
		Mode:    rapid.SampledFrom([]revocation.Mode{revocation.Block, revocation.IssuedBefore, revocation.AuthenticatedBefore}).Draw(t, "mode"),
		Expires: now + rapid.Int64Range(-100, 3*3600).Draw(t, "end"),
	}
	if r.Mode != revocation.Block {
		r.Cutoff = now + rapid.Int64Range(-7200, 60).Draw(t, "cutoff")
	}
	return &event{revoke: r, held: rapid.IntRange(0, 3).Draw(t, "held") == 0}
}
