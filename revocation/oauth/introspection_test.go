package oauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// fakeIntrospector answers from a map.
type fakeIntrospector struct {
	mu      sync.Mutex
	tokens  map[string]*ActiveToken
	errs    map[string]error
	queries []IntrospectionQuery
}

func (f *fakeIntrospector) Introspect(_ context.Context, token string, q IntrospectionQuery) (*ActiveToken, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queries = append(f.queries, q)
	if err := f.errs[token]; err != nil {
		return nil, fmt.Errorf("reading: %w", err)
	}
	if t := f.tokens[token]; t != nil {
		return t, nil
	}
	return nil, ErrTokenUnsupported
}

// jwtToken is an active JWT with these claims, issued to client.
func jwtToken(issuer, client, claims string) *ActiveToken {
	id := identity("token", issuer)
	if client != "" {
		id = identity("token", issuer, client)
	}
	return &ActiveToken{Identity: id, Claims: json.RawMessage(claims)}
}

type introspectionRig struct {
	tokens   *fakeIntrospector
	endpoint *IntrospectionEndpoint
	stale    error
	log      *syncBuffer
	outcomes []IntrospectionOutcome
}

func newIntrospectionRig(t testing.TB, change func(*IntrospectionOptions)) *introspectionRig {
	t.Helper()
	clients, err := NewStaticClients(
		Client{ID: "app", Issuer: issuerA, Secrets: []Secret{clearSecret(t, "app-secret")}},
		Client{ID: "api", Issuer: issuerA, Secrets: []Secret{clearSecret(t, "api-secret")}, IntrospectAudiences: []string{"https://api.example", "urn:other"}},
		Client{ID: "all", Issuer: issuerA, Secrets: []Secret{clearSecret(t, "all-secret")}, IntrospectAny: true},
		Client{ID: "at-b", Issuer: issuerB, Secrets: []Secret{clearSecret(t, "b-secret")}, IntrospectAny: true},
		Client{ID: "spa", Issuer: issuerA, Methods: []AuthMethod{AuthNone}},
	)
	if err != nil {
		t.Fatal(err)
	}
	r := &introspectionRig{log: new(syncBuffer), tokens: &fakeIntrospector{
		tokens: map[string]*ActiveToken{
			"own":         jwtToken(issuerA, "app", `{"sub":"alice"}`),
			"spa":         jwtToken(issuerA, "spa", `{"sub":"alice"}`),
			"for-app":     jwtToken(issuerA, "other", `{"aud":["x","app"]}`),
			"for-api":     jwtToken(issuerA, "other", `{"aud":"https://api.example"}`),
			"for-nobody":  jwtToken(issuerA, "other", `{"aud":"https://elsewhere.example"}`),
			"for-numbers": jwtToken(issuerA, "other", `{"aud":["https://api.example",1]}`),
			"no-aud":      jwtToken(issuerA, "other", `{}`),
			"no-client":   jwtToken(issuerA, "", `{}`),
			"at-b":        jwtToken(issuerB, "app", `{"aud":["app","https://api.example"]}`),
			"unverified":  {Identity: &revocation.Identity{Issuer: issuerA}, Claims: []byte(`{}`)},
			"no-claims":   jwtToken(issuerA, "app", ``),
			"refresh":     {Identity: identity("r", issuerA, "app"), Refresh: true, Claims: []byte(`{"aud":"https://api.example"}`), Answered: true},
		},
		errs: map[string]error{
			"revoked": ErrTokenRevoked, "expired": ErrTokenExpired, "invalid": ErrTokenInvalid, "unknown": ErrTokenUnsupported,
			"keyless": ErrResolveUnavailable, "surprising": errors.New("something else"),
		},
	}}
	o := IntrospectionOptions{
		Clients: clients, Tokens: r.tokens, Realm: "test", Logger: newTestLogger(r.log), Now: newClock().now,
		Current: func() error { return r.stale },
		Observe: func(o IntrospectionOutcome) { r.outcomes = append(r.outcomes, o) },
	}
	if change != nil {
		change(&o)
	}
	if r.endpoint, err = NewIntrospectionEndpoint(o); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *introspectionRig) post(body string, change func(*http.Request)) *httptest.ResponseRecorder {
	req := httptest.NewRequest(http.MethodPost, "/introspect", strings.NewReader(body))
	req.Header.Set("Content-Type", formMediaType)
	req.RemoteAddr = "192.0.2.1:1234"
	if change != nil {
		change(req)
	}
	w := httptest.NewRecorder()
	r.endpoint.ServeHTTP(w, req)
	return w
}

