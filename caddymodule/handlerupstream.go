package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
)

func init() {
	caddy.RegisterModule(Upstream{})
}

// Upstream is an HTTP handler that stands before the `reverse_proxy` to an
// authorization server's own revocation endpoint (RFC 7009). The server
// authenticates its clients, and answers them: requests and answers pass through
// unchanged. When the server has answered 200, the revocation is recorded, and
// only then the client is told.
//
// Recorded is only what was verified here, by signature or introspection, and was
// issued to the client that the request names: a 200 alone proves nothing.
// Requests that two parsers could read in different ways are refused with 400
// before the server sees them. If the server does not answer, or the ledger does
// not, the client is told 503 and tries again; what the server has accepted is
// remembered on disk (in Caddy's data directory, token_revocation/intents) until
// it is recorded, also over a crash.
type Upstream struct {
	// The issuer that the authorization server is. Clients are its own: another
	// issuer, or another realm or tenant, needs a handler on a path of its own.
	// Default: the only one that is configured.
	Issuer string `json:"issuer,omitempty"`

	// What is revoked here with an access token: token, the default, is that
	// token; grant is all tokens of the same grant, as at the endpoint. A refresh
	// token always takes its grant with it.
	Cascade string `json:"cascade,omitempty"`

	// The claim that identifies the grant under which a token was issued, as a
	// claim line of the issuer names it.
	GrantClaim string `json:"grant_claim,omitempty"`

	// introspect: ask the authorization server about the token after its 200, and
	// record the revocation only if the token is inactive then; its grant only if
	// the token was active when the request came. For servers that answer 200 to
	// requests they have refused. Default: the 200 is believed.
	Confirm string `json:"confirm,omitempty"`

	// The authorization server reads HTTP Basic as RFC 6749 has it, form-encoded.
	// By default, a client whose id can be read in two ways (because it has a
	// percent or plus sign in it) has to send client_id in the form, too, to have
	// anything recorded.
	StrictBasic bool `json:"strict_basic,omitempty"`

	// The largest request body, in bytes; a larger one is answered with 413.
	// Default: 64 KiB.
	MaxBody int64 `json:"max_body,omitempty"`

	// How long the authorization server may take. Default: 10s.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// Which requests are logged as Info: effects, the default, or all; as at the
	// endpoint.
	Audit string `json:"audit,omitempty"`

	upstream *oauth.Upstream
	app      *App
	logger   *zap.Logger
	state    *upstreamState
	holds    bool // a reference to state
}

// CaddyModule returns the Caddy module information.
func (Upstream) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.token_revocation_upstream",
		New: func() caddy.Module { return new(Upstream) },
	}
}

// Provision checks the settings against the app's issuers. It touches no disk.
func (u *Upstream) Provision(ctx caddy.Context) error {
	u.logger = ctx.Logger()
	var err error
	if u.app, err = configuredApp(ctx); err != nil {
		return err
	}
	name, err := u.check()
	if err != nil {
		return err
	}
	if u.state, err = takeUpstreamState(); err != nil {
		return err
	}
	u.holds = true
	if err := u.state.register(ctx.GetMetricsRegistry()); err != nil {
		return err
	}
	options := oauth.UpstreamOptions{
		Issuer:      name,
		Tokens:      u.app.freshResolver(u.GrantClaim),
		Revoker:     u.app.service,
		Intents:     u.state,
		IssuerSkew:  u.app.issuerSkew(),
		Guard:       u.app.guard,
		Refused:     refusedBefore,
		Cascade:     oauth.Cascade(u.Cascade),
		GrantClaim:  u.GrantClaim,
		StrictBasic: u.StrictBasic,
		MaxBody:     u.MaxBody,
		Leeway:      time.Duration(u.app.Leeway),
		Timeout:     time.Duration(u.Timeout),
		Secure:      cameOverTLS,
		ClientIP:    clientIP,
		Logger:      ctx.Slogger(),
		Observe:     u.observe,
	}
	if u.Confirm != "" {
		options.Confirm = u.app.stillActive
	}
	if u.app.introspector(name) != nil || u.app.issuer(name).Config().Opaque {
		options.Recheck = u.state.rechecks.Recheck
	}
	u.upstream, err = oauth.NewUpstream(options)
	return err
}

