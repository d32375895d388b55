package issuer

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

const (
	testIssuer = "https://as.example.com"
	testToken  = "gu5QnhRWzxu7-opaque.Token~1"
)

// question is what an introspection endpoint was asked.
type question struct {
	method, path, query string
	header              http.Header
	form                url.Values
	body                string
}

// asked is an introspection endpoint for tests, on http://127.0.0.1.
type asked struct {
	*httptest.Server

	mu        sync.Mutex
	answer    http.HandlerFunc
	questions []question
}

func newAsked(t testing.TB, answer http.HandlerFunc) *asked {
	t.Helper()
	s := &asked{answer: answer}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *asked) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	form, _ := url.ParseQuery(string(body))
	s.mu.Lock()
	answer := s.answer
	s.questions = append(s.questions, question{r.Method, r.URL.Path, r.URL.RawQuery, r.Header.Clone(), form, string(body)})
	s.mu.Unlock()
	answer(w, r)
}

func (s *asked) set(answer http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

func (s *asked) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.questions)
}

func (s *asked) last(t testing.TB) question {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.questions) == 0 {
		t.Fatal("nothing was asked")
	}
	return s.questions[len(s.questions)-1]
}

// answers returns a handler that answers with this text as application/json.
func answers(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, text)
	}
}

// members returns an ordinary active answer with overrides applied; a nil
// override removes a member.
func members(overrides map[string]any) map[string]any {
	now := time.Now().Unix()
	m := map[string]any{
		"active": true, "iss": testIssuer, "client_id": "app", "sub": "alice", "sid": "session-1", "jti": "token-1",
		"iat": now - 10, "exp": now + 300, "auth_time": now - 60, "token_type": "Bearer", "scope": "read write", "aud": "orders",
	}
	maps.Copy(m, overrides)
	maps.DeleteFunc(m, func(_ string, v any) bool { return v == nil })
	return m
}

func activeText(overrides map[string]any) string {
	text, err := json.Marshal(members(overrides))
	if err != nil {
		panic(err)
	}
	return string(text)
}