func (r *introspectionRig) last() IntrospectionOutcome { return r.outcomes[len(r.outcomes)-1] }

func asClient(id string) func(*http.Request) { return authorize(basicAuth(id, id+"-secret")) }

// RFC 7662, sections 2.2 and 4: whoever asks about a token that is not active for
// it learns nothing else.
func TestInactiveIsTheSameToTheByteWhyever(t *testing.T) {
	tests := []struct {
		client string
		token  string
		result Result
	}{
		{"app", "revoked", ResultTokenRevoked},
		{"app", "expired", ResultTokenExpired},
		{"app", "invalid", ResultTokenInvalid},
		{"app", "unknown", ResultTokenUnknown},
		{"app", "with+space%00", ResultTokenInvalid},
		{"app", "for-api", ResultNotForCaller},
		{"app", "no-client", ResultNotForCaller},
		{"app", "at-b", ResultNotForCaller},
		{"app", "spa", ResultNotForCaller},
		{"api", "own", ResultNotForCaller},
		{"api", "for-nobody", ResultNotForCaller},
		{"api", "for-numbers", ResultNotForCaller},
		{"api", "no-aud", ResultNotForCaller},
		{"api", "at-b", ResultNotForCaller},
		{"api", "refresh", ResultNotForCaller},
		{"all", "refresh", ResultNotForCaller},
		{"all", "at-b", ResultNotForCaller},
	}
	r := newIntrospectionRig(t, nil)
	r.stale = errors.New("stale") // which must not tell them apart either
	var header http.Header
	for _, tt := range tests {
		w := r.post("token="+tt.token, asClient(tt.client))
		if w.Code != http.StatusOK || w.Body.String() != `{"active":false}` {
			t.Errorf("%s about %s: %d %s", tt.client, tt.token, w.Code, w.Body)
		}
		if header == nil {
			header = w.Header()
		}
		if !reflect.DeepEqual(w.Header(), header) {
			t.Errorf("%s about %s: the fields %v differ from %v", tt.client, tt.token, w.Header(), header)
		}
		if o := r.last(); o.Result != tt.result || o.ClientID != tt.client || o.Status != http.StatusOK {
			t.Errorf("%s about %s: outcome %+v", tt.client, tt.token, o)
		}
	}
	if header.Get("Cache-Control") != "no-store" || header.Get("Content-Type") != "application/json" {
		t.Errorf("fields %v", header)
	}
}

func TestWhoeverATokenIsForIsToldThatItIsActive(t *testing.T) {
	r := newIntrospectionRig(t, nil)
	for _, tt := range []struct{ client, token string }{
		{"app", "own"}, {"app", "for-app"}, {"app", "refresh"}, {"api", "for-api"},
		{"all", "own"}, {"all", "for-nobody"}, {"all", "no-aud"}, {"all", "no-client"}, {"all", "spa"},
	} {
		w := r.post("token="+tt.token+"&token_type_hint=banana", asClient(tt.client))
		if w.Code != http.StatusOK || !strings.HasPrefix(w.Body.String(), `{"active":true`) || !json.Valid(w.Body.Bytes()) {
			t.Errorf("%s about %s: %d %s", tt.client, tt.token, w.Code, w.Body)
		}
		if o := r.last(); o.Result != ResultActive || o.Token.Issuer != issuerA {
			t.Errorf("%s about %s: outcome %+v", tt.client, tt.token, o)
		}
	}
	if q := r.tokens.queries[0]; q.Issuer != issuerA || q.Hint != "banana" {
		t.Errorf("asked with %+v", q)
	}
}

