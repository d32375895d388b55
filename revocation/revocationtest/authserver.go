// Package revocationtest has what tests of this module share. It is imported by
// tests only.
package revocationtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"log"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// AuthServer is a token issuer for tests: an HTTP server with metadata and a JWK
// set, and one key for every asymmetric algorithm. Its methods are safe for
// concurrent use.
type AuthServer struct {
	*httptest.Server

	tb testing.TB

	mu       sync.Mutex
	issuer   string
	keys     []jose.JSONWebKey // private
	failing  int               // status to answer with, zero for none
	maxAge   string
	requests map[string]int // path → number of requests
}

// Paths that an [AuthServer] answers.
const (
	JWKSPath     = "/jwks"
	OIDCPath     = "/.well-known/openid-configuration"
	MetadataPath = "/.well-known/oauth-authorization-server"
)

// Algorithms are all algorithms that an [AuthServer] has a key for.
var Algorithms = []string{
	"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
}

// NewAuthServer starts an issuer on http://127.0.0.1, and stops it when the test
// ends. Its issuer is its URL.
func NewAuthServer(tb testing.TB) *AuthServer {
	tb.Helper()
	s := newAuthServer(tb)
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	s.begin()
	return s
}

// NewTLSAuthServer is like [NewAuthServer] with https. The embedded server's
// Client trusts it.
func NewTLSAuthServer(tb testing.TB) *AuthServer {
	tb.Helper()
	s := newAuthServer(tb)
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // of clients that do not trust it
	s.StartTLS()
	s.begin()
	return s
}

func newAuthServer(tb testing.TB) *AuthServer {
	tb.Helper()
	s := &AuthServer{tb: tb, requests: make(map[string]int)}
	rs := NewKey(tb, "RS256", "").Key // under several algorithms, to save time
	for _, alg := range Algorithms {
		k := jose.JSONWebKey{Key: rs, KeyID: "key-" + strings.ToLower(alg), Algorithm: alg, Use: "sig"}
		if alg[0] != 'R' && alg[0] != 'P' {
			k = NewKey(tb, alg, k.KeyID)
		}
		s.keys = append(s.keys, k)
	}
	return s
}

// NewKey returns a new private key for an algorithm.
func NewKey(tb testing.TB, alg, kid string) jose.JSONWebKey {
	tb.Helper()
	var private any
	var err error
	switch alg {
	case "ES256":
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ES512":
		private, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "EdDSA":
		_, private, err = ed25519.GenerateKey(rand.Reader)
	default:
		private, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return jose.JSONWebKey{Key: private, KeyID: kid, Algorithm: alg, Use: "sig"}
}

func (s *AuthServer) begin() {
	s.issuer = s.URL
	s.tb.Cleanup(s.Close)
}

// Issuer returns the iss of the tokens that the server signs.
func (s *AuthServer) Issuer() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.issuer
}

// SetIssuer changes the name that the server gives itself, in metadata and in
// tokens signed from now on. The address stays.
func (s *AuthServer) SetIssuer(issuer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.issuer = issuer
}

// Fail makes the server answer every request with this status; zero makes it
// work again.
func (s *AuthServer) Fail(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failing = status
}

// SetCacheControl sets the header of that name in the answers for the keys.
func (s *AuthServer) SetCacheControl(value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.maxAge = value
}

// Requests returns how often a path was asked for.
func (s *AuthServer) Requests(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests[path]
}

// Rotate replaces the key of an algorithm by a new one with the given kid, and
// publishes it in place of the old one. It returns the old key, which can still
// sign with [SignWith].
func (s *AuthServer) Rotate(alg, kid string) (old jose.JSONWebKey) {
	s.tb.Helper()
	fresh := NewKey(s.tb, alg, kid)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, k := range s.keys {
		if k.Algorithm == alg {
			old, s.keys[i] = k, fresh
		}
	}
	return old
}

// SetKeys replaces all keys. They are private, and their Algorithm is set.
func (s *AuthServer) SetKeys(keys ...jose.JSONWebKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys = keys
}

// Key returns the private key of an algorithm.
func (s *AuthServer) Key(alg string) jose.JSONWebKey {
	s.tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.keys {
		if k.Algorithm == alg {
			return k
		}
	}
	s.tb.Fatalf("no key for %s", alg)
	return jose.JSONWebKey{}
}

// KeySet returns the JWK set that the server publishes.
func (s *AuthServer) KeySet() []byte {
	s.tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, k := range s.keys {
		set.Keys = append(set.Keys, k.Public())
	}
	text, err := json.Marshal(set)
	if err != nil {
		s.tb.Fatal(err)
	}
	return text
}

func (s *AuthServer) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests[r.URL.Path]++
	failing, issuer, maxAge := s.failing, s.issuer, s.maxAge
	s.mu.Unlock()
	if failing != 0 {
		w.WriteHeader(failing)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	switch {
	case r.URL.Path == JWKSPath:
		if maxAge != "" {
			w.Header().Set("Cache-Control", maxAge)
		}
		_, _ = w.Write(s.KeySet())
	case strings.HasSuffix(r.URL.Path, OIDCPath):
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": issuer, "jwks_uri": s.URL + JWKSPath})
	default:
		http.NotFound(w, r)
	}
}

