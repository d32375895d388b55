package oauth

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
)

func TestChallengeWritesEachAttributeOnceInLegalCharacters(t *testing.T) {
	tests := []struct {
		name string
		c    Challenge
		want string
	}{
		{"nothing given still has an attribute", Challenge{}, `Bearer realm="oauth"`},
		{"no token: no error", Challenge{Realm: "x"}, `Bearer realm="x"`},
		{
			"revoked token", Challenge{Realm: "x", Error: ErrorInvalidToken, Description: "the token was revoked"},
			`Bearer realm="x", error="invalid_token", error_description="the token was revoked"`,
		},
		{"a description needs an error", Challenge{Realm: "x", Description: "d"}, `Bearer realm="x"`},
		{"no realm", Challenge{Error: ErrorInvalidRequest}, `Bearer error="invalid_request"`},
		{"scope", Challenge{Realm: "x", Scope: "a  b"}, `Bearer realm="x", scope="a b"`},
		{
			"metadata", Challenge{Realm: "x", ResourceMetadata: "https://r.example/.well-known/oauth-protected-resource"},
			`Bearer realm="x", resource_metadata="https://r.example/.well-known/oauth-protected-resource"`,
		},
		{
			"dpop", Challenge{Scheme: SchemeDPoP, Error: ErrorInvalidToken, Algorithms: "ES256 RS256"},
			`DPoP error="invalid_token", algs="ES256 RS256"`,
		},
		{"algorithms are for dpop only", Challenge{Realm: "x", Algorithms: "ES256"}, `Bearer realm="x"`},
		{"basic", Challenge{Scheme: "Basic", Realm: "token revocation"}, `Basic realm="token revocation"`},
		{"a quote ends nothing", Challenge{Realm: `x", error="y`}, `Bearer realm="x?, error=?y"`},
		{"a backslash escapes nothing", Challenge{Realm: `x\`}, `Bearer realm="x?"`},
		{"a line break begins nothing", Challenge{Realm: "x\r\nSet-Cookie: y"}, `Bearer realm="x??Set-Cookie: y"`},
		{"no bytes outside of ASCII", Challenge{Realm: "ü\xff"}, `Bearer realm="??"`},
		{"an illegal scope is dropped", Challenge{Realm: "x", Scope: "a b\"c d"}, `Bearer realm="x", scope="a d"`},
		{"an illegal address is dropped", Challenge{Realm: "x", ResourceMetadata: "https://r.example/ü"}, `Bearer realm="x"`},
		{"an address with a space is dropped", Challenge{Realm: "x", ResourceMetadata: "https://r.example/ x"}, `Bearer realm="x"`},
		{"only illegal things still have an attribute", Challenge{Scope: `"`}, `Bearer realm="oauth"`},
		{"a scheme that is none", Challenge{Scheme: "x y", Realm: "z"}, `Bearer realm="z"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.c.String(); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestChallengeBoundsItsTexts(t *testing.T) {
	if n := len(Challenge{Realm: strings.Repeat("r", 1<<20)}.String()); n > 2*maxText {
		t.Errorf("a challenge of %d bytes", n)
	}
}

var challengeForm = regexp.MustCompile(`^[A-Za-z0-9!#$%&'*+.^_|~` + "`" + `-]+ [a-z_]+="[\x20\x21\x23-\x5b\x5d-\x7e]*"(, [a-z_]+="[\x20\x21\x23-\x5b\x5d-\x7e]*")*$`)

// FuzzChallenge checks the grammar of RFC 6750, section 3, whatever the texts are.
func FuzzChallenge(f *testing.F) {
	f.Add("Bearer", "realm", "error", "text", "scope a", "https://x")
	f.Add("", `"\`, "\r\n", "ü", "\x00", " ")
	f.Fuzz(func(t *testing.T, scheme, realm, code, text, scope, metadata string) {
		s := Challenge{scheme, realm, code, text, scope, metadata, scope}.String()
		if !challengeForm.MatchString(s) {
			t.Fatalf("not a challenge: %q", s)
		}
		for _, name := range []string{"realm", "error", "error_description", "scope", "resource_metadata", "algs"} {
			if n := strings.Count(s, " "+name+`="`); n > 1 {
				t.Fatalf("%s appears %d times in %q", name, n, s)
			}
		}
		h := http.Header{}
		h.Set("WWW-Authenticate", s)
		var b strings.Builder
		if err := h.Write(&b); err != nil || strings.Count(b.String(), "\r\n") != 1 {
			t.Fatalf("not one header line: %q", b.String())
		}
	})
}