func TestAPlaceThatCannotVouchCallsNoTokenActive(t *testing.T) {
	r := newIntrospectionRig(t, nil)
	r.stale = errors.New("stale")
	w := r.post("token=own", asClient("app"))
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" || strings.Contains(w.Body.String(), "active") {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	if r.last().Result != ResultStale {
		t.Errorf("outcome %+v", r.last())
	}
	r.stale = nil
	for _, token := range []string{"keyless", "surprising", "unverified", "no-claims"} {
		w := r.post("token="+token, asClient("app"))
		if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" || r.last().Result != ResultUnavailable {
			t.Errorf("%s: %d %v %s", token, w.Code, w.Header(), w.Body)
		}
	}
}

// RFC 7662, section 2.1: without authentication of the caller, the endpoint would
// tell whoever guesses whether a token is alive.
func TestIntrospectionRequestsAreReadAsStrictlyAsRevocations(t *testing.T) {
	form := func(field, value string) func(*http.Request) {
		return func(r *http.Request) { asClient("app")(r); r.Header.Set(field, value) }
	}
	tests := []struct {
		name   string
		body   string
		change func(*http.Request)
		status int
		code   string
	}{
		{"nobody", "token=own", nil, 401, ErrorInvalidClient},
		{"a wrong secret", "token=own", authorize(basicAuth("app", "wrong")), 401, ErrorInvalidClient},
		{"an unknown client", "token=own", authorize(basicAuth("nobody", "wrong")), 401, ErrorInvalidClient},
		{"a public client", "token=spa&client_id=spa", nil, 401, ErrorInvalidClient},
		{"a public client with an empty password", "token=spa", authorize(basicAuth("spa", "")), 401, ErrorInvalidClient},
		{"a bearer token", "token=own", authorize("Bearer own"), 401, ErrorInvalidClient},
		{"a client without its secret", "token=own&client_id=app", nil, 401, ErrorInvalidClient},
		{"in the form", "token=own&client_id=app&client_secret=app-secret", nil, 200, ""},
		{"two methods", "token=own&client_id=app&client_secret=app-secret", asClient("app"), 400, ErrorInvalidRequest},
		{"no token", "", asClient("app"), 400, ErrorInvalidRequest},
		{"an empty token", "token=", asClient("app"), 400, ErrorInvalidRequest},
		{"two tokens", "token=own&token=own", asClient("app"), 400, ErrorInvalidRequest},
		{"a token with its line break", "token=own%0A", asClient("app"), 400, ErrorInvalidRequest},
		{"an endless token", "token=" + strings.Repeat("x", DefaultMaxToken+1), asClient("app"), 400, ErrorInvalidRequest},
		{"JSON", `{"token":"own"}`, form("Content-Type", "application/json"), 400, ErrorInvalidRequest},
		{"a coding", "token=own", form("Content-Encoding", "gzip"), 415, ErrorInvalidRequest},
		{"a long body", "token=own&x=" + strings.Repeat("x", DefaultMaxBody), asClient("app"), 413, ErrorInvalidRequest},
		{"GET", "", func(r *http.Request) { asClient("app")(r); r.Method = http.MethodGet; r.URL.RawQuery = "token=own" }, 405, ErrorInvalidRequest},
		{"a token in the URL, too", "token=own", func(r *http.Request) { asClient("app")(r); r.URL.RawQuery = "token=own" }, 400, ErrorInvalidRequest},
		{"another parameter in the URL", "token=own", func(r *http.Request) { asClient("app")(r); r.URL.RawQuery = "tenant=a" }, 200, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newIntrospectionRig(t, nil)
			w := r.post(tt.body, tt.change)
			if w.Code != tt.status {
				t.Fatalf("status %d, want %d: %s", w.Code, tt.status, w.Body)
			}
			if w.Header().Get("Cache-Control") != "no-store" {
				t.Errorf("fields %v", w.Header())
			}
			if tt.status == 200 {
				return
			}
			if code := errorCode(t, w.Code, w.Body); code != tt.code {
				t.Errorf("error %q", code)
			}
			if (w.Header().Get("WWW-Authenticate") != "") != (tt.status == 401) || (w.Header().Get("Allow") == "POST") != (tt.status == 405) {
				t.Errorf("fields %v", w.Header())
			}
			if len(r.tokens.queries) != 0 {
				t.Error("the token was looked at")
			}
		})
	}
}

