package oauth

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// memoryAssertions is an AssertionStore of one process.
type memoryAssertions struct {
	mu   sync.Mutex
	used map[string]time.Duration
	down error
}

func (m *memoryAssertions) UseOnce(_ context.Context, key string, ttl time.Duration) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down != nil {
		return false, m.down
	}
	if _, used := m.used[key]; used {
		return false, nil
	}
	if m.used == nil {
		m.used = make(map[string]time.Duration)
	}
	m.used[key] = ttl
	return true, nil
}

const sharedSecret = "a shared secret of more than sixty-four bytes, for every HMAC there is"

// asserters are clients with keys, and the private keys.
type asserters struct {
	store *memoryAssertions
	es    jose.JSONWebKey
	rs    jose.JSONWebKey
	other jose.JSONWebKey // of nobody
}

func keysOf(t testing.TB, c issuer.KeySourceConfig) *issuer.KeySource {
	t.Helper()
	keys, err := issuer.NewKeySource(c, issuer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	keys.Start()
	t.Cleanup(keys.Stop)
	return keys
}

func jwksOf(t testing.TB, keys ...jose.JSONWebKey) json.RawMessage {
	t.Helper()
	set := jose.JSONWebKeySet{}
	for _, k := range keys {
		set.Keys = append(set.Keys, k.Public())
	}
	text, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// assertingRig has clients of every kind, those with keys among them.
func assertingRig(t testing.TB, change func(*EndpointOptions)) (*rig, *asserters) {
	t.Helper()
	a := &asserters{
		store: new(memoryAssertions),
		es:    revocationtest.NewKey(t, "ES256", "es"),
		rs:    revocationtest.NewKey(t, "RS256", "rs"),
		other: revocationtest.NewKey(t, "ES256", "es"),
	}
	clients := []Client{
		{ID: "signer", Issuer: issuerA, Keys: keysOf(t, issuer.KeySourceConfig{JWKS: jwksOf(t, a.es, a.rs)})},
		{ID: "es-only", Issuer: issuerA, Keys: keysOf(t, issuer.KeySourceConfig{JWKS: jwksOf(t, a.es, a.rs), Algorithms: []string{"ES256"}})},
		{ID: "mac", Issuer: issuerA, Keys: keysOf(t, issuer.KeySourceConfig{Secrets: []string{"an older secret of thirty-two bytes", sharedSecret}})},
	}
	for c := range testClients(t).All() {
		clients = append(clients, *c)
	}
	store, err := NewStaticClients(clients...)
	if err != nil {
		t.Fatal(err)
	}
	return newRig(t, func(o *EndpointOptions) {
		o.Clients, o.Assertions = store, a.store
		if change != nil {
			change(o)
		}
	}), a
}

// claims are those of a good assertion of a client, with changes; a nil value
// removes a claim.
func (r *rig) claims(client string, changes map[string]any) map[string]any {
	now := r.clock.now().Unix()
	c := map[string]any{
		"iss": client, "sub": client, "aud": issuerA, "jti": fmt.Sprint("jti-", now, len(changes)),
		"iat": now, "exp": now + 60,
	}
	maps.Copy(c, changes)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

// assert posts an assertion.
func (r *rig) assert(text string, form url.Values) *httptest.ResponseRecorder {
	values := url.Values{
		paramToken: {"unknown.jwt.token"}, paramClientAssertionType: {AssertionType}, paramClientAssertion: {text},
	}
	maps.Copy(values, form)
	return r.post(values.Encode(), nil)
}

func TestClientsAuthenticateByAssertion(t *testing.T) {
	type change = map[string]any
	tests := []struct {
		name   string
		client string
		key    func(*asserters) jose.JSONWebKey
		header change
		claims change
		form   url.Values
		status int
	}{
		{name: "ES256", status: 200},
		{name: "RS256", key: func(a *asserters) jose.JSONWebKey { return a.rs }, status: 200},
		{name: "the client_id again in the form", form: url.Values{"client_id": {"signer"}}, status: 200},
		{name: "an empty client_id and client_secret", form: url.Values{"client_id": {""}, "client_secret": {""}}, status: 200},
		{name: "another client_id in the form", form: url.Values{"client_id": {"app"}}, status: 401},
		{name: "another key under the right name", key: func(a *asserters) jose.JSONWebKey { return a.other }, status: 401},
		{name: "a name that no key has", header: change{"kid": "nobody"}, status: 401},
		{name: "no name of a key", header: change{"kid": nil}, status: 200},
		{name: "the type for client assertions", header: change{"typ": "client-authentication+jwt"}, status: 200},
		{name: "the type JWT", header: change{"typ": "JWT"}, status: 200},
		{name: "an access token", header: change{"typ": "at+jwt"}, status: 401},
		{name: "an access token, spelled out", header: change{"typ": "application/AT+JWT"}, status: 401},
		{name: "a logout token", header: change{"typ": "logout+jwt"}, status: 401},
		{name: "a DPoP proof", header: change{"typ": "dpop+jwt"}, status: 401},
		{name: "a critical extension", header: change{"crit": []string{"x"}, "x": 1}, status: 401},
		{name: "the address of a key", header: change{"jku": "https://evil.example/jwks", "x5u": "https://evil.example/x"}, status: 200},
		{name: "alg none", header: change{"alg": "none"}, status: 401},
		{name: "alg of another key", header: change{"alg": "RS256"}, status: 401},
		{name: "an algorithm that the client does not use", client: "es-only", key: func(a *asserters) jose.JSONWebKey { return a.rs }, status: 401},
		{name: "the algorithm that the client uses", client: "es-only", status: 200},
		{name: "no iss", claims: change{"iss": nil}, status: 401},
		{name: "no sub", claims: change{"sub": nil}, status: 401},
		{name: "iss of another client", claims: change{"iss": "app"}, status: 401},
		{name: "iss of the issuer", claims: change{"iss": issuerA}, status: 401},
		{name: "both of another client", claims: change{"iss": "app", "sub": "app"}, status: 401},
		{name: "both of an unknown client", claims: change{"iss": "nobody", "sub": "nobody"}, status: 401},
		{name: "iss in another case only", claims: change{"iss": nil, "ISS": "signer"}, status: 401},
		{name: "no aud", claims: change{"aud": nil}, status: 401},
		{name: "aud in an array of one", claims: change{"aud": []string{issuerA}}, status: 200},
		{name: "aud in an empty array", claims: change{"aud": []string{}}, status: 401},
		{name: "two audiences, one of them ours", claims: change{"aud": []string{issuerA, "https://other.example"}}, status: 401},
		{name: "aud twice the same", claims: change{"aud": []string{issuerA, issuerA}}, status: 401},
		{name: "a number in aud", claims: change{"aud": []any{issuerA, 1}}, status: 401},
		{name: "aud that is a number", claims: change{"aud": 1}, status: 401},
		{name: "aud with a slash more", claims: change{"aud": issuerA + "/"}, status: 401},
		{name: "the issuer of other clients", claims: change{"aud": issuerB}, status: 401},
		{name: "the endpoint's address", claims: change{"aud": "https://a.example/oauth/revoke"}, status: 401},
		{name: "no exp", claims: change{"exp": nil}, status: 401},
		{name: "exp that is a text", claims: change{"exp": "2000000000"}, status: 401},
		{name: "just expired, within the leeway", claims: change{"exp": -29}, status: 200},
		{name: "expired", claims: change{"exp": -30}, status: 401},
		{name: "ten minutes", claims: change{"exp": 600}, status: 200},
		{name: "a day", claims: change{"exp": 86400}, status: 401},
		{name: "more than ten minutes", claims: change{"exp": 631}, status: 401},
		{name: "issued in the future, within the leeway", claims: change{"iat": 30}, status: 200},
		{name: "issued in the future", claims: change{"iat": 31}, status: 401},
		{name: "issued long ago", claims: change{"iat": -631}, status: 401},
		{name: "no iat", claims: change{"iat": nil}, status: 200},
		{name: "not valid before now", claims: change{"nbf": 30}, status: 200},
		{name: "not valid yet", claims: change{"nbf": 31}, status: 401},
		{name: "no jti", claims: change{"jti": nil}, status: 401},
		{name: "an empty jti", claims: change{"jti": ""}, status: 401},
		{name: "a jti that is a number", claims: change{"jti": 1}, status: 401},
	}
	r, a := assertingRig(t, nil)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			client, key := "signer", a.es
			if tt.client != "" {
				client = tt.client
			}
			if tt.key != nil {
				key = tt.key(a)
			}
			claims := r.claims(client, tt.claims)
			if _, ok := tt.claims["jti"]; !ok {
				claims["jti"] = tt.name
			}
			for _, name := range []string{"exp", "iat", "nbf"} {
				if offset, ok := tt.claims[name].(int); ok {
					claims[name] = r.clock.now().Unix() + int64(offset)
				}
			}
			w := r.assert(revocationtest.SignWith(t, key, tt.header, claims), tt.form)
			r.forget() // the throttle counts these
			if w.Code != tt.status {
				t.Fatalf("status %d, want %d: %s\n%s", w.Code, tt.status, w.Body, r.log)
			}
			o := r.lastOutcome(t)
			if tt.status == 200 && (o.ClientID != client || o.Method != AuthPrivateKeyJWT) {
				t.Errorf("outcome %+v", o)
			}
			if tt.status == 401 && w.Body.String() != `{"error":"invalid_client","error_description":"`+descBadClient+`"}` {
				t.Errorf("the answer tells the cause: %s", w.Body)
			}
		})
	}
	if s := r.log.String(); strings.Contains(s, "eyJ") {
		t.Error("an assertion was logged")
	}
}