// Claims returns the claims of an ordinary access token (RFC 9068) of this
// issuer that lives for five minutes, with overrides applied. A nil override
// removes a claim.
func (s *AuthServer) Claims(overrides map[string]any) map[string]any {
	now := time.Now()
	claims := map[string]any{
		"iss": s.Issuer(), "sub": "alice", "client_id": "app", "jti": rand.Text(), "sid": "session-1",
		"aud": "https://api.example.com", "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(),
	}
	maps.Copy(claims, overrides)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	return claims
}

// Token returns an ordinary access token with overrides applied, signed with
// ES256.
func (s *AuthServer) Token(overrides map[string]any) string {
	s.tb.Helper()
	return s.Sign(s.Claims(overrides), "ES256")
}

// Sign returns a token with these claims, typ at+jwt and the kid of the
// algorithm's key.
func (s *AuthServer) Sign(claims any, alg string) string {
	s.tb.Helper()
	return SignWith(s.tb, s.Key(alg), map[string]any{"typ": "at+jwt"}, claims)
}

// SignWith signs claims, which are marshalled unless they are a []byte, with a
// private key or []byte secret, whose Algorithm says how. The header has kid and
// alg of the key and what header adds; a nil value in header removes a
// parameter.
func SignWith(tb testing.TB, key jose.JSONWebKey, header map[string]any, claims any) string {
	tb.Helper()
	full := map[string]any{"alg": key.Algorithm}
	if key.KeyID != "" {
		full["kid"] = key.KeyID
	}
	maps.Copy(full, header)
	maps.DeleteFunc(full, func(_ string, v any) bool { return v == nil })
	headerText, err := json.Marshal(full)
	if err != nil {
		tb.Fatal(err)
	}
	payload, ok := claims.([]byte)
	if !ok {
		if payload, err = json.Marshal(claims); err != nil {
			tb.Fatal(err)
		}
	}
	encode := base64.RawURLEncoding.EncodeToString
	return SignInput(tb, key, encode(headerText)+"."+encode(payload))
}

// SignInput signs a signing input exactly as it is and returns the token. It
// makes tokens that a JOSE library would refuse to make.
func SignInput(tb testing.TB, key jose.JSONWebKey, input string) string {
	tb.Helper()
	signature, err := signature(key, input)
	if err != nil {
		tb.Fatal(err)
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func signature(key jose.JSONWebKey, input string) ([]byte, error) {
	if secret, ok := key.Key.([]byte); ok {
		return hmacSignature(secret, key.Algorithm, input)
	}
	signer, ok := key.Key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%T is not a private key", key.Key)
	}
	if key.Algorithm == "EdDSA" {
		return signer.Sign(rand.Reader, []byte(input), crypto.Hash(0))
	}
	hash := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[key.Algorithm[2:]]
	h := hash.New()
	_, _ = h.Write([]byte(input))
	digest := h.Sum(nil)
	switch private := key.Key.(type) {
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, private, digest)
		if err != nil {
			return nil, err
		}
		size := (private.Curve.Params().BitSize + 7) / 8
		out := make([]byte, 2*size)
		r.FillBytes(out[:size])
		s.FillBytes(out[size:])
		return out, nil
	case *rsa.PrivateKey:
		if strings.HasPrefix(key.Algorithm, "PS") {
			return rsa.SignPSS(rand.Reader, private, hash, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		}
		return rsa.SignPKCS1v15(rand.Reader, private, hash, digest)
	}
	return nil, fmt.Errorf("cannot sign with %T", key.Key)
}

// Respellings returns every base64url spelling of a token's signature that
// decodes to the same bytes in a lenient decoder: 16 for RSA-2048, ES256 and
// EdDSA, the token itself among them.
func Respellings(token string) []string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	signature := token[strings.LastIndexByte(token, '.')+1:]
	spare := 0
	switch len(signature) % 4 {
	case 2:
		spare = 4
	case 3:
		spare = 2
	}
	last := strings.IndexByte(alphabet, token[len(token)-1]) >> spare << spare
	var all []string
	for bits := range 1 << spare {
		all = append(all, token[:len(token)-1]+string(alphabet[last|bits]))
	}
	return all
}

// ECDSATwin returns the token with the other signature (r, n−s), which verifies
// as well, and which anyone can compute. The key says which curve.
func ECDSATwin(tb testing.TB, key jose.JSONWebKey, token string) string {
	tb.Helper()
	public, ok := key.Public().Key.(*ecdsa.PublicKey)
	if !ok {
		tb.Fatalf("%T is not an ECDSA key", key.Key)
	}
	cut := strings.LastIndexByte(token, '.') + 1
	signature, err := base64.RawURLEncoding.DecodeString(token[cut:])
	if err != nil {
		tb.Fatal(err)
	}
	half := len(signature) / 2
	s := new(big.Int).SetBytes(signature[half:])
	s.Sub(public.Params().N, s).FillBytes(signature[half:])
	return token[:cut] + base64.RawURLEncoding.EncodeToString(signature)
}

func hmacSignature(secret []byte, alg, input string) ([]byte, error) {
	hashes := map[string]func() hash.Hash{"HS256": sha256.New, "HS384": sha512.New384, "HS512": sha512.New}
	newHash, ok := hashes[alg]
	if !ok {
		return nil, fmt.Errorf("%s is not an HMAC algorithm", alg)
	}
	mac := hmac.New(newHash, secret)
	_, _ = mac.Write([]byte(input))
	return mac.Sum(nil), nil
}
