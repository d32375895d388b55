package denylist

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

func TestCriteriaMatchWhatTheyName(t *testing.T) {
	const cut = epoch0 - 100
	issuedBefore, authBefore := revocation.IssuedBefore, revocation.AuthenticatedBefore
	at := func(iat, authTime int64, pairs ...string) *revocation.Identity {
		id := identity(pairs...)
		id.IssuedAt, id.AuthTime = iat, authTime
		return id
	}
	foreign := identity("sub", "alice")
	foreign.Issuer = "https://other.example"
	for _, c := range []struct {
		name   string
		r      *revocation.Revocation
		id     *revocation.Identity
		denied bool
	}{
		{"one token", block(epoch0+10, "jti", "1"), identity("jti", "1", "sub", "alice"), true},
		{"another token", block(epoch0+10, "jti", "1"), identity("jti", "2"), false},
		{"same value under another name", block(epoch0+10, "sub", "x"), identity("team", "x"), false},
		{"another issuer", block(epoch0+10, "sub", "alice"), foreign, false},
		{"whole issuer", block(epoch0 + 10), identity("jti", "2"), true},
		{"whole issuer, another one", block(epoch0 + 10), foreign, false},
		{"grant, both", block(epoch0+10, "sub", "a", "client_id", "c"), identity("sub", "a", "client_id", "c"), true},
		{"grant, one of two", block(epoch0+10, "sub", "a", "client_id", "c"), identity("sub", "a", "client_id", "d"), false},
		{"grant, claim missing", block(epoch0+10, "sub", "a", "client_id", "c"), identity("sub", "a"), false},
		{"array contains", block(epoch0+10, "role", "admin"), identity("role", "admin", "role", "user"), true},
		{"array contains, last", block(epoch0+10, "role", "user"), identity("role", "admin", "role", "user"), true},
		{"array lacks", block(epoch0+10, "role", "root"), identity("role", "admin", "role", "user"), false},
		{"two arrays", block(epoch0+10, "role", "b", "team", "y"), identity("role", "a", "role", "b", "team", "x", "team", "y"), true},
		{"repeated values", block(epoch0+10, "role", "a"), identity("role", "a", "role", "a"), true},
		{"empty value beside", block(epoch0+10, "role", "a"), identity("role", "", "role", "a"), true},
		{"ends in this second", block(epoch0, "jti", "1"), identity("jti", "1"), true},
		{"has ended", block(epoch0-1, "jti", "1"), identity("jti", "1"), false},
		{"far future end", block(1<<40, "jti", "1"), identity("jti", "1"), true},
		{"issued before", cutoff(issuedBefore, cut, epoch0+10, "sub", "a"), at(cut-1, 0, "sub", "a"), true},
		{"issued in the same second", cutoff(issuedBefore, cut, epoch0+10, "sub", "a"), at(cut, 0, "sub", "a"), true},
		{"issued after", cutoff(issuedBefore, cut, epoch0+10, "sub", "a"), at(cut+1, 0, "sub", "a"), false},
		{"no iat", cutoff(issuedBefore, cut, epoch0+10, "sub", "a"), at(0, epoch0, "sub", "a"), true},
		{"cutoff beyond the range", cutoff(issuedBefore, 1<<40, epoch0+10, "sub", "a"), at(1<<39, 0, "sub", "a"), true},
		{"authenticated before", cutoff(authBefore, cut, epoch0+10, "sub", "a"), at(epoch0, cut, "sub", "a"), true},
		{"authenticated after", cutoff(authBefore, cut, epoch0+10, "sub", "a"), at(cut, cut+1, "sub", "a"), false},
		{"no auth_time", cutoff(authBefore, cut, epoch0+10, "sub", "a"), at(epoch0, 0, "sub", "a"), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, _ := newTest(t, Options{})
			_, epoch := d.ClaimNames()
			old := d.Remember("old", 0, c.id, epoch)
			d.Revoke(7, c.r)
			dec := d.Check(c.id)
			if dec.Denied != c.denied {
				t.Fatalf("denied is %t", dec.Denied)
			}
			if c.denied && (dec.Sequence != 7 || dec.Mode != c.r.Mode || dec.Shape != strings.Join(c.r.Criteria.Names(), ",")) {
				t.Errorf("%+v", dec)
			}
			if seen := d.CheckSeen(old); !seen.Stale && seen != dec {
				t.Errorf("remembered before: %+v", seen)
			}
			_, epoch = d.ClaimNames()
			if seen := d.CheckSeen(d.Remember("new", 0, c.id, epoch)); seen != dec {
				t.Errorf("remembered after: %+v", seen)
			}
		})
	}
}

