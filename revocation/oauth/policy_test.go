package oauth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// policyFunc is a policy that is a function.
type policyFunc func(context.Context, *Facts) (PolicyDecision, error)

func (f policyFunc) Decide(ctx context.Context, facts *Facts) (PolicyDecision, error) {
	return f(ctx, facts)
}

func says(d PolicyDecision, err error) NamedPolicy {
	return NamedPolicy{"hook", policyFunc(func(context.Context, *Facts) (PolicyDecision, error) { return d, err })}
}

func withPolicies(policies ...NamedPolicy) func(*EndpointOptions) {
	return func(o *EndpointOptions) { o.Policies = policies }
}

func TestPolicyDecidesWhatBecomesOfARevocation(t *testing.T) {
	custom := http.Header{"x-custom": {"yes"}}
	tests := []struct {
		name   string
		says   PolicyDecision
		err    error
		status int
		code   string
		result Result
	}{
		{"allows", PolicyDecision{Verdict: Allow, Header: custom}, nil, 200, "", ResultRevoked},
		{"skips", PolicyDecision{Verdict: Skip, Header: custom, Reason: "later"}, nil, 200, "", ResultPolicySkipped},
		{"denies", PolicyDecision{Verdict: Deny, Header: custom, Reason: "no"}, nil, 403, ErrorAccessDenied, ResultPolicyRefused},
		{"answers", PolicyDecision{Verdict: Answer, Status: 409, Header: custom, Body: []byte(`{"error":"try_later"}`)}, nil, 409, "try_later", ResultPolicyRefused},
		{"answers without a body", PolicyDecision{Verdict: Answer, Status: 418, Header: custom}, nil, 418, ErrorAccessDenied, ResultPolicyRefused},
		{"answers another type", PolicyDecision{Verdict: Answer, Status: 500, Header: http.Header{"X-Custom": {"yes"}, "content-type": {"application/problem+json"}}, Body: []byte(`{}`)}, nil, 500, "", ResultPolicyRefused},

		{"fails", PolicyDecision{Verdict: Allow}, errors.New("down"), 503, ErrorTemporarilyUnavailable, ResultPolicyFailed},
		{"says nothing", PolicyDecision{}, nil, 503, ErrorTemporarilyUnavailable, ResultPolicyFailed},
		{"says what does not exist", PolicyDecision{Verdict: Answer + 1}, nil, 503, ErrorTemporarilyUnavailable, ResultPolicyFailed},
		{"answers 200 by accident", PolicyDecision{Verdict: Answer, Status: 200, Body: []byte(`{}`)}, nil, 503, ErrorTemporarilyUnavailable, ResultPolicyFailed},
		{"redirects", PolicyDecision{Verdict: Answer, Status: 302, Header: http.Header{"Location": {"/"}}}, nil, 503, ErrorTemporarilyUnavailable, ResultPolicyFailed},
		{"answers no status", PolicyDecision{Verdict: Answer, Status: 999}, nil, 503, ErrorTemporarilyUnavailable, ResultPolicyFailed},
		{"allows with a status", PolicyDecision{Verdict: Allow, Status: 400}, nil, 503, ErrorTemporarilyUnavailable, ResultPolicyFailed},
		{"answers endlessly", PolicyDecision{Verdict: Answer, Status: 400, Body: make([]byte, maxPolicyBody+1)}, nil, 503, ErrorTemporarilyUnavailable, ResultPolicyFailed},
		{"makes it cacheable", PolicyDecision{Verdict: Allow, Header: http.Header{"cache-control": {"public"}}}, nil, 503, ErrorTemporarilyUnavailable, ResultPolicyFailed},
		{"opens it to an origin", PolicyDecision{Verdict: Skip, Header: http.Header{"Access-Control-Allow-Origin": {"*"}}}, nil, 503, ErrorTemporarilyUnavailable, ResultPolicyFailed},
		{"ends the header", PolicyDecision{Verdict: Allow, Header: http.Header{"X-A": {"a\r\nX-B: b"}}}, nil, 503, ErrorTemporarilyUnavailable, ResultPolicyFailed},
		{"names a field badly", PolicyDecision{Verdict: Allow, Header: http.Header{"X A": {"a"}}}, nil, 503, ErrorTemporarilyUnavailable, ResultPolicyFailed},
		{"fills the header", PolicyDecision{Verdict: Allow, Header: http.Header{"X-A": {strings.Repeat("a", maxPolicyHeader)}}}, nil, 503, ErrorTemporarilyUnavailable, ResultPolicyFailed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, withPolicies(says(tt.says, tt.err)))
			w := r.post("token="+tokenOwn, asApp)
			o := r.lastOutcome(t)
			if w.Code != tt.status || o.Status != tt.status || o.Result != tt.result {
				t.Errorf("status %d, outcome %+v; want %d, %s", w.Code, o, tt.status, tt.result)
			}
			if revoked := len(r.revoker.revoked()) == 1; revoked != (tt.result == ResultRevoked) {
				t.Errorf("revoked: %v", revoked)
			}
			if code := errorCode(t, w.Code, w.Body); code != tt.code {
				t.Errorf("error %q, want %q", code, tt.code)
			}
			if got := w.Header()["X-Custom"]; slices.Equal(got, []string{"yes"}) == (tt.result == ResultPolicyFailed) {
				t.Errorf("X-Custom is %q", got)
			}
			if got := w.Header()["Content-Type"]; len(got) != 1 || (got[0] == "application/problem+json") != (tt.status == 500) {
				t.Errorf("Content-Type is %q", got)
			}
			if w.Header().Get("Cache-Control") != "no-store" || (w.Header().Get("Retry-After") != "") != (tt.status == 503) {
				t.Errorf("fields %v", w.Header())
			}
			if tt.result != ResultRevoked && o.Policy != "hook" || tt.says.Reason != "" && o.Reason != tt.says.Reason {
				t.Errorf("outcome %+v", o)
			}
		})
	}
}

