package caddymodule

import (
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
)

// unmarshalIssuer parses an issuer whose tokens are trusted. A preset (keycloak,
// auth0, okta, entra, hydra, authentik, zitadel, django) is written out into the
// adapted JSON; each line here wins over it. Syntax:
//
//	issuer development|<issuer> [<preset>] {
//		alias              <issuer...>
//		discovery          <url>
//		jwks_uri           <url>
//		jwks_file          <file>
//		hmac_secret        <placeholder>
//		opaque
//		algorithms         <algorithm...>
//		audience           <audience...>
//		types              <type...>
//		refresh_types      <type...>
//		claim              <name> <claim_in_token...>
//		max_token_lifetime <duration>
//		allow_missing_expiry
//		leeway             <duration>
//		key_retention      <duration>
//		refresh_interval   <duration>
//		distrust_key       <thumbprint...>
//		allow_http
//		introspection      [<endpoint>] { ... }
//	}
func (a *App) unmarshalIssuer(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) == 0 || len(args) > 2 {
		return d.Err("issuer needs the exact iss of its tokens, or the word development: issuer <issuer> [<preset>]")
	}
	config := issuer.Config{Issuer: args[0]}
	if args[0] == "development" {
		config = issuer.Config{Issuer: issuer.DevelopmentIssuer, Development: true}
	}
	if len(args) == 2 {
		config.Preset = args[1]
	}
	if slices.ContainsFunc(a.Issuers, func(c issuer.Config) bool { return c.Issuer == config.Issuer }) {
		return d.Errf("issuer %s is given twice: keep one of them", config.Issuer)
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := unmarshalIssuerOption(d, &config); err != nil {
			return err
		}
	}
	config, err := config.WithPreset()
	if err != nil {
		return d.Err(err.Error())
	}
	if err := validateUnresolved(config); err != nil {
		return d.Err(err.Error())
	}
	a.Issuers = append(a.Issuers, config)
	return nil
}

func unmarshalIssuerOption(d *caddyfile.Dispenser, c *issuer.Config) error {
	switch d.Val() {
	case "alias":
		return listOption(d, &c.Aliases)
	case "discovery":
		return stringOption(d, &c.Discovery)
	case "jwks_uri":
		return stringOption(d, &c.JWKSURI)
	case "jwks_file":
		return stringOption(d, &c.JWKSFile)
	case "hmac_secret":
		return stringOption(d, &c.HMACSecret)
	case "opaque":
		return flagOption(d, &c.Opaque)
	case "algorithms":
		return listOption(d, &c.Algorithms)
	case "audience":
		return listOption(d, &c.Audiences)
	case "types":
		return listOption(d, &c.Types)
	case "refresh_types":
		return listOption(d, &c.RefreshTypes)
	case "claim":
		return unmarshalClaim(d, c)
	case "max_token_lifetime":
		return issuerDuration(d, &c.MaxTokenLifetime)
	case "allow_missing_expiry":
		return flagOption(d, &c.AllowMissingExpiry)
	case "leeway":
		return issuerDuration(d, &c.Leeway)
	case "key_retention":
		return issuerDuration(d, &c.KeyRetention)
	case "refresh_interval":
		return issuerDuration(d, &c.RefreshInterval)
	case "distrust_key":
		return listOption(d, &c.DistrustedKeys)
	case "allow_http":
		return flagOption(d, &c.AllowHTTP)
	case "introspection":
		return unmarshalIssuerIntrospection(d, &c.Introspection)
	default:
		return unknownOption(d, "alias, discovery, jwks_uri, jwks_file, hmac_secret, opaque, algorithms, audience, types, refresh_types, claim, "+
			"max_token_lifetime, allow_missing_expiry, leeway, key_retention, refresh_interval, distrust_key, allow_http, introspection")
	}
}

func unmarshalClaim(d *caddyfile.Dispenser, c *issuer.Config) error {
	args := d.RemainingArgs()
	if len(args) < 2 {
		return d.Err("claim needs the name used here and the one in the token: claim jti uti")
	}
	if _, twice := c.Claims[args[0]]; twice {
		return d.Errf("claim %s is given twice: list all its names on one line, the first that a token has counts", args[0])
	}
	if c.Claims == nil {
		c.Claims = make(map[string]issuer.Names)
	}
	c.Claims[args[0]] = args[1:]
	return nil
}

// listOption takes one or more arguments; further lines add to them.
func listOption(d *caddyfile.Dispenser, into *[]string) error {
	args := d.RemainingArgs()
	if len(args) == 0 {
		return d.ArgErr()
	}
	*into = append(*into, args...)
	return nil
}

func issuerDuration(d *caddyfile.Dispenser, into *issuer.Duration) error {
	return durationOption(d, (*caddy.Duration)(into))
}
