package oauth

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// conformanceCase is a case of testdata/revocation_cases.json. Those that need a
// whole Caddy are left to the adapter's tests, which run all of them.
type conformanceCase struct{ revocationtest.ConformanceCase }

func (c *conformanceCase) needsCaddy() bool {
	return c.Config+c.Options+c.Servers+c.Endpoint+c.Path+c.Introspection != "" || c.Times > 1 || len(c.Before) > 0 ||
		strings.Contains(c.Body+c.Authorization, "{ASSERTION") || strings.Contains(c.Authorization, "admin:")
}

var placeholders = strings.NewReplacer(
	"{AT}", tokenOwn, "{AT2}", "second.access.token", "{PUB_AT}", tokenPublic,
	"{CC_AT}", "client-credentials.access.token", "{ODD_AT}", "odd.access.token",
	"{AZP_AT}", "azp.access.token", "{NO_CLIENT_AT}", tokenNoClient, "{FOREIGN_AT}", tokenForeign,
	"{RT}", "8xLOxBtZp8", "{CODE}", "SplxlOBeZQQYbYS6WxSbIA", "{UNKNOWN}", "unknown",
	"{JWT_OTHER_ISS}", "jwt.of.elsewhere", "{JWT_ALG_NONE}", "jwt.unsigned.", "{ID_TOKEN}", "an.id.token",
	"{LONG}", strings.Repeat("A", 100000),
	"{CID}", "app", "{SECRET}", "app-secret", "{OTHER}", "other", "{PUB}", "spa", "{PUB_DISABLED}", "gone",
	"{BASIC}", "{BASIC:CID:SECRET}",
)

var (
	basicPlaceholder = regexp.MustCompile(`\{BASIC:(.*)\}`)
	basicNames       = strings.NewReplacer(
		"CID", "app", "OLD_SECRET", "old-app-secret", "SECRET", "app-secret", "PUB", "spa", `\xff`, "\xff")
)

func (c *conformanceCase) authorization() string {
	value := placeholders.Replace(c.Authorization)
	if m := basicPlaceholder.FindStringSubmatch(value); m != nil {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(basicNames.Replace(m[1])))
	}
	return value
}

func loadCases(t *testing.T) (cases []conformanceCase) {
	t.Helper()
	for _, c := range revocationtest.ReadJSON[[]revocationtest.ConformanceCase](t, "testdata/revocation_cases.json") {
		cases = append(cases, conformanceCase{c})
	}
	return cases
}

func TestEndpointAnswersTheConformanceCases(t *testing.T) {
	seen := make(map[string]bool)
	for _, c := range loadCases(t) {
		if seen[c.ID] {
			t.Fatalf("the case %s is there twice", c.ID)
		}
		seen[c.ID] = true
		if c.needsCaddy() {
			continue
		}
		t.Run(c.ID, func(t *testing.T) { c.run(t) })
	}
}

func (c *conformanceCase) run(t *testing.T) {
	r := newRig(t, nil)
	for _, token := range []string{"second.access.token", "client-credentials.access.token", "azp.access.token"} {
		r.tokens.known[token] = identity(token, issuerA, "app")
	}
	r.tokens.known["odd.access.token"] = identity("odd.access.token", issuerA, "an:identifier")
	if c.Keys == "down" {
		r.tokens.down = ErrResolveUnavailable
	}
	if c.Ledger == "down" {
		r.revoker.err = fmt.Errorf("publishing: %w", revocation.ErrUnavailable)
	}
	server := httptest.NewServer(r.endpoint)
	defer server.Close()

	resp := c.send(t, server)
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != c.Want.Status {
		t.Errorf("%s: status %d, want %d", c.Says, resp.StatusCode, c.Want.Status)
	}
	if resp.Request.Method != http.MethodHead {
		code := errorCode(t, resp.StatusCode, resp.Body)
		if c.Want.Error != "" && code != c.Want.Error {
			t.Errorf("%s: error %q, want %q", c.Says, code, c.Want.Error)
		}
	}
	var want []string
	for _, token := range c.Want.Revokes {
		want = append(want, placeholders.Replace(token))
	}
	server.Close() // waits for the handler, which observes after it has answered
	if got := r.revoker.revoked(); !slices.Equal(got, want) {
		t.Errorf("%s: revoked %q, want %q", c.Says, got, want)
	}
	checkFields(t, resp.Header, resp.StatusCode)
	for name, value := range c.Want.Headers {
		got := resp.Header.Get(name)
		if value == "" && got != "" || value != "*" && !strings.HasPrefix(got, value) || value == "*" && got == "" {
			t.Errorf("%s: %s is %q, want %q", c.Says, name, got, value)
		}
	}
	if len(r.outcomes) != 1 || r.outcomes[0].Status != resp.StatusCode {
		t.Errorf("%s: observed %+v", c.Says, r.outcomes)
	}
}

// send sends the request as it is, also where Go's client would not.
func (c *conformanceCase) send(t *testing.T, server *httptest.Server) *http.Response {
	t.Helper()
	method := c.Method
	if method == "" {
		method = http.MethodPost
	}
	body := placeholders.Replace(c.Body)
	req, err := http.NewRequestWithContext(t.Context(), method, server.URL+"/oauth/revoke", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.URL.RawQuery = placeholders.Replace(c.Query)
	req.Header.Set("Content-Type", formMediaType)
	if c.ContentType != nil {
		req.Header.Del("Content-Type")
		if *c.ContentType != "" {
			req.Header.Set("Content-Type", *c.ContentType)
		}
	}
	if c.Authorization != "" {
		req.Header.Set("Authorization", c.authorization())
	}
	for name, value := range c.Headers {
		req.Header.Set(name, value)
	}
	if length := c.Headers["Content-Length"]; length != "" {
		return sendShort(t, server.Listener.Addr(), req, length, body)
	}
	resp, err := server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// sendShort promises more than it sends, and then closes its half.
func sendShort(t *testing.T, to net.Addr, req *http.Request, length, body string) *http.Response {
	t.Helper()
	conn, err := net.Dial(to.Network(), to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_, err = fmt.Fprintf(conn, "POST /oauth/revoke HTTP/1.1\r\nHost: test\r\nContent-Type: %s\r\nAuthorization: %s\r\nContent-Length: %s\r\n\r\n%s",
		req.Header.Get("Content-Type"), req.Header.Get("Authorization"), length, body)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// checkFields checks what every answer has to have.
func checkFields(t *testing.T, h http.Header, status int) {
	t.Helper()
	for name, want := range map[string]string{
		"Cache-Control": "no-store", "Pragma": "no-cache", "Content-Type": "application/json",
	} {
		if got := h.Get(name); got != want {
			t.Errorf("a %d has %s %q, want %q", status, name, got, want)
		}
	}
	for name, statuses := range map[string][]int{
		"Allow":            {http.StatusMethodNotAllowed},
		"WWW-Authenticate": {http.StatusUnauthorized},
		"Retry-After":      {http.StatusServiceUnavailable, http.StatusTooManyRequests},
	} {
		if got, want := h.Get(name) != "", slices.Contains(statuses, status); got != want {
			t.Errorf("a %d has %s: %v, want %v", status, name, got, want)
		}
	}
}