func TestMergesOnlyGetStricter(t *testing.T) {
	d, clock := newTest(t, Options{})
	d.Revoke(5, cutoff(revocation.IssuedBefore, 100, epoch0+1000, "sub", "a"))
	d.Revoke(3, cutoff(revocation.IssuedBefore, 200, epoch0+10, "sub", "a"))
	id := identity("sub", "a")
	id.IssuedAt = 150
	clock.pass(500 * time.Second)
	if dec := d.Check(id); !dec.Denied || dec.Sequence != 5 {
		t.Errorf("%+v", dec)
	}
	if s := d.Stats(); s.Entries != 1 || s.Merged != 1 || s.Inserted != 1 {
		t.Errorf("%+v", s)
	}
	d.Revoke(5, cutoff(revocation.IssuedBefore, 100, epoch0+1000, "sub", "a"))
	if s := d.Stats(); s.Merged != 1 {
		t.Error("applying a sequence again counts as a merge")
	}
}

func TestRestorationUndoesLowerSequencesOfEveryMode(t *testing.T) {
	for _, mode := range []revocation.Mode{revocation.Block, revocation.IssuedBefore, revocation.AuthenticatedBefore} {
		t.Run(mode.String(), func(t *testing.T) {
			r := block(epoch0+100, "sub", "a")
			if r.Mode = mode; mode != revocation.Block {
				r.Cutoff = epoch0 + 10
			}
			d, _ := newTest(t, Options{})
			id := identity("sub", "a", "jti", "1")
			denied := func(want bool, when string) {
				t.Helper()
				if d.Check(id).Denied != want {
					t.Fatalf("%s: denied is %t", when, !want)
				}
			}
			d.Revoke(5, r)
			d.Restore(4, restoration("sub", "a"))
			denied(true, "restored at a lower sequence")
			d.Restore(9, restoration("sub", "a", "jti", "1"))
			denied(true, "other criteria restored")
			d.Restore(6, restoration("sub", "a"))
			denied(false, "restored")
			d.Revoke(5, r)
			denied(false, "the decision arrives again")
			d.SetPosition(revocation.Position{Ledger: "l", Sequence: 6})
			d.sweep(1)
			d.Revoke(5, r)
			denied(false, "the decision arrives late")
			d.Revoke(7, r)
			denied(true, "revoked anew")
			d.Restore(6, restoration("sub", "a"))
			denied(true, "the restoration arrives again")
		})
	}
}

func TestLaterDecisionThatCameFirstSurvivesRestoration(t *testing.T) {
	d, clock := newTest(t, Options{})
	id := identity("sub", "a")
	d.Revoke(1, block(epoch0+1000, "sub", "a"))
	d.SetPosition(revocation.Position{Ledger: "l", Sequence: 1})
	d.Revoke(3, block(epoch0+10, "sub", "a")) // by this edge's endpoint
	d.Restore(2, restoration("sub", "a"))     // by the follower
	d.SetPosition(revocation.Position{Ledger: "l", Sequence: 2})
	if !d.Check(id).Denied {
		t.Error("the later decision is gone")
	}
	clock.pass(11 * time.Second)
	if d.Check(id).Denied {
		t.Error("the earlier decision's end outlived the restoration")
	}
}

// TestRestorationThatComesAgainUndoesNothingLater has a short decision ahead of
// the follower merge with a long one that it has passed.
func TestRestorationThatComesAgainUndoesNothingLater(t *testing.T) {
	d, clock := newTest(t, Options{})
	d.Restore(1, restoration("sub", "a"))
	d.Revoke(2, block(epoch0+1000, "sub", "a"))
	d.SetPosition(revocation.Position{Ledger: "l", Sequence: 2})
	d.Revoke(4, block(epoch0+10, "sub", "a"))
	d.Restore(1, restoration("sub", "a"))
	clock.pass(11 * time.Second)
	if !d.Check(identity("sub", "a")).Denied {
		t.Error("the long decision is gone")
	}
}

