//go:build e2e

package e2e

import (
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
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// oidcProvider is a running node-oidc-provider: an authorization server that is
// not ours. See oidcprovider/server.mjs.
type oidcProvider struct {
	t           testing.TB
	Issuer      string   `json:"issuer"`
	RedirectURI string   `json:"redirect_uri"`
	Resources   []string `json:"resources"`
	secrets     map[string]string
	key         *jose.JSONWebKey // of providerKeyed
}

const (
	providerService = "e2e-service"
	providerOther   = "e2e-other"
	providerApp     = "e2e-app"   // public
	providerKeyed   = "e2e-keyed" // private_key_jwt, and signed answers to introspection
)

func startOIDCProvider(t testing.TB) *oidcProvider {
	t.Helper()
	dir := filepath.Join(root, "e2e", "oidcprovider")
	if _, err := exec.LookPath("node"); err != nil {
		skipUnlessCI(t, "%v", err)
	}
	logs := newLogs(t, "node-oidc-provider")
	installOIDCProvider(t, dir, logs)
	p := &oidcProvider{t: t, secrets: map[string]string{}}
	p.key, _ = clientKey(t)
	key, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{p.key.Public()}})
	if err != nil {
		t.Fatal(err)
	}
	all := []map[string]any{{"id": providerKeyed, "jwks": json.RawMessage(key), "signed": true}}
	for _, id := range []string{providerService, providerOther, asBatch, asEdge} {
		p.secrets[id] = rand.Text()
		all = append(all, map[string]any{"id": id, "secret": p.secrets[id], "sid": id == providerService})
	}
	clients, err := json.Marshal(append(all, map[string]any{"id": providerApp}))
	if err != nil {
		t.Fatal(err)
	}
	announced(t, logs, p, dir, []string{"OIDC_CLIENTS=" + string(clients)}, "node", "server.mjs")
	return p
}

// installing lets one test at a time install something for all of them.
var installing sync.Mutex

func installOIDCProvider(t testing.TB, dir string, logs *logs) {
	t.Helper()
	installing.Lock()
	defer installing.Unlock()
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "oidc-provider")); err != nil {
		if out, err := output(t, logs, dir, nil, "npm", "ci", "--no-audit", "--no-fund"); err != nil {
			skipUnlessCI(t, "npm ci: %v\n%s\n%s", err, out, logs)
		}
	}
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

// token asks the token endpoint and returns the access token, which is a JWT.
func (p *oidcProvider) token(form url.Values, client string) string {
	p.t.Helper()
	granted := p.grant(form, client)
	if strings.Count(granted.Access, ".") != 2 {
		p.t.Fatal("the access token is no JWT")
	}
	return granted.Access
}

// grant asks the token endpoint.
func (p *oidcProvider) grant(form url.Values, client string) tokens {
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
	var granted tokens
	if err := json.Unmarshal(body, &granted); err != nil || granted.Access == "" {
		p.t.Fatalf("the token endpoint's answer has no access token: %s %s", resp.Status, body)
	}
	return granted
}

// clientToken obtains a token by the client credentials grant.
func (p *oidcProvider) clientToken(client, resource string) string {
	p.t.Helper()
	return p.token(url.Values{"grant_type": {"client_credentials"}, "resource": {resource}}, client)
}

// login is a browser's session at the authorization server.
func (p *oidcProvider) login(user string) *http.Client {
	p.t.Helper()
	browser := p.browser()
	p.userToken(browser, user)
	return browser
}

// browser is one in which nobody has logged in yet.
func (p *oidcProvider) browser() *http.Client {
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
	return browser
}

// userToken obtains a JWT for a user at the public client.
func (p *oidcProvider) userToken(browser *http.Client, user string) string {
	p.t.Helper()
	token := p.authorize(browser, providerApp, user, p.Resources[0]).Access
	if strings.Count(token, ".") != 2 {
		p.t.Fatal("the access token is no JWT")
	}
	return token
}

// authorize obtains tokens for a user by the authorization code grant with PKCE,
// as a browser and the client behind RedirectURI would.
func (p *oidcProvider) authorize(browser *http.Client, client, user, resource string) tokens {
	p.t.Helper()
	verifier := rand.Text() + rand.Text()
	challenge := sha256.Sum256([]byte(verifier))
	resp, err := browser.Get(p.Issuer + "/auth?" + url.Values{
		"client_id":             {client},
		"resource":              {resource},
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
	form := url.Values{
		"grant_type":    {"authorization_code"},
		"code":          {back.Query().Get("code")},
		"redirect_uri":  {p.RedirectURI},
		"code_verifier": {verifier},
	}
	if _, confidential := p.secrets[client]; !confidential {
		form.Set("client_id", client)
	}
	return p.grant(form, client)
}
