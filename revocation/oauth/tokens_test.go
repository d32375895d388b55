package oauth

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

func several(o *EndpointOptions) { o.SeveralTokens = true }

// What one token of several is refused for keeps all of them alive; what one is
// worthless for does not.
func TestSeveralTokensAreRevokedTogetherOrNotAtAll(t *testing.T) {
	const second = "second.access.token"
	for _, tt := range []struct {
		name, token string
		status      int
		code        string
		revoked     []string
		result      Result
	}{
		{"two", tokenOwn + " " + second, 200, "", []string{tokenOwn, second}, ResultRevoked},
		{"spaces around", "  " + tokenOwn + "   " + second + " ", 200, "", []string{tokenOwn, second}, ResultRevoked},
		{"the same twice", tokenOwn + " " + tokenOwn, 200, "", []string{tokenOwn}, ResultRevoked},
		{"one is invalid", "no.such.jwt " + tokenOwn, 200, "", []string{tokenOwn}, ResultRevoked},
		{"the last is invalid", tokenOwn + " no.such.jwt", 200, "", []string{tokenOwn}, ResultRevoked},
		{"one has expired", tokenOwn + " expired.access.token", 200, "", []string{tokenOwn}, ResultRevoked},
		{"all are invalid", "no.such.jwt not.this.one", 200, "", nil, ResultTokenInvalid},
		{"one is foreign", tokenOwn + " " + tokenForeign, 400, ErrorInvalidGrant, nil, ResultNotOwner},
		{"one is opaque", tokenOwn + " opaque", 400, ErrorUnsupportedTokenType, nil, ResultTokenUnsupported},
		{"one can't be judged", tokenOwn + " keyless.access.token", 503, ErrorTemporarilyUnavailable, nil, ResultUnavailable},
		{"too many", strings.Repeat("x ", MaxTokens) + strings.Join(strings.Split("abcdefghijklmnopq", ""), " "), 400, ErrorInvalidRequest, nil, ResultInvalidRequest},
		{"a line break at the end", tokenOwn + " " + second + "\n", 400, ErrorInvalidRequest, nil, ResultInvalidRequest},
		{"a tab between", tokenOwn + "\t" + second, 400, ErrorInvalidRequest, nil, ResultInvalidRequest},
		{"a line break between", tokenOwn + " " + second + "\n" + tokenOwn, 400, ErrorInvalidRequest, nil, ResultInvalidRequest},
		{"spaces only", "   ", 400, ErrorInvalidRequest, nil, ResultInvalidRequest},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, several)
			r.tokens.known[second] = identity(second, issuerA, "app")
			w := r.post("token="+strings.NewReplacer(" ", "%20", "\n", "%0A", "\t", "%09").Replace(tt.token), asApp)
			if code := errorCode(t, w.Code, w.Body); w.Code != tt.status || code != tt.code {
				t.Errorf("status %d %q", w.Code, code)
			}
			if got := r.revoker.revoked(); !slices.Equal(got, tt.revoked) {
				t.Errorf("revoked %q", got)
			}
			if o := r.lastOutcome(t); o.Result != tt.result || len(o.Decisions) != len(tt.revoked) {
				t.Errorf("outcome %+v", o)
			}
		})
	}
	r := newRig(t, nil)
	if w := r.post("token="+tokenOwn+"%20"+tokenOwn, asApp); w.Code != 400 || len(r.revoker.requests) != 0 {
		t.Errorf("without the option: status %d, recorded %+v", w.Code, r.revoker.requests)
	}
}

// A failure after the first is told, and the retry finds what stands.
func TestSomeOfSeveralTokensAreNoSuccess(t *testing.T) {
	revoker := &failingAfter{n: 1, err: revocation.ErrUnavailable}
	r := newRig(t, func(o *EndpointOptions) { several(o); o.Revoker = revoker })
	r.tokens.known["second.access.token"] = identity("second.access.token", issuerA, "app")
	w := r.post("token="+tokenOwn+"%20second.access.token", asApp)
	if o := r.lastOutcome(t); w.Code != http.StatusServiceUnavailable || o.Result != ResultUnavailable || len(o.Decisions) != 1 {
		t.Errorf("status %d, outcome %+v", w.Code, o)
	}
	// One that ended meanwhile is no failure, and does not hide what was revoked.
	revoker.err = revocation.ErrExpired
	if w := r.post("token="+tokenOwn+"%20second.access.token", asApp); w.Code != 200 {
		t.Errorf("status %d", w.Code)
	}
}

