package issuer

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// IntrospectionConfig says how an authorization server is asked about its tokens
// (RFC 7662). It holds secrets. Two that are equal by == ask in the same way.
type IntrospectionConfig struct {
	// Endpoint is the address of the introspection endpoint. It has to be https
	// unless it is on this host or allow_http is set: tokens and our own
	// credentials are sent there. Default: the introspection_endpoint of the
	// issuer's metadata, if the issuer's keys are found by discovery.
	Endpoint string `json:"endpoint,omitempty"`

	// AllowHTTP allows an endpoint without TLS on another host than this one.
	// Whoever listens on the way can use the tokens, and whoever can change the
	// answer decides which tokens are valid: use it in closed networks only.
	AllowHTTP bool `json:"allow_http,omitempty"`

	// AuthMethod is how we authenticate: client_secret_basic,
	// client_secret_post, private_key_jwt, bearer, or none for an endpoint that
	// is protected by its network alone (as Ory Hydra's admin port). Default: by
	// the credential that is given; of the two that use client_secret,
	// client_secret_basic.
	AuthMethod string `json:"auth_method,omitempty"`

	// ClientID is the client that the authorization server knows us as.
	ClientID string `json:"client_id,omitempty"`

	// ClientSecret is its secret. In Caddy's configuration it has to be a
	// placeholder, {env.NAME} or {file./run/secrets/introspection}, and so have
	// private_key and bearer_token.
	ClientSecret string `json:"client_secret,omitempty"`

	// PrivateKey is the key of private_key_jwt (RFC 7523), as a JWK or in PEM
	// (PKCS #8, PKCS #1 or SEC 1): RSA of at least 2048 bits, P-256, P-384,
	// P-521 or Ed25519.
	PrivateKey string `json:"private_key,omitempty"`

	// KeyID is the kid under which the authorization server knows the public
	// key. Default: that of the JWK, if it has one.
	KeyID string `json:"key_id,omitempty"`

	// Algorithm is the signature algorithm of private_key_jwt. Default: that of
	// the JWK, else RS256, the one that belongs to the curve, or EdDSA.
	Algorithm string `json:"algorithm,omitempty"`

	// AssertionAudience is the aud of our assertions. Default: the issuer
	// identifier, as draft-ietf-oauth-rfc7523bis asks. Some servers want the
	// address of their token or introspection endpoint.
	AssertionAudience string `json:"assertion_audience,omitempty"`

	// BearerToken is an access token of our own that allows us to ask.
	BearerToken string `json:"bearer_token,omitempty"`

	// Tokens says which tokens the endpoint knows: all, or access if it knows
	// access tokens only, as that of Django OAuth Toolkit does. Of a refresh
	// token, such an endpoint says that it is not active, so that this proves
	// nothing: the revocation endpoint then answers 400 unsupported_token_type,
	// not 200. Default: that of the preset, else all.
	Tokens string `json:"tokens,omitempty"`

	// SignedResponse asks for signed answers (RFC 9701), and accepts no others.
	// They are verified with the issuer's keys and may be 16 KiB long. Encrypted
	// ones are not supported. Default: plain JSON, and nothing else.
	SignedResponse bool `json:"signed_response,omitempty"`

	// ResponseAudience is what the aud of signed answers must have. Default:
	// client_id.
	ResponseAudience string `json:"response_audience,omitempty"`

	// Timeout is how long a caller waits for an answer in all, discovery and keys
	// included; at most half of it for the question's turn. It is also how long
	// the authorization server has for the answer, before the question counts as
	// failed. Default: 3s. From 100ms to 30s.
	Timeout Duration `json:"timeout,omitempty"`

	// MaxConcurrent is how many questions are asked at the same time. Up to 1024
	// more wait, and the networks that they come from take turns; of a full
	// queue, the network with the most loses the last. Default: 16. At most 1024.
	MaxConcurrent int `json:"max_concurrent,omitempty"`

	// BreakerFailures is after how many failed questions in a row no more are
	// asked for a while, so that neither requests nor an overloaded server wait
	// for each other. What may be due to a token, such as status 400 or 413, or
	// to the wait for its turn, is no failure. Default: 5. A negative value means never.
	BreakerFailures int `json:"breaker_failures,omitempty"`

	// BreakerCooldown is how long that while is, and up to a tenth longer. Then
	// a single question is asked, and its outcome decides. Default: 5s. From
	// 100ms to 5m.
	BreakerCooldown Duration `json:"breaker_cooldown,omitempty"`

	// CacheTTL is how long the answer that a token is active counts, and never
	// beyond the token's exp. For so long, a revocation that the authorization
	// server made on its own is not noticed; one that passes the ledger is
	// noticed at once. Default: 10s. A negative value means that none is kept.
	// At most 10m. The answer that a token is not active is never kept.
	CacheTTL Duration `json:"cache_ttl,omitempty"`

	// CacheSize is how many bytes the kept answers may take. The least recently
	// used go first. Default: 16 MiB. At most 1 GiB.
	CacheSize int64 `json:"cache_size,omitempty"`
}

