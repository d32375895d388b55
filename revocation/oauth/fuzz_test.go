package oauth

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// fuzzMode is how an endpoint is configured, and what around it fails.
type fuzzMode uint16

const (
	fuzzCascade fuzzMode = 1 << iota
	fuzzLedgerDown
	fuzzLedgerHalfDown
	fuzzKeysDown
	fuzzSilent
	fuzzOrigins
	fuzzTLSOnly
	fuzzPolicyAllows
	fuzzPolicySkips
	fuzzPolicyDenies
	fuzzPolicyFails
	fuzzCertificate // the connection has the client certificate of by-dn
	fuzzRefresh     // all tokens are refresh tokens
	fuzzJSON
)

func (m fuzzMode) has(bit fuzzMode) bool { return m&bit != 0 }

func (m fuzzMode) apply(o *EndpointOptions) {
	if m.has(fuzzCascade) {
		o.Cascade = CascadeGrant
	}
	if m.has(fuzzSilent) {
		o.Foreign = ForeignSilent
	}
	if m.has(fuzzOrigins) {
		o.Origins = []string{origin}
	}
	o.RefusePlainHTTP, o.JSONBody = m.has(fuzzTLSOnly), m.has(fuzzJSON)
	for _, p := range []struct {
		bit fuzzMode
		d   PolicyDecision
		err error
	}{
		{fuzzPolicyAllows, PolicyDecision{Verdict: Allow}, nil},
		{fuzzPolicySkips, PolicyDecision{Verdict: Skip}, nil},
		{fuzzPolicyDenies, PolicyDecision{Verdict: Deny}, nil},
		{fuzzPolicyFails, PolicyDecision{Verdict: Allow}, errors.New("down")},
	} {
		if m.has(p.bit) {
			o.Policies = append(o.Policies, says(p.d, p.err))
		}
	}
}

// fuzzSecrets are what the model knows of the rig's clients: the secrets that they
// may authenticate with in the header, and in the form. A public client has "".
var fuzzSecrets = map[string]struct{ basic, post []string }{
	"app":               {[]string{"app-secret", "old-app-secret"}, []string{"app-secret", "old-app-secret"}},
	"other":             {[]string{"other-secret"}, []string{"other-secret"}},
	"basic-only":        {[]string{"basic-secret"}, nil},
	"post-only":         {nil, []string{"post-secret"}},
	"https://c.example": {[]string{"p%a+s s:ü"}, []string{"p%a+s s:ü"}},
	"an:identifier":     {[]string{"some secure & non-standard secret"}, []string{"some secure & non-standard secret"}},
	"plus":              {[]string{"a+b"}, []string{"a+b"}},
	"spa":               {[]string{""}, []string{""}},
	"bcrypt":            {[]string{"bcrypt-secret"}, []string{"bcrypt-secret"}},
	"digest":            {[]string{"Zk9wTXlHcW1vU2VjcmV0"}, []string{"Zk9wTXlHcW1vU2VjcmV0"}},
}

// Tokens of the fuzzed clients that have no secret.
const (
	tokenSigner = "signer.access.token"
	tokenByDN   = "by-dn.access.token"
)

// fuzzAssertion is a good assertion of the client signer, the same in every
// process that fuzzes, and its key.
func fuzzAssertion(t testing.TB, r *rig) (string, jose.JSONWebKey) {
	t.Helper()
	key := jose.JSONWebKey{Key: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), KeyID: "k", Algorithm: "EdDSA"}
	return revocationtest.SignWith(t, key, nil, r.claims("signer", nil)), key
}