// No token of several reaches a policy, whichever header it is in.
func TestPoliciesSeeNoneOfSeveralTokens(t *testing.T) {
	var seen []*Facts
	r := newRig(t, func(o *EndpointOptions) {
		several(o)
		o.Policies = []NamedPolicy{{"spy", policyFunc(func(_ context.Context, f *Facts) (PolicyDecision, error) {
			seen = append(seen, f)
			return PolicyDecision{Verdict: Allow}, nil
		})}}
	})
	r.tokens.known["second.access.token"] = identity("second.access.token", issuerA, "app")
	r.post("token="+tokenOwn+"%20second.access.token", func(req *http.Request) {
		asApp(req)
		req.Header.Set("X-Copy", "second.access.token")
	})
	if len(seen) != 2 || seen[0].Token.ID != tokenOwn || seen[1].Token.ID != "second.access.token" {
		t.Fatalf("seen %+v", seen)
	}
	if seen[0].HTTP.Header.Get("X-Copy") != "" {
		t.Error("a policy sees a token")
	}
}

func allTokens(o *EndpointOptions) { o.AllTokens = true }

func TestAClientRevokesAllItsTokens(t *testing.T) {
	for _, tt := range []struct {
		body   string
		change func(*http.Request)
		status int
		code   string
		result Result
	}{
		{"token=all", asApp, 200, "", ResultRevoked},
		{"token=ALL", asApp, 200, "", ResultRevoked},
		{"token=All&token_type_hint=access_token", asApp, 200, "", ResultRevoked},
		{"token=all&token_type_hint=refresh_token", asApp, 400, ErrorUnsupportedTokenType, ResultTokenUnsupported},
		{"token=all&token_type_hint=tx_token", asApp, 400, ErrorUnsupportedTokenType, ResultTokenUnsupported},
		{"token=all&client_id=spa", nil, 401, ErrorInvalidClient, ResultInvalidClient},
		{"token=all", func(r *http.Request) { r.Header.Set("Authorization", basicAuth("spa", "")) }, 401, ErrorInvalidClient, ResultInvalidClient},
		{"token=allx", asApp, 400, ErrorUnsupportedTokenType, ResultTokenUnsupported},
	} {
		r := newRig(t, allTokens)
		w := r.post(tt.body, tt.change)
		if code := errorCode(t, w.Code, w.Body); w.Code != tt.status || code != tt.code || r.lastOutcome(t).Result != tt.result {
			t.Errorf("%s: status %d %q, %+v", tt.body, w.Code, code, r.lastOutcome(t))
		}
		if tt.status != 200 {
			if len(r.revoker.requests) != 0 {
				t.Errorf("%s: recorded %+v", tt.body, r.revoker.requests)
			}
			continue
		}
		q := r.revoker.requests
		if len(q) != 1 || q[0].Mode != revocation.IssuedBefore || q[0].Cutoff != 0 || q[0].Criteria.Issuer != issuerA ||
			len(q[0].Criteria.Claims) != 1 || q[0].Criteria.Claims["client_id"] != "app" {
			t.Errorf("%s: recorded %+v", tt.body, q)
		}
		if o := r.lastOutcome(t); o.Cascade != CascadeClient || len(o.Decisions) != 1 {
			t.Errorf("%s: outcome %+v", tt.body, o)
		}
	}
	r := newRig(t, nil)
	if w := r.post("token=all", asApp); w.Code != 400 || len(r.revoker.requests) != 0 {
		t.Errorf("without the option: status %d, recorded %+v", w.Code, r.revoker.requests)
	}
}

