package caddymodule

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	caddy.RegisterModule(Health{})
	httpcaddyfile.RegisterHandlerDirective("token_revocation_health", parseHealth)
	httpcaddyfile.RegisterDirectiveOrder("token_revocation_health", httpcaddyfile.Before, "basic_auth")
}

// Health is an HTTP handler for the probes of an orchestrator: whether this edge
// is ready to be sent requests, or alive at all. The same answers are on Caddy's
// admin endpoint, at /token_revocation/ready and /token_revocation/live; this
// handler is for probes that can't reach that.
type Health struct {
	// ready, the default, answers 200 once the denylist has been in sync with
	// the ledger, or was loaded from a checkpoint that is young enough, and 503
	// before. It stays 200 during an outage of the ledger: what happens then is
	// decided by the routes' staleness policy, and taking every edge out of
	// service at once would be worse. live answers 200 as long as Caddy
	// answers: restarting an edge does not bring a ledger back.
	Probe string `json:"probe,omitempty"`

	app *App
}

// CaddyModule returns the Caddy module information.
func (Health) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.token_revocation_health",
		New: func() caddy.Module { return new(Health) },
	}
}

// Provision finds the app.
func (h *Health) Provision(ctx caddy.Context) error {
	var err error
	h.app, err = configuredApp(ctx)
	return err
}

// Validate checks the probe.
func (h *Health) Validate() error {
	if h.Probe != "" && h.Probe != "ready" && h.Probe != "live" {
		return fmt.Errorf("probe is %q: use ready or live", h.Probe)
	}
	return nil
}

// ServeHTTP answers every request itself.
func (h *Health) ServeHTTP(w http.ResponseWriter, _ *http.Request, _ caddyhttp.Handler) error {
	return writeProbe(w, h.Probe == "live" || h.app.ready())
}

// ready tells whether this edge may be sent requests.
func (a *App) ready() bool { return a.replica.ready(time.Duration(a.Stale.MaxAge)) }

// writeProbe answers a probe.
func writeProbe(w http.ResponseWriter, ok bool) error {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if !ok {
		w.Header().Set("Retry-After", retryAfter)
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	return json.NewEncoder(w).Encode(map[string]bool{"ok": ok})
}

func parseHealth(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	health := new(Health)
	return health, health.UnmarshalCaddyfile(h.Dispenser)
}

// UnmarshalCaddyfile parses the handler. Syntax:
//
//	token_revocation_health [<matcher>] [ready|live]
func (h *Health) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the directive's name
	if d.NextArg() {
		h.Probe = d.Val()
		if h.Probe != "ready" && h.Probe != "live" {
			return d.Errf("probe %q is unknown: use ready or live", h.Probe)
		}
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	if d.NextBlock(0) {
		return d.Err("token_revocation_health has no block")
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Health)(nil)
	_ caddy.Validator             = (*Health)(nil)
	_ caddyhttp.MiddlewareHandler = (*Health)(nil)
	_ caddyfile.Unmarshaler       = (*Health)(nil)
)