// introspector returns one that asks s, as client "edge" with the secret
// "geheim" unless change says otherwise.
func (s *asked) introspector(t testing.TB, change func(*Config, *IntrospectionConfig, *Options)) *Introspector {
	t.Helper()
	of := Config{Issuer: testIssuer, JWKSURI: testIssuer + "/keys"}
	c := IntrospectionConfig{Endpoint: s.URL + "/introspect", ClientID: "edge", ClientSecret: "geheim"}
	var o Options
	if change != nil {
		change(&of, &c, &o)
	}
	n, err := NewIntrospector(newIssuer(t, of, o), c, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return n
}

func introspect(t testing.TB, n *Introspector, token string, req IntrospectionRequest) Introspection {
	t.Helper()
	result, err := n.Introspect(context.Background(), token, req)
	if err != nil {
		t.Fatalf("refused: %v", err)
	}
	return result
}

var introspectionErrors = []error{
	ErrInactive, ErrIntrospectionUnavailable, ErrNotAToken, ErrMalformed, ErrUnknownIssuer, ErrInvalid, ErrNotYetValid,
	ErrExpired, ErrNotJWT, ErrKeysUnavailable,
}

// introspectError asks about a token that must get this error, and no other.
func introspectError(t testing.TB, n *Introspector, token string, req IntrospectionRequest, want error) error {
	t.Helper()
	result, err := n.Introspect(context.Background(), token, req)
	if !errors.Is(err, want) {
		t.Fatalf("got %+v and error %v, want the error %q", result, err, want)
	}
	if !reflect.ValueOf(result).IsZero() {
		t.Fatalf("%+v came with the error %v", result, err)
	}
	for _, other := range introspectionErrors {
		if !errors.Is(other, want) && errors.Is(err, other) {
			t.Fatalf("the error %v is both %q and %q", err, want, other)
		}
	}
	return err
}

func TestAnActiveTokenHasTheIdentityThatTheServerTells(t *testing.T) {
	now := time.Now().Unix()
	s := newAsked(t, answers(activeText(map[string]any{
		"cid": "mapped", "iat": now - 10, "exp": now + 300, "nbf": now - 5, "auth_time": now - 60, "iss": "https://old.example.com",
		"groups": []any{"a", "b", 5}, "Sub": "mallory", "kid": "forged", "token": "forged",
	})))
	n := s.introspector(t, func(of *Config, _ *IntrospectionConfig, _ *Options) {
		of.Claims = map[string]Names{"client_id": {"cid"}}
		of.Aliases = []string{"https://old.example.com"}
	})
	before := time.Now()
	result := introspect(t, n, testToken, IntrospectionRequest{ClaimNames: []string{"groups"}})
	hash, err := OpaqueTokenHash(testToken)
	if err != nil {
		t.Fatal(err)
	}
	want := &revocation.Identity{
		Issuer: testIssuer, Aliases: []string{"https://old.example.com"}, Verified: true,
		IssuedAt: now - 10, Expiry: now + 300, NotBefore: now - 5, AuthTime: now - 60,
		Claims: []revocation.Claim{
			{Name: "client_id", Value: "mapped"}, {Name: "groups", Value: "5"}, {Name: "groups", Value: "a"}, {Name: "groups", Value: "b"},
			{Name: "jti", Value: "token-1"}, {Name: "sid", Value: "session-1"}, {Name: "sub", Value: "alice"}, {Name: "token", Value: hash},
		},
	}
	if !reflect.DeepEqual(result.Identity, want) {
		t.Errorf("got  %+v\nwant %+v", result.Identity, want)
	}
	if result.Use != UseAccess || result.Asked.Before(before) || result.Asked.After(time.Now()) {
		t.Errorf("%v, asked %v", result.Use, result.Asked)
	}
	var response map[string]any
	if err := json.Unmarshal(result.Response, &response); err != nil || response["scope"] != "read write" {
		t.Errorf("%s, %v", result.Response, err)
	}
	// Other claims do not need another question, nor does the caller's slice stay.
	names := []string{"scope"}
	result = introspect(t, n, testToken, IntrospectionRequest{ClaimNames: names})
	names[0] = "aud"
	if v, _ := result.Identity.Value("scope"); v != "read write" || len(result.Identity.Values("groups")) != 0 {
		t.Errorf("%+v", result.Identity)
	}
	if v, _ := introspect(t, n, testToken, IntrospectionRequest{ClaimNames: names}).Identity.Value("aud"); v != "orders" {
		t.Error("the claims of another request")
	}
	if s.count() != 1 {
		t.Errorf("%d questions", s.count())
	}
}

func TestASignedTokenIsNamedByItsSigningInput(t *testing.T) {
	s := newAsked(t, answers(activeText(nil)))
	n := s.introspector(t, nil)
	for _, payload := range []string{`{"iss":"` + testIssuer + `","jti":"x"}`, `{"jti":"x"}`} {
		token := compact(goodHeader, payload)
		r, err := read(token)
		if err != nil {
			t.Fatal(err)
		}
		sum := r.tokenHash()
		r.free()
		id := introspect(t, n, token, IntrospectionRequest{}).Identity
		if v, _ := id.Value(revocation.ClaimToken); v != base64.RawURLEncoding.EncodeToString(sum[:]) {
			t.Errorf("%s: %q", payload, v)
		}
		// The same signing input with another signature is another question.
		before := s.count()
		s.set(answers(`{"active":false}`))
		introspectError(t, n, token[:len(token)-4]+"AAAA", IntrospectionRequest{}, ErrInactive)
		s.set(answers(activeText(nil)))
		if s.count() != before+1 {
			t.Error("the answer for a signed token was used for another signature")
		}
	}
}

func TestTokensForOthersAreSentToNobody(t *testing.T) {
	s := newAsked(t, answers(activeText(nil)))
	n := s.introspector(t, nil)
	foreign := compact(goodHeader, `{"iss":"https://other.example.com"}`)
	introspectError(t, n, foreign, IntrospectionRequest{}, ErrUnknownIssuer)
	introspectError(t, n, compact(goodHeader, `{"iss":5}`), IntrospectionRequest{}, ErrMalformed)
	introspectError(t, n, compact(goodHeader, `{"iss":"`+testIssuer+`","iss":"x"}`), IntrospectionRequest{}, ErrMalformed)
	introspectError(t, n, foreign+"\n", IntrospectionRequest{}, ErrMalformed)
	for _, token := range []string{"", "a b", "a\nb", "é", strings.Repeat("x", maxToken+1)} {
		introspectError(t, n, token, IntrospectionRequest{}, ErrNotAToken)
	}
	if s.count() != 0 {
		t.Errorf("%d questions", s.count())
	}
}

func TestAQuestionIsAFormInTheBody(t *testing.T) {
	s := newAsked(t, answers(`{"active":false}`))
	n := s.introspector(t, func(_ *Config, c *IntrospectionConfig, _ *Options) {
		c.Endpoint += "?tenant=1"
		c.ClientID, c.ClientSecret = "https://edge:8080/ü", "a+b %/:&="
	})
	const token = "a+b/c=&token=x%20"
	introspectError(t, n, token, IntrospectionRequest{Hint: "refresh_token"}, ErrInactive)
	q := s.last(t)
	if q.method != "POST" || q.path != "/introspect" || q.query != "tenant=1" || q.header.Get("Content-Type") != "application/x-www-form-urlencoded" ||
		q.header.Get("Accept") != "application/json" {
		t.Errorf("%+v", q)
	}
	if want := (url.Values{"token": {token}, "token_type_hint": {"refresh_token"}}); !reflect.DeepEqual(q.form, want) {
		t.Errorf("got %v", q.form)
	}
	if _, sent := q.header["Idempotency-Key"]; sent {
		t.Error("the header that must not be sent was sent")
	}
	encoded, _ := strings.CutPrefix(q.header.Get("Authorization"), "Basic ")
	pair, err := base64.StdEncoding.DecodeString(encoded)
	id, secret, _ := strings.Cut(string(pair), ":")
	id, err1 := url.QueryUnescape(id)
	secret, err2 := url.QueryUnescape(secret)
	if errors.Join(err, err1, err2) != nil || id != "https://edge:8080/ü" || secret != "a+b %/:&=" || strings.Count(string(pair), ":") != 1 {
		t.Errorf("%s: %q %q", pair, id, secret)
	}
	introspectError(t, n, token, IntrospectionRequest{Hint: "whatever"}, ErrInactive)
	if q := s.last(t); len(q.form["token_type_hint"]) != 0 {
		t.Errorf("%v", q.form)
	}
}

func TestWhatIsAskedOfTheTokenDependsOnTheRequest(t *testing.T) {
	now := time.Now().Unix()
	audience := func(of *Config, _ *IntrospectionConfig, _ *Options) { of.Audiences = []string{"billing"} }
	missing := func(of *Config, _ *IntrospectionConfig, _ *Options) { of.AllowMissingExpiry = true }
	for _, c := range []struct {
		name    string
		members map[string]any
		change  func(*Config, *IntrospectionConfig, *Options)
		want    error                // of the zero request, nil for none
		relaxed IntrospectionRequest // passes
	}{
		{"refresh token", map[string]any{"token_type": "refresh_token"}, nil, ErrInvalid, IntrospectionRequest{AnyUse: true}},
		{"id token", map[string]any{"typ": "ID"}, nil, ErrInvalid, IntrospectionRequest{AnyUse: true}},
		{"no kind", map[string]any{"token_type": nil}, nil, nil, IntrospectionRequest{}},
		{"other audience", nil, audience, ErrInvalid, IntrospectionRequest{IgnoreAudience: true}},
		{"no audience", map[string]any{"aud": nil}, audience, ErrInvalid, IntrospectionRequest{IgnoreAudience: true}},
		{"one of several audiences", map[string]any{"aud": []string{"x", "billing"}}, audience, nil, IntrospectionRequest{}},
		{"no exp", map[string]any{"exp": nil}, nil, ErrInvalid, IntrospectionRequest{IgnoreExpiry: true}},
		{"exp null", map[string]any{"exp": json.RawMessage("null")}, nil, ErrInvalid, IntrospectionRequest{IgnoreExpiry: true}},
		{"exp zero", map[string]any{"exp": 0}, nil, ErrInvalid, IntrospectionRequest{IgnoreExpiry: true}},
		{"no exp, allowed", map[string]any{"exp": nil}, missing, nil, IntrospectionRequest{}},
		{"long life", map[string]any{"exp": now + 30*86400}, nil, ErrInvalid, IntrospectionRequest{IgnoreExpiry: true}},
		{"not yet", map[string]any{"nbf": now + 3600}, nil, ErrNotYetValid, IntrospectionRequest{IgnoreExpiry: true}},
		{"from the future", map[string]any{"iat": now + 3600, "exp": now + 7200}, nil, ErrNotYetValid, IntrospectionRequest{IgnoreExpiry: true}},
		{"just over, within the leeway", map[string]any{"exp": now - 5}, nil, nil, IntrospectionRequest{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newAsked(t, answers(activeText(c.members))).introspector(t, c.change)
			if c.want != nil {
				introspectError(t, n, testToken, IntrospectionRequest{}, c.want)
			} else {
				introspect(t, n, testToken, IntrospectionRequest{})
			}
			id := introspect(t, n, testToken, c.relaxed).Identity
			if exp, found := c.members["exp"]; found && (exp == nil || exp == 0) && id.Expiry != 0 {
				t.Errorf("exp %d", id.Expiry)
			}
		})
	}
}

func TestTheUseOfATokenIsWhatItMayBeUsedForLeast(t *testing.T) {
	for text, want := range map[string]TokenUse{
		`{}`: UseUnknown, `{"token_type":"Bearer"}`: UseAccess, `{"token_type":"DPoP"}`: UseAccess, `{"token_type":"N_A"}`: UseUnknown,
		`{"token_type":"Bearer","token_use":"access_token"}`: UseAccess, `{"token_use":"refresh_token"}`: UseRefresh,
		`{"token_type":"Bearer","token_use":"refresh_token"}`: UseRefresh, `{"typ":"Refresh","token_type":"Bearer"}`: UseRefresh,
		`{"typ":"Offline"}`: UseRefresh, `{"typ":"ID","token_type":"refresh_token"}`: UseOther, `{"typ":"Bearer"}`: UseAccess,
		`{"token_type":"urn:ietf:params:oauth:token-type:refresh_token"}`: UseRefresh, `{"Token_Use":"refresh_token"}`: UseUnknown,
		`{"token_type":["refresh_token"]}`: UseUnknown, `{"token_type":"\u0042earer"}`: UseAccess,
	} {
		var s scanner
		if err := s.scan([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if got := tokenUse(&s); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
	if s := fmt.Sprint(UseUnknown, UseAccess, UseRefresh, UseOther, TokenUse(9)); s != "unknown access refresh other TokenUse(9)" {
		t.Error(s)
	}
}
