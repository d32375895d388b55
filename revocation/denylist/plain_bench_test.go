package denylist

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/dgraph-io/ristretto/v2"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// What the index is compared with: the same fingerprints in a map behind a
// sync.RWMutex, and in ristretto alone, which forgets some of them.

type plainEntry struct{ expires, _, _ uint64 } // with room for cutoff and sequence

type plain interface {
	add(revocation.Fingerprint)
	has(revocation.Fingerprint) bool
	wait() // until what was added can be found
	close()
}

type plainMap struct {
	mu sync.RWMutex
	m  map[revocation.Fingerprint]plainEntry
}

func (p *plainMap) add(f revocation.Fingerprint) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.m[f] = plainEntry{expires: 1}
}

func (p *plainMap) has(f revocation.Fingerprint) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	_, ok := p.m[f]
	return ok
}

func (*plainMap) wait()  {}
func (*plainMap) close() {}

type plainRistretto struct {
	c *ristretto.Cache[uint64, plainEntry]
}

// The first half of the fingerprint is all that ristretto keys on.
func (p plainRistretto) add(f revocation.Fingerprint) {
	key, _ := words(f)
	p.c.SetWithTTL(key, plainEntry{expires: 1}, 1, time.Hour)
}

func (p plainRistretto) has(f revocation.Fingerprint) bool {
	key, _ := words(f)
	_, ok := p.c.Get(key)
	return ok
}

func (p plainRistretto) wait()  { p.c.Wait() }
func (p plainRistretto) close() { p.c.Close() }

// plainKinds make an empty structure for n entries.
var plainKinds = []struct {
	name string
	make func(b *testing.B, n int) plain
}{
	{"map", func(*testing.B, int) plain { return &plainMap{m: make(map[revocation.Fingerprint]plainEntry)} }},
	{"ristretto", func(b *testing.B, n int) plain {
		c, err := ristretto.NewCache(&ristretto.Config[uint64, plainEntry]{
			NumCounters: int64(n) * 10, MaxCost: int64(n) * 2, BufferItems: 64, IgnoreInternalCost: true,
		})
		if err != nil {
			b.Fatal(err)
		}
		return plainRistretto{c}
	}},
}

func fillPlain(p plain, n int) {
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range n {
		p.add(randomPrint(rng))
		if i%1000 == 999 {
			p.wait()
		}
	}
}

// absent returns the five fingerprints that a cached check looks up, for each of
// a thousand tokens.
func absent() [][5]revocation.Fingerprint {
	rng := rand.New(rand.NewPCG(3, 4))
	prints := make([][5]revocation.Fingerprint, 1000)
	for i := range prints {
		for k := range prints[i] {
			prints[i][k] = randomPrint(rng)
		}
	}
	return prints
}

func lookUp(p plain, prints *[5]revocation.Fingerprint) (found bool) {
	for k := range prints {
		found = found || p.has(prints[k])
	}
	return found
}

// BenchmarkPlainCheck is the five lookups of a cached check.
func BenchmarkPlainCheck(b *testing.B) {
	for _, kind := range plainKinds {
		for _, n := range sizes(b) {
			b.Run(kind.name+"/"+sizeName(n), func(b *testing.B) {
				p := kind.make(b, n)
				defer p.close()
				fillPlain(p, n)
				prints := absent()
				runtime.GC()
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					if lookUp(p, &prints[i]) {
						b.Fatal("found")
					}
					if i++; i == len(prints) {
						i = 0
					}
				}
			})
		}
	}
}

// BenchmarkPlainHeap is BenchmarkHeapPerEntry for them.
func BenchmarkPlainHeap(b *testing.B) {
	for _, kind := range plainKinds {
		for _, n := range sizes(b)[1:] {
			b.Run(kind.name+"/"+sizeName(n), func(b *testing.B) {
				for b.Loop() {
					var p plain
					measureHeap(b, n, func() {
						p = kind.make(b, n)
						fillPlain(p, n)
					})
					p.close()
				}
			})
		}
	}
}

// BenchmarkPlainWhileInserting is BenchmarkCheckWhileInserting for them.
func BenchmarkPlainWhileInserting(b *testing.B) {
	const n = 1_000_000
	for _, kind := range plainKinds {
		b.Run(kind.name, func(b *testing.B) {
			p := kind.make(b, 10*n)
			defer p.close()
			fillPlain(p, n)
			prints := absent()
			runtime.GC()
			b.ResetTimer()
			i := 0
			whileInserting(b, func(f revocation.Fingerprint, _ int) { p.add(f) }, func() {
				lookUp(p, &prints[i])
				if i++; i == len(prints) {
					i = 0
				}
			})
		})
	}
}

// BenchmarkPlainFill adds a million entries to an empty one, which neither can
// load from a file: see BenchmarkLoadCheckpoint.
func BenchmarkPlainFill(b *testing.B) {
	for _, kind := range plainKinds {
		b.Run(kind.name, func(b *testing.B) {
			for b.Loop() {
				p := kind.make(b, 1_000_000)
				fillPlain(p, 1_000_000)
				p.close()
			}
		})
	}
}

// BenchmarkPlainReaders is BenchmarkReaders for them.
func BenchmarkPlainReaders(b *testing.B) {
	const n = 1_000_000
	for _, kind := range plainKinds {
		b.Run(kind.name, func(b *testing.B) {
			p := kind.make(b, n)
			defer p.close()
			fillPlain(p, n)
			prints := absent()
			runtime.GC()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				i := rand.IntN(len(prints))
				for pb.Next() {
					if i++; i >= len(prints) {
						i = 0
					}
					lookUp(p, &prints[i])
				}
			})
		})
	}
}
