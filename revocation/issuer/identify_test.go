package issuer

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

func TestTokensOfEveryAlgorithmAreVerified(t *testing.T) {
	as := revocationtest.NewAuthServer(t)
	set, _ := trustServer(t, as, nil)
	for _, alg := range revocationtest.Algorithms {
		t.Run(alg, func(t *testing.T) {
			token := as.Sign(as.Claims(map[string]any{"jti": "id-" + alg}), alg)
			id := accept(t, set, token, Request{})
			if jti, _ := id.Value(revocation.ClaimTokenID); jti != "id-"+alg {
				t.Errorf("jti is %q", jti)
			}
			key := as.Key(alg)
			thumbprint, err := key.Thumbprint(crypto.SHA256)
			if err != nil {
				t.Fatal(err)
			}
			if kid, _ := id.Value(revocation.ClaimKeyID); kid != base64.RawURLEncoding.EncodeToString(thumbprint) {
				t.Errorf("kid is %q, not the thumbprint of the key", kid)
			}
			input := token[:strings.LastIndexByte(token, '.')]
			sum := sha256.Sum256([]byte(input))
			if hash, _ := id.Value(revocation.ClaimToken); hash != base64.RawURLEncoding.EncodeToString(sum[:]) {
				t.Errorf("token is %q, not the hash of the signing input", hash)
			}
		})
	}
}

func TestEveryRespellingOfATokenHasTheSameIdentity(t *testing.T) {
	as := revocationtest.NewAuthServer(t)
	set, _ := trustServer(t, as, nil)
	for alg, spellings := range map[string]int{"RS256": 16, "ES256": 16, "ES384": 1, "ES512": 1, "EdDSA": 16} {
		t.Run(alg, func(t *testing.T) {
			for _, jti := range []any{"with-jti", nil} {
				token := as.Sign(as.Claims(map[string]any{"jti": jti}), alg)
				want := accept(t, set, token, Request{})
				all := revocationtest.Respellings(token)
				if alg == "ES512" {
					spellings = len(all)
				}
				if len(all) != spellings {
					t.Fatalf("%d spellings", len(all))
				}
				if alg[:2] == "ES" {
					all = append(all, revocationtest.Respellings(revocationtest.ECDSATwin(t, as.Key(alg), token))...)
				}
				for _, spelling := range all {
					for _, req := range []Request{{}, {SkipVerify: true}} {
						got := accept(t, set, spelling, req)
						if req.SkipVerify {
							got = withKey(got, want)
						}
						if !reflect.DeepEqual(got, want) {
							t.Fatalf("identity %+v, want %+v", got, want)
						}
					}
				}
			}
		})
	}
}

// withKey returns an unverified identity as it would be verified.
func withKey(id, like *revocation.Identity) *revocation.Identity {
	c := *id
	kid, _ := like.Value(revocation.ClaimKeyID)
	c.Claims = append(append([]revocation.Claim{}, id.Claims...), revocation.Claim{Name: revocation.ClaimKeyID, Value: kid})
	revocation.SortClaims(c.Claims)
	c.Verified = true
	return &c
}

