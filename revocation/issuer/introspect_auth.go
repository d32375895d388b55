package issuer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" // RFC 7523, section 2.2
	// assertionLifetime is how long an assertion of ours can be used. It is made
	// anew for each question.
	assertionLifetime = time.Minute
)

// clientAuth adds our credentials to a question: to the header or to the form.
type clientAuth func(header http.Header, form url.Values) error

// newClientAuth returns what authenticates us by c, which was checked and has
// its defaults. The error holds no secret.
func newClientAuth(c IntrospectionConfig, now func() time.Time) (clientAuth, error) {
	switch c.AuthMethod {
	case IntrospectSecretBasic:
		// Both halves are form-encoded first (RFC 6749, section 2.3.1), so that
		// a colon in the id is none in the header.
		pair := url.QueryEscape(c.ClientID) + ":" + url.QueryEscape(c.ClientSecret)
		value := "Basic " + base64.StdEncoding.EncodeToString([]byte(pair))
		return func(header http.Header, _ url.Values) error {
			header.Set("Authorization", value)
			return nil
		}, nil
	case IntrospectSecretPost:
		return func(_ http.Header, form url.Values) error {
			form.Set("client_id", c.ClientID)
			form.Set("client_secret", c.ClientSecret)
			return nil
		}, nil
	case IntrospectPrivateKey:
		signer, err := newAssertionSigner(c)
		if err != nil {
			return nil, fmt.Errorf("introspection: private_key: %w", err)
		}
		return func(_ http.Header, form url.Values) error {
			text, err := signAssertion(signer, c, now())
			if err != nil {
				return err
			}
			form.Set("client_assertion_type", assertionType)
			form.Set("client_assertion", text)
			return nil
		}, nil
	case IntrospectBearer:
		return func(header http.Header, _ url.Values) error {
			header.Set("Authorization", "Bearer "+c.BearerToken)
			return nil
		}, nil
	default:
		return func(http.Header, url.Values) error { return nil }, nil
	}
}

// signAssertion makes a client assertion (RFC 7523, section 3). Its aud is a
// single text, since servers are told to refuse an array.
func signAssertion(signer jose.Signer, c IntrospectionConfig, now time.Time) (string, error) {
	payload, err := json.Marshal(map[string]any{
		"iss": c.ClientID, "sub": c.ClientID, "aud": c.AssertionAudience, "jti": rand.Text(),
		"iat": now.Unix(), "exp": now.Add(assertionLifetime).Unix(),
	})
	if err != nil {
		return "", err
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}

func newAssertionSigner(c IntrospectionConfig) (jose.Signer, error) {
	jwk, err := parsePrivateKey(c.PrivateKey)
	if err != nil {
		return nil, err
	}
	if c.KeyID != "" {
		jwk.KeyID = c.KeyID
	}
	var public any
	if key, ok := jwk.Key.(crypto.Signer); ok {
		public = key.Public()
	}
	alg := jose.SignatureAlgorithm(c.Algorithm)
	if alg == "" {
		alg = jose.SignatureAlgorithm(jwk.Algorithm)
	}
	switch public := public.(type) {
	case *rsa.PublicKey:
		if bits := public.N.BitLen(); bits < minRSABits {
			return nil, fmt.Errorf("its %d bits are too few for RSA: at least %d", bits, minRSABits)
		}
		setDefault(&alg, jose.RS256)
	case *ecdsa.PublicKey:
		for curve, name := range map[elliptic.Curve]jose.SignatureAlgorithm{
			elliptic.P256(): jose.ES256, elliptic.P384(): jose.ES384, elliptic.P521(): jose.ES512,
		} {
			if public.Curve == curve {
				setDefault(&alg, name)
			}
		}
	case ed25519.PublicKey:
		setDefault(&alg, jose.EdDSA)
	default:
		return nil, errors.New("it is not an RSA, EC or Ed25519 key")
	}
	if !agrees(public, alg) {
		return nil, fmt.Errorf("it is not a key for the algorithm %q", alg)
	}
	jwk.Algorithm, jwk.Use = string(alg), "sig"
	// Some servers refuse every typ but JWT, and RFC 7523 asks for none.
	return jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jwk}, (&jose.SignerOptions{}).WithType("JWT"))
}

// parsePrivateKey reads a private key. The errors say nothing of the text: it is
// a secret, even if it is garbled.
func parsePrivateKey(text string) (jose.JSONWebKey, error) {
	var jwk jose.JSONWebKey
	if strings.HasPrefix(strings.TrimSpace(text), "{") {
		if err := json.Unmarshal([]byte(text), &jwk); err != nil {
			return jwk, errors.New("it is not a valid JWK")
		}
		if _, symmetric := jwk.Key.([]byte); symmetric || jwk.IsPublic() {
			return jwk, errors.New("it is not the private key")
		}
		if !jwk.Valid() {
			return jwk, errors.New("it is not a valid JWK")
		}
		return jwk, nil
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return jwk, errors.New("it is neither a JWK nor PEM")
	}
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		jwk.Key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		jwk.Key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		jwk.Key, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		return jwk, errors.New("its PEM is not that of an unencrypted private key")
	}
	if err != nil {
		return jwk, errors.New("its PEM holds no valid private key")
	}
	return jwk, nil
}