// forget makes room for the next failures.
func (r *rig) forget() {
	th := r.endpoint.auth.throttle
	th.mu.Lock()
	defer th.mu.Unlock()
	clear(th.entries)
	th.byAge.Init()
}

func TestAssertionsAuthenticateOnce(t *testing.T) {
	r, a := assertingRig(t, nil)
	text := revocationtest.SignWith(t, a.es, nil, r.claims("signer", map[string]any{"jti": "one"}))
	if w := r.assert(text, nil); w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, r.log)
	}
	for _, spelling := range append(revocationtest.Respellings(text), text, revocationtest.ECDSATwin(t, a.es, text)) {
		if w := r.assert(spelling, nil); w.Code != http.StatusUnauthorized {
			t.Fatalf("used again: status %d", w.Code)
		}
		r.forget()
	}
	// Longer than anybody accepts it.
	for key, ttl := range a.store.used {
		if ttl != 60*time.Second+assertionLeeway {
			t.Errorf("remembered for %v", ttl)
		}
		if !strings.Contains(key, "one") || !strings.Contains(key, "signer") || !strings.Contains(key, issuerA) {
			t.Errorf("key %q", key)
		}
	}
	if w := r.assert(revocationtest.SignWith(t, a.es, nil, r.claims("es-only", map[string]any{"jti": "one"})), nil); w.Code != http.StatusOK {
		t.Errorf("another client with the same jti: status %d", w.Code)
	}
}

