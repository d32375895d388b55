package caddymodule

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// unknownJWT is a token of an issuer that nobody configured. An authenticated
// client is told 200.
const unknownJWT = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJodHRwczovL25vYm9keS5leGFtcGxlIn0.AAAA"

// reload loads a config and opens a connection to its server: one to the server
// before may be reset, and a POST is not sent twice.
func (s *site) reload(options, directives string) {
	s.t.Helper()
	s.mustLoad(options, directives)
	http.DefaultClient.CloseIdleConnections()
	s.do(http.MethodGet, s.url("/"), nil, "")
}

// assertionOf returns a good assertion of a client.
func (s *site) assertionOf(server *revocationtest.AuthServer, client, jti string, changes map[string]any) string {
	s.t.Helper()
	now := time.Now().Unix()
	claims := map[string]any{
		"iss": client, "sub": client, "aud": currentApp().development.Name(), "jti": jti, "iat": now, "exp": now + 60,
	}
	maps.Copy(claims, changes)
	return revocationtest.SignWith(s.t, server.Key("ES256"), nil, claims)
}

func (s *site) postAssertion(text, token string) answer {
	s.t.Helper()
	return s.revoke(url.Values{
		"token": {token}, "client_assertion_type": {oauth.AssertionType}, "client_assertion": {text},
	})
}

func (s *site) assert(server *revocationtest.AuthServer, client, jti string) answer {
	s.t.Helper()
	return s.postAssertion(s.assertionOf(server, client, jti, nil), unknownJWT)
}

// The use of an assertion is in the ledger: neither a reload nor a restart makes
// it good again.
func TestAssertionIsGoodOnceOverReloadsAndRestarts(t *testing.T) {
	server := revocationtest.NewAuthServer(t)
	s := newSite(t)
	options := demo + fmt.Sprintf("client signer {\njwks_uri %s%s\n}", server.URL, revocationtest.JWKSPath)
	s.reload(options, "token_denylist")
	text := s.assertionOf(server, "signer", "once", nil)
	token := s.mint(issuer.MintRequest{Subject: "alice", ClientID: "signer"})
	if got := s.postAssertion(text, token); got.status != http.StatusOK {
		t.Fatalf("status %d: %s", got.status, got.body)
	}
	s.wantStatus(token, http.StatusUnauthorized, "a token revoked with an assertion")
	again := func(when string) {
		t.Helper()
		if got := s.postAssertion(text, unknownJWT); got.status != http.StatusUnauthorized {
			t.Errorf("%s: status %d: %s", when, got.status, got.body)
		}
	}
	again("at once")
	s.reload(options, "token_denylist\nheader X-Config 2")
	again("after a reload")
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	s.reload(options, "token_denylist")
	again("after a restart")
	if got := s.assert(server, "signer", "another"); got.status != http.StatusOK {
		t.Errorf("another assertion: status %d: %s", got.status, got.body)
	}
}

func TestAssertionNeedsTheLedger(t *testing.T) {
	server := revocationtest.NewAuthServer(t)
	s := newSite(t)
	options := strings.Replace(demo, "embedded", "nats nats://127.0.0.1:1", 1) +
		fmt.Sprintf("client signer {\njwks_uri %s%s\n}", server.URL, revocationtest.JWKSPath)
	if err := s.load(options, "token_denylist"); err != nil {
		t.Fatal(err)
	}
	if got := s.assert(server, "signer", "1"); got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" {
		t.Errorf("status %d: %s", got.status, got.body)
	}
}

func TestAssertionAudienceOption(t *testing.T) {
	server := revocationtest.NewAuthServer(t)
	s := newSite(t)
	client := fmt.Sprintf("client signer {\njwks_uri %s%s\n}\n", server.URL, revocationtest.JWKSPath)
	try := func(jti string) int {
		return s.postAssertion(s.assertionOf(server, "signer", jti, map[string]any{"aud": s.url("/oauth/revoke")}), unknownJWT).status
	}
	s.reload(demo+client, "token_denylist")
	if got := try("1"); got != http.StatusUnauthorized {
		t.Errorf("the address as aud by default: status %d", got)
	}
	s.reload(demo+client+"assertion_audience "+s.url("/oauth/revoke"), "token_denylist")
	if got := try("2"); got != http.StatusOK {
		t.Errorf("the address as aud by choice: status %d", got)
	}
}

// A reload must not give an attacker another ten guesses.
func TestReloadDoesNotResetTheThrottle(t *testing.T) {
	s := newSite(t)
	s.reload(demo, "token_denylist")
	guess := func() int {
		return s.revoke(url.Values{"token": {unknownJWT}, "client_id": {"demo-service"}, "client_secret": {"wrong"}}).status
	}
	for i := range 10 {
		if i == 5 {
			s.reload(demo, "token_denylist\nheader X-Config 2")
		}
		if got := guess(); got != http.StatusUnauthorized {
			t.Fatalf("guess %d: status %d", i, got)
		}
	}
	s.reload(demo, "token_denylist\nheader X-Config 3")
	if got := guess(); got != http.StatusTooManyRequests {
		t.Errorf("after ten failures and a reload: status %d", got)
	}
}

