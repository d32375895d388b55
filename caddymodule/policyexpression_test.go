package caddymodule

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
)

func TestExpressionDecidesByFacts(t *testing.T) {
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	defer cancel()
	request := httptest.NewRequest("POST", "/oauth/revoke", strings.NewReader("token=secret"))
	request.Header.Set("Authorization", "Basic secret")
	request.Header.Set("X-Tenant", "blue")
	request = caddyhttp.PrepareRequest(request, caddy.NewReplacer(), nil, &caddyhttp.Server{})
	facts := &oauth.Facts{
		Client: oauth.ClientFacts{ID: "app", Public: true, IP: "192.0.2.1", Method: oauth.AuthNone},
		Token: oauth.TokenFacts{Subject: "alice", Own: true, Expiry: 100, Claims: map[string]any{
			"n": json.Number("5"), "f": json.Number("1.5"), "roles": []any{"a", json.Number("7")}, "o": map[string]any{"x": "y"}, "null": nil,
			"realm_access": map[string]any{"roles": []any{"admin"}}, "a.b": map[string]any{"c.d": "dots"},
			"amr": []any{"pwd"},
		}},
		Cascade: oauth.CascadeToken,
		HTTP:    request.Clone(request.Context()),
	}
	facts.HTTP.Header.Del("Authorization")
	for expression, want := range map[string]oauth.Verdict{
		`{http.token_revocation.client.id} == "app"`:                                 oauth.Allow,
		`{http.token_revocation.client.id} == "other"`:                               oauth.Deny,
		`{http.token_revocation.client.public} && {http.token_revocation.token.own}`: oauth.Allow,
		`{http.token_revocation.claims.n} == 5`:                                      oauth.Allow,
		`{http.token_revocation.claims.f} > 1.0`:                                     oauth.Allow,
		`"a" in {http.token_revocation.claims.roles}`:                                oauth.Allow,
		`{http.token_revocation.claims.roles}[1] == 7`:                               oauth.Allow,
		`{http.token_revocation.claims.o}.x == "y"`:                                  oauth.Allow,
		`"pwd" in {http.token_revocation.claims.amr}`:                                oauth.Allow,
		`"admin" in {http.token_revocation.claims.realm_access.roles}`:               oauth.Allow,
		`"x" in {http.token_revocation.claims.realm_access.roles}`:                   oauth.Deny,
		`{http.token_revocation.claims.a.b.c.d} == "dots"`:                           oauth.Allow,
		`{http.token_revocation.claims.o.missing} == null`:                           oauth.Allow,
		`{http.token_revocation.claims.n.x} == null`:                                 oauth.Allow,
		`{http.token_revocation.claims.missing} == null`:                             oauth.Allow,
		`{http.token_revocation.claims.missing} == "x"`:                              oauth.Deny,
		`{http.token_revocation.token.expires_at} < 200`:                             oauth.Allow,
		`{http.request.header.X-Tenant} == "blue" && path("/oauth/*")`:               oauth.Allow,
		`header({"X-Tenant": "red"})`:                                                oauth.Deny,
		`header({"Authorization": "*"})`:                                             oauth.Deny, // it is not there
		`{http.token_revocation.claims.missing} < 5`:                                 0,
		`{http.token_revocation.claims.roles}[9] == 7`:                               0,
		`int({http.token_revocation.token.subject}) == 1`:                            0,
	} {
		p := &ExpressionPolicy{Expression: expression}
		if err := p.Provision(ctx); err != nil {
			t.Errorf("%s: %v", expression, err)
			continue
		}
		d, err := p.Decide(t.Context(), facts)
		if d.Verdict != want || (err == nil) != (want != 0) {
			t.Errorf("%s: %+v, %v", expression, d, err)
		}
	}
	skip := &ExpressionPolicy{Expression: "false", Otherwise: "skip"}
	if err := skip.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	if d, err := skip.Decide(t.Context(), facts); d.Verdict != oauth.Skip || err != nil {
		t.Errorf("%+v, %v", d, err)
	}
}
