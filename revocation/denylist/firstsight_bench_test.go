package denylist

import (
	"context"
	"encoding/base64"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
)

// BenchmarkFirstSight is a token of 870 bytes that was never seen: a miss,
// fingerprints, the cache's insert, and the check; without reading the token, and
// with the issuer package's reader, which verifies nothing here.
func BenchmarkFirstSight(b *testing.B) {
	const n = 20_000
	b.Run("identified", func(b *testing.B) {
		made := benchJWTs(n)
		tokens := make([]string, n)
		for i := range made {
			tokens[i] = made[i].token
		}
		benchFirstSight(b, tokens, func(i int, _ []string) *revocation.Identity { return made[i].id })
	})
	b.Run("read", func(b *testing.B) {
		tokens, set := unsignedJWTs(n), benchIssuers(b)
		benchFirstSight(b, tokens, func(i int, names []string) *revocation.Identity {
			id, _, err := set.Identify(context.Background(), tokens[i], issuer.Request{ClaimNames: names, SkipVerify: true})
			if err != nil {
				b.Fatal(err)
			}
			return id
		})
	})
}

// benchFirstSight does what a route does with tokens, and forgets them when it has
// seen all.
func benchFirstSight(b *testing.B, tokens []string, identify func(i int, names []string) *revocation.Identity) {
	d := benchDenylist(b, 1_000_000, benchShapes)
	runtime.GC()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if i == len(tokens) {
			b.StopTimer()
			d.Forget()
			i = 0
			b.StartTimer()
		}
		token := tokens[i]
		if _, ok := d.Lookup(token, 1); ok {
			b.Fatal("seen before")
		}
		names, epoch := d.ClaimNames()
		if d.CheckSeen(d.Remember(token, 1, identify(i, names), epoch)).Denied {
			b.Fatal("denied")
		}
		i++
	}
}

// benchIssuers trusts the test issuer, of which it has no keys.
func benchIssuers(tb testing.TB) *issuer.Set {
	tb.Helper()
	i, err := issuer.New(issuer.Config{Issuer: testIssuer, JWKSURI: testIssuer + "/jwks"}, issuer.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(i.Stop)
	set, err := issuer.NewSet(i)
	if err != nil {
		tb.Fatal(err)
	}
	return set
}

// unsignedJWTs have the length and the claims of an issuer's, and a signature of
// zeros.
func unsignedJWTs(n int) []string {
	encode := base64.RawURLEncoding.EncodeToString
	header := encode([]byte(`{"alg":"RS256","typ":"at+jwt","kid":"key-2026-01"}`))
	signature := encode(make([]byte, 256))
	tokens := make([]string, n)
	for i := range tokens {
		payload := fmt.Sprintf(`{"iss":%q,"aud":"orders","sub":"user-%d","client_id":"app","jti":%q,"sid":"session-%d",`+
			`"iat":%d,"exp":%d,"scope":"openid profile email","roles":["user","offline_access"],"pad":"`,
			testIssuer, i%1000, jti(i), i, time.Now().Unix(), time.Now().Unix()+3600)
		room := (870-len(header)-len(signature)-2)*3/4 - len(payload) - len(`"}`)
		tokens[i] = header + "." + encode([]byte(payload+strings.Repeat("x", max(room, 0))+`"}`)) + "." + signature
	}
	return tokens
}

// TestBenchmarkedTokensAreReal keeps the benchmark honest.
func TestBenchmarkedTokensAreReal(t *testing.T) {
	for _, token := range unsignedJWTs(2) {
		if len(token) < 860 || len(token) > 872 {
			t.Errorf("%d bytes", len(token))
		}
		id, _, err := benchIssuers(t).Identify(t.Context(), token, issuer.Request{SkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		for _, names := range benchShapes {
			for _, name := range names {
				if len(id.Values(name)) != 1 {
					t.Errorf("no %s in %+v", name, id)
				}
			}
		}
	}
}
