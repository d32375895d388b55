package revocation

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Canonical claim names. Issuers spell some of them differently (Okta calls
// client_id "cid", Entra calls jti "uti"); the issuer's claim map translates, so
// that everything behind it sees these names only.
const (
	// ClaimToken is no claim of the token but its own hash: the base64url
	// SHA-256 of a JWT's signing input, or of an opaque token's canonical
	// spelling. It names exactly one token, also one without a jti.
	ClaimToken = "token"
	// ClaimTokenID is the token identifier (RFC 7519, section 4.1.7), unique
	// per issuer only.
	ClaimTokenID = "jti"
	// ClaimSubject is the user, or the client itself under the client
	// credentials grant (RFC 9068, section 5).
	ClaimSubject = "sub"
	// ClaimClientID is the client that the token was issued to (RFC 9068).
	ClaimClientID = "client_id"
	// ClaimSessionID is the login session (OpenID Connect Back-Channel Logout
	// 1.0, section 2.4).
	ClaimSessionID = "sid"
	// ClaimKeyID is the RFC 7638 thumbprint of the key that the signature was
	// verified with. Never the header's kid: whoever holds a leaked key writes
	// any kid.
	ClaimKeyID = "kid"
)

// Bounds of a criteria. A criteria comes from outside (an administrator, another
// producer on the ledger), and is held in memory by every edge.
const (
	MaxCriteriaClaims = 8
	MaxClaimName      = 128  // bytes
	MaxClaimValue     = 1024 // bytes
	MaxIssuer         = 1024 // bytes
)

// ErrInvalidCriteria is wrapped by every error of [Criteria.Validate].
var ErrInvalidCriteria = errors.New("invalid criteria")

// Criteria says which tokens a revocation names: those of one issuer whose
// claims have all of the given values. {jti} is one token, {sub} a user,
// {client_id} a client, {sid} a session, {sub, client_id} a grant, {kid} a
// signing key, no claim at all the whole issuer.
//
// A claim that is an array in the token matches if it contains the value.
// Numbers and booleans are compared by their JSON text, integers in plain
// decimal: 5, 5.0 and 5e0 are all "5", and so is the string "5".
type Criteria struct {
	// Issuer is the exact iss of the tokens, compared byte by byte (RFC 9068,
	// section 4).
	Issuer string
	// Claims maps canonical claim names to the value that each must have.
	Claims map[string]string
}

// Validate reports the first reason why c could not be stored or matched.
// The error wraps [ErrInvalidCriteria].
func (c Criteria) Validate() error {
	if c.Issuer == "" {
		return fmt.Errorf("%w: the issuer is missing", ErrInvalidCriteria)
	}
	if len(c.Issuer) > MaxIssuer || !utf8.ValidString(c.Issuer) {
		return fmt.Errorf("%w: the issuer is not valid UTF-8 of at most %d bytes", ErrInvalidCriteria, MaxIssuer)
	}
	if len(c.Claims) > MaxCriteriaClaims {
		return fmt.Errorf("%w: %d claims, at most %d can be combined", ErrInvalidCriteria, len(c.Claims), MaxCriteriaClaims)
	}
	for _, name := range c.Names() {
		value := c.Claims[name]
		switch {
		case name == "" || len(name) > MaxClaimName || !utf8.ValidString(name):
			return fmt.Errorf("%w: a claim name is not valid UTF-8 of 1 to %d bytes", ErrInvalidCriteria, MaxClaimName)
		case value == "" || len(value) > MaxClaimValue || !utf8.ValidString(value):
			return fmt.Errorf("%w: the value of %q is not valid UTF-8 of 1 to %d bytes", ErrInvalidCriteria, name, MaxClaimValue)
		}
	}
	return nil
}

// Names returns the claim names of c in sorted order.
func (c Criteria) Names() []string {
	names := make([]string, 0, len(c.Claims))
	for name := range c.Claims {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// NamesOneToken tells whether c can match at most one token: it names it by jti
// or by its own hash.
func (c Criteria) NamesOneToken() bool {
	_, byID := c.Claims[ClaimTokenID]
	_, byHash := c.Claims[ClaimToken]
	return byID || byHash
}

// String describes c for logs and for people. It holds no secret: a token
// appears by its hash only.
func (c Criteria) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "issuer=%q", c.Issuer)
	for _, name := range c.Names() {
		fmt.Fprintf(&b, " %s=%q", name, c.Claims[name])
	}
	return b.String()
}