func TestAnotherHistoryIsNotUndoneByRestorationsOfTheOld(t *testing.T) {
	for name, next := range map[string]revocation.Position{
		"new ledger":  {Ledger: "b", Sequence: 1},
		"rolled back": {Ledger: "a", Sequence: 10},
		"from zero":   {},
		"re-created":  {Ledger: "a", Created: time.Unix(1, 0), Sequence: 1001},
	} {
		t.Run(name, func(t *testing.T) {
			d, _ := newTest(t, Options{})
			d.SetPosition(revocation.Position{Ledger: "a", Sequence: 999})
			d.Restore(1000, restoration("sub", "a"))
			d.SetPosition(next)
			d.Revoke(11, block(epoch0+10, "sub", "a"))
			if !d.Check(identity("sub", "a")).Denied {
				t.Error("allowed")
			}
		})
	}
}

func TestOwnDecisionsDoNotMoveThePosition(t *testing.T) {
	d, _ := newTest(t, Options{})
	want := revocation.Position{Ledger: "l", Created: time.Unix(1, 0), Sequence: 3, Stored: time.Unix(2, 0)}
	d.SetPosition(want)
	d.Revoke(10, block(epoch0+10, "sub", "a"))
	d.Restore(11, restoration("sub", "a"))
	if got := d.Position(); got != want {
		t.Errorf("%+v", got)
	}
}

// TestRevokeIsVisibleEverywhereWhenItReturns is the linearizability of the
// denylist: a goroutine that learns, by whatever way, that Revoke or Restore
// returned sees its effect, in the index and through remembered tokens.
func TestRevokeIsVisibleEverywhereWhenItReturns(t *testing.T) {
	rounds := 3000
	if testing.Short() {
		rounds = 300
	}
	d, _ := newTest(t, Options{ActorQuota: -1})
	_, epoch := d.ClaimNames()
	const users = 8
	var state [users]atomic.Int64 // odd: revoked; even: restored; negative: being changed
	ids := make([]*revocation.Identity, users)
	seen := make([]*Seen, users)
	for u := range users {
		ids[u] = identity("sub", fmt.Sprint("user", u), "client_id", "app")
		seen[u] = d.Remember(fmt.Sprint("token", u), 0, ids[u], epoch)
	}
	var done atomic.Bool
	var readers sync.WaitGroup
	for r := range max(2, runtime.GOMAXPROCS(0)) {
		readers.Go(func() {
			for i := r; !done.Load(); i++ {
				u := i % users
				before := state[u].Load()
				if before < 0 {
					continue
				}
				dec := d.Check(ids[u])
				if i&1 == 0 {
					dec = d.CheckSeen(seen[u])
				}
				if after := state[u].Load(); after != before {
					continue
				}
				if dec.Denied != (before&1 == 1) {
					t.Errorf("user %d in state %d: %+v", u, before, dec)
					return
				}
			}
		})
	}
	sequence := uint64(0)
	for i := range rounds {
		u := i % users
		was := state[u].Load()
		state[u].Store(-1)
		sequence++
		c := criteria("sub", fmt.Sprint("user", u))
		if i/users%3 == 0 {
			c = criteria("client_id", "app", "sub", fmt.Sprint("user", u))
		}
		if was&1 == 0 {
			d.Revoke(sequence, &revocation.Revocation{ID: "x", Criteria: c, Expires: epoch0 + 1000})
		} else {
			for _, c := range []revocation.Criteria{criteria("sub", fmt.Sprint("user", u)), criteria("client_id", "app", "sub", fmt.Sprint("user", u))} {
				d.Restore(sequence, &revocation.Restoration{ID: "x", Criteria: c, Expires: epoch0 + 1000})
			}
		}
		state[u].Store(was + 1)
		if i%50 == 0 {
			for k := range 200 { // make tables move
				sequence++
				d.Revoke(sequence, block(epoch0+1000, "jti", jti(i*200+k)))
			}
			d.SetPosition(revocation.Position{Sequence: sequence})
			d.sweep(1)
		}
	}
	done.Store(true)
	readers.Wait()
}