func TestAssertionThatFailsIsNotSpent(t *testing.T) {
	r, a := assertingRig(t, nil)
	forged := revocationtest.SignWith(t, a.other, nil, r.claims("signer", map[string]any{"jti": "mine"}))
	if w := r.assert(forged, nil); w.Code != http.StatusUnauthorized {
		t.Fatalf("status %d", w.Code)
	}
	if len(a.store.used) != 0 {
		t.Error("whoever has no key can spend the assertions of others")
	}
	if w := r.assert(revocationtest.SignWith(t, a.es, nil, r.claims("signer", map[string]any{"jti": "mine"})), nil); w.Code != http.StatusOK {
		t.Errorf("status %d", w.Code)
	}
}

func TestAssertionsNeedAWorkingStore(t *testing.T) {
	r, a := assertingRig(t, nil)
	a.store.down = errors.New("no ledger")
	text := revocationtest.SignWith(t, a.es, nil, r.claims("signer", nil))
	for range 20 {
		if w := r.assert(text, nil); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
			t.Fatalf("status %d, %v", w.Code, w.Header())
		}
	}
	a.store.down = nil
	if w := r.assert(text, nil); w.Code != http.StatusOK {
		t.Errorf("the same assertion once the store works: status %d", w.Code)
	}
	none, a := assertingRig(t, func(o *EndpointOptions) { o.Assertions = nil })
	if w := none.assert(revocationtest.SignWith(t, a.es, nil, none.claims("signer", nil)), nil); w.Code != http.StatusUnauthorized {
		t.Errorf("without a store: status %d", w.Code)
	}
}

