package issuer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Bounds of a key set, and of the work that one token can cause.
const (
	maxKeys       = 128
	maxCandidates = 8
	minRSABits    = 2048
)

// key is one verification key. It is immutable, but for lastSeen of its copies
// in later sets.
type key struct {
	id         string // kid, empty if the set gives none
	thumbprint string // RFC 7638, base64url SHA-256; empty for a secret
	algorithm  jose.SignatureAlgorithm
	public     any // *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey, secret
	raw        json.RawMessage
	// lastSeen is when the issuer was last seen to publish the key.
	lastSeen time.Time
	// retired is true if the issuer no longer publishes it.
	retired bool
}

// fits tells whether the key may verify a token with this algorithm: one key,
// one kind of algorithm (RFC 8725, section 3.1), and exactly the one algorithm
// that the issuer dedicated it to, if it did.
func (k *key) fits(alg jose.SignatureAlgorithm) bool {
	return (k.algorithm == "" || k.algorithm == alg) && agrees(k.public, alg)
}

// keySet is an immutable set of keys.
type keySet struct {
	keys []*key
	// generation is a hash of the thumbprints: equal sets have the same, also
	// in another process.
	generation uint64
	// loaded is when the issuer's keys were last read from their source.
	loaded time.Time
}

// candidates appends to into the keys that a token with this header may be
// signed with, and tells whether one of them has exactly the token's kid. The
// kid only chooses among the issuer's own keys (RFC 8725, section 3.10).
func (s *keySet) candidates(into []*key, kid []byte, hasKid bool, alg jose.SignatureAlgorithm) ([]*key, bool) {
	if hasKid {
		for _, k := range s.keys {
			if k.id == string(kid) && k.id != "" && k.fits(alg) && len(into) < maxCandidates {
				into = append(into, k)
			}
		}
		if len(into) > 0 {
			return into, true
		}
	}
	// A set may give its keys no ids (RFC 7517, section 4.5), and a token may
	// name none. Published keys first: there can be many retired ones.
	for _, retired := range []bool{false, true} {
		for _, k := range s.keys {
			if (!hasKid || k.id == "") && k.retired == retired && k.fits(alg) && len(into) < maxCandidates {
				into = append(into, k)
			}
		}
	}
	return into, false
}

// has tells whether a key with this id is in the set, whatever its algorithm.
func (s *keySet) has(kid string) bool {
	return slices.ContainsFunc(s.keys, func(k *key) bool { return k.id == kid })
}

func (s *keySet) published() int {
	n := 0
	for _, k := range s.keys {
		if !k.retired {
			n++
		}
	}
	return n
}

func newKeySet(keys []*key, loaded time.Time) *keySet {
	var thumbprints []string
	for _, k := range keys {
		thumbprints = append(thumbprints, k.thumbprint+"/"+k.id+"/"+string(k.algorithm))
	}
	slices.Sort(thumbprints)
	return &keySet{keys: keys, generation: hash64(thumbprints...), loaded: loaded}
}

// hash64 hashes texts of any content into 64 bits.
func hash64(texts ...string) uint64 {
	h := sha256.New()
	for _, t := range texts {
		_, _ = fmt.Fprintf(h, "%d:%s", len(t), t)
	}
	sum := h.Sum(nil)
	var n uint64
	for _, b := range sum[:8] {
		n = n<<8 | uint64(b)
	}
	return n
}

// replace returns the set after the issuer was seen to publish exactly fresh:
// keys that it no longer publishes are retired, and dropped once that is longer
// ago than retention.
func (s *keySet) replace(fresh []*key, now time.Time, retention time.Duration) *keySet {
	keys := make([]*key, 0, len(fresh)+len(s.keys))
	for _, k := range fresh {
		c := *k
		c.lastSeen, c.retired = now, false
		keys = append(keys, &c)
	}
	for _, old := range s.keys {
		same := func(k *key) bool { return k.thumbprint == old.thumbprint && k.id == old.id }
		// A reused kid with another key is a replacement: the old one goes on
		// under its own thumbprint, until it is too old.
		if slices.ContainsFunc(keys, same) || !now.Before(old.lastSeen.Add(retention)) || len(keys) >= 2*maxKeys {
			continue
		}
		c := *old
		c.retired = true
		keys = append(keys, &c)
	}
	return newKeySet(keys, now)
}

