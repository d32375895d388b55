package caddymodule

import (
	"slices"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/edge-revocation/caddy-token-revocation/revocation/ledger"
)

// unmarshalEmbedded parses the embedded server. Syntax:
//
//	embedded [<store_dir>] {
//		listen <address>
//		tls    <certificate> <key> [<client_ca>]
//		user   <name> <password> [edge|producer|publisher|operator]
//		nkey   <name> <public_nkey> [edge|producer|publisher|operator]
//		sync   always|<interval>
//	}
func (c *LedgerConfig) unmarshalEmbedded(d *caddyfile.Dispenser) error {
	if c.Embedded != nil {
		return duplicate(d)
	}
	if c.NATS != nil {
		return d.Err("a ledger is either embedded or reached by nats, not both: remove one of them")
	}
	e := new(EmbeddedConfig)
	c.Embedded = e
	if d.NextArg() {
		e.StoreDir = d.Val()
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	synced := false
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch d.Val() {
		case "listen":
			err = stringOption(d, &e.Listen)
		case "tls":
			err = e.unmarshalTLS(d)
		case "user", "nkey":
			err = e.unmarshalUser(d)
		case "sync":
			if synced {
				return duplicate(d)
			}
			synced = true
			if d.CountRemainingArgs() == 1 && nextArgIs(d, "always") {
				d.NextArg()
				continue
			}
			err = durationOption(d, &e.SyncInterval)
		default:
			err = unknownOption(d, "listen, tls, user, nkey, sync")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// nextArgIs looks one token ahead on the same line.
func nextArgIs(d *caddyfile.Dispenser, want string) bool {
	if !d.NextArg() {
		return false
	}
	is := d.Val() == want
	d.Prev()
	return is
}

func (e *EmbeddedConfig) unmarshalTLS(d *caddyfile.Dispenser) error {
	if e.TLSCertificate != "" {
		return duplicate(d)
	}
	args := d.RemainingArgs()
	if len(args) < 2 || len(args) > 3 {
		return d.ArgErr()
	}
	e.TLSCertificate, e.TLSKey = args[0], args[1]
	if len(args) == 3 {
		e.TLSClientCA = args[2]
	}
	return nil
}

func (e *EmbeddedConfig) unmarshalUser(d *caddyfile.Dispenser) error {
	kind := d.Val()
	args := d.RemainingArgs()
	if len(args) < 2 || len(args) > 3 {
		return d.ArgErr()
	}
	user := UserConfig{Name: args[0]}
	if kind == "nkey" {
		user.NKey = args[1]
	} else {
		user.Password = args[1]
	}
	if len(args) == 3 {
		user.Role = args[2]
	}
	switch ledger.Role(user.Role) {
	case "", ledger.RoleEdge, ledger.RoleProducer, ledger.RolePublisher, ledger.RoleOperator:
	default:
		return d.Errf("role %q is unknown: use edge, producer, publisher or operator", user.Role)
	}
	if slices.ContainsFunc(e.Users, func(u UserConfig) bool { return u.Name == user.Name }) {
		return d.Errf("user %s is given twice: keep one of them", user.Name)
	}
	e.Users = append(e.Users, user)
	return nil
}

// unmarshalNATS parses the connection to a NATS server or cluster. Syntax:
//
//	nats <url...> {
//		create       [<replicas>]
//		credentials  <file>
//		nkey         <seed_file>
//		user         <name> <password>
//		token        <token>
//		tls_ca       <file>
//		tls_client   <certificate> <key>
//		tls_server_name <name>
//		inbox_prefix <prefix>
//	}
func (c *LedgerConfig) unmarshalNATS(d *caddyfile.Dispenser) error {
	if c.NATS != nil {
		return duplicate(d)
	}
	if c.Embedded != nil {
		return d.Err("a ledger is either embedded or reached by nats, not both: remove one of them")
	}
	n := new(NATSConfig)
	c.NATS = n
	n.URLs = d.RemainingArgs()
	if len(n.URLs) == 0 {
		return d.Err("nats needs at least one server URL, for example nats://nats.internal:4222")
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := n.unmarshalOption(d); err != nil {
			return err
		}
	}
	return nil
}

func (n *NATSConfig) unmarshalOption(d *caddyfile.Dispenser) error {
	switch d.Val() {
	case "create":
		if n.Create {
			return duplicate(d)
		}
		n.Create = true
		if d.CountRemainingArgs() == 0 {
			return nil
		}
		if err := intOption(d, &n.Replicas); err != nil {
			return err
		}
		if n.Replicas > 5 || n.Replicas%2 == 0 {
			return d.Errf("create: %d replicas: JetStream takes 1, 3 or 5", n.Replicas)
		}
		return nil
	case "credentials":
		return stringOption(d, &n.Credentials)
	case "nkey":
		return stringOption(d, &n.NKey)
	case "user":
		if n.User != "" {
			return duplicate(d)
		}
		if !d.AllArgs(&n.User, &n.Password) {
			return d.ArgErr()
		}
		return nil
	case "token":
		return stringOption(d, &n.Token)
	case "tls_ca":
		return stringOption(d, &n.TLSCA)
	case "tls_client":
		if n.TLSCertificate != "" {
			return duplicate(d)
		}
		if !d.AllArgs(&n.TLSCertificate, &n.TLSKey) {
			return d.ArgErr()
		}
		return nil
	case "tls_server_name":
		return stringOption(d, &n.TLSServerName)
	case "inbox_prefix":
		return stringOption(d, &n.InboxPrefix)
	default:
		return unknownOption(d, "create, credentials, nkey, user, token, tls_ca, tls_client, tls_server_name, inbox_prefix")
	}
}