func TestAssertionAudiencesCanBeAdded(t *testing.T) {
	const endpoint = "https://a.example/oauth/revoke"
	r, a := assertingRig(t, func(o *EndpointOptions) { o.AssertionAudiences = []string{endpoint} })
	for _, tt := range []struct {
		aud    any
		status int
	}{
		{endpoint, 200}, {[]string{endpoint}, 200}, {issuerA, 200}, {endpoint + "/", 401}, {[]string{issuerA, endpoint}, 401},
	} {
		claims := r.claims("signer", map[string]any{"aud": tt.aud, "jti": fmt.Sprint(tt.aud)})
		if _, array := tt.aud.([]string); array {
			claims["jti"] = fmt.Sprint("array ", tt.aud)
		}
		if w := r.assert(revocationtest.SignWith(t, a.es, nil, claims), nil); w.Code != tt.status {
			t.Errorf("aud %v: status %d, want %d", tt.aud, w.Code, tt.status)
		}
	}
}

func TestSharedSecretSignsAssertions(t *testing.T) {
	r, a := assertingRig(t, nil)
	rsPublic, err := json.Marshal(a.rs.Public())
	if err != nil {
		t.Fatal(err)
	}
	modulus := a.rs.Key.(*rsa.PrivateKey).N.Bytes()
	for _, tt := range []struct {
		name   string
		client string
		alg    string
		secret string
		status int
	}{
		{"HS256", "mac", "HS256", sharedSecret, 200},
		{"the older secret", "mac", "HS256", "an older secret of thirty-two bytes", 200},
		{"HS512, for which one secret is too short", "mac", "HS512", sharedSecret, 401},
		{"another secret", "mac", "HS256", sharedSecret + "!", 401},
		{"a public key as the secret", "signer", "HS256", string(rsPublic), 401},
		{"the bytes of a public key as the secret", "signer", "HS256", string(modulus), 401},
		{"a client with a hashed secret", "app", "HS256", "app-secret, padded to thirty-two bytes", 401},
	} {
		key := jose.JSONWebKey{Key: []byte(tt.secret), Algorithm: tt.alg}
		w := r.assert(revocationtest.SignWith(t, key, nil, r.claims(tt.client, map[string]any{"jti": tt.name})), nil)
		if w.Code != tt.status {
			t.Errorf("%s: status %d, want %d\n%s", tt.name, w.Code, tt.status, r.log)
		}
		if o := r.lastOutcome(t); tt.status == 200 && o.Method != AuthSecretJWT {
			t.Errorf("%s: method %s", tt.name, o.Method)
		}
	}
	// A key pair does not do for a client with a shared secret.
	if w := r.assert(revocationtest.SignWith(t, a.es, nil, r.claims("mac", nil)), nil); w.Code != http.StatusUnauthorized {
		t.Errorf("status %d", w.Code)
	}
}

