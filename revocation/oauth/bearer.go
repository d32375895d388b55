package oauth

import (
	"bytes"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
)

// Errors of [BearerToken].
var (
	// ErrNoToken says that the request carries no token in its Authorization
	// header: there is none, it is empty, or it is of another scheme, such as
	// Basic. The request passes as one without a token.
	ErrNoToken = errors.New("the request carries no token")
	// ErrSeveralTokens says that there is more than one Authorization field. An
	// upstream may read another one than we do, so such a request is answered
	// with 400 invalid_request and never forwarded (RFC 6750, section 2).
	ErrSeveralTokens = errors.New("the request has more than one authorization header")
	// ErrBadAuthorization says that the header cannot be read as exactly one
	// token. The request is answered with 400 invalid_request and never
	// forwarded, since an upstream might still find a token in it.
	ErrBadAuthorization = errors.New("the authorization header is malformed")
)

// Authentication schemes under which access tokens are presented, as they are
// spelled in challenges.
const (
	SchemeBearer = "Bearer" // RFC 6750
	SchemeDPoP   = "DPoP"   // RFC 9449, section 7.1
)

// Presented is a token as it stands in a request.
type Presented struct {
	// Token is the token68 text, unverified. It is a secret: never log it.
	Token string
	// Scheme is [SchemeBearer] or [SchemeDPoP], however the request spelled it.
	// It is Bearer outside of the Authorization field.
	Scheme string
	// Place is where the token was.
	Place PlaceKind
}

// BearerToken returns the token in the Authorization field of h: the scheme
// Bearer (RFC 6750, section 2.1) or DPoP (RFC 9449, section 7.1) in any letter
// case, one or more spaces, and a token68. White space around the field is not
// part of its value (RFC 9110, section 5.5).
//
// The error is [ErrNoToken], [ErrSeveralTokens] or [ErrBadAuthorization].
// Schemes that only begin like ours ("BearerX") are refused as malformed, and so
// are other schemes with a token after a space or a comma: an upstream that
// cuts off seven bytes, or looks for "Bearer" anywhere, would accept them. The
// same goes for other schemes with a JWT anywhere, which is what an upstream finds
// that does not look at the scheme. A token68 without a scheme is a token: most
// upstreams remove "Bearer " if it is there.
//
// BearerToken does not allocate if there is a token after its scheme.
func BearerToken(h http.Header) (Presented, error) {
	fields := h["Authorization"]
	switch len(fields) {
	case 0:
		return Presented{}, ErrNoToken
	case 1:
	default:
		return Presented{}, ErrSeveralTokens
	}
	value := trimSpace(fields[0])
	if value == "" {
		return Presented{}, ErrNoToken
	}
	scheme, rest := cutScheme(value)
	var canonical string
	switch {
	case scheme == "":
		return Presented{}, ErrBadAuthorization
	case hasPrefixFold(scheme, SchemeBearer):
		canonical = SchemeBearer
	case hasPrefixFold(scheme, SchemeDPoP):
		canonical = SchemeDPoP
	case namesToken(rest):
		return Presented{}, ErrBadAuthorization
	default:
		return withoutScheme(value)
	}
	if len(scheme) != len(canonical) {
		return Presented{}, ErrBadAuthorization
	}
	token, ok := cutSpaces(rest)
	if !ok || !isToken68(token) {
		return Presented{}, ErrBadAuthorization
	}
	return Presented{Token: token, Scheme: canonical}, nil
}

// withoutScheme reads a value that does not begin with one of our schemes.
func withoutScheme(value string) (Presented, error) {
	jwt := indexJWT(value)
	switch {
	case jwt <= 0 && isToken68(value):
		return Presented{Token: value, Scheme: SchemeBearer}, nil
	case jwt >= 0:
		return Presented{}, ErrBadAuthorization
	default:
		return Presented{}, ErrNoToken
	}
}

