package issuer

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"sync"
)

// Bounds of a token. They are far above what issuers send and far below what
// would make reading garbage expensive.
const (
	maxToken = 16 << 10 // bytes
	maxKeyID = 512      // bytes, of the header's kid
)

// A reading is what a signed JWT says of itself, before anything is proven. Its
// slices refer to its own buffers: nothing of it may be kept after free.
type reading struct {
	raw     []byte // the token as received
	text    []byte // header and payload, decoded
	payload []byte
	signed  int // length of the signing input, raw[:signed]
	scanner scanner
	scratch []byte

	alg    []byte
	typ    []byte // empty if absent
	kid    []byte
	hasKid bool

	registered [registeredClaims]member // without a name if absent

	values []value // of the identity being made
	joined []byte  // their texts
}

var readings = sync.Pool{New: func() any { return new(reading) }}

func (r *reading) free() { readings.Put(r) }

// read takes a token apart. The caller frees the reading. Errors wrap
// [ErrMalformed] or [ErrNotJWT].
//
// The strictness is what makes one token one identity: the token's hash is taken
// over header and payload exactly as received, and the signature covers exactly
// these characters, so no second spelling of them can pass verification. Two
// things would break that, and are refused although some decoders take them:
// characters outside the alphabet (Go's decoder skips CR and LF even when
// strict), and spare bits set in the last character of header or payload (a
// verifier that re-encodes what it decoded, as go-jose does, does not see them).
// The third segment is another matter. Its spare bits, and for ECDSA a second
// value of s, give every signed token more spellings that verify; the signature
// is no part of the identity, so they all have the same.
func read(token string) (*reading, error) {
	header, rest, ok := strings.Cut(token, ".")
	payload, signature, ok2 := strings.Cut(rest, ".")
	if !ok || !ok2 || strings.Contains(signature, ".") {
		return nil, otherKind(token)
	}
	if len(token) > maxToken {
		return nil, malformedError("it is longer than 16 KiB")
	}
	// The strict decoder finds every other wrong character in the first two.
	if strings.IndexByte(token, '\n') >= 0 || strings.IndexByte(token, '\r') >= 0 || !isBase64URL(signature) {
		return nil, otherKind(token)
	}
	if signature == "" || len(signature)%4 == 1 {
		return nil, otherKind(token)
	}
	r := readings.Get().(*reading)
	if err := r.read(token, len(header), len(payload)); err != nil {
		r.free()
		if !looksLikeJWT(token) {
			return nil, ErrNotJWT
		}
		return nil, err
	}
	return r, nil
}

func (r *reading) read(token string, header, payload int) (err error) {
	r.raw = append(r.raw[:0], token...)
	r.signed = header + 1 + payload
	r.alg, r.typ, r.kid, r.hasKid = nil, nil, nil, false
	r.scratch = r.scratch[:0]

	r.text, err = strictBase64.AppendDecode(r.text[:0], r.raw[:header])
	if err != nil {
		return errBase64
	}
	end := len(r.text)
	r.text, err = strictBase64.AppendDecode(r.text, r.raw[header+1:r.signed])
	if err != nil {
		return errBase64
	}
	if err := r.readHeader(r.text[:end]); err != nil {
		return err
	}
	r.payload = r.text[end:]
	if err := r.scanner.scan(r.payload); err != nil {
		return err
	}
	r.registered = [registeredClaims]member{}
	for _, m := range r.scanner.members {
		switch string(m.name) {
		case "iss":
			r.registered[claimIss] = m
		case "exp":
			r.registered[claimExp] = m
		case "iat":
			r.registered[claimIat] = m
		case "nbf":
			r.registered[claimNbf] = m
		case "auth_time":
			r.registered[claimAuthTime] = m
		}
	}
	return nil
}

// Claims that every token is asked for, found in one pass.
const (
	claimIss = iota
	claimExp
	claimIat
	claimNbf
	claimAuthTime
	registeredClaims
)

var strictBase64 = base64.RawURLEncoding.Strict()

const errBase64 = malformedError("a segment is not canonical base64url")

