package denylist

import (
	"crypto/rand"
	"encoding/binary"
	"math/bits"
	"sync/atomic"
	"unsafe"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

const (
	shardCount = 256
	groupSlots = 8 // one byte of tag each, so that a word holds a group's tags

	slotBytes  = int64(unsafe.Sizeof(slot{}))
	tableBytes = int64(unsafe.Sizeof(table{}))

	lowBits  = 0x0101010101010101
	highBits = 0x8080808080808080
)

// index maps fingerprints to entries. Any number of goroutines may call get;
// every other method needs the caller's exclusive lock.
//
// It is 256 open-addressing tables. Each grows by itself, by a third at a time,
// so that growing needs memory for one small table and not for a second index.
// Nothing in a table's big arrays is a pointer: the garbage collector does not
// look into them.
//
// Reads are wait-free and need neither a version to compare nor a retry,
// because a slot that was given to a fingerprint is never given to another one:
// its tag is published after its fingerprint, both are constant from then on,
// and what changes (cutoff and end) is a single word. A removed entry leaves a
// dead slot behind, which goes when the table is rebuilt; a reader still in the
// old table sees a state that was true after its lookup began.
type index struct {
	key    [2]uint64 // random: nobody outside can choose which slots collide
	shards [shardCount]atomic.Pointer[table]
	empty  *table // what shards without entries have in common

	live  int   // entries in all shards
	slots int   // slots in all shards
	bytes int64 // of all tables
}

// table is one shard.
type table struct {
	groups uint64
	tags   []atomic.Uint64 // groups words of eight tags; zero is an empty slot
	slots  []slot          // groups*groupSlots

	// For the writer only.
	used int // slots taken, dead ones included
	live int
}

// slot is half a cache line.
type slot struct {
	a, b uint64 // the fingerprint; constant once its tag is published
	// term holds the end and the cutoff; zero means that the slot is dead.
	term atomic.Uint64
	// origin holds sequence, actor and shape. It is written before term and read
	// after it, so that a reader sees a sequence at least as high as term's.
	origin atomic.Uint64
}

func newIndex() *index {
	x := new(index)
	var seed [16]byte
	_, _ = rand.Read(seed[:]) // never fails (crypto/rand)
	x.key[0] = binary.LittleEndian.Uint64(seed[:8])
	x.key[1] = binary.LittleEndian.Uint64(seed[8:])
	x.empty = newTable(1)
	x.empty.used = limit(1) // so that the first insert replaces it
	for i := range x.shards {
		x.shards[i].Store(x.empty)
	}
	return x
}

func newTable(groups uint64) *table {
	return &table{
		groups: groups,
		tags:   make([]atomic.Uint64, groups),
		slots:  make([]slot, groups*groupSlots),
	}
}

// limit is how many slots of a table may be taken. At least one stays empty, at
// which every probe ends.
func limit(groups uint64) int { return int(groups) * groupSlots * 7 / 8 }

// groupsFor returns the size of a table that is to hold n entries for a while:
// two thirds full, which costs 49.5 bytes an entry, and 38 when it is rebuilt.
func groupsFor(n int) uint64 {
	slots := n + n/2 + 1
	// The allocator hands out whole pages: use them.
	unit := groupSlots
	if slots >= 1024 {
		unit = 8192 / int(slotBytes)
	}
	slots = (slots + unit - 1) / unit * unit
	return uint64(slots / groupSlots)
}

func (t *table) bytes() int64 {
	return tableBytes + int64(len(t.slots))*slotBytes + int64(len(t.tags))*8
}

func words(f revocation.Fingerprint) (a, b uint64) {
	return binary.LittleEndian.Uint64(f[:8]), binary.LittleEndian.Uint64(f[8:])
}

// hash spreads a fingerprint. SHA-256 already did that, but everybody can
// compute it, and so choose claim values that meet in one place.
func (x *index) hash(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^x.key[0], b^x.key[1])
	return hi ^ lo
}

func (t *table) start(h uint64) uint64 {
	g, _ := bits.Mul64(h, t.groups) // h's top bits, scaled to the table
	return g
}

func tagOf(h uint64) uint64 { return h>>8&0x7f | 0x80 }

// matches returns a word in which the top bit of each byte tells whether the
// tag in that byte may be the wanted one. Bytes above a match can be wrong by
// one bit, hence "may"; an empty slot never matches.
func matches(tags, tag uint64) uint64 {
	d := tags ^ tag*lowBits
	return (d - lowBits) &^ d & highBits
}

