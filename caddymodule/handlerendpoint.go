package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
)

func init() {
	caddy.RegisterModule(Endpoint{})
}

// Endpoint is an HTTP handler that serves OAuth 2.0 token revocation (RFC 7009).
// A client authenticates and posts a token of its own; the answer 200 means that
// the revocation is on disk, in force on this edge, and on its way to all
// others. Clients and issuers are those of the `token_revocation` app. A config
// may have any number of endpoints, at any path.
//
// What it does is logged, one line a request, and announced as Caddy events:
// `token_revoking` before a token is revoked, whose handlers may abort it, which
// the client is told with 403; `token_revoked` once a revocation is durable; and
// `token_revocation_refused` for requests that policies or failures have stopped,
// and for tokens that are another client's.
type Endpoint struct {
	// The realm of the challenge that answers a failed HTTP Basic
	// authentication. Default: token revocation.
	Realm string `json:"realm,omitempty"`

	// The largest request body, in bytes; a larger one is answered with 413.
	// Default: 64 KiB.
	MaxBody int64 `json:"max_body,omitempty"`

	// The issuers whose clients this endpoint serves. To it, the clients of
	// others do not exist. Default: all issuers.
	Issuers []string `json:"issuers,omitempty"`

	// What a client revokes with a token: token, the default, is that token;
	// grant is all tokens of the same grant. These are, by the first one that
	// the token has: those with the same grant_claim; those of the same login
	// session (sid), also new ones; those of the same user (sub) issued up to
	// now. Always only those of the same client: tokens of other clients
	// survive. A refresh token takes its grant with it in any case. The request
	// does not decide it, but for a token that its authorization server, asked
	// about it, does not call one or the other: the hint refresh_token then makes
	// it a refresh token.
	Cascade string `json:"cascade,omitempty"`

	// The claim that identifies the grant under which a token was issued: its name
	// in tokens, or the one that a claim line of the issuer gives it. Without it,
	// or in tokens that do not have it, it is the session or the user.
	GrantClaim string `json:"grant_claim,omitempty"`

	// Kinds of tokens that can't be revoked here, and are answered with 400
	// unsupported_token_type: access_token and refresh_token by what they are for;
	// jwt, those that are verified with their issuer's keys, and opaque, those
	// that it is asked about. Default: none.
	Refuse []oauth.TokenKind `json:"refuse,omitempty"`

	// Take several tokens, at most 16, separated by spaces, in the parameter
	// token, as Gluu's and Janssen's servers do. If one of them has to be refused,
	// none is revoked.
	SeveralTokens bool `json:"several_tokens,omitempty"`

	// Take the word all in place of a token, as Janssen's server does, from
	// clients that authenticate: every token that was issued to the client up to
	// now is revoked, with a cutoff. With token_type_hint access_token it is the
	// same; every other hint is refused, since no entry could name those tokens
	// only.
	AllTokens bool `json:"all_tokens,omitempty"`

	// Take the parameters also as a JSON object, with the content type
	// application/json, as some servers built on oauthlib do. Its members are
	// texts, and none is there twice.
	JSONBody bool `json:"json_body,omitempty"`

	// Answer a request that has the parameter callback, and succeeds, with a
	// script that calls it (RFC 7009, section 2.3), for clients that expect it. It
	// is a POST all the same: with GET, as scripts are loaded, the token would be
	// in the URL. Scripts in browsers want cors_origins instead.
	JSONP bool `json:"jsonp,omitempty"`

	// What a public client is told when it presents the token of another client:
	// refuse, the default, is 400 invalid_grant; silent is 200, with nothing
	// revoked, so that nobody can use its client_id to find out which tokens are
	// alive. Clients that authenticate are always told.
	ForeignToken string `json:"foreign_token,omitempty"`

	// Let clients that have revoke_any revoke every token of their issuer.
	AllowRevokeAny bool `json:"allow_revoke_any,omitempty"`

	// What has a say in a revocation, asked in this order after the token was
	// verified and found to be the client's: expression, webhook, or any module
	// in the namespace token_revocation.policies. Each may allow it, skip it
	// (the client is told 200, and the token lives), or refuse it. One that
	// fails is answered with 503, and the token lives.
	PoliciesRaw []json.RawMessage `json:"policies,omitempty" caddy:"namespace=token_revocation.policies inline_key=policy"`

	// The origins whose scripts may use the endpoint, exactly as browsers send
	// them: https://app.example.com. Default: none.
	CORSOrigins []string `json:"cors_origins,omitempty"`

	// Take the client id and secret in HTTP Basic as RFC 6749 has them, each
	// form-encoded, and only so. By default they are also accepted as they stand,
	// since many clients forget to encode.
	StrictBasic bool `json:"strict_basic,omitempty"`

	// What happens to requests over plain HTTP: allow, the default, serves and
	// counts them, since a token that went over plain HTTP has to die all the
	// more (RFC 7009, section 2); refuse answers 403. A request that a trusted
	// proxy received over HTTPS, and says so in X-Forwarded-Proto, is none.
	PlainHTTP string `json:"plain_http,omitempty"`

	// Which requests are logged as Info: effects, the default, are revocations,
	// refusals by policies, attempts on the tokens of other clients, and
	// failures; all are also those in which the client
	// was at fault or there was nothing to revoke. The rest is logged as Debug.
	Audit string `json:"audit,omitempty"`

	endpoint *oauth.Endpoint
	app      *App
	logger   *zap.Logger
	stats    *endpointStats
	holds    bool // a reference to stats
	policies []oauth.NamedPolicy
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
	if err := e.check(); err != nil {
		return err
	}
	if e.policies, err = e.loadPolicies(ctx); err != nil {
		return err
	}
	if e.stats, err = takeEndpointStats(); err != nil {
		return err
	}
	e.holds = true
	if err := e.stats.register(ctx.GetMetricsRegistry()); err != nil {
		return err
	}
	options := oauth.EndpointOptions{
		Issuers:         e.Issuers,
		Tokens:          e.app.resolver(e.GrantClaim),
		Revoker:         e.app.service,
		Cascade:         oauth.Cascade(e.Cascade),
		GrantClaim:      e.GrantClaim,
		Refuse:          e.Refuse,
		SeveralTokens:   e.SeveralTokens,
		AllTokens:       e.AllTokens,
		JSONBody:        e.JSONBody,
		JSONP:           e.JSONP,
		Foreign:         oauth.Foreign(e.ForeignToken),
		AllowRevokeAny:  e.AllowRevokeAny,
		Policies:        append(slices.Clip(e.policies), oauth.NamedPolicy{Name: revokingEvent, Policy: eventPolicy{e.app}}),
		Origins:         e.CORSOrigins,
		RefusePlainHTTP: e.PlainHTTP == "refuse",
		Secure:          cameOverTLS,
		Realm:           e.Realm,
		MaxBody:         e.MaxBody,
		StrictBasic:     e.StrictBasic,
		Leeway:          time.Duration(e.app.Leeway),
		Logger:          ctx.Slogger(),
		ClientIP:        clientIP,
		Observe:         e.observe,
	}
	if err := e.app.setClients(&options); err != nil {
		return err
	}
	e.endpoint, err = oauth.NewEndpoint(options)
	return err
}

