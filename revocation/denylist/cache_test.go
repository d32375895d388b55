package denylist

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

func TestLookupFindsThisTokenInThisScopeOnly(t *testing.T) {
	d, clock := newTest(t, Options{})
	_, epoch := d.ClaimNames()
	a := d.Remember("token a", 1, identity("sub", "a"), epoch)
	d.cache.store.Wait()
	for _, c := range []struct {
		token string
		scope uint64
		found bool
	}{{"token a", 1, true}, {"token a", 2, false}, {"token b", 1, false}, {"", 1, false}, {"token a ", 1, false}} {
		if s, ok := d.Lookup(c.token, c.scope); ok != c.found || ok && s != a {
			t.Errorf("%q in scope %d: %t", c.token, c.scope, ok)
		}
	}
	// Another token whose hash is the same.
	d.cache.store.Set(d.cache.key("token b", 1), a, a.cost())
	d.cache.store.Set(d.cache.key("token a", 2), a, a.cost())
	d.cache.store.Wait()
	if _, ok := d.Lookup("token b", 1); ok {
		t.Error("a token with the same hash has another one's identity")
	}
	if _, ok := d.Lookup("token a", 2); ok {
		t.Error("a scope with the same hash has another one's identity")
	}
	b := d.Remember("token a", 2, identity("sub", "a"), epoch)
	d.cache.store.Wait()
	if s, ok := d.Lookup("token a", 2); !ok || s != b {
		t.Error("the second scope is not remembered")
	}
	if s, ok := d.Lookup("token a", 1); !ok || s != a {
		t.Error("the first scope is forgotten")
	}
	d.Revoke(1, block(epoch0+10, "tenant", "t"))
	if _, ok := d.Lookup("token a", 1); ok {
		t.Error("found in another epoch")
	}
	clock.pass(time.Second)
}

func TestNothingIsRememberedBeyondExp(t *testing.T) {
	d, clock := newTest(t, Options{})
	_, epoch := d.ClaimNames()
	id := identity("sub", "a")
	id.Expiry = epoch0 + 10
	d.Remember("token", 1, id, epoch)
	forever := identity("sub", "b")
	forever.Expiry = 0
	d.Remember("no exp", 1, forever, epoch)
	past := identity("sub", "c")
	past.Expiry = epoch0
	if s := d.Remember("past", 1, past, epoch); s == nil || s.Identity() != past {
		t.Error("no record of an expired token to check")
	}
	d.cache.store.Wait()
	found := func(token string, want bool) {
		t.Helper()
		if _, ok := d.Lookup(token, 1); ok != want {
			t.Errorf("%s: found is %t", token, ok)
		}
	}
	found("past", false)
	clock.pass(9 * time.Second)
	found("token", true)
	clock.pass(time.Second)
	found("token", false)
	clock.pass(10000 * time.Hour)
	found("no exp", true)
}

func TestForgetDropsEveryRecord(t *testing.T) {
	d, _ := newTest(t, Options{})
	_, epoch := d.ClaimNames()
	for i := range 100 {
		d.Remember(fmt.Sprint(i), 1, identity("sub", "a"), epoch)
		if i == 50 {
			d.cache.store.Wait()
		}
	}
	d.Revoke(1, block(epoch0+10, "sub", "a"))
	d.Forget()
	d.cache.store.Wait()
	for i := range 100 {
		if _, ok := d.Lookup(fmt.Sprint(i), 1); ok {
			t.Fatalf("%d is remembered", i)
		}
	}
	if !d.Check(identity("sub", "a")).Denied {
		t.Error("the index forgot too")
	}
	// One that was on its way in meanwhile.
	late := &Seen{token: "late", scope: 1, epoch: epoch, identity: identity("sub", "a")}
	d.cache.set(late)
	d.cache.store.Wait()
	if _, ok := d.Lookup("late", 1); ok {
		t.Error("a record from before is found")
	}
	d.Remember("new", 1, identity("sub", "a"), epoch)
	d.cache.store.Wait()
	if _, ok := d.Lookup("new", 1); !ok {
		t.Error("nothing is remembered after Forget")
	}
}

