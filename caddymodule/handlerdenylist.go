package caddymodule

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
)

func init() {
	caddy.RegisterModule(Denylist{})
}

// Denylist is an HTTP handler that refuses requests which carry a revoked access
// token, before anything behind it sees them. No request waits for a network
// call, unless opaque tokens are introspected: tokens are checked against what
// this edge holds in memory.
//
// A request without a token passes, unless require_token is set. So does one whose
// Authorization field has another scheme and no JWT; but a token without a scheme is
// a token. What passes loses an offer to upgrade to h2c. A revoked,
// invalid or foreign token is answered with 401 and a challenge (RFC 6750,
// section 3); a request that does not carry exactly one token in a place where
// one may be, with 400; an edge that does not know whether its denylist is
// complete, or lacks the keys to verify a token, answers 503 with Retry-After.
// All of them are errors that `handle_errors` can render.
//
// It sets these placeholders, for the handlers and logs behind it, and for
// `handle_errors`. All of the token's are empty unless the token was verified
// here, by its signature or by introspection.
//
// Placeholder | Description
// ------------|---------------
// `{http.token_denylist.decision}` | What was decided, as in the metric: allowed, no_token, revoked, …
// `{http.token_denylist.reason}` | Why, for operators: it may name the ledger's entry, never the token
// `{http.token_denylist.issuer}` | The token's issuer
// `{http.token_denylist.sub}`, `.client_id`, `.sid`, `.jti` | Its claims, under these names whatever the issuer calls them
// `{http.token_denylist.claims.*}` | Any claim, under the issuer's name for it, or a member of one: `claims.realm_access.roles`
type Denylist struct {
	// Whether signature, issuer, audience, type and times of a JWT are checked
	// here, and that a token bound to a client certificate comes from its holder
	// (RFC 8705, section 3): on, the default, or off if the upstream does. With
	// off, this handler only refuses what is revoked; whoever writes a token of
	// their own decides what is looked up. DPoP proofs are the upstream's to check
	// in any case.
	Verify string `json:"verify,omitempty"`

	// Refuse requests without a token.
	RequireToken bool `json:"require_token,omitempty"`

	// What happens to a JWT of an issuer that is not configured: reject, the
	// default, or pass, which hands it to the upstream unchecked.
	UnknownIssuer string `json:"unknown_issuer,omitempty"`

	// The issuer of the opaque tokens on this route. They then pass unless
	// they have been revoked by their hash; the upstream must know whether they
	// are valid. With introspect, the default is the only issuer that has an
	// introspection block.
	OpaqueIssuer string `json:"opaque_issuer,omitempty"`

	// Ask the issuer of opaque tokens about them. Revocations by user, session
	// and client then count for them as well.
	Introspect *IntrospectTokens `json:"introspect,omitempty"`

	// Hand on credentials that are no JWT, unchecked: for routes that carry
	// other credentials too. By default they are refused.
	PassUnknown bool `json:"pass_unknown,omitempty"`

	// Where else tokens may be, and what is done with them there. By default the
	// Authorization header is inspected, and access_token in the query rejected.
	// Nothing else is looked at: a token that the upstream takes from elsewhere
	// passes unchecked.
	Places []TokenPlace `json:"places,omitempty"`

	// Decide, log and count, but let every request through unchanged.
	Monitor bool `json:"monitor,omitempty"`

	// The realm of challenges. Default: none; a challenge that has nothing else
	// to say names the realm oauth.
	Realm string `json:"realm,omitempty"`

	// The https URL of the protected resource's metadata, for challenges (RFC
	// 9728, section 5.1).
	ResourceMetadata string `json:"resource_metadata,omitempty"`

	// The JWS algorithms that the upstream accepts in DPoP proofs, for challenges
	// (RFC 9449, section 7.1). If there are any, a client without a token, or with
	// one under Bearer, is told of DPoP, too.
	DPoPAlgorithms []string `json:"dpop_algorithms,omitempty"`

	// What happens while this edge is stale or incomplete. Default: the app's
	// policy.
	Stale *StalePolicy `json:"stale,omitempty"`

	// End requests in flight, such as WebSockets, when their token is revoked.
	CutStreams *CutStreams `json:"cut_streams,omitempty"`

	app    *App
	logger *zap.Logger
	counts *checkCounters // of Monitor, if it is set
	told   *logLimit

	places     *oauth.Places
	inspectors // of opaque tokens
}