// certificates is a small authority with one client.
type certificates struct {
	authority  string // file
	client     tls.Certificate
	selfSigned tls.Certificate
}

func newCertificates(t *testing.T) certificates {
	t.Helper()
	issue := func(template, parent *x509.Certificate, signer *ecdsa.PrivateKey) (tls.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template.SerialNumber = big.NewInt(time.Now().UnixNano())
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		if parent == nil {
			parent, signer = template, key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, key
	}
	root, key := issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: "clients"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil, nil)
	usage := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	c := certificates{authority: filepath.Join(t.TempDir(), "ca.pem")}
	c.client, _ = issue(&x509.Certificate{Subject: pkix.Name{CommonName: "app", Organization: []string{"Example"}}, ExtKeyUsage: usage}, root.Leaf, key)
	c.selfSigned, _ = issue(&x509.Certificate{Subject: pkix.Name{CommonName: "app", Organization: []string{"Example"}}, ExtKeyUsage: usage}, nil, nil)
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Leaf.Raw})
	if err := os.WriteFile(c.authority, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

// Caddy's own client certificates, with the configuration that the documentation
// gives.
func TestClientCertificatesOfCaddy(t *testing.T) {
	s := newSite(t)
	c := newCertificates(t)
	digest := sha256.Sum256(c.selfSigned.Leaf.Raw)
	verified, asked := revocationtest.FreePort(t), revocationtest.FreePort(t)
	config := fmt.Sprintf(`{
	admin 127.0.0.1:%d
	persist_config off
	skip_install_trust
	auto_https disable_redirects
	log {
		level ERROR
	}
	token_revocation {
%s
		client by-name {
			tls_subject_dn "CN=app,O=Example"
		}
		client by-digest {
			tls_certificate %s
		}
	}
}
https://localhost:%d {
	bind 127.0.0.1
	tls internal {
		client_auth {
			mode verify_if_given
			trust_pool file %s
		}
	}
	token_revocation /oauth/revoke
}
https://localhost:%d {
	bind 127.0.0.1
	tls internal {
		client_auth {
			mode request
		}
	}
	token_revocation /oauth/revoke
}
http://127.0.0.1:%d {
	bind 127.0.0.1
	token_revocation /oauth/revoke
}
`, s.admin, demo, hex.EncodeToString(digest[:]), verified, c.authority, asked, s.port)
	if err := s.loadConfig(config); err != nil {
		t.Fatal(err)
	}
	try := func(port int, client string, cert *tls.Certificate) (int, error) {
		t.Helper()
		tlsConfig := &tls.Config{InsecureSkipVerify: true, ServerName: "localhost"}
		if cert != nil {
			tlsConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
		}
		transport := &http.Transport{TLSClientConfig: tlsConfig}
		defer transport.CloseIdleConnections()
		form := url.Values{"token": {unknownJWT}, "client_id": {client}}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, fmt.Sprintf("https://127.0.0.1:%d/oauth/revoke", port), strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		request.Host = fmt.Sprintf("localhost:%d", port)
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		response, err := (&http.Client{Transport: transport, Timeout: 20 * time.Second}).Do(request)
		if err != nil {
			return 0, err
		}
		defer response.Body.Close()
		return response.StatusCode, nil
	}
	s.eventually("the certificate of the site", func() bool {
		status, err := try(verified, "demo-app", nil)
		return err == nil && status == http.StatusOK
	})
	for _, tt := range []struct {
		name   string
		port   int
		client string
		cert   *tls.Certificate
		status int // zero: the handshake fails
	}{
		{"a verified certificate", verified, "by-name", &c.client, 200},
		{"no certificate", verified, "by-name", nil, 401},
		{"one that it signed itself, where all are verified", verified, "by-name", &c.selfSigned, 0},
		{"one that it signed itself, with the right name", asked, "by-name", &c.selfSigned, 401},
		{"the right one, where nobody verifies", asked, "by-name", &c.client, 401},
		{"a registered certificate", asked, "by-digest", &c.selfSigned, 200},
		{"another certificate", asked, "by-digest", &c.client, 401},
		{"no certificate for a registered one", asked, "by-digest", nil, 401},
		{"a public client with a certificate", verified, "demo-app", &c.client, 200},
	} {
		status, err := try(tt.port, tt.client, tt.cert)
		if tt.status == 0 && err == nil || tt.status != 0 && (err != nil || status != tt.status) {
			t.Errorf("%s: status %d (%v), want %d", tt.name, status, err, tt.status)
		}
	}
	// Without TLS there is no certificate.
	if s.knows("by-name") || s.knows("by-digest") {
		t.Error("a client with a certificate authenticates over plain HTTP")
	}
}

// guestSource is a client source as somebody else would write one.
type guestSource struct {
	Prefix string `json:"prefix"`

	started, cleaned bool
}

// lastGuest is the newest instance, which the tests look at.
var lastGuest *guestSource

func init() { caddy.RegisterModule(new(guestSource)) }

func (*guestSource) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "token_revocation.clients.guest", New: func() caddy.Module {
		return new(guestSource)
	}}
}

