package oauth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

func TestEndpointNeedsItsParts(t *testing.T) {
	whole := EndpointOptions{Clients: testClients(t), Tokens: &fakeResolver{}, Revoker: &fakeRevoker{}}
	if _, err := NewEndpoint(whole); err != nil {
		t.Fatal(err)
	}
	for says, change := range map[string]func(*EndpointOptions){
		"clients":  func(o *EndpointOptions) { o.Clients = nil },
		"resolver": func(o *EndpointOptions) { o.Tokens = nil },
		"revoker":  func(o *EndpointOptions) { o.Revoker = nil },
		"negative": func(o *EndpointOptions) { o.MaxBody = -1 },
	} {
		o := whole
		change(&o)
		if _, err := NewEndpoint(o); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("error %v, want one with %q", err, says)
		}
	}
}

func TestRevocationRecordsExactlyOneToken(t *testing.T) {
	r := newRig(t, nil)
	noJTI := identity("x", issuerA, "app")
	noJTI.Claims = []revocation.Claim{{Name: revocation.ClaimClientID, Value: "app"}, {Name: revocation.ClaimToken, Value: "hash"}}
	r.tokens.known["nojti.access.token"] = noJTI
	for token, claims := range map[string]map[string]string{
		tokenOwn:             {revocation.ClaimTokenID: tokenOwn},
		"nojti.access.token": {revocation.ClaimToken: "hash"},
	} {
		r.revoker.requests = nil
		if w := r.post("token="+token, asApp); w.Code != http.StatusOK || w.Body.String() != "{}" {
			t.Fatalf("status %d, body %q", w.Code, w.Body)
		}
		want := []revocation.Request{{
			Criteria:      revocation.Criteria{Issuer: issuerA, Claims: claims},
			Mode:          revocation.Block,
			TokenExpiry:   expiry,
			TokenIssuedAt: expiry - 3600,
			Reason:        "client request",
			Actor:         "client:app",
		}}
		if !reflect.DeepEqual(r.revoker.requests, want) {
			t.Errorf("recorded %+v, want %+v", r.revoker.requests, want)
		}
	}
	if o := r.lastOutcome(t); o.Result != ResultRevoked || len(o.Decisions) != 1 || o.Decisions[0].ID != "decision" || o.Decisions[0].Sequence != 1 ||
		o.Cascade != CascadeToken || o.Owner != "app" || !o.PlainHTTP ||
		o.ClientID != "app" || o.Issuer != issuerA || o.Method != AuthSecretBasic || o.ClientIP.String() != "192.0.2.1" {
		t.Errorf("observed %+v", o)
	}
}

