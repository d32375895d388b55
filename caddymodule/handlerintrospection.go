package caddymodule

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
)

func init() {
	caddy.RegisterModule(Introspection{})
}

// Introspection is an HTTP handler that serves OAuth 2.0 token introspection (RFC
// 7662), so that services which already introspect tokens learn of revocations at
// once from the nearest edge. A service authenticates as a client of the
// `token_revocation` app and posts a token; the answer says whether the token is
// active, and what is known of it.
//
// JWTs of the configured issuers are verified with their keys, all others are
// asked about at the authorization server of the client that asks, if its issuer
// has `introspection`; and whatever the outcome, the denylist has the last word.
// A token that is revoked, expired, malformed, unknown, of another kind or not
// for this client is answered with {"active":false}, to the byte.
//
// A client is told about tokens of its own issuer that were issued to it, whose
// aud is its client_id, or that its `introspect` option names; about refresh
// tokens that were issued to it only. Public clients are told nothing.
//
// An edge that can't tell whether its denylist is complete calls no token active:
// it answers 503 with Retry-After, unless its staleness policy is to fail open.
// So it does if the authorization server or the keys of an issuer can't be asked.
type Introspection struct {
	// The realm of the challenge that answers a failed HTTP Basic
	// authentication. Default: token introspection.
	Realm string `json:"realm,omitempty"`

	// The largest request body, in bytes; a larger one is answered with 413.
	// Default: 64 KiB.
	MaxBody int64 `json:"max_body,omitempty"`

	// The issuers whose clients this endpoint serves. To it, the clients of
	// others do not exist. Default: all issuers.
	Issuers []string `json:"issuers,omitempty"`

	// What an answer says of an active token, besides that it is active: the
	// names of its members, such as sub, client_id, scope, exp. Default:
	// everything that the token says of itself, or that its authorization server
	// has answered to this edge, which may be more than that server would have
	// told the client itself.
	Members []string `json:"members,omitempty"`

	// Take the client id and secret in HTTP Basic as RFC 6749 has them, each
	// form-encoded, and only so. By default they are also accepted as they stand.
	StrictBasic bool `json:"strict_basic,omitempty"`

	// What happens to requests over plain HTTP: refuse, the default, answers 403
	// to all but those from this machine, since secrets and tokens are in them
	// (RFC 7662, section 4); allow serves them all. A request that a trusted
	// proxy received over HTTPS, and says so in X-Forwarded-Proto, is none. One
	// with Forwarded, Via, X-Real-IP or an X-Forwarded field is not from this
	// machine, even if the proxy is.
	PlainHTTP string `json:"plain_http,omitempty"`

	// What happens while this edge is stale or incomplete. Default: the app's
	// policy.
	Stale *StalePolicy `json:"stale,omitempty"`

	endpoint *oauth.IntrospectionEndpoint
	app      *App
	logger   *zap.Logger
	stats    *introspectionStats
	holds    bool // a reference to stats
}

// CaddyModule returns the Caddy module information.
func (Introspection) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.token_introspection",
		New: func() caddy.Module { return new(Introspection) },
	}
}

// Provision builds the endpoint from the app's clients and issuers.
func (n *Introspection) Provision(ctx caddy.Context) error {
	n.logger = ctx.Logger()
	var err error
	if n.app, err = configuredApp(ctx); err != nil {
		return err
	}
	if n.Stale == nil {
		n.Stale = n.app.Stale
	} else if n.Stale.MaxAge == 0 {
		n.Stale.MaxAge = n.app.Stale.MaxAge
	}
	if err := n.check(); err != nil {
		return err
	}
	if n.stats, err = takeIntrospectionStats(); err != nil {
		return err
	}
	n.holds = true
	if err := n.stats.register(ctx.GetMetricsRegistry()); err != nil {
		return err
	}
	shared := oauth.EndpointOptions{Issuers: n.Issuers}
	if err := n.app.setClients(&shared); err != nil {
		return err
	}
	n.endpoint, err = oauth.NewIntrospectionEndpoint(oauth.IntrospectionOptions{
		Clients:            shared.Clients,
		Guard:              shared.Guard,
		Assertions:         shared.Assertions,
		AssertionAudiences: shared.AssertionAudiences,
		Tokens:             introspectionSource{n.app},
		Current:            n.current,
		Issuers:            n.Issuers,
		Members:            n.Members,
		Realm:              n.Realm,
		MaxBody:            n.MaxBody,
		StrictBasic:        n.StrictBasic,
		RefusePlainHTTP:    n.PlainHTTP != "allow",
		Secure:             cameProtected,
		ClientIP:           clientIP,
		Observe:            n.observe,
		Logger:             ctx.Slogger(),
	})
	return err
}

