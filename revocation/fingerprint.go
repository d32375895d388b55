package revocation

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// Mode says how a revocation judges a token that its criteria match.
type Mode uint8

const (
	// Block denies every matching token until the revocation ends, also those
	// issued later.
	Block Mode = iota
	// IssuedBefore denies matching tokens issued (iat) up to and including the
	// cutoff's second. A token without iat is denied.
	IssuedBefore
	// AuthenticatedBefore denies matching tokens whose user authenticated
	// (auth_time) up to and including the cutoff's second: it holds for
	// refreshed tokens too, whose iat is new and whose auth_time is not (RFC
	// 9068, section 2.2.1). A token without auth_time is denied.
	AuthenticatedBefore

	modes // count
)

// String returns "block", "issued_before" or "authenticated_before".
func (m Mode) String() string {
	switch m {
	case Block:
		return "block"
	case IssuedBefore:
		return "issued_before"
	case AuthenticatedBefore:
		return "authenticated_before"
	default:
		return fmt.Sprintf("Mode(%d)", uint8(m))
	}
}

// Valid tells whether m is one of the declared modes.
func (m Mode) Valid() bool { return m < modes }

// Fingerprint stands for a criteria and a mode in the index: the first 128 bits
// of a SHA-256 over their length-prefixed parts. Prefixes, not delimiters: no
// choice of issuer, names and values can make two criteria collide, and claim
// names are part of it, so that sub=x never meets team=x.
//
// The mode is part of it as well. A block that ends tomorrow and a cutoff that
// is kept for a week are two entries, and neither can lend the other its
// strictness or its duration.
type Fingerprint [16]byte

// String returns f in hexadecimal.
func (f Fingerprint) String() string { return hex.EncodeToString(f[:]) }

// fingerprintDomain keeps these hashes apart from every other use of SHA-256,
// and from later layouts.
const fingerprintDomain = "token_revocation/fingerprint/1\x00"

// Fingerprint returns the fingerprint of c under mode.
func (c Criteria) Fingerprint(mode Mode) Fingerprint {
	names := c.Names()
	values := make([]string, len(names))
	for i, name := range names {
		values[i] = c.Claims[name]
	}
	return FingerprintOf(c.Issuer, mode, names, values)
}

// FingerprintOf returns the fingerprint of the criteria that has the given
// issuer and, for each i, the claim names[i] with the value values[i]. The names
// must be sorted and free of duplicates, as [Criteria.Names] returns them. It
// does not allocate unless issuer and values together are longer than about 300
// bytes.
func FingerprintOf(issuer string, mode Mode, names, values []string) Fingerprint {
	var stack [384]byte
	b := append(stack[:0], fingerprintDomain...)
	b = append(b, byte(mode))
	b = appendPart(b, issuer)
	b = binary.AppendUvarint(b, uint64(len(names)))
	for i, name := range names {
		b = appendPart(b, name)
		b = appendPart(b, values[i])
	}
	sum := sha256.Sum256(b)
	return Fingerprint(sum[:16])
}

func appendPart(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}
