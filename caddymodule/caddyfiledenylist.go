package caddymodule

import (
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func parseDenylist(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	d := new(Denylist)
	return d, d.UnmarshalCaddyfile(h.Dispenser)
}

// UnmarshalCaddyfile parses the handler. Syntax:
//
//	token_denylist [<matcher>] {
//		inspect|strip|reject header <name>|cookie <name>|query [<name>]|form [<name>]
//		verify            on|off
//		require_token
//		unknown_issuer    reject|pass
//		opaque_issuer     <issuer>
//		introspect        [<ttl>] [fail_open]
//		pass_unknown
//		monitor
//		realm             <realm>
//		resource_metadata <url>
//		dpop_algorithms   <algorithm...>
//		stale             [fail_open|fail_closed] [<max_age>]
//		cut_streams       [expired]
//	}
func (d *Denylist) UnmarshalCaddyfile(disp *caddyfile.Dispenser) error {
	disp.Next() // consume the directive's name
	if disp.NextArg() {
		return disp.ArgErr()
	}
	for disp.NextBlock(0) {
		if err := d.unmarshalOption(disp); err != nil {
			return err
		}
	}
	return nil
}

func (d *Denylist) unmarshalOption(disp *caddyfile.Dispenser) error {
	switch disp.Val() {
	case "inspect", "strip", "reject":
		return unmarshalPlace(disp, &d.Places)
	case "verify":
		return choiceOption(disp, &d.Verify, "on", "off")
	case "require_token":
		return flagOption(disp, &d.RequireToken)
	case "unknown_issuer":
		return choiceOption(disp, &d.UnknownIssuer, "reject", "pass")
	case "opaque_issuer":
		return stringOption(disp, &d.OpaqueIssuer)
	case "introspect":
		return unmarshalIntrospectTokens(disp, &d.Introspect)
	case "pass_unknown":
		return flagOption(disp, &d.PassUnknown)
	case "monitor":
		return flagOption(disp, &d.Monitor)
	case "realm":
		return stringOption(disp, &d.Realm)
	case "resource_metadata":
		return stringOption(disp, &d.ResourceMetadata)
	case "dpop_algorithms":
		return uniqueListOption(disp, &d.DPoPAlgorithms)
	case "stale":
		return unmarshalStale(disp, &d.Stale)
	case "cut_streams":
		return unmarshalCutStreams(disp, &d.CutStreams)
	default:
		return unknownOption(disp, "inspect, strip, reject, verify, require_token, unknown_issuer, opaque_issuer, introspect, "+
			"pass_unknown, monitor, realm, resource_metadata, dpop_algorithms, stale, cut_streams")
	}
}

// unmarshalPlace parses one place of tokens. That it can be one is checked here,
// so that the error has a line.
func unmarshalPlace(d *caddyfile.Dispenser, into *[]TokenPlace) error {
	p := TokenPlace{Action: d.Val()}
	args := d.RemainingArgs()
	if len(args) == 0 || len(args) > 2 {
		return d.ArgErr()
	}
	p.In = args[0]
	if len(args) == 2 {
		p.Name = args[1]
	}
	if p.Action == "inspect" {
		p.Action = ""
	}
	if p.Name == "" && (p.In == "header" || p.In == "cookie") {
		return d.Errf("%s: which one? give its name", p.In)
	}
	*into = append(*into, p)
	if _, err := newPlaces(*into); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

func unmarshalIntrospectTokens(d *caddyfile.Dispenser, into **IntrospectTokens) error {
	if *into != nil {
		return duplicate(d)
	}
	i := new(IntrospectTokens)
	*into = i
	for d.NextArg() {
		if d.Val() == "fail_open" && !i.FailOpen {
			i.FailOpen = true
			continue
		}
		ttl, err := caddy.ParseDuration(d.Val())
		if err != nil || i.TTL != 0 {
			return d.Errf("introspect: %q is neither a duration, as in 10s, nor fail_open, or given twice", d.Val())
		}
		if ttl <= 0 {
			return d.Errf("introspect: %s: the time must be positive; how long answers are kept at most is the issuer's cache_ttl", d.Val())
		}
		i.TTL = caddy.Duration(ttl)
	}
	return nil
}

func unmarshalCutStreams(d *caddyfile.Dispenser, into **CutStreams) error {
	if *into != nil {
		return duplicate(d)
	}
	*into = new(CutStreams)
	if d.NextArg() {
		if d.Val() != "expired" {
			return d.Errf("cut_streams: %q is unknown: use expired, or nothing", d.Val())
		}
		(*into).Expired = true
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	return nil
}

// Interface guards
var (
	_ caddyfile.Unmarshaler = (*Denylist)(nil)
)