func TestEveryEndOfARequestHasItsAnswer(t *testing.T) {
	unverified := identity("unverified.access.token", issuerA, "app")
	unverified.Verified = false
	nameless := identity("x", issuerA, "app")
	nameless.Claims = []revocation.Claim{{Name: revocation.ClaimClientID, Value: "app"}}
	tests := []struct {
		name   string
		token  string
		extra  string
		ledger error
		status int
		code   string
		result Result
	}{
		{"own token", tokenOwn, "", nil, 200, "", ResultRevoked},
		{"invalid token", "unknown.access.token", "", nil, 200, "", ResultTokenInvalid},
		{"expired token", "expired.access.token", "", nil, 200, "", ResultTokenExpired},
		{"expired by the service's clock", tokenOwn, "", revocation.ErrExpired, 200, "", ResultTokenExpired},
		{"unsupported type", "unsupported.access.token", "", nil, 400, ErrorUnsupportedTokenType, ResultTokenUnsupported},
		{"unsupported type, whatever the hint", "unsupported.access.token", "&token_type_hint=access_token", nil, 400, ErrorUnsupportedTokenType, ResultTokenUnsupported},
		{"opaque", tokenOpaque, "", nil, 400, ErrorUnsupportedTokenType, ResultTokenUnsupported},
		{"opaque, said to be an access token", tokenOpaque, "&token_type_hint=access_token", nil, 400, ErrorUnsupportedTokenType, ResultTokenUnsupported},
		{"opaque, said to be a refresh token", tokenOpaque, "&token_type_hint=refresh_token", nil, 400, ErrorUnsupportedTokenType, ResultTokenUnsupported},
		{"opaque, said so in the long form", tokenOpaque, "&token_type_hint=urn:ietf:params:oauth:token-type:refresh_token", nil, 400, ErrorUnsupportedTokenType, ResultTokenUnsupported},
		{"not visible ASCII", "a.b.%01c", "", nil, 200, "", ResultTokenInvalid},
		{"not visible ASCII, a refresh token", "a.b.%01c", "&token_type_hint=refresh_token", nil, 200, "", ResultTokenInvalid},
		{"not ASCII", "%C3%A9", "", nil, 200, "", ResultTokenInvalid},
		{"two tokens", tokenOwn + "+" + tokenOwn, "", nil, 400, ErrorUnsupportedTokenType, ResultTokenUnsupported},
		{"a space in front", "+" + tokenOwn, "", nil, 400, ErrorUnsupportedTokenType, ResultTokenUnsupported},
		{"read from a file with its newline", tokenOwn + "%0D%0A", "", nil, 400, ErrorInvalidRequest, ResultInvalidRequest},
		{"another client's", tokenForeign, "", nil, 400, ErrorInvalidGrant, ResultNotOwner},
		{"the same client_id at another issuer", tokenIssuerB, "", nil, 400, ErrorInvalidGrant, ResultNotOwner},
		{"nobody's", tokenNoClient, "", nil, 400, ErrorInvalidGrant, ResultNotOwner},
		{"two clients'", tokenTwoOwners, "", nil, 400, ErrorInvalidGrant, ResultNotOwner},
		{"no keys", "keyless.access.token", "", nil, 503, ErrorTemporarilyUnavailable, ResultUnavailable},
		{"an error that nobody declared", "surprising.access.token", "", nil, 503, ErrorTemporarilyUnavailable, ResultUnavailable},
		{"claims that nobody verified", "unverified.access.token", "", nil, 503, ErrorTemporarilyUnavailable, ResultUnavailable},
		{"nothing to name the token by", "nameless.access.token", "", nil, 503, ErrorTemporarilyUnavailable, ResultUnavailable},
		{"no acknowledgement", tokenOwn, "", fmt.Errorf("publishing: %w", revocation.ErrUnavailable), 503, ErrorTemporarilyUnavailable, ResultUnavailable},
		{"no room", tokenOwn, "", fmt.Errorf("publishing: %w", revocation.ErrFull), 503, ErrorTemporarilyUnavailable, ResultUnavailable},
		{"the service refuses", tokenOwn, "", revocation.ErrInvalidRevocation, 503, ErrorTemporarilyUnavailable, ResultUnavailable},
		{"endless token", strings.Repeat("a", DefaultMaxToken+1), "", nil, 400, ErrorInvalidRequest, ResultInvalidRequest},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, nil)
			r.tokens.known["unverified.access.token"] = unverified
			r.tokens.known["nameless.access.token"] = nameless
			r.revoker.err = tt.ledger
			w := r.post("token="+tt.token+tt.extra, asApp)
			o := r.lastOutcome(t)
			if w.Code != tt.status || o.Status != tt.status || o.Result != tt.result {
				t.Errorf("status %d, outcome %+v; want %d, %s", w.Code, o, tt.status, tt.result)
			}
			checkFields(t, w.Header(), w.Code)
			if code := errorCode(t, w.Code, w.Body); code != tt.code {
				t.Errorf("error %q, want %q", code, tt.code)
			}
			if got := len(r.revoker.revoked()); (got == 1) != (tt.result == ResultRevoked) || got > 1 {
				t.Errorf("%d revocations recorded", got)
			}
		})
	}
}