func TestPolicyThatPanicsIsAFailure(t *testing.T) {
	r := newRig(t, withPolicies(NamedPolicy{"bad", policyFunc(func(context.Context, *Facts) (PolicyDecision, error) { panic("oh") })}))
	if w := r.post("token="+tokenOwn, asApp); w.Code != http.StatusServiceUnavailable || len(r.revoker.revoked()) != 0 {
		t.Errorf("status %d, revoked %q", w.Code, r.revoker.revoked())
	}
}

func TestPoliciesAreAskedInOrderUntilOneEndsTheRequest(t *testing.T) {
	var asked []string
	named := func(name string, v Verdict) NamedPolicy {
		return NamedPolicy{name, policyFunc(func(context.Context, *Facts) (PolicyDecision, error) {
			asked = append(asked, name)
			return PolicyDecision{Verdict: v, Header: http.Header{"X-" + name: {"1"}}}, nil
		})}
	}
	r := newRig(t, withPolicies(named("a", Allow), named("b", Skip), named("c", Allow)))
	w := r.post("token="+tokenOwn, asApp)
	if !slices.Equal(asked, []string{"a", "b"}) || w.Code != 200 || len(r.revoker.revoked()) != 0 {
		t.Errorf("asked %q, status %d, revoked %q", asked, w.Code, r.revoker.revoked())
	}
	if w.Header().Get("X-A") != "1" || w.Header().Get("X-B") != "1" {
		t.Errorf("fields %v", w.Header())
	}
}

// A policy is asked about what would be revoked, and about nothing else.
func TestPoliciesAreNotAskedAboutWhatIsNotRevokedAnyway(t *testing.T) {
	r := newRig(t, withPolicies(NamedPolicy{"never", policyFunc(func(_ context.Context, f *Facts) (PolicyDecision, error) {
		t.Errorf("asked about %+v", f)
		return PolicyDecision{Verdict: Allow}, nil
	})}))
	for _, token := range []string{tokenForeign, tokenNoClient, "unknown.access.token", "expired.access.token", tokenOpaque, ""} {
		r.post("token="+token, asApp)
	}
	r.post("token="+tokenOwn, authorize(basicAuth("app", "wrong")))
}

