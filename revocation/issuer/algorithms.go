package issuer

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// asymmetric are the algorithms with a public key, in the order in which they
// are documented.
var asymmetric = [...]jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512,
	jose.PS256, jose.PS384, jose.PS512,
	jose.ES256, jose.ES384, jose.ES512,
	jose.EdDSA,
}

// hmacKeySize is the least size of the secret in bytes, that of the hash (RFC
// 7518, section 3.2); zero for an algorithm that is not HMAC.
func hmacKeySize(alg jose.SignatureAlgorithm) int {
	switch alg {
	case jose.HS256:
		return 32
	case jose.HS384:
		return 48
	case jose.HS512:
		return 64
	}
	return 0
}

func (c Config) defaultAlgorithms() []string {
	var algs []string
	if c.Opaque {
		return nil // nothing verifies
	}
	if c.HMACSecret != "" {
		for _, alg := range []jose.SignatureAlgorithm{jose.HS256, jose.HS384, jose.HS512} {
			if len(c.HMACSecret) >= hmacKeySize(alg) || alg == jose.HS256 {
				algs = append(algs, string(alg))
			}
		}
		return algs
	}
	for _, alg := range asymmetric {
		algs = append(algs, string(alg))
	}
	return algs
}

func (c Config) validateAlgorithms() error {
	for i, name := range c.Algorithms {
		alg := jose.SignatureAlgorithm(name)
		size := hmacKeySize(alg)
		switch {
		case strings.EqualFold(name, "none"):
			return errors.New(`algorithms: "none" is never accepted: anyone could write such tokens`)
		case slices.Contains(c.Algorithms[:i], name):
			return fmt.Errorf("algorithms: %s is listed twice", name)
		case size > 0 && c.HMACSecret == "":
			return fmt.Errorf("algorithms: %s needs hmac_secret", name)
		case size > 0 && len(c.HMACSecret) < size:
			return fmt.Errorf("hmac_secret has %d bytes, %s needs at least %d", len(c.HMACSecret), name, size)
		case size > 0 && c.Development:
			return fmt.Errorf("algorithms: %s is not for the development issuer", name)
		case size == 0 && !slices.Contains(asymmetric[:], alg):
			return fmt.Errorf("algorithms: %q is not supported: use RS256, PS256, ES256 (or 384, 512) or EdDSA", name)
		case size == 0 && c.HMACSecret != "":
			return fmt.Errorf("algorithms: %s needs a public key, but the issuer has hmac_secret: remove one of them", name)
		}
	}
	return nil
}

// agrees tells whether a key of this type, and for ECDSA of this curve, is one
// for alg (RFC 7518, section 3.1; RFC 8037). An HMAC algorithm agrees with no
// public key, whatever its bytes are (RFC 8725, section 2.1).
func agrees(key any, alg jose.SignatureAlgorithm) bool {
	switch key := key.(type) {
	case *rsa.PublicKey:
		switch alg {
		case jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512:
			return true
		}
	case *ecdsa.PublicKey:
		switch alg {
		case jose.ES256:
			return key.Curve == elliptic.P256()
		case jose.ES384:
			return key.Curve == elliptic.P384()
		case jose.ES512:
			return key.Curve == elliptic.P521()
		}
	case ed25519.PublicKey:
		return alg == jose.EdDSA
	case secret:
		return hmacKeySize(alg) > 0 && len(key) >= hmacKeySize(alg)
	}
	return false
}

// secret is an HMAC key. A type of its own, so that no byte slice from a JWK set
// can become one.
type secret []byte