func TestAllTokensNeedThePoliciesAndTheLedger(t *testing.T) {
	var facts *Facts
	verdict := PolicyDecision{Verdict: Deny}
	r := newRig(t, func(o *EndpointOptions) {
		allTokens(o)
		o.Policies = []NamedPolicy{{"spy", policyFunc(func(_ context.Context, f *Facts) (PolicyDecision, error) {
			facts = f
			return verdict, nil
		})}}
	})
	w := r.post("token=all", func(req *http.Request) { asApp(req); req.Header.Set("X-Way", "all of them") })
	if w.Code != http.StatusForbidden || len(r.revoker.requests) != 0 {
		t.Errorf("status %d, recorded %+v", w.Code, r.revoker.requests)
	}
	if facts.Cascade != CascadeClient || !facts.Token.Own || facts.Token.Owner != "app" || facts.Token.ID != "" || facts.HTTP.Header.Get("X-Way") == "" {
		t.Errorf("facts %+v", facts)
	}
	verdict.Verdict = Allow
	for _, err := range []error{revocation.ErrUnavailable, revocation.ErrFull, errors.New("other")} {
		r.revoker.err = err
		if w := r.post("token=all", asApp); w.Code != http.StatusServiceUnavailable {
			t.Errorf("%v: status %d", err, w.Code)
		}
	}
}

// What is left alive token by token must not die all at once.
func TestAllTokensAreNotThoseThatAreRefused(t *testing.T) {
	for _, k := range TokenKinds {
		o := newRig(t, allTokens).endpoint.options
		o.Refuse = []TokenKind{k}
		if err := o.validateChoices(); (err == nil) != (k == KindRefresh) {
			t.Errorf("refuse %s: %v", k, err)
		}
	}
}

// What a token is decides, not the hint.
func TestRefusedKindsOfTokens(t *testing.T) {
	for _, tt := range []struct {
		refuse []TokenKind
		want   map[string]int // by token
	}{
		{[]TokenKind{KindRefresh}, map[string]int{"jwt": 200, "opaque": 200, "refresh": 400, "unknown": 200}},
		{[]TokenKind{KindAccess}, map[string]int{"jwt": 400, "opaque": 400, "refresh": 200, "unknown": 400}},
		{[]TokenKind{KindJWT}, map[string]int{"jwt": 400, "opaque": 200, "refresh": 200, "unknown": 200}},
		{[]TokenKind{KindOpaque}, map[string]int{"jwt": 200, "opaque": 400, "refresh": 400, "unknown": 400}},
		{[]TokenKind{KindRefresh, KindJWT}, map[string]int{"jwt": 400, "opaque": 200, "refresh": 400, "unknown": 200}},
	} {
		for token, status := range tt.want {
			for _, hint := range []string{"", "access_token", "refresh_token"} {
				if token == "unknown" && hint == "refresh_token" {
					continue // is a refresh token then
				}
				r := newRig(t, func(o *EndpointOptions) { o.Refuse = tt.refuse })
				r.tokens.known[token] = claimsIdentity(map[string]string{"token": "h", "client_id": "app", "sub": "u"})
				r.tokens.uses = map[string]TokenUse{"refresh": UseRefresh, "unknown": UseUnknown}
				r.tokens.alive = token != "jwt"
				w := r.post("token="+token+"&token_type_hint="+hint, asApp)
				if w.Code != status || (status == 400) != (len(r.revoker.requests) == 0) {
					t.Errorf("refuse %v, %s, hint %q: status %d", tt.refuse, token, hint, w.Code)
				}
			}
		}
	}
	for _, kinds := range [][]TokenKind{{"id_token"}, {KindJWT, KindOpaque}, {KindRefresh, KindAccess}} {
		if _, err := NewEndpoint(EndpointOptions{
			Clients: testClients(t), Tokens: &fakeResolver{}, Revoker: &fakeRevoker{}, Refuse: kinds,
		}); err == nil {
			t.Errorf("%v is accepted", kinds)
		}
	}
}
