package issuer

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// token870 returns a token of about 870 bytes, as issuers make them.
func token870(t testing.TB, as *revocationtest.AuthServer) string {
	t.Helper()
	token := as.Sign(as.Claims(map[string]any{
		"azp": "app", "scope": "openid profile email", "auth_time": time.Now().Unix(), "acr": "1",
		"realm_access": map[string]any{"roles": []string{"user", "offline_access"}}, "pad": strings.Repeat("x", 40),
	}), "RS256")
	if len(token) < 820 || len(token) > 920 {
		t.Fatalf("%d bytes", len(token))
	}
	return token
}

func TestReadingATokenAllocatesLittle(t *testing.T) {
	as := revocationtest.NewAuthServer(t)
	set, _ := trustServer(t, as, nil)
	token := token870(t, as)
	allocs := testing.AllocsPerRun(100, func() {
		if _, _, err := set.Identify(context.Background(), token, Request{SkipVerify: true}); err != nil {
			t.Fatal(err)
		}
	})
	if raceEnabled {
		t.Skipf("%.0f allocations; pools are not kept under the race detector", allocs)
	}
	if allocs > 4 {
		t.Errorf("%.0f allocations", allocs)
	}
}

// BenchmarkRead compares reading a token of 870 bytes with reading and verifying
// it, both up to its identity.
func BenchmarkRead(b *testing.B) {
	as := revocationtest.NewAuthServer(b)
	set, _ := trustServer(b, as, nil)
	token := token870(b, as)
	es := as.Token(nil)
	for _, c := range []struct {
		name, token string
		req         Request
	}{
		{"read only", token, Request{SkipVerify: true}},
		{"verify RS256", token, Request{}},
		{"verify ES256", es, Request{}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := set.Identify(context.Background(), c.token, c.req); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("garbage", func(b *testing.B) {
		garbage := strings.Repeat("x", 300) + "." + strings.Repeat("y", 300) + "." + strings.Repeat("z", 300)
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := set.Identify(context.Background(), garbage, Request{}); err == nil {
				b.Fatal("accepted")
			}
		}
	})
}
