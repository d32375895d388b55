package streams

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/denylist"
)

func TestARevocationCutsTheStreamsThatItNamesAndNoOthers(t *testing.T) {
	alice := []string{"sub", "alice", "client_id", "app", "sid", "s1", "jti", "a"}
	for _, test := range []struct {
		name   string
		token  []string
		revoke *revocation.Revocation
		cut    bool
	}{
		{"its user", alice, block(criteria("sub", "alice")), true},
		{"another user", alice, block(criteria("sub", "bob")), false},
		{"its session", alice, block(criteria("sid", "s1")), true},
		{"its client", alice, block(criteria("client_id", "app")), true},
		{"its grant", alice, block(criteria("client_id", "app", "sub", "alice")), true},
		{"its user at another client", alice, block(criteria("client_id", "web", "sub", "alice")), false},
		{"itself", alice, block(criteria("jti", "a")), true},
		{"the whole issuer", alice, block(criteria()), true},
		{"another issuer", alice, block(revocation.Criteria{Issuer: iss + "/"}), false},
		{"a value of an array", append(alice, "roles", "admin", "roles", "user"), block(criteria("roles", "user")), true},
		{"a claim that it lacks", alice, block(criteria("roles", "user")), false},
		{"its user up to a later second", alice, cutoff(criteria("sub", "alice"), 1001), true},
		{"its user up to an earlier second", alice, cutoff(criteria("sub", "alice"), 999), false},
		{"its signing key", append(alice, "kid", "k"), block(criteria("kid", "k")), true},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := newDenylist(t)
			r := byHand(t, d, Options{})
			before := newToken(test.token...).open(r, d, 0)
			r.turn() // one is indexed, one is young
			after := newToken(test.token...).open(r, d, 0)
			d.Revoke(7, test.revoke)
			r.turn()
			r.turn()
			var want []Reason
			if test.cut {
				want = []Reason{Revoked}
			}
			wantCut(t, "indexed", before, want...)
			wantCut(t, "young", after, want...)
			for _, c := range before.cuts() {
				if c.Sequence != 7 {
					t.Errorf("the cause names entry %d", c.Sequence)
				}
			}
		})
	}
}

func TestARevocationUnderAnAliasCutsStreams(t *testing.T) {
	d := newDenylist(t)
	r := byHand(t, d, Options{})
	o := newToken("sub", "alice")
	o.whole.Aliases = []string{iss + "/"}
	o.open(r, d, 0)
	c := criteria("sub", "alice")
	c.Issuer += "/"
	d.Revoke(1, block(c))
	r.turn()
	wantCut(t, "alias", o, Revoked)
}

func TestARevocationOfWhichOnlyTheFingerprintIsKnownCutsStreams(t *testing.T) {
	d := newDenylist(t)
	r := byHand(t, d, Options{})
	alice, bob := newToken("sub", "alice").open(r, d, 0), newToken("sub", "bob").open(r, d, 0)
	b := block(criteria("sub", "alice"))
	d.RevokeHeld(1, &revocation.HeldEntry{
		Fingerprint: b.Criteria.Fingerprint(b.Mode), Mode: b.Mode, Names: b.Criteria.Names(), Expires: b.Expires,
	})
	r.turn()
	wantCut(t, "alice", alice, Revoked)
	wantCut(t, "bob", bob)
}

func TestWhatWasRestoredBeforeItWasSeenCutsNothing(t *testing.T) {
	d := newDenylist(t)
	r := byHand(t, d, Options{})
	o := newToken("sub", "alice").open(r, d, 0)
	b := block(criteria("sub", "alice"))
	d.Revoke(1, b)
	d.Restore(2, &revocation.Restoration{ID: "r", Criteria: b.Criteria})
	r.turn()
	wantCut(t, "restored", o)
	d.Revoke(3, b)
	r.turn()
	wantCut(t, "revoked again", o, Revoked)
}

// A claim that no revocation named before is not in the identities of streams
// that are open by then.
func TestARevocationByAClaimThatWasNotReadCutsStreams(t *testing.T) {
	d := newDenylist(t)
	r := byHand(t, d, Options{})
	red := newToken("sub", "a", "team", "red", "roles", "x").open(r, d, 0)
	blue := newToken("sub", "b", "team", "blue", "roles", "y").open(r, d, 0)
	r.turn()
	d.Revoke(1, block(criteria("team", "red")))
	r.turn()
	wantCut(t, "red", red, Revoked)
	wantCut(t, "blue", blue)
	// The second of two new names in a row: the first reading did not bring it.
	d.Revoke(2, block(criteria("roles", "y")))
	r.turn()
	wantCut(t, "blue, by its role", blue, Revoked)
	if n := blue.readings.Load(); n != 2 {
		t.Errorf("read %d times for two claims", n)
	}
}