// modelClients returns the clients that a request may be from, by rules much
// simpler than those of the endpoint: it is from none of the others.
func modelClients(h http.Header, f url.Values, assertion string, certificate bool) []string {
	var clients []string
	if values := h["Authorization"]; len(values) == 1 {
		_, encoded, _ := strings.Cut(strings.TrimSpace(values[0]), " ")
		decoded, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
		if err != nil {
			return nil
		}
		id, secret, _ := strings.Cut(string(decoded), ":")
		for _, decode := range []bool{false, true} {
			if decode {
				id, _ = url.QueryUnescape(id)
				secret, _ = url.QueryUnescape(secret)
			}
			if slices.Contains(fuzzSecrets[id].basic, secret) {
				clients = append(clients, id)
			}
		}
		return clients
	}
	if text := f.Get(paramClientAssertion); text != "" {
		// What is signed counts; the signature may have other spellings.
		signed := assertion[:strings.LastIndexByte(assertion, '.')+1]
		if f.Get(paramClientAssertionType) == AssertionType && strings.HasPrefix(text, signed) {
			clients = append(clients, "signer")
		}
		return clients
	}
	if certificate && f.Get(paramClientID) == "by-dn" && f.Get(paramClientSecret) == "" {
		clients = append(clients, "by-dn")
	}
	if id := f.Get(paramClientID); slices.Contains(fuzzSecrets[id].post, f.Get(paramClientSecret)) {
		clients = append(clients, id)
	}
	return clients
}

// modelJSON returns the texts of a JSON object as a form.
func modelJSON(body string) (url.Values, error) {
	var members map[string]any
	if err := json.Unmarshal([]byte(body), &members); err != nil {
		return nil, err
	}
	form := make(url.Values)
	for name, value := range members {
		if text, ok := value.(string); ok {
			form.Set(name, text)
		}
	}
	return form, nil
}

// flakyRevoker refuses everything, or everything but the first.
type flakyRevoker struct {
	fakeRevoker
	mode fuzzMode
}

func (f *flakyRevoker) Revoke(ctx context.Context, req revocation.Request) (revocation.Receipt, error) {
	if f.mode.has(fuzzLedgerDown) || f.mode.has(fuzzLedgerHalfDown) && len(f.requests) > 0 {
		return revocation.Receipt{}, revocation.ErrUnavailable
	}
	return f.fakeRevoker.Revoke(ctx, req)
}

