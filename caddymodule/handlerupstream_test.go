package caddymodule

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// What a 200 is worth, and that nothing else counts.
func TestAnswersOfTheAuthorizationServer(t *testing.T) {
	s, as := newSite(t), newFakeServer(t)
	s.mustLoad(demo, as.behind("timeout 700ms"))
	giant := strings.Repeat("x", 3<<20)
	for _, tt := range []struct {
		name     string
		answer   http.HandlerFunc
		status   int // for the client; zero: the connection is cut
		body     string
		recorded bool
		unknown  int
	}{
		{"200 empty", write(200, "", ""), 200, "", true, 0},
		{"200 empty page", write(200, "text/html", "\n"), 200, "\n", true, 0},
		{"200 object", write(200, "application/json", `{}`), 200, `{}`, true, 0},
		{"200 object with something", write(200, "application/json", `{"ok":true,"error":null}`), 200, `{"ok":true,"error":null}`, true, 0},
		{"200 words", write(200, "text/plain", "OK"), 200, "OK", true, 0},
		{"200 zipped", zipped("{}"), 200, "", true, 0},
		{"early hints", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", "</x>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusOK)
		}, 200, "", true, 0},
		{"slow, but in time", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "{")
			_ = http.NewResponseController(w).Flush()
			time.Sleep(100 * time.Millisecond)
			_, _ = io.WriteString(w, "}")
		}, 200, "{}", true, 0},

		{"200 with an error", write(200, "application/json", `{"error":"invalid_token"}`), 200, `{"error":"invalid_token"}`, false, 0},
		{"200 with an error, zipped", zipped(`{"error":"invalid_token"}`), 200, "", false, 0},
		{"200 with an error in another type", write(200, "text/html", ` {"Error": {"code": 1}}`), 200, ` {"Error": {"code": 1}}`, false, 0},
		{"200 with an error as a form", write(200, "text/plain", "error=invalid_token"), 200, "error=invalid_token", false, 0},
		{"200 page", write(200, "text/html", "<html>Welcome</html>"), 200, "<html>Welcome</html>", false, 0},
		{"200 in an unknown coding", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "br")
			_, _ = io.WriteString(w, "{}")
		}, 200, "{}", false, 0},
		{"200 garbage", write(200, "application/json", "{]"), 200, "{]", false, 0},
		{"200 giant", write(200, "application/json", giant), 200, giant, false, 0},
		{"201", write(201, "", ""), 201, "", false, 0},
		{"202", write(202, "application/json", "{}"), 202, "{}", false, 0},
		{"204", write(204, "", ""), 204, "", false, 0},
		{"303", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(http.StatusSeeOther)
		}, 303, "", false, 0},
		{"400", write(400, "application/json", `{"error":"invalid_request"}`), 400, `{"error":"invalid_request"}`, false, 0},
		{"401", write(401, "application/json", `{"error":"invalid_client"}`), 401, `{"error":"invalid_client"}`, false, 0},

		// Whether it arrived, nobody knows: the next attempt does.
		{"500", write(500, "text/plain", "oh"), 500, "oh", false, 1},
		{"503", write(503, "text/plain", "later"), 503, "later", false, 1},
		{"hangs", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, 503, "", false, 1},
		{"hangs in the body", func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "{")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, 503, "", false, 1},
		{"reset", raw(""), 503, "", false, 1},
		{"reset in the header", raw("HTTP/1.1 200 OK\r\nContent-Le"), 503, "", false, 1},
		{"reset in the body", raw("HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n{}"), 503, "", false, 1},
		{"reset in a chunk", raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"), 503, "", false, 1},
		{"no HTTP", raw("SSH-2.0-x\r\n"), 503, "", false, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			token := aliceToken(s)
			before := entries()
			as.set(tt.answer)
			got := s.passRaw(own(token))
			if got.status != tt.status {
				t.Fatalf("status %d, want %d: %s", got.status, tt.status, got.body)
			}
			if tt.body != "" && got.body != tt.body {
				t.Errorf("the body is %.80q, want %.80q", got.body, tt.body)
			}
			if tt.status == 503 && tt.body == "" {
				if got.header.Get("Retry-After") == "" || got.header.Get("Cache-Control") != "no-store" ||
					!strings.Contains(got.body, `"error":"temporarily_unavailable"`) {
					t.Errorf("a poor 503: %v %s", got.header, got.body)
				}
			}
			s.wantIntents(0, tt.unknown)
			want := http.StatusOK
			if tt.recorded {
				want = http.StatusUnauthorized
			}
			s.wantStatus(token, want, "afterwards")
			if grown := entries() - before; grown != 0 != tt.recorded {
				t.Errorf("%d new entries", grown)
			}
			if tt.unknown > 0 { // the next attempt finds a server that works
				as.set(write(200, "", ""))
				if got := s.pass(own(token)); got.status != http.StatusOK {
					t.Fatalf("the next attempt: %d", got.status)
				}
				s.wantStatus(token, http.StatusUnauthorized, "after the next attempt")
				s.wantIntents(0, 0)
			}
		})
	}
}

