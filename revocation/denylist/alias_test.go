package denylist

import (
	"fmt"
	"testing"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// TestAliasesCostNoTokenItsBudget has more look-ups than one token may cause by
// its own values, all because the issuer has several spellings.
func TestAliasesCostNoTokenItsBudget(t *testing.T) {
	d, _ := newTest(t, Options{})
	id := identity("sub", "alice")
	for i := range 8 {
		id.Aliases = append(id.Aliases, fmt.Sprintf("https://alias-%d.example", i))
	}
	for i := range 30 {
		name := fmt.Sprint("claim-", i)
		id.Claims = append(id.Claims, revocation.Claim{Name: name, Value: "x"})
		d.Revoke(uint64(i+1), block(epoch0+1000, name, "another value"))
	}
	revocation.SortClaims(id.Claims)
	if dec := d.Check(id); dec.Denied || dec.Overflow {
		t.Fatalf("%+v for a token that nothing names", dec)
	}
	r := block(epoch0+1000, "sub", "alice")
	r.Criteria.Issuer = id.Aliases[5]
	d.Revoke(100, r)
	_, epoch := d.ClaimNames()
	for what, dec := range map[string]Decision{
		"read now": d.Check(id), "remembered": d.CheckSeen(d.Remember("token", 1, id, epoch)),
	} {
		if !dec.Denied || dec.Overflow || dec.Sequence != 100 {
			t.Errorf("%s: %+v for a token that is revoked under an alias", what, dec)
		}
	}
}