// How we authenticate towards an introspection endpoint; see
// [IntrospectionConfig].
const (
	IntrospectSecretBasic = "client_secret_basic" // RFC 6749, section 2.3.1
	IntrospectSecretPost  = "client_secret_post"  // the same, in the form
	IntrospectPrivateKey  = "private_key_jwt"     // RFC 7523, section 2.2
	IntrospectBearer      = "bearer"              // RFC 7662, section 2.1
	IntrospectNoAuth      = "none"
)

// Which tokens an introspection endpoint knows; see [IntrospectionConfig].
const (
	IntrospectsAll    = "all"
	IntrospectsAccess = "access"
)

// Bounds and defaults of [IntrospectionConfig].
const (
	DefaultIntrospectionTimeout = 3 * time.Second
	MinIntrospectionTimeout     = 100 * time.Millisecond
	MaxIntrospectionTimeout     = 30 * time.Second

	DefaultIntrospectionConcurrency = 16
	MaxIntrospectionConcurrency     = 1024

	DefaultBreakerFailures = 5
	DefaultBreakerCooldown = 5 * time.Second
	MinBreakerCooldown     = 100 * time.Millisecond
	MaxBreakerCooldown     = 5 * time.Minute

	DefaultIntrospectionTTL = 10 * time.Second
	MaxIntrospectionTTL     = 10 * time.Minute

	DefaultIntrospectionCache = 16 << 20 // bytes
	MaxIntrospectionCache     = 1 << 30  // bytes
)

// Validate reports the first mistake in c, with a remedy, for questions about
// the tokens of the issuer that of describes. It does no I/O. The error holds no
// secret.
func (c IntrospectionConfig) Validate(of Config) error {
	of, err := of.withDefaults()
	if err != nil {
		return err
	}
	c = c.withDefaults(of.Issuer)
	if err := c.validate(of); err != nil {
		return err
	}
	_, err = newClientAuth(c, time.Now)
	return err
}

