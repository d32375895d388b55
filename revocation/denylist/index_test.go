package denylist

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// TestIndexHoldsExactlyWhatAMapHolds drives the tables alone, with fingerprints
// that share shard, group and tag far more often than real ones do.
func TestIndexHoldsExactlyWhatAMapHolds(t *testing.T) {
	type entry struct {
		t term
		o origin
	}
	rapid.Check(t, func(t *rapid.T) {
		x := newIndex()
		x.key = [2]uint64{} // with these keys the hash is as poor as the fingerprint
		want := map[revocation.Fingerprint]entry{}
		draw := func(t *rapid.T) (f revocation.Fingerprint) {
			f[0] = rapid.Byte().Draw(t, "low")
			f[8] = byte(rapid.IntRange(0, 3).Draw(t, "high"))
			return f
		}
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				for range rapid.IntRange(1, 50).Draw(t, "n") {
					f := draw(t)
					e := entry{newTerm(1+rapid.Int64Range(0, 1000).Draw(t, "end"), 5), newOrigin(rapid.Uint64Max(maxSequence).Draw(t, "seq"), eraSecond, 3, 2)}
					if tab, s := x.find(f); s != nil && s.term.Load() != 0 {
						s.set(e.t, e.o)
					} else {
						x.put(f, tab, s, e.t, e.o)
					}
					want[f] = e
				}
			},
			"kill": func(t *rapid.T) {
				f := draw(t)
				if tab, s := x.find(f); s != nil && s.term.Load() != 0 {
					x.kill(tab, s)
				}
				delete(want, f)
			},
			"tidy":    func(t *rapid.T) { x.tidy(rapid.IntRange(0, 255).Draw(t, "shard")) },
			"reserve": func(t *rapid.T) { x.reserve(rapid.IntRange(0, 3000).Draw(t, "n")) },
			"": func(t *rapid.T) {
				if x.live != len(want) {
					t.Fatalf("%d entries, not %d", x.live, len(want))
				}
				f := draw(t)
				tm, o := x.get(f)
				if e := want[f]; tm != e.t || tm != 0 && o != e.o {
					t.Fatalf("%v is %v %v, not %+v", f, tm, o, e)
				}
			},
		})
		live, slots, bytes := 0, 0, int64(0)
		for i := range x.shards {
			tab := x.shards[i].Load()
			if tab == x.empty {
				continue
			}
			slots, bytes = slots+len(tab.slots), bytes+tab.bytes()
			tab.each(0, len(tab.slots), func(_ *table, s *slot) {
				live++
				if want[s.fingerprint()].t != term(s.term.Load()) {
					t.Fatalf("%v is not what was put", s.fingerprint())
				}
			})
		}
		if live != len(want) || slots != x.slots || bytes != x.bytes {
			t.Fatalf("%d entries in %d slots of %d bytes; counted %d, %d, %d", live, slots, bytes, len(want), x.slots, x.bytes)
		}
	})
}