// inspectors are what there is for opaque tokens.
type inspectors struct {
	opaque      *issuer.Issuer       // of OpaqueIssuer
	asked       *issuer.Introspector // nil without Introspect
	opaqueScope uint64               // two routes with two of them share no cached identity
}

// IntrospectTokens says how opaque tokens are asked about.
type IntrospectTokens struct {
	// How old an answer may be. Default and most: the issuer's cache_ttl. A
	// revocation that names the token ends it at once in any case.
	TTL caddy.Duration `json:"ttl,omitempty"`

	// Let tokens pass while the authorization server can't be asked: it does not
	// answer, or with 5xx, or too many questions have failed. Refused are still
	// those that are revoked by their hash, and by what it said of them before, as
	// far as this edge remembers it. The default refuses all with 503.
	FailOpen bool `json:"fail_open,omitempty"`
}

// CutStreams says when requests in flight are ended.
type CutStreams struct {
	// Also when the token expires.
	Expired bool `json:"expired,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (Denylist) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.token_denylist",
		New: func() caddy.Module { return new(Denylist) },
	}
}

// Provision fills in defaults from the app.
func (d *Denylist) Provision(ctx caddy.Context) error {
	d.logger, d.told = ctx.Logger(), new(logLimit)
	var err error
	if d.app, err = configuredApp(ctx); err != nil {
		return err
	}
	if d.Stale == nil {
		d.Stale = d.app.Stale
	} else if d.Stale.MaxAge == 0 {
		d.Stale.MaxAge = d.app.Stale.MaxAge
	}
	d.counts = d.app.metrics.checks
	if d.Monitor {
		d.counts = d.app.metrics.monitored
	}
	if d.places, err = newPlaces(d.Places); err != nil {
		return err
	}
	if d.CutStreams != nil {
		provisionStreams(ctx)
	}
	return d.provisionOpaque()
}

func (d *Denylist) provisionOpaque() error {
	if d.Introspect != nil {
		if err := d.provisionIntrospection(); err != nil {
			return err
		}
		if d.Introspect.FailOpen {
			d.app.replica.last.wanted.Store(true)
		}
	}
	if d.OpaqueIssuer == "" {
		return nil
	}
	if d.opaque = d.app.issuer(d.OpaqueIssuer); d.opaque == nil {
		return fmt.Errorf("opaque_issuer %s is not configured: add an issuer line for it, spelled exactly so", d.OpaqueIssuer)
	}
	if d.Introspect == nil {
		d.logger.Warn("opaque tokens are refused here only if they are revoked by their hash: "+
			"revocations by user, session or client do not match them; add introspect to have the issuer asked",
			zap.String("opaque_issuer", d.OpaqueIssuer))
	}
	// What is cached of an opaque token on a route that does not ask must not
	// count on one that does.
	sum := sha256.Sum256(fmt.Appendf(nil, "%t %s", d.asked != nil, d.OpaqueIssuer))
	d.opaqueScope = binary.BigEndian.Uint64(sum[:8])
	return nil
}

// Validate reports settings that contradict each other or the app's.
func (d *Denylist) Validate() error {
	switch {
	case d.Verify != "" && d.Verify != "on" && d.Verify != "off":
		return fmt.Errorf("verify is %q: use on or off", d.Verify)
	case d.UnknownIssuer != "" && d.UnknownIssuer != "reject" && d.UnknownIssuer != "pass":
		return fmt.Errorf("unknown_issuer is %q: use reject or pass", d.UnknownIssuer)
	case d.Stale.MaxAge < 0:
		return errors.New("the staleness bound must not be negative")
	case d.Introspect != nil && d.Introspect.TTL < 0:
		return errors.New("introspect: the time must not be negative")
	case d.Introspect != nil && d.PassUnknown:
		return errors.New("introspect asks about every token that is no JWT, and pass_unknown lets all of them through: remove one of them")
	case d.Monitor && d.CutStreams != nil:
		return errors.New("monitor lets everything through, and cut_streams ends requests: remove one of them")
	case len(d.app.issuers) == 0 && d.UnknownIssuer != "pass":
		return errors.New("no issuer is configured, so that every token would be refused: " +
			"add an issuer line to the global option token_revocation")
	}
	return d.validateChallenge()
}

func (d *Denylist) validateChallenge() error {
	if d.ResourceMetadata != "" {
		u, err := url.Parse(d.ResourceMetadata)
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.Fragment != "" {
			return fmt.Errorf("resource_metadata %s is not an https URL", d.ResourceMetadata)
		}
		if host := u.Hostname(); u.Scheme == "http" && host != "localhost" && host != "127.0.0.1" && host != "::1" {
			return fmt.Errorf("resource_metadata %s has to be https: clients trust what it says (RFC 9728, section 3)", d.ResourceMetadata)
		}
		sample := oauth.Challenge{ResourceMetadata: d.ResourceMetadata}
		if sample.String() == (oauth.Challenge{}).String() {
			return fmt.Errorf("resource_metadata %s has characters that a challenge can't hold", d.ResourceMetadata)
		}
	}
	for _, alg := range d.DPoPAlgorithms {
		if !slices.Contains(proofAlgorithms, alg) {
			return fmt.Errorf("dpop_algorithms: %q is none of %v", alg, proofAlgorithms)
		}
	}
	return nil
}

// proofAlgorithms are those that a proof can be signed with: asymmetric ones
// (RFC 9449, section 4.2).
var proofAlgorithms = []string{
	"ES256", "ES384", "ES512", "EdDSA", "Ed25519", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512", "ES256K", "Ed448",
}

// ServeHTTP lets the request pass or answers it with an error.
func (d *Denylist) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	changes := d.app.replica.streams.registry.Changes()
	v := d.judgeRequest(r)
	v.changes = changes
	d.counts.of(v.result).Inc()
	d.publish(r, &v)
	switch {
	case d.Monitor:
		if !v.result.passes() {
			d.logMonitored(r, v)
		}
		return next.ServeHTTP(w, r)
	case !v.result.passes():
		return d.refuse(w, r, v)
	}
	if d.places.Strips() {
		d.strip(r)
	}
	dropH2C(r.Header)
	if inURL := v.presented.Place == oauth.PlaceQuery; v.presented.Token != "" && (inURL || len(r.Header["Authorization"]) == 0) {
		w = &privateWriter{ResponseWriterWrapper: &caddyhttp.ResponseWriterWrapper{ResponseWriter: w}, inURL: inURL}
	}
	return d.serve(w, r, next, v)
}

// judgeRequest decides about a request. It does not change it, except that a form
// which is read is put back.
func (d *Denylist) judgeRequest(r *http.Request) verdict {
	presented, err := d.places.Read(r)
	switch {
	case errors.Is(err, oauth.ErrNoToken) && d.RequireToken && !preflight(r):
		return verdict{result: missing, err: err}
	case errors.Is(err, oauth.ErrNoToken):
		return verdict{result: noToken}
	case err != nil:
		return verdict{result: malformed, err: err}
	}
	v := d.judgeSampled(r, presented.Token)
	v.presented = presented
	if v.result == allowed && (d.Verify != "off" || v.asked) {
		if err := checkBinding(r, &v); err != nil {
			v.result, v.err = unbound, err
		}
	}
	if !v.result.passes() {
		return v
	}
	// A request is let through only by an edge that can prove that it would
	// know of a revocation; known revocations were found above even if not.
	unverified := d.Verify == "off" && !v.asked || v.result == passedForeign
	if err := d.app.replica.unproven(time.Duration(d.Stale.MaxAge), unverified); err != nil {
		v.result, v.err = stale, err
		if d.Stale.FailOpen {
			v.result = failedOpen
		}
	}
	return v
}

// preflight tells whether r asks for permission to send the real request, as
// browsers do, always without a token.
func preflight(r *http.Request) bool {
	return r.Method == http.MethodOptions &&
		r.Header.Get("Origin") != "" && r.Header.Get("Access-Control-Request-Method") != ""
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Denylist)(nil)
	_ caddy.Validator             = (*Denylist)(nil)
	_ caddyhttp.MiddlewareHandler = (*Denylist)(nil)
)
