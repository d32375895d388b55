package oauth

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
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
