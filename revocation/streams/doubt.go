package streams

import (
	"slices"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/denylist"
)

// wellKnown are the claims that every identity has, if the token has them. Of
// the key, which is no claim, this is true only if it was verified here.
var wellKnown = [...]string{
	revocation.ClaimToken, revocation.ClaimTokenID, revocation.ClaimSubject,
	revocation.ClaimClientID, revocation.ClaimSessionID, revocation.ClaimKeyID,
}

// special tells whether identities have the claim only while a revocation names it.
func special(name string) bool { return !slices.Contains(wellKnown[:], name) }

// doubtful tells whether there can be streams of which nobody knows whether a
// revocation of these claims names them.
func doubtful(names []string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return name == revocation.ClaimKeyID || special(name) })
}

// hidden tells whether a claim that an identity lacks may be one that the token
// has. Read says that special claims were read.
func hidden(name string, read bool) bool {
	return name == revocation.ClaimKeyID || !read && special(name)
}

// hides tells whether a revocation of these claims may name the token although
// the identity lacks some of them.
func hides(id *revocation.Identity, names []string, read bool) bool {
	found := false
	for _, name := range names {
		if len(id.Values(name)) == 0 {
			if !hidden(name, read) {
				return false
			}
			found = true
		}
	}
	return found
}

// supposed returns what of an identity a revocation is about, with its own values
// for the claims that are hidden. It returns nil if what is known tells that the
// revocation does not name the token.
func supposed(id *revocation.Identity, c *denylist.Change, read bool) *revocation.Identity {
	if !issuedBy(id, c.Criteria.Issuer) {
		return nil
	}
	narrow := *id
	narrow.Claims = make([]revocation.Claim, 0, len(c.Names))
	for _, name := range c.Names { // sorted
		claim := revocation.Claim{Name: name, Value: c.Criteria.Claims[name]}
		if known := id.Values(name); len(known) == 0 && !hidden(name, read) || len(known) > 0 && !slices.Contains(known, claim) {
			return nil
		}
		narrow.Claims = append(narrow.Claims, claim)
	}
	return &narrow
}

func issuedBy(id *revocation.Identity, issuer string) bool {
	return id.Issuer == issuer || slices.Contains(id.Aliases, issuer)
}
