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
		m := &model{applied: map[int]bool{}}
		t.Repeat(map[string]func(*rapid.T){
			"decide": func(t *rapid.T) {
				e := drawEvent(t, clock.unix())
				if e.revoke != nil && len(e.revoke.Criteria.Claims) == 1 {
					e.revoke.Criteria.Claims["jti"] = fmt.Sprint(len(m.ledger))
				}
				m.ledger = append(m.ledger, e)
				m.applied[len(m.ledger)-1] = true
				e.apply(d, uint64(len(m.ledger)))
			},
			"again": func(t *rapid.T) {
				for i, e := range m.ledger {
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
				for i, e := range m.ledger {
					if e.revoke == nil || m.undone(i) || e.revoke.Expires < clock.unix() {
						continue
					}
					id := &revocation.Identity{Issuer: e.revoke.Criteria.Issuer}
					for name, value := range e.revoke.Criteria.Claims {
						id.Claims = append(id.Claims, revocation.Claim{Name: name, Value: value})
					}
					revocation.SortClaims(id.Claims)
					if !d.Check(id).Denied && (!incomplete || until < e.revoke.Expires) {
						t.Fatalf("decision %d does not deny; incomplete is %t until %d, its end is %d", i+1, incomplete, until, e.revoke.Expires)
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

func TestAdmission(t *testing.T) {
	fill := func(d *Denylist, n int) {
		for i := range n {
			r := block(epoch0+1000, "jti", jti(i))
			r.Actor = fmt.Sprint("client:", i%50)
			d.Revoke(uint64(i+1), r)
		}
	}
	single := block(epoch0+1000, "jti", "new")
	user := cutoff(revocation.IssuedBefore, epoch0, epoch0+1000, "sub", "new")
	known := block(epoch0+5000, "jti", jti(0))
	full := func(t *testing.T, what string, err error, want bool) {
		t.Helper()
		if errors.Is(err, revocation.ErrFull) != want || err != nil != want {
			t.Errorf("%s: %v", what, err)
		}
	}
	t.Run("below 90 percent", func(t *testing.T) {
		d, _ := newTest(t, Options{MaxEntries: 1000})
		fill(d, 899)
		full(t, "single token", d.Admit(single, false), false)
		if d.Stats().Entries != 899 {
			t.Error("Admit stores")
		}
	})
	t.Run("at 90 percent", func(t *testing.T) {
		d, _ := newTest(t, Options{MaxEntries: 1000})
		fill(d, 900)
		full(t, "single token", d.Admit(single, false), true)
		full(t, "single token, operator", d.Admit(single, true), false)
		full(t, "cutoff", d.Admit(user, false), false)
		full(t, "user block", d.Admit(block(epoch0+10, "sub", "x"), false), false)
		full(t, "known", d.Admit(known, false), false)
	})
	t.Run("single tokens leave room for what names many", func(t *testing.T) {
		d, clock := newTest(t, Options{MaxEntries: 1000})
		fill(d, 1000)
		if s := d.Stats(); s.Entries != 950 || s.Missing != 50 {
			t.Errorf("%+v", s)
		}
		full(t, "single token, operator", d.Admit(single, true), true)
		full(t, "cutoff", d.Admit(user, false), false)
		d.Revoke(2000, user)
		if !d.Check(identity("sub", "new")).Denied {
			t.Error("a cutoff found no room")
		}
		if _, until, incomplete := d.Incomplete(clock.Now()); !incomplete || until != epoch0+1000 {
			t.Errorf("incomplete %v until %d, although tokens are missing", incomplete, until)
		}
	})
	t.Run("at the cap", func(t *testing.T) {
		d, clock := newTest(t, Options{MaxEntries: 1000})
		fill(d, 950)
		for i := range 50 {
			d.Revoke(uint64(2000+i), cutoff(revocation.IssuedBefore, epoch0, epoch0+1000, "sub", jti(i)))
		}
		full(t, "cutoff", d.Admit(user, false), true)
		full(t, "operator", d.Admit(user, true), true)
		full(t, "known", d.Admit(known, false), false)
		clock.pass(1001 * time.Second)
		full(t, "single token after all ended", d.Admit(single, false), false)
	})
	t.Run("quota", func(t *testing.T) {
		d, _ := newTest(t, Options{MaxEntries: 1000, ActorQuota: 10})
		for i := range 10 {
			r := block(epoch0+1000, "jti", jti(i))
			r.Actor = "client:greedy"
			full(t, "within", d.Admit(r, false), false)
			d.Revoke(uint64(i+1), r)
		}
		more := block(epoch0+1000, "jti", "more")
		more.Actor = "client:greedy"
		full(t, "beyond", d.Admit(more, false), true)
		full(t, "beyond, operator", d.Admit(more, true), false)
		more.Actor = "client:other"
		full(t, "another actor", d.Admit(more, false), false)
		d.Restore(11, restoration("jti", jti(3)))
		more.Actor = "client:greedy"
		full(t, "after one was undone", d.Admit(more, false), false)
	})
	t.Run("shapes", func(t *testing.T) {
		d, _ := newTest(t, Options{})
		for i := range clientShapes {
			d.Revoke(uint64(i+1), block(epoch0+10, fmt.Sprint("claim", i), "x"))
		}
		full(t, "client", d.Admit(block(epoch0+10, "new", "x"), false), true)
		full(t, "operator", d.Admit(block(epoch0+10, "new", "x"), true), false)
		full(t, "client, shape in use", d.Admit(block(epoch0+10, "claim0", "y"), false), false)
	})
}

func TestAlarmOncePerCrossing(t *testing.T) {
	var alarms []int
	var log bytes.Buffer
	d, clock := newTest(t, Options{
		MaxEntries: 100, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		OnAlarm: func(entries, most int) { alarms = append(alarms, entries*1000+most) },
	})
	for round := range 2 {
		for i := range 90 {
			d.Revoke(uint64(round*1000+i+1), block(clock.unix()+10, "jti", jti(i)))
		}
		clock.pass(2 * time.Hour)
		sweepAll(d)
	}
	if len(alarms) != 2 || alarms[0] != 80*1000+100 {
		t.Errorf("alarms: %v", alarms)
	}
	if n := strings.Count(log.String(), "filling up"); n != 2 {
		t.Errorf("logged %d times", n)
	}
}

func TestManyActorsAreBounded(t *testing.T) {
	d, _ := newTest(t, Options{})
	const n = 1<<actorBits + 100
	for i := range n {
		r := block(epoch0+10, "jti", jti(i))
		r.Actor = fmt.Sprint("client:", i)
		d.Revoke(uint64(i+1), r)
	}
	if len(d.actors.byName) >= 1<<actorBits {
		t.Errorf("%d actors are known", len(d.actors.byName))
	}
	for i := range n {
		d.Restore(uint64(n+i), restoration("jti", jti(i)))
	}
	for i := range d.actors.slots {
		if c := d.actors.slots[i].count; c != 0 {
			t.Fatalf("actor %d has %d entries of none", i, c)
		}
	}
	r := block(epoch0+10, "jti", "new")
	r.Actor = "client:new"
	d.Revoke(2*n, r)
	if d.actors.count("client:new") != 1 {
		t.Error("numbers of idle actors are not used again")
	}
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