func TestPlainHTTPIsRefusedBeforeAnythingIsRead(t *testing.T) {
	r := newIntrospectionRig(t, func(o *IntrospectionOptions) { o.RefusePlainHTTP = true })
	if w := r.post("token=own", asClient("app")); w.Code != http.StatusForbidden || len(r.tokens.queries) != 0 || r.last().ClientID != "" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// The guesses at both endpoints count together.
func TestGuessingIsCountedWithThatAtTheRevocationEndpoint(t *testing.T) {
	guard := NewGuard(GuardOptions{Now: newClock().now})
	revocations := newRig(t, func(o *EndpointOptions) { o.Guard = guard })
	r := newIntrospectionRig(t, func(o *IntrospectionOptions) { o.Guard = guard })
	for range DefaultFailuresPerMinute / 2 {
		revocations.post("token="+tokenOwn, authorize(basicAuth("app", "wrong")))
		r.post("token=own", authorize(basicAuth("app", "wrong")))
	}
	if w := r.post("token=own", asClient("app")); w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" {
		t.Errorf("status %d", w.Code)
	}
	if w := r.post("token=for-api", asClient("api")); w.Code != http.StatusOK {
		t.Errorf("another client: status %d", w.Code)
	}
}

func TestAnEndpointServesItsIssuersOnly(t *testing.T) {
	r := newIntrospectionRig(t, func(o *IntrospectionOptions) { o.Issuers = []string{issuerB} })
	if w := r.post("token=own", asClient("app")); w.Code != http.StatusUnauthorized {
		t.Errorf("status %d", w.Code)
	}
	if w := r.post("token=at-b", authorize(basicAuth("at-b", "b-secret"))); !strings.HasPrefix(w.Body.String(), `{"active":true`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestActiveAnswersHaveTheMembersOfTheRFC(t *testing.T) {
	id := identity("token", issuerA, "app")
	id.NotBefore = 5
	tests := []struct {
		name  string
		token *ActiveToken
		only  []string
		want  string
	}{
		{
			"other names, other forms", &ActiveToken{Identity: id, Claims: []byte(
				`{ "iss":"https://a.example", "azp" : "app","scp":["read","write"],"preferred_username":"Al\u0069ce","aud":["x"],"exp":1.9999999995e9,"iat":1999996400.5,"nbf":4.5,"n":1e2,"cnf":{"jkt":"k"}}`)}, nil,
			`{"active":true,"iss":"https://a.example","azp" : "app","scp":["read","write"],"preferred_username":"Al\u0069ce","aud":["x"],"exp":2000000000,"iat":1999996400,"nbf":5,"n":1e2,"cnf":{"jkt":"k"},"token_type":"DPoP","client_id":"app","scope":"read write","username":"Alice"}`,
		},
		{
			"claims that would contradict", &ActiveToken{Identity: id, Claims: []byte(
				`{"active":false,"Active":false,"ACTIVE":0,"token_type":"x","client_id":"liar","scope":"a b","username":"u","preferred_username":"v","cnf":{"x5t#S256":"c"}}`)}, nil,
			`{"active":true,"token_type":"Bearer","client_id":"app","scope":"a b","username":"u","preferred_username":"v","cnf":{"x5t#S256":"c"},"exp":2000000000,"iat":1999996400,"nbf":5}`,
		},
		{
			"what the server has answered", &ActiveToken{Identity: id, Answered: true, Claims: []byte(
				"{\n \"active\": true,\n \"exp\": 1.5, \"scope\":\"a\",\t\"extra\": {\"active\":false} }")}, nil,
			`{"active":true,"exp": 1.5,"scope":"a","extra": {"active":false}}`,
		},
		{
			"some members only", &ActiveToken{Identity: id, Claims: []byte(`{"sub":"alice","email":"a@example.com","azp":"app"}`)},
			[]string{"sub", "client_id", "Active"}, `{"active":true,"sub":"alice","client_id":"app"}`,
		},
		{
			"of an answer", &ActiveToken{Identity: id, Answered: true, Claims: []byte(`{"active":true,"sub":"alice","email":"a@example.com"}`)},
			[]string{"sub"}, `{"active":true,"sub":"alice"}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newIntrospectionRig(t, func(o *IntrospectionOptions) { o.Members = tt.only })
			r.tokens.tokens["it"] = tt.token
			w := r.post("token=it", func(req *http.Request) {
				asClient("app")(req)
				// Signed answers are not supported.
				req.Header.Set("Accept", "application/token-introspection+jwt")
			})
			if w.Body.String() != tt.want || w.Header().Get("Content-Type") != "application/json" {
				t.Errorf("got  %s\nwant %s", w.Body, tt.want)
			}
		})
	}
}

func TestIntrospectionEndpointIsNotMadeWithoutWhatItNeeds(t *testing.T) {
	clients := testClients(t)
	for says, o := range map[string]IntrospectionOptions{
		"clients":       {Tokens: &fakeIntrospector{}},
		"introspector":  {Clients: clients},
		"negative":      {Clients: clients, Tokens: &fakeIntrospector{}, MaxBody: -1},
		"lifetime":      {Clients: clients, Tokens: &fakeIntrospector{}, AssertionLifetime: MaxAssertionLifetime + 1},
		"member is emp": {Clients: clients, Tokens: &fakeIntrospector{}, Members: []string{""}},
	} {
		if _, err := NewIntrospectionEndpoint(o); err == nil || !strings.Contains(err.Error(), strings.TrimSuffix(says, " emp")) {
			t.Errorf("%s: %v", says, err)
		}
	}
}

func TestClientsThatMayNotAskAreNotMade(t *testing.T) {
	secret := []Secret{clearSecret(t, "secret")}
	for says, c := range map[string]Client{
		"public":        {Methods: []AuthMethod{AuthNone}, IntrospectAny: true},
		"public client": {Methods: []AuthMethod{AuthNone}, IntrospectAudiences: []string{"x"}},
		"keep one":      {Secrets: secret, IntrospectAny: true, IntrospectAudiences: []string{"x"}},
		"is empty":      {Secrets: secret, IntrospectAudiences: []string{"x", ""}},
		"more than 64":  {Secrets: secret, IntrospectAudiences: make([]string, 65)},
	} {
		c.ID, c.Issuer = "c", issuerA
		if _, err := NewClient(c); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", says, err)
		}
	}
}

// Whatever is asked, with whatever claims: an answer is either exactly inactive or
// a JSON object whose only member that looks like active is true, and no secret
// is in it that was not in the claims.
func FuzzIntrospection(f *testing.F) {
	f.Add("token=it", `{"sub":"alice","aud":"app"}`, true)
	f.Add("token=it&token_type_hint=refresh_token", `{"active":false,"ACTIVE":1,"scope":["a",1]}`, false)
	f.Add("token=it", `{"cnf":{"jkt":"x"},"scp":"a","exp":1e3}`, false)
	f.Add("token=it", `{"cnf":[],"scope":{},"aud":[[]],"preferred_username":1}`, false)
	f.Fuzz(func(t *testing.T, body, claims string, answered bool) {
		r := newIntrospectionRig(t, nil)
		token := &ActiveToken{Identity: identity("it", issuerA, "app"), Claims: []byte(claims), Answered: answered}
		r.tokens.tokens["it"] = token
		w := r.post(body, asClient("app"))
		if w.Code != http.StatusOK {
			errorCode(t, w.Code, w.Body)
			return
		}
		if w.Body.String() == inactive {
			return
		}
		members, err := splitObject(w.Body.Bytes())
		if err != nil || len(members) == 0 || members[0].name != "active" || string(members[0].value) != "true" {
			t.Fatalf("%s: %v", w.Body, err)
		}
		seen := make(map[string]int)
		for i, m := range members {
			if seen[m.name]++; i > 0 && strings.EqualFold(m.name, "active") {
				t.Errorf("%s", w.Body)
			}
		}
		if own, err := splitObject([]byte(claims)); err == nil {
			for _, m := range own {
				if seen[m.name] == 0 && !strings.EqualFold(m.name, "active") {
					t.Errorf("%s lacks %q", w.Body, m.name)
				}
			}
		}
	})
}
