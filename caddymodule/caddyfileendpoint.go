package caddymodule

import (
	"slices"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
)

func parseEndpoint(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	if namesUpstream(h.Dispenser) {
		u := new(Upstream)
		return u, u.UnmarshalCaddyfile(h.Dispenser)
	}
	e := new(Endpoint)
	return e, e.UnmarshalCaddyfile(h.Dispenser)
}

// UnmarshalCaddyfile parses the handler. Syntax:
//
//	token_revocation [<matcher>] {
//		issuer           <issuer...>
//		cascade          token|grant
//		grant_claim      <name>
//		foreign_token    refuse|silent
//		allow_revoke_any
//		refuse           <kind...>
//		several_tokens
//		all_tokens
//		json_body
//		jsonp
//		policy           <name> ...
//		cors_origins     <origin...>
//		strict_basic
//		plain_http       allow|refuse
//		audit            effects|all
//		realm            <realm>
//		max_body         <size>
//	}
//
// Each policy line adds one; its arguments and block are those of the module
// token_revocation.policies.<name>.
func (e *Endpoint) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the directive's name
	if d.NextArg() {
		return d.ArgErr()
	}
	for d.NextBlock(0) {
		if err := e.unmarshalOption(d); err != nil {
			return err
		}
	}
	return nil
}

func (e *Endpoint) unmarshalOption(d *caddyfile.Dispenser) error {
	switch d.Val() {
	case "issuer":
		return listOption(d, &e.Issuers)
	case "cascade":
		return choiceOption(d, &e.Cascade, "token", "grant")
	case "grant_claim":
		return stringOption(d, &e.GrantClaim)
	case "foreign_token":
		return choiceOption(d, &e.ForeignToken, "refuse", "silent")
	case "allow_revoke_any":
		return flagOption(d, &e.AllowRevokeAny)
	case "refuse":
		return e.unmarshalRefuse(d)
	case "several_tokens":
		return flagOption(d, &e.SeveralTokens)
	case "all_tokens":
		return flagOption(d, &e.AllTokens)
	case "json_body":
		return flagOption(d, &e.JSONBody)
	case "jsonp":
		return flagOption(d, &e.JSONP)
	case "policy":
		return e.unmarshalPolicy(d)
	case "cors_origins":
		return e.unmarshalOrigins(d)
	case "strict_basic":
		return flagOption(d, &e.StrictBasic)
	case "plain_http":
		return choiceOption(d, &e.PlainHTTP, "allow", "refuse")
	case "audit":
		return choiceOption(d, &e.Audit, "effects", "all")
	case "realm":
		return stringOption(d, &e.Realm)
	case "max_body":
		return sizeOption(d, &e.MaxBody)
	default:
		return unknownOption(d, "issuer, cascade, grant_claim, foreign_token, allow_revoke_any, refuse, several_tokens, "+
			"all_tokens, json_body, jsonp, policy, cors_origins, strict_basic, plain_http, audit, realm, max_body")
	}
}

// unmarshalRefuse takes kinds of tokens, each once.
func (e *Endpoint) unmarshalRefuse(d *caddyfile.Dispenser) error {
	var kinds []string
	if err := listOption(d, &kinds); err != nil {
		return err
	}
	for _, name := range kinds {
		kind := oauth.TokenKind(name)
		switch {
		case !slices.Contains(oauth.TokenKinds[:], kind):
			return d.Errf("refuse: %q is no kind of token: use access_token, refresh_token, jwt or opaque", name)
		case slices.Contains(e.Refuse, kind):
			return d.Errf("refuse: %s is given twice", name)
		}
		e.Refuse = append(e.Refuse, kind)
	}
	return nil
}

func (e *Endpoint) unmarshalPolicy(d *caddyfile.Dispenser) error {
	if !d.NextArg() {
		return d.Err("policy needs the name of a module: policy expression|webhook|<name> ...")
	}
	name := d.Val()
	unmarshaler, err := caddyfile.UnmarshalModule(d, policyNamespace+"."+name)
	if err != nil {
		return err
	}
	e.PoliciesRaw = append(e.PoliciesRaw, caddyconfig.JSONModuleObject(unmarshaler, "policy", name, nil))
	return nil
}

func (e *Endpoint) unmarshalOrigins(d *caddyfile.Dispenser) error {
	before := len(e.CORSOrigins)
	if err := listOption(d, &e.CORSOrigins); err != nil {
		return err
	}
	for _, origin := range e.CORSOrigins[before:] {
		if err := oauth.ValidateOrigin(origin); err != nil {
			return d.Errf("cors_origins: %v", err)
		}
	}
	return nil
}

var _ caddyfile.Unmarshaler = (*Endpoint)(nil)