// check reports settings that are not valid.
func (n *Introspection) check() error {
	switch {
	case n.PlainHTTP != "" && n.PlainHTTP != "allow" && n.PlainHTTP != "refuse":
		return fmt.Errorf("plain_http is %q: use allow or refuse", n.PlainHTTP)
	case n.MaxBody < 0:
		return errors.New("max_body must not be negative")
	case n.Stale.MaxAge < 0:
		return errors.New("the staleness bound must not be negative")
	}
	for _, iss := range n.Issuers {
		if !n.app.knowsIssuer(iss) {
			return fmt.Errorf("issuer %s is not configured: add an issuer line for it to the global option, spelled exactly so", iss)
		}
	}
	return nil
}

// Cleanup releases what this instance took.
func (n *Introspection) Cleanup() error {
	if !n.holds {
		return nil
	}
	n.holds = false // the stats stay: requests may still be in flight
	return releaseIntrospectionStats()
}

// ServeHTTP answers every request itself: the next handler is never called.
func (n *Introspection) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	n.endpoint.ServeHTTP(w, r)
	return nil
}

// current returns why no token may be called active now, or nil.
func (n *Introspection) current() error {
	err := n.app.replica.unproven(time.Duration(n.Stale.MaxAge), false)
	if err != nil && n.Stale.FailOpen {
		n.stats.failedOpen.Inc()
		return nil
	}
	return err
}

// cameProtected tells whether nobody could read a request on its way here: it
// came over TLS, or never left this machine. What a proxy on this machine has
// passed on came from elsewhere, and how, only a trusted one can say.
func cameProtected(r *http.Request) bool {
	if cameOverTLS(r) {
		return true
	}
	if wasForwarded(r.Header) {
		return false
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && peer.Addr().Unmap().IsLoopback()
}

// wasForwarded tells whether a proxy has left its mark on a request.
func wasForwarded(h http.Header) bool {
	for name := range h {
		if name == "Forwarded" || name == "Via" || name == "X-Real-Ip" || strings.HasPrefix(name, "X-Forwarded-") {
			return true
		}
	}
	return false
}

// observe is told of every request once it was answered.
func (n *Introspection) observe(o oauth.IntrospectionOutcome) {
	n.stats.requests.WithLabelValues(string(o.Result)).Inc()
	c := n.logger.Check(zap.DebugLevel, "token introspection request")
	if c == nil {
		return
	}
	fields := []zap.Field{
		zap.String("result", string(o.Result)),
		zap.Int("status", o.Status),
		zap.Duration("duration", o.Duration),
	}
	text := func(name, value string) {
		if value != "" {
			fields = append(fields, zap.String(name, value))
		}
	}
	text("reason", o.Reason)
	text("client_id", o.ClientID)
	text("issuer", o.Issuer)
	text("auth_method", string(o.Method))
	text("criteria", criteriaText(o.Token))
	if o.ClientIP.IsValid() {
		fields = append(fields, zap.Stringer("client_ip", o.ClientIP))
	}
	if o.Answered {
		fields = append(fields, zap.Bool("authorization_server_asked", true))
	}
	c.Write(fields...)
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Introspection)(nil)
	_ caddy.CleanerUpper          = (*Introspection)(nil)
	_ caddyhttp.MiddlewareHandler = (*Introspection)(nil)
)