// passRaw is pass without following redirects and without undoing a coding.
func (s *site) passRaw(form url.Values) answer {
	s.t.Helper()
	request, err := http.NewRequest(http.MethodPost, s.url("/as/revoke"), strings.NewReader(form.Encode()))
	if err != nil {
		s.t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Accept-Encoding", "gzip")
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, string(body)}
}

// A 200 to somebody else's token, a forged one and garbage is passed on, and
// records nothing (PRX-02, PRX-03).
func TestWhatIsNotTheClientsOwnIsNotRecorded(t *testing.T) {
	s, as := newSite(t), newFakeServer(t)
	s.mustLoad(demo, as.behind(""))
	as.set(write(200, "application/json", "{}"))
	token := aliceToken(s)
	forged := token[:strings.LastIndex(token, ".")+1] + strings.Repeat("A", 86)
	for name, form := range map[string]url.Values{
		"another client's": {"token": {token}, "client_id": {"other"}},
		"forged":           own(forged),
		"garbage":          own("garbage"),
		"expired":          own(s.mint(issuer.MintRequest{Subject: "alice", ClientID: "demo-app", Extra: map[string]any{"iat": 1000000000, "exp": 1000000300}})),
		"no token":         {"client_id": {"demo-app"}},
	} {
		seen := as.seen()
		if got := s.pass(form); got.status != 200 || got.body != "{}" {
			t.Errorf("%s: status %d, %q", name, got.status, got.body)
		}
		if as.seen() != seen+1 {
			t.Errorf("%s: not forwarded", name)
		}
	}
	if n := entries(); n != 0 {
		t.Errorf("%d entries", n)
	}
	s.wantIntents(0, 0)
	s.wantStatus(token, http.StatusOK, "the victim's token")
}