// check reports settings that are not valid.
func (e *Endpoint) check() error {
	for _, c := range []struct{ name, value, one, other string }{
		{"cascade", e.Cascade, "token", "grant"},
		{"foreign_token", e.ForeignToken, "refuse", "silent"},
		{"plain_http", e.PlainHTTP, "allow", "refuse"},
		{"audit", e.Audit, "effects", "all"},
	} {
		if c.value != "" && c.value != c.one && c.value != c.other {
			return fmt.Errorf("%s is %q: use %s or %s", c.name, c.value, c.one, c.other)
		}
	}
	if e.MaxBody < 0 {
		return errors.New("max_body must not be negative")
	}
	for _, iss := range e.Issuers {
		if !e.app.knowsIssuer(iss) {
			return fmt.Errorf("issuer %s is not configured: add an issuer line for it to the global option, spelled exactly so", iss)
		}
	}
	switch c := e.GrantClaim; {
	case c == "":
	case slices.Contains([]string{
		revocation.ClaimToken, revocation.ClaimTokenID, revocation.ClaimKeyID, revocation.ClaimClientID, revocation.ClaimSubject,
	}, c):
		return fmt.Errorf("grant_claim %s does not identify a grant: name the claim that all tokens of one grant, and no others, share", c)
	case len(c) > revocation.MaxClaimName:
		return fmt.Errorf("grant_claim is longer than %d bytes", revocation.MaxClaimName)
	}
	return nil
}

// Cleanup releases what this instance took.
func (e *Endpoint) Cleanup() error {
	if !e.holds {
		return nil
	}
	e.holds = false // the stats stay: requests may still be in flight
	return releaseEndpointStats()
}

// ServeHTTP answers every request itself: the next handler is never called.
func (e *Endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	e.endpoint.ServeHTTP(w, r)
	return nil
}

// clientIP is the address that Caddy's trusted_proxies setting makes of the
// connection's and the forwarded headers.
func clientIP(r *http.Request) netip.Addr { return clientIPOf(r.Context()) }

// clientIPOf is the same for whoever has the request's context only.
func clientIPOf(ctx context.Context) netip.Addr {
	text, _ := caddyhttp.GetVar(ctx, caddyhttp.ClientIPVarKey).(string)
	addr, _ := netip.ParseAddr(text)
	return addr
}

// cameOverTLS tells whether a request was protected on its way here: by its own
// connection, or by that to a trusted proxy in front. Of several values in
// X-Forwarded-Proto, any may be the client's own invention: all have to agree.
func cameOverTLS(r *http.Request) bool {
	if r.TLS != nil {
		return true
	}
	if trusted, _ := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool); !trusted {
		return false
	}
	forwarded := r.Header["X-Forwarded-Proto"]
	for _, value := range forwarded {
		for proto := range strings.SplitSeq(value, ",") {
			if !strings.EqualFold(strings.TrimSpace(proto), "https") {
				return false
			}
		}
	}
	return len(forwarded) > 0
}

// policyTimeout bounds what a policy may take of the time for a request.
const policyTimeout = caddy.Duration(oauth.DefaultTimeout - time.Second)

// Interface guards
var (
	_ caddy.Provisioner           = (*Endpoint)(nil)
	_ caddy.CleanerUpper          = (*Endpoint)(nil)
	_ caddyhttp.MiddlewareHandler = (*Endpoint)(nil)
)
