package issuer

import (
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

func TestClaimsAreExtractedUnderCanonicalNames(t *testing.T) {
	as := revocationtest.NewAuthServer(t)
	set, _ := trustServer(t, as, func(c *Config) {
		c.Claims = map[string]Names{"client_id": {"azp", "client_id"}, "jti": {"uti"}, "tenant": {"tid"}}
	})
	for _, c := range []struct {
		name   string
		claims map[string]any
		extra  []string
		want   map[string][]string
	}{
		{"mapped", map[string]any{"uti": "u", "azp": "a", "client_id": nil}, nil, map[string][]string{"jti": {"u"}, "client_id": {"a"}}},
		{"what is mapped away does not count", map[string]any{"jti": "forged"}, nil, map[string][]string{"jti": nil}},
		// Whoever revokes one of them is right, and neither owns the token.
		{"two clients", map[string]any{"azp": "first", "client_id": "second"}, nil, map[string][]string{"client_id": {"first", "second"}}},
		{"one client twice", map[string]any{"azp": "a", "client_id": "a"}, nil, map[string][]string{"client_id": {"a"}}},
		{"second alternative", map[string]any{"client_id": "second"}, nil, map[string][]string{"client_id": {"second"}}},
		{"null and empty are no value", map[string]any{"azp": "", "client_id": "second", "sub": ""}, nil, map[string][]string{"client_id": {"second"}, "sub": nil}},
		{"numbers", map[string]any{"sub": 4711, "n": 5.0}, []string{"n"}, map[string][]string{"sub": {"4711"}, "n": {"5"}}},
		{"booleans", map[string]any{"admin": true, "bot": false}, []string{"admin", "bot"}, map[string][]string{"admin": {"true"}, "bot": {"false"}}},
		{"not asked for", map[string]any{"role": "x"}, nil, map[string][]string{"role": nil}},
		{"array", map[string]any{"role": []any{"b", "a", 7, true, nil, "", map[string]any{"x": 1}, []any{"y"}}}, []string{"role"},
			map[string][]string{"role": {"7", "a", "b", "true"}}},
		{"array with a value twice", map[string]any{"role": []any{"a", "a"}}, []string{"role"}, map[string][]string{"role": {"a"}}},
		{"empty array", map[string]any{"role": []any{}}, []string{"role"}, map[string][]string{"role": nil}},
		{"object is no value", map[string]any{"role": map[string]any{"a": "b"}}, []string{"role"}, map[string][]string{"role": nil}},
		{"mapped extra", map[string]any{"tid": "t", "tenant": "forged"}, []string{"tenant"}, map[string][]string{"tenant": {"t"}}},
		{"names of our own are not read", map[string]any{"token": "forged", "kid": "forged"}, []string{"token", "kid"}, nil},
		{"well-known names asked for again", nil, []string{"sub", "jti"}, map[string][]string{"sub": {"alice"}}},
		{"standard claims", map[string]any{"aud": []any{"a", "b"}}, []string{"aud"}, map[string][]string{"aud": {"a", "b"}}},
		{"64 values", map[string]any{"role": numbers(64)}, []string{"role"}, nil},
		{"1024 bytes", map[string]any{"sub": strings.Repeat("é", 512)}, nil, map[string][]string{"sub": {strings.Repeat("é", 512)}}},
		{"escapes", map[string]any{"sub": "a\"\\/\b\f\n\r\t\u2028😀<>&"}, nil, map[string][]string{"sub": {"a\"\\/\b\f\n\r\t\u2028😀<>&"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			id := accept(t, set, as.Token(c.claims), Request{ClaimNames: c.extra})
			for name, want := range c.want {
				var got []string
				for _, v := range id.Values(name) {
					got = append(got, v.Value)
				}
				if !reflect.DeepEqual(got, want) {
					t.Errorf("%s: got %q, want %q", name, got, want)
				}
			}
			if len(id.Values(revocation.ClaimToken)) != 1 || len(id.Values(revocation.ClaimKeyID)) != 1 ||
				id.Values("token")[0].Value == "forged" || id.Values("kid")[0].Value == "forged" {
				t.Errorf("token %v, kid %v", id.Values("token"), id.Values("kid"))
			}
			sorted := slices.Clone(id.Claims)
			revocation.SortClaims(sorted)
			if !reflect.DeepEqual(sorted, id.Claims) {
				t.Error("the claims are not sorted")
			}
		})
	}
}

func TestValuesThatCannotBeComparedAreRefused(t *testing.T) {
	as := revocationtest.NewAuthServer(t)
	set, _ := trustServer(t, as, nil)
	for name, claims := range map[string]map[string]any{
		"sub is an array":        {"sub": []string{"alice"}},
		"jti is an object":       {"jti": map[string]any{}},
		"client_id is a boolean": {"client_id": true},
		"sid is an array":        {"sid": []string{}},
		"sub is too long":        {"sub": strings.Repeat("x", 1025)},
		"jti is too long":        {"jti": strings.Repeat("x", 1025)},
		"role is too long":       {"role": strings.Repeat("x", 1025)},
		"one role is too long":   {"role": []string{"a", strings.Repeat("x", 1025)}},
		"65 roles":               {"role": numbers(65)},
	} {
		t.Run(name, func(t *testing.T) {
			token := as.Token(claims)
			refuse(t, set, token, Request{ClaimNames: []string{"role"}}, ErrInvalid)
			refuse(t, set, token, Request{ClaimNames: []string{"role"}, SkipVerify: true}, ErrInvalid)
		})
	}
}

func numbers(n int) []string {
	var all []string
	for i := range n {
		all = append(all, strconv.Itoa(i))
	}
	return all
}

func TestOtherKindsOfTokensAreNoAccessTokens(t *testing.T) {
	as := revocationtest.NewAuthServer(t)
	lenient, _ := trustServer(t, as, nil)
	strict, _ := trustServer(t, as, func(c *Config) { c.Types = []string{"strict"} })
	jwt, _ := trustServer(t, as, func(c *Config) { c.Types = []string{"JWT", "application/At+Jwt"} })
	events := map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}
	for _, c := range []struct {
		name                 string
		typ                  any
		claims               map[string]any
		lenient, strict, jwt bool
	}{
		{"at+jwt", "at+jwt", nil, true, true, true},
		{"in another case", "AT+JWT", nil, true, true, true},
		{"as media type", "application/at+jwt", nil, true, true, true},
		{"as media type in another case", "Application/At+Jwt", nil, true, true, true},
		{"JWT", "JWT", nil, true, false, true},
		{"none", nil, nil, true, false, true},
		{"empty", "", nil, true, false, true},
		{"unheard of", "acme+jwt", nil, true, false, false},
		{"logout token", "logout+jwt", map[string]any{"events": events}, false, false, false},
		{"logout token without typ", nil, map[string]any{"events": events}, false, false, false},
		{"logout token of typ JWT", "JWT", map[string]any{"events": events}, false, false, false},
		{"security event", "secevent+jwt", nil, false, false, false},
		{"security event as media type", "application/secevent+jwt", nil, false, false, false},
		{"DPoP proof", "DPoP+JWT", nil, false, false, false},
		{"introspection answer", "token-introspection+jwt", nil, false, false, false},
		{"client assertion", "client-authentication+jwt", nil, false, false, false},
		{"request object", "oauth-authz-req+jwt", nil, false, false, false},
		{"status list", "statuslist+jwt", nil, false, false, false},
		{"global token revocation", "global-token-revocation+jwt", nil, false, false, false},
		{"ID token with at_hash", "JWT", map[string]any{"at_hash": "x", "azp": "app"}, false, false, false},
		{"ID token with nonce", nil, map[string]any{"nonce": "n", "client_id": nil}, false, false, false},
		{"access token with nonce and azp", "JWT", map[string]any{"nonce": "n", "client_id": nil, "azp": "app"}, true, false, true},
		{"Keycloak's ID token", "JWT", map[string]any{"typ": "ID"}, false, false, false},
		{"Keycloak's refresh token", "JWT", map[string]any{"typ": "Refresh"}, false, false, false},
		{"Keycloak's access token", "JWT", map[string]any{"typ": "Bearer"}, true, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			token := revocationtest.SignWith(t, as.Key("ES256"), map[string]any{"typ": c.typ}, as.Claims(c.claims))
			for _, policy := range []struct {
				name string
				set  *Set
				want bool
			}{{"lenient", lenient, c.lenient}, {"strict", strict, c.strict}, {"list", jwt, c.jwt}} {
				if policy.want {
					accept(t, policy.set, token, Request{})
				} else {
					refuse(t, policy.set, token, Request{}, ErrInvalid)
				}
			}
		})
	}
}