func (r *reading) readHeader(text []byte) error {
	if err := r.scanner.scan(text); err != nil {
		return err
	}
	for i := range r.scanner.members {
		m := &r.scanner.members[i]
		var into *[]byte
		switch string(m.name) {
		case "x5c":
			if err := checkChain(m); err != nil {
				return err
			}
		case "alg":
			into = &r.alg
		case "typ":
			into = &r.typ
		case "kid":
			into = &r.kid
		case "crit":
			// We understand no extension, and crit asks those who don't to
			// refuse (RFC 7515, section 4.1.11).
			return malformedError("the header has critical extensions")
		case "b64":
			if m.kind != kindTrue { // RFC 7797
				return malformedError("the payload is not base64url-encoded")
			}
		case "jwk":
			// A token that brings the key to verify it with is a proof of
			// possession (RFC 9449), never an access token (RFC 8725, 3.10).
			return malformedError("the header embeds a key")
		case "nonce":
			if m.kind != kindString && m.kind != kindEscaped {
				return errHeader
			}
		}
		if into == nil {
			continue
		}
		switch m.kind {
		case kindString:
			*into = m.value
		case kindEscaped:
			start := len(r.scratch)
			r.scratch = unescape(r.scratch, m.value)
			*into = r.scratch[start:len(r.scratch):len(r.scratch)]
		default:
			return errHeader
		}
	}
	switch {
	case len(r.alg) == 0:
		return malformedError("the header names no algorithm")
	case len(r.kid) > maxKeyID:
		return malformedError("the key id is too long")
	}
	r.hasKid = len(r.kid) > 0
	return nil
}

const errHeader = malformedError("a header parameter is not a string")

// tokenHash returns the SHA-256 of the signing input.
func (r *reading) tokenHash() [sha256.Size]byte {
	return sha256.Sum256(r.raw[:r.signed])
}

// otherKind tells what a token is that does not have the three segments of a
// signed JWT.
func otherKind(token string) error {
	switch {
	case !looksLikeJWT(token):
		return ErrNotJWT
	case isEncrypted(token):
		return ErrNotJWT
	default:
		return malformedError("it does not have three segments of base64url")
	}
}

// looksLikeJWT tells whether a lenient parser might take token for a JWT, or for
// the JSON form of one: it is an object, or its first segment is the base64 of
// one once everything that is no base64 is dropped. Such a token is never let
// through as opaque, or CR, LF, padding and the like would turn a revoked JWT
// into a token that nobody knows.
func looksLikeJWT(token string) bool {
	if strings.HasPrefix(strings.TrimLeft(token, " \t\r\n\ufeff"), "{") {
		return true
	}
	first, _, found := strings.Cut(token, ".")
	if !found {
		return false
	}
	// The first bytes are enough: white space, then a brace.
	var decoded []byte
	var bits, have uint
	for i := 0; i < len(first) && len(decoded) < 256; i++ {
		v := base64Value(first[i])
		if v < 0 {
			continue
		}
		bits, have = bits<<6|uint(v), have+6
		if have >= 8 {
			have -= 8
			decoded = append(decoded, byte(bits>>have))
		}
	}
	start := strings.TrimLeft(string(decoded), " \t\r\n\ufeff")
	return strings.HasPrefix(start, "{") || start == "" && len(decoded) == 256
}

// isEncrypted tells whether token is a JWE in compact form (RFC 7516, section
// 7.1): five segments, and a header with "enc", which nobody can add to a signed
// token.
func isEncrypted(token string) bool {
	if strings.Count(token, ".") != 4 || len(token) > maxToken {
		return false
	}
	header, rest, _ := strings.Cut(token, ".")
	if !isBase64URL(header) || !isBase64URL(strings.ReplaceAll(rest, ".", "")) {
		return false
	}
	text, err := strictBase64.DecodeString(header)
	if err != nil {
		return false
	}
	var s scanner
	if s.scan(text) != nil {
		return false
	}
	m, found := s.find("enc")
	return found && m.kind == kindString
}

func isBase64URL(s string) bool {
	wrong := byte(0)
	for i := 0; i < len(s); i++ {
		wrong |= notBase64URL[s[i]] // no branch: signatures are long, and right
	}
	return wrong == 0
}

const base64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// base64Values has the six bits that a byte stands for in base64 or base64url,
// or -1; notBase64URL has 1 for the bytes that base64url does not have.
var base64Values, notBase64URL = func() (values [256]int8, not [256]byte) {
	for i := range values {
		values[i] = int8(strings.IndexByte(base64URL, byte(i)))
		if values[i] < 0 {
			not[i] = 1
		}
	}
	values['+'], values['/'] = values['-'], values['_']
	return values, not
}()

func base64Value(c byte) int { return int(base64Values[c]) }
