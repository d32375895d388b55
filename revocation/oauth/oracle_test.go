package oauth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// Anybody can write any kid. A client whose keys have to be asked for must not
// answer otherwise to one than a client that does not exist.
func TestUnknownKeysTellNobodyWhichClientsExist(t *testing.T) {
	server := revocationtest.NewAuthServer(t)
	server.SetKeys(revocationtest.NewKey(t, "ES256", "first"))
	keys := keysOf(t, issuer.KeySourceConfig{JWKSURI: server.URL + revocationtest.JWKSPath})
	store, err := NewStaticClients(
		Client{ID: "remote", Issuer: issuerA, Keys: keys},
		Client{ID: "remote-tls", Issuer: issuerA, Methods: []AuthMethod{AuthSelfSignedTLS}, Keys: keys},
	)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, func(o *EndpointOptions) { o.Clients, o.Assertions = store, new(memoryAssertions) })
	stranger := (*authority)(nil).issue(t, &x509.Certificate{DNSNames: []string{"app.example"}}).Leaf
	got := make(map[string][]int)
	for i := range 30 {
		key := revocationtest.NewKey(t, "ES256", fmt.Sprint("made-up-", i))
		for _, id := range []string{"remote", "nobody"} {
			w := r.assert(revocationtest.SignWith(t, key, nil, r.claims(id, map[string]any{"jti": fmt.Sprint(i)})), nil)
			got[id] = append(got[id], w.Code)
		}
		for _, id := range []string{"remote-tls", "nobody-tls"} {
			w := r.post(url.Values{paramToken: {"x.y.z"}, paramClientID: {id}}.Encode(), func(req *http.Request) {
				req.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{stranger}}
			})
			got[id] = append(got[id], w.Code)
		}
	}
	want := slices.Concat(slices.Repeat([]int{http.StatusUnauthorized}, 10), slices.Repeat([]int{http.StatusTooManyRequests}, 20))
	for id, statuses := range got {
		if !slices.Equal(statuses, want) {
			t.Errorf("%s: %v", id, statuses)
		}
	}
}

// What tells clients apart by time is how many signatures are computed.
func TestEveryRefusedAssertionCostsOneSignature(t *testing.T) {
	r, a := assertingRig(t, func(o *EndpointOptions) { o.FailuresPerMinute = -1 })
	decoy, decoys := r.endpoint.auth.assertions.decoy, 0
	r.endpoint.auth.assertions.decoy = func(ctx context.Context, j *issuer.JWT) {
		decoys++
		decoy(ctx, j)
	}
	secret := jose.JSONWebKey{Key: []byte("not the secret, but sixty-four bytes of anything, so that all fit"), Algorithm: "HS256"}
	for _, tt := range []struct {
		name    string
		clients []string
		key     jose.JSONWebKey
		header  map[string]any
	}{
		{"a key of that name", []string{"signer", "es-only"}, a.other, nil},
		{"no key of that name", []string{"signer", "es-only"}, revocationtest.NewKey(t, "ES256", "x"), nil},
		{"no name", []string{"signer", "es-only"}, a.other, map[string]any{"kid": nil}},
		{"no key of that curve", []string{"signer", "es-only"}, revocationtest.NewKey(t, "ES512", "es"), nil},
		{"no key of that kind", []string{"signer", "es-only"}, revocationtest.NewKey(t, "EdDSA", "es"), nil},
		{"an algorithm that it does not use", []string{"es-only"}, revocationtest.NewKey(t, "RS256", "rs"), nil},
		{"a shared secret", []string{"mac", "signer"}, secret, nil},
		{"a named shared secret", []string{"mac", "signer"}, secret, map[string]any{"kid": "x"}},
		{"an algorithm that its secret is too short for", []string{"mac"}, secret, map[string]any{"alg": "HS512"}},
	} {
		for _, id := range append(tt.clients, "nobody", "app", "spa") {
			text := revocationtest.SignWith(t, tt.key, tt.header, r.claims(id, nil))
			j, err := issuer.ReadJWT(text)
			if err != nil {
				t.Fatal(err)
			}
			own := 0
			client, err := r.endpoint.auth.clients.Client(t.Context(), id)
			if err == nil && client.Keys != nil {
				if tried, _ := client.Keys.Try(t.Context(), j); tried && client.Keys.Shared() == (tt.key.Algorithm == "HS256") {
					own = 1
				}
			}
			decoys = 0
			if w := r.assert(text, nil); w.Code != http.StatusUnauthorized {
				t.Fatalf("%s, %s: status %d", tt.name, id, w.Code)
			}
			if own+decoys != 1 {
				t.Errorf("%s, %s: %d signatures with its own keys, %d with the decoy's", tt.name, id, own, decoys)
			}
		}
	}
}
