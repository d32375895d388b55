package issuer

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// Config describes one token issuer: the name it gives itself, where its keys
// are, and how its access tokens look.
//
// With a preset, only what differs from the preset has to be written. Without
// one, only the issuer: keys are then found by discovery, every secure algorithm
// is accepted and claims are expected under their standard names (RFC 9068).
type Config struct {
	// Issuer is the exact value of iss in the tokens, byte by byte: a trailing
	// slash matters (Auth0 has one). It is compared, never fetched, if discovery,
	// jwks_uri or jwks_file says where the keys are.
	Issuer string `json:"issuer,omitempty"`

	// Preset is the name of a set of defaults for a product: keycloak, auth0,
	// okta, entra, hydra, authentik, zitadel or django. Every field that is set
	// here wins over the preset; claims are merged name by name. The adapted
	// JSON has all lines written out.
	Preset string `json:"preset,omitempty"`

	// Aliases are further spellings of iss that the same issuer uses, with the
	// same keys: "https://sts.windows.net/<tenant>/" beside Entra's v2.0 issuer,
	// or a former host name. Tokens with an alias are identified under Issuer, so
	// that revocations name one issuer only.
	Aliases []string `json:"aliases,omitempty"`

	// Discovery is the address that replaces the issuer when its metadata is
	// fetched, for instance an internal one: "http://keycloak:8080/realms/prod".
	// It may use http, and so may the jwks_uri found there on the same host. It
	// is either the issuer's base, to which the well-known paths of OpenID
	// Connect Discovery and of RFC 8414 are added in turn, or a complete address
	// that contains "/.well-known/". The metadata must name exactly Issuer.
	// Default: the issuer itself.
	Discovery string `json:"discovery,omitempty"`

	// JWKSURI is the address of the issuer's JWK set (RFC 7517). With it there
	// is no discovery.
	JWKSURI string `json:"jwks_uri,omitempty"`

	// JWKSFile is the path of a file with the issuer's JWK set. It is read at
	// start and whenever it changes. A key that is removed from it is distrusted
	// at once; a file that cannot be read or has no usable key changes nothing,
	// loudly.
	JWKSFile string `json:"jwks_file,omitempty"`

	// HMACSecret is the shared secret of an issuer that signs with HS256, HS384
	// or HS512, of at least 32, 48 or 64 bytes (RFC 7518, section 3.2). Use a
	// placeholder like {env.JWT_SECRET} or {file./run/secrets/jwt} rather than
	// the secret itself. HMAC is never accepted without it, and never with a
	// published key.
	HMACSecret string `json:"hmac_secret,omitempty"`

	// Opaque says that all access tokens of the issuer are opaque. It then has no
	// keys, and none are looked for; a JWT that names it can't be verified, and is
	// refused where the issuer is not asked about it. Without introspection,
	// revocations can name its tokens one by one, by their hash, or all at once, and
	// nothing in between.
	Opaque bool `json:"opaque,omitempty"`

	// Algorithms are the accepted signature algorithms, out of RS256, RS384,
	// RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA, and with
	// hmac_secret HS256, HS384, HS512. Default: all of them that the kind of key
	// allows. "none" is never accepted (RFC 8725, section 3.1).
	Algorithms []string `json:"algorithms,omitempty"`

	// Claims says how the issuer calls the claims that revocations can name:
	// {"jti": "uti", "client_id": ["azp", "appid"]}. Of a list, the first one
	// that the token has counts; begin it with the one that the issuer itself
	// always sets, never with one that users or their custom mappers can add, or
	// they could hide behind it. Only of client_id all count: a token that names
	// two clients belongs to neither, and a revocation of either denies it.
	// Defaults: jti, sub, client_id and sid under their own names; any other
	// claim that a revocation names is looked up under that name. Names are
	// case-sensitive and top-level.
	Claims map[string]Names `json:"claims,omitempty"`

	// Types are the accepted values of the typ header, without "application/"
	// and without regard to case. ["at+jwt"], or its short form ["strict"], is
	// what RFC 9068 demands; "JWT" also accepts a token without typ. Default:
	// every type but those of other kinds of JWT (logout tokens, security
	// events, DPoP proofs, client assertions and so on), and no ID token as far
	// as one can be recognised.
	Types []string `json:"types,omitempty"`

	// RefreshTypes are the values of typ, in the header or as a claim, of the
	// issuer's refresh tokens, if these are JWTs that its keys verify: "RT". Such
	// a token is no access token, and whoever revokes it revokes its grant. typ
	// rt+jwt and refresh+jwt, and Keycloak's claim typ Refresh and Offline, are
	// known without. Default: none; a refresh token of another form is asked
	// about, if introspection is configured.
	RefreshTypes []string `json:"refresh_types,omitempty"`

	// Audiences are the values of aud that are meant for us; a token must have
	// one of them. Default: aud is not checked. The revocation endpoint never
	// checks it, since a client may revoke tokens for any resource.
	Audiences []string `json:"audiences,omitempty"`

	// MaxTokenLifetime is the longest life (exp − iat) of the issuer's access
	// tokens. Tokens that live longer are refused, because a revocation of a
	// user, client or session is kept for that long only. Default: 24h. At most
	// ten years.
	MaxTokenLifetime Duration `json:"max_token_lifetime,omitempty"`

	// AllowMissingExpiry accepts tokens without exp. A revocation of a user,
	// client or session then ends while such a token still works: use it only
	// for tokens that are revoked by the operator, as blocks.
	AllowMissingExpiry bool `json:"allow_missing_expiry,omitempty"`

	// Leeway is how far the issuer's clock may be from ours when exp, nbf and
	// iat are compared. Default: 60s. A negative value means none. At most 5m,
	// which is how long a revocation is kept beyond exp.
	Leeway Duration `json:"leeway,omitempty"`

	// KeyRetention is for how long a key still counts that the issuer no longer
	// publishes: tokens signed with it may live. Default: max_token_lifetime
	// plus leeway. A negative value means none.
	KeyRetention Duration `json:"key_retention,omitempty"`

	// DistrustedKeys are the RFC 7638 SHA-256 thumbprints of keys that never
	// count, even if the issuer publishes them. To refuse what a leaked key has
	// signed on the whole fleet at once, revoke it by its thumbprint (claim
	// kid); this is for good.
	DistrustedKeys []string `json:"distrusted_keys,omitempty"`

	// RefreshInterval is how often the keys are fetched, unless the key server's
	// Cache-Control says otherwise (between 1m and 1h). Default: 10m. A token
	// with an unknown key causes a fetch of its own, at most one in 10s after a
	// few.
	RefreshInterval Duration `json:"refresh_interval,omitempty"`

	// AllowHTTP allows keys to be fetched without TLS from another host than
	// this one. Whoever can change the answer can sign tokens: use it in closed
	// networks only.
	AllowHTTP bool `json:"allow_http,omitempty"`

	// Introspection says how the issuer is asked about tokens that only it
	// understands (RFC 7662). Default: it is not asked.
	Introspection *IntrospectionConfig `json:"introspection,omitempty"`

	// Development makes this an issuer that exists for trying things out: it
	// signs tokens itself, with keys kept in Caddy's storage. Never in
	// production.
	Development bool `json:"development,omitempty"`
}

