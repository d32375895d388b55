//go:build e2e

package e2e

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// The demo client secret is written beside its hash in Caddyfile.example.
const (
	publicClient = "demo-app"
	secretClient = "demo-service"
)

// startDeadline is for one start of Caddy, on a busy machine and with the race
// detector.
const startDeadline = 60 * time.Second

// edge is a Caddy process that enforces, with what has to survive its restarts:
// its Caddyfile, its data directory and its ports.
type edge struct {
	t       testing.TB
	name    string
	address string // host:port of the site
	admin   string // host:port of the admin endpoint
	nats    string // host:port that the embedded ledger listens on
	program string // if it is not the binary that everything tests
	dir     string
	env     []string
	logs    *logs
	process *process
	client  *http.Client
	// lost, if set, counts requests that got no answer and were sent again, once.
	lost *atomic.Int64
}

// newEdge writes the Caddyfile into a fresh directory, and starts nothing.
// What the Caddyfile says about ports 8080, 2019 and 4222 is meant for ports
// that are free.
func newEdge(t testing.TB, name, caddyfile string) *edge {
	t.Helper()
	e := &edge{
		t:       t,
		name:    name,
		address: fmt.Sprintf("127.0.0.1:%d", revocationtest.FreePort(t)),
		admin:   fmt.Sprintf("127.0.0.1:%d", revocationtest.FreePort(t)),
		nats:    fmt.Sprintf("127.0.0.1:%d", revocationtest.FreePort(t)),
		dir:     t.TempDir(),
		logs:    newLogs(t, name),
		// Connections of its own: a test that kills an edge must not find the
		// dead ones in a pool that all tests share.
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: 15 * time.Second},
	}
	t.Cleanup(e.client.CloseIdleConnections)
	e.env = []string{
		"HOME=" + e.dir,
		"XDG_DATA_HOME=" + e.data(),
		"XDG_CONFIG_HOME=" + filepath.Join(e.dir, "config"),
	}
	e.write(e.place(caddyfile))
	return e
}

// newFirstEdge is an edge by Caddyfile.example, changed by the given functions.
func newFirstEdge(t testing.TB, changes ...func(string) string) *edge {
	t.Helper()
	return newEdge(t, "first edge", apply(readFile(t, "Caddyfile.example"), changes))
}

// newSecondEdge is an edge by docs/examples/second-edge.Caddyfile that follows
// the ledger of the first one. As the demo has it, both use one data directory,
// where the development issuer's keys are.
func newSecondEdge(t testing.TB, first *edge, changes ...func(string) string) *edge {
	t.Helper()
	config := readFile(t, "docs", "examples", "second-edge.Caddyfile")
	config = replacePort(config, "4222", first.nats)
	config = replacePort(config, "8080", first.address)
	config = replacePort(config, "2019", first.admin)
	config = replacePort(config, "8081", ":8080")
	config = replacePort(config, "2020", ":2019")
	second := newEdge(t, "second edge", apply(config, changes))
	second.env = slices.Concat(second.env, []string{"XDG_DATA_HOME=" + first.data()})
	return second
}

func (e *edge) data() string      { return filepath.Join(e.dir, "data") }
func (e *edge) caddyfile() string { return filepath.Join(e.dir, "Caddyfile") }

func (e *edge) config() string {
	e.t.Helper()
	content, err := os.ReadFile(e.caddyfile())
	if err != nil {
		e.t.Fatal(err)
	}
	return string(content)
}

func (e *edge) write(config string) {
	e.t.Helper()
	if err := os.WriteFile(e.caddyfile(), []byte(config), 0o600); err != nil {
		e.t.Fatal(err)
	}
}

// start starts Caddy and waits for nothing.
func (e *edge) start() {
	e.t.Helper()
	e.process = start(e.t, e.name, e.logs, e.dir, e.env,
		cmp.Or(e.program, binary), "run", "--config", e.caddyfile(), "--adapter", "caddyfile")
}

// run starts Caddy and waits until it is in sync.
func (e *edge) run() *edge {
	e.t.Helper()
	e.start()
	e.waitInSync()
	return e
}

func (e *edge) waitInSync() {
	e.t.Helper()
	eventually(e.t, startDeadline, e.name+" is in sync, its issuers ready", func() (bool, string) {
		if e.process.ended() {
			e.t.Fatalf("%s ended: %s", e.name, e.process.cmd.ProcessState)
		}
		s, err := e.tryStatus()
		if err != nil {
			return false, err.Error()
		}
		ready := s.State == "in_sync"
		for _, i := range s.Issuers {
			ready = ready && i.Ready
		}
		return ready, fmt.Sprintf("%+v", s)
	})
}

// answer is an HTTP answer, read to its end.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) String() string {
	return fmt.Sprintf("%d %q %s", a.status, a.header, a.body)
}

// do sends a request. Status 0 stands for no answer, and the body for why.
func (e *edge) do(req *http.Request) answer {
	a := e.doOnce(req)
	if a.status != 0 || e.lost == nil {
		return a
	}
	e.lost.Add(1)
	again := req.Clone(req.Context())
	if req.GetBody != nil {
		again.Body, _ = req.GetBody() // of what is in memory
	}
	return e.doOnce(again)
}

func (e *edge) doOnce(req *http.Request) answer {
	resp, err := e.client.Do(req)
	if err != nil {
		return answer{body: err.Error()}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{body: err.Error()}
	}
	return answer{resp.StatusCode, resp.Header, string(body)}
}

