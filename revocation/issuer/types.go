package issuer

import (
	"bytes"
	"slices"
	"strings"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// typePolicy says which kinds of JWT are access tokens. Rules for the kinds must
// exclude each other (RFC 8725, section 3.12): a logout token or an ID token is
// signed with the same keys.
type typePolicy struct {
	accepted []string // normalised; empty for any but other known kinds
	refresh  []string // normalised: those of refresh tokens
}

// otherTypes are the typ values of JWTs that are no access tokens.
var otherTypes = [...]string{
	"logout+jwt",                // OpenID Connect Back-Channel Logout 1.0
	"secevent+jwt",              // RFC 8417
	"dpop+jwt",                  // RFC 9449
	"token-introspection+jwt",   // RFC 9701
	"client-authentication+jwt", // client assertions
	"oauth-authz-req+jwt",       // RFC 9101
	"statuslist+jwt",            // Token Status List
	"global-token-revocation+jwt",
	"oauth-client-attestation+jwt",
	"oauth-client-attestation-pop+jwt",
	"entity-statement+jwt", // OpenID Federation
	"id+jwt", "id_token",
	"kb+jwt", "vc+jwt", "vp+jwt", "dc+sd-jwt", "vc+sd-jwt",
	"openid4vci-proof+jwt",
	"jose+json", "jwe", "jose",
}

// refreshTypes are the typ values of refresh tokens. No RFC has one, some issuers
// do.
var refreshTypes = [...]string{"refresh+jwt", "rt+jwt"}

func newTypePolicy(types, refresh []string) typePolicy {
	var p typePolicy
	for _, t := range refresh {
		p.refresh = append(p.refresh, normalType([]byte(t)))
	}
	for _, t := range types {
		if t == "strict" {
			t = "at+jwt"
		}
		p.accepted = append(p.accepted, normalType([]byte(t)))
	}
	return p
}

// normalType lower-cases a typ value and drops the "application/" that RFC 7515,
// section 4.1.9, lets issuers leave out. No type is the same as "JWT".
func normalType(typ []byte) string {
	t := strings.TrimPrefix(strings.ToLower(string(typ)), "application/")
	if t == "" {
		return "jwt"
	}
	return t
}

// Errors of [typePolicy.check].
var (
	errRefreshToken  = &otherKindError{"it is a refresh token", UseRefresh}
	errIDToken       = &otherKindError{"it is an ID token", UseOther}
	errSecurityEvent = &otherKindError{"it is a security event or logout token", UseOther}
	errOtherJWT      = &otherKindError{"it is another kind of JWT", UseOther}
	errTyp           = &otherKindError{"its typ is not accepted", UseUnknown}
)

// check refuses what is not an access token: the error is an [ErrOtherKind].
func (p typePolicy) check(r *reading) error {
	typ := normalType(r.typ)
	switch {
	case saysRefresh(&r.scanner):
		return errRefreshToken
	case typ == "at+jwt" && (len(p.accepted) == 0 || slices.Contains(p.accepted, typ)):
		return nil // says what it is
	case p.isRefresh(r, typ):
		return errRefreshToken
	case slices.Contains(otherTypes[:], typ):
		return errOtherJWT
	}
	// Before the typ is compared: what a token is recognised as is of use to a
	// revocation endpoint, that its typ is on no list is not.
	if err := checkContents(&r.scanner); err != nil {
		return err
	}
	if len(p.accepted) > 0 && !slices.Contains(p.accepted, typ) {
		return errTyp
	}
	return nil
}

// isRefresh tells whether the token has the typ of a refresh token, in its header
// or as a claim.
func (p typePolicy) isRefresh(r *reading, typ string) bool {
	if slices.Contains(refreshTypes[:], typ) || slices.Contains(p.refresh, typ) {
		return true
	}
	m, found := r.scanner.find("typ")
	if !found || m.kind != kindString {
		return false
	}
	switch string(m.value) { // Keycloak's
	case "Refresh", "Offline":
		return true
	}
	return len(p.refresh) > 0 && slices.Contains(p.refresh, normalType(m.value))
}

// saysRefresh tells whether token_use or token_type says that it is a refresh
// token, in the words that [tokenUse] knows. No other mark outweighs that: no
// issuer writes it into an access token.
func saysRefresh(s *scanner) bool {
	for _, name := range [...]string{"token_use", "token_type"} {
		m, found := s.find(name)
		if !found || m.kind != kindString && m.kind != kindEscaped {
			continue
		}
		text := m.value
		if m.kind == kindEscaped {
			text = unescape(nil, text)
		}
		if n := len(kindURN); len(text) > n && bytes.EqualFold(text[:n], []byte(kindURN)) {
			text = text[n:]
		}
		if bytes.EqualFold(text, []byte("refresh")) || bytes.EqualFold(text, []byte("refresh_token")) {
			return true
		}
	}
	return false
}

// kindURN is what the names of token types begin with (RFC 8693, section 3).
const kindURN = "urn:ietf:params:oauth:token-type:"

// checkContents recognises other kinds of JWT by their claims, where typ leaves
// it open.
func checkContents(s *scanner) error {
	has := func(name string) bool {
		m, found := s.find(name)
		return found && m.kind != kindNull
	}
	if m, found := s.find("events"); found && m.kind == kindObject {
		// Required in logout tokens and security events (RFC 8417, section 2.2),
		// which some issuers send without typ.
		return errSecurityEvent
	}
	if m, found := s.find("typ"); found && m.kind == kindString {
		switch string(m.value) { // Keycloak's own claim
		case "ID", "Logout":
			return errOtherJWT
		}
	}
	// An access token cannot hold its own hash. A nonce and the hash of a code
	// belong to ID tokens too; but issuers that make access tokens out of those
	// (authentik) leave them in, and add the client or the scope.
	if has("at_hash") {
		return errIDToken
	}
	isAccess := has(revocation.ClaimClientID) || has("scope") || has("scp") || has("cid") || has("azp") || has("appid")
	if !isAccess && (has("nonce") || has("c_hash")) {
		return errIDToken
	}
	return nil
}
