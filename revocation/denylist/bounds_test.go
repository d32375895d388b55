package denylist

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// TestAtTheCapItIsHeldOrSaid fills a tiny denylist in any way: at any time, each
// decision in force denies, or the denylist says that it is incomplete until at
// least that decision's end.
func TestAtTheCapItIsHeldOrSaid(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d, clock := newTest(nopTB{}, Options{MaxEntries: rapid.IntRange(1, 12).Draw(t, "max"), CacheBytes: minCacheBytes})
		defer d.Close()
		m := &model{}
		var ledger []*event
		t.Repeat(map[string]func(*rapid.T){
			"decide": func(t *rapid.T) {
				e := drawEvent(t, clock.unix())
				if e.revoke != nil && len(e.revoke.Criteria.Claims) == 1 {
					e.revoke.Criteria.Claims["jti"] = fmt.Sprint(len(ledger))
				}
				ledger = append(ledger, e)
				m.apply(e, uint64(len(ledger)))
				e.apply(d, uint64(len(ledger)))
			},
			"again": func(t *rapid.T) {
				for i, e := range ledger {
					e.apply(d, uint64(i+1))
				}
			},
			"pass":  func(t *rapid.T) { clock.pass(time.Duration(rapid.IntRange(1, 3600).Draw(t, "seconds")) * time.Second) },
			"sweep": func(*rapid.T) { sweepAll(d) },
			"": func(t *rapid.T) {
				if s := d.Stats(); s.Entries > s.MaxEntries {
					t.Fatalf("%d entries of at most %d", s.Entries, s.MaxEntries)
				}
				_, until, incomplete := d.Incomplete(clock.Now())
				for _, a := range m.applied {
					if a.revoke == nil || a.revoke.Expires < clock.unix() {
						continue
					}
					if must, _ := m.state(a); !must {
						continue
					}
					id := &revocation.Identity{Issuer: a.revoke.Criteria.Issuer}
					for name, value := range a.revoke.Criteria.Claims {
						id.Claims = append(id.Claims, revocation.Claim{Name: name, Value: value})
					}
					revocation.SortClaims(id.Claims)
					if !d.Check(id).Denied && (!incomplete || until < a.revoke.Expires) {
						t.Fatalf("decision %d does not deny; incomplete is %t until %d, its end is %d", a.sequence, incomplete, until, a.revoke.Expires)
					}
				}
			},
		})
	})
}

// nopTB lets newTest be used inside a property, which closes by itself.
type nopTB struct{ testing.TB }

func (nopTB) Helper()        {}
func (nopTB) Cleanup(func()) {}

