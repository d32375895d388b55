package issuer

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

func TestRespelledOpaqueTokensHaveOneHash(t *testing.T) {
	hash := func(token string) string {
		h, err := OpaqueTokenHash(token)
		if err != nil {
			t.Fatalf("%q: %v", token, err)
		}
		return h
	}
	raw := make([]byte, 32)
	_, _ = rand.Read(raw)
	raw[0], raw[1], raw[2] = 0xfb, 0xff, 0xfe // "-__-" or "+//+"
	token := base64.RawURLEncoding.EncodeToString(raw)
	want := hash(token)
	for _, same := range append(revocationtest.Respellings(token),
		base64.URLEncoding.EncodeToString(raw), base64.StdEncoding.EncodeToString(raw), base64.RawStdEncoding.EncodeToString(raw)) {
		if hash(same) != want {
			t.Errorf("%q and %q differ", same, token)
		}
	}
	// An encrypted token: every segment has spare bits of its own.
	if hash("AA.AAA.AAAA.AA.AAA") != hash("AP.AAD.AAAA.AB.AAC") {
		t.Error("spellings of the segments of a JWE differ")
	}
	different := []string{
		token, token[:42], token + "A", token + ".", "." + token, ".." + token, "A.B", "AB", "AA.", "AAAB", "AAAA", "a:b", "a:c", "a~b", "a~c", "A", "B",
		"AAAAA", "AAAAB",
	}
	seen := make(map[string]string)
	for _, d := range different {
		if other, twice := seen[hash(d)]; twice {
			t.Errorf("%q and %q have the same hash", d, other)
		}
		seen[hash(d)] = d
	}
	for _, bad := range []string{"", "a b", "a\r", "a\n", "é", "\x00", "\x7f", strings.Repeat("a", maxToken+1)} {
		if _, err := OpaqueTokenHash(bad); !errors.Is(err, ErrNotAToken) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