const maxAliases = 8

// Bounds and defaults of [Config].
const (
	DefaultMaxTokenLifetime = 24 * time.Hour
	DefaultLeeway           = time.Minute
	MaxLeeway               = revocation.DefaultLeeway
	DefaultRefreshInterval  = 10 * time.Minute
	MinRefreshInterval      = time.Minute
	MaxRefreshInterval      = time.Hour
)

// WithPreset returns c with the fields that c does not set taken from its
// preset, if it has one; applying it again changes nothing. The error names the
// presets there are.
func (c Config) WithPreset() (Config, error) {
	if c.Preset == "" {
		return c, nil
	}
	p, found := Preset(c.Preset)
	if !found {
		return c, fmt.Errorf("unknown preset %q: use one of %s", c.Preset, strings.Join(PresetNames(), ", "))
	}
	claims := maps.Clone(p.Claims)
	if claims == nil {
		claims = make(map[string]Names)
	}
	maps.Copy(claims, c.Claims)
	if len(claims) > 0 {
		c.Claims = claims
	}
	if len(c.Algorithms) == 0 {
		c.Algorithms = p.Algorithms
	}
	if len(c.Types) == 0 {
		c.Types = p.Types
	}
	if c.MaxTokenLifetime == 0 {
		c.MaxTokenLifetime = p.MaxTokenLifetime
	}
	if tokens, known := presetIntrospects[c.Preset]; known && c.Introspection != nil && c.Introspection.Tokens == "" {
		n := *c.Introspection
		n.Tokens = tokens
		c.Introspection = &n
	}
	return c, nil
}

