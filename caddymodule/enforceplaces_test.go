package caddymodule

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// arrived is what an upstream saw of a request.
type arrived struct {
	Method, Query    string
	Header, Trailer  http.Header
	Body             string
	Length           int64
	TransferEncoding []string
}

// echo is an upstream that answers with what arrived.
type echo struct {
	*httptest.Server
	requests atomic.Int64
}

func newEcho(t *testing.T) *echo {
	t.Helper()
	e := new(echo)
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.requests.Add(1)
		body, err := io.ReadAll(r.Body)
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(arrived{r.Method, r.URL.RawQuery, r.Header, r.Trailer, string(body), r.ContentLength, r.TransferEncoding})
	}))
	t.Cleanup(e.Close)
	return e
}

// behind puts a token_denylist with these options before the upstream.
func (e *echo) behind(options string) string {
	if options != "" {
		options = " {\n" + options + "\n}"
	}
	return "handle {\ntoken_denylist" + options + "\nreverse_proxy " + strings.TrimPrefix(e.URL, "http://") + "\n}\n"
}

// send sends a request and returns the status and what arrived, if anything did.
func (s *site) send(r *http.Request) (answer, *arrived) {
	s.t.Helper()
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	got := answer{response.StatusCode, response.Header, string(body)}
	if got.status != http.StatusOK {
		return got, nil
	}
	var a arrived
	if err := json.Unmarshal(body, &a); err != nil {
		s.t.Fatalf("not from the upstream: %q", body)
	}
	return got, &a
}

func (s *site) request(method, target string, body io.Reader, fields ...string) *http.Request {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.url(target), body)
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(fields); i += 2 {
		r.Header.Add(fields[i], fields[i+1])
	}
	return r
}

const urlencoded = "application/x-www-form-urlencoded"

// tokenIn makes a request that has a token in a place.
func (s *site) tokenIn(place, token string) *http.Request {
	s.t.Helper()
	switch place {
	case "Authorization":
		return s.request("GET", "/", nil, "Authorization", "Bearer "+token)
	case "header":
		return s.request("GET", "/", nil, "X-Access-Token", token)
	case "cookie":
		return s.request("GET", "/", nil, "Cookie", "theme=dark; session="+token)
	case "query":
		return s.request("GET", "/?a=1&access_token="+token, nil)
	case "form":
		return s.request("POST", "/", strings.NewReader("a=1&access_token="+token), "Content-Type", urlencoded)
	}
	s.t.Fatal(place)
	return nil
}

var placeLines = map[string]string{
	"Authorization": "header Authorization", "header": "header x-access-token", "cookie": "cookie session", "query": "query", "form": "form",
}

// A revoked token is refused in every place that is configured, and what is
// accepted is what the upstream gets.
func TestTokensAreEnforcedInEveryPlace(t *testing.T) {
	s := newSite(t)
	up := newEcho(t)
	var options string
	for _, line := range placeLines {
		options += "inspect " + line + "\n"
	}
	s.mustLoad(demo, up.behind(options+"require_token"))
	for place := range placeLines {
		t.Run(place, func(t *testing.T) {
			s.t = t
			good, revoked := aliceToken(s), aliceToken(s)
			s.mustRevoke(revoked, "demo-app")
			got, a := s.send(s.tokenIn(place, good))
			if got.status != http.StatusOK || !strings.Contains(got.body, good) {
				t.Fatalf("good token: %d %s", got.status, got.body)
			}
			if place == "form" && (a.Body != "a=1&access_token="+good || a.Length != int64(len(a.Body))) {
				t.Errorf("form arrived as %q of %d bytes", a.Body, a.Length)
			}
			if private := got.header.Get("Cache-Control") == "private"; private != (place != "Authorization") {
				t.Errorf("Cache-Control %q", got.header.Get("Cache-Control"))
			}
			if got, _ = s.send(s.tokenIn(place, revoked)); got.status != http.StatusUnauthorized || !strings.Contains(got.header.Get("WWW-Authenticate"), "invalid_token") {
				t.Errorf("revoked token: %d %v", got.status, got.header)
			}
			for other := range placeLines {
				r := s.tokenIn(place, good)
				second := s.tokenIn(other, revoked)
				if other == "form" || place == "form" {
					r.Method = "POST"
				}
				if other == place {
					continue
				}
				for name, values := range second.Header {
					r.Header[name] = append(r.Header[name], values...)
				}
				if second.URL.RawQuery != "" {
					r.URL.RawQuery = second.URL.RawQuery
				}
				if other == "form" {
					r.Body, r.ContentLength = second.Body, second.ContentLength
				}
				if got, _ = s.send(r); got.status != http.StatusBadRequest || !strings.Contains(got.header.Get("WWW-Authenticate"), "invalid_request") {
					t.Errorf("a second token in %s: %d %v", other, got.status, got.header)
				}
			}
		})
	}
}

