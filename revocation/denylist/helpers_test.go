package denylist

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testIssuer = "https://issuer.example"

// epoch0 is when tests begin, in Unix seconds.
const epoch0 = int64(1_800_000_000)

// testClock has a wall clock that can be set and a monotonic one that can not.
type testClock struct {
	mu   sync.Mutex
	wall time.Time
	mono time.Duration
}

func newTestClock() *testClock { return &testClock{wall: time.Unix(epoch0, 0)} }

func (c *testClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wall
}

// pass lets time pass, as both clocks see it.
func (c *testClock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall, c.mono = c.wall.Add(d), c.mono+d
}

// step sets the wall clock.
func (c *testClock) step(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall = c.wall.Add(d)
}

func (c *testClock) unix() int64 { return c.Now().Unix() }

// newTest returns a denylist that nothing sweeps but the test.
func newTest(tb testing.TB, o Options) (*Denylist, *testClock) {
	tb.Helper()
	clock := newTestClock()
	o.Now, o.monotonic = clock.Now, clock.monotonic
	o, err := o.withDefaults()
	if err != nil {
		tb.Fatal(err)
	}
	d := newDenylist(o)
	if d.cache, err = newCache(o.CacheBytes); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(d.Close)
	return d, clock
}

// monotonic is the time that passed, whatever the wall clock says.
func (c *testClock) monotonic(time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mono
}

// sweepAll looks through the whole index and a bit of it again.
func sweepAll(d *Denylist) {
	for range 3 {
		d.sweep(1)
	}
}

func criteria(pairs ...string) revocation.Criteria {
	c := revocation.Criteria{Issuer: testIssuer, Claims: map[string]string{}}
	for i := 0; i < len(pairs); i += 2 {
		c.Claims[pairs[i]] = pairs[i+1]
	}
	return c
}

func block(expires int64, pairs ...string) *revocation.Revocation {
	return &revocation.Revocation{ID: "test", Criteria: criteria(pairs...), Expires: expires}
}

func cutoff(mode revocation.Mode, at, expires int64, pairs ...string) *revocation.Revocation {
	return &revocation.Revocation{ID: "test", Criteria: criteria(pairs...), Mode: mode, Cutoff: at, Expires: expires}
}

func restoration(pairs ...string) *revocation.Restoration {
	return &revocation.Restoration{ID: "test", Criteria: criteria(pairs...), Expires: epoch0 + 1<<30}
}

func identity(pairs ...string) *revocation.Identity {
	id := &revocation.Identity{Issuer: testIssuer, IssuedAt: epoch0, AuthTime: epoch0, Expiry: epoch0 + 1<<20, Verified: true}
	for i := 0; i < len(pairs); i += 2 {
		id.Claims = append(id.Claims, revocation.Claim{Name: pairs[i], Value: pairs[i+1]})
	}
	revocation.SortClaims(id.Claims)
	return id
}

// jti names the nth token of bulk tests.
func jti(n int) string { return fmt.Sprintf("token-%08d", n) }

// present is a decision on a random fingerprint, of the present history.
func present(d *Denylist, print revocation.Fingerprint, sequence uint64, t term, mode revocation.Mode, names []string, actor string) decision {
	return decision{print: print, sequence: sequence, era: d.era, term: t, mode: mode, names: names, actor: actor}
}

// testPlace is the ledger of tests.
const testPlace = "test ledger"

// within polls, since ristretto and the scheduler take their time.
func within(tb testing.TB, limit time.Duration, what string, ok func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatalf("not within %s: %s", limit, what)
		}
	}
}
