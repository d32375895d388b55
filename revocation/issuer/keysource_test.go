package issuer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

func jwks(t testing.TB, keys ...jose.JSONWebKey) []byte {
	t.Helper()
	var set jose.JSONWebKeySet
	for _, k := range keys {
		set.Keys = append(set.Keys, k.Public())
	}
	text, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func newKeySource(t testing.TB, c KeySourceConfig) *KeySource {
	t.Helper()
	s, err := NewKeySource(c, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

func mustRead(t testing.TB, token string) *JWT {
	t.Helper()
	j, err := ReadJWT(token)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func TestKeySourceRefusesContradictions(t *testing.T) {
	key := revocationtest.NewKey(t, "ES256", "k")
	private, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{key}})
	if err != nil {
		t.Fatal(err)
	}
	const secret = "0123456789abcdef0123456789abcdef"
	for name, tt := range map[string]struct {
		config KeySourceConfig
		says   string
	}{
		"nothing":                {KeySourceConfig{}, "keys are missing"},
		"two places":             {KeySourceConfig{JWKS: jwks(t, key), JWKSFile: "/x"}, "exclude each other"},
		"a key and a secret":     {KeySourceConfig{JWKS: jwks(t, key), Secrets: []string{secret}}, "exclude each other"},
		"no set":                 {KeySourceConfig{JWKS: []byte(`{"kty":"EC"}`)}, "not a JWK set"},
		"an empty set":           {KeySourceConfig{JWKS: []byte(`{"keys":[]}`)}, "no usable key"},
		"a private key":          {KeySourceConfig{JWKS: private}, "private key"},
		"a bad key beside one":   {KeySourceConfig{JWKS: []byte(strings.Replace(string(jwks(t, key)), `[`, `[{"kty":"oct","k":"AAAA"},`, 1))}, "key 1"},
		"a relative file":        {KeySourceConfig{JWKSFile: "keys.json"}, "not an absolute path"},
		"http":                   {KeySourceConfig{JWKSURI: "http://a.example/jwks"}, "not https"},
		"no address":             {KeySourceConfig{JWKSURI: "a.example/jwks"}, "not an absolute https URL"},
		"a short secret":         {KeySourceConfig{Secrets: []string{"s3cret-too-short"}}, "secret 1 has 16 bytes"},
		"a secret too short":     {KeySourceConfig{Secrets: []string{secret}, Algorithms: []string{"HS384"}}, "shorter than the 48 bytes"},
		"none":                   {KeySourceConfig{JWKS: jwks(t, key), Algorithms: []string{"none"}}, "not one for a public key"},
		"HMAC with a public key": {KeySourceConfig{JWKS: jwks(t, key), Algorithms: []string{"HS256"}}, "not one for a public key"},
		"a public algorithm":     {KeySourceConfig{Secrets: []string{secret}, Algorithms: []string{"ES256"}}, "not one for a shared secret"},
		"twice":                  {KeySourceConfig{JWKS: jwks(t, key), Algorithms: []string{"ES256", "ES256"}}, "listed twice"},
		"too often":              {KeySourceConfig{JWKS: jwks(t, key), RefreshInterval: time.Second}, "refresh_interval"},
	} {
		_, err := NewKeySource(tt.config, Options{})
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %q", name, err, tt.says)
		}
		if err != nil && (strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "s3cret")) {
			t.Errorf("%s: the error has the secret: %v", name, err)
		}
	}
}

func TestKeySourceVerifiesWithItsKeysOnly(t *testing.T) {
	key, other := revocationtest.NewKey(t, "ES256", "k"), revocationtest.NewKey(t, "ES256", "k")
	s := newKeySource(t, KeySourceConfig{JWKS: jwks(t, key)})
	if err := s.Verify(t.Context(), mustRead(t, revocationtest.SignWith(t, key, nil, map[string]any{"a": 1}))); err != nil {
		t.Error(err)
	}
	if err := s.Verify(t.Context(), mustRead(t, revocationtest.SignWith(t, other, nil, map[string]any{"a": 1}))); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	for _, k := range []struct {
		key  jose.JSONWebKey
		want bool
	}{{key, true}, {other, false}, {revocationtest.NewKey(t, "EdDSA", "k"), false}, {revocationtest.NewKey(t, "RS256", "k"), false}} {
		if got, err := s.Contains(t.Context(), k.key.Public().Key); got != k.want || err != nil {
			t.Errorf("contains: %v, %v", got, err)
		}
	}
	if got, err := s.Contains(t.Context(), "no key"); got || err != nil {
		t.Errorf("%v, %v", got, err)
	}
	shared := newKeySource(t, KeySourceConfig{Secrets: []string{strings.Repeat("a", 64), strings.Repeat("b", 48)}})
	if !slices.Equal(shared.Algorithms(), []string{"HS256", "HS384"}) || !shared.Shared() || s.Shared() {
		t.Errorf("algorithms %v", shared.Algorithms())
	}
	if got, err := shared.Contains(t.Context(), []byte(strings.Repeat("a", 64))); got || err != nil {
		t.Errorf("a shared secret counts as a public key: %v", err)
	}
}