// request makes a request. One that changes something is sent again, as GET
// requests are, if the connection that it was written to turns out to have been
// closed meanwhile, by a reload for instance: for that the caller adds the header
// Idempotency-Key without a value, which net/http does not send.
func (e *edge) request(method, address, path string, body io.Reader) *http.Request {
	req, err := http.NewRequestWithContext(e.t.Context(), method, "http://"+address+path, body)
	if err != nil {
		panic(err) // the tests' own mistake
	}
	return req
}

// get asks the demo API with a token, or without one if it is empty.
func (e *edge) get(token string) answer {
	req := e.request(http.MethodGet, e.address, "/", nil)
	// Caddy's site address is a host name, not an address.
	req.Host = "localhost" + e.address[strings.LastIndex(e.address, ":"):]
	if token != "" {
		e.logs.forbid(token)
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return e.do(req)
}

// post sends a form to the revocation endpoint, with HTTP Basic authentication
// unless user is empty.
func (e *edge) post(form url.Values, user, password string) answer {
	e.logs.forbid(form.Get("token"))
	req := e.request(http.MethodPost, e.address, "/oauth/revoke", strings.NewReader(form.Encode()))
	req.Host = "localhost" + e.address[strings.LastIndex(e.address, ":"):]
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header["Idempotency-Key"] = nil
	if user != "" {
		// RFC 6749, section 2.3.1
		req.SetBasicAuth(url.QueryEscape(user), url.QueryEscape(password))
	}
	return e.do(req)
}

// revoke revokes a token of the public client, and expects that to succeed.
func (e *edge) revoke(token string) {
	e.t.Helper()
	if a := e.post(url.Values{"token": {token}, "client_id": {publicClient}}, "", ""); a.status != http.StatusOK {
		e.t.Fatalf("%s: revoking: %s", e.name, a)
	}
}

// api sends a request to the admin endpoint: body, if any, as JSON, unless it is
// a string, which is sent as a Caddyfile.
func (e *edge) api(method, path string, body any) answer {
	e.t.Helper()
	contentType := "application/json"
	var content []byte
	switch body := body.(type) {
	case nil:
	case string:
		contentType, content = "text/caddyfile", []byte(body)
	default:
		var err error
		if content, err = json.Marshal(body); err != nil {
			e.t.Fatal(err)
		}
	}
	req := e.request(method, e.admin, path, bytes.NewReader(content))
	req.Header.Set("Content-Type", contentType)
	req.Header["Idempotency-Key"] = nil
	return e.do(req)
}

// mint has a token signed by the development issuer through the admin API, which
// is faster than the command.
func (e *edge) mint(request map[string]any) string {
	e.t.Helper()
	a := e.api(http.MethodPost, "/token_revocation/mint", request)
	var minted struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(a.body), &minted); err != nil || a.status != http.StatusOK || minted.AccessToken == "" {
		e.t.Fatalf("%s: minting %v: %s", e.name, request, a)
	}
	return minted.AccessToken
}

// mintFor is mint for a user of the public client.
func (e *edge) mintFor(subject string) string {
	e.t.Helper()
	return e.mint(map[string]any{"subject": subject, "client_id": publicClient})
}

// command runs `caddy token-revocation` against this edge and returns what it
// prints.
func (e *edge) command(args ...string) (string, error) {
	e.t.Helper()
	args = append([]string{"token-revocation"}, args...)
	out, err := output(e.t, e.logs, e.dir, e.env, binary, append(args, "--address", e.admin)...)
	return strings.TrimSpace(out), err
}

// status is what the tests read of GET /token_revocation/status.
type status struct {
	State      string      `json:"state"`
	Serving    bool        `json:"serving"`
	Standalone bool        `json:"standalone"`
	Incomplete string      `json:"incomplete"`
	AgeSeconds json.Number `json:"age_seconds"`
	Ledger     struct {
		ID        string `json:"id"`
		Connected bool   `json:"connected"`
		Sequence  uint64 `json:"sequence"`
	} `json:"ledger"`
	Denylist struct {
		Entries int `json:"entries"`
	} `json:"denylist"`
	Issuers []struct {
		Issuer string `json:"issuer"`
		Ready  bool   `json:"ready"`
	} `json:"issuers"`
}

func (e *edge) tryStatus() (status, error) {
	var s status
	a := e.api(http.MethodGet, "/token_revocation/status", nil)
	if a.status != http.StatusOK {
		return s, fmt.Errorf("status: %s", a)
	}
	return s, json.Unmarshal([]byte(a.body), &s)
}

func (e *edge) status() status {
	e.t.Helper()
	s, err := e.tryStatus()
	if err != nil {
		e.t.Fatalf("%s: %v", e.name, err)
	}
	return s
}

// wantPass and wantRefused say what one edge answers to a token at once;
// eventuallyRefused waits for an edge that was not the one it was revoked at.

func (e *edge) wantPass(what, token string) {
	e.t.Helper()
	if a := e.get(token); a.status != http.StatusOK {
		e.t.Errorf("%s: %s should pass: %s", e.name, what, a)
	}
}

func (e *edge) wantRefused(what, token string) {
	e.t.Helper()
	if a := e.get(token); !refused(a) {
		e.t.Errorf("%s: %s should be refused as invalid_token: %s", e.name, what, a)
	}
}

func (e *edge) eventuallyRefused(what, token string) time.Duration {
	e.t.Helper()
	return eventually(e.t, 10*time.Second, e.name+" refuses "+what, func() (bool, string) {
		a := e.get(token)
		return refused(a), a.String()
	})
}

// refused tells whether an answer is what RFC 6750, section 3.1, has for a
// revoked token.
func refused(a answer) bool {
	challenge := a.header.Get("WWW-Authenticate")
	return a.status == http.StatusUnauthorized &&
		strings.HasPrefix(challenge, "Bearer ") && strings.Contains(challenge, `error="invalid_token"`)
}
