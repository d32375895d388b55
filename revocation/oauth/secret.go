package oauth

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// maxSecret bounds presented secrets, in bytes; longer ones match nothing.
const maxSecret = 1024

// Secret can tell whether a presented client secret is the right one. It does not
// hold the secret itself, and prints as its kind only. The zero Secret matches
// nothing.
type Secret struct {
	verifier verifier
	// tag stands for the verifier in the keys of the verified cache: a changed
	// secret has another tag.
	tag [sha256.Size]byte
}

// verifier compares in a time that does not depend on where a wrong secret
// differs.
type verifier interface {
	verify(presented string) bool
	// slow tells whether verify costs enough to be limited.
	slow() bool
	kind() string
}

const sha256Prefix = "sha256:"

// ErrNotHashed says that a configured secret is none of the supported hashes.
var ErrNotHashed = errors.New("the secret is not a bcrypt hash, an argon2id hash or sha256: with a digest; a secret in clear is only taken from a placeholder")

// ParseSecret reads a hashed secret:
//
//   - bcrypt: "$2a$", "$2b$" or "$2y$", cost up to 15;
//   - argon2id in PHC form: "$argon2id$v=19$m=65536,t=3,p=4$salt$hash", up to
//     256 MiB;
//   - "sha256:" and the SHA-256 of the secret, in hexadecimal or base64url. Only
//     for generated secrets of at least 128 bits: guessing a shorter one from its
//     digest takes no time.
//
// The error wraps [ErrNotHashed] if s is none of them. It never quotes s, which
// may be a secret in clear by mistake.
func ParseSecret(s string) (Secret, error) {
	var v verifier
	switch {
	case strings.HasPrefix(s, "$2"):
		if err := checkBcrypt(s); err != nil {
			return Secret{}, err
		}
		v = bcryptSecret(s)
	case strings.HasPrefix(s, "$argon2"):
		h, err := parseArgon2id(s)
		if err != nil {
			return Secret{}, err
		}
		v = (*argonSecret)(h)
	case strings.HasPrefix(s, sha256Prefix):
		d, err := parseDigest(s[len(sha256Prefix):])
		if err != nil {
			return Secret{}, err
		}
		if weakDigest(d) {
			return Secret{}, errors.New("parsing sha256 secret: it is the digest of a common word; generate a secret, or use bcrypt or argon2id")
		}
		v = digestSecret{digest: d, name: "sha256"}
	default:
		return Secret{}, ErrNotHashed
	}
	return newSecret(v, s), nil
}

// ClearSecret makes a Secret of a secret in clear, as a placeholder's value is.
// Only its SHA-256 is kept.
func ClearSecret(secret string) (Secret, error) {
	switch {
	case secret == "":
		return Secret{}, errors.New("the secret is empty")
	case len(secret) > maxSecret:
		return Secret{}, fmt.Errorf("the secret is longer than %d bytes", maxSecret)
	}
	d := sha256.Sum256([]byte(secret))
	return newSecret(digestSecret{digest: d, name: "clear"}, string(d[:])), nil
}

// IsHashed tells whether s begins like one of the hashes that [ParseSecret]
// reads.
func IsHashed(s string) bool {
	return strings.HasPrefix(s, "$2") || strings.HasPrefix(s, "$argon2") || strings.HasPrefix(s, sha256Prefix)
}

func newSecret(v verifier, encoded string) Secret {
	return Secret{verifier: v, tag: sha256.Sum256([]byte(v.kind() + "\x00" + encoded))}
}

// String returns the kind of s: "bcrypt", "argon2id", "sha256" or "clear".
func (s Secret) String() string {
	if s.verifier == nil {
		return "none"
	}
	return s.verifier.kind()
}

// Format prints the kind under every verb: %d or %#v would print what s holds.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// LogValue keeps s out of logs.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText keeps s out of JSON.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func (s Secret) slow() bool { return s.verifier != nil && s.verifier.slow() }

func (s Secret) verify(presented string) bool {
	return s.verifier != nil && s.verifier.verify(presented)
}

// isDigestOf tells whether s is the plain digest of a text: a check for weak
// configurations, not for credentials.
func (s Secret) isDigestOf(text string) bool {
	d, ok := s.verifier.(digestSecret)
	return ok && d.verify(text)
}

type bcryptSecret string

// verify ignores what follows the 72nd byte, as every bcrypt does.
func (b bcryptSecret) verify(presented string) bool {
	return bcrypt.CompareHashAndPassword([]byte(b), []byte(presented)) == nil
}
func (bcryptSecret) slow() bool   { return true }
func (bcryptSecret) kind() string { return "bcrypt" }

type argonSecret argonHash

func (a *argonSecret) verify(presented string) bool {
	sum := argon2.IDKey([]byte(presented), a.salt, a.time, a.memory, a.threads, uint32(len(a.hash)))
	return subtle.ConstantTimeCompare(sum, a.hash) == 1
}
func (*argonSecret) slow() bool   { return true }
func (*argonSecret) kind() string { return "argon2id" }

// digestSecret compares digests: equal lengths whatever was presented, and a
// digest tells nothing about how much of a guess was right.
type digestSecret struct {
	digest [sha256.Size]byte
	name   string
}

func (d digestSecret) verify(presented string) bool {
	sum := sha256.Sum256([]byte(presented))
	return subtle.ConstantTimeCompare(sum[:], d.digest[:]) == 1
}
func (digestSecret) slow() bool     { return false }
func (d digestSecret) kind() string { return d.name }

// ParseDigest reads a SHA-256 in hexadecimal, with or without colons between the
// bytes, or in base64url, with or without padding. The error does not quote it.
func ParseDigest(s string) ([sha256.Size]byte, error) {
	if len(s) == 3*sha256.Size-1 { // as openssl prints it
		s = strings.ReplaceAll(s, ":", "")
	}
	d, err := parseDigest(s)
	if err != nil {
		return d, errors.New("it is not 32 bytes in hexadecimal or base64url")
	}
	return d, nil
}

// parseDigest reads 32 bytes in hexadecimal or in base64url, with or without
// padding.
func parseDigest(s string) ([sha256.Size]byte, error) {
	bad := errors.New("parsing sha256 secret: it is not 32 bytes in hexadecimal or base64url")
	var b []byte
	var err error
	switch {
	case strings.ContainsAny(s, "\r\n"): // which Go's decoder would skip
		return [sha256.Size]byte{}, bad
	case len(s) == hex.EncodedLen(sha256.Size):
		b, err = hex.DecodeString(s)
	default:
		b, err = base64.RawURLEncoding.Strict().DecodeString(strings.TrimSuffix(s, "="))
	}
	if err != nil || len(b) != sha256.Size {
		return [sha256.Size]byte{}, bad // err would quote a character
	}
	return [sha256.Size]byte(b), nil
}

// weakDigest finds the digests of words that are configured to try things out
// and then stay.
func weakDigest(d [sha256.Size]byte) bool {
	for _, word := range []string{"", "secret", "password", "changeme", "admin", "123456"} {
		if sha256.Sum256([]byte(word)) == d {
			return true
		}
	}
	return false
}
