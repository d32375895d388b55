package caddymodule

import (
	"errors"
	"strings"
	"testing"

	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
)

// A question costs the authorization server time, and anybody can cause one.
func TestATokenIsAskedAboutOnce(t *testing.T) {
	r := newConformanceRig(t)
	r.start(t, &conformanceCase{Introspection: "all", Config: "grant_claim gid"})
	for _, claim := range []string{"", "gid"} {
		tokens := currentApp().resolver(claim)
		for _, c := range []struct {
			token string
			err   error
			asked int
		}{
			{"dead-" + claim, oauth.ErrTokenInvalid, 2}, // once more without the hint
			{r.opaque.Issue(map[string]any{"iss": r.as.Issuer()}), nil, 1},
			{r.opaque.Issue(map[string]any{"iss": r.as.Issuer(), "token_use": "id_token"}), oauth.ErrTokenUnsupported, 1},
			{r.opaque.Issue(map[string]any{"iss": "https://stranger.example"}), oauth.ErrResolveUnavailable, 1},
			{r.opaque.Issue(map[string]any{"iss": r.as.Issuer(), "grant": strings.Repeat("g", 2000)}), nil, 1},
			{r.tokens["AT"], nil, 0},
			{r.others["JWT_RT"], nil, 0},
			{r.as.Token(map[string]any{"grant": make([]int, 100)}), nil, 0},
		} {
			got, err := tokens.Resolve(t.Context(), c.token, oauth.ResolveFor{Issuer: r.as.Issuer(), Hint: "access_token"})
			if !errors.Is(err, c.err) || c.err == nil && !got.Identity.Verified {
				t.Errorf("%q: %+v, %v", claim, got, err)
			}
			if n := r.opaque.Asked(c.token); n != c.asked {
				t.Errorf("%q: asked %d times, want %d", claim, n, c.asked)
			}
		}
		// Of a client of another issuer, or of nobody, nobody is asked.
		token := r.opaque.Issue(map[string]any{"iss": r.as.Issuer()})
		for _, of := range []string{"", "https://b.example"} {
			if _, err := tokens.Resolve(t.Context(), token, oauth.ResolveFor{Issuer: of}); !errors.Is(err, oauth.ErrTokenUnsupported) {
				t.Errorf("as %q: %v", of, err)
			}
		}
		if r.opaque.Asked(token) != 0 {
			t.Error("somebody was asked")
		}
	}
}

// Facts have what the authorization server says of an opaque token.
func TestFactsHaveTheClaimsOfOpaqueTokens(t *testing.T) {
	r := newConformanceRig(t)
	r.start(t, &conformanceCase{Introspection: "all"})
	token := r.opaque.Issue(map[string]any{"iss": r.as.Issuer(), "scope": "orders", "acr": "2"})
	got, err := currentApp().resolver("").Resolve(t.Context(), token, oauth.ResolveFor{Issuer: r.as.Issuer()})
	if err != nil || got.Claims["scope"] != "orders" || got.Claims["acr"] != "2" || !got.Asked {
		t.Errorf("%+v, %v", got, err)
	}
}