func TestFactsTellEverythingButSecrets(t *testing.T) {
	claims := base64.RawURLEncoding.EncodeToString([]byte(`{"scope":"a b","n":12345678901234567890,"roles":["x"]}`))
	token := "header." + claims + ".canary-signature"
	var got *Facts
	r := newRig(t, func(o *EndpointOptions) {
		o.Cascade = CascadeGrant
		o.Policies = []NamedPolicy{{"facts", policyFunc(func(_ context.Context, f *Facts) (PolicyDecision, error) {
			got = f
			return PolicyDecision{Verdict: Allow}, nil
		})}}
	})
	id := identity("t1", issuerA, "app")
	id.Claims = append(id.Claims, revocation.Claim{Name: revocation.ClaimSessionID, Value: "s1"})
	revocation.SortClaims(id.Claims)
	r.tokens.known[token] = id
	w := r.post("token="+token+"&token_type_hint=access_token&client_id=app&client_secret=app-secret", func(req *http.Request) {
		req.URL.RawQuery = "tenant=canary-query"
		req.Header.Set("Cookie", "canary-cookie")
		req.Header.Set("Dpop", "canary-proof")
		req.Header.Set("X-Tenant", "blue")
		req.Header.Set("X-Copy", "Bearer "+token)
		req.Header.Set("X-Secret", "app-secret")
		req.Header.Set("User-Agent", "test/1")
	})
	if w.Code != 200 || got == nil {
		t.Fatalf("status %d, facts %v", w.Code, got)
	}
	text, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"client":{"id":"app","issuer":"https://a.example","auth_method":"client_secret_post","public":false,"ip":"192.0.2.1"},` +
		`"token":{"issuer":"https://a.example","id":"t1","subject":"alice","session_id":"s1","owner":"app","own":true,` +
		`"issued_at":1999996400,"expires_at":2000000000,"use":"access","claims":{"n":12345678901234567890,"roles":["x"],"scope":"a b"}},` +
		`"request":{"host":"example.com","path":"/oauth/revoke","plain_http":true,"user_agent":"test/1"},` +
		`"token_type_hint":"access_token","cascade":"grant"}`
	if string(text) != want {
		t.Errorf("facts\n%s, want\n%s", text, want)
	}
	if h := got.HTTP.Header; h.Get("X-Tenant") != "blue" || len(h) != 3 || got.HTTP.URL.RawQuery != "" || got.HTTP.Body != http.NoBody {
		t.Errorf("the request is %+v", got.HTTP)
	}
}

func TestHintThatCouldBeASecretIsNotHandedOn(t *testing.T) {
	for hint, want := range map[string]string{
		"": "", "access_token": "access_token", "urn:ietf:params:oauth:token-type:refresh_token": "urn:ietf:params:oauth:token-type:refresh_token",
		"the-token": "other", "x-the-token": "other", "a b": "other", "\x01": "other", strings.Repeat("a", 65): "other",
	} {
		if got := cleanHint(hint, []string{"the-token", ""}); got != want {
			t.Errorf("%q becomes %q, want %q", hint, got, want)
		}
	}
}

// FuzzJWTClaims: whatever a token's payload is, there are claims that can be
// posted as JSON.
func FuzzJWTClaims(f *testing.F) {
	for _, s := range []string{`{"a":1e400}`, `null`, `[]`, `{"a":{"b":[1,2.5,"x"]}}`, `{`, "", `{"a":"\ud800"}`} {
		f.Add("h." + base64.RawURLEncoding.EncodeToString([]byte(s)) + ".s")
	}
	f.Fuzz(func(t *testing.T, token string) {
		claims := JWTClaims(token)
		if claims == nil {
			t.Fatal("nil would be null")
		}
		if _, err := json.Marshal(Facts{Token: TokenFacts{Claims: claims}}); err != nil {
			t.Fatal(err)
		}
	})
}