// Validate reports the first mistake in c, with a remedy. It does no I/O, and does
// not read the private key of introspection: [NewIntrospector] does.
func (c Config) Validate() error {
	c, err := c.withDefaults()
	if err != nil {
		return err
	}
	return c.validate()
}

// withDefaults returns c with preset and defaults applied.
func (c Config) withDefaults() (Config, error) {
	c, err := c.WithPreset()
	if err != nil {
		return c, err
	}
	if c.Development && c.Issuer == "" {
		c.Issuer = DevelopmentIssuer
	}
	if c.MaxTokenLifetime == 0 {
		c.MaxTokenLifetime = Duration(DefaultMaxTokenLifetime)
	}
	if c.Leeway == 0 {
		c.Leeway = Duration(DefaultLeeway)
	}
	c.Leeway = max(c.Leeway, 0)
	if c.KeyRetention == 0 {
		c.KeyRetention = c.MaxTokenLifetime + c.Leeway
	}
	c.KeyRetention = max(c.KeyRetention, 0)
	if c.RefreshInterval == 0 {
		c.RefreshInterval = Duration(DefaultRefreshInterval)
	}
	if len(c.Algorithms) == 0 || c.Opaque { // a preset may have some
		c.Algorithms = c.defaultAlgorithms()
	}
	return c, nil
}

func (c Config) validate() error {
	if err := c.validateNames(); err != nil {
		return err
	}
	if err := c.validateSources(); err != nil {
		return fmt.Errorf("issuer %q: %w", c.Issuer, err)
	}
	if err := c.validateAlgorithms(); err != nil {
		return fmt.Errorf("issuer %q: %w", c.Issuer, err)
	}
	if err := c.validateClaims(); err != nil {
		return fmt.Errorf("issuer %q: %w", c.Issuer, err)
	}
	if n := c.Introspection; n != nil {
		if err := n.withDefaults(c.Issuer).validate(c); err != nil {
			return fmt.Errorf("issuer %q: %w", c.Issuer, err)
		}
	}
	var err error
	switch {
	case slices.Contains(c.Types, ""):
		err = errors.New("types has an empty value: to accept tokens without typ, write JWT")
	case slices.ContainsFunc(c.RefreshTypes, c.isAccessType):
		err = errors.New("refresh_types has a value that access tokens have, or an empty one: name what only refresh tokens have")
	case slices.Contains(c.Audiences, ""):
		err = errors.New("audiences has an empty value: leave it out to not check aud")
	case c.MaxTokenLifetime < 0 || time.Duration(c.MaxTokenLifetime) > revocation.MaxRetention:
		err = fmt.Errorf("max_token_lifetime %s is not between 0 and %s", c.MaxTokenLifetime, Duration(revocation.MaxRetention))
	case time.Duration(c.Leeway) > MaxLeeway:
		err = fmt.Errorf("leeway %s is longer than %s, the time for which a revocation outlives its token", c.Leeway, Duration(MaxLeeway))
	case time.Duration(c.KeyRetention) > revocation.MaxRetention:
		err = fmt.Errorf("key_retention %s is longer than %s", c.KeyRetention, Duration(revocation.MaxRetention))
	case time.Duration(c.RefreshInterval) < MinRefreshInterval || time.Duration(c.RefreshInterval) > MaxRefreshInterval:
		err = fmt.Errorf("refresh_interval %s is not between %s and %s", c.RefreshInterval, MinRefreshInterval, MaxRefreshInterval)
	}
	for _, thumbprint := range c.DistrustedKeys {
		if len(thumbprint) != 43 || !isBase64URL(thumbprint) {
			err = fmt.Errorf("distrusted_keys: %q is not the base64url SHA-256 thumbprint of a key (43 characters)", thumbprint)
		}
	}
	if err != nil {
		return fmt.Errorf("issuer %q: %w", c.Issuer, err)
	}
	return nil
}