func (g *guestSource) Provision(caddy.Context) error {
	lastGuest = g
	return nil
}

func (g *guestSource) Start() error {
	g.started = true
	return nil
}

func (g *guestSource) Cleanup() error {
	g.cleaned = true
	return nil
}

func (g *guestSource) Client(_ context.Context, id string) (*oauth.Client, error) {
	rest, ok := strings.CutPrefix(id, g.Prefix)
	client := oauth.Client{ID: id, Issuer: currentApp().development.Name(), Methods: []oauth.AuthMethod{oauth.AuthNone}}
	switch {
	case !ok && id == "demo-app":
		return nil, errors.New("the configuration comes first")
	case !ok:
		return nil, oauth.ErrUnknownClient
	case rest == "down":
		return nil, errors.New("the database is down")
	case rest == "elsewhere":
		client.Issuer = "https://nobody.example"
	case rest == "nothing":
		return nil, nil
	}
	return oauth.NewClient(client)
}

func (g *guestSource) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	return stringOption(d, &g.Prefix)
}

func TestGuestsKnowClients(t *testing.T) {
	s := newSite(t)
	s.reload(demo+"clients guest first-\nclients guest second-", "token_denylist")
	guest := lastGuest
	for id, want := range map[string]int{
		"demo-app":         http.StatusOK, // without asking the guests
		"first-a":          http.StatusOK,
		"second-a":         http.StatusOK,
		"third-a":          http.StatusUnauthorized,
		"first-elsewhere":  http.StatusUnauthorized,
		"first-down":       http.StatusServiceUnavailable,
		"first-nothing":    http.StatusServiceUnavailable,
		"second-elsewhere": http.StatusUnauthorized,
	} {
		if got := s.revoke(url.Values{"token": {unknownJWT}, "client_id": {id}}); got.status != want {
			t.Errorf("%s: status %d, want %d", id, got.status, want)
		}
	}
	token := s.mint(issuer.MintRequest{Subject: "alice", ClientID: "second-a"})
	s.mustRevoke(token, "second-a")
	s.wantStatus(token, http.StatusUnauthorized, "revoked by a client of a guest")
	if !guest.started || guest.cleaned {
		t.Errorf("started %v, cleaned %v", guest.started, guest.cleaned)
	}
	s.reload(demo, "token_denylist\nheader X-Config 2")
	s.eventually("the guest to be cleaned up", func() bool { return guest.cleaned })
	// A secret of an unknown client is compared with bcrypt where a guest might
	// have it: the decoys are those of the sources.
	if d := (&clientRegistry{guests: []*guestClients{{decoy: oauth.DecoyOf(guest)}}}); d.guests[0].decoy("x") == nil {
		t.Error("no decoy for a guest's clients")
	}
}

func TestClientsThatContradictThemselvesAreConfigErrors(t *testing.T) {
	s := newSite(t)
	t.Setenv("SHORT_SECRET", "short")
	t.Setenv("HASHED_SECRET", "$2a$10$rBfBzofu1oW/p3ssfNEXXe.r05P6L0ykKSWt7SvjtcHq2Iir0Ahiq")
	two := strings.Replace(demo, "issuer development", "issuer development\nissuer https://b.example {\njwks_file /dev/null\n}", 1)
	at := func(iss string) string { return "client web public {\nissuer " + iss + "\n}\n" }
	s.reload(demo, "token_denylist")
	development := currentApp().development.Name()
	two = strings.ReplaceAll(two, "client demo-app public", "client demo-app public {\nissuer "+development+"\n}")
	two = strings.ReplaceAll(two, "client demo-service {env.DEMO_SERVICE_SECRET}", "")
	for name, tt := range map[string]struct{ options, want string }{
		"a short shared secret":         {demo + "client x {env.SHORT_SECRET} {\nmethod client_secret_jwt\n}", "needs at least 32"},
		"a hash as the shared secret":   {demo + "client x {env.HASHED_SECRET} {\nmethod client_secret_jwt\n}", "the secret itself, not its hash"},
		"a shared secret in the config": {demo + "client x 0123456789abcdef0123456789abcdef {\nmethod client_secret_jwt\n}", "from a placeholder"},
		"keys for a secret's method":    {demo + "client x {\nmethod client_secret_basic\njwks_uri https://a.example/jwks\n}", "secret is missing"},
		"HMAC with a public key":        {demo + "client x {\njwks_uri https://a.example/jwks\nalgorithms HS256\n}", "not one for a public key"},
		"no subject":                    {demo + "client x {\ntls_subject_dn app\n}", "distinguished name"},
		"jwks_uri over http":            {demo + "client x {\njwks_uri http://a.example/jwks\n}", "not https"},
		"one id at two issuers":         {two + at(development) + at("https://b.example"), "client web is registered at several issuers"},
		"a missing clients file":        {demo + "clients_file /nowhere/clients.json", "/nowhere/clients.json"},
	} {
		err := s.load(tt.options, "token_denylist")
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "0123456789abcdef") {
			t.Errorf("%s: the error has the secret: %v", name, err)
		}
	}
	if !s.knows("demo-app") {
		t.Error("a failed reload changed the clients")
	}
}
