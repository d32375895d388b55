package streams

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

const elsewhere = "https://other.example"

func at(issuer string, c revocation.Criteria) revocation.Criteria {
	c.Issuer = issuer
	return c
}

// lose makes a token one that can't be read again.
func (o *token) lose() *token {
	o.lost = true
	return o
}

// A revocation that had ended when it was applied makes its shape known, but not
// its claim.
func TestAStreamIsFoundByAClaimThatAnEndedRevocationNamedFirst(t *testing.T) {
	d := newDenylist(t)
	r := byHand(t, d, Options{})
	o := newToken("sub", "alice", "dept", "x").open(r, d, 0)
	ended := block(criteria("dept", "y"))
	ended.Expires = time.Now().Add(-2 * time.Hour).Unix()
	d.Revoke(1, ended)
	r.turn()
	wantCut(t, "not named", o)
	d.Revoke(2, block(criteria("dept", "x")))
	r.turn()
	wantCut(t, "named", o, Revoked)
}

// The denylist forgets a claim that no revocation names any more earlier than the
// registry forgets the shape.
func TestAStreamIsFoundByAClaimThatTheDenylistHadForgotten(t *testing.T) {
	d := newDenylist(t)
	r := byHand(t, d, Options{})
	first := newToken("sub", "bob", "dept", "y").open(r, d, 0)
	d.Revoke(1, block(criteria("dept", "y")))
	r.turn()
	wantCut(t, "first", first, Revoked)
	r.Close(&first.Stream)
	d.Restore(2, &revocation.Restoration{ID: "r", Criteria: criteria("dept", "y")})
	// Nobody is told, since nothing is open; and there is room for one shape less.
	var last revocation.Criteria
	for i := range maxShapes {
		last = revocation.Criteria{Issuer: iss, Claims: make(map[string]string)}
		for bit, name := range wellKnown {
			if (i+1)>>bit&1 == 1 {
				last.Claims[name] = "other"
			}
		}
		d.Revoke(uint64(i+3), block(last))
	}
	if names, _ := d.ClaimNames(); len(names) != 0 {
		t.Fatalf("%q is still read", names)
	}
	d.Restore(90, &revocation.Restoration{ID: "r", Criteria: last})
	o := newToken("sub", "alice", "dept", "x").open(r, d, 0)
	r.turn()
	d.Revoke(91, block(criteria("dept", "x")))
	if names, _ := d.ClaimNames(); !slices.Contains(names, "dept") {
		t.Fatal("dept is not read")
	}
	r.turn()
	wantCut(t, "named", o, Revoked)
}

// What is known twice of a token counts, as it does when the token is presented.
func TestAStreamIsFoundByWhatElseIsKnownOfItsToken(t *testing.T) {
	for what, revoked := range map[string]*revocation.Revocation{
		"by its issuer": block(criteria("sub", "alice")), "by itself": block(criteria("sid", "s")),
		"by itself, at another age": cutoff(criteria("sid", "s"), 600),
	} {
		d := newDenylist(t)
		r := byHand(t, d, Options{})
		o := newToken("sub", "alice", "token", "h").lose()
		itself := newToken("sid", "s", "token", "h").whole
		itself.IssuedAt = 500
		o.Also = &itself
		o.open(r, d, 0)
		spared := newToken("sub", "bob").open(r, d, 0)
		for i, c := range []revocation.Criteria{
			criteria("sub", "bob", "sid", "s"), criteria("sub", "alice", "sid", "s"), at(elsewhere, criteria("sid", "s")),
		} {
			d.Revoke(uint64(i+1), block(c)) // none of the two has both
		}
		r.turn()
		wantCut(t, "not named", o)
		d.Revoke(4, revoked)
		r.turn()
		wantCut(t, what, o, Revoked)
		wantCut(t, "another", spared)
		r.Close(&o.Stream)
		r.turn()
		if o.links != nil {
			t.Error("links are left")
		}
	}
	d := newDenylist(t)
	r := New(Options{Denylist: d}) // does not watch
	r.started = true
	o := newToken("sub", "alice").lose()
	o.Also = &newToken("sid", "s").whole
	o.open(r, d, 0)
	d.Revoke(1, block(criteria("sid", "s")))
	r.CheckAll()
	r.turn()
	wantCut(t, "when all are checked", o, Revoked)
}

