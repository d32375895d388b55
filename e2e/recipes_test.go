//go:build e2e

package e2e

import (
	"crypto/rand"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// recipe is what a page of docs/recipes promises.
type recipe struct {
	page  string
	start func(t *testing.T) *recipeServer
	// access and refresh are what comes of revoking such a token.
	access, refresh recipeOutcome
	// user names alice in a revocation by the operator.
	user []string
	// oneSession is true if another session of the same user at the same client
	// survives the revocation of a refresh token.
	oneSession bool
}

type recipeOutcome int

const (
	isDenied      recipeOutcome = iota // 200, and access tokens are refused
	isUnsupported                      // 400 unsupported_token_type, and nothing changes
	isUnrecorded                       // 200 of the server's, and JWTs live on
)

// recipeServer is the server of a recipe, or what stands in for it.
type recipeServer struct {
	address    string // http://host:port
	clients    map[string]string
	web, other string // clients
	edge       string // the client that edges ask as; "": none
	revokePath string // in front of the server; "": at the edge's own endpoint
	signIn     func(client, user, session string) (access, refresh string)
}

var recipes = []recipe{
	{"django-oauth-toolkit", func(t *testing.T) *recipeServer { return realServer(t, startDjango(t)) }, isDenied, isDenied, []string{"--subject", asAlice}, true},
	{"node-oidc-provider", func(t *testing.T) *recipeServer { return realServer(t, startOIDC(t, false)) }, isDenied, isDenied, []string{"--subject", asAlice}, true},
	{"node-oidc-provider", func(t *testing.T) *recipeServer {
		s := realServer(t, startOIDC(t, true))
		s.revokePath = "" // at the edge
		return s
	}, isDenied, isDenied, []string{"--subject", asAlice}, true},
	{"fosite", func(t *testing.T) *recipeServer { return realServer(t, startFosite(t, false, false)) }, isDenied, isDenied, []string{"--subject", asAlice}, true},
	{"keycloak", standIn(keycloakShape(true), true), isDenied, isDenied, []string{"--subject", asAlice}, true},
	{"keycloak", standIn(keycloakShape(false), true), isDenied, isUnrecorded, []string{"--subject", asAlice}, true},
	{"auth0", standIn(auth0Shape(), false), isDenied, isUnsupported, []string{"--subject", asAlice}, true},
	{"okta", standIn(oktaShape(), false), isDenied, isDenied, []string{"--claim", "uid=id of " + asAlice}, false},
	{"entra", standIn(entraShape(), false), isDenied, isUnsupported, []string{"--claim", "oid=id of " + asAlice}, true},
	{"ory-hydra", standIn(hydraShape(), true), isDenied, isDenied, []string{"--subject", asAlice}, false},
	{"authentik", standIn(authentikShape(), true), isDenied, isDenied, []string{"--subject", asAlice}, true},
	{"zitadel", standIn(zitadelShape(), true), isDenied, isDenied, []string{"--subject", asAlice}, true},
}

// realServer is one that is not ours.
func realServer(t *testing.T, s *authServer) *recipeServer {
	t.Helper()
	address, err := url.Parse(s.Issuer)
	if err != nil {
		t.Fatal(err)
	}
	return &recipeServer{
		address: "http://" + address.Host, clients: s.secrets, web: asService, other: asOther, edge: asEdge,
		revokePath: address.Path + s.revokePath,
		signIn: func(client, user, _ string) (string, string) {
			granted := s.signIn(client, user)
			return granted.Access, granted.Refresh
		},
	}
}

// standIn is a server of that shape. front says that the recipe has the edge in
// front of it.
func standIn(shape revocationtest.Shape, front bool) func(t *testing.T) *recipeServer {
	return func(t *testing.T) *recipeServer {
		clients := map[string]string{"web": rand.Text(), "other": rand.Text(), "edge": rand.Text()}
		if strings.HasPrefix(shape.IntrospectPath, "/admin/") {
			clients[""] = "" // without authentication
		}
		p := revocationtest.StartProduct(t, shape, clients)
		s := &recipeServer{address: p.URL, clients: clients, web: "web", other: "other", edge: "edge", signIn: p.Login}
		if front {
			s.revokePath = shape.RevokePath
		}
		return s
	}
}

// TestRecipes runs the Caddyfile of each page, but for addresses, names and
// secrets, and does what the page is about.
func TestRecipes(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob(filepath.Join(root, "docs", "recipes", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	tried := map[string]bool{"README": true}
	for _, r := range recipes {
		tried[r.page] = true
	}
	for _, page := range pages {
		if name := strings.TrimSuffix(filepath.Base(page), ".md"); !tried[name] {
			t.Errorf("no test tries docs/recipes/%s.md", name)
		}
	}
	for _, r := range recipes {
		t.Run(r.page, func(t *testing.T) {
			t.Parallel()
			s := r.start(t)
			config := recipeConfig(t, r.page)
			e := newEdge(t, "edge", s.place(t, config))
			e.env = append(e.env, "EDGE_SECRET="+s.clients[s.edge], "WEB_SECRET="+s.clients[s.web])
			validate(t, e, config)
			for _, secret := range s.clients {
				if secret != "" {
					e.logs.forbid(secret)
				}
			}
			e.run()
			r.try(t, s, e)
		})
	}
}

// recipeConfig returns the Caddyfile of a page.
func recipeConfig(t *testing.T, page string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, "docs", "recipes", page+".md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```caddyfile\n(.*?)```").FindAllStringSubmatch(string(content), -1)
	if len(blocks) != 1 {
		t.Fatalf("%s has %d Caddyfiles", page, len(blocks))
	}
	return blocks[0][1]
}

// validate has Caddy load the Caddyfile of a page as it is, and not run it.
func validate(t *testing.T, e *edge, config string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "Caddyfile")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	logs := newLogs(t, "caddy validate")
	out, err := output(t, logs, e.dir, e.env, binary, "validate", "--config", file, "--adapter", "caddyfile")
	if err != nil {
		t.Errorf("as it is: %v\n%s", err, out)
	}
	if strings.Contains(logs.String(), "not formatted") {
		t.Error("the page's Caddyfile is not formatted")
	}
}

// place puts this server's address, names and secrets into a page's Caddyfile.
func (s *recipeServer) place(t *testing.T, config string) string {
	t.Helper()
	replace := func(pattern, with string, atLeast int) {
		t.Helper()
		r := regexp.MustCompile(pattern)
		if len(r.FindAllString(config, -1)) < atLeast {
			t.Fatalf("nothing like %s in the Caddyfile", pattern)
		}
		config = r.ReplaceAllLiteralString(config, with)
	}
	host := strings.TrimPrefix(s.address, "http://")
	replace(`reverse_proxy localhost:3000`, `respond "API"`, 1)
	replace(`http://[a-z]+:\d+`, s.address, 0)
	replace(`(h2c://)?\b(django|oidc|fosite|keycloak|hydra|authentik|zitadel):\d+`, host, 0)
	replace(`https://(sso\.example\.com|tenant\.eu\.auth0\.com|example\.okta\.com|login\.microsoftonline\.com)`, s.address, 1)
	replace(`(?m)^sso\.example\.com \{`, "http://"+asHost+":8080 {\n\tbind 127.0.0.1", 0)
	replace(`(?m)^api\.example\.com \{`, "http://localhost:8080 {\n\tbind 127.0.0.1", 1)
	replace(`\bclient web\b`, "client "+s.web, 0)
	replace(`\bclient_id edge\b`, "client_id "+s.edge, 0)
	return config
}

// revoke sends a revocation to where the recipe has clients send it.
func (s *recipeServer) revoke(e *edge, client, token, hint string) answer {
	form := url.Values{"token": {token}}
	if hint != "" {
		form.Set("token_type_hint", hint)
	}
	if s.revokePath == "" {
		return e.post(form, client, s.clients[client])
	}
	e.logs.forbid(token)
	req := e.request(http.MethodPost, e.address, s.revokePath, strings.NewReader(form.Encode()))
	req.Host = asHost + e.address[strings.LastIndex(e.address, ":"):]
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header["Idempotency-Key"] = nil
	req.SetBasicAuth(url.QueryEscape(client), url.QueryEscape(s.clients[client]))
	return e.do(req)
}

func (r recipe) try(t *testing.T, s *recipeServer, e *edge) {
	t.Helper()
	bob, _ := s.signIn(s.web, asBob, "session of bob")
	e.wantPass("a fresh token", bob)

	// Somebody else's.
	foreign, foreignRefresh := s.signIn(s.web, asAlice, "session 0")
	e.wantPass("a fresh token", foreign)
	entries := e.status().Denylist.Entries
	for _, token := range []string{foreign, foreignRefresh, "garbage"} {
		if a := s.revoke(e, s.other, token, ""); a.status == 0 || a.status >= http.StatusInternalServerError {
			t.Errorf("another client's token: %s", a)
		}
	}
	if now := e.status().Denylist.Entries; now != entries {
		t.Errorf("another client's tokens: %d entries recorded", now-entries)
	}

	access, _ := s.signIn(s.web, asAlice, "session 1")
	e.wantPass("a fresh token", access)
	r.wantOutcome(t, e, "an access token", r.access, s.revoke(e, s.web, access, "access_token"), access)
	e.wantPass("another user's token", bob)

	other := s.signInAgain(t, e, "session 2")
	mine, refresh := s.signIn(s.web, asAlice, "session 3")
	e.wantPass("a fresh token", mine)
	r.wantOutcome(t, e, "a refresh token", r.refresh, s.revoke(e, s.web, refresh, "refresh_token"), mine)
	if r.oneSession {
		e.wantPass("a token of another session", other)
	} else {
		e.wantRefused("a token of another session", other)
	}
	e.wantPass("another user's token", bob)

	// All of a user's.
	last := s.signInAgain(t, e, "session 4")
	if out, err := e.command(append([]string{"revoke", "--block", "--lifetime", "10m"}, r.user...)...); err != nil {
		t.Errorf("revoking by %q: %v %s", r.user, err, out)
	}
	e.wantRefused("a token of the revoked user", last)
	e.wantPass("another user's token", bob)
}

// signInAgain signs alice in until her token is good: a cutoff denies what was
// issued in the same second, and a little more.
func (s *recipeServer) signInAgain(t *testing.T, e *edge, session string) (access string) {
	t.Helper()
	eventually(t, 15*time.Second, "a new login is good", func() (bool, string) {
		access, _ = s.signIn(s.web, asAlice, session)
		a := e.get(access)
		return a.status == http.StatusOK, a.String()
	})
	return access
}

// wantOutcome judges the answer to a revocation, and what becomes of an access
// token that it was meant for.
func (r recipe) wantOutcome(t *testing.T, e *edge, what string, want recipeOutcome, a answer, access string) {
	t.Helper()
	switch want {
	case isDenied:
		if a.status != http.StatusOK {
			t.Errorf("revoking %s: %s", what, a)
		}
		e.wantRefused("the access token after the revocation of "+what, access)
	case isUnsupported:
		if a.status != http.StatusBadRequest || !strings.Contains(a.body, "unsupported_token_type") {
			t.Errorf("revoking %s: want unsupported_token_type: %s", what, a)
		}
		e.wantPass("the access token after a refusal to revoke "+what, access)
	case isUnrecorded:
		if a.status != http.StatusOK {
			t.Errorf("revoking %s: %s", what, a)
		}
		e.wantPass("the access token, although the page says that it lives on after the revocation of "+what, access)
	}
}