func TestNoClientHasAWeakerWayIn(t *testing.T) {
	r, a := assertingRig(t, nil)
	for name, send := range map[string]func() *httptest.ResponseRecorder{
		"its id alone":             func() *httptest.ResponseRecorder { return r.post("token=x.y.z&client_id=signer", nil) },
		"its id in an empty Basic": func() *httptest.ResponseRecorder { return r.post("token=x.y.z", authorize(basicAuth("signer", ""))) },
		"a secret":                 func() *httptest.ResponseRecorder { return r.post("token=x.y.z&client_id=signer&client_secret=x", nil) },
		"the shared secret in the form": func() *httptest.ResponseRecorder {
			return r.post("token=x.y.z&client_id=mac&client_secret="+url.QueryEscape(sharedSecret), nil)
		},
		"the shared secret in Basic": func() *httptest.ResponseRecorder {
			return r.post("token=x.y.z", authorize(basicAuth("mac", url.QueryEscape(sharedSecret))))
		},
		"an assertion of a secret client": func() *httptest.ResponseRecorder {
			return r.assert(revocationtest.SignWith(t, a.es, nil, r.claims("app", nil)), nil)
		},
		"an assertion of a public client": func() *httptest.ResponseRecorder {
			return r.assert(revocationtest.SignWith(t, a.es, nil, r.claims("spa", nil)), nil)
		},
	} {
		if w := send(); w.Code != http.StatusUnauthorized {
			t.Errorf("%s: status %d", name, w.Code)
		}
	}
}

func TestAssertionParametersBelongTogetherAndToNoOtherMethod(t *testing.T) {
	r, a := assertingRig(t, nil)
	good := func() string {
		r.clock.advance(time.Second)
		return revocationtest.SignWith(t, a.es, nil, r.claims("signer", nil))
	}
	for _, tt := range []struct {
		name   string
		form   url.Values
		header string
		status int
	}{
		{"another type", url.Values{paramClientAssertionType: {"urn:ietf:params:oauth:client-assertion-type:saml2-bearer"}}, "", 401},
		{"the type in another case", url.Values{paramClientAssertionType: {strings.ToUpper(AssertionType)}}, "", 401},
		{"no type", url.Values{paramClientAssertionType: {""}}, "", 400},
		{"no assertion", url.Values{paramClientAssertion: {""}}, "", 400},
		{"with Basic", nil, basicAuth("app", "app-secret"), 400},
		{"with a secret", url.Values{"client_id": {"app"}, "client_secret": {"app-secret"}}, "", 400},
		{"not a JWT", url.Values{paramClientAssertion: {"nonsense"}}, "", 401},
		{"too long", url.Values{paramClientAssertion: {strings.Repeat("A", maxAssertion+1)}}, "", 401},
		{"twice", url.Values{paramClientAssertion: {"x", "y"}}, "", 400},
		{"the type twice", url.Values{paramClientAssertionType: {AssertionType, AssertionType}}, "", 400},
		{"as it should be", nil, "", 200},
	} {
		values := url.Values{paramToken: {"x.y.z"}, paramClientAssertionType: {AssertionType}, paramClientAssertion: {good()}}
		maps.Copy(values, tt.form)
		w := r.post(values.Encode(), func(req *http.Request) {
			if tt.header != "" {
				req.Header.Set("Authorization", tt.header)
			}
		})
		if w.Code != tt.status {
			t.Errorf("%s: status %d, want %d", tt.name, w.Code, tt.status)
		}
	}
}

func TestForgedAssertionsAreThrottled(t *testing.T) {
	r, a := assertingRig(t, nil)
	for i := range 10 {
		text := revocationtest.SignWith(t, a.other, nil, r.claims("signer", map[string]any{"jti": fmt.Sprint(i)}))
		if w := r.assert(text, nil); w.Code != http.StatusUnauthorized {
			t.Fatalf("status %d", w.Code)
		}
	}
	good := revocationtest.SignWith(t, a.es, nil, r.claims("signer", map[string]any{"jti": "good"}))
	if w := r.assert(good, nil); w.Code != http.StatusTooManyRequests {
		t.Errorf("after ten failures: status %d", w.Code)
	}
	if len(a.store.used) != 0 {
		t.Error("a throttled assertion was spent")
	}
	r.clock.advance(time.Minute)
	if w := r.assert(good, nil); w.Code != http.StatusOK {
		t.Errorf("a minute later: status %d", w.Code)
	}
}