// check reports settings that are not valid, and returns the issuer's main name.
func (u *Upstream) check() (name string, err error) {
	switch {
	case u.Cascade != "" && u.Cascade != "token" && u.Cascade != "grant":
		return "", fmt.Errorf("cascade is %q: use token or grant", u.Cascade)
	case u.Confirm != "" && u.Confirm != "introspect":
		return "", fmt.Errorf("confirm is %q: use introspect", u.Confirm)
	case u.Audit != "" && u.Audit != "effects" && u.Audit != "all":
		return "", fmt.Errorf("audit is %q: use effects or all", u.Audit)
	case u.MaxBody < 0 || u.Timeout < 0:
		return "", errors.New("max_body and timeout must not be negative")
	}
	if err := checkGrantClaim(u.GrantClaim); err != nil {
		return "", err
	}
	configured := u.Issuer
	if configured == "" {
		if len(u.app.issuers) != 1 {
			return "", fmt.Errorf("%d issuers are configured: say with an issuer line which of them the authorization server is; "+
				"each needs a token_revocation upstream on a path of its own", len(u.app.issuers))
		}
		configured = u.app.issuers[0].Name()
	}
	i := u.app.issuer(configured)
	switch {
	case i == nil:
		return "", fmt.Errorf("issuer %s is not configured: add an issuer line for it to the global option, spelled exactly so", configured)
	case u.Confirm != "" && u.app.introspector(configured) == nil:
		return "", fmt.Errorf("confirm introspect needs an introspection block in the issuer line of %s", configured)
	}
	return i.Name(), nil
}

// refusedBefore tells whether an error is the answer of a handler between this one
// and the reverse_proxy, and returns its status. The reverse_proxy itself returns
// 499 if its exchange was given up.
func refusedBefore(err error) (status int) {
	var answer caddyhttp.HandlerError
	if !errors.As(err, &answer) || answer.StatusCode < 400 || answer.StatusCode > 498 {
		return 0
	}
	return answer.StatusCode
}

// checkGrantClaim refuses claims that all tokens of a grant don't share, or that
// other tokens share too.
func checkGrantClaim(c string) error {
	switch {
	case slices.Contains([]string{
		revocation.ClaimToken, revocation.ClaimTokenID, revocation.ClaimKeyID, revocation.ClaimClientID, revocation.ClaimSubject,
	}, c):
		return fmt.Errorf("grant_claim %s does not identify a grant: name the claim that all tokens of one grant, and no others, share", c)
	case len(c) > revocation.MaxClaimName:
		return fmt.Errorf("grant_claim is longer than %d bytes", revocation.MaxClaimName)
	default:
		return nil
	}
}

// Cleanup releases what this instance took.
func (u *Upstream) Cleanup() error {
	if !u.holds {
		return nil
	}
	u.holds = false // the state stays: requests may still be in flight
	return releaseUpstreamState(u.state)
}

// ServeHTTP passes the request on to the next handler, which has to be the
// reverse_proxy to the authorization server.
func (u *Upstream) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	return u.upstream.ServeHTTP(w, r, next.ServeHTTP)
}

// stillActive asks the authorization server whether it takes a token for active
// now.
func (a *App) stillActive(ctx context.Context, iss, token string) (bool, error) {
	n := a.introspector(iss)
	if n == nil {
		return false, errors.New("the issuer is not asked about its tokens")
	}
	_, err := n.Introspect(ctx, token, issuer.IntrospectionRequest{
		MaxAge: -1, AnyUse: true, IgnoreAudience: true, IgnoreExpiry: true,
	})
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, issuer.ErrInactive):
		return false, nil
	default:
		return false, err
	}
}

func (a *App) issuerSkew() time.Duration {
	if a.IssuerSkew == 0 {
		return revocation.DefaultIssuerSkew
	}
	return time.Duration(a.IssuerSkew)
}

// freshResolver is a resolver that asks the authorization server itself, and not
// what is remembered of it: what it says is compared with what it does next.
func (a *App) freshResolver(grantClaim string) oauth.TokenResolver {
	r, ok := a.resolver(grantClaim).(tokenResolver)
	if !ok {
		return nil
	}
	r.maxAge = -1
	return r
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Upstream)(nil)
	_ caddy.CleanerUpper          = (*Upstream)(nil)
	_ caddyhttp.MiddlewareHandler = (*Upstream)(nil)
)
