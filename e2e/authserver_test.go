//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// authServer is a running authorization server that is not ours: the rig of the
// tests that put edges in front of one, or have edges ask one.
type authServer struct {
	t    testing.TB
	name string
	// Issuer is the server's address, and what it calls itself.
	Issuer string `json:"issuer"`
	// Paths of its endpoints below Issuer.
	tokenPath, revokePath, introspectPath string
	secrets                               map[string]string // client → secret
	jwt                                   bool              // whether access tokens are JWTs
	saysUse                               bool              // whether fosite says what a token is for
	client                                *http.Client
	// signIn has a user log in at a client, and returns what the client gets.
	signIn func(client, user string) tokens
	// keyFile has the private key of providerKeyed, where that exists.
	keyFile string
	// ownToken is a token that a client gets for itself.
	ownToken func() (client, token string)
}

// tokens are those of one grant.
type tokens struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
}

// Clients of the authorization servers. Those of node-oidc-provider are
// providerService, providerOther and providerApp.
const (
	asService = providerService
	asOther   = providerOther
	asBatch   = "e2e-batch" // for its own tokens
	asEdge    = "e2e-edge"  // what edges introspect as
)

// Users of the authorization servers; the password of each is asPassword.
const (
	asAlice    = "alice"
	asBob      = "bob"
	asPassword = "a-password-for-tests"
)

// asLifetime is that of access tokens.
const asLifetime = 10 * time.Minute

// announced starts a program that prints one line of JSON when it is ready, and
// stops at the end of its standard input, which is the test's end.
func announced(t testing.TB, logs *logs, into any, dir string, env []string, program string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = logs
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		ended := make(chan struct{})
		go func() {
			select {
			case <-ended:
			case <-time.After(2 * time.Second):
				cancel()
			}
		}()
		_ = cmd.Wait() // it may have been killed, which is an error
		close(ended)
		cancel()
	})
	line := make(chan []byte, 1)
	go func() {
		first, _ := bufio.NewReader(stdout).ReadBytes('\n')
		line <- first
	}()
	select {
	case first := <-line:
		if err := json.Unmarshal(first, into); err != nil {
			t.Fatalf("%s did not start: %v %q\n%s", program, err, first, logs)
		}
	case <-time.After(startDeadline):
		t.Fatalf("%s did not start within %s\n%s", program, startDeadline, logs)
	}
}

// newAuthServer returns the part that all have in common.
func newAuthServer(t testing.TB, name string) *authServer {
	s := &authServer{
		t: t, name: name,
		secrets: map[string]string{},
		client:  &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}, Timeout: 15 * time.Second},
	}
	for _, id := range []string{asService, asOther, asBatch, asEdge} {
		s.secrets[id] = rand.Text()
	}
	t.Cleanup(s.client.CloseIdleConnections)
	return s
}

