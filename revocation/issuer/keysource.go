package issuer

import (
	"context"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// KeySourceConfig says where the keys are that somebody else than a token issuer
// signs with, for example an OAuth client (RFC 7523). Exactly one of JWKS,
// JWKSFile, JWKSURI and Secrets is set.
type KeySourceConfig struct {
	// JWKS is a JWK set with public keys (RFC 7517). Every key of it has to be
	// usable.
	JWKS json.RawMessage `json:"jwks,omitempty"`
	// JWKSFile is the absolute path of a file with a JWK set. It is read at
	// start and whenever it changes.
	JWKSFile string `json:"jwks_file,omitempty"`
	// JWKSURI is the address of a JWK set. It has to be https unless it is on
	// this host or AllowHTTP is set.
	JWKSURI   string `json:"jwks_uri,omitempty"`
	AllowHTTP bool   `json:"allow_http,omitempty"`
	// Secrets are shared secrets for HMAC, of at least 32 bytes each.
	Secrets []string `json:"secrets,omitempty"`
	// Algorithms are the accepted signature algorithms. Default: all that the
	// kind of key allows; with Secrets, those that every secret is long enough
	// for (RFC 7518, section 3.2).
	Algorithms []string `json:"algorithms,omitempty"`
	// RefreshInterval is how often JWKSURI is fetched unless the server's
	// Cache-Control says otherwise. Zero means [DefaultRefreshInterval].
	RefreshInterval time.Duration `json:"refresh_interval,omitempty"`
}

// KeySource holds the keys that a [KeySourceConfig] describes and renews them. A
// key that its owner no longer publishes does not count any more: what it signs
// lives for minutes, unlike access tokens. All methods are safe for concurrent
// use.
type KeySource struct {
	algs    []jose.SignatureAlgorithm
	secrets bool
	keys    *keyring
	local   bool
	start   sync.Once
}

// NewKeySource checks c and makes a source. It does no I/O: keys of a file or an
// address are loaded from [KeySource.Start] on. Store in o is not used. No error
// holds a secret.
func NewKeySource(c KeySourceConfig, o Options) (*KeySource, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	s := &KeySource{keys: newKeyring(), secrets: len(c.Secrets) > 0}
	for _, alg := range c.algorithms() {
		s.algs = append(s.algs, jose.SignatureAlgorithm(alg))
	}
	k := s.keys
	k.now, k.logger = o.Now, o.Logger
	if k.now == nil {
		k.now = time.Now
	}
	if k.logger == nil {
		k.logger = slog.New(slog.DiscardHandler)
	}
	k.every = c.RefreshInterval
	if k.every == 0 {
		k.every = DefaultRefreshInterval
	}
	skip := skipLogger(k.logger)
	switch {
	case len(c.JWKS) > 0:
		keys, skipped, err := parseKeySet(c.JWKS)
		if len(skipped) > 0 {
			// Whoever writes keys into a config wants to know which one is bad.
			return nil, fmt.Errorf("jwks: %s", strings.Join(skipped, "; "))
		}
		if err != nil {
			return nil, fmt.Errorf("jwks: %w", err)
		}
		k.current.Store(newKeySet(keys, k.now()))
	case s.secrets:
		var keys []*key
		for _, text := range c.Secrets {
			keys = append(keys, &key{public: secret(text)})
		}
		k.current.Store(newKeySet(keys, k.now()))
	case c.JWKSFile != "":
		k.load = (&file{path: c.JWKSFile, skip: skip}).load
		k.every = jwksFilePoll
		s.local = true
	default:
		config := Config{JWKSURI: c.JWKSURI, AllowHTTP: c.AllowHTTP}
		k.load = (&fetcher{config: config, client: newClient(o.Client), skip: skip}).load
		k.bounded = true
	}
	return s, nil
}

func (c KeySourceConfig) validate() error {
	given := 0
	for _, set := range []bool{len(c.JWKS) > 0, c.JWKSFile != "", c.JWKSURI != "", len(c.Secrets) > 0} {
		if set {
			given++
		}
	}
	switch {
	case given == 0:
		return errors.New("the keys are missing: give one of jwks, jwks_file and jwks_uri")
	case given > 1:
		return errors.New("jwks, jwks_file, jwks_uri and secrets exclude each other: keep the one where the keys are")
	case c.JWKSFile != "" && !filepath.IsAbs(c.JWKSFile):
		return fmt.Errorf("jwks_file: %q is not an absolute path", c.JWKSFile)
	case c.RefreshInterval != 0 && (c.RefreshInterval < MinRefreshInterval || c.RefreshInterval > MaxRefreshInterval):
		return fmt.Errorf("refresh_interval is not between %s and %s", MinRefreshInterval, MaxRefreshInterval)
	}
	if c.JWKSURI != "" {
		if _, err := parseKeyURL(c.JWKSURI, c.AllowHTTP); err != nil {
			return fmt.Errorf("jwks_uri: %w", err)
		}
	}
	for i, text := range c.Secrets {
		if len(text) < hmacKeySize(jose.HS256) {
			return fmt.Errorf("secret %d has %d bytes, HS256 needs at least %d (RFC 7518, section 3.2)",
				i+1, len(text), hmacKeySize(jose.HS256))
		}
	}
	for i, name := range c.Algorithms {
		alg := jose.SignatureAlgorithm(name)
		size := hmacKeySize(alg)
		switch {
		case slices.Contains(c.Algorithms[:i], name):
			return fmt.Errorf("algorithms: %s is listed twice", name)
		case len(c.Secrets) > 0 && size == 0:
			return fmt.Errorf("algorithms: %q is not one for a shared secret: use HS256, HS384 or HS512", name)
		case len(c.Secrets) > 0 && slices.ContainsFunc(c.Secrets, func(s string) bool { return len(s) < size }):
			return fmt.Errorf("algorithms: a secret is shorter than the %d bytes that %s needs (RFC 7518, section 3.2)", size, name)
		case len(c.Secrets) == 0 && !slices.Contains(asymmetric[:], alg):
			return fmt.Errorf("algorithms: %q is not one for a public key: use RS256, PS256, ES256 (or 384, 512) or EdDSA", name)
		}
	}
	return nil
}

// algorithms returns the accepted algorithms, defaults filled in.
func (c KeySourceConfig) algorithms() []string {
	if len(c.Algorithms) > 0 {
		return c.Algorithms
	}
	if len(c.Secrets) == 0 {
		return AsymmetricAlgorithms()
	}
	return slices.DeleteFunc(HMACAlgorithms(), func(name string) bool {
		size := hmacKeySize(jose.SignatureAlgorithm(name))
		return slices.ContainsFunc(c.Secrets, func(s string) bool { return len(s) < size })
	})
}

// AsymmetricAlgorithms returns the signature algorithms with a public key that
// this package verifies.
func AsymmetricAlgorithms() []string {
	names := make([]string, 0, len(asymmetric))
	for _, alg := range asymmetric {
		names = append(names, string(alg))
	}
	return names
}

// HMACAlgorithms returns the algorithms with a shared secret.
func HMACAlgorithms() []string {
	return []string{string(jose.HS256), string(jose.HS384), string(jose.HS512)}
}

// Start begins to load and renew keys in the background. It reads a key file
// first, and never waits for the network. Calls after the first do nothing.
func (s *KeySource) Start() {
	s.start.Do(func() {
		if s.keys.load == nil {
			return
		}
		if s.local {
			ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
			defer cancel()
			s.keys.loadNow(ctx)
		}
		s.keys.start()
	})
}

// Stop ends all background work and waits for it. The keys at hand still verify.
func (s *KeySource) Stop() { s.keys.stop() }

// Algorithms returns the accepted algorithms.
func (s *KeySource) Algorithms() []string {
	names := make([]string, 0, len(s.algs))
	for _, alg := range s.algs {
		names = append(names, string(alg))
	}
	return names
}

// Shared tells whether the keys are shared secrets: what they verify, anybody
// who verifies could have written.
func (s *KeySource) Shared() bool { return s.secrets }

// Status returns the present state of the keys. Secrets have no thumbprints.
func (s *KeySource) Status() KeyStatus { return s.keys.status() }

// Verify tells whether one of the keys signed j. The error wraps [ErrInvalid] if
// none did, and [ErrKeysUnavailable] if that can't be told now; a key that is
// not known yet is asked for, and waited for until ctx is done.
//
// Keys are asked for a few times a minute only. In between, a key that their owner
// did not publish when last asked, successfully and a moment ago, is none of the
// keys: anybody can write any kid, and a client that gets another answer than an
// unknown one would stand out by it.
func (s *KeySource) Verify(ctx context.Context, j *JWT) error {
	_, err := s.Try(ctx, j)
	return err
}

// Try is [KeySource.Verify], and tells whether any signature was computed. None
// is if no key has the kid, or is one for the algorithm: whoever must not let
// callers find that out by the time it takes does the same work elsewhere.
func (s *KeySource) Try(ctx context.Context, j *JWT) (tried bool, err error) {
	alg := jose.SignatureAlgorithm(j.Algorithm())
	if !slices.Contains(s.algs, alg) {
		return false, invalidError("its algorithm is not accepted")
	}
	_, err = s.keys.find(ctx, j.reading.kid, true, func(set *keySet) (*key, bool) {
		found, known, n := set.verify(string(j.reading.raw), j.reading, alg)
		tried = tried || n > 0
		return found, known
	})
	return tried, s.decided(err)
}

// decided returns [ErrInvalid] for a key that is not known and can't be asked for
// again yet, if the last answer is good.
func (s *KeySource) decided(err error) error {
	if errors.Is(err, errNotAgain) && s.keys.loaded() {
		return invalidError("its key is not among those that were asked for a moment ago")
	}
	return err
}

// Contains tells whether the public key is one of the keys, for example that of
// a TLS client certificate (RFC 8705, section 2.2). The error wraps
// [ErrKeysUnavailable] if that can't be told now. A shared secret is no public
// key.
func (s *KeySource) Contains(ctx context.Context, public crypto.PublicKey) (bool, error) {
	jwk := jose.JSONWebKey{Key: public}
	if !jwk.IsPublic() {
		return false, nil
	}
	sum, err := jwk.Thumbprint(crypto.SHA256)
	if err != nil {
		return false, nil //nolint:nilerr // a kind of key that no JWK set holds
	}
	thumbprint := base64.RawURLEncoding.EncodeToString(sum)
	_, err = s.keys.find(ctx, []byte(thumbprint), true, func(set *keySet) (*key, bool) {
		for _, k := range set.keys {
			if k.thumbprint == thumbprint {
				return k, true
			}
		}
		return nil, false
	})
	err = s.decided(err)
	if errors.Is(err, ErrInvalid) {
		return false, nil
	}
	return err == nil, err
}
