package issuer

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"
)

// ErrNotAToken says that a text cannot be a bearer token at all: it is empty,
// longer than 16 KiB, or has characters that are not printable ASCII (RFC 6749,
// appendix A.12).
var ErrNotAToken = errors.New("not a token")

// OpaqueTokenHash returns what [revocation.ClaimToken] is for an opaque or
// encrypted token: the base64url SHA-256 of its canonical spelling. If that
// spelling is base64url, dot-separated or not, an issuer that decodes it leniently
// accepts several spellings of one token, so they are made one: in each segment
// the alphabet is that of base64url, padding is dropped and the spare bits of the
// last character are cleared.
//
// The error wraps [ErrNotAToken]; it does not hold the token.
func OpaqueTokenHash(token string) (string, error) {
	if token == "" || len(token) > maxToken {
		return "", ErrNotAToken
	}
	b := make([]byte, 0, len(token))
	for i, segment := range strings.Split(token, ".") {
		if i > 0 {
			b = append(b, '.')
		}
		start := len(b)
		digits := strings.TrimRight(segment, "=")
		isBase64 := true
		for i := 0; i < len(digits); i++ {
			switch c := digits[i]; {
			case c == '+':
				b = append(b, '-')
			case c == '/':
				b = append(b, '_')
			case base64Value(c) >= 0:
				b = append(b, c)
			case '!' <= c && c <= '~':
				isBase64 = false
				b = append(b, c)
			default:
				return "", ErrNotAToken
			}
		}
		if !isBase64 {
			b = append(b[:start], segment...)
			continue
		}
		last := len(b) - 1
		switch (len(b) - start) % 4 {
		case 2: // one byte in twelve bits
			b[last] = base64URL[base64Value(b[last])&^0xf]
		case 3: // two bytes in eighteen
			b[last] = base64URL[base64Value(b[last])&^0x3]
		}
	}
	sum := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(sum[:]), nil
}
