package oauth

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const origin = "https://app.example"

func withOrigins(o *EndpointOptions) { o.Origins = []string{origin, "http://localhost:3000"} }

func TestScriptsOfListedOriginsReadEveryAnswer(t *testing.T) {
	r := newRig(t, withOrigins)
	for name, send := range map[string]func(func(*http.Request)) *httptest.ResponseRecorder{
		"200": func(c func(*http.Request)) *httptest.ResponseRecorder {
			return r.post("token="+tokenPublic+"&client_id=spa", c)
		},
		"400": func(c func(*http.Request)) *httptest.ResponseRecorder { return r.post("client_id=spa", c) },
		"401": func(c func(*http.Request)) *httptest.ResponseRecorder { return r.post("token=x", c) },
		"405": func(c func(*http.Request)) *httptest.ResponseRecorder {
			return r.post("", func(req *http.Request) { c(req); req.Method = http.MethodGet })
		},
		"413": func(c func(*http.Request)) *httptest.ResponseRecorder {
			return r.post("token="+strings.Repeat("x", DefaultMaxBody), c)
		},
	} {
		for from, want := range map[string]string{
			origin: origin, "http://localhost:3000": "http://localhost:3000",
			"https://evil.example": "", "https://app.example.evil.example": "", "https://APP.example": "", "null": "", "": "",
			"http://app.example": "", "https://app.example:8443": "", "https://sub.app.example": "",
		} {
			w := send(func(req *http.Request) {
				if from != "" {
					req.Header.Set("Origin", from)
				}
			})
			h := w.Header()
			if strconv.Itoa(w.Code) != name {
				t.Errorf("%s from %q: status %d", name, from, w.Code)
			}
			if got := h.Get("Access-Control-Allow-Origin"); got != want {
				t.Errorf("%s from %q: allows %q, want %q", name, from, got, want)
			}
			if !slices.Contains(h["Vary"], "Origin") || h.Get("Access-Control-Allow-Credentials") != "" {
				t.Errorf("%s from %q: fields %v", name, from, h)
			}
		}
	}
	two := r.post("client_id=spa", func(req *http.Request) { req.Header["Origin"] = []string{origin, "https://evil.example"} })
	if got := two.Header().Get("Access-Control-Allow-Origin"); got != "" {
		t.Errorf("two origins: allows %q", got)
	}
}

func TestPreflightIsAnsweredWithoutAClient(t *testing.T) {
	preflight := func(r *rig, from, method string) *httptest.ResponseRecorder {
		req := httptest.NewRequest(http.MethodOptions, "/oauth/revoke", nil)
		if from != "" {
			req.Header.Set("Origin", from)
		}
		if method != "" {
			req.Header.Set("Access-Control-Request-Method", method)
		}
		w := httptest.NewRecorder()
		r.endpoint.ServeHTTP(w, req)
		return w
	}
	r := newRig(t, withOrigins)
	w := preflight(r, origin, "POST")
	for name, want := range map[string]string{
		"Access-Control-Allow-Origin": origin, "Access-Control-Allow-Methods": "POST",
		"Access-Control-Allow-Headers": "Authorization, Content-Type, DPoP", "Access-Control-Max-Age": "600",
		"Allow": "POST, OPTIONS", "Cache-Control": "no-store", "Content-Type": "",
	} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if w.Code != http.StatusNoContent || w.Body.Len() != 0 || r.lastOutcome(t).Result != ResultPreflight || r.lastOutcome(t).Status != 204 {
		t.Errorf("status %d, body %q, outcome %+v", w.Code, w.Body, r.lastOutcome(t))
	}
	if w := preflight(r, "https://evil.example", "POST"); w.Code != 204 || w.Header().Get("Access-Control-Allow-Methods") != "" || w.Header().Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("another origin: %d %v", w.Code, w.Header())
	}
	if w := preflight(r, "", ""); w.Code != 204 || w.Header().Get("Allow") != "POST, OPTIONS" {
		t.Errorf("no preflight: %d %v", w.Code, w.Header())
	}
	if w := preflight(newRig(t, nil), origin, "POST"); w.Code != 405 || w.Header().Get("Allow") != "POST" || w.Header().Get("Access-Control-Allow-Origin") != "" || w.Header().Get("Vary") != "" {
		t.Errorf("without origins: %d %v", w.Code, w.Header())
	}
}

func TestOriginsAreWhatBrowsersSend(t *testing.T) {
	for _, good := range []string{"https://app.example", "https://app.example:8443", "http://localhost:3000", "https://[::1]:8443", "https://xn--bcher-kva.example"} {
		if err := ValidateOrigin(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{
		"", "*", "null", "app.example", "//app.example", "ftp://app.example", "https://*.example", "https://app.example/", "https://app.example/x",
		"https://APP.example", "HTTPS://app.example", "https://app.example:443", "http://app.example:80", "https://u@app.example",
		"https://app.example?x", "https://app.example#x", "https://bücher.example", "https://app.example ", "https://",
	} {
		if ValidateOrigin(bad) == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	if _, err := NewEndpoint(EndpointOptions{Clients: testClients(t), Tokens: &fakeResolver{}, Revoker: &fakeRevoker{}, Origins: []string{"*"}}); err == nil {
		t.Error("an endpoint with a wildcard")
	}
}

func TestPlainHTTPIsServedAndCountedOrRefused(t *testing.T) {
	over := func(secure bool) func(*http.Request) {
		return func(req *http.Request) {
			asApp(req)
			req.TLS = nil
			if secure {
				req.TLS = &tls.ConnectionState{}
			}
		}
	}
	served := newRig(t, nil)
	if w := served.post("token="+tokenOwn, over(false)); w.Code != 200 || !served.lastOutcome(t).PlainHTTP {
		t.Errorf("served: %d, %+v", w.Code, served.lastOutcome(t))
	}
	if w := served.post("token="+tokenOwn, over(true)); w.Code != 200 || served.lastOutcome(t).PlainHTTP {
		t.Errorf("served over TLS: %d, %+v", w.Code, served.lastOutcome(t))
	}
	refused := newRig(t, func(o *EndpointOptions) { o.RefusePlainHTTP = true })
	w := refused.post("token="+tokenOwn, over(false))
	if w.Code != 403 || errorCode(t, w.Code, w.Body) != ErrorInvalidRequest || len(refused.revoker.revoked()) != 0 {
		t.Errorf("refused: %d", w.Code)
	}
	if o := refused.lastOutcome(t); o.Result != ResultPlainHTTP || !o.PlainHTTP || o.ClientID != "" {
		t.Errorf("refused: %+v", o)
	}
	checkFields(t, w.Header(), w.Code)
	if w := refused.post("token="+tokenOwn, over(true)); w.Code != 200 {
		t.Errorf("over TLS: %d", w.Code)
	}
}