// get returns term and origin of the entry for f, and zero if there is none.
func (x *index) get(f revocation.Fingerprint) (t term, o origin) {
	a, b := words(f)
	h := x.hash(a, b)
	tab := x.shards[h%shardCount].Load()
	tag := tagOf(h)
	for g := tab.start(h); ; {
		tags := tab.tags[g].Load()
		for m := matches(tags, tag); m != 0; m &= m - 1 {
			s := &tab.slots[g*groupSlots+uint64(bits.TrailingZeros64(m))/8]
			if s.a == a && s.b == b {
				t = term(s.term.Load())
				return t, origin(s.origin.Load())
			}
		}
		if ^tags&highBits != 0 {
			return 0, 0
		}
		if g++; g == tab.groups {
			g = 0
		}
	}
}

// find returns the slot of f, dead or alive, and its table; nil if f has none.
func (x *index) find(f revocation.Fingerprint) (*table, *slot) {
	a, b := words(f)
	h := x.hash(a, b)
	tab := x.shards[h%shardCount].Load()
	tag := tagOf(h)
	for g := tab.start(h); ; {
		tags := tab.tags[g].Load()
		for m := matches(tags, tag); m != 0; m &= m - 1 {
			s := &tab.slots[g*groupSlots+uint64(bits.TrailingZeros64(m))/8]
			if s.a == a && s.b == b {
				return tab, s
			}
		}
		if ^tags&highBits != 0 {
			return tab, nil
		}
		if g++; g == tab.groups {
			g = 0
		}
	}
}

// put stores an entry for f, for which find has just returned tab and s. The
// entry is new, or s is dead.
func (x *index) put(f revocation.Fingerprint, tab *table, s *slot, t term, o origin) {
	x.live++
	if s != nil {
		tab.live++
		s.origin.Store(uint64(o))
		s.term.Store(uint64(t))
		return
	}
	a, b := words(f)
	h := x.hash(a, b)
	if tab.used+1 > limit(tab.groups) {
		tab = x.rebuild(int(h%shardCount), tab.live+1)
	}
	tab.insert(h, a, b, t, o)
}

func (t *table) insert(h, a, b uint64, tm term, o origin) {
	for g := t.start(h); ; {
		tags := t.tags[g].Load()
		if empty := ^tags & highBits; empty != 0 {
			i := bits.TrailingZeros64(empty) / 8
			s := &t.slots[g*groupSlots+uint64(i)]
			s.a, s.b = a, b
			s.origin.Store(uint64(o))
			s.term.Store(uint64(tm))
			t.used++
			t.live++
			t.tags[g].Store(tags | tagOf(h)<<(8*i)) // publishes the slot
			return
		}
		if g++; g == t.groups {
			g = 0
		}
	}
}

// set changes a live entry. What a reader sees is the old one or the new one.
func (s *slot) set(t term, o origin) {
	s.origin.Store(uint64(o))
	s.term.Store(uint64(t))
}

// kill removes a live entry.
func (x *index) kill(tab *table, s *slot) {
	s.term.Store(0)
	tab.live--
	x.live--
}

// rebuild replaces a shard by one without dead slots that has room for n entries.
func (x *index) rebuild(shard, n int) *table {
	old := x.shards[shard].Load()
	next := newTable(groupsFor(max(n, old.live)))
	old.each(0, len(old.slots), func(_ *table, s *slot) {
		next.insert(x.hash(s.a, s.b), s.a, s.b, term(s.term.Load()), origin(s.origin.Load()))
	})
	if old != x.empty {
		x.bytes -= old.bytes()
		x.slots -= len(old.slots)
	}
	x.bytes += next.bytes()
	x.slots += len(next.slots)
	x.shards[shard].Store(next)
	return next
}

// reserve makes room for n more entries, spread as hashes are.
func (x *index) reserve(n int) {
	each := n/shardCount + n/shardCount/16 + 1
	for i := range x.shards {
		if t := x.shards[i].Load(); t.used+each > limit(t.groups) {
			x.rebuild(i, t.live+each)
		}
	}
}

// tidy rebuilds a shard that is mostly empty or dead, so that memory follows the
// number of entries down as well.
func (x *index) tidy(shard int) {
	t := x.shards[shard].Load()
	if t == x.empty {
		return
	}
	if want := groupsFor(t.live); want < t.groups*5/8 {
		x.rebuild(shard, t.live)
	}
}

// each calls f for the live entries among the slots from the first to before
// the last index. f may kill the entry it is given.
func (t *table) each(from, to int, f func(*table, *slot)) {
	for i := from; i < min(to, len(t.slots)); i++ {
		s := &t.slots[i]
		if s.term.Load() != 0 {
			f(t, s)
		}
	}
}

func (s *slot) fingerprint() (f revocation.Fingerprint) {
	binary.LittleEndian.PutUint64(f[:8], s.a)
	binary.LittleEndian.PutUint64(f[8:], s.b)
	return f
}
