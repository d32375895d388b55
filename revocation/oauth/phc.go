package oauth

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

// Bounds of slow hashes. A hash comes from a configuration that may be generated
// or typed; without bounds one line of it could take gigabytes, or a minute of
// CPU, on each attempt to authenticate.
const (
	maxBcryptCost     = 15      // about a few seconds
	maxArgonMemory    = 1 << 18 // KiB: 256 MiB
	maxArgonTime      = 64
	maxArgonThreads   = 64
	maxArgonWork      = 1 << 20 // KiB times passes
	minArgonSalt      = 8       // bytes
	maxArgonSalt      = 64
	minArgonHash      = 16
	maxArgonHash      = 64
	bcryptEncodedSize = 60
)

// argonHash is a parsed "$argon2id$v=19$m=65536,t=3,p=4$<salt>$<hash>", the PHC
// string format.
type argonHash struct {
	memory  uint32 // KiB
	time    uint32
	threads uint8
	salt    []byte
	hash    []byte
}

// parseArgon2id reads a PHC string. No error quotes it.
func parseArgon2id(s string) (*argonHash, error) {
	fields := strings.Split(s, "$")
	if len(fields) != 6 || fields[0] != "" || fields[1] != "argon2id" {
		return nil, errors.New("parsing argon2id hash: it has to look like $argon2id$v=19$m=65536,t=3,p=4$salt$hash")
	}
	if fields[2] != "v=19" {
		return nil, errors.New("parsing argon2id hash: only version 19 is supported")
	}
	params := strings.Split(fields[3], ",")
	if len(params) != 3 {
		return nil, errors.New("parsing argon2id hash: the parameters have to be m, t and p")
	}
	m, okM := phcNumber(params[0], "m=")
	t, okT := phcNumber(params[1], "t=")
	p, okP := phcNumber(params[2], "p=")
	if !okM || !okT || !okP {
		return nil, errors.New("parsing argon2id hash: the parameters have to be m, t and p, in this order, with whole numbers")
	}
	switch {
	case p < 1 || p > maxArgonThreads:
		return nil, fmt.Errorf("parsing argon2id hash: p is not between 1 and %d", maxArgonThreads)
	case t < 1 || t > maxArgonTime:
		return nil, fmt.Errorf("parsing argon2id hash: t is not between 1 and %d", maxArgonTime)
	case m < 8*p || m > maxArgonMemory: // RFC 9106, section 3.1
		return nil, fmt.Errorf("parsing argon2id hash: m is not between 8*p and %d KiB", maxArgonMemory)
	case m*t > maxArgonWork:
		return nil, fmt.Errorf("parsing argon2id hash: m times t is more than %d", maxArgonWork)
	}
	salt, err := phcBytes(fields[4], minArgonSalt, maxArgonSalt)
	if err != nil {
		return nil, fmt.Errorf("parsing argon2id hash: the salt is %w", err)
	}
	hash, err := phcBytes(fields[5], minArgonHash, maxArgonHash)
	if err != nil {
		return nil, fmt.Errorf("parsing argon2id hash: the hash is %w", err)
	}
	return &argonHash{memory: uint32(m), time: uint32(t), threads: uint8(p), salt: salt, hash: hash}, nil
}

// phcNumber reads a decimal of at most nine digits without sign or leading zeros.
func phcNumber(s, prefix string) (uint64, bool) {
	digits, ok := strings.CutPrefix(s, prefix)
	if !ok || digits == "" || len(digits) > 9 || digits[0] == '0' {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 32) // refuses signs
	return n, err == nil
}

func phcBytes(s string, shortest, longest int) ([]byte, error) {
	// Go's decoder skips CR and LF, so the alphabet is checked first.
	if strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("not base64 without padding")
	}
	b, err := base64.RawStdEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, errors.New("not base64 without padding") // err would say where, and what
	}
	if len(b) < shortest || len(b) > longest {
		return nil, fmt.Errorf("not %d to %d bytes long", shortest, longest)
	}
	return b, nil
}

// checkBcrypt checks the form of a bcrypt hash, so that a damaged one is an error
// of the configuration and not a secret that never matches. The version x was a
// workaround for one old implementation; nobody writes it any more.
func checkBcrypt(s string) error {
	if len(s) != bcryptEncodedSize {
		return fmt.Errorf("parsing bcrypt hash: it is not %d characters long", bcryptEncodedSize)
	}
	switch s[:4] {
	case "$2a$", "$2b$", "$2y$":
	default:
		return errors.New("parsing bcrypt hash: only the versions 2a, 2b and 2y are supported")
	}
	cost, err := bcrypt.Cost([]byte(s))
	if err != nil || s[6] != '$' {
		return errors.New("parsing bcrypt hash: the cost is not a number from 04 to 31")
	}
	if cost > maxBcryptCost {
		return fmt.Errorf("parsing bcrypt hash: a cost of more than %d takes too long", maxBcryptCost)
	}
	for i := 7; i < len(s); i++ {
		if c := s[i]; !isAlphaNum(c) && c != '.' && c != '/' {
			return errors.New("parsing bcrypt hash: a character that does not belong there")
		}
	}
	return nil
}