// config is what a server of ours reads, which clients and users it has.
func (s *authServer) config(grants map[string]string) []string {
	s.t.Helper()
	type client struct {
		ID     string `json:"id"`
		Secret string `json:"secret"`
		Grant  string `json:"grant"`
	}
	var clients []client
	for id, secret := range s.secrets {
		clients = append(clients, client{id, secret, grants[id]})
	}
	format := "opaque"
	if s.jwt {
		format = "jwt"
	}
	content, err := json.Marshal(map[string]any{
		"format": format, "token_use": s.saysUse, "lifetime": int(asLifetime / time.Second), "clients": clients,
		"users": map[string]string{asAlice: asPassword, asBob: asPassword},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return []string{"AS_CONFIG=" + string(content)}
}

// startDjango starts django-oauth-toolkit, as Debian packages it, or skips the
// test. Its tokens are opaque, it introspects access tokens only, and it keeps no
// sessions.
func startDjango(t testing.TB) *authServer {
	t.Helper()
	script := filepath.Join(root, "e2e", "django", "server.py")
	const python = "/usr/bin/python3" // the one that has Debian's packages
	if out, err := exec.Command(python, script, "--check").CombinedOutput(); err != nil {
		skipUnlessCI(t, "no Python with django-oauth-toolkit (Debian: python3-django-oauth-toolkit): %v\n%s", err, out)
	}
	s := newAuthServer(t, "django-oauth-toolkit")
	s.tokenPath, s.revokePath, s.introspectPath = "/token/", "/revoke_token/", "/introspect/"
	s.signIn, s.ownToken = s.byPassword("read"), s.byCredentials(asBatch)
	env := s.config(map[string]string{
		asService: "password", asOther: "password", asBatch: "client-credentials", asEdge: "client-credentials",
	})
	announced(t, newLogs(t, s.name), s, filepath.Dir(script), append(env, "PYTHONDONTWRITEBYTECODE=1"), python, script)
	return s
}

// fositeProgram builds the server of ory/fosite once per test run. It is a module
// of its own.
var fositeProgram = sync.OnceValues(func() (string, error) {
	program := filepath.Join(programs, "fosite")
	build := exec.Command("go", "build", "-C", filepath.Join(root, "e2e", "fosite"), "-o", program, ".")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", build, err, out)
	}
	return program, nil
})

// startFosite starts a server made of ory/fosite. It introspects refresh tokens
// too, and its tokens name a session. What a token is for, it says only if told to.
func startFosite(t testing.TB, jwt, saysUse bool) *authServer {
	t.Helper()
	program, err := fositeProgram()
	if err != nil {
		skipUnlessCI(t, "%v", err)
	}
	s := newAuthServer(t, "fosite")
	s.jwt, s.saysUse = jwt, saysUse
	s.tokenPath, s.revokePath, s.introspectPath = "/token", "/revoke", "/introspect"
	s.signIn, s.ownToken = s.byPassword("read offline"), s.byCredentials(asBatch)
	announced(t, newLogs(t, s.name), s, t.TempDir(), s.config(nil), program)
	return s
}

// failStorage makes whatever revokes in the store of fosite fail, or no longer.
func (s *authServer) failStorage(fail bool) {
	s.t.Helper()
	if a := s.post(fmt.Sprintf("%s/test/storage?fail=%t", s.Issuer, fail), nil, "", ""); a.status != http.StatusOK {
		s.t.Fatalf("%s: %s", s.name, a)
	}
}

// startOIDC starts node-oidc-provider as an authServer. Tokens of asService name
// a session, which refresh tokens do too; those of asOther don't.
func startOIDC(t testing.TB, jwt bool) *authServer {
	t.Helper()
	p := startOIDCProvider(t)
	s := newAuthServer(t, "node-oidc-provider")
	s.Issuer, s.jwt = p.Issuer, jwt
	s.tokenPath, s.revokePath, s.introspectPath = "/token", "/token/revocation", "/token/introspection"
	s.secrets = p.secrets
	s.keyFile = filepath.Join(t.TempDir(), "keyed.jwk")
	key, err := json.Marshal(p.key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.keyFile, key, 0o600); err != nil {
		t.Fatal(err)
	}
	resource := "urn:e2e:opaque"
	if jwt {
		resource = "urn:e2e:RS256"
	}
	s.signIn = func(client, user string) tokens {
		return p.authorize(p.browser(), client, user, resource)
	}
	s.ownToken = func() (string, string) {
		form := url.Values{"grant_type": {"client_credentials"}, "resource": {resource}}
		return asBatch, s.grant(asBatch, form).Access
	}
	return s
}

// byPassword logs in by the password grant (RFC 6749, section 4.3).
func (s *authServer) byPassword(scope string) func(client, user string) tokens {
	return func(client, user string) tokens {
		s.t.Helper()
		return s.grant(client, url.Values{
			"grant_type": {"password"}, "username": {user}, "password": {asPassword}, "scope": {scope},
		})
	}
}

func (s *authServer) byCredentials(client string) func() (string, string) {
	return func() (string, string) {
		s.t.Helper()
		return client, s.grant(client, url.Values{"grant_type": {"client_credentials"}}).Access
	}
}

// refresh obtains tokens by a refresh token.
func (s *authServer) refresh(client, refreshToken string) tokens {
	s.t.Helper()
	return s.grant(client, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refreshToken}})
}

// grant asks the token endpoint.
func (s *authServer) grant(client string, form url.Values) tokens {
	s.t.Helper()
	a := s.post(s.Issuer+s.tokenPath, form, client, s.secrets[client])
	var granted tokens
	if err := json.Unmarshal([]byte(a.body), &granted); err != nil || a.status != http.StatusOK || granted.Access == "" {
		s.t.Fatalf("%s: no token for %s by %s: %s", s.name, client, form.Get("grant_type"), a)
	}
	if isJWT := strings.Count(granted.Access, ".") == 2; isJWT != s.jwt {
		s.t.Fatalf("%s: the access token of %s has the wrong format", s.name, client)
	}
	return granted
}

// introspect asks about a token as asEdge (RFC 7662).
func (s *authServer) introspect(token string) (active bool, members map[string]any) {
	s.t.Helper()
	a := s.post(s.Issuer+s.introspectPath, url.Values{"token": {token}}, asEdge, s.secrets[asEdge])
	if err := json.Unmarshal([]byte(a.body), &members); err != nil || a.status != http.StatusOK {
		s.t.Fatalf("%s: introspecting: %v %s", s.name, err, a)
	}
	active, _ = members["active"].(bool)
	return active, members
}

func (s *authServer) active(token string) bool {
	s.t.Helper()
	active, _ := s.introspect(token)
	return active
}

// revokeDirectly asks the server itself, past all edges.
func (s *authServer) revokeDirectly(client, token string) answer {
	s.t.Helper()
	return s.post(s.Issuer+s.revokePath, url.Values{"token": {token}}, client, s.secrets[client])
}

// post sends a form, with HTTP Basic authentication unless user is empty; without
// a password, user goes into the form, as that of a public client.
func (s *authServer) post(address string, form url.Values, user, password string) answer {
	s.t.Helper()
	if user != "" && password == "" {
		form = url.Values{"client_id": {user}, "token": form["token"]}
	}
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, address, strings.NewReader(form.Encode()))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if password != "" {
		req.SetBasicAuth(url.QueryEscape(user), url.QueryEscape(password))
	}
	resp, err := s.client.Do(req)
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
