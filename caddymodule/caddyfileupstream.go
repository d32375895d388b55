package caddymodule

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// UnmarshalCaddyfile parses the handler. Syntax:
//
//	token_revocation [<matcher>] upstream {
//		issuer       <issuer>
//		cascade      token|grant
//		grant_claim  <name>
//		confirm      introspect
//		strict_basic
//		max_body     <size>
//		timeout      <duration>
//		audit        effects|all
//	}
//
// It belongs before the reverse_proxy to the authorization server, on the same
// route.
func (u *Upstream) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the directive's name
	if !d.NextArg() || d.Val() != upstreamArgument {
		return d.ArgErr()
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	for d.NextBlock(0) {
		if err := u.unmarshalOption(d); err != nil {
			return err
		}
	}
	return nil
}

// upstreamArgument chooses this handler instead of the endpoint.
const upstreamArgument = "upstream"

// namesUpstream tells whether the directive has that argument. It consumes nothing.
func namesUpstream(d *caddyfile.Dispenser) bool {
	defer d.Reset()
	return d.Next() && d.NextArg() && d.Val() == upstreamArgument
}

func (u *Upstream) unmarshalOption(d *caddyfile.Dispenser) error {
	switch d.Val() {
	case "issuer":
		if d.CountRemainingArgs() > 1 {
			return d.Err("issuer: name one; clients belong to one issuer, so each one needs a token_revocation upstream on a path of its own")
		}
		return stringOption(d, &u.Issuer)
	case "cascade":
		return choiceOption(d, &u.Cascade, "token", "grant")
	case "grant_claim":
		return stringOption(d, &u.GrantClaim)
	case "confirm":
		if err := stringOption(d, &u.Confirm); err != nil {
			return err
		}
		if u.Confirm != "introspect" {
			return d.Errf("confirm: %q is unknown: use introspect", u.Confirm)
		}
		return nil
	case "strict_basic":
		return flagOption(d, &u.StrictBasic)
	case "max_body":
		return sizeOption(d, &u.MaxBody)
	case "timeout":
		return durationOption(d, &u.Timeout)
	case "audit":
		return choiceOption(d, &u.Audit, "effects", "all")
	default:
		return unknownOption(d, "issuer, cascade, grant_claim, confirm, strict_basic, max_body, timeout, audit")
	}
}

var _ caddyfile.Unmarshaler = (*Upstream)(nil)