// PRX-04: what two parsers can read in two ways does not reach the server.
func TestAmbiguousRequestsAreRefusedBeforeTheServer(t *testing.T) {
	s, as := newSite(t), newFakeServer(t)
	s.mustLoad(demo, as.behind("max_body 4KiB"))
	token := aliceToken(s)
	form := "token=" + token + "&client_id=demo-app"
	for _, tt := range []struct {
		name, method, query, contentType, body string
		header                                 http.Header
		status                                 int
	}{
		{name: "two clients", body: form + "&client_id=other", status: 400},
		{name: "two tokens", body: form + "&token=x", status: 400},
		{name: "two of anything", body: form + "&x=1&x=2", status: 400},
		{name: "other case", body: form + "&Token=x", status: 400},
		{name: "PHP's client.id", body: form + "&client.id=x", status: 400},
		{name: "PHP's blank", body: form + "&+client_id=x", status: 400},
		{name: "a list", body: form + "&token%5B%5D=x", status: 400},
		{name: "a zero byte", body: form + "&token%00=x", status: 400},
		{name: "semicolons", body: "token=" + token + ";client_id=demo-app", status: 400},
		{name: "a blank at the end", body: "token=" + token + "+&client_id=demo-app", status: 400},
		{name: "two tokens in one", body: "token=" + token + "+x&client_id=demo-app", status: 400},
		{name: "a line break", body: "token=" + token + "%0A&client_id=demo-app", status: 400},
		{name: "broken encoding", body: form + "&x=%zz", status: 400},
		{name: "in the query", query: "?token=" + token, body: "client_id=demo-app", status: 400},
		{name: "client in the query", query: "?Client_ID=other", body: form, status: 400},
		{name: "JSON", contentType: "application/json", body: `{"token":"x"}`, status: 400},
		{name: "multipart", contentType: "multipart/form-data; boundary=x", body: "--x--", status: 400},
		{name: "no type", contentType: "-", body: form, status: 400},
		{name: "EBCDIC", contentType: "application/x-www-form-urlencoded; charset=ibm037", body: form, status: 400},
		{name: "broken type", contentType: "application/x-www-form-urlencoded; charset", body: form, status: 400},
		{name: "Latin-1 that is not ASCII", contentType: "application/x-www-form-urlencoded; charset=iso-8859-1", body: form + "&x=%E9", status: 400},
		{name: "Basic and secret", header: http.Header{"Authorization": {"Basic ZGVtby1hcHA6c2VjcmV0"}}, body: form + "&client_secret=x", status: 400},
		{name: "Basic of another", header: http.Header{"Authorization": {"Basic b3RoZXI6c2VjcmV0"}}, body: form, status: 400},
		{name: "two fields", header: http.Header{"Authorization": {"Basic ZGVtby1hcHA6eA==", "Basic ZGVtby1hcHA6eA=="}}, body: form, status: 400},
		{name: "a field that gets lost", header: http.Header{"Connection": {"content-type"}}, body: form, status: 400},
		{name: "an assertion of another", body: form + "&client_assertion=" + token + "&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer", status: 400},
		{name: "no client", body: "token=" + token, status: 401},
		{name: "bearer", header: http.Header{"Authorization": {"Bearer x"}}, body: "token=" + token, status: 401},
		{name: "zipped", header: http.Header{"Content-Encoding": {"gzip"}}, body: form, status: 415},
		{name: "too long", body: form + "&x=" + strings.Repeat("x", 4096), status: 413},
		{name: "PUT", method: http.MethodPut, body: form, status: 405},
		{name: "GET with a token", method: http.MethodGet, query: "?token=" + token, status: 400},
		{name: "GET with a body", method: http.MethodGet, body: form, status: 405},
	} {
		t.Run(tt.name, func(t *testing.T) {
			seen := as.seen()
			h := tt.header.Clone()
			if h == nil {
				h = http.Header{}
			}
			switch tt.contentType {
			case "":
				h.Set("Content-Type", "application/x-www-form-urlencoded")
			case "-":
			default:
				h.Set("Content-Type", tt.contentType)
			}
			method := tt.method
			if method == "" {
				method = http.MethodPost
			}
			got := s.do(method, s.url("/as/revoke")+tt.query, h, tt.body)
			if got.status != tt.status || !strings.Contains(got.body, `"error":"invalid_`) || got.header.Get("Cache-Control") != "no-store" {
				t.Errorf("status %d, want %d: %v %s", got.status, tt.status, got.header, got.body)
			}
			if as.seen() != seen {
				t.Error("the server has seen it")
			}
		})
	}
	s.wantStatus(token, http.StatusOK, "after all that")
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodOptions} {
		seen := as.seen()
		as.set(write(204, "", ""))
		if got := s.do(method, s.url("/as/revoke?tenant=a"), nil, ""); got.status != 204 || as.seen() != seen+1 {
			t.Errorf("%s: status %d, seen %v", method, got.status, as.seen() != seen)
		}
	}
}

