//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// oidcProvider is a running node-oidc-provider: an authorization server that is
// not ours. See oidcprovider/server.mjs.
type oidcProvider struct {
	t           testing.TB
	Issuer      string   `json:"issuer"`
	RedirectURI string   `json:"redirect_uri"`
	Resources   []string `json:"resources"`
	secrets     map[string]string
}

const (
	providerService = "e2e-service"
	providerOther   = "e2e-other"
	providerApp     = "e2e-app" // public
)

func startOIDCProvider(t testing.TB) *oidcProvider {
	t.Helper()
	dir := filepath.Join(root, "e2e", "oidcprovider")
	if _, err := exec.LookPath("node"); err != nil {
		skipUnlessCI(t, "%v", err)
	}
	logs := newLogs(t, "node-oidc-provider")
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "oidc-provider")); err != nil {
		if out, err := output(t, logs, dir, nil, "npm", "ci", "--no-audit", "--no-fund"); err != nil {
			skipUnlessCI(t, "npm ci: %v\n%s\n%s", err, out, logs)
		}
	}
	p := &oidcProvider{t: t, secrets: map[string]string{providerService: rand.Text(), providerOther: rand.Text()}}
	clients, err := json.Marshal([]map[string]string{
		{"id": providerService, "secret": p.secrets[providerService]},
		{"id": providerOther, "secret": p.secrets[providerOther]},
		{"id": providerApp},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "node", "server.mjs")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "OIDC_CLIENTS="+string(clients))
	cmd.Stderr = logs
	stdin, err := cmd.StdinPipe() // its end is the sign to stop
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
		cancel()
		_ = cmd.Wait() // killed, which is an error
	})
	line := make(chan []byte, 1)
	go func() {
		first, _ := bufio.NewReader(stdout).ReadBytes('\n')
		line <- first
	}()
	select {
	case first := <-line:
		if err := json.Unmarshal(first, p); err != nil {
			t.Fatalf("node-oidc-provider did not start: %v %q\n%s", err, first, logs)
		}
	case <-time.After(startDeadline):
		t.Fatalf("node-oidc-provider did not start within %s\n%s", startDeadline, logs)
	}
	return p
}

// configure makes an edge of the demo trust p instead of the development issuer,
// and know p's clients instead of the demo's.
func (p *oidcProvider) configure(config string) string {
	config = regexp.MustCompile(`(?m)^\s*(issuer development|client .*)$`).ReplaceAllString(config, "")
	return appOption(fmt.Sprintf("issuer %s\nclient %s {env.E2E_SERVICE}\nclient %s {env.E2E_OTHER}\nclient %s public",
		p.Issuer, providerService, providerOther, providerApp))(config)
}

// env is what the Caddyfile's placeholders stand for.
func (p *oidcProvider) env() []string {
	hash := func(client string) string {
		return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(p.secrets[client])))
	}
	return []string{"E2E_SERVICE=" + hash(providerService), "E2E_OTHER=" + hash(providerOther)}
}

// token asks the token endpoint and returns the access token.
func (p *oidcProvider) token(form url.Values, client string) string {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodPost, p.Issuer+"/token", strings.NewReader(form.Encode()))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if secret, confidential := p.secrets[client]; confidential {
		req.SetBasicAuth(client, secret)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	var granted struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(body, &granted); err != nil || strings.Count(granted.AccessToken, ".") != 2 {
		p.t.Fatalf("the token endpoint's answer has no JWT: %s %s", resp.Status, body)
	}
	return granted.AccessToken
}

// clientToken obtains a token by the client credentials grant.
func (p *oidcProvider) clientToken(client, resource string) string {
	p.t.Helper()
	return p.token(url.Values{"grant_type": {"client_credentials"}, "resource": {resource}}, client)
}

// login is a browser's session at the authorization server.
func (p *oidcProvider) login(user string) *http.Client {
	p.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		p.t.Fatal(err)
	}
	browser := &http.Client{Jar: jar, Timeout: 15 * time.Second}
	// Stop where the user would be sent back to the app.
	browser.CheckRedirect = func(req *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(req.URL.String(), p.RedirectURI) {
			return http.ErrUseLastResponse
		}
		return nil
	}
	p.userToken(browser, user)
	return browser
}

// userToken obtains a token for a user by the authorization code grant with PKCE,
// as a browser and the app behind RedirectURI would.
func (p *oidcProvider) userToken(browser *http.Client, user string) string {
	p.t.Helper()
	verifier := rand.Text() + rand.Text()
	challenge := sha256.Sum256([]byte(verifier))
	resp, err := browser.Get(p.Issuer + "/auth?" + url.Values{
		"client_id":             {providerApp},
		"response_type":         {"code"},
		"scope":                 {"openid"},
		"redirect_uri":          {p.RedirectURI},
		"code_challenge":        {encode(challenge[:])},
		"code_challenge_method": {"S256"},
	}.Encode())
	// Up to two forms, for login and for consent.
	for range 3 {
		if err != nil {
			p.t.Fatal(err)
		}
		body, readErr := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if readErr != nil {
			p.t.Fatal(readErr)
		}
		if resp.StatusCode == http.StatusSeeOther {
			break
		}
		prompt := regexp.MustCompile(`name="prompt" value="(\w+)"`).FindSubmatch(body)
		action := regexp.MustCompile(`action="([^"]+)"`).FindSubmatch(body)
		if prompt == nil || action == nil {
			p.t.Fatalf("no form in the authorization server's page: %s %s", resp.Status, body)
		}
		target, parseErr := resp.Request.URL.Parse(string(action[1]))
		if parseErr != nil {
			p.t.Fatal(parseErr)
		}
		resp, err = browser.PostForm(target.String(), url.Values{
			"prompt": {string(prompt[1])}, "login": {user}, "password": {"any"},
		})
	}
	back, err := resp.Location()
	if err != nil || back.Query().Get("code") == "" {
		p.t.Fatalf("no authorization code: %s %v %v", resp.Status, back, err)
	}
	return p.token(url.Values{
		"grant_type":    {"authorization_code"},
		"client_id":     {providerApp},
		"code":          {back.Query().Get("code")},
		"redirect_uri":  {p.RedirectURI},
		"code_verifier": {verifier},
	}, providerApp)
}
