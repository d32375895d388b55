package revocation

import (
	"cmp"
	"slices"
)

// Claim is one value of one claim, under its canonical name. An array claim is
// several Claims of the same name.
type Claim struct {
	Name  string
	Value string
}

// Identity describes a presented token by what a revocation can say of it. Two
// spellings of the same token have the same identity. It is immutable once made
// and may be shared by any number of goroutines.
type Identity struct {
	// Issuer is the token's iss, in the main spelling if the issuer has several.
	Issuer string
	// Aliases are the issuer's other spellings. A revocation under any of them
	// names the token too: it may have been recorded by an edge that was
	// configured otherwise, or before the issuer was renamed.
	Aliases []string
	// Claims are the claims that criteria may name, sorted by name; see [SortClaims].
	Claims []Claim
	// IssuedAt is iat in Unix seconds, rounded down. Zero if the token has
	// none, which every cutoff denies: a token that hides its age is old.
	IssuedAt int64
	// AuthTime is auth_time in Unix seconds, rounded down; zero, and denied by
	// every [AuthenticatedBefore], if the token has none.
	AuthTime int64
	// NotBefore is nbf in Unix seconds, rounded up; zero if the token has none.
	NotBefore int64
	// Expiry is exp in Unix seconds, rounded up. Zero if the token has none.
	Expiry int64
	// Certificate is the base64url SHA-256 thumbprint of the client certificate
	// that the token is bound to, its cnf's x5t#S256 (RFC 8705, section 3.1); empty
	// if it is bound to none.
	Certificate string
	// ProofKey is the JWK thumbprint of the key that the token is bound to, its
	// cnf's jkt (RFC 9449, section 6.1); empty if it is bound to none.
	ProofKey string
	// Verified is true if the signature (or an introspection answer) proves
	// every member. An identity that was only read proves nothing: whoever
	// presents the token wrote it.
	Verified bool
}

// SortClaims sorts claims by name, then by value, as [Identity.Claims] must be.
func SortClaims(claims []Claim) {
	slices.SortFunc(claims, func(a, b Claim) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Value, b.Value))
	})
}

// Values returns the part of id.Claims that has the given name: none, one, or
// for an array claim several. It does not allocate.
func (id *Identity) Values(name string) []Claim {
	// A token has a handful of claims: looking at each is faster than a search.
	start := 0
	for start < len(id.Claims) && id.Claims[start].Name != name {
		start++
	}
	end := start
	for end < len(id.Claims) && id.Claims[end].Name == name {
		end++
	}
	return id.Claims[start:end]
}

// Value returns the single value of the named claim, and false if the token has
// none or several.
func (id *Identity) Value(name string) (string, bool) {
	if v := id.Values(name); len(v) == 1 {
		return v[0].Value, true
	}
	return "", false
}

// TokenCriteria returns the criteria that names exactly this token: by its jti,
// or by its hash if it has none.
func (id *Identity) TokenCriteria() (Criteria, bool) {
	for _, name := range []string{ClaimTokenID, ClaimToken} {
		if v, ok := id.Value(name); ok && v != "" && len(v) <= MaxClaimValue {
			return Criteria{Issuer: id.Issuer, Claims: map[string]string{name: v}}, true
		}
	}
	return Criteria{}, false
}
