package denylist

import (
	"fmt"
	"hash/maphash"
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/dgraph-io/ristretto/v2"
)

const (
	// recordOverhead is what a record costs besides itself: ristretto's two
	// maps and frequency counters, and their slack.
	recordOverhead = 190
	// bytesPerCounter makes about ten counters per record, below which TinyLFU
	// protects nothing. Counters take three bytes each.
	bytesPerCounter = 96
	// maxShare is the part of the cache that one record may take, and minRecord
	// what it may take of the smallest cache: else that would hold no JWT at all.
	maxShare  = 64
	minRecord = 4 << 10

	stripes = 64
)

// cache remembers tokens seen, in ristretto: lossy, bounded in bytes, and with
// an admission policy that a flood of tokens presented once does not wash out.
//
// ristretto panics when Get or Set meet Close. The cache therefore counts who
// is inside, in stripes so that the counting itself is no meeting point, and
// closes ristretto when it is closed and nobody is inside any more. The counts
// of those who left are the statistics at the same time.
type cache struct {
	seed   maphash.Seed
	store  *ristretto.Cache[uint64, *Seen]
	closed atomic.Bool
	// generation is part of each record: Forget starts another, and with it no
	// record made before is found.
	generation atomic.Uint64
	maxRecord  int64

	stripes [stripes]stripe

	rejected atomic.Uint64 // by the admission policy
	evicted  atomic.Uint64
	clearing atomic.Bool
	admin    sync.Mutex // held by Forget and Close
}

// stripe has a cache line for itself, and the one that is prefetched with it.
type stripe struct {
	entered atomic.Uint64
	hits    atomic.Uint64
	misses  atomic.Uint64
	sets    atomic.Uint64
	dropped atomic.Uint64 // sets that ristretto's buffer had no room for
	_       [88]byte
}

func (s *stripe) left() uint64 {
	return s.hits.Load() + s.misses.Load() + s.sets.Load() + s.dropped.Load()
}

func newCache(maxBytes int64) (*cache, error) {
	c := &cache{seed: maphash.MakeSeed(), maxRecord: max(maxBytes/maxShare, minRecord)}
	store, err := ristretto.NewCache(&ristretto.Config[uint64, *Seen]{
		NumCounters:        maxBytes / bytesPerCounter,
		MaxCost:            maxBytes,
		BufferItems:        64,
		IgnoreInternalCost: true, // it would count 56 of the bytes that recordOverhead counts
		// The key is a hash already. There is no second one to compare: on a
		// hit the whole token is.
		KeyToHash: func(key uint64) (uint64, uint64) { return key, 0 },
		OnReject:  func(*ristretto.Item[*Seen]) { c.rejected.Add(1) },
		OnEvict: func(*ristretto.Item[*Seen]) {
			if !c.clearing.Load() {
				c.evicted.Add(1)
			}
		},
	})
	if err != nil {
		return nil, fmt.Errorf("creating the identity cache: %w", err)
	}
	c.store = store
	return c, nil
}

const (
	// hashWhole is the length up to which all of a token is hashed.
	hashWhole = 128
	// Of a longer one, this much at its end, which is a JWT's signature, and in
	// its middle and at its beginning, which is where other tokens may differ.
	hashEnd  = 64
	hashPart = 32
)

// key depends on the scope too, so that two routes that trust differently do
// not push each other's records out.
//
// Of a long token only parts are hashed, which is enough to tell tokens apart:
// a hit compares all of it. Who finds two tokens with equal parts makes one
// record replace the other.
func (c *cache) key(token string, scope uint64) uint64 {
	h := scope * 0x9e3779b97f4a7c15
	if n := len(token); n > hashWhole {
		inner := token[(n-hashPart)/2:]
		h ^= bits.RotateLeft64(maphash.String(c.seed, token[:hashPart]), 47)
		h ^= bits.RotateLeft64(maphash.String(c.seed, inner[:hashPart]), 23) ^ uint64(n)
		token = token[n-hashEnd:]
	}
	return h ^ maphash.String(c.seed, token)
}

// enter returns the stripe in which the caller counts until it leaves, nil if
// the cache is closed.
func (c *cache) enter() *stripe {
	if c.closed.Load() {
		return nil
	}
	// Goroutines that run at the same time have different stacks, and one
	// goroutine keeps its own: mostly, nobody else's processor has this line.
	var here byte
	address := uint64(uintptr(unsafe.Pointer(&here))) //nolint:gosec // only the number is used, to spread goroutines
	h := address >> 11 * 0x9e3779b97f4a7c15
	s := &c.stripes[h>>58]
	s.entered.Add(1)
	// Only now is the answer one that close waits for.
	if c.closed.Load() {
		s.misses.Add(1)
		return nil
	}
	return s
}

func (c *cache) get(token string, scope uint64) *Seen {
	s := c.enter()
	if s == nil {
		return nil
	}
	r, ok := c.store.Get(c.key(token, scope))
	if !ok || r.scope != scope || r.generation != c.generation.Load() || r.token != token {
		s.misses.Add(1)
		return nil
	}
	s.hits.Add(1)
	return r
}

func (c *cache) set(r *Seen) {
	cost := r.cost()
	if cost > c.maxRecord {
		return
	}
	s := c.enter()
	if s == nil {
		return
	}
	if c.store.Set(c.key(r.token, r.scope), r, cost) {
		s.sets.Add(1)
	} else {
		s.dropped.Add(1)
	}
}

// forget drops all records. They are not found any more when it returns.
func (c *cache) forget() {
	c.generation.Add(1)
	c.admin.Lock()
	defer c.admin.Unlock()
	if c.closed.Load() {
		return
	}
	c.clearing.Store(true)
	c.store.Clear()
	c.clearing.Store(false)
}

// close ends ristretto's goroutines and waits for them.
func (c *cache) close() {
	c.admin.Lock()
	defer c.admin.Unlock()
	if c.closed.Swap(true) {
		return
	}
	c.quiesce()
	c.clearing.Store(true)
	c.store.Close()
}

// quiesce returns when nobody is inside. Nobody enters any more, except those
// who turn back at once.
func (c *cache) quiesce() {
	for i := range c.stripes {
		s := &c.stripes[i]
		for {
			// Those who left first: if as many have entered later on, then
			// nobody was inside in between.
			left := s.left()
			if s.entered.Load() == left {
				break
			}
			runtime.Gosched()
		}
	}
}

// bytes returns what the records cost.
func (c *cache) bytes() int64 {
	c.admin.Lock()
	defer c.admin.Unlock()
	if c.closed.Load() {
		return 0
	}
	return c.store.MaxCost() - c.store.RemainingCost()
}

// counts adds up the statistics.
func (c *cache) counts(s *Stats) {
	for i := range c.stripes {
		st := &c.stripes[i]
		s.CacheHits += st.hits.Load()
		s.CacheMisses += st.misses.Load()
		s.CacheDrops += st.dropped.Load()
	}
	s.CacheDrops += c.rejected.Load()
	s.CacheEvictions = c.evicted.Load()
	s.CacheBytes = c.bytes()
}
