package oauth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// authority issues certificates, or is nil for one that signs itself.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	c := (*authority)(nil).issue(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "clients"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	return &authority{c.Leaf, c.PrivateKey.(*ecdsa.PrivateKey)}
}

func (a *authority) issue(t testing.TB, template *x509.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	if template.NotBefore.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	parent, signer := template, key
	if a != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// serveTLS serves the rig's endpoint as Caddy does with that mode of client_auth.
func (r *rig) serveTLS(t testing.TB, mode tls.ClientAuthType, a *authority) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(r.endpoint)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{ClientAuth: mode, MinVersion: tls.VersionTLS12}
	if a != nil {
		server.TLS.ClientCAs = x509.NewCertPool()
		server.TLS.ClientCAs.AddCert(a.cert)
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

// send posts a form over a new connection, with a certificate or without one.
func send(t testing.TB, server *httptest.Server, cert *tls.Certificate, form url.Values, change func(*http.Request)) (int, error) {
	t.Helper()
	transport := server.Client().Transport.(*http.Transport).Clone()
	defer transport.CloseIdleConnections()
	if cert != nil {
		transport.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", formMediaType)
	if change != nil {
		change(req)
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

func mustURL(t testing.TB, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func tlsClients(t testing.TB, more ...Client) *StaticClients {
	t.Helper()
	clients := []Client{
		{ID: "by-dn", Issuer: issuerA, Certificate: CertificateName{SubjectDN: "CN=app,O=Example,C=DE"}},
		{ID: "by-dns", Issuer: issuerA, Certificate: CertificateName{DNS: "App.example"}},
		{ID: "by-uri", Issuer: issuerA, Certificate: CertificateName{URI: "spiffe://example/app"}},
		{ID: "by-ip", Issuer: issuerA, Certificate: CertificateName{IP: "::ffff:192.0.2.7"}},
		{ID: "by-email", Issuer: issuerA, Certificate: CertificateName{Email: "app@example.com"}},
	}
	for c := range testClients(t).All() {
		clients = append(clients, *c)
	}
	s, err := NewStaticClients(append(clients, more...)...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCertificatesOfAnAuthorityAuthenticate(t *testing.T) {
	ca, elsewhere := newAuthority(t), newAuthority(t)
	template := func() *x509.Certificate {
		return &x509.Certificate{
			Subject:  pkix.Name{CommonName: "app", Organization: []string{"Example"}, Country: []string{"DE"}},
			DNSNames: []string{"other.example", "app.example"}, URIs: []*url.URL{mustURL(t, "spiffe://example/app")},
			IPAddresses: []net.IP{net.IPv4(192, 0, 2, 7)}, EmailAddresses: []string{"app@example.com"},
		}
	}
	good := ca.issue(t, template())
	other := ca.issue(t, &x509.Certificate{
		Subject:  pkix.Name{CommonName: "app", Organization: []string{"Example"}},
		DNSNames: []string{"*.example", "app.example.org"}, URIs: []*url.URL{mustURL(t, "spiffe://example/app/x")},
		IPAddresses: []net.IP{net.IPv4(192, 0, 2, 8)}, EmailAddresses: []string{"App@example.com"},
	})
	foreign := elsewhere.issue(t, template())
	selfSigned := (*authority)(nil).issue(t, template())
	r := newRig(t, func(o *EndpointOptions) {
		o.Clients, o.Now, o.FailuresPerMinute = tlsClients(t), time.Now, -1
	})
	verifying := r.serveTLS(t, tls.VerifyClientCertIfGiven, ca)
	asking := r.serveTLS(t, tls.RequestClientCert, nil)

	for _, id := range []string{"by-dn", "by-dns", "by-uri", "by-ip", "by-email"} {
		form := url.Values{"token": {"x.y.z"}, "client_id": {id}}
		for _, tt := range []struct {
			name   string
			server *httptest.Server
			cert   *tls.Certificate
			form   url.Values
			change func(*http.Request)
			status int // zero: the handshake fails
		}{
			{name: "its certificate", server: verifying, cert: &good, form: form, status: 200},
			{name: "a certificate with other names", server: verifying, cert: &other, form: form, status: 401},
			{name: "no certificate", server: verifying, form: form, status: 401},
			{name: "a certificate of another authority", server: verifying, cert: &foreign, form: form},
			{name: "a certificate that nobody verified", server: asking, cert: &foreign, form: form, status: 401},
			{name: "one that it signed itself", server: asking, cert: &selfSigned, form: form, status: 401},
			{name: "a certificate without client_id", server: verifying, cert: &good, form: url.Values{"token": {"x.y.z"}}, status: 401},
			{name: "a certificate and a secret", server: verifying, cert: &good, form: url.Values{"token": {"x.y.z"}, "client_id": {id}, "client_secret": {"x"}}, status: 401},
			{name: "a certificate and an empty Basic", server: verifying, cert: &good, form: url.Values{"token": {"x.y.z"}}, change: authorize(basicAuth(id, "")), status: 401},
			{name: "a header that claims one", server: verifying, form: form, change: func(r *http.Request) {
				r.Header.Set("X-Forwarded-Client-Cert", `Subject="CN=app,O=Example,C=DE"`)
				r.Header.Set("X-SSL-Client-Verify", "SUCCESS")
			}, status: 401},
			// The certificate of somebody else's connection is no second method.
			{name: "another client with its secret over the connection", server: verifying, cert: &good, form: url.Values{"token": {"x.y.z"}}, change: asApp, status: 200},
			{name: "a public client over the connection", server: verifying, cert: &good, form: url.Values{"token": {"x.y.z"}, "client_id": {"spa"}}, status: 200},
		} {
			status, err := send(t, tt.server, tt.cert, tt.form, tt.change)
			if tt.status == 0 && err == nil || tt.status != 0 && (err != nil || status != tt.status) {
				t.Errorf("%s, %s: status %d (%v), want %d", id, tt.name, status, err, tt.status)
			}
			if o := r.lastOutcome(t); tt.name == "its certificate" && (o.ClientID != id || o.Method != AuthTLS) {
				t.Errorf("%s: outcome %+v", id, o)
			}
		}
	}
}

func TestCertificateThatExpiresOnAConnectionNoLongerAuthenticates(t *testing.T) {
	ca := newAuthority(t)
	cert := ca.issue(t, &x509.Certificate{DNSNames: []string{"app.example"}})
	clock := newClock()
	clock.nanos.Store(time.Now().UnixNano())
	r := newRig(t, func(o *EndpointOptions) { o.Clients, o.Now = tlsClients(t), clock.now })
	server := r.serveTLS(t, tls.VerifyClientCertIfGiven, ca)
	form := url.Values{"token": {"x.y.z"}, "client_id": {"by-dns"}}
	if status, err := send(t, server, &cert, form, nil); err != nil || status != http.StatusOK {
		t.Fatalf("%d, %v", status, err)
	}
	clock.advance(2 * time.Hour) // as if the connection had lasted that long
	if status, err := send(t, server, &cert, form, nil); err != nil || status != http.StatusUnauthorized {
		t.Errorf("%d, %v", status, err)
	}
}

func TestSelfSignedCertificatesAuthenticateIfRegistered(t *testing.T) {
	self := (*authority)(nil)
	first, second := self.issue(t, &x509.Certificate{}), self.issue(t, &x509.Certificate{
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour),
	})
	stranger := self.issue(t, &x509.Certificate{})
	remote := revocationtest.NewAuthServer(t)
	jwk := func(c tls.Certificate) jose.JSONWebKey {
		return jose.JSONWebKey{Key: c.PrivateKey, KeyID: "k", Algorithm: "ES256", Use: "sig"}
	}
	remote.SetKeys(jwk(first))
	digests := [][sha256.Size]byte{sha256.Sum256(first.Leaf.Raw), sha256.Sum256(second.Leaf.Raw)}
	r := newRig(t, func(o *EndpointOptions) {
		o.Now, o.FailuresPerMinute = time.Now, -1
		o.Clients = tlsClients(t,
			Client{ID: "digests", Issuer: issuerA, Certificates: digests},
			Client{ID: "keys", Issuer: issuerA, Methods: []AuthMethod{AuthSelfSignedTLS}, Keys: keysOf(t, issuer.KeySourceConfig{JWKS: jwksOf(t, jwk(first), jwk(second))})},
			Client{ID: "remote", Issuer: issuerA, Methods: []AuthMethod{AuthSelfSignedTLS}, Keys: keysOf(t, issuer.KeySourceConfig{JWKSURI: remote.URL + revocationtest.JWKSPath})},
		)
	})
	server := r.serveTLS(t, tls.RequestClientCert, nil)
	try := func(id string, cert *tls.Certificate) int {
		t.Helper()
		status, err := send(t, server, cert, url.Values{"token": {"x.y.z"}, "client_id": {id}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return status
	}
	for _, id := range []string{"digests", "keys"} {
		for name, tt := range map[string]struct {
			cert *tls.Certificate
			want int
		}{
			"registered": {&first, 200}, "the other one, expired": {&second, 200}, "not registered": {&stranger, 401}, "none": {nil, 401},
		} {
			if got := try(id, tt.cert); got != tt.want {
				t.Errorf("%s, %s: %d, want %d", id, name, got, tt.want)
			}
		}
	}
	if o := r.lastOutcome(t); o.Method != "" && o.Method != AuthSelfSignedTLS {
		t.Errorf("outcome %+v", o)
	}
	if got := try("remote", &first); got != http.StatusOK {
		t.Errorf("a key at an address: %d", got)
	}
	remote.SetKeys(jwk(second))
	if got := try("remote", &second); got != http.StatusOK {
		t.Errorf("a new key at the address: %d", got)
	}
	if got := try("remote", &first); got != http.StatusUnauthorized {
		t.Errorf("the key that was replaced: %d", got)
	}
	remote.Fail(http.StatusBadGateway)
	if got := try("remote", &stranger); got != http.StatusServiceUnavailable {
		t.Errorf("a key that can't be asked for: %d", got)
	}
}
