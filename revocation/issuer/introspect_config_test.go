package issuer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

func pemOf(t testing.TB, kind string, der []byte, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func jwkOf(t testing.TB, key jose.JSONWebKey) string {
	t.Helper()
	text, err := json.Marshal(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestIntrospectionConfigMistakesAreNamed(t *testing.T) {
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p224, err := x509.MarshalECPrivateKey(ec)
	es := revocationtest.NewKey(t, "ES256", "")
	by := func(change func(*IntrospectionConfig)) IntrospectionConfig {
		c := IntrospectionConfig{Endpoint: "https://as.example.com/introspect", ClientID: "edge", ClientSecret: "geheim"}
		change(&c)
		return c
	}
	key := func(text, alg string) IntrospectionConfig {
		return by(func(c *IntrospectionConfig) { c.ClientSecret, c.PrivateKey, c.Algorithm = "", text, alg })
	}
	file := Config{Issuer: testIssuer, JWKSFile: "/keys.json"}
	for name, c := range map[string]struct {
		c    IntrospectionConfig
		of   Config
		says string // empty: no mistake
	}{
		"right":              {by(func(*IntrospectionConfig) {}), file, ""},
		"by discovery":       {by(func(c *IntrospectionConfig) { c.Endpoint = "" }), Config{Issuer: testIssuer}, ""},
		"no endpoint":        {by(func(c *IntrospectionConfig) { c.Endpoint = "" }), file, "endpoint is missing"},
		"development":        {by(func(*IntrospectionConfig) {}), Config{Development: true}, "development"},
		"http":               {by(func(c *IntrospectionConfig) { c.Endpoint = "http://as.example.com/i" }), file, "not https"},
		"http, allowed":      {by(func(c *IntrospectionConfig) { c.Endpoint, c.AllowHTTP = "http://as.example.com/i", true }), file, ""},
		"http here":          {by(func(c *IntrospectionConfig) { c.Endpoint = "http://[::1]:8080/i?x=1" }), file, ""},
		"http at localhost":  {by(func(c *IntrospectionConfig) { c.Endpoint = "http://localhost/i" }), file, ""},
		"a similar name":     {by(func(c *IntrospectionConfig) { c.Endpoint = "http://localhost.example.com/i" }), file, "not https"},
		"password":           {by(func(c *IntrospectionConfig) { c.Endpoint = "https://edge:geheim@as.example.com/i" }), file, "user name"},
		"user":               {by(func(c *IntrospectionConfig) { c.Endpoint = "https://geheim@as.example.com/i" }), file, "user name"},
		"fragment":           {by(func(c *IntrospectionConfig) { c.Endpoint += "#x" }), file, "fragment"},
		"relative":           {by(func(c *IntrospectionConfig) { c.Endpoint = "/introspect" }), file, "absolute"},
		"another scheme":     {by(func(c *IntrospectionConfig) { c.Endpoint = "ftp://as.example.com/" }), file, "absolute https"},
		"not a URL":          {by(func(c *IntrospectionConfig) { c.Endpoint = "https://as example com/" }), file, "not a URL"},
		"no credential":      {IntrospectionConfig{Endpoint: "https://as.example.com/i"}, file, "credential is missing"},
		"only an id":         {by(func(c *IntrospectionConfig) { c.ClientSecret = "" }), file, "credential is missing"},
		"none":               {IntrospectionConfig{Endpoint: "https://as.example.com/i", AuthMethod: "none"}, file, ""},
		"none with a secret": {by(func(c *IntrospectionConfig) { c.AuthMethod = "none" }), file, "not used"},
		"unknown method":     {by(func(c *IntrospectionConfig) { c.AuthMethod = "basic" }), file, "not one of"},
		"no id":              {by(func(c *IntrospectionConfig) { c.ClientID = "" }), file, "client_id is missing"},
		"no secret":          {by(func(c *IntrospectionConfig) { c.AuthMethod, c.ClientSecret = "client_secret_post", "" }), file, "client_secret is missing"},
		"two credentials":    {by(func(c *IntrospectionConfig) { c.BearerToken = "x" }), file, "bearer_token is not used"},
		"no token":           {IntrospectionConfig{Endpoint: "https://as.example.com/i", AuthMethod: "bearer"}, file, "bearer_token is missing"},
		"token with a line":  {IntrospectionConfig{Endpoint: "https://as.example.com/i", BearerToken: "geheim\r\nX: y"}, file, "bearer_token has"},
		"no key":             {by(func(c *IntrospectionConfig) { c.AuthMethod, c.ClientSecret = "private_key_jwt", "" }), file, "private_key is missing"},
		"key id without key": {by(func(c *IntrospectionConfig) { c.KeyID = "x" }), file, "key_id"},
		"audience unused":    {by(func(c *IntrospectionConfig) { c.ResponseAudience = "x" }), file, "response_audience"},
		"signed, for whom": {IntrospectionConfig{Endpoint: "https://as.example.com/i", BearerToken: "x", SignedResponse: true}, file,
			"needs client_id or response_audience"},
		"signed, for us":        {by(func(c *IntrospectionConfig) { c.SignedResponse = true }), file, ""},
		"timeout too short":     {by(func(c *IntrospectionConfig) { c.Timeout = 1 }), file, "timeout"},
		"timeout too long":      {by(func(c *IntrospectionConfig) { c.Timeout = Duration(time.Minute) }), file, "timeout"},
		"cooldown negative":     {by(func(c *IntrospectionConfig) { c.BreakerCooldown = -1 }), file, "breaker_cooldown"},
		"concurrency":           {by(func(c *IntrospectionConfig) { c.MaxConcurrent = -1 }), file, "max_concurrent"},
		"ttl":                   {by(func(c *IntrospectionConfig) { c.CacheTTL = Duration(time.Hour) }), file, "cache_ttl"},
		"no ttl":                {by(func(c *IntrospectionConfig) { c.CacheTTL = -1 }), file, ""},
		"cache":                 {by(func(c *IntrospectionConfig) { c.CacheSize = 1 << 40 }), file, "cache_size"},
		"jwk":                   {key(jwkOf(t, es), ""), file, ""},
		"public jwk":            {key(jwkOf(t, es.Public()), ""), file, "not the private key"},
		"secret jwk":            {key(`{"kty":"oct","k":"Z2VoZWltZ2VoZWltZ2VoZWltZ2VoZWltZ2VoZWlt"}`, ""), file, "not the private key"},
		"broken jwk":            {key(`{"kty":"EC","geheim"`, ""), file, "not a valid JWK"},
		"not a key":             {key("geheim", ""), file, "neither a JWK nor PEM"},
		"certificate":           {key(pemOf(t, "CERTIFICATE", []byte("geheim"), nil), ""), file, "not that of an unencrypted private key"},
		"broken PEM":            {key(pemOf(t, "PRIVATE KEY", []byte("geheim"), nil), ""), file, "no valid private key"},
		"weak":                  {key(pemOf(t, "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(weak), nil), ""), file, "1024 bits"},
		"unsupported curve":     {key(pemOf(t, "EC PRIVATE KEY", p224, err), ""), file, "not a key for the algorithm"},
		"algorithm of another":  {key(jwkOf(t, es), "RS256"), file, "not a key for the algorithm"},
		"algorithm for secrets": {key(jwkOf(t, es), "HS256"), file, "not a key for the algorithm"},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.c.Validate(c.of)
			switch {
			case c.says == "" && err != nil, c.says != "" && err == nil:
				t.Fatal(err)
			case err != nil && (!strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "geheim")):
				t.Error(err)
			}
			i, issuerErr := New(c.of, Options{Store: newMemoryStore()})
			if issuerErr != nil {
				t.Fatal(issuerErr)
			}
			n, err := NewIntrospector(i, c.c, nil)
			if (err == nil) != (c.says == "") {
				t.Fatal(err)
			}
			if err == nil {
				n.Close()
			}
		})
	}
}

func TestIntrospectionConfigAsJSON(t *testing.T) {
	var c IntrospectionConfig
	d := json.NewDecoder(strings.NewReader(`{"endpoint":"https://as.example.com/i","allow_http":true,"auth_method":"private_key_jwt","client_id":"edge",
		"client_secret":"s","private_key":"k","key_id":"1","algorithm":"ES256","assertion_audience":"a","bearer_token":"b","signed_response":true,
		"response_audience":"r","timeout":"2s","max_concurrent":3,"breaker_failures":4,"breaker_cooldown":"6s","cache_ttl":"7s","cache_size":8}`))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		t.Fatal(err)
	}
	want := IntrospectionConfig{
		Endpoint: "https://as.example.com/i", AllowHTTP: true, AuthMethod: "private_key_jwt", ClientID: "edge", ClientSecret: "s", PrivateKey: "k",
		KeyID: "1", Algorithm: "ES256", AssertionAudience: "a", BearerToken: "b", SignedResponse: true, ResponseAudience: "r",
		Timeout: Duration(2 * time.Second), MaxConcurrent: 3, BreakerFailures: 4, BreakerCooldown: Duration(6 * time.Second),
		CacheTTL: Duration(7 * time.Second), CacheSize: 8,
	}
	if c != want {
		t.Errorf("%+v", c)
	}
}

func TestWeAuthenticateInTheConfiguredWay(t *testing.T) {
	rs := revocationtest.NewKey(t, "RS256", "")
	pkcs8, err := x509.MarshalPKCS8PrivateKey(rs.Key)
	rsaPEM := pemOf(t, "PRIVATE KEY", pkcs8, err)
	p384 := revocationtest.NewKey(t, "ES384", "")
	sec1, err := x509.MarshalECPrivateKey(p384.Key.(*ecdsa.PrivateKey))
	ecPEM := pemOf(t, "EC PRIVATE KEY", sec1, err)
	ed := revocationtest.NewKey(t, "EdDSA", "key-1")
	ed.Algorithm = ""
	ps := rs
	ps.Algorithm, ps.KeyID = "PS256", "key-2"
	for name, c := range map[string]struct {
		c                   IntrospectionConfig
		authorization       string
		form                map[string]string
		alg, kid, audiences string
		public              any
	}{
		"basic": {c: IntrospectionConfig{ClientID: "edge", ClientSecret: "geheim"}, authorization: "Basic ZWRnZTpnZWhlaW0="},
		"post": {c: IntrospectionConfig{ClientID: "edge", ClientSecret: "a&b", AuthMethod: "client_secret_post"},
			form: map[string]string{"client_id": "edge", "client_secret": "a&b"}},
		"bearer":     {c: IntrospectionConfig{BearerToken: "our.own~token"}, authorization: "Bearer our.own~token"},
		"none":       {c: IntrospectionConfig{AuthMethod: "none"}},
		"RSA in PEM": {c: IntrospectionConfig{ClientID: "edge", PrivateKey: rsaPEM}, alg: "RS256", audiences: testIssuer, public: rs.Public().Key},
		"RSA in PEM, PS384": {c: IntrospectionConfig{ClientID: "edge", PrivateKey: rsaPEM, Algorithm: "PS384", KeyID: "k", AssertionAudience: "https://as/token"},
			alg: "PS384", kid: "k", audiences: "https://as/token", public: rs.Public().Key},
		"EC in PEM": {c: IntrospectionConfig{ClientID: "edge", PrivateKey: ecPEM}, alg: "ES384", audiences: testIssuer, public: p384.Public().Key},
		"Ed25519 as JWK": {c: IntrospectionConfig{ClientID: "edge", PrivateKey: jwkOf(t, ed)}, alg: "EdDSA", kid: "key-1", audiences: testIssuer,
			public: ed.Public().Key},
		"RSA as JWK": {c: IntrospectionConfig{ClientID: "edge", PrivateKey: jwkOf(t, ps)}, alg: "PS256", kid: "key-2", audiences: testIssuer,
			public: rs.Public().Key},
	} {
		t.Run(name, func(t *testing.T) {
			s := newAsked(t, answers(`{"active":false}`))
			n := s.introspector(t, func(_ *Config, ic *IntrospectionConfig, _ *Options) {
				c.c.Endpoint = ic.Endpoint
				*ic = c.c
			})
			introspectError(t, n, testToken, IntrospectionRequest{}, ErrInactive)
			q := s.last(t)
			if got := q.header.Get("Authorization"); got != c.authorization {
				t.Errorf("Authorization %q", got)
			}
			wantForm := 1
			for name, value := range c.form {
				wantForm++
				if got := q.form[name]; len(got) != 1 || got[0] != value {
					t.Errorf("%s: %q", name, got)
				}
			}
			if c.alg != "" {
				wantForm += 2
				id := checkAssertionOf(t, q, c.alg, c.kid, c.audiences, c.public)
				introspectError(t, n, testToken, IntrospectionRequest{}, ErrInactive)
				if checkAssertionOf(t, s.last(t), c.alg, c.kid, c.audiences, c.public) == id {
					t.Error("an assertion was used twice")
				}
			}
			if len(q.form) != wantForm || q.form.Get("token") != testToken {
				t.Errorf("%v", q.form)
			}
		})
	}
}

// checkAssertionOf verifies the client assertion in a question and returns its
// jti.
func checkAssertionOf(t *testing.T, q question, alg, kid, audience string, public any) string {
	t.Helper()
	if got := q.form.Get("client_assertion_type"); got != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" {
		t.Errorf("client_assertion_type %q", got)
	}
	jws, err := jose.ParseSignedCompact(q.form.Get("client_assertion"), parserAlgorithms())
	if err != nil {
		t.Fatal(err)
	}
	payload, err := jws.Verify(public)
	if err != nil {
		t.Fatal(err)
	}
	header := jws.Signatures[0].Protected
	if header.Algorithm != alg || header.KeyID != kid || header.JSONWebKey != nil {
		t.Errorf("%+v", header)
	}
	var c struct {
		Iss, Sub string
		Aud      any
		Jti      string
		Iat, Exp int64
	}
	if err := json.Unmarshal(payload, &c); err != nil {
		t.Fatal(err)
	}
	now := time.Now().Unix()
	if c.Iss != "edge" || c.Sub != "edge" || c.Aud != any(audience) || c.Jti == "" || c.Exp-c.Iat != 60 || c.Iat > now || c.Iat < now-30 {
		t.Errorf("%s", payload)
	}
	return c.Jti
}

func TestAGivenClientIsNotChanged(t *testing.T) {
	s := newAsked(t, answers(`{"active":false}`))
	jar := &countingJar{}
	client := &http.Client{Transport: s.Client().Transport, Jar: jar, Timeout: time.Nanosecond}
	i := newIssuer(t, Config{Issuer: testIssuer, JWKSFile: "/x"}, Options{})
	n, err := NewIntrospector(i, IntrospectionConfig{Endpoint: s.URL, BearerToken: "x"}, client)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	introspectError(t, n, testToken, IntrospectionRequest{}, ErrInactive)
	if client.Jar != jar || client.Timeout != time.Nanosecond || client.CheckRedirect != nil || jar.used || n.Issuer() != i {
		t.Errorf("%+v", client)
	}
}
