package denylist

import (
	"cmp"
	"encoding/binary"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

const (
	// maxShapes bounds how many shapes can be in use at a time, and with it what
	// a check can cost. Mode and claim names count: a block by sub and a cutoff
	// by sub are two.
	maxShapes = 48
	// clientShapes is how many of them ordinary clients may bring into use.
	clientShapes = maxShapes * 3 / 4
	// idleShape is for how many seconds a shape without entries stays in use. A
	// change of the set makes each cached identity compute its fingerprints
	// again; a shape that comes and goes should not cause that all the time.
	idleShape = 600
)

// wellKnown are the claims that every identity has, if the token has them.
var wellKnown = [...]string{
	revocation.ClaimToken, revocation.ClaimTokenID, revocation.ClaimSubject,
	revocation.ClaimClientID, revocation.ClaimSessionID, revocation.ClaimKeyID,
}

// shape is what fingerprints have in common: mode and claim names.
type shape struct {
	mode  revocation.Mode
	names []string // sorted
	label string   // names, joined with commas
	// until is when the last of its entries ends, in Unix seconds, or later; zero
	// if there is none. Checks read it.
	until *atomic.Int64
}

// shapeSet is an immutable list of the shapes in use.
type shapeSet struct {
	shapes []shape
	// epoch is the lowest epoch of an identity that has every claim that the
	// shapes name.
	epoch uint64
}

// claimNames is an immutable list of the claims to extract.
type claimNames struct {
	names []string
	epoch uint64
}

// shapeTable knows the shapes by number. It belongs to the writer; readers get
// the immutable sets that changes publish.
type shapeTable struct {
	byKey map[string]int
	slots [1 << shapeBits]shapeSlot

	epoch uint64
	since map[string]uint64 // for each claim extracted, the epoch that started with it

	pinned bool // a checkpoint is being written: numbers must keep their meaning
}

type shapeSlot struct {
	shape
	inUse   bool
	key     bool  // names ClaimKeyID
	retired bool  // not in use, but its number must not be given away yet
	count   int   // entries
	idle    int64 // when count became zero, in seconds of the purge clock
}

func newShapeTable() *shapeTable {
	return &shapeTable{byKey: make(map[string]int), since: make(map[string]uint64), epoch: 1}
}

// appendShapeKey makes a key that is as free of ambiguity as a fingerprint is.
func appendShapeKey(b []byte, mode revocation.Mode, names []string) []byte {
	b = append(b, byte(mode))
	for _, name := range names {
		b = binary.AppendUvarint(b, uint64(len(name)))
		b = append(b, name...)
	}
	return b
}

// lookup returns the number of a shape in use.
func (t *shapeTable) lookup(mode revocation.Mode, names []string) (int, bool) {
	var stack [256]byte
	n, ok := t.byKey[string(appendShapeKey(stack[:0], mode, names))]
	return n, ok
}

// use returns the number of a shape, which it brings into use if necessary.
// changed tells that the sets must be published again. ok is false if too many
// other shapes are in use.
func (t *shapeTable) use(mode revocation.Mode, names []string) (n int, changed, ok bool) {
	if n, ok = t.lookup(mode, names); ok {
		return n, false, true
	}
	if len(t.byKey) >= maxShapes && !t.dropIdle() {
		return 0, false, false
	}
	n = slices.IndexFunc(t.slots[:], func(s shapeSlot) bool { return !s.inUse && !s.retired })
	if n < 0 {
		return 0, false, false
	}
	t.byKey[string(appendShapeKey(nil, mode, names))] = n
	t.slots[n] = shapeSlot{inUse: true, key: slices.Contains(names, revocation.ClaimKeyID), shape: shape{
		mode:  mode,
		names: slices.Clone(names),
		label: strings.Join(names, ","),
		until: new(atomic.Int64),
	}}
	started := false
	for _, name := range names {
		if slices.Contains(wellKnown[:], name) {
			continue
		}
		if _, extracted := t.since[name]; extracted {
			continue
		}
		if !started {
			t.epoch++
			started = true
		}
		t.since[strings.Clone(name)] = t.epoch
	}
	return n, true, true
}

// namesKeys tells whether there are entries that name signing keys.
func (t *shapeTable) namesKeys() bool {
	return slices.ContainsFunc(t.slots[:], func(s shapeSlot) bool { return s.key && s.count > 0 })
}

// busy counts the shapes that have entries.
func (t *shapeTable) busy() (n int) {
	for i := range t.slots {
		if t.slots[i].count > 0 {
			n++
		}
	}
	return n
}

// dropIdle makes room by dropping a shape that has no entries.
func (t *shapeTable) dropIdle() bool {
	for n := range t.slots {
		if s := &t.slots[n]; s.inUse && s.count == 0 {
			t.drop(n)
			return true
		}
	}
	return false
}

// expire drops the shapes that have had no entries for a while.
func (t *shapeTable) expire(now int64) (changed bool) {
	for n := range t.slots {
		if s := &t.slots[n]; s.inUse && s.count == 0 && now-s.idle >= idleShape {
			t.drop(n)
			changed = true
		}
	}
	return changed
}

func (t *shapeTable) drop(n int) {
	names := t.slots[n].names
	delete(t.byKey, string(appendShapeKey(nil, t.slots[n].mode, names)))
	t.slots[n] = shapeSlot{shape: t.slots[n].shape, retired: t.pinned}
	// Claims that no shape names any more need not be extracted. That starts no
	// epoch: an identity with more claims than needed is a good one.
	for _, name := range names {
		if !slices.ContainsFunc(t.slots[:], func(s shapeSlot) bool {
			return s.inUse && slices.Contains(s.names, name)
		}) {
			delete(t.since, name)
		}
	}
}

// pin keeps the meaning of all numbers until unpin.
func (t *shapeTable) pin() { t.pinned = true }

func (t *shapeTable) unpin() {
	t.pinned = false
	for n := range t.slots {
		t.slots[n].retired = false
	}
}

func (t *shapeTable) add(n int) { t.slots[n].count++ }

// lasts records the end of an entry, before checks can find that.
func (t *shapeTable) lasts(n int, expires int64) {
	if until := t.slots[n].until; expires > until.Load() {
		until.Store(expires)
	}
}

func (t *shapeTable) remove(n int, now int64) {
	s := &t.slots[n]
	if s.count--; s.count == 0 {
		s.idle = now
		s.until.Store(0)
	}
}

// sets returns what readers need to know.
func (t *shapeTable) sets() (*shapeSet, *claimNames) {
	set := &shapeSet{epoch: 1}
	for n := range t.slots {
		if s := &t.slots[n]; s.inUse {
			set.shapes = append(set.shapes, s.shape)
		}
	}
	slices.SortFunc(set.shapes, func(a, b shape) int {
		return cmp.Or(cmp.Compare(len(a.names), len(b.names)), cmp.Compare(a.label, b.label), cmp.Compare(a.mode, b.mode))
	})
	for _, since := range t.since {
		set.epoch = max(set.epoch, since)
	}
	return set, &claimNames{names: slices.Sorted(maps.Keys(t.since)), epoch: t.epoch}
}

// publish makes a change of the shapes known. The claims come first: who sees
// the new shapes finds an epoch that has their claims.
func (d *Denylist) publishShapes() {
	set, names := d.shapes.sets()
	d.claims.Store(names)
	d.inUse.Store(set)
}

// ClaimNames returns the claims that criteria in use name beyond those that
// every identity has (jti, sub, client_id, sid, kid, token), sorted, and the
// epoch of this list. The slice must not be changed.
//
// An identity has an epoch: the one that ClaimNames returned before the token
// was read. A criteria that names a claim never extracted before starts another,
// because identities of the old one may lack the claim.
func (d *Denylist) ClaimNames() (names []string, epoch uint64) {
	c := d.claims.Load()
	return c.names, c.epoch
}

// NamesKeys tells whether a revocation in force names a signing key. Whether it
// names a token that was read but not verified is then unknown, since its key is:
// a caller that lets such tokens through asks, and treats the answer true as it
// treats [Denylist.Incomplete]. It takes no lock.
func (d *Denylist) NamesKeys(now time.Time) bool {
	until := d.keysUntil.Load()
	return until != 0 && (now.Unix() <= until || d.steady.unix(now) <= until)
}

// keyNamed records that an entry names a signing key. It is called with d.mu held.
func (d *Denylist) keyNamed(t term) {
	d.keysUntil.Store(max(d.keysUntil.Load(), t.expires()))
}