// parseKeySet reads a JWK set. Keys that cannot verify an access token are left
// out, each with a reason: one bad key does not spoil the set (RFC 7517, section
// 5). It is an error if none is left.
func parseKeySet(text []byte) (keys []*key, skipped []string, err error) {
	var set struct {
		Keys *[]json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil || set.Keys == nil {
		return nil, nil, errors.New("it is not a JWK set")
	}
	for i, raw := range *set.Keys {
		if len(keys) == maxKeys {
			skipped = append(skipped, fmt.Sprintf("keys from number %d on: there are more than %d", i+1, maxKeys))
			break
		}
		k, err := parseKey(raw)
		switch {
		case err != nil:
			skipped = append(skipped, fmt.Sprintf("key %d: %v", i+1, err))
		case !slices.ContainsFunc(keys, func(o *key) bool { return o.thumbprint == k.thumbprint && o.id == k.id }):
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return nil, skipped, errors.New("it has no usable key")
	}
	return keys, skipped, nil
}

func parseKey(raw json.RawMessage) (*key, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		return nil, errors.New("not a JSON object")
	}
	if _, private := members["d"]; private {
		return nil, errors.New("it is a private key: publish the public one, and replace it, for it is no longer secret")
	}
	// Certificates are not asked for: the key itself is what is trusted, and a
	// certificate that a library cannot read must not cost us the key.
	for name := range members {
		if strings.HasPrefix(name, "x5") {
			delete(members, name)
		}
	}
	var ops []string
	if err := json.Unmarshal(members["key_ops"], &ops); err == nil && !slices.Contains(ops, "verify") {
		return nil, errors.New("it is not for verifying (key_ops)")
	}
	stripped, err := json.Marshal(members)
	if err != nil {
		return nil, err
	}
	var jwk jose.JSONWebKey
	if err := json.Unmarshal(stripped, &jwk); err != nil {
		return nil, err
	}
	if jwk.Use != "" && jwk.Use != "sig" {
		return nil, fmt.Errorf("it is not for signatures (use %q)", jwk.Use)
	}
	k := &key{id: jwk.KeyID, raw: stripped, public: jwk.Key}
	switch public := jwk.Key.(type) {
	case *rsa.PublicKey:
		if bits := public.N.BitLen(); bits < minRSABits {
			return nil, fmt.Errorf("its %d bits are too few for RSA: at least %d (RFC 7518, section 3.3)", bits, minRSABits)
		}
		if public.E < 3 || public.E%2 == 0 {
			return nil, errors.New("its RSA exponent is invalid")
		}
	case *ecdsa.PublicKey, ed25519.PublicKey:
	default:
		// A published secret is none: oct keys come from hmac_secret only.
		return nil, errors.New("it is not an RSA, EC or Ed25519 public key")
	}
	switch jwk.Algorithm {
	case "":
	case "Ed25519": // RFC 9864's name for what tokens call EdDSA
		k.algorithm = jose.EdDSA
	default:
		k.algorithm = jose.SignatureAlgorithm(jwk.Algorithm)
	}
	if k.algorithm != "" && !agrees(k.public, k.algorithm) {
		return nil, fmt.Errorf("it is not one for its own algorithm (alg %q)", jwk.Algorithm)
	}
	if len(k.id) > maxKeyID {
		return nil, errors.New("its kid is too long")
	}
	sum, err := jwk.Thumbprint(crypto.SHA256)
	if err != nil {
		return nil, err
	}
	k.thumbprint = base64.RawURLEncoding.EncodeToString(sum)
	return k, nil
}

// storeKey is under which name an issuer's keys are kept in a [Store]. The name
// of the issuer itself may hold anything.
func storeKey(issuer string) string {
	sum := sha256.Sum256([]byte(issuer))
	return "issuer_keys/" + hex.EncodeToString(sum[:16]) + ".json"
}