func TestForgedTokensAreInvalid(t *testing.T) {
	as, other := revocationtest.NewAuthServer(t), revocationtest.NewAuthServer(t)
	set, _ := trustServer(t, as, nil)
	rs := as.Key("RS256")
	public := rs.Public().Key.(*rsa.PublicKey)
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	pemText := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	jwk := rs.Public()
	jwkText, _ := jwk.MarshalJSON()
	claims := as.Claims(nil)
	typ := map[string]any{"typ": "at+jwt"}
	hmacWith := func(secret []byte) string {
		return revocationtest.SignWith(t, jose.JSONWebKey{Key: secret, Algorithm: "HS256", KeyID: rs.KeyID}, typ, claims)
	}
	es := as.Token(nil)
	tampered := func(token string) string {
		parts := strings.Split(token, ".")
		payload, _ := base64.RawURLEncoding.DecodeString(parts[1])
		parts[1] = base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(payload), "alice", "mallo", 1)))
		return strings.Join(parts, ".")
	}
	otherKey := other.Key("ES256")
	otherKey.KeyID = as.Key("ES256").KeyID
	wrongAlg := as.Key("RS256")
	wrongAlg.Algorithm = "PS256"
	for name, token := range map[string]string{
		"HS256 with the public key as PEM":    hmacWith(pemText),
		"HS256 with the public key as DER":    hmacWith(der),
		"HS256 with the public key as JWK":    hmacWith(jwkText),
		"HS256 with the modulus":              hmacWith(public.N.Bytes()),
		"key of another issuer under our kid": revocationtest.SignWith(t, otherKey, typ, claims),
		"PS256 with a key dedicated to RS256": revocationtest.SignWith(t, wrongAlg, typ, claims),
		"payload changed":                     tampered(es),
		"signature of another token":          es[:strings.LastIndexByte(es, '.')] + as.Token(nil)[strings.LastIndexByte(as.Token(nil), '.'):],
		"algorithm in lower case":             revocationtest.SignWith(t, as.Key("ES256"), map[string]any{"alg": "es256"}, claims),
		"signature cut":                       es[:len(es)-4],
		"zero signature":                      es[:strings.LastIndexByte(es, '.')+1] + strings.Repeat("A", 86),
		"kid of another algorithm's key":      revocationtest.SignWith(t, jose.JSONWebKey{Key: as.Key("ES256").Key, Algorithm: "ES256", KeyID: "key-rs256"}, typ, claims),
		"ES384 token with an ES256 key":       revocationtest.SignWith(t, as.Key("ES256"), map[string]any{"alg": "ES384", "kid": "key-es384"}, claims),
	} {
		t.Run(name, func(t *testing.T) {
			refuse(t, set, token, Request{}, ErrInvalid)
			refuse(t, set, token, Request{Wait: true}, ErrInvalid)
		})
	}
	t.Run("key of another issuer", func(t *testing.T) {
		_, fresh := trustServer(t, as, nil)
		// Same iss, the other server's kid: the issuers' keys are never mixed.
		both := newSet(t, fresh, startIssuer(t, Config{
			Issuer: other.Issuer(), JWKSURI: other.URL + revocationtest.JWKSPath}, Options{Client: clientOf(t, other)}))
		key := revocationtest.NewKey(t, "ES256", "only-at-b")
		other.SetKeys(key)
		token := revocationtest.SignWith(t, key, typ, as.Claims(nil))
		accept(t, both, revocationtest.SignWith(t, key, typ, other.Claims(nil)), Request{Wait: true})
		refuse(t, both, token, Request{Wait: true}, ErrInvalid)
	})
}

func TestUnsignedTokensAreInvalidEverywhere(t *testing.T) {
	as := revocationtest.NewAuthServer(t)
	set, _ := trustServer(t, as, nil)
	for _, alg := range []string{"none", "None", "nOnE", "NONE"} {
		key := jose.JSONWebKey{Key: []byte("irrelevant"), Algorithm: "HS256"}
		token := revocationtest.SignWith(t, key, map[string]any{"alg": alg, "typ": "at+jwt"}, as.Claims(nil))
		refuse(t, set, token, Request{}, ErrInvalid)
		refuse(t, set, token, Request{SkipVerify: true}, ErrInvalid)
		unsigned := token[:strings.LastIndexByte(token, '.')+1]
		refuse(t, set, unsigned, Request{}, ErrMalformed)
		refuse(t, set, unsigned, Request{SkipVerify: true}, ErrMalformed)
	}
}

func TestHMACNeedsAnExplicitSecretOfItsOwn(t *testing.T) {
	as := revocationtest.NewAuthServer(t)
	text := strings.Repeat("s3cr3t..", 9)
	for alg, size := range map[string]int{"HS256": 32, "HS384": 48, "HS512": 64} {
		t.Run(alg, func(t *testing.T) {
			c := Config{Issuer: as.Issuer(), HMACSecret: text[:size], Algorithms: []string{alg}}
			set := newSet(t, newIssuer(t, c, Options{}))
			key := jose.JSONWebKey{Key: []byte(text[:size]), Algorithm: alg}
			token := revocationtest.SignWith(t, key, nil, as.Claims(nil))
			id := accept(t, set, token, Request{})
			if len(id.Values(revocation.ClaimKeyID)) != 0 {
				t.Error("the identity has a hash of the secret")
			}
			for _, spelling := range revocationtest.Respellings(token) {
				if !reflect.DeepEqual(accept(t, set, spelling, Request{}), id) {
					t.Error("another spelling has another identity")
				}
			}
			key.Key = []byte(text[1 : size+1])
			refuse(t, set, revocationtest.SignWith(t, key, nil, as.Claims(nil)), Request{Wait: true}, ErrInvalid)
			refuse(t, set, as.Token(nil), Request{}, ErrInvalid)
			c.HMACSecret = text[:size-1]
			if _, err := New(c, Options{}); err == nil || !strings.Contains(err.Error(), fmt.Sprint(size)) {
				t.Errorf("a secret that is too short: %v", err)
			}
		})
	}
}

