package oauth

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

func jsonp(o *EndpointOptions) { o.JSONP = true }

func TestASuccessCallsTheCallback(t *testing.T) {
	for _, tt := range []struct {
		body, script string
		status       int
		revoked      int
	}{
		{"token=" + tokenOwn + "&callback=package.revoked", "/**/package.revoked({});", 200, 1},
		{"token=" + tokenOwn + "&callback=$_1", "/**/$_1({});", 200, 1},
		{"token=no.such.jwt&callback=f", "/**/f({});", 200, 0},
		{"token=" + tokenOwn + "&callback=", "", 200, 1},
		{"token=" + tokenOwn, "", 200, 1},
		{"token=" + tokenForeign + "&callback=f", "", 400, 0},
		{"token=" + tokenOwn + "&callback=alert(1)//", "", 400, 0},
		{"token=" + tokenOwn + "&callback=a.b.", "", 400, 0},
		{"token=" + tokenOwn + "&callback=" + strings.Repeat("x", maxCallback+1), "", 400, 0},
		{"token=" + tokenOwn + "&callback=f&callback=g", "", 400, 0},
	} {
		r := newRig(t, jsonp)
		w := r.post(tt.body, asApp)
		contentType, body := "application/json", w.Body.String()
		if tt.script != "" {
			contentType = "application/javascript; charset=utf-8"
			if body != tt.script || w.Header().Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%s: answered %q, %v", tt.body, body, w.Header())
			}
		} else if strings.Contains(body, "callback=") || strings.Contains(body, "({})") {
			t.Errorf("%s: answered %q", tt.body, body)
		}
		if w.Code != tt.status || len(r.revoker.requests) != tt.revoked || w.Header().Get("Content-Type") != contentType ||
			w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: status %d, %v, recorded %+v", tt.body, w.Code, w.Header(), r.revoker.requests)
		}
	}
}

// With GET, the token would be in the URL.
func TestAScriptIsNoWayToRevoke(t *testing.T) {
	r := newRig(t, jsonp)
	req := httptest.NewRequest(http.MethodGet, "/oauth/revoke?token="+tokenPublic+"&client_id=spa&callback=f", nil)
	w := httptest.NewRecorder()
	r.endpoint.ServeHTTP(w, req)
	if w.Code != http.StatusMethodNotAllowed || len(r.revoker.requests) != 0 {
		t.Errorf("status %d, recorded %+v", w.Code, r.revoker.requests)
	}
}

func FuzzCallback(f *testing.F) {
	for _, seed := range []string{"f", "a.b", "$.c_1", "alert(1)//", "a..b", ".a", "1a", "a\u2028b", "a;b", "ａ", "constructor"} {
		f.Add(seed)
	}
	grammar := regexp.MustCompile(`\A[A-Za-z_$][A-Za-z0-9_$]*(\.[A-Za-z_$][A-Za-z0-9_$]*)*\z`)
	f.Fuzz(func(t *testing.T, text string) {
		if want := len(text) <= maxCallback && grammar.MatchString(text); isCallback(text) != want {
			t.Errorf("%q: %v, want %v", text, !want, want)
		}
	})
}
