package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// site is a real Caddy in this process: one site, one admin endpoint, and a data
// directory of its own.
type site struct {
	t     *testing.T
	port  int
	admin int
}

// newSite reserves ports and stops Caddy when the test ends. Tests that use it
// can't run in parallel: a process has one Caddy.
func newSite(t *testing.T) *site {
	t.Helper()
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Setenv("DEMO_SERVICE_SECRET", "correct-horse-battery-staple")
	s := &site{t: t, port: revocationtest.FreePort(t), admin: revocationtest.FreePort(t)}
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Errorf("stopping: %v", err)
		}
		for name, pool := range map[string]*caddy.UsagePool{
			"replicas": replicas, "ledgers": ledgers, "issuers": issuers, "introspectors": introspectors, "upstreams": upstreamStates, "client keys": clientKeys, "guards": guards,
		} {
			pool.Range(func(key, _ any) bool {
				t.Errorf("%s still holds %v after Caddy stopped", name, key)
				return true
			})
		}
		if currentApp() != nil {
			t.Error("an app is still registered as running after Caddy stopped")
		}
	})
	return s
}

// demo is the usual global option.
const demo = `
	embedded
	issuer development
	client demo-app public
	client demo-service {env.DEMO_SERVICE_SECRET}
`

// caddyfile returns a config of this site with the given options and directives.
func (s *site) caddyfile(options, directives string) string {
	return fmt.Sprintf(`{
	admin 127.0.0.1:%d
	persist_config off
	log {
		level ERROR
	}
	token_revocation {
%s
	}
}
http://127.0.0.1:%d {
	bind 127.0.0.1
	token_revocation /oauth/revoke
%s
	respond "upstream reached"
}
`, s.admin, options, s.port, directives)
}

// load runs a config, as `caddy run` and POST /load do.
func (s *site) load(options, directives string) error {
	s.t.Helper()
	return s.loadConfig(s.caddyfile(options, directives))
}

func (s *site) loadConfig(caddyfile string) error {
	s.t.Helper()
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		s.t.Fatalf("adapting: %v", err)
	}
	err = caddy.Load(config, true)
	s.settle()
	return err
}

// settle waits until no server of an older config takes connections any more:
// Caddy closes its listener in the background, and until then requests may be
// answered by the config that was replaced.
func (s *site) settle() {
	s.t.Helper()
	http.DefaultClient.CloseIdleConnections()
	for deadline := time.Now().Add(30 * time.Second); s.listeners() > 1; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatal("the server of the old config does not end")
		}
	}
}

// listeners counts the sockets that listen on the site's port. Where there is no
// /proc, there is one for all configs.
func (s *site) listeners() (n int) {
	const listening = "0A"
	port := fmt.Sprintf(":%04X", s.port)
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		table, _ := os.ReadFile(file)
		for line := range strings.Lines(string(table)) {
			if f := strings.Fields(line); len(f) > 3 && f[3] == listening && strings.HasSuffix(f[1], port) {
				n++
			}
		}
	}
	return n
}

// mustLoad runs a config and waits until the edge serves.
func (s *site) mustLoad(options, directives string) {
	s.t.Helper()
	if err := s.load(options, directives); err != nil {
		s.t.Fatalf("loading: %v", err)
	}
	s.eventually("the edge to be in sync", func() bool {
		status := currentApp().status()
		for _, i := range status.Issuers {
			if !i.Ready {
				return false
			}
		}
		return status.State == "in_sync" && status.Ledger.Connected
	})
}

func (s *site) eventually(what string, condition func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("waited too long for %s; status %+v", what, currentApp().status())
		}
	}
}

func (s *site) mint(request issuer.MintRequest) string {
	s.t.Helper()
	token, err := currentApp().development.Mint(context.Background(), request)
	if err != nil {
		s.t.Fatalf("minting: %v", err)
	}
	return token
}

func aliceToken(s *site) string {
	return s.mint(issuer.MintRequest{Subject: "alice", ClientID: "demo-app", SessionID: "s1"})
}

// answer is a response with its body read.
type answer struct {
	status int
	header http.Header
	body   string
}

func (s *site) do(method, target string, header http.Header, body string) answer {
	s.t.Helper()
	var response *http.Response
	for attempt := 0; ; attempt++ {
		request, err := http.NewRequest(method, target, strings.NewReader(body))
		if err != nil {
			s.t.Fatal(err)
		}
		maps.Copy(request.Header, header)
		if response, err = http.DefaultClient.Do(request); err == nil {
			break
		}
		// A reload of Caddy closes its listener: connections that were not
		// accepted yet, or on which no request had arrived, are closed with it.
		// Nothing was answered then.
		closed := errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF)
		if attempt == 5 || !closed || method == http.MethodPost {
			s.t.Fatalf("%s %s: %v", method, target, err)
		}
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, string(content)}
}

func (s *site) url(path string) string { return fmt.Sprintf("http://127.0.0.1:%d%s", s.port, path) }

// get asks the protected upstream with a token, or without one if it is empty.
func (s *site) get(token string) answer {
	s.t.Helper()
	header := http.Header{}
	if token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	return s.do(http.MethodGet, s.url("/"), header, "")
}

func (s *site) wantStatus(token string, want int, why string) answer {
	s.t.Helper()
	got := s.get(token)
	if got.status != want {
		s.t.Fatalf("%s: status %d, want %d", why, got.status, want)
	}
	if reached := got.body == "upstream reached"; reached != (want == http.StatusOK) {
		s.t.Fatalf("%s: status %d with upstream reached: %v", why, got.status, reached)
	}
	return got
}

// revoke posts a form to the revocation endpoint.
func (s *site) revoke(form url.Values) answer {
	s.t.Helper()
	return s.do(http.MethodPost, s.url("/oauth/revoke"),
		http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, form.Encode())
}

func (s *site) mustRevoke(token, client string) {
	s.t.Helper()
	if got := s.revoke(url.Values{"token": {token}, "client_id": {client}}); got.status != http.StatusOK {
		s.t.Fatalf("revoking: status %d, %s", got.status, got.body)
	}
}

// adminPost calls the admin API and decodes a good answer.
func (s *site) adminPost(route string, body any) (answer, revocationAnswer) {
	s.t.Helper()
	encoded, err := json.Marshal(body)
	if err != nil {
		s.t.Fatal(err)
	}
	got := s.do(http.MethodPost, fmt.Sprintf("http://127.0.0.1:%d%s%s", s.admin, adminPrefix, route),
		http.Header{"Content-Type": {"application/json"}}, string(encoded))
	var decoded revocationAnswer
	if got.status == http.StatusOK {
		if err := json.Unmarshal([]byte(got.body), &decoded); err != nil {
			s.t.Fatal(err)
		}
	}
	return got, decoded
}

// tokenBlock is a decision as another producer might have recorded it.
func tokenBlock(iss, hash string, end time.Time) *revocation.Revocation {
	return &revocation.Revocation{
		ID:       "test",
		Criteria: revocation.Criteria{Issuer: iss, Claims: map[string]string{revocation.ClaimToken: hash}},
		Mode:     revocation.Block,
		Expires:  end.Unix(),
	}
}
