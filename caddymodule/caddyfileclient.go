package caddymodule

import (
	"slices"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
)

// unmarshalClient parses a client of the revocation endpoint. A second secret is
// for the time of a rotation. Syntax:
//
//	client <client_id> public|<secret> [<second_secret>] {
//		issuer  <issuer>
//		methods client_secret_basic|client_secret_post ...
//	}
func (a *App) unmarshalClient(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) < 2 || len(args) > 3 {
		return d.Err("client needs an id and either the word public or a secret: client <client_id> public|<secret> [<second_secret>]")
	}
	client := ClientConfig{ID: args[0]}
	if slices.ContainsFunc(a.Clients, func(c ClientConfig) bool { return c.ID == client.ID }) {
		return d.Errf("client %s is given twice: a client belongs to one issuer; keep one line, with two secrets if one is being changed", client.ID)
	}
	if args[1] == "public" {
		if len(args) > 2 {
			return d.Errf("client %s is public and has a secret: remove one of them", client.ID)
		}
		client.Public = true
	} else {
		client.Secrets = args[1:]
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch d.Val() {
		case "issuer":
			err = stringOption(d, &client.Issuer)
		case "methods":
			err = client.unmarshalMethods(d)
		default:
			err = unknownOption(d, "issuer, methods")
		}
		if err != nil {
			return err
		}
	}
	a.Clients = append(a.Clients, client)
	return nil
}

func (c *ClientConfig) unmarshalMethods(d *caddyfile.Dispenser) error {
	if c.Public {
		return d.Errf("client %s is public: it has no authentication method", c.ID)
	}
	if len(c.Methods) > 0 {
		return duplicate(d)
	}
	c.Methods = d.RemainingArgs()
	if len(c.Methods) == 0 {
		return d.ArgErr()
	}
	for _, method := range c.Methods {
		if m := oauth.AuthMethod(method); m != oauth.AuthSecretBasic && m != oauth.AuthSecretPost {
			return d.Errf("methods: %q is unknown: use client_secret_basic or client_secret_post", method)
		}
	}
	return nil
}