func TestIncompleteUntilTheEndOfWhatIsNotHeld(t *testing.T) {
	var log bytes.Buffer
	d, clock := newTest(t, Options{MaxEntries: 2, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	complete := func(want bool) {
		t.Helper()
		if _, _, incomplete := d.Incomplete(clock.Now()); incomplete == want {
			t.Fatalf("incomplete is %t", incomplete)
		}
	}
	d.Revoke(1, block(epoch0+10, "jti", "1"))
	d.Revoke(2, block(epoch0+1000, "jti", "2"))
	complete(true)
	d.Revoke(3, block(epoch0+500, "jti", "3"))
	d.Revoke(4, block(epoch0+400, "jti", "4"))
	reason, until, _ := d.Incomplete(clock.Now())
	if until != epoch0+500 || !strings.Contains(reason, "max_entries") {
		t.Errorf("%q until %d", reason, until)
	}
	if n := strings.Count(log.String(), "incomplete"); n != 1 {
		t.Errorf("logged %d times", n)
	}
	if s := d.Stats(); s.CapHits != 2 || s.Missing != 2 || s.Entries != 2 {
		t.Errorf("%+v", s)
	}

	clock.pass(11 * time.Second) // makes room
	complete(false)
	d.Revoke(5, block(epoch0+1000, "jti", "5"))
	if !d.Check(identity("jti", "5")).Denied {
		t.Error("an ended entry was not replaced")
	}
	complete(false)

	d.Restore(6, restoration("jti", "2"))
	d.Revoke(3, block(epoch0+500, "jti", "3")) // the one that was missing
	if _, until, _ := d.Incomplete(clock.Now()); until != epoch0+400 {
		t.Errorf("until %d after the later one was applied", until)
	}
	d.Restore(7, restoration("jti", "4"))
	complete(true)

	d.Revoke(8, block(epoch0+100, "jti", "8"))
	complete(false)
	clock.pass(90 * time.Second)
	complete(true)
}

func TestMarkedIncomplete(t *testing.T) {
	d, clock := newTest(t, Options{})
	d.MarkIncomplete("later version", epoch0+100)
	d.MarkIncomplete("shorter", epoch0+50)
	if reason, until, ok := d.Incomplete(clock.Now()); !ok || reason != "later version" || until != epoch0+100 {
		t.Errorf("%q until %d, %t", reason, until, ok)
	}
	clock.pass(101 * time.Second)
	if _, _, ok := d.Incomplete(clock.Now()); ok {
		t.Error("still incomplete")
	}
	d.MarkIncomplete("unreadable", 0)
	if _, until, ok := d.Incomplete(clock.Now()); !ok || until < clock.unix()+int64(revocation.MaxRetention/time.Second) {
		t.Errorf("until %d, %t for an unknown end", until, ok)
	}
}

func TestWhatIsInvalidMakesItIncomplete(t *testing.T) {
	for name, r := range map[string]*revocation.Revocation{
		"mode":   {ID: "x", Criteria: criteria("sub", "a"), Mode: 9, Expires: epoch0 + 10},
		"issuer": {ID: "x", Expires: epoch0 + 10},
		"cutoff": {ID: "x", Criteria: criteria("sub", "a"), Mode: revocation.IssuedBefore, Expires: epoch0 + 10},
	} {
		t.Run(name, func(t *testing.T) {
			d, clock := newTest(t, Options{})
			d.Revoke(1, r)
			if _, until, ok := d.Incomplete(clock.Now()); !ok || until != epoch0+10 {
				t.Error("not incomplete")
			}
		})
	}
	d, clock := newTest(t, Options{})
	d.Revoke(maxSequence+1, block(epoch0+10, "sub", "a"))
	if _, _, ok := d.Incomplete(clock.Now()); !ok {
		t.Error("a sequence out of range is applied")
	}
}

func TestTooManyShapesAreIncompleteNotSlow(t *testing.T) {
	d, clock := newTest(t, Options{})
	for i := range maxShapes {
		d.Revoke(uint64(i+1), block(epoch0+10, fmt.Sprint("claim", i), "x"))
	}
	if _, _, ok := d.Incomplete(clock.Now()); ok {
		t.Fatal("incomplete before the bound")
	}
	d.Revoke(100, block(epoch0+500, "one more", "x"))
	if _, until, ok := d.Incomplete(clock.Now()); !ok || until != epoch0+500 {
		t.Error("not incomplete")
	}
	if s := d.Stats(); s.Shapes != maxShapes || s.ShapeHits != 1 {
		t.Errorf("%+v", s)
	}
	// Known shapes still find room, and an idle one gives its place away.
	d.Revoke(101, block(epoch0+10, "claim0", "y"))
	d.Restore(102, restoration("claim1", "x"))
	d.Revoke(103, block(epoch0+500, "one more", "x"))
	if _, _, ok := d.Incomplete(clock.Now()); ok {
		t.Error("still incomplete")
	}
	if !d.Check(identity("one more", "x")).Denied || !d.Check(identity("claim0", "y")).Denied {
		t.Error("allowed")
	}
}

func TestUnusedShapesGoAfterAWhile(t *testing.T) {
	d, clock := newTest(t, Options{})
	d.Revoke(1, block(epoch0+10, "tenant", "x"))
	d.Restore(2, restoration("tenant", "x"))
	clock.pass((idleShape - 1) * time.Second)
	d.sweep(1)
	if len(d.inUse.Load().shapes) != 1 {
		t.Error("gone at once")
	}
	clock.pass(2 * time.Second)
	d.sweep(1)
	if names, _ := d.ClaimNames(); len(d.inUse.Load().shapes) != 0 || len(names) != 0 {
		t.Error("still there")
	}
}

func TestNewClaimStartsAnEpoch(t *testing.T) {
	d, clock := newTest(t, Options{})
	_, first := d.ClaimNames()
	old := d.Remember("token", 1, identity("sub", "a"), first)
	d.Revoke(1, block(epoch0+10, "sub", "b"))
	if _, epoch := d.ClaimNames(); epoch != first || d.CheckSeen(old).Stale {
		t.Fatal("a well-known claim started an epoch")
	}
	d.Revoke(2, block(epoch0+10, "tenant", "t"))
	names, second := d.ClaimNames()
	if second == first || len(names) != 1 || names[0] != "tenant" {
		t.Fatalf("%v, epoch %d after %d", names, second, first)
	}
	if dec := d.CheckSeen(old); !dec.Stale || !dec.Denied {
		t.Errorf("%+v for an identity that may lack the claim", dec)
	}
	if dec := d.CheckSeen(d.Remember("token", 1, identity("sub", "a", "tenant", "t"), second)); !dec.Denied || dec.Stale {
		t.Errorf("%+v", dec)
	}
	d.Revoke(3, block(epoch0+10, "tenant", "t", "sub", "a"))
	if _, epoch := d.ClaimNames(); epoch != second {
		t.Error("a claim that was extracted already started an epoch")
	}
	// A claim that was given up and comes back does start one: identities made
	// in between lack it.
	clock.pass(2 * time.Hour)
	sweepAll(d)
	clock.pass(idleShape * time.Second)
	d.sweep(1)
	if names, _ := d.ClaimNames(); len(names) != 0 {
		t.Fatalf("%v is still extracted", names)
	}
	between := d.Remember("between", 1, identity("sub", "a"), second)
	d.Revoke(4, block(clock.unix()+10, "tenant", "t"))
	if _, third := d.ClaimNames(); third == second || !d.CheckSeen(between).Stale {
		t.Error("no new epoch")
	}
}

func TestTooManyLookupsAreRefused(t *testing.T) {
	d, _ := newTest(t, Options{})
	d.Revoke(1, block(epoch0+10, "role", "none", "team", "none"))
	id := func(roles, teams int) *revocation.Identity {
		id := identity()
		for i := range roles {
			id.Claims = append(id.Claims, revocation.Claim{Name: "role", Value: fmt.Sprint("r", i)})
		}
		for i := range teams {
			id.Claims = append(id.Claims, revocation.Claim{Name: "team", Value: fmt.Sprint("t", i)})
		}
		revocation.SortClaims(id.Claims)
		return id
	}
	_, epoch := d.ClaimNames()
	for _, c := range []struct {
		roles, teams int
		overflow     bool
	}{{8, 8, false}, {64, 1, false}, {65, 1, true}, {9, 8, true}, {1 << 12, 1 << 12, true}, {1 << 12, 0, false}} {
		dec := d.Check(id(c.roles, c.teams))
		if dec.Overflow != c.overflow || dec.Denied != c.overflow {
			t.Errorf("%d x %d: %+v", c.roles, c.teams, dec)
		}
		if seen := d.CheckSeen(d.Remember("token", 1, id(c.roles, c.teams), epoch)); seen != dec {
			t.Errorf("%d x %d: remembered: %+v", c.roles, c.teams, seen)
		}
	}
	d.Revoke(2, block(epoch0+10, "role", "r7", "team", "t7"))
	if !d.Check(id(8, 8)).Denied {
		t.Error("the last of 64 combinations is allowed")
	}
}

// TestKeysThatAreNamed tells routes that verify nothing when they can't judge.
func TestKeysThatAreNamed(t *testing.T) {
	d, clock := newTest(t, Options{})
	named := func(want bool, when string) {
		t.Helper()
		if d.NamesKeys(clock.Now()) != want {
			t.Errorf("%s: %t", when, !want)
		}
	}
	d.Revoke(1, block(epoch0+1000, "sub", "a"))
	named(false, "a user")
	d.Revoke(2, block(epoch0+100, "kid", "k"))
	named(true, "a key")
	d.Revoke(3, cutoff(revocation.IssuedBefore, epoch0, epoch0+200, "kid", "k", "sub", "a"))
	d.Restore(4, restoration("kid", "k"))
	named(true, "a key of a user")
	var b bytes.Buffer
	if err := d.writeCheckpoint(&b, testPlace, time.Now()); err != nil {
		t.Fatal(err)
	}
	if e, _ := reload(t, b.Bytes()); !e.NamesKeys(clock.Now()) {
		t.Error("a restart forgets it")
	}
	clock.step(time.Hour)
	named(true, "the clock was set wrong")
	clock.step(-time.Hour)
	clock.pass(201 * time.Second)
	named(false, "ended")
	d.Revoke(5, block(clock.unix()+100, "kid", "k"))
	named(true, "again")
	d.Restore(6, restoration("kid", "k"))
	d.Restore(7, restoration("kid", "k", "sub", "a"))
	named(false, "restored")
}

func TestOptionsAreChecked(t *testing.T) {
	for name, o := range map[string]Options{
		"entries": {MaxEntries: -1},
		"cache":   {CacheBytes: 10},
	} {
		if d, err := New(o); !errors.Is(err, ErrInvalidOptions) {
			t.Errorf("%s: %v", name, err)
			d.Close()
		}
	}
}