// TestCacheNeitherPanicsNorLies uses everything at once while the cache is
// emptied and closed: a record that is found is the token's own, and whoever is
// revoked stays denied.
func TestCacheNeitherPanicsNorLies(t *testing.T) {
	rounds := 30
	if testing.Short() {
		rounds = 5
	}
	for range rounds {
		d, err := New(Options{CacheBytes: minCacheBytes})
		if err != nil {
			t.Fatal(err)
		}
		until := time.Now().Add(time.Hour).Unix()
		d.Revoke(1, block(until, "sub", "user 3"))
		var users sync.WaitGroup
		start := make(chan struct{})
		for g := range 8 {
			users.Go(func() {
				<-start
				for i := range 500 {
					user := (g + i) % 40
					token, sub := strings.Repeat("x", 200)+fmt.Sprint(user), fmt.Sprint("user ", user)
					s, ok := d.Lookup(token, 1)
					if !ok {
						_, epoch := d.ClaimNames()
						id := identity("sub", sub)
						id.Expiry = until
						s = d.Remember(token, 1, id, epoch)
					}
					if v, _ := s.Identity().Value("sub"); v != sub {
						t.Errorf("%s is taken for %s", sub, v)
					}
					if dec := d.CheckSeen(s); dec.Denied != (user == 3) {
						t.Errorf("%s: %+v", sub, dec)
					}
					switch {
					case g == 0 && i%100 == 50:
						d.Forget()
					case g == 1 && i%50 == 0:
						d.Stats()
					case g < 4 && i == 250:
						d.Close()
					}
				}
			})
		}
		close(start)
		users.Wait()
		d.Close()
		if _, ok := d.Lookup("x", 1); ok {
			t.Error("found after Close")
		}
		if !d.Check(identity("sub", "user 3")).Denied {
			t.Error("allowed after Close")
		}
		d.Forget()
	}
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	d, _ := newTest(t, Options{})
	_, epoch := d.ClaimNames()
	for i, names := range benchShapes {
		r := block(epoch0 + 1000)
		for _, name := range names {
			r.Criteria.Claims[name] = "nobody"
		}
		d.Revoke(uint64(i+1), r)
	}
	tok := benchJWTs(1)[0]
	tok.id.Expiry = 0
	d.Remember(tok.token, 1, tok.id, epoch)
	d.cache.store.Wait()
	if n := testing.AllocsPerRun(1000, func() {
		s, ok := d.Lookup(tok.token, 1)
		if !ok || d.CheckSeen(s).Denied {
			t.Fatal("not found, or denied")
		}
	}); n != 0 {
		t.Errorf("%v allocations for a token seen before", n)
	}
	if n := testing.AllocsPerRun(1000, func() { d.Check(tok.id) }); n != 0 {
		t.Errorf("%v allocations for an identity", n)
	}
	d.Revoke(9, block(epoch0+1000, "jti", jti(0)))
	if n := testing.AllocsPerRun(1000, func() {
		if s, _ := d.Lookup(tok.token, 1); !d.CheckSeen(s).Denied {
			t.Fatal("allowed")
		}
	}); n != 0 {
		t.Errorf("%v allocations for a denied token", n)
	}
}

