package caddymodule

import (
	"encoding/json"
	"slices"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
)

// unmarshalClient parses a client of the revocation endpoint. A second secret, or
// a second certificate, is for the time of a change. Syntax:
//
//	client <client_id> [public|<secret> [<second_secret>]] {
//		issuer          <issuer>
//		secret          <secret>
//		method          <method>
//		methods         client_secret_basic|client_secret_post ...
//		jwks            <json>
//		jwks_file       <path>
//		jwks_uri        <url>
//		allow_http
//		algorithms      <algorithm...>
//		tls_subject_dn  <dn>
//		tls_san_dns     <name>
//		tls_san_uri     <uri>
//		tls_san_ip      <address>
//		tls_san_email   <address>
//		tls_certificate <sha256> [<second_sha256>]
//		revoke_any
//		introspect      any|<audience...>
//	}
//
// Each line but secret may be given once.
func (a *App) unmarshalClient(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) < 1 || len(args) > 3 {
		return d.Err("client needs an id, and the word public, a secret, or a block: client <client_id> [public|<secret> [<second_secret>]]")
	}
	client := ClientConfig{ID: args[0]}
	public := len(args) > 1 && args[1] == "public"
	switch {
	case public && len(args) > 2:
		return d.Errf("client %s is public and has a secret: remove one of them", client.ID)
	case public:
		client.Public = true
	default:
		client.Secrets = args[1:]
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := client.unmarshalOption(d); err != nil {
			return err
		}
	}
	if err := client.check(d); err != nil {
		return err
	}
	for _, c := range a.Clients {
		// The same id at another issuer is another client.
		if c.ID == client.ID && (c.Issuer == client.Issuer || c.Issuer == "" || client.Issuer == "") {
			return d.Errf("client %s is given twice: a client belongs to one issuer; keep one line, with two secrets if one is being changed", client.ID)
		}
	}
	a.Clients = append(a.Clients, client)
	return nil
}

func (c *ClientConfig) unmarshalOption(d *caddyfile.Dispenser) error {
	switch d.Val() {
	case "issuer":
		return stringOption(d, &c.Issuer)
	case "secret":
		var secret string
		if !d.AllArgs(&secret) {
			return d.ArgErr()
		}
		if len(c.Secrets) == oauth.MaxSecrets {
			return d.Errf("client %s has more than %d secrets", c.ID, oauth.MaxSecrets)
		}
		c.Secrets = append(c.Secrets, secret)
		return nil
	case "method", "methods":
		return c.unmarshalMethods(d)
	case "jwks":
		return c.unmarshalKeys(d)
	case "jwks_file":
		return stringOption(d, &c.JWKSFile)
	case "jwks_uri":
		return stringOption(d, &c.JWKSURI)
	case "allow_http":
		return flagOption(d, &c.AllowHTTP)
	case "algorithms":
		return listOption(d, &c.Algorithms)
	case "tls_subject_dn":
		return stringOption(d, &c.TLSSubjectDN)
	case "tls_san_dns":
		return stringOption(d, &c.TLSSANDNS)
	case "tls_san_uri":
		return stringOption(d, &c.TLSSANURI)
	case "tls_san_ip":
		return stringOption(d, &c.TLSSANIP)
	case "tls_san_email":
		return stringOption(d, &c.TLSSANEmail)
	case "tls_certificate":
		return c.unmarshalCertificates(d)
	case "revoke_any":
		return flagOption(d, &c.RevokeAny)
	case "introspect":
		return c.unmarshalIntrospect(d)
	default:
		return unknownOption(d, "issuer, secret, method, methods, jwks, jwks_file, jwks_uri, allow_http, algorithms, "+
			"tls_subject_dn, tls_san_dns, tls_san_uri, tls_san_ip, tls_san_email, tls_certificate, revoke_any, introspect")
	}
}

// check finds what contradicts itself whatever placeholders resolve to, so that
// the error has a line.
func (c *ClientConfig) check(d *caddyfile.Dispenser) error {
	names := 0
	for _, name := range []string{c.TLSSubjectDN, c.TLSSANDNS, c.TLSSANURI, c.TLSSANIP, c.TLSSANEmail} {
		if name != "" {
			names++
		}
	}
	places := 0
	for _, given := range []bool{len(c.JWKS) > 0, c.JWKSFile != "", c.JWKSURI != ""} {
		if given {
			places++
		}
	}
	other := names > 0 || places > 0 || len(c.TLSCertificates) > 0
	switch {
	case c.Public && len(c.Secrets) > 0:
		return d.Errf("client %s is public and has a secret: remove one of them", c.ID)
	case c.Public && other:
		return d.Errf("client %s is public and has keys or a certificate: remove one of them", c.ID)
	case c.Public && c.RevokeAny:
		return d.Errf("client %s is public: it can't have revoke_any, since anybody can use its id", c.ID)
	case c.Public && (c.IntrospectAny || len(c.IntrospectAudiences) > 0):
		return d.Errf("client %s is public: it can't have introspect, since anybody can use its id", c.ID)
	case !c.Public && len(c.Secrets) == 0 && !other:
		return d.Errf("client %s has no secret, no keys and no certificate: "+
			"client needs an id and either the word public or a secret, or one of these in its block", c.ID)
	case len(c.Secrets) > 0 && other:
		return d.Errf("client %s has secrets, and keys or a certificate: it authenticates in one way, keep one of them", c.ID)
	case names > 1:
		return d.Errf("client %s: a certificate is recognised by exactly one of tls_subject_dn, tls_san_dns, "+
			"tls_san_uri, tls_san_ip and tls_san_email", c.ID)
	case places > 1:
		return d.Errf("client %s: jwks, jwks_file and jwks_uri exclude each other: keep the one where the keys are", c.ID)
	}
	return nil
}

