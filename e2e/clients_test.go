//go:build e2e

package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
)

// keyClient authenticates by private_key_jwt, in the tests of this file only.
const keyClient = "key-service"

// libraryAttempt is one revocation by a client library.
type libraryAttempt struct {
	Library  string           `json:"library"`
	Method   string           `json:"method"`
	ClientID string           `json:"client_id"`
	Secret   string           `json:"client_secret,omitempty"`
	Key      *jose.JSONWebKey `json:"key,omitempty"`
	Token    string           `json:"token"`

	what, wantError string
}

type libraryAnswer struct {
	Error  string `json:"error"`
	Detail string `json:"detail"`
}

// TestRealClientsRevoke has client libraries that are not ours revoke at one
// edge, and looks at another one: a client's own token, which must be refused
// there; with a wrong secret and somebody else's token, which must be told as
// what it is and change nothing.
func TestRealClientsRevoke(t *testing.T) {
	key, public := clientKey(t)
	first := newFirstEdge(t, func(config string) string {
		// Where django-oauth-toolkit has it.
		return strings.ReplaceAll(config, "/oauth/revoke", "/o/revoke_token/")
	}, appOption(fmt.Sprintf(`client %s {
		method private_key_jwt
		jwks_file %s
	}`, keyClient, public))).run()
	second := newSecondEdge(t, first).run()
	endpoint := "http://localhost" + first.address[strings.LastIndex(first.address, ":"):] + "/o/revoke_token/"
	secret := demoSecret(t)
	first.logs.forbid(secret)

	python, node := pythonWithClients(t), nodeWithClients(t)
	run := func(t *testing.T, command []string, attempts []libraryAttempt) {
		answers := revokeByLibrary(t, command, endpoint, attempts)
		for i, a := range attempts {
			name := fmt.Sprintf("%s, %s, %s", a.Library, a.Method, a.what)
			if answers[i].Error != a.wantError {
				t.Errorf("%s: the library reports %q instead of %q: %s", name, answers[i].Error, a.wantError, answers[i].Detail)
			}
			if a.wantError == "" {
				first.wantRefused(name, a.Token)
				second.eventuallyRefused(name, a.Token)
			} else {
				first.wantPass(name, a.Token)
				second.wantPass(name, a.Token)
			}
		}
	}
	attemptsOf := func(library string, methods ...string) (attempts []libraryAttempt) {
		for i, method := range methods {
			a := libraryAttempt{Library: library, Method: method, ClientID: secretClient, Secret: secret}
			wrong := a
			wrong.Secret = "not-" + secret
			switch method {
			case "none":
				a.ClientID, a.Secret = publicClient, ""
				wrong = a
				wrong.ClientID = "nobody"
			case "private_key_jwt":
				a.ClientID, a.Secret, a.Key = keyClient, "", key
				wrong = a
				wrong.Key, _ = clientKey(t)
			}
			foreign := a
			a.what, a.Token = "its own token", first.mint(map[string]any{"subject": "s", "client_id": a.ClientID})
			wrong.what, wrong.wantError = "a wrong secret", "invalid_client"
			wrong.Token = first.mint(map[string]any{"subject": "s", "client_id": a.ClientID})
			foreign.what, foreign.wantError = "a foreign token", "invalid_grant"
			foreign.Token = first.mint(map[string]any{"subject": "s", "client_id": "somebody-else"})
			attempts = append(attempts, a, foreign)
			// Each client may fail ten times a minute.
			if i == 0 || method != "client_secret_post" {
				attempts = append(attempts, wrong)
			}
		}
		return attempts
	}
	secrets := []string{"client_secret_basic", "client_secret_post"}
	for _, c := range []struct {
		library string
		command []string
		methods []string
	}{
		{"oauthlib", python, append(secrets, "none")},
		{"requests-oauthlib", python, append(secrets, "none")},
		{"authlib", python, append(secrets, "none")},
		{"openid-client", node, append(secrets, "none", "private_key_jwt")},
		{"oauth4webapi", node, append(secrets, "none", "private_key_jwt")},
		{"simple-oauth2", node, secrets},
	} {
		t.Run(c.library, func(t *testing.T) { run(t, c.command, attemptsOf(c.library, c.methods...)) })
	}
	t.Run("curl", func(t *testing.T) {
		for _, a := range attemptsOf("curl", "client_secret_post", "none") {
			args := []string{"-sS", "-X", "POST", "-H", "Content-Type: application/x-www-form-urlencoded", endpoint}
			form := "token=" + a.Token + "&client_id=" + a.ClientID
			if a.Secret != "" {
				form += "&client_secret=" + a.Secret
			}
			out, err := output(t, first.logs, first.dir, nil, "curl", append(args, "-d", form)...)
			var body libraryAnswer
			if err := json.Unmarshal([]byte(out), &body); err != nil || body.Error != a.wantError {
				t.Errorf("%s, %s: curl prints %q, not the error %q", a.Method, a.what, out, a.wantError)
			}
			if err != nil {
				t.Error(err)
			}
			if a.wantError == "" {
				second.eventuallyRefused(a.what, a.Token)
			} else {
				second.wantPass(a.what, a.Token)
			}
		}
	})
}