// Stripped is gone, rejected goes nowhere, whatever the token is.
func TestPlacesAreStrippedOrRejectedByRoute(t *testing.T) {
	s := newSite(t)
	up := newEcho(t)
	var strip, reject string
	for _, line := range placeLines {
		strip += "strip " + line + "\n"
		reject += "reject " + line + "\n"
	}
	for place := range placeLines {
		t.Run(place, func(t *testing.T) {
			s.t = t
			s.mustLoad(demo, up.behind(strip))
			good := aliceToken(s)
			for _, token := range []string{good, "rubbish"} {
				got, a := s.send(s.tokenIn(place, token))
				if got.status != http.StatusOK || strings.Contains(got.body, token) {
					t.Fatalf("strip: %d %s", got.status, got.body)
				}
				rest := map[string]bool{
					"Authorization": true, "header": true, "cookie": a.Header.Get("Cookie") == "theme=dark",
					"query": a.Query == "a=1", "form": a.Body == "a=1" && a.Length == 3,
				}
				if !rest[place] {
					t.Errorf("the rest arrived as %+v", a)
				}
			}
			s.mustLoad(demo, up.behind(reject))
			before := up.requests.Load()
			if got, _ := s.send(s.tokenIn(place, aliceToken(s))); got.status != http.StatusBadRequest || up.requests.Load() != before {
				t.Errorf("reject: %d", got.status)
			}
		})
	}
}

func TestFormsArriveAsTheyWereSent(t *testing.T) {
	s := newSite(t)
	up := newEcho(t)
	s.mustLoad(demo, up.behind("inspect form"))
	token := aliceToken(s)
	body := "%61ccess_token=" + token + "&b=%7e+c&;&"
	got, a := s.send(s.request("PUT", "/", io.MultiReader(strings.NewReader(body)), "Content-Type", urlencoded+"; charset=utf-8"))
	if got.status != 200 || a.Body != body || a.Length != -1 || len(a.TransferEncoding) != 1 {
		t.Fatalf("chunked: %d %+v", got.status, a)
	}
	large := strings.Repeat("x", 70<<10)
	for name, c := range map[string]struct {
		body, contentType string
		want              int
	}{
		"too large":      {large, urlencoded, http.StatusRequestEntityTooLarge},
		"another type":   {large, "application/octet-stream", http.StatusOK},
		"several parts":  {"--x--", "multipart/form-data; boundary=x", http.StatusUnsupportedMediaType},
		"in UTF-16":      {"a=b", urlencoded + ";charset=utf-16", http.StatusUnsupportedMediaType},
		"empty":          {"", urlencoded, http.StatusOK},
		"without a type": {"a=b", "", http.StatusOK},
	} {
		for _, reader := range []io.Reader{strings.NewReader(c.body), io.MultiReader(strings.NewReader(c.body))} {
			r := s.request("POST", "/", reader)
			if c.contentType != "" {
				r.Header.Set("Content-Type", c.contentType)
			}
			got, a := s.send(r)
			if got.status != c.want || a != nil && a.Body != c.body {
				t.Errorf("%s: %d", name, got.status)
			}
		}
	}
	// What the site allows at most comes first.
	s.mustLoad(demo, "request_body {\nmax_size 10\n}\n"+up.behind("inspect form"))
	if got, _ := s.send(s.request("POST", "/", io.MultiReader(strings.NewReader("a="+large[:100])), "Content-Type", urlencoded)); got.status != http.StatusRequestEntityTooLarge {
		t.Errorf("beyond the site's limit: %d", got.status)
	}
}

