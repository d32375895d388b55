package denylist

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// The benchmarks compare the denylist with the same work done by ristretto
// alone and by a map with a read-write lock: the same fingerprints in all
// three, looked up for the same tokens.

func sizes(tb testing.TB) []int {
	if testing.Short() {
		return []int{10_000}
	}
	return []int{10_000, 1_000_000, 10_000_000}
}

func sizeName(n int) string {
	switch {
	case n >= 1_000_000:
		return fmt.Sprintf("entries=%dM", n/1_000_000)
	case n >= 1_000:
		return fmt.Sprintf("entries=%dk", n/1_000)
	}
	return fmt.Sprintf("entries=%d", n)
}

// benchShapes are the shapes in use in the benchmarks.
var benchShapes = [][]string{{"jti"}, {"sub"}, {"client_id"}, {"sid"}, {"client_id", "sub"}}

func benchDenylist(tb testing.TB, entries int, shapes [][]string) *Denylist {
	tb.Helper()
	d, err := New(Options{MaxEntries: entries*5/4 + 1000, CacheBytes: 64 << 20, ActorQuota: -1})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(d.Close)
	fillFast(d, entries, shapes)
	return d
}

// fillFast puts random entries into the index without hashing criteria for
// each; their fingerprints are as evenly distributed as real ones.
func fillFast(d *Denylist, entries int, shapes [][]string) {
	until := time.Now().Add(24 * time.Hour).Unix()
	for i, names := range shapes {
		r := block(until)
		for _, name := range names {
			r.Criteria.Claims[name] = "somebody else"
		}
		d.Revoke(uint64(i+1), r)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := d.index.live; i < entries; i++ {
		d.hold(present(d, randomPrint(rng), uint64(i+1), newTerm(until, 0), revocation.Block, shapes[0], "client:bench"))
	}
}

func randomPrint(rng *rand.Rand) (f revocation.Fingerprint) {
	for i := 0; i < len(f); i += 8 {
		v := rng.Uint64()
		for k := range 8 {
			f[i+k] = byte(v >> (8 * k))
		}
	}
	return f
}

type benchToken struct {
	token string
	id    *revocation.Identity
}

func benchJWTs(n int) []benchToken {
	tokens := make([]benchToken, n)
	exp := time.Now().Add(time.Hour).Unix()
	for i := range tokens {
		id := identity("jti", jti(i), "sub", fmt.Sprintf("user-%d", i%1000), "client_id", "app", "sid", fmt.Sprintf("session-%d", i), "kid", strings.Repeat("k", 43), "token", strings.Repeat("t", 43))
		id.Expiry = exp
		payload := fmt.Sprintf("eyJ.%s%08d%s.", strings.Repeat("p", 420), i, strings.Repeat("p", 82))
		signature := fmt.Sprintf("%s%08d", strings.Repeat("s", 342-8), i)
		tokens[i] = benchToken{token: payload + strings.Repeat("x", 870-len(payload)-len(signature)) + signature, id: id}
	}
	return tokens
}

func benchOpaque(n int) []benchToken {
	tokens := make([]benchToken, n)
	exp := time.Now().Add(time.Hour).Unix()
	for i := range tokens {
		id := &revocation.Identity{Issuer: testIssuer, Expiry: exp, Claims: []revocation.Claim{{Name: "token", Value: strings.Repeat("t", 35) + fmt.Sprintf("%08d", i)}}}
		tokens[i] = benchToken{token: fmt.Sprintf("%08d", i) + strings.Repeat("o", 35), id: id}
	}
	return tokens
}

// remember puts tokens into the cache and returns those that it kept.
func remember(tb testing.TB, d *Denylist, tokens []benchToken) []benchToken {
	tb.Helper()
	_, epoch := d.ClaimNames()
	for range 3 {
		for _, t := range tokens {
			if _, ok := d.Lookup(t.token, 1); !ok {
				d.Remember(t.token, 1, t.id, epoch)
			}
		}
		d.cache.store.Wait()
	}
	kept := slices.DeleteFunc(slices.Clone(tokens), func(t benchToken) bool {
		_, ok := d.Lookup(t.token, 1)
		return !ok
	})
	if len(kept) < len(tokens)*9/10 {
		tb.Fatalf("the cache kept %d of %d tokens", len(kept), len(tokens))
	}
	return kept
}

func benchCached(b *testing.B, entries int, shapes [][]string, tokens []benchToken) {
	d := benchDenylist(b, entries, shapes)
	tokens = remember(b, d, tokens)
	runtime.GC()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		t := &tokens[i]
		if i++; i == len(tokens) {
			i = 0
		}
		s, ok := d.Lookup(t.token, 1)
		if !ok || d.CheckSeen(s).Denied {
			b.Fatal("a token is not in the cache, or denied")
		}
	}
}