// isAccessType tells whether access tokens may have this typ.
func (c Config) isAccessType(typ string) bool {
	p := newTypePolicy(c.Types, nil)
	typ = normalType([]byte(typ))
	return typ == "jwt" || typ == "at+jwt" || slices.Contains(p.accepted, typ)
}

func (c Config) validateNames() error {
	if c.Issuer == "" {
		return errors.New("an issuer needs its name: the exact iss of its tokens")
	}
	if c.Development && c.Issuer != DevelopmentIssuer {
		return fmt.Errorf("the development issuer is always %q: it must not sign in the name of %q", DevelopmentIssuer, c.Issuer)
	}
	if !c.Development && c.Issuer == DevelopmentIssuer {
		return fmt.Errorf("issuer %q is the development issuer: set development, or use the issuer's own name", c.Issuer)
	}
	for _, name := range append([]string{c.Issuer}, c.Aliases...) {
		if err := (revocation.Criteria{Issuer: name}).Validate(); err != nil {
			return fmt.Errorf("issuer %q: %w", name, err)
		}
	}
	if len(c.Aliases) > maxAliases {
		return fmt.Errorf("issuer %q: %d aliases, more than %d: each costs further look-ups on every request",
			c.Issuer, len(c.Aliases), maxAliases)
	}
	if slices.Contains(c.Aliases, c.Issuer) {
		return fmt.Errorf("issuer %q: an alias repeats the issuer itself", c.Issuer)
	}
	return nil
}

// wellKnown are the claims that every identity has if the token has them.
var wellKnown = [...]string{
	revocation.ClaimTokenID, revocation.ClaimSubject, revocation.ClaimClientID, revocation.ClaimSessionID,
}

func (c Config) validateClaims() error {
	for _, canonical := range slices.Sorted(maps.Keys(c.Claims)) {
		names := c.Claims[canonical]
		switch {
		case canonical == "" || len(canonical) > revocation.MaxClaimName:
			return fmt.Errorf("claims: %q is not a claim name of 1 to %d bytes", canonical, revocation.MaxClaimName)
		case canonical == revocation.ClaimToken || canonical == revocation.ClaimKeyID:
			return fmt.Errorf("claims: %q is computed from the token itself and cannot be mapped", canonical)
		case len(names) == 0:
			return fmt.Errorf("claims: %q is mapped to nothing: give a name, or leave the line out", canonical)
		case len(names) > 8:
			return fmt.Errorf("claims: %q has %d names, more than 8", canonical, len(names))
		}
		for _, name := range names {
			if name == "" || len(name) > revocation.MaxClaimName {
				return fmt.Errorf("claims: %q is mapped to %q, not a name of 1 to %d bytes", canonical, name, revocation.MaxClaimName)
			}
		}
	}
	return nil
}