// clientMethods are the methods that can be written, in the order of the error.
var clientMethods = []oauth.AuthMethod{
	oauth.AuthSecretBasic, oauth.AuthSecretPost, oauth.AuthSecretJWT,
	oauth.AuthPrivateKeyJWT, oauth.AuthTLS, oauth.AuthSelfSignedTLS,
}

func (c *ClientConfig) unmarshalMethods(d *caddyfile.Dispenser) error {
	option := d.Val()
	if c.Public {
		return d.Errf("client %s is public: it has no authentication method", c.ID)
	}
	if len(c.Methods) > 0 {
		return duplicate(d)
	}
	c.Methods = d.RemainingArgs()
	if len(c.Methods) == 0 || option == "method" && len(c.Methods) > 1 {
		return d.ArgErr()
	}
	for i, method := range c.Methods {
		m := oauth.AuthMethod(method)
		switch {
		case !slices.Contains(clientMethods, m):
			return d.Errf("%s: %q is unknown: use client_secret_basic or client_secret_post, or one of client_secret_jwt, "+
				"private_key_jwt, tls_client_auth and self_signed_tls_client_auth", option, method)
		case slices.Contains(c.Methods[:i], method):
			return d.Errf("%s: %s is given twice", option, method)
		case len(c.Methods) > 1 && m != oauth.AuthSecretBasic && m != oauth.AuthSecretPost:
			return d.Errf("%s: %s goes with no other method: a client authenticates in one way", option, method)
		}
	}
	return nil
}

// unmarshalIntrospect parses what the client may ask about. An audience that is
// called any can't be written here.
func (c *ClientConfig) unmarshalIntrospect(d *caddyfile.Dispenser) error {
	if c.IntrospectAny || len(c.IntrospectAudiences) > 0 {
		return duplicate(d)
	}
	args := d.RemainingArgs()
	switch {
	case len(args) == 0:
		return d.ArgErr()
	case slices.Contains(args, "any") && len(args) > 1:
		return d.Err("introspect: any goes with no audience: it is every token of the issuer")
	case args[0] == "any":
		c.IntrospectAny = true
		return nil
	}
	for i, audience := range args {
		if slices.Contains(args[:i], audience) {
			return d.Errf("introspect: %s is given twice", audience)
		}
	}
	c.IntrospectAudiences = args
	return nil
}

func (c *ClientConfig) unmarshalKeys(d *caddyfile.Dispenser) error {
	_, text, err := oneArg(d, len(c.JWKS) > 0)
	if err != nil {
		return err
	}
	var set map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &set); err != nil || set["keys"] == nil {
		return d.Err("jwks: this is no JWK set: write {\"keys\": [...]} between backticks")
	}
	c.JWKS = json.RawMessage(text)
	return nil
}

func (c *ClientConfig) unmarshalCertificates(d *caddyfile.Dispenser) error {
	if len(c.TLSCertificates) > 0 {
		return duplicate(d)
	}
	c.TLSCertificates = d.RemainingArgs()
	if n := len(c.TLSCertificates); n == 0 || n > 2 {
		return d.ArgErr()
	}
	for _, digest := range c.TLSCertificates {
		if _, err := oauth.ParseDigest(digest); err != nil {
			return d.Errf("tls_certificate: %q: %v", digest, err)
		}
	}
	return nil
}

// unmarshalClientsFile parses the short form of a file with clients. Syntax:
//
//	clients_file <path> [<poll_interval>]
func (a *App) unmarshalClientsFile(d *caddyfile.Dispenser) error {
	file := new(ClientFile)
	if err := file.UnmarshalCaddyfile(d.NewFromNextSegment()); err != nil {
		return err
	}
	return a.addClientSource(d, file, "file")
}

// unmarshalClients parses where further clients come from. Syntax:
//
//	clients <source> ...
//
// The source is a module in the namespace token_revocation.clients, which parses
// the rest.
func (a *App) unmarshalClients(d *caddyfile.Dispenser) error {
	if !d.NextArg() {
		return d.ArgErr()
	}
	name := d.Val()
	source, err := caddyfile.UnmarshalModule(d, clientSources+"."+name)
	if err != nil {
		return err
	}
	return a.addClientSource(d, source, name)
}

func (a *App) addClientSource(d *caddyfile.Dispenser, source any, name string) error {
	raw := caddyconfig.JSONModuleObject(source, "source", name, nil)
	for _, other := range a.ClientSourcesRaw {
		if string(other) == string(raw) {
			return d.Errf("the same %s with clients is given twice: keep one of them", name)
		}
	}
	a.ClientSourcesRaw = append(a.ClientSourcesRaw, raw)
	return nil
}
