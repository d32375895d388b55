package caddymodule

import (
	"slices"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	httpcaddyfile.RegisterHandlerDirective("token_introspection", parseIntrospection)
	// Before token_revocation and token_denylist, which stand right before
	// basic_auth: its clients authenticate by themselves and have no token of
	// their own to present, but those of others in a form.
	httpcaddyfile.RegisterDirectiveOrder("token_introspection", httpcaddyfile.After, "try_files")
}

func parseIntrospection(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	n := new(Introspection)
	return n, n.UnmarshalCaddyfile(h.Dispenser)
}

// UnmarshalCaddyfile parses the handler. Syntax:
//
//	token_introspection [<matcher>] {
//		issuer       <issuer...>
//		members      <name...>
//		realm        <realm>
//		max_body     <size>
//		strict_basic
//		plain_http   refuse|allow
//		stale        [fail_open|fail_closed] [<max_age>]
//	}
//
// Each line but issuer and members may be given once.
func (n *Introspection) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the directive's name
	if d.NextArg() {
		return d.ArgErr()
	}
	for d.NextBlock(0) {
		var err error
		switch d.Val() {
		case "issuer":
			err = uniqueListOption(d, &n.Issuers)
		case "members":
			err = uniqueListOption(d, &n.Members)
		case "realm":
			err = stringOption(d, &n.Realm)
		case "max_body":
			err = sizeOption(d, &n.MaxBody)
		case "strict_basic":
			err = flagOption(d, &n.StrictBasic)
		case "plain_http":
			err = choiceOption(d, &n.PlainHTTP, "refuse", "allow")
		case "stale":
			err = unmarshalStale(d, &n.Stale)
		default:
			err = unknownOption(d, "issuer, members, realm, max_body, strict_basic, plain_http, stale")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// uniqueListOption takes a list in which nothing stands twice.
func uniqueListOption(d *caddyfile.Dispenser, into *[]string) error {
	option := d.Val()
	if err := listOption(d, into); err != nil {
		return err
	}
	for i, value := range *into {
		if slices.Contains((*into)[:i], value) {
			return d.Errf("%s: %s is given twice", option, value)
		}
	}
	return nil
}

// Interface guards
var (
	_ caddyfile.Unmarshaler = (*Introspection)(nil)
)
