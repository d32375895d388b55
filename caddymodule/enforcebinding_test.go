package caddymodule

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// RFC 8705, section 3: a token that is bound to a certificate is good for its
// holder only.
func TestCertificateBoundTokensNeedTheirCertificate(t *testing.T) {
	s := newSite(t)
	as := revocationtest.NewAuthServer(t)
	c := newCertificates(t)
	secure := revocationtest.FreePort(t)
	site := func(address, tlsBlock string) string {
		return address + " {\nbind 127.0.0.1\n" + tlsBlock + "\nhandle /off {\ntoken_denylist {\nverify off\n}\nrespond \"upstream reached\"\n}\n" +
			"handle {\ntoken_denylist\nrespond \"upstream reached\"\n}\n}\n"
	}
	config := fmt.Sprintf("{\nadmin 127.0.0.1:%d\npersist_config off\nskip_install_trust\nauto_https disable_redirects\nlog {\nlevel ERROR\n}\ntoken_revocation {\n%s\n}\n}\n", s.admin, trusting(as)) +
		site(fmt.Sprintf("https://localhost:%d", secure), "tls internal {\nclient_auth {\nmode request\n}\n}") +
		site(fmt.Sprintf("http://127.0.0.1:%d", s.port), "")
	if err := s.loadConfig(config); err != nil {
		t.Fatal(err)
	}
	thumbprint := func(cert tls.Certificate) string {
		sum := sha256.Sum256(cert.Certificate[0])
		return base64.RawURLEncoding.EncodeToString(sum[:])
	}
	bound := as.Token(map[string]any{"cnf": map[string]any{"x5t#S256": thumbprint(c.client)}})
	try := func(path, token string, cert *tls.Certificate) (int, error) {
		t.Helper()
		tlsConfig := &tls.Config{InsecureSkipVerify: true, ServerName: "localhost"}
		if cert != nil {
			tlsConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
		}
		transport := &http.Transport{TLSClientConfig: tlsConfig}
		defer transport.CloseIdleConnections()
		r, err := http.NewRequestWithContext(t.Context(), "GET", fmt.Sprintf("https://127.0.0.1:%d%s", secure, path), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = fmt.Sprintf("localhost:%d", secure)
		r.Header.Set("Authorization", "Bearer "+token)
		response, err := (&http.Client{Transport: transport, Timeout: 20 * time.Second}).Do(r)
		if err != nil {
			return 0, err
		}
		defer response.Body.Close()
		return response.StatusCode, nil
	}
	s.eventually("the edge to serve", func() bool {
		status, err := try("/", as.Token(nil), nil)
		return err == nil && status == http.StatusOK
	})
	for name, tt := range map[string]struct {
		path, token string
		cert        *tls.Certificate
		want        int
	}{
		"its certificate":             {"/", bound, &c.client, 200},
		"another one":                 {"/", bound, &c.selfSigned, 401},
		"none":                        {"/", bound, nil, 401},
		"none, again":                 {"/", bound, nil, 401},
		"left to the upstream":        {"/off", bound, nil, 200},
		"a token that is not bound":   {"/", as.Token(nil), &c.client, 200},
		"a binding that is no object": {"/", as.Token(map[string]any{"cnf": "x5t#S256"}), &c.client, 401},
	} {
		if got, err := try(tt.path, tt.token, tt.cert); err != nil || got != tt.want {
			t.Errorf("%s: %d, %v, want %d", name, got, err, tt.want)
		}
	}
	if got := s.get(bound); got.status != 401 || !strings.Contains(got.header.Get("WWW-Authenticate"), "invalid_token") {
		t.Errorf("over plain HTTP: %d %v", got.status, got.header)
	}
}

// RFC 9449, section 7.2: a token for DPoP is not taken without a proof.
func TestDPoPTokensAreNotDowngraded(t *testing.T) {
	s := newSite(t)
	as := revocationtest.NewAuthServer(t)
	s.mustLoad(trusting(as), "handle /off {\ntoken_denylist {\nverify off\n}\nrespond \"upstream reached\"\n}\n"+
		"handle {\ntoken_denylist {\ninspect cookie session\n}\nrespond \"upstream reached\"\n}")
	bound := as.Token(map[string]any{"cnf": map[string]any{"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}})
	for name, c := range map[string]struct {
		header http.Header
		want   int
	}{
		"with a proof":      {http.Header{"Authorization": {"DPoP " + bound}, "Dpop": {"eyJ.eyJ.c2ln"}}, 200},
		"as Bearer":         {http.Header{"Authorization": {"Bearer " + bound}, "Dpop": {"eyJ.eyJ.c2ln"}}, 401},
		"without a proof":   {http.Header{"Authorization": {"DPoP " + bound}}, 401},
		"with an empty one": {http.Header{"Authorization": {"DPoP " + bound}, "Dpop": {""}}, 401},
		"one that vanishes": {http.Header{"Authorization": {"DPoP " + bound}, "Dpop": {"eyJ.eyJ.c2ln"}, "Connection": {"dpop"}}, 400},
		"with two proofs":   {http.Header{"Authorization": {"DPoP " + bound}, "Dpop": {"a", "b"}}, 400},
		"in another place":  {http.Header{"Cookie": {"session=" + bound}}, 401},
		"an unbound Bearer": {bearer(as.Token(nil)), 200},
	} {
		for range 2 {
			if got := s.do("GET", s.url("/"), c.header, ""); got.status != c.want {
				t.Errorf("%s: %d, want %d", name, got.status, c.want)
			}
		}
	}
	if got := s.do("GET", s.url("/off"), bearer(bound), ""); got.status != 200 {
		t.Errorf("left to the upstream: %d", got.status)
	}
}

// With verify off, the upstream checks what a token is bound to. Of an introspected
// one, it can't know.
func TestBindingOfIntrospectedTokensIsChecked(t *testing.T) {
	s := newSite(t)
	as := revocationtest.NewOpaqueServer(t, edgeSecret)
	s.mustLoad(opaqueOptions(t, as), "handle {\ntoken_denylist {\nverify off\nintrospect\n}\nrespond \"{http.token_denylist.decision} {http.token_denylist.sub}\"\n}")
	if got := s.get(as.Issue(nil)); got.status != 200 || got.body != "allowed alice" {
		t.Errorf("an unbound one: %d %q", got.status, got.body)
	}
	for _, method := range []string{"jkt", "x5t#S256"} {
		bound := as.Issue(map[string]any{"cnf": map[string]any{method: "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}})
		s.wantStatus(bound, 401, method)
		s.wantStatus(bound, 401, method+", again")
	}
}
