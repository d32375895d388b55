package caddymodule

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	httpcaddyfile.RegisterHandlerDirective("token_denylist", parseDenylist)
	httpcaddyfile.RegisterHandlerDirective("token_revocation", parseEndpoint)
	// Each is put right before basic_auth: the endpoint, then the denylist. So
	// tokens are refused before anything else is asked of a request, and the
	// endpoint's clients, who present no token, come before that.
	httpcaddyfile.RegisterDirectiveOrder("token_revocation", httpcaddyfile.Before, "basic_auth")
	httpcaddyfile.RegisterDirectiveOrder("token_denylist", httpcaddyfile.Before, "basic_auth")
}

func parseDenylist(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	d := new(Denylist)
	return d, d.UnmarshalCaddyfile(h.Dispenser)
}

// UnmarshalCaddyfile parses the handler. Syntax:
//
//	token_denylist [<matcher>] {
//		verify         on|off
//		require_token
//		unknown_issuer reject|pass
//		opaque_issuer  <issuer>
//		pass_unknown
//		realm          <realm>
//		stale          [fail_open|fail_closed] [<max_age>]
//	}
func (d *Denylist) UnmarshalCaddyfile(disp *caddyfile.Dispenser) error {
	disp.Next() // consume the directive's name
	if disp.NextArg() {
		return disp.ArgErr()
	}
	for disp.NextBlock(0) {
		var err error
		switch disp.Val() {
		case "verify":
			err = choiceOption(disp, &d.Verify, "on", "off")
		case "require_token":
			err = flagOption(disp, &d.RequireToken)
		case "unknown_issuer":
			err = choiceOption(disp, &d.UnknownIssuer, "reject", "pass")
		case "opaque_issuer":
			err = stringOption(disp, &d.OpaqueIssuer)
		case "pass_unknown":
			err = flagOption(disp, &d.PassUnknown)
		case "realm":
			err = stringOption(disp, &d.Realm)
		case "stale":
			err = unmarshalStale(disp, &d.Stale)
		default:
			err = unknownOption(disp, "verify, require_token, unknown_issuer, opaque_issuer, pass_unknown, realm, stale")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// choiceOption takes one of two words.
func choiceOption(d *caddyfile.Dispenser, into *string, one, other string) error {
	option := d.Val()
	if err := stringOption(d, into); err != nil {
		return err
	}
	if *into != one && *into != other {
		return d.Errf("%s: %q is unknown: use %s or %s", option, *into, one, other)
	}
	return nil
}

// Interface guards
var (
	_ caddyfile.Unmarshaler = (*Denylist)(nil)
)
