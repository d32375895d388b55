package oauth

import (
	"testing"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// An edge that does not ask knows an opaque token's hash only, and some servers
// make up a jti for every answer.
func TestTokenThatWasAskedAboutIsNamedByItsHash(t *testing.T) {
	id := &revocation.Identity{Issuer: "https://as.example", Claims: []revocation.Claim{
		{Name: revocation.ClaimTokenID, Value: "made up for this answer"},
		{Name: revocation.ClaimToken, Value: "hash"},
	}}
	for _, c := range []struct {
		name  string
		token Resolved
		claim string
	}{
		{"asked about", Resolved{Identity: id, Asked: true}, revocation.ClaimToken},
		{"verified", Resolved{Identity: id}, revocation.ClaimTokenID},
		{"asked about, without a hash", Resolved{Identity: &revocation.Identity{Issuer: id.Issuer, Claims: id.Claims[:1]}, Asked: true}, revocation.ClaimTokenID},
	} {
		criteria, ok := c.token.TokenCriteria()
		if _, named := criteria.Claims[c.claim]; !ok || !named || len(criteria.Claims) != 1 || criteria.Issuer != id.Issuer {
			t.Errorf("%s: %v %t", c.name, criteria, ok)
		}
	}
	if _, ok := (Resolved{Identity: &revocation.Identity{}, Asked: true}).TokenCriteria(); ok {
		t.Error("a token without anything that names it is named")
	}
}
