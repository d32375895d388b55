package caddymodule

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
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
