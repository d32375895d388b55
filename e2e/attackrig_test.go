//go:build e2e

package e2e

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// Issuers of the attack table.
const (
	attackIssuer  = "https://as.test"
	foreignIssuer = "https://other.test"
	secretIssuer  = "https://secret.test"
	laxIssuer     = "https://lax.test" // accepts tokens without exp, and with a clock that is slow
	floodIssuer   = "https://flood.test"
	opaqueIssuer  = "https://opaque.test"
)

// attackRoutes are the routes that the table is run for, each a host of its own, in
// the order of the columns of the table.
var attackRoutes = []struct{ host, options string }{
	{"default.test", ""},
	{"inspect.test", attackPlaces("inspect")},
	{"strip.test", attackPlaces("strip") + "\nstrip header Authorization"},
	{"reject.test", attackPlaces("reject") + "\nreject header Authorization"},
	{"off.test", "verify off"},
	{"plain.test", "-"}, // no token_denylist: what would arrive without it
	{"loose.test", "pass_unknown\nunknown_issuer pass"},
	{opaqueHost, "opaque_issuer " + opaqueIssuer},
}

func attackPlaces(action string) string {
	return strings.ReplaceAll("DO header X-Access-Token\nDO cookie session\nDO query\nDO form", "DO", action)
}

// Further routes, for the rows that are about one of them.
const (
	opaqueHost = "opaque.test"
	pathsHost  = "paths.test"  // the denylist is on /api/* only
	publicHost = "public.test" // the denylist is on all but /public/*
	underHost  = "under.test"  // on a server that lets X_Access_Token through
)

// attackRig is one edge with all the routes, and what it talks to.
type attackRig struct {
	t    testing.TB
	keys *attackKeys
	echo *echo
	edge *edge
	tls  string // host:port of HTTPS and HTTP/3
	// host:port of the server that lets a header with underscores through
	under string
	ca    *x509.CertPool
}

func newAttackRig(t testing.TB) *attackRig {
	t.Helper()
	r := &attackRig{
		t: t, keys: newAttackKeys(t), echo: startEcho(t),
		tls: fmt.Sprintf("127.0.0.1:%d", revocationtest.FreePort(t)), under: fmt.Sprintf("127.0.0.1:%d", revocationtest.FreePort(t)),
	}
	dir := t.TempDir()
	r.certificate(dir)
	r.edge = newEdge(t, "attacked edge", r.caddyfile(dir))
	r.edge.logs.forbid(r.keys.secret)
	r.edge.run()
	return r
}

func (r *attackRig) caddyfile(dir string) string {
	var b strings.Builder
	jwks := r.keys.server.URL
	fmt.Fprintf(&b, `{
	auto_https off
	servers %s {
		expected_underscore_headers X_access_token
	}
	servers {
		protocols h1 h2 h2c h3
		max_header_size 1MiB # so that long tokens get as far as to the module
	}
	token_revocation {
		embedded
		issuer %s {
			jwks_uri %s/own
			audience api
		}
		issuer %s {
			jwks_uri %s/foreign
		}
		issuer %s {
			hmac_secret %s
		}
		issuer %s {
			jwks_uri %s/own
			allow_missing_expiry
			leeway 5m
		}
		issuer %s {
			jwks_uri %s/flooded
		}
		issuer %s {
			opaque
		}
	}
}
`, r.under, attackIssuer, jwks, foreignIssuer, jwks, secretIssuer, r.keys.secret, laxIssuer, jwks, floodIssuer, jwks, opaqueIssuer)
	site := func(host, denylists string) {
		for _, address := range []string{"http://" + host + ":8080", "https://" + host + r.tls[strings.LastIndex(r.tls, ":"):]} {
			fmt.Fprintf(&b, "%s {\n\tbind 127.0.0.1\n", address)
			if strings.HasPrefix(address, "https:") {
				fmt.Fprintf(&b, "\ttls %s %s\n", filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
			}
			fmt.Fprintf(&b, "%s\n\treverse_proxy %s\n}\n", denylists, r.echo.address)
		}
	}
	for _, route := range attackRoutes {
		denylist := "\ttoken_denylist {\n" + route.options + "\n\t}"
		if route.options == "-" {
			denylist = ""
		}
		site(route.host, denylist)
	}
	fmt.Fprintf(&b, "http://%s%s {\n\tbind 127.0.0.1\n\ttoken_denylist {\n%s\n\t}\n\treverse_proxy %s\n}\n",
		underHost, r.under[strings.LastIndex(r.under, ":"):], attackPlaces("inspect"), r.echo.address)
	site(pathsHost, "\ttoken_denylist /api/*")
	site(publicHost, "\t@protected not path /public/*\n\ttoken_denylist @protected")
	return b.String()
}

// certificate writes a certificate for all the routes.
func (r *attackRig) certificate(dir string) {
	r.t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "attack table"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{pathsHost, publicHost},
	}
	for _, route := range attackRoutes {
		template.DNSNames = append(template.DNSNames, route.host)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, r.keys.attacker.Public(), r.keys.attacker)
	if err != nil {
		r.t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(r.keys.attacker)
	if err != nil {
		r.t.Fatal(err)
	}
	r.ca = x509.NewCertPool()
	for name, block := range map[string]*pem.Block{
		"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: key},
	} {
		content := pem.EncodeToMemory(block)
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			r.t.Fatal(err)
		}
		r.ca.AppendCertsFromPEM(content)
	}
}

// revoke records a revocation, with what the admin API takes.
func (r *attackRig) revoke(body map[string]any) {
	r.t.Helper()
	if _, one := body["token"]; !one {
		body["lifetime"], body["mode"] = "1h", "block"
	}
	if a := r.edge.api(http.MethodPost, "/token_revocation/revocations", body); a.status != http.StatusOK {
		r.t.Fatalf("revoking %v: %s", body["claims"], a)
	}
}
