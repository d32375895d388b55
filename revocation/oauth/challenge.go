package oauth

import "strings"

// Error codes of RFC 6750, section 3.1, and RFC 6749, section 5.2.
const (
	ErrorInvalidRequest         = "invalid_request"
	ErrorInvalidClient          = "invalid_client"
	ErrorInvalidGrant           = "invalid_grant"
	ErrorInvalidToken           = "invalid_token"
	ErrorUnsupportedTokenType   = "unsupported_token_type" // RFC 7009, section 2.2.1
	ErrorTemporarilyUnavailable = "temporarily_unavailable"
)

const (
	schemeBasic  = "Basic"
	defaultRealm = "oauth"
	maxText      = 512 // bytes of an attribute that is free text
)

// Challenge is the value of a WWW-Authenticate field: one scheme with its
// attributes. A response with several schemes has one field for each; the error
// belongs into the scheme that the client used (RFC 9449, section 7.1).
type Challenge struct {
	// Scheme is [SchemeBearer] (the default), [SchemeDPoP] or "Basic".
	Scheme string
	// Realm names the protection space. It is left out if empty, unless the
	// challenge would have no attribute at all, which RFC 6750, section 3,
	// forbids: then it is "oauth".
	Realm string
	// Error is a code such as "invalid_token". RFC 6750, section 3.1: a request
	// without any token is answered with a challenge without an error.
	Error string
	// Description tells a developer, not a user, what is wrong. It must not
	// quote the request. Left out if Error is empty.
	Description string
	// Scope lists what the resource asks for, separated by spaces.
	Scope string
	// ResourceMetadata is the URL of the protected resource's metadata (RFC
	// 9728, section 5.1).
	ResourceMetadata string
	// Algorithms lists the JWS algorithms that are accepted in proofs, separated
	// by spaces (RFC 9449, section 7.1). Only for DPoP.
	Algorithms string
}

// String returns c as a header field value. Every attribute appears at most
// once. Characters outside of %x20-21 / %x23-5B / %x5D-7E, which RFC 6750,
// section 3, does not allow, are replaced in texts; a scope, an algorithm or a
// URL with one of them is left out instead, since another text in its place
// would mean something else.
func (c Challenge) String() string {
	var b strings.Builder
	scheme := c.Scheme
	if name, _ := cutScheme(scheme); name == "" || name != scheme {
		scheme = SchemeBearer
	}
	b.WriteString(scheme)
	first := true
	add := func(name, value string) {
		if value == "" {
			return
		}
		if !first {
			b.WriteByte(',')
		}
		first = false
		b.WriteByte(' ')
		b.WriteString(name)
		b.WriteString(`="`)
		b.WriteString(value)
		b.WriteByte('"')
	}
	add("realm", cleanText(c.Realm))
	if code := cleanText(c.Error); code != "" {
		add("error", code)
		add("error_description", cleanText(c.Description))
	}
	add("scope", cleanList(c.Scope))
	if legal(c.ResourceMetadata, false) {
		add("resource_metadata", c.ResourceMetadata)
	}
	if scheme == SchemeDPoP {
		add("algs", cleanList(c.Algorithms))
	}
	if first {
		add("realm", defaultRealm)
	}
	return b.String()
}

// cleanText keeps a text within the characters that RFC 6749, section 5.2, and
// RFC 6750, section 3, allow in descriptions. No CR, LF or quote gets through:
// the text can neither end its attribute nor its header.
func cleanText(s string) string {
	truncated := len(s) > maxText
	if truncated {
		s = s[:maxText]
	}
	if !truncated && legal(s, true) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if r > 0x7e || !legalChar(byte(r), true) {
			return '?'
		}
		return r
	}, s)
}

// cleanList keeps the members of a space-separated list that are legal.
func cleanList(s string) string {
	members := strings.Fields(s)
	kept := members[:0]
	for _, m := range members {
		if legal(m, false) {
			kept = append(kept, m)
		}
	}
	return strings.Join(kept, " ")
}

func legal(s string, space bool) bool {
	for i := range len(s) {
		if !legalChar(s[i], space) {
			return false
		}
	}
	return true
}

func legalChar(c byte, space bool) bool {
	if c == ' ' {
		return space
	}
	return 0x21 <= c && c <= 0x7e && c != '"' && c != '\\'
}