func BenchmarkCheckCachedJWT(b *testing.B) {
	for _, n := range sizes(b) {
		b.Run(sizeName(n), func(b *testing.B) { benchCached(b, n, benchShapes, benchJWTs(1000)) })
	}
}

func BenchmarkCheckCachedOpaque(b *testing.B) {
	for _, n := range sizes(b) {
		b.Run(sizeName(n), func(b *testing.B) {
			benchCached(b, n, append([][]string{{"token"}}, benchShapes...), benchOpaque(1000))
		})
	}
}

// BenchmarkIndexMiss is one lookup of a fingerprint that is not there.
func BenchmarkIndexMiss(b *testing.B) {
	for _, n := range sizes(b) {
		b.Run(sizeName(n), func(b *testing.B) {
			d := benchDenylist(b, n, benchShapes)
			rng := rand.New(rand.NewPCG(3, 4))
			prints := make([]revocation.Fingerprint, 1<<16)
			for i := range prints {
				prints[i] = randomPrint(rng)
			}
			runtime.GC()
			i := 0
			for b.Loop() {
				if t, _ := d.index.get(prints[i&(1<<16-1)]); t != 0 {
					b.Fatal("found")
				}
				i++
			}
		})
	}
}

// BenchmarkIndexInsert is one new entry, amortized over growth.
func BenchmarkIndexInsert(b *testing.B) {
	d := benchDenylist(b, 10, benchShapes)
	d.limits.max = 1 << 40
	rng := rand.New(rand.NewPCG(5, 6))
	until := time.Now().Add(time.Hour).Unix()
	b.ReportAllocs()
	for b.Loop() {
		d.mu.Lock()
		d.hold(present(d, randomPrint(rng), 1, newTerm(until, 0), revocation.Block, benchShapes[0], "client:bench"))
		d.mu.Unlock()
	}
}

// BenchmarkRevoke is a whole decision, fingerprint included.
func BenchmarkRevoke(b *testing.B) {
	d := benchDenylist(b, 10, benchShapes)
	d.limits.max = 1 << 40
	until := time.Now().Add(time.Hour).Unix()
	r := block(until, "jti", "")
	b.ReportAllocs()
	seq := uint64(10)
	for b.Loop() {
		seq++
		r.Criteria.Claims["jti"] = fmt.Sprint(seq)
		d.Revoke(seq, r)
		d.SetPosition(revocation.Position{Sequence: seq})
	}
}

// BenchmarkHeapPerEntry reports the live heap of an index after a collection,
// and the highest heap while it grew.
func BenchmarkHeapPerEntry(b *testing.B) {
	for _, n := range sizes(b)[1:] {
		b.Run(sizeName(n), func(b *testing.B) {
			for b.Loop() {
				var d *Denylist
				measureHeap(b, n, func() {
					var err error
					if d, err = New(Options{MaxEntries: n + 1, CacheBytes: minCacheBytes}); err != nil {
						b.Fatal(err)
					}
					fillFast(d, n, benchShapes)
				})
				d.Close()
			}
		})
	}
}