func TestAStreamWhoseTokenCantBeReadAgainIsCutInDoubt(t *testing.T) {
	d := newDenylist(t)
	r := byHand(t, d, Options{})
	lost := newToken("sub", "a")
	lost.lost = true
	lost.open(r, d, 0)
	d.Revoke(1, block(criteria("sub", "b")))
	r.turn()
	wantCut(t, "a claim that is known", lost)
	other := criteria("team", "red")
	other.Issuer = "https://other.example"
	d.Revoke(2, block(other))
	r.turn()
	wantCut(t, "another issuer's claim", lost)
	d.Revoke(3, block(criteria("team", "red")))
	r.turn()
	wantCut(t, "a claim that is not", lost, Unreadable)
}

func TestATokenWithTooManyValuesIsJudgedByTheRevocationThatNamesIt(t *testing.T) {
	d := newDenylist(t)
	r := byHand(t, d, Options{})
	var roles []string
	for i := range 40 {
		roles = append(roles, "roles", fmt.Sprint(i), "groups", fmt.Sprint(i))
	}
	// Each shape alone has few enough combinations, both together have not.
	newer := newToken(append(roles, "sub", "a")...).open(r, d, 0)
	named := newToken(append(roles, "sub", "b")...).open(r, d, 0)
	d.Revoke(1, block(criteria("roles", "none")))
	d.Revoke(2, block(criteria("groups", "none")))
	d.Revoke(3, cutoff(criteria("sub", "a"), 999))
	d.Revoke(4, cutoff(criteria("sub", "b"), 1001))
	if !d.Check(newer.extract([]string{"roles", "groups"})).Overflow {
		t.Fatal("the denylist judges it")
	}
	r.turn()
	wantCut(t, "a newer token", newer)
	wantCut(t, "the token that is named", named, Revoked)
	// This can't be looked up at all.
	d.Revoke(5, block(criteria("roles", "none", "groups", "none")))
	r.turn()
	wantCut(t, "too many", newer, TooManyValues)
}

func TestAStreamIsCutWhenItsTokenExpires(t *testing.T) {
	d := newDenylist(t)
	now := time.Unix(5000, 0)
	r := byHand(t, d, Options{Now: func() time.Time { return now }})
	never := newToken("sub", "a").open(r, d, 0)
	var early []*token
	for i := range 50 {
		early = append(early, newToken("sub", "a").open(r, d, 5010+int64(i*37%50)))
	}
	closed := newToken("sub", "a").open(r, d, 5010)
	r.turn()
	r.Close(&closed.Stream)
	for ; now.Unix() < 5070; now = now.Add(time.Second) {
		r.turn()
		for i, o := range early {
			var want []Reason
			if now.Unix() >= 5010+int64(i*37%50) {
				want = []Reason{Expired}
			}
			wantCut(t, fmt.Sprintf("stream %d at %d", i, now.Unix()), o, want...)
		}
	}
	wantCut(t, "one that does not expire", never)
	wantCut(t, "one that was closed", closed)
}

func TestNothingIsCutAfterClose(t *testing.T) {
	d := newDenylist(t)
	r := byHand(t, d, Options{})
	young, old := newToken("sub", "a"), newToken("sub", "a").open(r, d, 0)
	r.turn()
	young.open(r, d, 0)
	d.Revoke(1, block(criteria("sub", "a")))
	r.Close(&young.Stream)
	r.Close(&old.Stream)
	r.turn()
	wantCut(t, "young", young)
	wantCut(t, "indexed", old)
	r.turn()
	if n := r.Len(); n != 0 || r.index.all.head.next != &r.index.all.head {
		t.Errorf("%d are left", n)
	}
	for _, sh := range r.index.shapes {
		if len(sh.streams) != 0 {
			t.Errorf("%v still leads to %d streams", sh.names, len(sh.streams))
		}
	}
}

func TestABurstBeyondWhatIsQueuedCutsTheSame(t *testing.T) {
	d := newDenylist(t)
	r := byHand(t, d, Options{})
	named, other := newToken("jti", "5000", "team", "x"), newToken("jti", "x", "team", "y")
	named.open(r, d, 0)
	other.open(r, d, 0)
	for i := range maxPending + 1000 {
		d.Revoke(uint64(i+1), block(criteria("jti", fmt.Sprint(i))))
	}
	d.Revoke(9000, block(criteria("team", "z")))
	if n := len(r.pending.changes); n > 1 || !r.pending.all { // that of the team is kept
		t.Fatalf("%d changes are queued", n)
	}
	r.turn()
	wantCut(t, "named", named, Revoked)
	wantCut(t, "other", other)
	d.Revoke(9001, block(criteria("team", "y")))
	r.turn()
	wantCut(t, "other, by its team", other, Revoked)
}