// TestReadersNeverMissWhatWasAdded reads without pause while tables grow, are
// rebuilt and shrink. What was put before a read began is found, what was never
// put is not. The race detector watches.
func TestReadersNeverMissWhatWasAdded(t *testing.T) {
	n := 60_000
	if testing.Short() {
		n = 10_000
	}
	d, _ := newTest(t, Options{ActorQuota: -1})
	rng := rand.New(rand.NewPCG(1, 1))
	prints, others := make([]revocation.Fingerprint, n), make([]revocation.Fingerprint, n)
	for i := range prints {
		prints[i], others[i] = randomPrint(rng), randomPrint(rng)
	}
	var added, removed atomic.Int64 // prints[removed:added] are in
	var done atomic.Bool
	var readers sync.WaitGroup
	for r := range max(2, runtime.GOMAXPROCS(0)) {
		readers.Go(func() {
			rng := rand.New(rand.NewPCG(2, uint64(r)))
			for !done.Load() {
				to := added.Load()
				if to == 0 {
					runtime.Gosched()
					continue
				}
				i := rng.Int64N(to)
				tm, o := d.index.get(prints[i])
				if tm == 0 && i >= removed.Load() {
					t.Errorf("entry %d is not found", i)
					return
				}
				if tm != 0 && (tm.cutoff() != i || int64(o.sequence()) != i) {
					t.Errorf("entry %d has another one's cutoff %d or sequence %d", i, tm.cutoff(), o.sequence())
					return
				}
				// The one that is just being added is all there or not at all.
				if next := min(to, int64(n-1)); next > 0 {
					if tm, o := d.index.get(prints[next]); tm != 0 && (tm.cutoff() != next || int64(o.sequence()) != next) {
						t.Errorf("entry %d is half there", next)
						return
					}
				}
				if tm, _ := d.index.get(others[i]); tm != 0 {
					t.Errorf("what was never added is found")
					return
				}
			}
		})
	}
	for i, f := range prints {
		d.mu.Lock()
		d.hold(present(d, f, uint64(i), newTerm(epoch0+1000, int64(i)), revocation.IssuedBefore, []string{"sub"}, ""))
		d.mu.Unlock()
		added.Store(int64(i + 1))
		if i >= n/2 { // and take away as many again, oldest first
			k := int64(i - n/2)
			removed.Store(k + 1)
			d.mu.Lock()
			tab, s := d.index.find(prints[k])
			d.kill(tab, s)
			if i%500 == 0 {
				for shard := range shardCount {
					d.index.tidy(shard)
				}
			}
			d.mu.Unlock()
		}
	}
	done.Store(true)
	readers.Wait()
}

// TestProbesStayShort fills and empties a table for a long time: dead slots must
// not make lookups of what isn't there longer and longer.
func TestProbesStayShort(t *testing.T) {
	x := newIndex()
	rng := rand.New(rand.NewPCG(9, 9))
	const n = 20_000
	ring := make([]revocation.Fingerprint, n)
	for i := range 10 * n {
		if i >= n {
			tab, s := x.find(ring[i%n])
			x.kill(tab, s)
		}
		f := randomPrint(rng)
		tab, s := x.find(f)
		x.put(f, tab, s, newTerm(1, 0), 0)
		ring[i%n] = f
	}
	total, lookups := 0, 10_000
	for range lookups {
		a, b := words(randomPrint(rng))
		h := x.hash(a, b)
		tab := x.shards[h%shardCount].Load()
		for g := tab.start(h); ; g = (g + 1) % tab.groups {
			total++
			if ^tab.tags[g].Load()&highBits != 0 {
				break
			}
		}
	}
	if average := float64(total) / float64(lookups); average > 4 {
		t.Errorf("a miss looks at %.1f groups on average", average)
	}
	if perEntry := float64(x.bytes) / n; perEntry > 60 {
		t.Errorf("%.1f bytes an entry after many generations", perEntry)
	}
}

// TestMemoryFollowsTheNumberOfEntries bounds bytes per entry, also while growing
// and after most entries went.
func TestMemoryFollowsTheNumberOfEntries(t *testing.T) {
	d, clock := newTest(t, Options{ActorQuota: -1})
	rng := rand.New(rand.NewPCG(3, 3))
	worst := 0.0
	for i := range 120_000 {
		d.mu.Lock()
		d.hold(present(d, randomPrint(rng), 1, newTerm(epoch0+int64(i%1000), 0), revocation.Block, nil, ""))
		d.mu.Unlock()
		if i > 60_000 {
			worst = max(worst, float64(d.index.bytes)/float64(i+1))
		}
	}
	if worst > 56 {
		t.Errorf("%.1f bytes an entry at worst", worst)
	}
	full := d.Stats().Bytes
	for range 3 {
		clock.pass(2000e9)
		sweepAll(d)
	}
	clock.pass(3600e9)
	sweepAll(d)
	if s := d.Stats(); s.Entries != 0 || s.Bytes > full/50 || s.Shapes != 0 {
		t.Errorf("after everything ended: %+v", s)
	}
}