// withDefaults returns c with defaults applied.
func (c IntrospectionConfig) withDefaults(issuer string) IntrospectionConfig {
	if c.AuthMethod == "" {
		switch {
		case c.ClientSecret != "":
			c.AuthMethod = IntrospectSecretBasic
		case c.PrivateKey != "":
			c.AuthMethod = IntrospectPrivateKey
		case c.BearerToken != "":
			c.AuthMethod = IntrospectBearer
		}
	}
	if c.AssertionAudience == "" && c.AuthMethod == IntrospectPrivateKey {
		c.AssertionAudience = issuer
	}
	if c.ResponseAudience == "" && c.SignedResponse {
		c.ResponseAudience = c.ClientID
	}
	setDefault(&c.Timeout, Duration(DefaultIntrospectionTimeout))
	setDefault(&c.MaxConcurrent, DefaultIntrospectionConcurrency)
	setDefault(&c.BreakerFailures, DefaultBreakerFailures)
	setDefault(&c.BreakerCooldown, Duration(DefaultBreakerCooldown))
	setDefault(&c.CacheTTL, Duration(DefaultIntrospectionTTL))
	setDefault(&c.CacheSize, DefaultIntrospectionCache)
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// validate checks c, whose defaults are filled in, but for the private key.
func (c IntrospectionConfig) validate(of Config) error {
	switch {
	case of.Development:
		return errors.New("introspection: the development issuer has no endpoint to ask, its tokens are verified by their signature")
	case c.SignedResponse && of.Opaque:
		return errors.New("introspection: signed_response needs the issuer's keys, and an opaque issuer has none: remove one of the two")
	case c.Endpoint == "" && of.source() != fromDiscovery:
		return errors.New("introspection: endpoint is missing: the issuer's keys are not found by discovery, so its metadata is not read")
	}
	if c.Endpoint != "" {
		if _, err := parseEndpointURL(c.Endpoint, c.AllowHTTP); err != nil {
			return fmt.Errorf("introspection: endpoint: %w", err)
		}
	}
	if c.Tokens != "" && c.Tokens != IntrospectsAll && c.Tokens != IntrospectsAccess {
		return fmt.Errorf("introspection: tokens: %q is neither %s nor %s", c.Tokens, IntrospectsAll, IntrospectsAccess)
	}
	if err := c.validateAuth(); err != nil {
		return fmt.Errorf("introspection: %w", err)
	}
	if err := c.validateBounds(); err != nil {
		return fmt.Errorf("introspection: %w", err)
	}
	if c.SignedResponse && c.ResponseAudience == "" {
		return errors.New("introspection: signed_response needs client_id or response_audience: whom the answers are meant for")
	}
	return nil
}

func (c IntrospectionConfig) validateAuth() error {
	// What is given must be what is used: a credential that is not would make
	// the operator believe in a protection that is not there.
	var needsID, needsSecret, needsKey, needsToken bool
	switch c.AuthMethod {
	case IntrospectSecretBasic, IntrospectSecretPost:
		needsID, needsSecret = true, true
	case IntrospectPrivateKey:
		needsID, needsKey = true, true
	case IntrospectBearer:
		needsToken = true
	case IntrospectNoAuth:
	case "":
		return errors.New("the credential is missing: give client_id with client_secret or private_key, or bearer_token; " +
			"auth_method none if the endpoint asks for none")
	default:
		return fmt.Errorf("auth_method: %q is not one of %s", c.AuthMethod, strings.Join([]string{
			IntrospectSecretBasic, IntrospectSecretPost, IntrospectPrivateKey, IntrospectBearer, IntrospectNoAuth}, ", "))
	}
	for _, f := range []struct {
		name         string
		given, needs bool
	}{
		{"client_secret", c.ClientSecret != "", needsSecret},
		{"private_key", c.PrivateKey != "", needsKey},
		{"bearer_token", c.BearerToken != "", needsToken},
	} {
		switch {
		case f.needs && !f.given:
			return fmt.Errorf("%s is missing, auth_method %s needs it", f.name, c.AuthMethod)
		case f.given && !f.needs:
			return fmt.Errorf("%s is not used by auth_method %s: remove one of them", f.name, c.AuthMethod)
		}
	}
	switch {
	case needsID && c.ClientID == "":
		return fmt.Errorf("client_id is missing, auth_method %s needs it", c.AuthMethod)
	case len(c.ClientID) > revocation.MaxClaimValue || !utf8.ValidString(c.ClientID):
		return fmt.Errorf("client_id is not valid UTF-8 of at most %d bytes", revocation.MaxClaimValue)
	case !needsKey && (c.KeyID != "" || c.Algorithm != "" || c.AssertionAudience != ""):
		return fmt.Errorf("key_id, algorithm and assertion_audience are for auth_method %s", IntrospectPrivateKey)
	case c.ResponseAudience != "" && !c.SignedResponse:
		return errors.New("response_audience is for signed_response")
	case needsToken && !isVisible(c.BearerToken):
		return errors.New("bearer_token has a space or a character that is not ASCII")
	}
	return nil
}

// isVisible tells whether s has visible ASCII characters only.
func isVisible(s string) bool {
	for i := range len(s) {
		if s[i] < '!' || s[i] > '~' {
			return false
		}
	}
	return true
}

func (c IntrospectionConfig) validateBounds() error {
	between := func(name string, d Duration, low, high time.Duration) error {
		if time.Duration(d) < low || time.Duration(d) > high {
			return fmt.Errorf("%s %s is not between %s and %s", name, d, low, high)
		}
		return nil
	}
	var cacheSize, concurrent, ttl error
	if c.CacheSize < 0 || c.CacheSize > MaxIntrospectionCache {
		cacheSize = fmt.Errorf("cache_size is not between 0 and %d bytes: to keep no answers, set cache_ttl to -1s", int64(MaxIntrospectionCache))
	}
	if c.MaxConcurrent < 0 || c.MaxConcurrent > MaxIntrospectionConcurrency {
		concurrent = fmt.Errorf("max_concurrent is not between 1 and %d", MaxIntrospectionConcurrency)
	}
	if time.Duration(c.CacheTTL) > MaxIntrospectionTTL {
		ttl = fmt.Errorf("cache_ttl %s is longer than %s: for so long, revocations that the authorization server makes on its own "+
			"would not be noticed", c.CacheTTL, MaxIntrospectionTTL)
	}
	return cmp.Or(
		between("timeout", c.Timeout, MinIntrospectionTimeout, MaxIntrospectionTimeout),
		between("breaker_cooldown", c.BreakerCooldown, MinBreakerCooldown, MaxBreakerCooldown),
		cacheSize, concurrent, ttl)
}