// Who is cut in doubt might be named, as far as anybody knows, and nobody else.
func TestOnlyWhoMayBeNamedIsCutInDoubt(t *testing.T) {
	restored := criteria("sub", "alice", "dept", "z")
	for what, c := range map[string]struct {
		revoked *revocation.Revocation
		cut     bool
	}{
		"a claim":                         {block(criteria("dept", "y")), true},
		"a claim of the user":             {block(criteria("dept", "y", "sub", "alice")), true},
		"a claim of another user":         {block(criteria("dept", "y", "sub", "bob")), false},
		"a claim and one it has not":      {block(criteria("dept", "y", "jti", "1")), false},
		"a claim elsewhere":               {block(at(elsewhere, criteria("dept", "y"))), false},
		"a claim of older tokens":         {cutoff(criteria("dept", "y"), 900), false},
		"a claim, up to its age":          {cutoff(criteria("dept", "y"), 2000), true},
		"a claim that is known":           {block(criteria("team", "red")), false},
		"a claim that is known, and not":  {block(criteria("team", "blue", "dept", "y")), true},
		"what is undone":                  {block(restored), false},
		"a key":                           {block(criteria("kid", "k")), true},
		"a key elsewhere":                 {block(at(elsewhere, criteria("kid", "k"))), false},
		"tokens of another user by a key": {block(criteria("kid", "k", "sub", "bob")), false},
	} {
		d := newDenylist(t)
		r := byHand(t, d, Options{})
		d.Revoke(1, block(criteria("team", "green")))
		o := newToken("sub", "alice", "team", "blue").lose().open(r, d, 0)
		proven := newToken("sub", "alice", "kid", "other", "dept", "x").open(r, d, 0)
		r.turn()
		d.Revoke(2, c.revoked)
		d.Restore(3, &revocation.Restoration{ID: "r", Criteria: restored})
		r.turn()
		want := []Reason{Unreadable}[:0]
		if c.cut {
			want = want[:1]
		}
		wantCut(t, what, o, want...)
		wantCut(t, what+", of a token that is known", proven)
	}
}

// A revocation of which only the fingerprint is known may name anybody.
func TestAFingerprintOfUnknownClaimsCutsInDoubt(t *testing.T) {
	d := newDenylist(t)
	r := byHand(t, d, Options{})
	o, known := newToken("sub", "alice").lose().open(r, d, 0), newToken("sub", "alice", "dept", "x").open(r, d, 0)
	c := at(elsewhere, criteria("dept", "y"))
	d.RevokeHeld(1, &revocation.HeldEntry{
		Fingerprint: c.Fingerprint(revocation.Block), Names: c.Names(), Expires: time.Now().Add(time.Hour).Unix(),
	})
	r.turn()
	wantCut(t, "unknown", o, Unreadable)
	wantCut(t, "known", known)
}

// Too many revocations at a time cut no more than the same ones by and by.
func TestABurstCutsOnlyWhoMayBeNamed(t *testing.T) {
	d := newDenylist(t)
	r := byHand(t, d, Options{})
	spared := newToken("sub", "alice").lose()
	spared.whole.Issuer = elsewhere
	spared.open(r, d, 0)
	named, doubted := newToken("sub", "bob").open(r, d, 0), newToken("sub", "carol").lose().open(r, d, 0)
	keyed := newToken("sub", "dora", "kid", "k").lose().open(r, d, 0)
	r.turn()
	d.Revoke(1, block(criteria("kid", "other")))
	for i := range maxPending + 100 {
		d.Revoke(uint64(i+2), block(at(elsewhere, criteria("jti", fmt.Sprint(i)))))
	}
	d.Revoke(9000, block(criteria("sub", "bob")))
	d.Revoke(9001, block(at(elsewhere, criteria("dept", "y", "sub", "eve"))))
	r.turn()
	wantCut(t, "at another issuer", spared)
	wantCut(t, "by a key that did not sign it", keyed)
	wantCut(t, "by its user", named, Revoked)
	wantCut(t, "by a key, perhaps", doubted, Unreadable)

	for i := range maxPending + 100 {
		d.Revoke(uint64(i+9002), block(at(elsewhere, criteria("dept", fmt.Sprint(i), "sub", "eve"))))
	}
	r.turn()
	wantCut(t, "when too many name claims that are not known", spared, Unreadable)
	wantCut(t, "the same, whatever its key", keyed, Unreadable)
}

// A checkpoint may have brought anything.
func TestCheckAllCutsWhoMayBeNamed(t *testing.T) {
	d := newDenylist(t)
	r := New(Options{Denylist: d}) // does not watch
	r.started = true
	o, keyed := newToken("sub", "alice").lose().open(r, d, 0), newToken("sub", "bob", "kid", "k").lose().open(r, d, 0)
	d.Revoke(1, block(criteria("kid", "other")))
	r.CheckAll()
	r.turn()
	wantCut(t, "of an unknown key", o, Unreadable)
	wantCut(t, "of a known key", keyed)
	d.Revoke(2, block(criteria("dept", "y")))
	r.CheckAll()
	r.turn()
	wantCut(t, "with an unknown claim", keyed, Unreadable)
}
