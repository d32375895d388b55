package caddymodule

import (
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
)

// unmarshalIssuerIntrospection parses how an issuer is asked about tokens that only
// it understands (RFC 7662). Without an endpoint, it is found in the issuer's
// metadata. Secrets are taken from {env.NAME} or {file.<path>} only. Syntax:
//
//	introspection [<endpoint>] {
//		endpoint           <url>
//		allow_http
//		auth_method        client_secret_basic|client_secret_post|private_key_jwt|bearer|none
//		client_id          <id>
//		client_secret      <placeholder>
//		private_key        <placeholder>
//		key_id             <kid>
//		algorithm          <algorithm>
//		assertion_audience <audience>
//		bearer_token       <placeholder>
//		tokens             all|access
//		signed_response
//		response_audience  <audience>
//		timeout            <duration>
//		max_concurrent     <number>
//		breaker_failures   <number>|off
//		breaker_cooldown   <duration>
//		cache_ttl          <duration>|off
//		cache_size         <size>
//	}
func unmarshalIssuerIntrospection(d *caddyfile.Dispenser, into **issuer.IntrospectionConfig) error {
	if *into != nil {
		return duplicate(d)
	}
	c := new(issuer.IntrospectionConfig)
	switch args := d.RemainingArgs(); len(args) {
	case 0:
	case 1:
		c.Endpoint = args[0]
	default:
		return d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := unmarshalAskedOption(d, c); err != nil {
			return err
		}
	}
	if err := checkIntrospectionSecrets(*c); err != nil {
		return d.Errf("introspection: %v", err)
	}
	*into = c
	return nil
}

func unmarshalAskedOption(d *caddyfile.Dispenser, c *issuer.IntrospectionConfig) error {
	switch d.Val() {
	case "endpoint":
		return stringOption(d, &c.Endpoint)
	case "allow_http":
		return flagOption(d, &c.AllowHTTP)
	case "auth_method":
		return stringOption(d, &c.AuthMethod)
	case "client_id":
		return stringOption(d, &c.ClientID)
	case "client_secret":
		return stringOption(d, &c.ClientSecret)
	case "private_key":
		return stringOption(d, &c.PrivateKey)
	case "key_id":
		return stringOption(d, &c.KeyID)
	case "algorithm":
		return stringOption(d, &c.Algorithm)
	case "assertion_audience":
		return stringOption(d, &c.AssertionAudience)
	case "bearer_token":
		return stringOption(d, &c.BearerToken)
	case "tokens":
		return choiceOption(d, &c.Tokens, issuer.IntrospectsAll, issuer.IntrospectsAccess)
	case "signed_response":
		return flagOption(d, &c.SignedResponse)
	case "response_audience":
		return stringOption(d, &c.ResponseAudience)
	case "timeout":
		return positiveDuration(d, &c.Timeout)
	case "max_concurrent":
		return intOption(d, &c.MaxConcurrent)
	case "breaker_failures":
		if c.BreakerFailures == 0 && isOff(d) {
			c.BreakerFailures = -1
			return nil
		}
		return intOption(d, &c.BreakerFailures)
	case "breaker_cooldown":
		return positiveDuration(d, &c.BreakerCooldown)
	case "cache_ttl":
		if c.CacheTTL == 0 && isOff(d) {
			c.CacheTTL = issuer.Duration(-time.Second)
			return nil
		}
		return positiveDuration(d, &c.CacheTTL)
	case "cache_size":
		return sizeOption(d, &c.CacheSize)
	default:
		return unknownOption(d, "endpoint, allow_http, auth_method, client_id, client_secret, private_key, key_id, algorithm, "+
			"assertion_audience, bearer_token, tokens, signed_response, response_audience, timeout, max_concurrent, breaker_failures, "+
			"breaker_cooldown, cache_ttl, cache_size")
	}
}

// isOff consumes the only argument if it is the word off.
func isOff(d *caddyfile.Dispenser) bool {
	if d.CountRemainingArgs() != 1 {
		return false
	}
	d.NextArg()
	if d.Val() == "off" {
		return true
	}
	d.Prev()
	return false
}

// positiveDuration takes a duration that is not zero, which would mean the default
// where somebody meant none.
func positiveDuration(d *caddyfile.Dispenser, into *issuer.Duration) error {
	option, arg, err := oneArg(d, *into != 0)
	if err != nil {
		return err
	}
	duration, err := caddy.ParseDuration(arg)
	if err != nil || duration <= 0 {
		return d.Errf("%s: %q is no positive duration such as 500ms, 3s or 1m", option, arg)
	}
	*into = issuer.Duration(duration)
	return nil
}

// validateUnresolved checks as much of an issuer as can be known before its
// placeholders are resolved, which is done when the config is loaded.
func validateUnresolved(c issuer.Config) error {
	const standIn = "https://placeholder.invalid/"
	if n := c.Introspection; n != nil {
		n := *n // what is adapted stays as it is
		c.Introspection = &n
		if strings.Contains(n.Endpoint, "{") {
			n.Endpoint = standIn
		}
		if n.BearerToken != "" {
			n.BearerToken = "placeholder" // the path of a file may have spaces
		}
	}
	for _, field := range []*string{&c.Discovery, &c.JWKSURI} {
		if strings.Contains(*field, "{") {
			*field = standIn
		}
	}
	if strings.Contains(c.JWKSFile, "{") {
		c.JWKSFile = "/placeholder"
	}
	if strings.Contains(c.HMACSecret, "{") {
		c.HMACSecret = strings.Repeat("placeholder", 6) // long enough for each algorithm
	}
	return c.Validate()
}