// raw sends bytes as they are and returns the status.
func (s *site) raw(request string) int {
	s.t.Helper()
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.port))
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		s.t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	if response.StatusCode == http.StatusOK && bytes.Contains(body, []byte("stowaway")) {
		s.t.Errorf("%q: the token arrived: %s", request, body)
	}
	return response.StatusCode
}

// Fields that vanish on the way, or come after the decision, carry no token.
func TestTokensNeitherVanishNorArriveLate(t *testing.T) {
	s := newSite(t)
	up := newEcho(t)
	s.mustLoad(demo, up.behind("inspect header X-Access-Token"))
	good := aliceToken(s)
	head := fmt.Sprintf(" / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n", s.port)
	for name, c := range map[string]struct {
		request string
		want    int
	}{
		"Connection names the field": {"GET" + head + "Authorization: Bearer " + good + "\r\nConnection: close, Authorization\r\n\r\n", 400},
		"or a further one":           {"GET" + head + "Connection: X-access-token\r\n\r\n", 400},
		"in the trailer":             {"POST" + head + "Transfer-Encoding: chunked\r\nTrailer: Authorization\r\n\r\n1\r\na\r\n0\r\nAuthorization: Bearer stowaway\r\n\r\n", 400},
		"in the trailer, unannounced": {
			"POST" + head + "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n1\r\na\r\n0\r\nAuthorization: Bearer stowaway\r\nX-Sum: 1\r\n\r\n", 200,
		},
		"with an underscore": {"GET" + head + "X_Access_Token: stowaway\r\n\r\n", 200}, // Caddy drops it
		"on a second line":   {"GET" + head + "Authorization: Basic eA==\r\nAuthorization: Bearer stowaway\r\n\r\n", 400},
		"on a folded line":   {"GET" + head + "Authorization: Basic\r\n Bearer stowaway\r\n\r\n", 400},
		"with a space before the colon": {
			"GET" + head + "Authorization : Bearer stowaway\r\n\r\n", 400,
		},
	} {
		if got := s.raw(c.request); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

// Monitoring changes nothing, neither for what would be refused nor for what
// would be stripped, and counts by itself.
func TestMonitorForwardsEverythingUnchanged(t *testing.T) {
	s := newSite(t)
	up := newEcho(t)
	s.mustLoad(demo, up.behind("monitor\nrequire_token\nstrip cookie session\ninspect form\ninspect header X-Access-Token"))
	revoked := aliceToken(s)
	s.mustRevoke(revoked, "demo-app")
	large := "access_token=x&" + strings.Repeat("x", 100<<10)
	for name, r := range map[string]*http.Request{
		"no token":         s.request("GET", "/", nil),
		"revoked":          s.tokenIn("Authorization", revoked),
		"in the query":     s.tokenIn("query", revoked),
		"to be stripped":   s.tokenIn("cookie", revoked),
		"malformed":        s.request("GET", "/", nil, "Authorization", "Bearer a,b", "X-Access-Token", "c d"),
		"a large form":     s.request("POST", "/", strings.NewReader(large), "Content-Type", urlencoded),
		"a form in chunks": s.request("POST", "/", io.MultiReader(strings.NewReader(large)), "Content-Type", urlencoded),
	} {
		want := r.Header.Clone()
		query, body := r.URL.RawQuery, ""
		if r.Body != nil {
			body = large
		}
		got, a := s.send(r)
		if got.status != http.StatusOK || a.Query != query || a.Body != body {
			t.Errorf("%s: %d, query %q, %d bytes", name, got.status, a.Query, len(a.Body))
			continue
		}
		for field := range want {
			if a.Header.Get(field) != want.Get(field) {
				t.Errorf("%s: %s arrived as %q", name, field, a.Header.Get(field))
			}
		}
		if got.header.Get("WWW-Authenticate") != "" {
			t.Errorf("%s: a challenge", name)
		}
	}
	metrics := s.do("GET", fmt.Sprintf("http://127.0.0.1:%d/metrics", s.admin), nil, "").body
	for result, want := range map[string]int{"revoked": 1, "missing": 2, "malformed": 4, "allowed": 0} {
		if line := fmt.Sprintf("caddy_token_revocation_monitored_checks_total{result=%q} %d\n", result, want); !strings.Contains(metrics, line) {
			t.Errorf("no line %s", line)
		}
	}
	if strings.Contains(metrics, `caddy_token_revocation_checks_total{result="revoked"} 1`) {
		t.Error("counted among those that were refused")
	}
}

// The request of a placeholder need not be the one that a handler gets: one that is
// in front may have made another.
func TestStrippedQueryIsGoneBehindAnotherHandler(t *testing.T) {
	s := newSite(t)
	s.mustLoad(demo, "route {\ntoken_denylist {\ninspect query\ncut_streams\n}\ntoken_denylist {\nstrip query\n}\nrespond {http.request.orig_uri}\n}")
	if got := s.do("GET", s.url("/?a=1&access_token="+aliceToken(s)), nil, ""); got.status != 200 || got.body != "/?a=1" {
		t.Errorf("%d %q", got.status, got.body)
	}
}

// Under HTTP/1.1, CONNECT may bring a body along, which the upstream gets.
func TestFormsOfConnectAreRead(t *testing.T) {
	s := newSite(t)
	up := newEcho(t)
	s.mustLoad(demo, up.behind("inspect form"))
	const body = "access_token=stowaway"
	for _, target := range []string{"/x", fmt.Sprintf("127.0.0.1:%d", s.port)} {
		request := fmt.Sprintf("CONNECT %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", target, s.port, urlencoded, len(body), body)
		if got := s.raw(request); got != 401 {
			t.Errorf("%s: %d", target, got)
		}
	}
}

// A token outside of the Authorization field keeps answers out of shared caches as
// that field does (RFC 9111, section 3.5), and one in the URL in any case.
func TestAnswersToTokensAreKeptOutOfSharedCaches(t *testing.T) {
	s := newSite(t)
	s.mustLoad(demo, "handle {\ntoken_denylist {\ninspect cookie session\ninspect query\nstrip header X-Old\n}\n"+
		"header /public Cache-Control \"public, max-age=60\"\nheader /age Cache-Control max-age=60\nheader /none Cache-Control no-store\nrespond ok\n}")
	token := aliceToken(s)
	for name, c := range map[string]struct {
		path   string
		header http.Header
		want   string
	}{
		"a cookie":                    {"/", http.Header{"Cookie": {"session=" + token}}, "private"},
		"and a time":                  {"/age", http.Header{"Cookie": {"session=" + token}}, "max-age=60, private"},
		"public by choice":            {"/public", http.Header{"Cookie": {"session=" + token}}, "public, max-age=60"},
		"not stored":                  {"/none", http.Header{"Cookie": {"session=" + token}}, "no-store"},
		"another scheme beside it":    {"/", http.Header{"Cookie": {"session=" + token}, "Authorization": {"Basic eA=="}}, ""},
		"a query":                     {"/public?access_token=" + token, nil, "private"},
		"Authorization":               {"/", bearer(token), ""},
		"no token":                    {"/age", nil, "max-age=60"},
		"a token that was cut before": {"/", http.Header{"X-Old": {token}}, ""},
	} {
		got := s.do("GET", s.url(c.path), c.header, "")
		if said := strings.Join(got.header["Cache-Control"], ", "); got.status != 200 || said != c.want {
			t.Errorf("%s: %d, Cache-Control %q, want %q", name, got.status, said, c.want)
		}
	}
}

// FastCGI and others take the query from the request as it came.
func TestStrippedQueryIsGoneFromTheOriginalRequest(t *testing.T) {
	s := newSite(t)
	s.mustLoad(demo, "handle {\ntoken_denylist {\nstrip query\n}\n"+
		"templates {\nmime text/plain\n}\nheader Content-Type text/plain\n"+
		"respond \"{http.request.orig_uri.query} {http.request.uri} {http.request.orig_uri} {{.OriginalReq.RequestURI}}\"\n}")
	got := s.do("GET", s.url("/?access_token="+url.QueryEscape("geheim")+"&a=1"), nil, "")
	if got.status != 200 || got.body != "a=1 /?a=1 /?a=1 /?a=1" {
		t.Errorf("%d %q", got.status, got.body)
	}
}