// TestCacheStaysWithinItsBytes fills the cache beyond its size and compares what
// it says it takes with what it takes.
func TestCacheStaysWithinItsBytes(t *testing.T) {
	if testing.Short() {
		t.Skip("allocates")
	}
	const size = 8 << 20
	before := heap()
	d, _ := newTest(t, Options{CacheBytes: size})
	fixed := heap() - before
	_, epoch := d.ClaimNames()
	for i := range 30_000 {
		id := &revocation.Identity{Issuer: testIssuer}
		for _, name := range []string{"client_id", "jti", "sid", "sub"} {
			id.Claims = append(id.Claims, revocation.Claim{Name: name, Value: fmt.Sprintf("value-%s-%08d", name, i)})
		}
		d.Remember(fmt.Sprintf("%08d", i)+strings.Repeat("t", 600), 1, id, epoch)
		if i%1000 == 0 {
			d.cache.store.Wait()
		}
	}
	d.cache.store.Wait()
	taken := heap() - before - fixed
	runtime.KeepAlive(d)
	s := d.Stats()
	if s.CacheBytes > size {
		t.Errorf("it says it takes %d bytes of %d", s.CacheBytes, size)
	}
	if ratio := float64(taken) / float64(s.CacheBytes); ratio < 0.7 || ratio > 1.15 {
		t.Errorf("%d bytes are counted for %d (and %d at the start)", s.CacheBytes, taken, fixed)
	}
	if s.CacheDrops+s.CacheEvictions == 0 {
		t.Error("neither drops nor evictions are counted")
	}
}

// TestFloodOfGarbageKeepsTheWorkingSet presents so many unique tokens between two
// uses of each good one that a cache which only knows what was used last keeps
// none of them.
func TestFloodOfGarbageKeepsTheWorkingSet(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const size, good, rounds = 1 << 20, 100, 40
	d, _ := newTest(t, Options{CacheBytes: size})
	_, epoch := d.ClaimNames()
	id := identity("sub", "a")
	id.Expiry = 0
	cost := int64(0)
	present := func(token string) bool {
		if _, ok := d.Lookup(token, 1); ok {
			return true
		}
		cost = d.Remember(token, 1, id, epoch).cost()
		return false
	}
	present("garbage")
	garbage := int(size/cost)*3/2/good + 1 // for each good one: half as much again as there is room for
	hits, asked := 0, 0
	for i := range rounds * good {
		if hit := present(fmt.Sprint("good", i%good)); i >= rounds/2*good {
			asked++
			if hit {
				hits++
			}
		}
		for k := range garbage {
			present(fmt.Sprint("garbage", i*garbage+k))
		}
		d.cache.store.Wait()
	}
	least := 0.8
	if raceDetector {
		// Pools forget, and with them ristretto most uses of a token.
		least = 0.05
	}
	ratio := float64(hits) / float64(asked)
	if t.Logf("%.2f of the good tokens are remembered, of %d", ratio, good*(1+garbage)); ratio < least {
		t.Errorf("%.2f of the good tokens are remembered", ratio)
	}
}

// TestSmallestCacheHoldsTokens would have a cache without any use pass for one.
func TestSmallestCacheHoldsTokens(t *testing.T) {
	d, _ := newTest(t, Options{CacheBytes: minCacheBytes})
	_, epoch := d.ClaimNames()
	for _, token := range benchJWTs(5) {
		within(t, 30*time.Second, "a JWT is remembered", func() bool {
			if _, ok := d.Lookup(token.token, 1); ok {
				return true
			}
			id := *token.id
			id.Expiry = epoch0 + 1000
			d.Remember(token.token, 1, &id, epoch)
			d.cache.store.Wait()
			return false
		})
	}
}

// TestRecomputedFingerprintsAreCounted brings shapes into use after tokens were
// remembered, which then take more room.
func TestRecomputedFingerprintsAreCounted(t *testing.T) {
	d, _ := newTest(t, Options{})
	id := identity("sub", "a")
	for i := range 30 {
		id.Aliases = append(id.Aliases, fmt.Sprint("https://alias.example/", i))
	}
	_, epoch := d.ClaimNames()
	s := d.Remember("token", 1, id, epoch)
	d.cache.store.Wait()
	before := d.cache.bytes()
	d.Revoke(1, block(epoch0+100, "sub", "b"))
	if d.CheckSeen(s).Denied {
		t.Fatal("denied")
	}
	want := int64(31-inlinePrints) * moreBytes
	within(t, 30*time.Second, "the record costs more", func() bool { return d.cache.bytes() == before+want })
	if s.cost() != before+want {
		t.Errorf("%d bytes, not %d", s.cost(), before+want)
	}
}
