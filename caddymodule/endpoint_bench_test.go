package caddymodule

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// BenchmarkEndpoint compares what a revocation costs by how its client
// authenticates, with an embedded ledger that syncs every write, and says where
// the time goes. An assertion is recorded in the ledger, too, so that it can't be
// used again: that is part of client-ns.
func BenchmarkEndpoint(b *testing.B) {
	b.Setenv("XDG_DATA_HOME", b.TempDir())
	b.Setenv("XDG_CONFIG_HOME", b.TempDir())
	as := revocationtest.NewAuthServer(b)
	signer := revocationtest.NewKey(b, "ES256", "signer-1")
	app := benchApp(b, as, signer)
	forms := map[string]func(url.Values, http.Header){
		"public": func(f url.Values, _ http.Header) { f.Set("client_id", "spa") },
		"sha256_secret": func(_ url.Values, h http.Header) {
			h.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("service:"+benchSecret)))
		},
		"private_key_jwt": func(f url.Values, _ http.Header) {
			f.Set("client_assertion_type", oauth.AssertionType)
			f.Set("client_assertion", benchAssertion(b, as, signer))
		},
	}
	for name, client := range map[string]string{"public": "spa", "sha256_secret": "service", "private_key_jwt": "signer"} {
		b.Run(name, func(b *testing.B) {
			var sum oauth.Latency
			endpoint := benchEndpoint(b, app, func(o oauth.Outcome) {
				if o.Result != oauth.ResultRevoked {
					b.Fatalf("%+v", o)
				}
				sum.Client += o.Latency.Client
				sum.Token += o.Latency.Token
				sum.Ledger += o.Latency.Ledger
				sum.Apply += o.Latency.Apply
			})
			n := 0
			for b.Loop() {
				b.StopTimer()
				form := url.Values{"token": {as.Token(map[string]any{"client_id": client})}}
				header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
				forms[name](form, header)
				r := httptest.NewRequest(http.MethodPost, "/oauth/revoke", strings.NewReader(form.Encode()))
				r.Header = header
				w := httptest.NewRecorder()
				n++
				b.StartTimer()
				endpoint.ServeHTTP(w, r)
			}
			for part, took := range map[string]time.Duration{
				"client-ns/op": sum.Client, "token-ns/op": sum.Token, "ledger-ns/op": sum.Ledger, "apply-ns/op": sum.Apply,
			} {
				b.ReportMetric(float64(took)/float64(n), part)
			}
		})
	}
}

const benchSecret = "4f1c0f0e6ac94d9f8b7a2d3c5e6f7081"

func benchAssertion(b *testing.B, as *revocationtest.AuthServer, key jose.JSONWebKey) string {
	now := time.Now()
	return revocationtest.SignWith(b, key, nil, map[string]any{
		"iss": "signer", "sub": "signer", "aud": as.Issuer(), "jti": fmt.Sprint(now.UnixNano()),
		"iat": now.Unix(), "exp": now.Add(time.Minute).Unix(),
	})
}

// benchApp runs a Caddy and returns its app.
func benchApp(b *testing.B, as *revocationtest.AuthServer, signer jose.JSONWebKey) *App {
	b.Helper()
	jwks, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{signer.Public()}})
	if err != nil {
		b.Fatal(err)
	}
	digest := sha256.Sum256([]byte(benchSecret))
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt(fmt.Appendf(nil, `{
	admin off
	persist_config off
	log {
		level ERROR
	}
	token_revocation {
		embedded
		client_quota 100_000_000
		issuer %s {
			jwks_uri %s
		}
		client spa public
		client service sha256:%s
		client signer {
			jwks %s
		}
	}
}
`, as.URL, as.URL+revocationtest.JWKSPath, hex.EncodeToString(digest[:]), "`"+string(jwks)+"`"), nil)
	if err != nil {
		b.Fatal(err)
	}
	if err := caddy.Load(config, true); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = caddy.Stop() })
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if s := currentApp().status(); s.State == "in_sync" && s.Issuers[0].Ready {
			return currentApp()
		}
		if time.Now().After(deadline) {
			b.Fatal("waited too long for the edge to be in sync")
		}
	}
}

// benchEndpoint is the endpoint as the handler makes it, with a ledger that is
// timed and without its audit trail.
func benchEndpoint(b *testing.B, app *App, observe func(oauth.Outcome)) *oauth.Endpoint {
	b.Helper()
	options := oauth.EndpointOptions{
		Tokens:  app.resolver(""),
		Revoker: revocation.NewService(oauth.TimeLedger(app.replica), app.replica, revocation.Policy{}, nil),
		Observe: observe,
	}
	if err := app.setClients(&options); err != nil {
		b.Fatal(err)
	}
	options.Guard = oauth.NewGuard(oauth.GuardOptions{AssertionsPerSecond: -1}) // what it costs, not what is allowed
	endpoint, err := oauth.NewEndpoint(options)
	if err != nil {
		b.Fatal(err)
	}
	return endpoint
}
