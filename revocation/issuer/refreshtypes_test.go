package issuer

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// Refresh tokens that are JWTs are identified for whoever asks for them, with the
// issuer's keys, and are access tokens for nobody.
func TestRefreshTokensAreIdentifiedOnRequest(t *testing.T) {
	as := revocationtest.NewAuthServer(t)
	set, _ := trustServer(t, as, func(c *Config) { c.RefreshTypes = []string{"RT", "application/Offline+JWT"} })
	es := as.Key("ES256")
	forged := revocationtest.NewAuthServer(t).Key("ES256")
	forged.KeyID = es.KeyID
	hs := jose.JSONWebKey{Key: []byte(strings.Repeat("k", 64)), KeyID: "realm", Algorithm: "HS512"}
	sign := func(key jose.JSONWebKey, typ any, claims map[string]any) string {
		return revocationtest.SignWith(t, key, map[string]any{"typ": typ}, as.Claims(claims))
	}
	escaped, err := json.Marshal(as.Claims(map[string]any{"token_use": "refresh"}))
	if err != nil {
		t.Fatal(err)
	}
	escaped = bytes.Replace(escaped, []byte(`"refresh"`), []byte(`"\u0072efresh"`), 1)
	for name, c := range map[string]struct {
		token string
		use   TokenUse
		kind  error    // nil: it is identified
		says  TokenUse // of the error
	}{
		"access token":                   {sign(es, "at+jwt", nil), UseAccess, nil, 0},
		"access token that is just JWT":  {sign(es, "JWT", nil), UseAccess, nil, 0},
		"configured claim":               {sign(es, "JWT", map[string]any{"typ": "RT"}), UseRefresh, nil, 0},
		"configured header":              {sign(es, "offline+jwt", nil), UseRefresh, nil, 0},
		"known header":                   {sign(es, "rt+jwt", nil), UseRefresh, nil, 0},
		"Keycloak's claim":               {sign(es, "JWT", map[string]any{"typ": "Offline"}), UseRefresh, nil, 0},
		"token_use":                      {sign(es, "JWT", map[string]any{"token_use": "refresh"}), UseRefresh, nil, 0},
		"token_use, in capitals":         {sign(es, "JWT", map[string]any{"token_use": "REFRESH_TOKEN"}), UseRefresh, nil, 0},
		"token_type":                     {sign(es, "JWT", map[string]any{"token_type": "refresh"}), UseRefresh, nil, 0},
		"token_type, as a URN":           {sign(es, "JWT", map[string]any{"token_type": "urn:ietf:params:oauth:token-type:refresh_token"}), UseRefresh, nil, 0},
		"token_use, escaped":             {revocationtest.SignWith(t, es, nil, escaped), UseRefresh, nil, 0},
		"token_use beside a header":      {sign(es, "at+jwt", map[string]any{"token_use": "refresh"}), UseRefresh, nil, 0},
		"token_use of an access token":   {sign(es, "JWT", map[string]any{"token_use": "access", "token_type": "Bearer"}), UseAccess, nil, 0},
		"token_use that is no text":      {sign(es, "JWT", map[string]any{"token_use": []string{"refresh"}}), UseAccess, nil, 0},
		"access token by header":         {sign(es, "at+jwt", map[string]any{"typ": "RT"}), UseAccess, nil, 0},
		"forged":                         {sign(forged, "rt+jwt", nil), 0, ErrInvalid, UseUnknown},
		"not signed":                     {sign(hs, "rt+jwt", nil) + "x", 0, ErrOtherKind, UseRefresh},
		"with a MAC":                     {sign(hs, "JWT", map[string]any{"typ": "Refresh"}), 0, ErrOtherKind, UseRefresh},
		"with a MAC, who knows":          {sign(hs, "JWT", nil), 0, ErrOtherKind, UseUnknown},
		"ID token with a MAC":            {sign(hs, "JWT", map[string]any{"at_hash": "x"}), 0, ErrOtherKind, UseOther},
		"ID token":                       {sign(es, "JWT", map[string]any{"typ": "ID"}), 0, ErrOtherKind, UseOther},
		"logout token":                   {sign(es, "logout+jwt", nil), 0, ErrOtherKind, UseOther},
		"security event":                 {sign(es, "JWT", map[string]any{"events": map[string]any{}}), 0, ErrOtherKind, UseOther},
		"unsigned, and says what it was": {sign(jose.JSONWebKey{Key: []byte(strings.Repeat("k", 64)), Algorithm: "HS512"}, "rt+jwt", nil), 0, ErrOtherKind, UseRefresh},
	} {
		t.Run(name, func(t *testing.T) {
			id, i, use, err := set.IdentifyUse(t.Context(), c.token, Request{Wait: true, Refresh: true})
			switch {
			case c.kind == nil && (err != nil || use != c.use || !id.Verified || i == nil):
				t.Errorf("%v, %v", use, err)
			case c.kind != nil && (!errors.Is(err, c.kind) || UseOf(err) != c.says || id != nil || use != UseUnknown):
				t.Errorf("%v, %v which says %v", use, err, UseOf(err))
			case errors.Is(c.kind, ErrOtherKind) && i == nil:
				t.Error("the issuer is not told")
			}
			if _, _, err := set.Identify(t.Context(), c.token, Request{Wait: true}); (err == nil) != (c.use == UseAccess) {
				t.Errorf("as an access token: %v", err)
			}
		})
	}
}

func TestRefreshTypesAreNotThoseOfAccessTokens(t *testing.T) {
	for _, c := range []struct {
		types, refresh []string
		ok             bool
	}{
		{nil, []string{"RT"}, true},
		{[]string{"strict"}, []string{"RT", "x+jwt"}, true},
		{nil, []string{"jwt"}, false},
		{nil, []string{"application/at+jwt"}, false},
		{nil, []string{""}, false},
		{[]string{"access+jwt"}, []string{"ACCESS+jwt"}, false},
	} {
		err := Config{Issuer: "https://as.example", Types: c.types, RefreshTypes: c.refresh}.Validate()
		if (err == nil) != c.ok {
			t.Errorf("types %q, refresh_types %q: %v", c.types, c.refresh, err)
		}
	}
}

func TestWhoIntrospectsRefreshTokens(t *testing.T) {
	for _, c := range []struct {
		preset, tokens string
		known, ok      bool
	}{
		{"", "", true, true}, {"", "access", false, true}, {"", "all", true, true}, {"", "refresh", false, false},
		{"okta", "", true, true}, {"django", "", false, true}, {"django", "all", true, true}, {"zitadel", "", false, true},
	} {
		config := Config{Issuer: "https://as.example", Preset: c.preset, Introspection: &IntrospectionConfig{
			Endpoint: "https://as.example/introspect", ClientID: "edge", ClientSecret: "x", Tokens: c.tokens,
		}}
		i, err := New(config, Options{})
		if (err == nil) != c.ok {
			t.Errorf("%+v: %v", c, err)
		}
		if err != nil {
			continue
		}
		n, err := NewIntrospector(i, *config.Introspection, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		if n.KnowsRefreshTokens() != c.known {
			t.Errorf("%+v: %v", c, n.KnowsRefreshTokens())
		}
		expanded, err := config.WithPreset()
		if err != nil || c.preset == "django" && expanded.Introspection.Tokens == "" || config.Introspection.Tokens != c.tokens {
			t.Errorf("%+v is expanded to %+v, %v", c, expanded.Introspection, err)
		}
	}
}