func TestKeySourceWithoutKeysProvesNothing(t *testing.T) {
	server := revocationtest.NewAuthServer(t)
	s := newKeySource(t, KeySourceConfig{JWKSURI: server.URL + revocationtest.JWKSPath})
	j := mustRead(t, server.Token(nil))
	published := server.Key("ES256")
	if err := s.Verify(t.Context(), j); !errors.Is(err, ErrKeysUnavailable) {
		t.Errorf("not started: %v", err)
	}
	if _, err := s.Contains(t.Context(), published.Public().Key); !errors.Is(err, ErrKeysUnavailable) {
		t.Errorf("not started: %v", err)
	}
	server.Fail(http.StatusBadGateway)
	s.Start()
	if err := s.Verify(t.Context(), j); !errors.Is(err, ErrKeysUnavailable) {
		t.Errorf("out of order: %v", err)
	}
	server.Fail(0)
	if err := s.Verify(t.Context(), j); err != nil {
		t.Errorf("in order again: %v", err)
	}
	if got, err := s.Contains(t.Context(), published.Public().Key); !got || err != nil {
		t.Errorf("%v, %v", got, err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	stranger := mustRead(t, revocationtest.SignWith(t, revocationtest.NewKey(t, "ES256", "new"), nil, map[string]any{"a": 1}))
	if err := s.Verify(cancelled, stranger); errors.Is(err, ErrInvalid) {
		t.Errorf("nothing was asked, and yet: %v", err)
	}
}

// Anybody can write any kid: while the last answer of the source is good and it
// can't be asked again yet, an unknown one is no key, and no reason to say that
// keys are unavailable.
func TestKeySourceDecidesWhileItMayNotAskAgain(t *testing.T) {
	server := revocationtest.NewAuthServer(t)
	s := newKeySource(t, KeySourceConfig{JWKSURI: server.URL + revocationtest.JWKSPath})
	s.Start()
	unknown := func(i int) *JWT {
		key := revocationtest.NewKey(t, "ES256", fmt.Sprint("made-up-", i))
		return mustRead(t, revocationtest.SignWith(t, key, nil, map[string]any{"a": 1}))
	}
	stranger := revocationtest.NewKey(t, "ES256", "x")
	for i := range 3 * onDemandBurst {
		j := unknown(i)
		if tried, err := s.Try(t.Context(), j); tried || !errors.Is(err, ErrInvalid) {
			t.Fatalf("number %d: %v, %v", i, tried, err)
		}
		if got, err := s.Contains(t.Context(), stranger.Public().Key); got || err != nil {
			t.Fatalf("number %d: contained %v, %v", i, got, err)
		}
	}
	if err := s.Verify(t.Context(), mustRead(t, server.Token(nil))); err != nil {
		t.Errorf("a known key: %v", err)
	}
	s.Stop()
	if err := s.Verify(t.Context(), unknown(-1)); !errors.Is(err, ErrKeysUnavailable) {
		t.Errorf("stopped: %v", err)
	}

	// One whose last answer was bad proves nothing.
	s = newKeySource(t, KeySourceConfig{JWKSURI: server.URL + revocationtest.JWKSPath})
	s.Start()
	if err := s.Verify(t.Context(), mustRead(t, server.Token(nil))); err != nil {
		t.Fatal(err)
	}
	server.Fail(http.StatusBadGateway)
	for i := range 3 * onDemandBurst {
		if err := s.Verify(t.Context(), unknown(i)); !errors.Is(err, ErrKeysUnavailable) {
			t.Fatalf("out of order, number %d: %v", i, err)
		}
	}
}

func TestKeySourceTellsWhetherASignatureWasComputed(t *testing.T) {
	key := revocationtest.NewKey(t, "ES256", "k")
	s := newKeySource(t, KeySourceConfig{JWKS: jwks(t, key), Algorithms: []string{"ES256", "RS256"}})
	for name, tt := range map[string]struct {
		key    jose.JSONWebKey
		header map[string]any
		tried  bool
	}{
		"the key":                          {key, nil, true},
		"another key of that name":         {revocationtest.NewKey(t, "ES256", "k"), nil, true},
		"another name":                     {key, map[string]any{"kid": "x"}, false},
		"no name":                          {key, map[string]any{"kid": nil}, true},
		"another kind of key":              {revocationtest.NewKey(t, "RS256", "k"), nil, false},
		"an algorithm that is not allowed": {revocationtest.NewKey(t, "EdDSA", "k"), nil, false},
	} {
		tried, err := s.Try(t.Context(), mustRead(t, revocationtest.SignWith(t, tt.key, tt.header, map[string]any{"a": 1})))
		if tried != tt.tried || (err == nil) != (tried && tt.key.Key == key.Key) {
			t.Errorf("%s: tried %v, %v", name, tried, err)
		}
	}
}

func TestKeySourceFileIsReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	first, second := revocationtest.NewKey(t, "ES256", "1"), revocationtest.NewKey(t, "ES256", "2")
	write := func(text []byte) {
		t.Helper()
		if err := os.WriteFile(path+".new", text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	write(jwks(t, first))
	s := newKeySource(t, KeySourceConfig{JWKSFile: path})
	s.Start()
	sign := func(k jose.JSONWebKey) *JWT {
		return mustRead(t, revocationtest.SignWith(t, k, nil, map[string]any{"a": 1}))
	}
	if err := s.Verify(t.Context(), sign(first)); err != nil {
		t.Fatal(err)
	}
	write(jwks(t, second))
	if err := s.Verify(t.Context(), sign(second)); err != nil {
		t.Error(err)
	}
	if err := s.Verify(t.Context(), sign(first)); !errors.Is(err, ErrInvalid) {
		t.Errorf("a key that was removed: %v", err)
	}
	write([]byte("broken"))
	if err := s.Verify(t.Context(), sign(second)); err != nil {
		t.Errorf("a broken file took the keys away: %v", err)
	}
}

func TestJWTClaimsAreReadStrictly(t *testing.T) {
	key := revocationtest.NewKey(t, "ES256", "k")
	j := mustRead(t, revocationtest.SignWith(t, key, map[string]any{"typ": "application/Client-Authentication+JWT"}, []byte(
		`{"s":"x","e":"\u0078\"","n":1,"l":["a", "\u0062" , "c"],"one":["a"],"none":[],"mixed":["a",1],"nested":[["a"]],"null":null,"exp":1.5,"nbf":2.5,"iat":3.5,"EXP":9}`)))
	if j.Type() != "client-authentication+jwt" || j.Algorithm() != "ES256" {
		t.Errorf("%s, %s", j.Type(), j.Algorithm())
	}
	for name, want := range map[string]string{"s": "x", "e": `x"`} {
		if got, ok := j.Text(name); !ok || got != want {
			t.Errorf("%s: %q, %v", name, got, ok)
		}
	}
	for _, name := range []string{"n", "l", "null", "missing", "S"} {
		if got, ok := j.Text(name); ok {
			t.Errorf("%s: %q", name, got)
		}
	}
	for name, want := range map[string][]string{"s": {"x"}, "l": {"a", "b", "c"}, "one": {"a"}, "none": nil} {
		if got, ok := j.Texts(name); !ok || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v", name, got, ok)
		}
	}
	for _, name := range []string{"n", "mixed", "nested", "null", "missing"} {
		if got, ok := j.Texts(name); ok {
			t.Errorf("%s: %q", name, got)
		}
	}
	if exp, nbf, iat, err := j.Times(); exp != 2 || nbf != 3 || iat != 3 || err != nil {
		t.Errorf("%d, %d, %d, %v", exp, nbf, iat, err)
	}
	for _, payload := range []string{`null`, `[]`, `{"a":1,"a":2}`, `{}x`, `{"a":"\ud800"}`} {
		if _, err := ReadJWT(revocationtest.SignWith(t, key, nil, []byte(payload))); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", payload, err)
		}
	}
}

func FuzzReadJWT(f *testing.F) {
	key := revocationtest.NewKey(f, "ES256", "k")
	f.Add(revocationtest.SignWith(f, key, nil, []byte(`{"iss":"a","aud":["b","\u0063"],"exp":1.5}`)))
	f.Add("a.b.c")
	f.Add("")
	f.Fuzz(func(t *testing.T, token string) {
		j, err := ReadJWT(token)
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrNotJWT) {
				t.Errorf("error %v", err)
			}
			return
		}
		var members map[string]any
		if err := json.Unmarshal(j.reading.payload, &members); err != nil {
			t.Fatalf("read, and no JSON: %v", err)
		}
		for name, value := range members {
			text, isText := value.(string)
			if got, ok := j.Text(name); ok != isText || got != text {
				t.Errorf("%s: %q, %v", name, got, ok)
			}
			var texts []string
			list, isList := value.([]any)
			for _, element := range list {
				s, ok := element.(string)
				isList = isList && ok
				texts = append(texts, s)
			}
			if isText {
				texts, isList = []string{text}, true
			}
			if got, ok := j.Texts(name); ok != isList || ok && !slices.Equal(got, texts) {
				t.Errorf("%s: %q, %v; want %q, %v", name, got, ok, texts, isList)
			}
		}
	})
}