func TestTimeClaimsAreCheckedWithLeeway(t *testing.T) {
	as := revocationtest.NewAuthServer(t)
	now := newClock()
	i := startIssuer(t, Config{Issuer: as.Issuer(), JWKSURI: as.URL + revocationtest.JWKSPath, MaxTokenLifetime: Duration(time.Hour)},
		Options{Client: clientOf(t, as), Now: now.Now})
	set := newSet(t, i)
	at := now.Now().Unix()
	for _, c := range []struct {
		name   string
		claims map[string]any
		want   error // nil for accepted
	}{
		{"ordinary", map[string]any{"iat": at, "exp": at + 300}, nil},
		{"exp over, within leeway", map[string]any{"iat": at - 300, "exp": at - 59}, nil},
		{"exp over", map[string]any{"iat": at - 300, "exp": at - 60}, ErrExpired},
		{"exp zero", map[string]any{"iat": nil, "exp": 0}, ErrExpired},
		{"no exp", map[string]any{"iat": at, "exp": nil}, ErrInvalid},
		{"nbf to come, within leeway", map[string]any{"nbf": at + 60}, nil},
		{"nbf to come", map[string]any{"nbf": at + 61}, ErrNotYetValid},
		{"iat to come, within leeway", map[string]any{"iat": at + 60}, nil},
		{"iat to come", map[string]any{"iat": at + 61}, ErrNotYetValid},
		{"lifetime at the limit", map[string]any{"iat": at, "exp": at + 3600}, nil},
		{"lifetime too long", map[string]any{"iat": at - 10, "exp": at + 3591}, ErrInvalid},
		{"no iat, exp within the lifetime", map[string]any{"iat": nil, "exp": at + 3600}, nil},
		{"no iat, exp too far", map[string]any{"iat": nil, "exp": at + 3700}, ErrInvalid},
		{"iat far ahead to look short-lived", map[string]any{"iat": at + 1e6, "exp": at + 1e6 + 300}, ErrInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			token := as.Token(c.claims)
			if c.want == nil {
				accept(t, set, token, Request{})
			} else {
				refuse(t, set, token, Request{}, c.want)
			}
			// whatever its times, it can be revoked: it may pass elsewhere
			accept(t, set, token, Request{IgnoreExpiry: true})
		})
	}
	t.Run("allow_missing_expiry", func(t *testing.T) {
		set, _ := trustServer(t, as, func(c *Config) { c.AllowMissingExpiry = true })
		if id := accept(t, set, as.Token(map[string]any{"exp": nil}), Request{}); id.Expiry != 0 {
			t.Errorf("expiry %d", id.Expiry)
		}
	})
}

func TestTimesAreReadAsNumericDates(t *testing.T) {
	as := revocationtest.NewAuthServer(t)
	set, _ := trustServer(t, as, nil)
	payload := func(times string) string {
		return revocationtest.SignWith(t, as.Key("ES256"), nil, []byte(`{"iss":"`+as.Issuer()+`",`+times+`}`))
	}
	soon := time.Now().Unix() + 100
	exp := fmt.Sprintf(`%d`, soon)
	id := accept(t, set, payload(fmt.Sprintf(`"exp":%d.25,"iat":17000000009e-1,"auth_time":1700000000.9,"nbf":16999999995e-1`, soon)),
		Request{SkipVerify: true})
	if id.Expiry != soon+1 || id.IssuedAt != 1_700_000_000 || id.AuthTime != 1_700_000_000 || id.NotBefore != 1_700_000_000 {
		t.Errorf("got %+v", id)
	}
	id = accept(t, set, payload(`"iat":1.7e9,"exp":1.7e9`), Request{SkipVerify: true})
	if id.Expiry != 1_700_000_000 || id.IssuedAt != 1_700_000_000 {
		t.Errorf("got %+v", id)
	}
	for _, bad := range []string{
		`"exp":"` + exp + `"`, `"exp":-1`, `"exp":-0.5`, `"exp":1e400`, `"exp":1e300`, `"exp":` + exp + `000`,
		`"exp":[1]`, `"exp":{}`, `"exp":true`, `"exp":NaN`, `"exp":Infinity`, `"exp":0x10`, `"exp":+1`, `"exp":01`, `"exp":1.`, `"exp":.5`, `"exp":1e`,
		`"exp":` + exp + `,"iat":"x"`, `"exp":` + exp + `,"nbf":-1`, `"exp":` + exp + `,"auth_time":1e13`,
		`"exp":1,"exp":` + exp,
	} {
		refuse(t, set, payload(bad), Request{}, ErrMalformed)
		refuse(t, set, payload(bad), Request{SkipVerify: true}, ErrMalformed)
	}
}