func TestCheckAllFindsWhatNobodyWasToldOf(t *testing.T) {
	d := newDenylist(t)
	r := New(Options{Denylist: d}) // does not watch
	r.started = true
	named, other := newToken("sub", "a").open(r, d, 0), newToken("sub", "b").open(r, d, 0)
	d.Revoke(1, block(criteria("sub", "a")))
	r.turn()
	wantCut(t, "before", named)
	r.CheckAll()
	r.turn()
	wantCut(t, "named", named, Revoked)
	wantCut(t, "other", other)
}

func TestShapesThatAreNotUsedAreDropped(t *testing.T) {
	d := newDenylist(t)
	now := time.Now()
	r := byHand(t, d, Options{Now: func() time.Time { return now }})
	o := newToken("sub", "a", "sid", "s", "jti", "j").open(r, d, 0)
	for i, name := range []string{"sub", "sid", "jti"} {
		d.Revoke(uint64(i+1), block(criteria(name, "other")))
		r.turn()
		now = now.Add(idleShape / 2)
	}
	r.turn()
	if n := len(r.index.shapes); n != 1 {
		t.Errorf("%d shapes are kept", n)
	}
	links := 0
	for l := o.links; l != nil; l = l.sibling {
		links++
	}
	if links != 1 {
		t.Errorf("the stream has %d links", links)
	}
	d.Revoke(9, block(criteria("sub", "a")))
	r.turn()
	wantCut(t, "under a shape that was dropped", o, Revoked)
}

func TestShapesAreBounded(t *testing.T) {
	d := newDenylist(t)
	r := byHand(t, d, Options{})
	o := newToken("sub", "a").open(r, d, 0)
	for i := range 3 * maxShapes {
		r.Applied(denylist.Change{Names: []string{fmt.Sprint("claim", i)}})
		r.turn()
	}
	if n := len(r.index.shapes); n > maxShapes {
		t.Errorf("%d shapes", n)
	}
	d.Revoke(1, block(criteria("sub", "a")))
	r.turn()
	wantCut(t, "sub", o, Revoked)
}

func TestBatchesAreReported(t *testing.T) {
	d := newDenylist(t)
	got := make(map[CutError]int)
	r := byHand(t, d, Options{Report: func(b Batch) { got[b.Cause] += b.Streams }})
	for i := range 500 {
		newToken("sub", fmt.Sprint(i%2)).open(r, d, 0)
	}
	d.Revoke(3, block(criteria("sub", "0")))
	d.Revoke(4, cutoff(criteria("sub", "1"), 2000))
	r.turn()
	want := map[CutError]int{
		{Reason: Revoked, Sequence: 3, Shape: "sub"}:                                250,
		{Reason: Revoked, Sequence: 4, Shape: "sub", Mode: revocation.IssuedBefore}: 250,
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("reported %v", got)
	}
}

// Promise 2, with everything at once: whoever registers and then checks is either
// refused by the check or cut.
func TestNoStreamEscapesARevocationThatComesWhileItOpens(t *testing.T) {
	d := newDenylist(t)
	r := watching(t, d, Options{Interval: time.Millisecond})
	const users, each = 20, 200
	var opening sync.WaitGroup
	all := make([][]*token, users)
	for u := range users {
		opening.Go(func() {
			for i := range each {
				o := newToken("sub", fmt.Sprint(u), "jti", fmt.Sprint(u, i))
				names, epoch := d.ClaimNames()
				id := o.extract(names)
				r.Open(&o.Stream, o, id, epoch, 0)
				if d.Check(id).Denied {
					r.Close(&o.Stream)
					continue
				}
				if i%3 == 0 {
					r.Close(&o.Stream) // a short request
					continue
				}
				all[u] = append(all[u], o)
			}
		})
	}
	for u := 0; u < users; u += 2 {
		opening.Go(func() { d.Revoke(uint64(u+1), block(criteria("sub", fmt.Sprint(u)))) })
	}
	opening.Wait()
	for u := range users {
		for _, o := range all[u] {
			if u%2 == 1 {
				wantCut(t, "untouched", o)
				continue
			}
			for deadline := time.Now().Add(20 * time.Second); len(o.cuts()) == 0; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("a stream of user %d lives on", u)
				}
			}
		}
	}
}
