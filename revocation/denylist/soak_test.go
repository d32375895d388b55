package denylist

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// TestSoakInBoundedMemory adds and checks with random ends for a long simulated
// time. SOAK_ENTRIES sets the number of entries, for a long run by hand.
func TestSoakInBoundedMemory(t *testing.T) {
	n := 120_000
	if s := os.Getenv("SOAK_ENTRIES"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	} else if testing.Short() {
		n = 30_000
	}
	d, clock := newTest(t, Options{ActorQuota: -1})
	rng := rand.New(rand.NewPCG(11, 11))
	type known struct {
		print revocation.Fingerprint
		end   int64
	}
	recent := make([]known, 10_000)
	peak := int64(0)
	for i := range n {
		// A hundred a second, living for up to ten minutes, kept for an hour more.
		if i%100 == 0 {
			clock.pass(time.Second)
			d.sweep(sweepRound / 2)
		}
		k := known{print: randomPrint(rng), end: clock.unix() + rng.Int64N(600)}
		d.mu.Lock()
		d.hold(present(d, k.print, uint64(i+1), newTerm(k.end, 0), revocation.Block, []string{"jti"}, ""))
		d.mu.Unlock()
		recent[i%len(recent)] = k
		old := recent[rng.IntN(min(i+1, len(recent)))]
		if tm, _ := d.index.get(old.print); tm.expires() != old.end && old.end >= clock.unix() {
			t.Fatalf("a live entry is gone after %d", i)
		}
		if tm, _ := d.index.get(randomPrint(rng)); tm != 0 {
			t.Fatal("what was never added is found")
		}
		peak = max(peak, d.index.bytes)
	}
	// At most 4,300 seconds' worth at a time, at most 56 bytes each.
	if most := min(int64(n), 430_000) * 56; peak > most+100_000 {
		t.Errorf("%d bytes at most, of %d", peak, most)
	}
	if s := d.Stats(); s.Entries > 440_000 || n > 1_000_000 && s.Expired == 0 {
		t.Errorf("%+v", s)
	}
}