func TestKeysAtAnAddressAreLoadedAndRotate(t *testing.T) {
	server := revocationtest.NewAuthServer(t)
	first, second := revocationtest.NewKey(t, "ES256", "first"), revocationtest.NewKey(t, "ES256", "second")
	server.SetKeys(first)
	keys := keysOf(t, issuer.KeySourceConfig{JWKSURI: server.URL + revocationtest.JWKSPath})
	store, err := NewStaticClients(Client{ID: "remote", Issuer: issuerA, Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, func(o *EndpointOptions) {
		o.Clients, o.Assertions = store, new(memoryAssertions)
	})
	n := 0
	try := func(key jose.JSONWebKey) int {
		n++
		return r.assert(revocationtest.SignWith(t, key, nil, r.claims("remote", map[string]any{"jti": fmt.Sprint(n)})), nil).Code
	}
	if got := try(first); got != http.StatusOK {
		t.Fatalf("the key in the set: %d", got)
	}
	server.SetKeys(second)
	if got := try(second); got != http.StatusOK {
		t.Fatalf("a new key, asked for on demand: %d", got)
	}
	// What a client no longer publishes it no longer signs with.
	if got := try(first); got != http.StatusUnauthorized {
		t.Errorf("the key that was replaced: %d", got)
	}
	server.Fail(http.StatusInternalServerError)
	if got := try(revocationtest.NewKey(t, "ES256", "third")); got != http.StatusServiceUnavailable {
		t.Errorf("a key that can't be asked for: %d", got)
	}
	if got := try(second); got != http.StatusOK {
		t.Errorf("a known key while the server is down: %d", got)
	}
}

func TestDecoysHaveAKeyForEveryAlgorithm(t *testing.T) {
	d := newDecoyKeys()
	if got := len(d.public.Status().Thumbprints); got != 5 {
		t.Errorf("%d kinds of public keys", got)
	}
	for _, alg := range issuer.AsymmetricAlgorithms() {
		key := revocationtest.NewKey(t, alg, "any")
		j, err := issuer.ReadJWT(revocationtest.SignWith(t, key, nil, map[string]any{"iss": "x"}))
		if err != nil {
			t.Fatal(err)
		}
		if err := d.public.Verify(t.Context(), j); !errors.Is(err, issuer.ErrInvalid) || strings.Contains(err.Error(), "algorithm") {
			t.Errorf("%s: %v", alg, err)
		}
	}
	if got := d.shared.Algorithms(); len(got) != 3 {
		t.Errorf("shared algorithms %v", got)
	}
}

func FuzzAssertion(f *testing.F) {
	r, a := assertingRig(f, nil)
	good := revocationtest.SignWith(f, a.es, nil, r.claims("signer", nil))
	header, rest, _ := strings.Cut(good, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	f.Add(header, payload, signature)
	f.Add("", "", "")
	f.Add("eyJhbGciOiJub25lIn0", "e30", "AA")
	f.Add(header, "bnVsbA", signature)
	f.Fuzz(func(t *testing.T, header, payload, signature string) {
		text := header + "." + payload + "." + signature
		w := r.assert(text, nil)
		r.forget()
		switch w.Code {
		case http.StatusUnauthorized, http.StatusBadRequest, http.StatusRequestEntityTooLarge:
		case http.StatusOK:
			// Only the signed content, whatever the signature's spare bits are,
			// authenticates, and only once.
			if !strings.HasPrefix(good, header+"."+payload+".") {
				t.Errorf("%q authenticates", text)
			}
			clear(a.store.used)
		default:
			t.Errorf("status %d for %q", w.Code, text)
		}
	})
}