// measureHeap reports the heap that n entries take after a collection, and the
// highest heap while fill added them.
func measureHeap(b *testing.B, n int, fill func()) {
	b.Helper()
	before := heap()
	var peak atomic.Uint64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		var m runtime.MemStats
		for {
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond):
				runtime.ReadMemStats(&m)
				peak.Store(max(peak.Load(), m.HeapAlloc))
			}
		}
	}()
	fill()
	close(stop)
	<-done
	live := heap() - before
	b.ReportMetric(float64(live)/float64(n), "B/entry")
	b.ReportMetric(float64(peak.Load()-before)/float64(live), "peak/live")
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkCheckWhileInserting reports the 99th percentile of a cached check
// while 100,000 entries a second are inserted.
func BenchmarkCheckWhileInserting(b *testing.B) {
	d := benchDenylist(b, 1_000_000, benchShapes)
	d.limits.max = 1 << 40
	tokens := remember(b, d, benchJWTs(1000))
	i := 0
	whileInserting(b, func(f revocation.Fingerprint, n int) {
		d.mu.Lock()
		d.hold(present(d, f, uint64(n+1), newTerm(time.Now().Add(time.Hour).Unix(), 0), revocation.Block, benchShapes[0], ""))
		d.mu.Unlock()
	}, func() {
		t := &tokens[i%len(tokens)]
		i++
		if s, ok := d.Lookup(t.token, 1); ok {
			d.CheckSeen(s)
		}
	})
}

// whileInserting reports the 99th percentile of check while insert is called
// 100,000 times a second.
func whileInserting(b *testing.B, insert func(f revocation.Fingerprint, n int), check func()) {
	b.Helper()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	rate := 0.0
	wg.Go(func() {
		rng := rand.New(rand.NewPCG(7, 8))
		start, n := time.Now(), 0
		for {
			select {
			case <-stop:
				rate = float64(n) / time.Since(start).Seconds()
				return
			default:
			}
			for due := int(time.Since(start) / (10 * time.Microsecond)); n < due; n++ {
				insert(randomPrint(rng), n)
			}
			time.Sleep(100 * time.Microsecond)
		}
	})
	took := make([]time.Duration, 0, 1<<20)
	for b.Loop() {
		start := time.Now()
		check()
		if len(took) < cap(took) {
			took = append(took, time.Since(start))
		}
	}
	close(stop)
	wg.Wait()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*99/100]), "p99-ns")
	b.ReportMetric(rate, "inserts/s") // a machine that can't keep up shows here
}

// BenchmarkLoadCheckpoint reads a million entries into an empty denylist.
func BenchmarkLoadCheckpoint(b *testing.B) {
	const n = 1_000_000
	path := filepath.Join(b.TempDir(), "checkpoint")
	if err := benchDenylist(b, n, benchShapes).WriteCheckpoint(path, testPlace, time.Now()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		d, err := New(Options{MaxEntries: n * 2})
		if err != nil {
			b.Fatal(err)
		}
		if _, _, err := d.LoadCheckpoint(path, testPlace); err != nil {
			b.Fatal(err)
		}
		if d.Stats().Entries != n {
			b.Fatal("entries are missing")
		}
		d.Close()
	}
}

// BenchmarkWriteCheckpoint saves a million entries.
func BenchmarkWriteCheckpoint(b *testing.B) {
	d := benchDenylist(b, 1_000_000, benchShapes)
	path := filepath.Join(b.TempDir(), "checkpoint")
	for b.Loop() {
		if err := d.WriteCheckpoint(path, testPlace, time.Now()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReaders compares one reader with two (run it with -cpu 1,2).
func BenchmarkReaders(b *testing.B) {
	d := benchDenylist(b, 1_000_000, benchShapes)
	tokens := remember(b, d, benchJWTs(1000))
	runtime.GC()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		i := rand.IntN(len(tokens))
		for pb.Next() {
			if i++; i >= len(tokens) {
				i = 0
			}
			if s, ok := d.Lookup(tokens[i].token, 1); ok {
				d.CheckSeen(s)
			}
		}
	})
}