func TestBadRequestsReachNeitherClientsNorTokens(t *testing.T) {
	set := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	tests := []struct {
		name   string
		body   string
		change func(*http.Request)
		status int
	}{
		{"method", "", func(r *http.Request) { r.Method = http.MethodDelete }, 405},
		{"media type", "token=x", set("Content-Type", "application/json"), 400},
		{"two media types", "token=x", func(r *http.Request) { r.Header.Add("Content-Type", "text/plain") }, 400},
		{"broken media type", "token=x", set("Content-Type", ";"), 400},
		{"content coding", "token=x", set("Content-Encoding", "gzip"), 415},
		{"endless body", "token=" + strings.Repeat("x", DefaultMaxBody), nil, 413},
		{"endless body of unknown length", "token=" + strings.Repeat("x", DefaultMaxBody), func(r *http.Request) { r.ContentLength = -1 }, 413},
		{"body that breaks off", "", func(r *http.Request) { r.Body = io.NopCloser(brokenReader{}) }, 400},
		{"repeated parameter", "token=x&token=x", nil, 400},
		{"too many parameters", "token=x" + manyParameters(), nil, 400},
		{"broken escape", "token=%zz", nil, 400},
		{"secret in the URL", "token=x", func(r *http.Request) { r.URL.RawQuery = "client_secret=x" }, 400},
		{"secret in the URL, in another spelling", "token=x", func(r *http.Request) { r.URL.RawQuery = "a=b&client%5Fsecret=x" }, 400},
		{"assertion in the URL", "token=x", func(r *http.Request) { r.URL.RawQuery = "client_assertion=x" }, 400},
		{"two authorization headers", "token=x", func(r *http.Request) { r.Header.Add("Authorization", basicAuth("app", "app-secret")) }, 400},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, nil)
			w := r.post(tt.body, func(req *http.Request) {
				asApp(req)
				if tt.change != nil {
					tt.change(req)
				}
			})
			if w.Code != tt.status {
				t.Errorf("status %d, want %d", w.Code, tt.status)
			}
			checkFields(t, w.Header(), w.Code)
			if code := errorCode(t, w.Code, w.Body); code != ErrorInvalidRequest {
				t.Errorf("error %q", code)
			}
			if o := r.lastOutcome(t); o.ClientID != "" || len(r.tokens.calls) != 0 {
				t.Errorf("outcome %+v, tokens %q", o, r.tokens.calls)
			}
		})
	}
}