func TestClaimNamesAreCaseSensitiveAndUnique(t *testing.T) {
	as := revocationtest.NewAuthServer(t)
	set, _ := trustServer(t, as, nil)
	rest := fmt.Sprintf(`"iss":%q,"exp":%d`, as.Issuer(), time.Now().Unix()+100)
	sign := func(payload string) string { return revocationtest.SignWith(t, as.Key("ES256"), nil, []byte(payload)) }
	for _, payload := range []string{
		`{"jti":"real","JTI":"shadow",` + rest + `}`,
		`{"JTI":"shadow","jti":"real",` + rest + `}`,
		`{"Jti":"shadow","\u006ati":"real",` + rest + `}`,
	} {
		if jti, _ := accept(t, set, sign(payload), Request{}).Value("jti"); jti != "real" {
			t.Errorf("%s: jti is %q", payload, jti)
		}
	}
	for _, payload := range []string{
		`{"jti":"a","jti":"b",` + rest + `}`,
		`{"jti":"a","\u006ati":"b",` + rest + `}`,
		`{"x":{"a":1,"a":2},` + rest + `}`,
		`{"x":[{"y":{"a":1,"\u0061":2}}],` + rest + `}`,
	} {
		refuse(t, set, sign(payload), Request{}, ErrMalformed)
	}
}

func TestIssuerIsComparedByteByByte(t *testing.T) {
	as := revocationtest.NewAuthServer(t)
	var log logBuffer
	i := startIssuer(t, Config{Issuer: as.Issuer(), JWKSURI: as.URL + revocationtest.JWKSPath, Aliases: []string{"https://old.example"}},
		Options{Client: clientOf(t, as), Logger: log.logger()})
	set := newSet(t, i)
	for range 3 {
		refuse(t, set, as.Token(map[string]any{"iss": as.Issuer() + "/"}), Request{}, ErrUnknownIssuer)
	}
	if n := strings.Count(log.String(), "trailing slash"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, log.String())
	}
	if !strings.Contains(log.String(), "token="+as.Issuer()+"/") || !strings.Contains(log.String(), "configured="+as.Issuer()+" ") {
		t.Errorf("both spellings are not in the log:\n%s", log.String())
	}
	refuse(t, set, as.Token(map[string]any{"iss": strings.ToUpper(as.Issuer())}), Request{}, ErrUnknownIssuer)
	refuse(t, set, as.Token(map[string]any{"iss": nil}), Request{}, ErrMalformed)
	refuse(t, set, as.Token(map[string]any{"iss": []string{as.Issuer()}}), Request{}, ErrMalformed)
	id := accept(t, set, as.Token(map[string]any{"iss": "https://old.example"}), Request{})
	if id.Issuer != as.Issuer() {
		t.Errorf("the identity of a token with an alias has the issuer %q", id.Issuer)
	}
	id, _, _ = set.Identify(context.Background(), as.Token(map[string]any{"iss": "https://unknown.example", "jti": "x"}), Request{})
	if jti, _ := id.Value("jti"); id.Issuer != "https://unknown.example" || jti != "x" || id.Verified {
		t.Errorf("identity of an unknown issuer: %+v", id)
	}
	if _, err := NewSet(i, i); err == nil {
		t.Error("two issuers of one name")
	}
}

func TestAudienceIsCheckedWhereConfigured(t *testing.T) {
	as := revocationtest.NewAuthServer(t)
	set, _ := trustServer(t, as, func(c *Config) { c.Audiences = []string{"orders", "billing"} })
	for _, aud := range []any{"orders", []string{"x", "billing"}} {
		accept(t, set, as.Token(map[string]any{"aud": aud}), Request{})
	}
	for _, aud := range []any{nil, "x", "ORDERS", []string{}, []string{"x"}, map[string]any{"orders": 1}, []any{[]string{"orders"}}, 1} {
		token := as.Token(map[string]any{"aud": aud})
		refuse(t, set, token, Request{}, ErrInvalid)
		accept(t, set, token, Request{IgnoreAudience: true})
	}
}
