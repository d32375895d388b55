package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
)

func init() {
	caddy.RegisterModule(Endpoint{})
}

// Endpoint is an HTTP handler that serves OAuth 2.0 token revocation (RFC 7009).
// A client authenticates and posts a token of its own; the answer 200 means that
// the revocation is on disk, in force on this edge, and on its way to all
// others. Clients and issuers are those of the `token_revocation` app.
type Endpoint struct {
	// The realm of the challenge that answers a failed HTTP Basic
	// authentication. Default: token revocation.
	Realm string `json:"realm,omitempty"`

	// The largest request body, in bytes; a larger one is answered with 413.
	// Default: 64 KiB.
	MaxBody int64 `json:"max_body,omitempty"`

	endpoint *oauth.Endpoint
	app      *App
	logger   *zap.Logger
}

// CaddyModule returns the Caddy module information.
func (Endpoint) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.token_revocation",
		New: func() caddy.Module { return new(Endpoint) },
	}
}

// Provision builds the endpoint from the app's clients and issuers.
func (e *Endpoint) Provision(ctx caddy.Context) error {
	e.logger = ctx.Logger()
	var err error
	if e.app, err = configuredApp(ctx); err != nil {
		return err
	}
	if e.MaxBody < 0 {
		return errors.New("max_body must not be negative")
	}
	e.endpoint, err = oauth.NewEndpoint(oauth.EndpointOptions{
		Clients:  e.app.clients,
		Tokens:   resolver{e.app},
		Revoker:  e.app.service,
		Realm:    e.Realm,
		MaxBody:  e.MaxBody,
		Logger:   ctx.Slogger(),
		ClientIP: clientIP,
		Observe:  e.observe,
	})
	return err
}

// ServeHTTP answers every request itself: the next handler is never called.
func (e *Endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	e.endpoint.ServeHTTP(w, r)
	return nil
}

func (e *Endpoint) observe(o oauth.Outcome) {
	e.app.metrics.endpoint.WithLabelValues(string(o.Result)).Inc()
	if o.Result != oauth.ResultRevoked {
		return
	}
	e.app.replica.announce("token_revoked", map[string]any{
		"id":        o.DecisionID,
		"sequence":  o.Sequence,
		"client_id": o.ClientID,
	})
	if c := e.logger.Check(zap.InfoLevel, "token revoked"); c != nil {
		c.Write(zap.String("id", o.DecisionID), zap.Uint64("sequence", o.Sequence),
			zap.String("issuer", o.Issuer), zap.String("client_id", o.ClientID))
	}
}

// clientIP is the address that Caddy's trusted_proxies setting makes of the
// connection's and the forwarded headers.
func clientIP(r *http.Request) netip.Addr {
	text, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	addr, _ := netip.ParseAddr(text)
	return addr
}

// resolver lets the endpoint learn whose token it was given. It may wait for
// keys, and asks neither for this resource's audience nor for a token that has
// not expired: any token of a trusted issuer can be revoked.
type resolver struct{ app *App }

// Resolve implements oauth.TokenResolver.
func (r resolver) Resolve(ctx context.Context, token string) (*revocation.Identity, error) {
	names, _ := r.app.replica.denylist.ClaimNames()
	id, err := r.app.identify(ctx, token, issuer.Request{
		ClaimNames:     names,
		Wait:           true,
		IgnoreAudience: true,
		IgnoreExpiry:   true, // the service knows for how long tokens outlive exp
	})
	switch {
	case err == nil:
		return id, nil
	case errors.Is(err, issuer.ErrKeysUnavailable):
		return nil, fmt.Errorf("%w: %w", oauth.ErrResolveUnavailable, err)
	case errors.Is(err, issuer.ErrNotJWT):
		return nil, fmt.Errorf("%w: %w", oauth.ErrTokenUnsupported, err)
	case errors.Is(err, issuer.ErrExpired):
		return nil, fmt.Errorf("%w: %w", oauth.ErrTokenExpired, err)
	default:
		return nil, fmt.Errorf("%w: %w", oauth.ErrTokenInvalid, err)
	}
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Endpoint)(nil)
	_ caddyhttp.MiddlewareHandler = (*Endpoint)(nil)
	_ oauth.TokenResolver         = resolver{}
)