// PRX-06, and promise 1: a 200 that could not be recorded is a 503, and is
// recorded when the ledger is back, also by the next process.
func TestTheServers200SurvivesAnOutageOfTheLedger(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("restart %v", restart), func(t *testing.T) {
			s, as := newSite(t), newFakeServer(t)
			srv := revocationtest.StartNATS(t)
			s.mustLoad(onNATS(srv.URL()), as.behind(""))
			token := aliceToken(s)
			srv.Stop()
			got := s.pass(own(token))
			if got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" {
				t.Fatalf("status %d: %s", got.status, got.body)
			}
			if i := upstreamIntents(); i.Accepted != 1 {
				t.Fatalf("%+v", i)
			}
			if restart {
				s.restart()
			} else if err := s.load(onNATS(srv.URL()), as.behind("")+"\nheader X-Config another"); err != nil {
				t.Fatal(err)
			}
			srv.Start()
			if restart {
				s.mustLoad(onNATS(srv.URL()), as.behind(""))
			}
			s.wantIntents(0, 0)
			s.wantStatus(token, http.StatusUnauthorized, "when the ledger is back")
			if n := as.seen(); n != 1 {
				t.Errorf("the server was asked %d times", n)
			}
		})
	}
}

// PRX-10.
func TestNothingSecretIsLoggedOrKept(t *testing.T) {
	s, as := newSite(t), newFakeServer(t)
	srv := revocationtest.StartNATS(t)
	config := strings.Replace(s.caddyfile(onNATS(srv.URL()), "log\n"+as.behind("timeout 500ms\naudit all")), "level ERROR",
		"output file "+t.TempDir()+"/log\nformat json\nlevel DEBUG", 1)
	log := strings.Fields(config[strings.Index(config, "output file "):])[2]
	if err := s.loadConfig(config); err != nil {
		t.Fatal(err)
	}
	s.eventually("the edge to be in sync", func() bool { return currentApp().status().State == "in_sync" })
	token := aliceToken(s)
	secrets := []string{token, token[strings.LastIndex(token, ".")+1:], "s3cret-of-the-client", "czNjcmV0LW9mLXRoZS1jbGllbnQ"}
	form := own(token)
	form.Set("client_secret", "s3cret-of-the-client")
	basic := func(h http.Header) {
		h.Set("Authorization", "Basic ZGVtby1hcHA6czNjcmV0LW9mLXRoZS1jbGllbnQ=")
	}
	for _, answer := range []http.HandlerFunc{raw(""), write(200, "", `{"error":"x"}`), write(200, "text/html", "<p>"+token), write(500, "", ""), write(401, "", "")} {
		as.set(answer)
		s.pass(form)
		s.pass(own(token), basic)
	}
	s.do(http.MethodPost, s.url("/as/revoke"), http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, form.Encode()+"&token=x")
	srv.Stop()
	as.set(write(200, "", ""))
	if got := s.pass(form); got.status != 503 {
		t.Errorf("status %d", got.status)
	}
	content, err := os.ReadFile(log)
	if err != nil || !bytes.Contains(content, []byte("token revocation passed through")) {
		t.Fatalf("no audit in the log: %v", err)
	}
	intents := ""
	for _, name := range mustGlob(t, intentsDir()+"/*/*") {
		b, _ := os.ReadFile(name)
		intents += string(b)
	}
	if !strings.Contains(intents, "token_revocation intent 1") {
		t.Error("no intents were found")
	}
	metrics := s.do(http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/metrics", s.admin), nil, "").body
	if !strings.Contains(metrics, `upstream_requests_total{result="server_refused"}`) {
		t.Error("no metrics")
	}
	for _, secret := range secrets {
		for name, text := range map[string]string{"log": string(content), "intents": intents, "metrics": metrics} {
			if strings.Contains(text, secret) {
				t.Errorf("%q is in the %s", secret, name)
			}
		}
	}
	srv.Start()
	s.wantIntents(0, 0)
}
