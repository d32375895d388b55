package caddymodule

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

func init() {
	httpcaddyfile.RegisterGlobalOption(appID, parseGlobalOption)
}

// parseGlobalOption sets up the app from the global option. It may be given more
// than once, for example in imported files: the parts are merged, and a setting
// that is given twice is an error. Syntax:
//
//	token_revocation {
//		embedded [<store_dir>] { ... }
//		nats <url...> { ... }
//		stream       <name>
//		edge         <name>
//		max_bytes    <size>
//		heartbeat    <duration>
//		max_clock_skew <duration>
//
//		issuer development|<issuer> [<preset>] { ... }
//		client <client_id> public|<secret...> { ... }
//		clients_file <path> [<poll_interval>]
//		clients <source> ...
//		assertion_audience <audience...>
//
//		max_entries  <number>
//		client_quota <number>
//		cache        <size>
//		leeway       <duration>
//		retention    <duration>
//		issuer_skew  <duration>
//		stale        [fail_open|fail_closed] [<max_age>]
//	}
func parseGlobalOption(d *caddyfile.Dispenser, existing any) (any, error) {
	app := new(App)
	if existing != nil {
		merged, ok := existing.(httpcaddyfile.App)
		if !ok {
			return nil, d.Errf("unexpected existing value of %s: %T", appID, existing)
		}
		if err := json.Unmarshal(merged.Value, app); err != nil {
			return nil, d.Errf("merging %s: %v", appID, err)
		}
	}
	if err := app.UnmarshalCaddyfile(d); err != nil {
		return nil, err
	}
	return httpcaddyfile.App{Name: appID, Value: caddyconfig.JSON(app, nil)}, nil
}

// UnmarshalCaddyfile parses the global option; see parseGlobalOption.
func (a *App) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the option's name
	if d.NextArg() {
		return d.ArgErr()
	}
	for d.NextBlock(0) {
		if err := a.unmarshalOption(d); err != nil {
			return err
		}
	}
	return nil
}

func (a *App) unmarshalOption(d *caddyfile.Dispenser) error {
	if a.Ledger == nil {
		a.Ledger = new(LedgerConfig)
		defer func() {
			if *a.Ledger == (LedgerConfig{}) {
				a.Ledger = nil
			}
		}()
	}
	switch option := d.Val(); option {
	case "embedded":
		return a.Ledger.unmarshalEmbedded(d)
	case "nats":
		return a.Ledger.unmarshalNATS(d)
	case "stream":
		return stringOption(d, &a.Ledger.Stream)
	case "edge":
		return stringOption(d, &a.Ledger.Edge)
	case "max_bytes":
		return sizeOption(d, &a.Ledger.MaxBytes)
	case "heartbeat":
		return durationOption(d, &a.Ledger.Heartbeat)
	case "max_clock_skew":
		return durationOption(d, &a.Ledger.MaxClockSkew)
	case "issuer":
		return a.unmarshalIssuer(d)
	case "client":
		return a.unmarshalClient(d)
	case "clients":
		return a.unmarshalClients(d)
	case "clients_file":
		return a.unmarshalClientsFile(d)
	case "assertion_audience":
		return listOption(d, &a.AssertionAudiences)
	case "max_entries":
		return intOption(d, &a.MaxEntries)
	case "client_quota":
		return intOption(d, &a.ClientQuota)
	case "cache":
		return sizeOption(d, &a.CacheBytes)
	case "leeway":
		return durationOption(d, &a.Leeway)
	case "retention":
		return durationOption(d, &a.Retention)
	case "issuer_skew":
		return durationOption(d, &a.IssuerSkew)
	case "stale":
		return unmarshalStale(d, &a.Stale)
	default:
		return unknownOption(d, "embedded, nats, stream, edge, max_bytes, heartbeat, max_clock_skew, issuer, client, "+
			"clients, clients_file, assertion_audience, max_entries, client_quota, cache, leeway, retention, issuer_skew, stale")
	}
}

// unmarshalStale parses what happens on a stale edge. Syntax:
//
//	stale [fail_open|fail_closed] [<max_age>]
func unmarshalStale(d *caddyfile.Dispenser, into **StalePolicy) error {
	if *into != nil {
		return duplicate(d)
	}
	policy := new(StalePolicy)
	args := d.RemainingArgs()
	if len(args) == 0 || len(args) > 2 {
		return d.ArgErr()
	}
	if args[0] == "fail_open" || args[0] == "fail_closed" {
		policy.FailOpen = args[0] == "fail_open"
		args = args[1:]
	}
	for _, arg := range args {
		if policy.MaxAge != 0 {
			return d.Errf("stale: %q is neither fail_open nor fail_closed", args[0])
		}
		age, err := caddy.ParseDuration(arg)
		if err != nil || age <= 0 {
			return d.Errf("stale: %q is no positive duration such as 60s, nor fail_open or fail_closed", arg)
		}
		policy.MaxAge = caddy.Duration(age)
	}
	*into = policy
	return nil
}

// The helpers below each take exactly one argument, once.

func duplicate(d *caddyfile.Dispenser) error {
	return d.Errf("%s is given twice: keep one of them", d.Val())
}

func unknownOption(d *caddyfile.Dispenser, known string) error {
	return d.Errf("unrecognized option %q; known are: %s", d.Val(), known)
}

func stringOption(d *caddyfile.Dispenser, into *string) error {
	if *into != "" {
		return duplicate(d)
	}
	if !d.AllArgs(into) {
		return d.ArgErr()
	}
	return nil
}

func flagOption(d *caddyfile.Dispenser, into *bool) error {
	if *into {
		return duplicate(d)
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	*into = true
	return nil
}

// oneArg returns the option's name and its only argument. Given tells whether the
// option was there before.
func oneArg(d *caddyfile.Dispenser, given bool) (option, arg string, err error) {
	option = d.Val()
	if given {
		return option, "", duplicate(d)
	}
	if !d.AllArgs(&arg) {
		return option, "", d.ArgErr()
	}
	return option, arg, nil
}

func intOption(d *caddyfile.Dispenser, into *int) error {
	option, arg, err := oneArg(d, *into != 0)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(strings.ReplaceAll(arg, "_", ""))
	if err != nil || n <= 0 {
		return d.Errf("%s: %q is no positive number", option, arg)
	}
	*into = n
	return nil
}

func durationOption(d *caddyfile.Dispenser, into *caddy.Duration) error {
	option, arg, err := oneArg(d, *into != 0)
	if err != nil {
		return err
	}
	duration, err := caddy.ParseDuration(arg)
	if err != nil {
		return d.Errf("%s: %q is no duration such as 30s, 5m or 7d", option, arg)
	}
	*into = caddy.Duration(duration)
	return nil
}

func sizeOption(d *caddyfile.Dispenser, into *int64) error {
	option, arg, err := oneArg(d, *into != 0)
	if err != nil {
		return err
	}
	size, err := humanize.ParseBytes(arg)
	if err != nil || size == 0 || size > 1<<60 {
		return d.Errf("%s: %q is no size such as 16MiB or 1GB", option, arg)
	}
	*into = int64(size)
	return nil
}

// Interface guards
var (
	_ caddyfile.Unmarshaler = (*App)(nil)
)