// cutScheme splits a credentials value after its auth-scheme, a token of RFC
// 9110, section 5.6.2. The rest begins with whatever ended the scheme.
func cutScheme(value string) (scheme, rest string) {
	for i := range len(value) {
		if !isTokenChar(value[i]) {
			return value[:i], value[i:]
		}
	}
	return value, ""
}

// cutSpaces removes the 1*SP between scheme and credentials. A tab is no SP.
func cutSpaces(s string) (string, bool) {
	i := 0
	for i < len(s) && s[i] == ' ' {
		i++
	}
	return s[i:], i > 0
}

// namesToken tells whether the credentials of another scheme have, at the
// beginning of a word, the name of one of ours with something after it.
func namesToken(s string) bool {
	word := true // whether s[i] begins a word
	for i := range len(s) {
		if word && (beginsToken(s[i:], SchemeBearer) || beginsToken(s[i:], SchemeDPoP)) {
			return true
		}
		word = !isTokenChar(s[i])
	}
	return false
}

func beginsToken(s, scheme string) bool {
	if len(s) <= len(scheme) || !hasPrefixFold(s, scheme) {
		return false
	}
	after := s[len(scheme)]
	return after == ' ' || after == '\t' || after >= 0x80 // some take a no-break space for one
}

// How many beginnings of a JWT are looked at in one field, and up to what length,
// which bounds what a field that is full of them costs. Beyond that, it has one.
const (
	maxHeaders    = 32
	maxHeaderText = 8 << 10
)

// indexJWT returns where in s a JWT begins, -1 if there is none: a JSON object in
// base64url (RFC 7515, section 7.1) and two dots.
func indexJWT(s string) int {
	at, looked := 0, 0
	for {
		i := strings.IndexByte(s[at:], 'e') // the first character of what is encoded from a brace
		if i < 0 {
			return -1
		}
		at += i
		if at+1 < len(s) && (s[at+1] == 'y' || s[at+1] == 'w') { // and a quote or white space
			header, rest, _ := strings.Cut(s[at:], ".")
			if !strings.Contains(rest, ".") {
				return -1
			}
			if looked++; looked > maxHeaders || len(header) > maxHeaderText || isObject(header) {
				return at
			}
		}
		at++
	}
}

// isObject tells whether s may be a JSON object in base64url.
func isObject(s string) bool {
	text, err := base64.RawURLEncoding.DecodeString(s)
	text = bytes.TrimSpace(text)
	return err == nil && bytes.HasPrefix(text, []byte("{")) && bytes.HasSuffix(text, []byte("}"))
}

// isToken68 checks the grammar of RFC 9110, section 11.2. It keeps out commas,
// quotes and white space, in which two parsers could find different tokens.
func isToken68(s string) bool {
	end := len(s)
	for end > 0 && s[end-1] == '=' {
		end--
	}
	if end == 0 {
		return false
	}
	for i := range end {
		if !token68[s[i]] {
			return false
		}
	}
	return true
}

// token68 has the characters of RFC 9110, section 11.2, but for the padding. It
// is a table since every token is read with it on every request.
var token68 = func() (table [256]bool) {
	for c := range table {
		table[c] = isAlphaNum(byte(c)) || strings.IndexByte("-._~+/", byte(c)) >= 0
	}
	return table
}()

func isTokenChar(c byte) bool {
	switch c {
	case '!', '#', '$', '%', '&', '\'', '*', '+', '-', '.', '^', '_', '`', '|', '~':
		return true
	}
	return isAlphaNum(c)
}

func isAlphaNum(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// hasPrefixFold compares ASCII letters without regard to case, and nothing else:
// strings.EqualFold would take "Baſic", with a long s, for "Basic".
func hasPrefixFold(s, prefix string) bool {
	if len(s) < len(prefix) {
		return false
	}
	for i := range len(prefix) {
		if lower(s[i]) != lower(prefix[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// trimSpace removes the OWS of RFC 9110, section 5.6.3: space and tab only.
func trimSpace(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}