// FuzzEndpoint sends whatever to an endpoint of whatever configuration. The
// answer is always a whole one. Nothing is revoked but a verified token, for the
// client that it was issued to and that has authenticated, with every policy's
// consent; and a 200 for a live token means that all of it was recorded.
func FuzzEndpoint(f *testing.F) {
	own := basicAuth("app", "app-secret")
	f.Add("POST", "token="+tokenOwn, own, formMediaType, "", "", false, uint16(0))
	f.Add("POST", "token="+tokenOwn, own, formMediaType, "", origin, false, uint16(fuzzCascade|fuzzOrigins))
	f.Add("POST", "token="+tokenOwn, own, formMediaType, "", "", false, uint16(fuzzCascade|fuzzLedgerHalfDown))
	f.Add("POST", "token="+tokenOwn, own, formMediaType, "", "", false, uint16(fuzzLedgerDown))
	f.Add("POST", "token="+tokenOwn, own, formMediaType, "", "", true, uint16(fuzzTLSOnly|fuzzPolicyAllows|fuzzPolicySkips))
	f.Add("POST", "token="+tokenOwn, own, formMediaType, "", "", false, uint16(fuzzTLSOnly))
	f.Add("POST", "token="+tokenOwn+"&client_id=app&client_secret=app-secret", "", formMediaType, "", "", false, uint16(fuzzPolicyDenies))
	f.Add("POST", "token="+tokenOwn+"&client_id=app", "", formMediaType, "", "", false, uint16(fuzzPolicyFails))
	f.Add("POST", "token="+tokenForeign+"&client_id=spa", "", formMediaType+";charset=utf-8", "x=1", "", false, uint16(fuzzSilent))
	f.Add("POST", "token="+tokenForeign, own, formMediaType, "", "", false, uint16(fuzzSilent))
	f.Add("POST", "token=%00&client_id=app&client_secret=app-secret", "", formMediaType, "token=x", "", false, uint16(fuzzKeysDown))
	f.Add("OPTIONS", "", "", "", "", origin, false, uint16(fuzzOrigins))
	f.Add("GET", "", "Basic", "", "%", "null", false, uint16(0xffff))
	f.Add("POST", "token="+tokenPublic+"&client_id=spa&token_type_hint=refresh_token", "", formMediaType, "", "", false, uint16(fuzzCascade))
	f.Add("POST", `{"token":"`+tokenOwn+`"}`, own, "application/json", "", "", false, uint16(fuzzJSON))
	f.Add("POST", `{"token":"`+tokenOwn+`","client_id":"app","client_secret":"app-secret"}`, "", "application/json", "", "", false, uint16(fuzzJSON|fuzzRefresh))
	f.Add("POST", "token="+tokenOwn+"&token_type_hint=access_token", own, formMediaType, "", "", false, uint16(fuzzRefresh))
	assertion, key := fuzzAssertion(f, newRig(f, nil))
	asSigner := url.Values{paramToken: {tokenSigner}, paramClientAssertionType: {AssertionType}, paramClientAssertion: {assertion}}
	f.Add("POST", asSigner.Encode(), "", formMediaType, "", "", false, uint16(0))
	f.Add("POST", asSigner.Encode()+"&client_id=signer", "", formMediaType, "", "", true, uint16(fuzzCascade|fuzzCertificate))
	f.Add("POST", asSigner.Encode(), own, formMediaType, "", "", false, uint16(0))
	f.Add("POST", "token="+tokenByDN+"&client_id=by-dn", "", formMediaType, "", "", true, uint16(fuzzCertificate))
	f.Add("POST", "token="+tokenByDN+"&client_id=by-dn", "", formMediaType, "", "", true, uint16(0))
	f.Add("POST", "token="+tokenByDN+"&client_id=by-dn&client_secret=x", "", formMediaType, "", "", true, uint16(fuzzCertificate))
	clients := tlsClients(f, Client{ID: "signer", Issuer: issuerA, Keys: keysOf(f, issuer.KeySourceConfig{JWKS: jwksOf(f, key)})})
	at := newClock().now()
	leaf := newAuthority(f).issue(f, &x509.Certificate{
		Subject:   pkix.Name{CommonName: "app", Organization: []string{"Example"}, Country: []string{"DE"}},
		NotBefore: at.Add(-time.Hour), NotAfter: at.Add(time.Hour),
	}).Leaf
	rigs := make(map[fuzzMode]*rig) // made once, since it takes longer than a request
	f.Fuzz(func(t *testing.T, method, body, auth, contentType, query, from string, overTLS bool, bits uint16) {
		mode := fuzzMode(bits)
		r := rigs[mode]
		if r == nil {
			r = newRig(t, func(o *EndpointOptions) {
				o.Clients, o.Revoker, o.Assertions = clients, &flakyRevoker{mode: mode}, new(memoryAssertions)
				o.Guard = NewGuard(GuardOptions{FailuresPerMinute: -1, AssertionsPerSecond: -1})
				mode.apply(o)
			})
			if mode.has(fuzzKeysDown) {
				r.tokens.down = ErrResolveUnavailable
			}
			r.tokens.known[tokenSigner] = identity(tokenSigner, issuerA, "signer")
			r.tokens.known[tokenByDN] = identity(tokenByDN, issuerA, "by-dn")
			r.tokens.uses = make(map[string]TokenUse)
			for token := range r.tokens.known {
				if mode.has(fuzzRefresh) {
					r.tokens.uses[token] = UseRefresh
				}
			}
			rigs[mode] = r
		}
		store := r.endpoint.options.Assertions.(*memoryAssertions)
		clear(store.used)
		revoker := r.endpoint.options.Revoker.(*flakyRevoker)
		revoker.requests, r.outcomes, r.tokens.calls = nil, nil, nil
		req := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
		req.Method = method
		req.URL.RawQuery = query
		req.Header.Set("Content-Type", contentType)
		if auth != "" {
			req.Header.Set("Authorization", auth)
		}
		if from != "" {
			req.Header.Set("Origin", from)
		}
		if overTLS {
			req.TLS = &tls.ConnectionState{}
			if mode.has(fuzzCertificate) {
				req.TLS.PeerCertificates = []*x509.Certificate{leaf}
				req.TLS.VerifiedChains = [][]*x509.Certificate{{leaf}}
			}
		}
		w := httptest.NewRecorder()
		r.endpoint.ServeHTTP(w, req)
		checkFuzzed(t, r, w, mode)

		mediaType, _, _ := mime.ParseMediaType(contentType)
		form, err := url.ParseQuery(body)
		if mode.has(fuzzJSON) && mediaType == "application/json" {
			form, err = modelJSON(body)
			mediaType = formMediaType
		}
		token := form.Get(paramToken)
		live := err == nil && r.tokens.known[token] != nil
		if len(revoker.requests) == 0 {
			if w.Code == http.StatusOK && live && !mode.has(fuzzPolicySkips) && !mode.has(fuzzSilent) {
				t.Fatalf("200 for the live token %q, and nothing was recorded", token)
			}
			return
		}
		if method != http.MethodPost || mediaType != formMediaType || !live || len(form[paramToken]) != 1 {
			t.Fatalf("%s of %q as %q revoked something", method, body, contentType)
		}
		owner, _ := r.tokens.known[token].Value(revocation.ClaimClientID)
		if !slices.Contains(modelClients(req.Header, form, assertion, overTLS && mode.has(fuzzCertificate)), owner) || r.tokens.known[token].Issuer != issuerA {
			t.Fatalf("%q revoked %q of %q, authorized by %q", body, token, owner, auth)
		}
		if mode.has(fuzzTLSOnly) && !overTLS || mode.has(fuzzPolicySkips) || mode.has(fuzzPolicyDenies) || mode.has(fuzzPolicyFails) ||
			mode.has(fuzzKeysDown) || mode.has(fuzzLedgerDown) {
			t.Fatalf("mode %b revoked something", mode)
		}
		if (owner == "signer") != (len(store.used) == 1) || len(store.used) > 1 {
			t.Fatalf("revoked for %q, and %d assertions were spent", owner, len(store.used))
		}
		want := 1
		if mode.has(fuzzCascade) || mode.has(fuzzRefresh) {
			want = 2
		}
		if complete := len(revoker.requests) == want; complete != (w.Code == http.StatusOK) {
			t.Fatalf("%d of %d recorded, and the answer was %d", len(revoker.requests), want, w.Code)
		}
		for i, q := range revoker.requests {
			switch id := q.Criteria.Claims; {
			case q.Actor != "client:"+owner, q.Criteria.Issuer != issuerA:
				t.Fatalf("recorded %+v", q)
			case i == 0 && (len(id) != 1 || id[revocation.ClaimTokenID] != token):
				t.Fatalf("recorded %+v", q)
			case i == 1 && (len(id) != 2 || id[revocation.ClaimClientID] != owner):
				t.Fatalf("recorded %+v", q)
			}
		}
	})
}

// checkFuzzed checks what every answer has to have.
func checkFuzzed(t *testing.T, r *rig, w *httptest.ResponseRecorder, mode fuzzMode) {
	t.Helper()
	o := r.lastOutcome(t)
	if len(r.outcomes) != 1 || o.Status != w.Code || !slices.Contains(Results[:], o.Result) {
		t.Fatalf("answered %d, observed %+v", w.Code, r.outcomes)
	}
	if allowed := w.Header().Get("Access-Control-Allow-Origin"); allowed != "" && (allowed != origin || !mode.has(fuzzOrigins)) {
		t.Fatalf("allows %q", allowed)
	}
	if w.Code == http.StatusNoContent {
		return
	}
	checkFields(t, w.Header(), w.Code)
	if code := errorCode(t, w.Code, w.Body); (code == "") != (w.Code == http.StatusOK) {
		t.Fatalf("a %d has the error %q", w.Code, code)
	}
}
