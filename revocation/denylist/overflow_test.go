package denylist

import (
	"fmt"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// TestOverflowEndsWithTheEntries presents a token with many groups while the
// entries that name a group come and go. What stays of them after their end must
// not have it refused.
func TestOverflowEndsWithTheEntries(t *testing.T) {
	d, clock := newTest(t, Options{})
	id := identity("sub", "a")
	for i := range maxLookups + 1 {
		id.Claims = append(id.Claims, revocation.Claim{Name: "group", Value: fmt.Sprintf("%03d", i)})
	}
	revocation.SortClaims(id.Claims)
	var seen *Seen
	wants := func(when string, denied, overflow bool) {
		t.Helper()
		_, epoch := d.ClaimNames()
		if seen == nil || seen.epoch < epoch {
			seen = d.Remember("token", 1, id, epoch)
		}
		for _, dec := range []Decision{d.Check(id), d.CheckSeen(seen)} {
			if dec.Denied != denied || dec.Overflow != overflow {
				t.Errorf("%s: %+v", when, dec)
			}
		}
	}
	wants("no entries", false, false)
	d.Revoke(1, block(epoch0+10, "group", "none"))
	wants("an entry", true, true)
	d.Restore(2, restoration("group", "none"))
	wants("restored", false, false)
	d.Revoke(3, block(epoch0+10, "group", "none"))
	clock.pass(11 * time.Second)
	d.steady.wind(clock.Now())
	wants("ended", false, false)
	d.Revoke(4, block(epoch0+100, "sub", "b"))
	wants("another shape", false, false)
	d.Revoke(5, block(epoch0+100, "sub", "a"))
	wants("revoked by another shape", true, false)
	d.Restore(6, restoration("sub", "a"))
	d.Revoke(7, block(epoch0+100, "group", "none"))
	wants("an ended entry is prolonged", true, true)
	clock.pass(91 * time.Second)
	d.steady.wind(clock.Now())
	wants("ended again", false, false)
	clock.step(-10 * time.Second)
	d.steady.wind(clock.Now())
	wants("the clock goes back", true, true)
}