func TestBodyThatSaysItIsTooLongIsNotRead(t *testing.T) {
	r := newRig(t, nil)
	w := r.post("", func(req *http.Request) {
		req.ContentLength = DefaultMaxBody + 1
		req.Body = io.NopCloser(brokenReader{})
	})
	if w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("status %d", w.Code)
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func manyParameters() string {
	var b strings.Builder
	for i := range maxParameters {
		fmt.Fprintf(&b, "&p%d=", i)
	}
	return b.String()
}

func TestMediaTypeMayHaveParametersAndNoCoding(t *testing.T) {
	for _, contentType := range []string{
		"application/x-www-form-urlencoded; charset=utf-8", "application/x-www-form-urlencoded;charset=UTF-8",
		"APPLICATION/X-WWW-FORM-URLENCODED", "application/x-www-form-urlencoded; charset", "application/x-www-form-urlencoded;",
	} {
		r := newRig(t, nil)
		w := r.post("token="+tokenOwn, func(req *http.Request) {
			asApp(req)
			req.Header.Set("Content-Type", contentType)
			req.Header.Set("Content-Encoding", "identity")
		})
		if w.Code != http.StatusOK {
			t.Errorf("%s: status %d", contentType, w.Code)
		}
	}
}

func TestParametersNeverComeFromTheURL(t *testing.T) {
	r := newRig(t, nil)
	for _, query := range []string{"client_id=other", "token_type_hint=refresh_token", "tenant=a&client_id=spa", "x;y", "="} {
		w := r.post("token="+tokenOwn+"&client_id=app&client_secret=app-secret", func(req *http.Request) { req.URL.RawQuery = query })
		if w.Code != http.StatusOK {
			t.Errorf("?%s: status %d", query, w.Code)
		}
	}
	if w := r.post("token="+tokenPublic, func(req *http.Request) { req.URL.RawQuery = "client_id=spa" }); w.Code != http.StatusUnauthorized {
		t.Errorf("a client_id in the URL: status %d", w.Code)
	}
}

func TestFormThatAnotherHandlerParsedIsUsed(t *testing.T) {
	r := newRig(t, nil)
	parse := func(req *http.Request) {
		asApp(req)
		req.URL.RawQuery = "token_type_hint=refresh_token&client_id=other"
		if err := req.ParseForm(); err != nil {
			t.Fatal(err)
		}
	}
	if w := r.post("token="+tokenOwn, parse); w.Code != http.StatusOK || len(r.revoker.revoked()) != 1 {
		t.Errorf("status %d, revoked %q", w.Code, r.revoker.revoked())
	}
	if w := r.post("token="+tokenOwn+"&token=x", parse); w.Code != http.StatusBadRequest {
		t.Errorf("a repeated parameter: status %d", w.Code)
	}
}

func TestRevocationGoesOnWhenItsClientHangsUp(t *testing.T) {
	r := newRig(t, func(o *EndpointOptions) { o.Timeout = time.Minute })
	w := r.post("token="+tokenOwn, func(req *http.Request) {
		asApp(req)
		ctx, cancel := context.WithCancel(req.Context())
		cancel()
		*req = *req.WithContext(ctx)
	})
	if w.Code != http.StatusOK || len(r.revoker.revoked()) != 1 {
		t.Errorf("status %d, revoked %q", w.Code, r.revoker.revoked())
	}
	if !r.tokens.bounded {
		t.Error("the work has no deadline")
	}
}

func TestNothingSecretIsLoggedObservedOrSentBack(t *testing.T) {
	const canary = "canary-k7Q2"
	r := newRig(t, nil)
	r.tokens.known[canary+".access.token"] = identity("jti", issuerA, "app")
	r.tokens.known[canary+".foreign.token"] = identity("jti", issuerA, "other")
	r.tokens.errs[canary+".keyless.token"] = ErrResolveUnavailable
	var answers strings.Builder
	send := func(body string, change func(*http.Request)) {
		w := r.post(body, change)
		fmt.Fprintln(&answers, w.Header(), w.Body)
	}
	for _, token := range []string{".access.token", ".foreign.token", ".keyless.token", ".unknown.token", "", "%0A", "%zz"} {
		send("token="+canary+token, asApp)
		send("token="+canary+token+"&token_type_hint="+canary, asApp)
	}
	r.revoker.err = errors.Join(revocation.ErrUnavailable)
	send("token="+canary+".access.token", asApp)
	for _, auth := range []string{basicAuth(canary, canary), basicAuth("app", canary), "Bearer " + canary, canary, "Basic " + canary} {
		send("token="+canary, authorize(auth))
	}
	send("token="+canary+"&client_id="+canary+"&client_secret="+canary, nil)
	send("token="+canary+"&client_id=app&client_secret="+canary, nil)
	send("state="+canary, asApp)
	send("token=x", func(req *http.Request) { asApp(req); req.URL.RawQuery = "token=" + canary })
	for where, text := range map[string]string{"log": r.log.String(), "outcomes": fmt.Sprintf("%+v", r.outcomes), "answers": answers.String()} {
		if strings.Contains(text, canary) {
			t.Errorf("the %s: %s", where, text)
		}
		if len(text) < 300 {
			t.Errorf("the %s are nearly empty: %q", where, text)
		}
	}
}

func TestNilLoggerAndObserverAreFine(t *testing.T) {
	r := newRig(t, func(o *EndpointOptions) { o.Logger, o.Observe = nil, nil })
	if w := r.post("token="+tokenOwn, asApp); w.Code != http.StatusOK {
		t.Errorf("status %d", w.Code)
	}
}
