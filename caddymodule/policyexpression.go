package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
)

func init() {
	caddy.RegisterModule(ExpressionPolicy{})
}

// ExpressionPolicy is a policy that allows a revocation if a CEL expression, the
// language of Caddy's own expression matcher, is true:
//
//	{http.token_revocation.client.id} != "kiosk" || "pwd" in {http.token_revocation.claims.amr}
//
// It knows Caddy's placeholders and matchers for the request, without its body
// and credentials, and these:
//
// Placeholder | Description
// ------------|---------------
// `{http.token_revocation.client.id}` | The client that asks
// `{http.token_revocation.client.issuer}` | The issuer that it is registered at
// `{http.token_revocation.client.auth_method}` | How it authenticated
// `{http.token_revocation.client.public}` | Whether it is a public client
// `{http.token_revocation.client.ip}` | Where the request came from
// `{http.token_revocation.token.use}` | What the token is for: access, refresh, or unknown
// `{http.token_revocation.token.issuer}` | The token's issuer
// `{http.token_revocation.token.id}` | Its jti
// `{http.token_revocation.token.subject}` | Its sub
// `{http.token_revocation.token.session_id}` | Its sid
// `{http.token_revocation.token.owner}` | The client that it was issued to
// `{http.token_revocation.token.own}` | Whether that is the client that asks
// `{http.token_revocation.token.issued_at}`, `.authenticated_at`, `.expires_at` | Unix seconds; 0 if it has none
// `{http.token_revocation.claims.*}` | A claim of the verified token, under the issuer's name for it, or a member of one: `claims.realm_access.roles`; null if it has none
// `{http.token_revocation.token_type_hint}` | The request's hint, which proves nothing
// `{http.token_revocation.cascade}` | What would be revoked: token or grant
// `{http.token_revocation.request.host}`, `.path`, `.plain_http`, `.user_agent` | The request
//
// An expression that can't be evaluated, for instance because it compares a claim
// that is missing with `<`, is a failure: the client is answered with 503.
type ExpressionPolicy struct {
	// The expression. It has to be true or false.
	Expression string `json:"expression,omitempty"`

	// What happens if it is false: deny, the default, is answered with 403
	// access_denied; skip with 200, and nothing is revoked.
	Otherwise string `json:"otherwise,omitempty"`

	match *caddyhttp.MatchExpression
}

// CaddyModule returns the Caddy module information.
func (ExpressionPolicy) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  policyNamespace + ".expression",
		New: func() caddy.Module { return new(ExpressionPolicy) },
	}
}

// Provision compiles the expression.
func (p *ExpressionPolicy) Provision(ctx caddy.Context) error {
	if strings.TrimSpace(p.Expression) == "" {
		return errors.New("expression: the expression is missing")
	}
	if p.Otherwise != "" && p.Otherwise != "deny" && p.Otherwise != "skip" {
		return fmt.Errorf("expression: otherwise is %q: use deny or skip", p.Otherwise)
	}
	p.match = &caddyhttp.MatchExpression{Expr: p.Expression}
	if err := p.match.Provision(ctx); err != nil {
		return fmt.Errorf("expression: %w", err)
	}
	for _, name := range p.match.Placeholders() {
		fact, ours := strings.CutPrefix(name, factsPrefix)
		switch {
		case name == "":
			return errors.New("expression: a placeholder's name has to be written out")
		case ours && !knownFact(fact):
			// It would be null for ever, and the rule would not do what it says.
			return fmt.Errorf("expression: there is no placeholder {%s}", name)
		case isCredentialPlaceholder(name):
			return fmt.Errorf("expression: a policy can't see {%s}", name)
		}
	}
	return nil
}

// Decide implements oauth.Policy.
func (p *ExpressionPolicy) Decide(_ context.Context, f *oauth.Facts) (oauth.PolicyDecision, error) {
	holds, err := p.match.MatchWithError(factsRequest(f))
	switch {
	case err != nil:
		return oauth.PolicyDecision{}, fmt.Errorf("evaluating the expression: %w", err)
	case holds:
		return oauth.PolicyDecision{Verdict: oauth.Allow}, nil
	default:
		return oauth.PolicyDecision{Verdict: otherwiseVerdict(p.Otherwise), Reason: "the expression is false"}, nil
	}
}

// plain makes the numbers in a claim what an expression can count with.
func plain(value any) any {
	switch v := value.(type) {
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return i
		}
		f, err := v.Float64()
		if err != nil {
			return v.String()
		}
		return f
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = plain(v[i])
		}
		return list
	case map[string]any:
		object := make(map[string]any, len(v))
		for name, member := range v {
			object[name] = plain(member)
		}
		return object
	default:
		return value
	}
}

// UnmarshalCaddyfile parses the policy. Syntax:
//
//	expression <expression> {
//		otherwise deny|skip
//	}
//
// As with Caddy's matcher, backticks keep the quotes inside.
func (p *ExpressionPolicy) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the policy's name
	switch d.CountRemainingArgs() {
	case 0:
		return d.ArgErr()
	case 1:
		d.NextArg()
		p.Expression = d.Val()
	default:
		p.Expression = strings.Join(d.RemainingArgsRaw(), " ")
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch d.Val() {
		case "otherwise":
			err = choiceOption(d, &p.Otherwise, "deny", "skip")
		default:
			err = unknownOption(d, "otherwise")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner     = (*ExpressionPolicy)(nil)
	_ caddyfile.Unmarshaler = (*ExpressionPolicy)(nil)
	_ oauth.Policy          = (*ExpressionPolicy)(nil)
)
