package oauth

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
)

// Whatever a request was authenticated with is kept from policies, wherever the
// client repeats it.
func TestSecretsDoNotReachPoliciesByOtherWays(t *testing.T) {
	long := "header." + strings.Repeat("Q", 2*maxUserAgent) + ".signature"
	basic := basicAuth("app", "app-secret")
	odd := "some secure & non-standard secret"
	encoded := basicAuth("an%3Aidentifier", url.QueryEscape(odd))
	for name, tt := range map[string]struct {
		auth, body, repeated, canary string
	}{
		"the Basic secret":            {basic, "token=" + tokenOwn, "app-secret", "app-secret"},
		"the Basic credentials":       {basic, "token=" + tokenOwn, strings.TrimPrefix(basic, "Basic "), strings.TrimPrefix(basic, "Basic ")},
		"the Basic secret, decoded":   {encoded, "token=odd", odd, "non-standard"},
		"the Basic secret, encoded":   {encoded, "token=odd", url.QueryEscape(odd), "non-standard"},
		"the secret in the form":      {"", "token=" + tokenOwn + "&client_id=app&client_secret=app-secret", "app-secret", "app-secret"},
		"a token longer than is kept": {basic, "token=" + long, long, "QQQQ"},
	} {
		t.Run(name, func(t *testing.T) {
			var got *Facts
			r := newRig(t, withPolicies(NamedPolicy{"facts", policyFunc(func(_ context.Context, f *Facts) (PolicyDecision, error) {
				got = f
				return PolicyDecision{Verdict: Allow}, nil
			})}))
			r.tokens.known[long] = identity("long", issuerA, "app")
			r.tokens.known["odd"] = identity("odd", issuerA, "an:identifier")
			w := r.post(tt.body+"&token_type_hint="+url.QueryEscape(tt.repeated), func(q *http.Request) {
				if tt.auth != "" {
					q.Header.Set("Authorization", tt.auth)
				}
				q.Header.Set("User-Agent", "agent "+tt.repeated)
				q.Header.Set("X-Copy", tt.repeated)
			})
			if w.Code != http.StatusOK || got == nil {
				t.Fatalf("status %d", w.Code)
			}
			text, err := json.Marshal(got)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(text), tt.canary) || got.HTTP.Header.Get("X-Copy") != "" || got.HTTP.UserAgent() != "" {
				t.Errorf("policies see %s, %v", text, got.HTTP.Header)
			}
		})
	}
}

// An authorization server may repeat the token in its answer, or take it for the
// token's id.
func TestPoliciesDoNotSeeATokenInItsServersAnswer(t *testing.T) {
	const token, secret = "an-opaque-token", "a-secret-of-the-client"
	number := json.Number("12")
	claims := map[string]any{
		"token": token, "jti": token, "scope": "orders", "n": number, "none": nil, "client_id": "app",
		"deep": map[string]any{"a": []any{"x", "Bearer " + token, map[string]any{"y": token, "z": true}}, token: 1},
		"uri":  "https://as.example/?token=" + token, "echo": "secret=" + secret,
	}
	var got *Facts
	r := newRig(t, func(o *EndpointOptions) {
		withPolicies(NamedPolicy{"facts", policyFunc(func(_ context.Context, f *Facts) (PolicyDecision, error) {
			got = f
			return PolicyDecision{Verdict: Allow}, nil
		})})(o)
	})
	r.tokens.known[token] = claimsIdentity(map[string]string{"token": "h", "jti": token, "client_id": "app", "sub": "app-secret"})
	r.tokens.claims = claims
	r.tokens.alive = true
	if w := r.post("token="+token, asApp); w.Code != http.StatusOK || got == nil {
		t.Fatalf("status %d", w.Code)
	}
	text, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), token) || got.Token.ID != "" {
		t.Errorf("policies see %s", text)
	}
	want := map[string]any{
		"scope": "orders", "n": number, "none": nil, "client_id": "app", "echo": "secret=" + secret,
		"deep": map[string]any{"a": []any{"x", map[string]any{"z": true}}},
	}
	if !reflect.DeepEqual(got.Token.Claims, want) {
		t.Errorf("claims %v, want %v", got.Token.Claims, want)
	}
	if claims["jti"] != token {
		t.Error("the answer itself was changed")
	}
	// A client's secret is kept from them likewise, but not for each word that one
	// is a part of; and what a client that proves nothing sends is no secret.
	x := &exchange{token: token, secrets: []string{token, secret, "app"}}
	for method, hidden := range map[AuthMethod]bool{AuthSecretBasic: true, AuthSecretPost: true, AuthNone: false} {
		x.outcome.Method = method
		kept := withoutSecrets(claims, x.claimSecrets())
		if _, ok := kept["echo"]; ok == hidden || kept["client_id"] != "app" {
			t.Errorf("%s: %v", method, kept)
		}
	}
}