// TestAssertionIsGoodOnceInTheWholeFleet presents one assertion to two edges.
func TestAssertionIsGoodOnceInTheWholeFleet(t *testing.T) {
	key, public := clientKey(t)
	client := appOption(fmt.Sprintf("client %s {\njwks_file %s\n}", keyClient, public))
	first := newFirstEdge(t, client).run()
	second := newSecondEdge(t, first, client, func(config string) string {
		return strings.Replace(config, "token_denylist", "token_revocation /oauth/revoke\ntoken_denylist", 1)
	}).run()
	present := func(e *edge, assertion string) answer {
		e.logs.forbid(assertion)
		return e.post(url.Values{
			"token":                 {first.mint(map[string]any{"subject": "s", "client_id": keyClient})},
			"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
			"client_assertion":      {assertion},
		}, "", "")
	}
	for i, edges := range [][2]*edge{{first, second}, {second, first}, {first, first}, {second, second}} {
		assertion := signAssertion(t, key, fmt.Sprintf("assertion-%d", i))
		if a := present(edges[0], assertion); a.status != http.StatusOK {
			t.Errorf("%d: used for the first time, at the %s: %s", i, edges[0].name, a)
		}
		if a := present(edges[1], assertion); a.status != http.StatusUnauthorized || !strings.Contains(a.body, "invalid_client") {
			t.Errorf("%d: used again, at the %s: %s", i, edges[1].name, a)
		}
	}
}

// signAssertion makes what keyClient authenticates with (RFC 7523, section 3).
func signAssertion(t *testing.T, key *jose.JSONWebKey, id string) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, nil)
	if err != nil {
		t.Fatal(err)
	}
	claims, err := json.Marshal(map[string]any{
		"iss": keyClient, "sub": keyClient, "aud": issuer.DevelopmentIssuer, "jti": id,
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
	})
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	assertion, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return assertion
}

// clientKey makes a key, and a file with the public half as a key set.
func clientKey(t testing.TB) (key *jose.JSONWebKey, public string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key = &jose.JSONWebKey{Key: private, KeyID: "key-1", Algorithm: string(jose.ES256), Use: "sig"}
	content, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{key.Public()}})
	if err != nil {
		t.Fatal(err)
	}
	public = filepath.Join(t.TempDir(), "client.jwks")
	if err := os.WriteFile(public, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return key, public
}

// pythonWithClients returns the command that runs Debian's client libraries.
func pythonWithClients(t *testing.T) []string {
	t.Helper()
	script := filepath.Join(root, "e2e", "clients", "revoke.py")
	// Debian's own Python has Debian's packages, whatever else is in PATH.
	for _, python := range []string{"/usr/bin/python3", "python3"} {
		if exec.Command(python, script, "--check").Run() == nil {
			return []string{python, script}
		}
	}
	skipUnlessCI(t, "no Python with oauthlib, requests-oauthlib and authlib (Debian: python3-oauthlib python3-requests-oauthlib python3-authlib)")
	return nil
}

// nodeWithClients returns the command that runs the client libraries from npm.
func nodeWithClients(t *testing.T) []string {
	t.Helper()
	dir := filepath.Join(root, "e2e", "clients")
	if _, err := exec.LookPath("node"); err != nil {
		skipUnlessCI(t, "%v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "openid-client")); err != nil {
		logs := newLogs(t, "npm")
		if out, err := output(t, logs, dir, nil, "npm", "ci", "--no-audit", "--no-fund"); err != nil {
			skipUnlessCI(t, "npm ci: %v\n%s\n%s", err, out, logs)
		}
	}
	return []string{"node", filepath.Join(dir, "revoke.mjs")}
}

func revokeByLibrary(t *testing.T, command []string, endpoint string, attempts []libraryAttempt) []libraryAnswer {
	t.Helper()
	input, err := json.Marshal(map[string]any{
		"endpoint": endpoint, "issuer": issuer.DevelopmentIssuer, "attempts": attempts,
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Stdin = bytes.NewReader(input)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	var answers []libraryAnswer
	if err := json.Unmarshal(out, &answers); err != nil || len(answers) != len(attempts) {
		t.Fatalf("%d answers to %d attempts, %v: %s", len(answers), len(attempts), err, out)
	}
	return answers
}
