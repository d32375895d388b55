package caddymodule

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/denylist"
	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
)

func init() {
	caddy.RegisterModule(Denylist{})
}

// Denylist is an HTTP handler that refuses requests which carry a revoked access
// token, before anything behind it sees them. No request waits for a network
// call: tokens are checked against what this edge holds in memory.
//
// A request without a token passes, unless require_token is set. A revoked,
// invalid or foreign token is answered with 401 and a challenge (RFC 6750,
// section 3); an edge that does not know whether its denylist is complete, or
// lacks the keys to verify a token, answers 503 with Retry-After. All of them
// are errors that `handle_errors` can render.
type Denylist struct {
	// Whether signature, issuer, audience, type and times of a JWT are checked
	// here: on, the default, or off if the upstream does. With off, this
	// handler only refuses what is revoked; whoever writes a token of their
	// own decides what is looked up.
	Verify string `json:"verify,omitempty"`

	// Refuse requests without a token.
	RequireToken bool `json:"require_token,omitempty"`

	// What happens to a JWT of an issuer that is not configured: reject, the
	// default, or pass, which hands it to the upstream unchecked.
	UnknownIssuer string `json:"unknown_issuer,omitempty"`

	// The issuer of the opaque tokens on this route. They then pass unless
	// they have been revoked by their hash; the upstream must know whether they
	// are valid.
	OpaqueIssuer string `json:"opaque_issuer,omitempty"`

	// Hand on credentials that are no JWT, unchecked: for routes that carry
	// other credentials too. By default they are refused.
	PassUnknown bool `json:"pass_unknown,omitempty"`

	// The realm of challenges. Default: none; a challenge that has nothing else
	// to say names the realm oauth.
	Realm string `json:"realm,omitempty"`

	// What happens while this edge is stale or incomplete. Default: the app's
	// policy.
	Stale *StalePolicy `json:"stale,omitempty"`

	app    *App
	logger *zap.Logger
	counts *checkCounters

	opaque      *issuer.Issuer // of OpaqueIssuer
	opaqueScope uint64         // two routes with two of them share no cached identity
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
	d.logger = ctx.Logger()
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
	if d.OpaqueIssuer != "" {
		if d.opaque = d.app.issuer(d.OpaqueIssuer); d.opaque == nil {
			return fmt.Errorf("opaque_issuer %s is not configured: add an issuer line for it, spelled exactly so", d.OpaqueIssuer)
		}
		sum := sha256.Sum256([]byte(d.OpaqueIssuer))
		d.opaqueScope = binary.BigEndian.Uint64(sum[:8])
	}
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
	case len(d.app.issuers) == 0 && d.UnknownIssuer != "pass":
		return errors.New("no issuer is configured, so that every token would be refused: " +
			"add an issuer line to the global option token_revocation")
	}
	return nil
}

// ServeHTTP lets the request pass or answers it with an error.
func (d *Denylist) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if r.URL.RawQuery != "" && carriesQueryToken(r.URL.RawQuery) {
		// RFC 6750, section 2.3, allows it, OAuth 2.1 does not: it ends up in
		// logs, and an upstream that reads it would read what nobody checked.
		d.counts.malformed.Inc()
		return d.refuse(w, http.StatusBadRequest, oauth.Challenge{
			Scheme: "Bearer", Error: "invalid_request",
			Description: "the access token must not be in the URL; send it in the Authorization header",
		}, errQueryToken)
	}
	presented, err := oauth.BearerToken(r.Header)
	if err != nil {
		return d.withoutToken(w, r, next, err)
	}
	// Reading the clock twice costs a good part of what it would measure.
	sampled := rand.Uint32()&15 == 0
	var began time.Time
	if sampled {
		began = time.Now()
	}
	result, err := d.judge(r.Context(), presented.Token)
	if sampled {
		d.app.metrics.duration.Observe(time.Since(began).Seconds())
	}
	switch result {
	case allowed:
		d.counts.allowed.Inc()
	case passed, passedForeign:
		d.counts.passed.Inc()
	case denied, invalid, expired, unknownIssuer, opaque, overflow:
		d.counts.of(result).Inc()
		return d.refuse(w, http.StatusUnauthorized, oauth.Challenge{
			Scheme: presented.Scheme, Error: "invalid_token", Description: result.description(),
		}, err)
	default:
		d.counts.unavailable.Inc()
		return d.unavailable(w, err)
	}
	// A request is let through only by an edge that can prove that it would
	// know of a revocation; known revocations were answered above even if not.
	if err := d.current(result); err != nil {
		if !d.Stale.FailOpen {
			d.counts.stale.Inc()
			return d.unavailable(w, err)
		}
		d.counts.failedOpen.Inc()
	}
	return next.ServeHTTP(w, r)
}

// result is what became of a token.
type result int

const (
	allowed       result = iota
	passed               // not ours to judge, handed on
	passedForeign        // the same, a JWT of an issuer that is not configured
	denied               // revoked
	invalid
	expired
	unknownIssuer
	opaque
	overflow     // too many values to be looked up
	unverifiable // can't be judged now
)

// description is what a client may know: nothing about whose token it is or
// what was decided of it.
func (r result) description() string {
	switch r {
	case denied:
		return "the token has been revoked"
	case expired:
		return "the token has expired"
	default:
		return "the token is not valid here"
	}
}

var errQueryToken = errors.New("access token in the query")

// judge decides about one token. It waits for nothing.
func (d *Denylist) judge(ctx context.Context, token string) (result, error) {
	list := d.app.replica.denylist
	if seen, known := list.Lookup(token, d.scope()); known {
		if decision := list.CheckSeen(seen); !decision.Stale {
			return decide(decision)
		}
	}
	for range 3 {
		// Scope and names come before reading: what they were then is what the
		// identity is good for.
		scope := d.scope()
		names, epoch := list.ClaimNames()
		id, err := d.app.identify(ctx, token, issuer.Request{
			ClaimNames: names,
			SkipVerify: d.Verify == "off",
		})
		if _, now := list.ClaimNames(); now != epoch || d.scope() != scope {
			continue // keys or names changed meanwhile
		}
		if d.opaque != nil && errors.Is(err, issuer.ErrNotJWT) {
			id, err = d.opaqueIdentity(token)
		}
		if err != nil {
			return d.unidentified(id, err)
		}
		seen := list.Remember(token, scope, id, epoch)
		if decision := list.CheckSeen(seen); !decision.Stale {
			return decide(decision)
		}
	}
	return unverifiable, errors.New("keys, or the claims that revocations name, keep changing")
}

// scope stamps cached identities: with the keys and rules that they were made
// under, and whether they were verified.
func (d *Denylist) scope() uint64 {
	scope := d.app.generation() + d.opaqueScope
	if d.Verify == "off" {
		scope = ^scope // what was only read never counts as verified
	}
	return scope
}

func decide(decision denylist.Decision) (result, error) {
	if !decision.Denied {
		return allowed, nil
	}
	if decision.Overflow {
		return overflow, errors.New("the token's claims have too many values to be checked")
	}
	return denied, &revokedError{decision}
}

// revokedError names the ledger's entry, for the log; the client does not see it.
type revokedError struct{ decision denylist.Decision }

func (e *revokedError) Error() string {
	return fmt.Sprintf("token revoked by entry %d (%s of %s)",
		e.decision.Sequence, e.decision.Mode, e.decision.Shape)
}

// unidentified decides about a token that could not be turned into an identity
// to be trusted. Of a foreign issuer's token, what it says of itself is known.
func (d *Denylist) unidentified(id *revocation.Identity, err error) (result, error) {
	switch {
	case errors.Is(err, issuer.ErrKeysUnavailable):
		return unverifiable, err
	case errors.Is(err, issuer.ErrUnknownIssuer):
		if d.UnknownIssuer != "pass" {
			return unknownIssuer, err
		}
		// The upstream judges it, but not against a revocation that names it.
		if result, err := decide(d.app.replica.denylist.Check(id)); result != allowed {
			return result, err
		}
		return passedForeign, nil
	case errors.Is(err, issuer.ErrExpired):
		return expired, err
	case errors.Is(err, issuer.ErrNotJWT):
		if d.PassUnknown {
			return passed, nil
		}
		return opaque, err
	default:
		return invalid, err
	}
}

// opaqueIdentity is all that can be said of a token that only its issuer
// understands.
func (d *Denylist) opaqueIdentity(token string) (*revocation.Identity, error) {
	hash, err := issuer.OpaqueTokenHash(token)
	if err != nil {
		return nil, err
	}
	return &revocation.Identity{
		Issuer:  d.opaque.Name(),
		Aliases: d.opaque.Config().Aliases,
		Claims:  []revocation.Claim{{Name: revocation.ClaimToken, Value: hash}},
	}, nil
}

// current returns why this edge can't vouch for what it decided, or nil.
func (d *Denylist) current(result result) error {
	state := d.app.replica.state()
	switch {
	case !state.EverSynced:
		return errors.New("the denylist has not been synced with the ledger yet")
	case state.Age > time.Duration(d.Stale.MaxAge):
		return fmt.Errorf("the denylist is stale: last contact with the ledger %s ago", state.Age.Round(time.Second))
	}
	if reason, _, incomplete := d.app.replica.denylist.Incomplete(time.Now()); incomplete {
		return fmt.Errorf("the denylist is incomplete: %s", reason)
	}
	unverified := d.Verify == "off" || result == passedForeign
	if unverified && d.app.replica.denylist.NamesKeys(time.Now()) {
		// Which key signed a token is known by verifying it only: a kid in its
		// header is whatever its sender liked.
		return errors.New("the denylist is incomplete: a signing key is revoked, and nothing here verifies which key signed this token")
	}
	return nil
}

// withoutToken handles requests in which there is no token, or no telling which.
func (d *Denylist) withoutToken(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, err error) error {
	if !errors.Is(err, oauth.ErrNoToken) {
		d.counts.malformed.Inc()
		return d.refuse(w, http.StatusBadRequest, oauth.Challenge{
			Scheme: "Bearer", Error: "invalid_request",
			Description: "the Authorization header must hold exactly one token",
		}, err)
	}
	d.counts.noToken.Inc()
	if d.RequireToken && !preflight(r) {
		// no error code: the client may simply not know yet that it needs a
		// token (RFC 6750, section 3.1)
		return d.refuse(w, http.StatusUnauthorized, oauth.Challenge{Scheme: "Bearer"}, err)
	}
	return next.ServeHTTP(w, r)
}

// preflight tells whether r asks for permission to send the real request, as
// browsers do, always without a token.
func preflight(r *http.Request) bool {
	return r.Method == http.MethodOptions &&
		r.Header.Get("Origin") != "" && r.Header.Get("Access-Control-Request-Method") != ""
}

func (d *Denylist) refuse(w http.ResponseWriter, status int, c oauth.Challenge, err error) error {
	c.Realm = d.Realm
	w.Header().Add("WWW-Authenticate", c.String())
	w.Header().Set("Cache-Control", "no-store")
	if check := d.logger.Check(zap.DebugLevel, "request refused"); check != nil {
		check.Write(zap.Int("status", status), zap.Error(err))
	}
	return caddyhttp.Error(status, err)
}

// retryAfter is in seconds: keys and ledger are usually back within this time.
const retryAfter = "2"

func (d *Denylist) unavailable(w http.ResponseWriter, err error) error {
	w.Header().Set("Retry-After", retryAfter)
	w.Header().Set("Cache-Control", "no-store")
	if check := d.logger.Check(zap.DebugLevel, "request not decidable"); check != nil {
		check.Write(zap.Error(err))
	}
	return caddyhttp.Error(http.StatusServiceUnavailable, err)
}

// carriesQueryToken tells whether an upstream could find an access_token in the
// query. Names may be percent-encoded, and some servers take ; for &.
func carriesQueryToken(raw string) bool {
	for raw != "" {
		var pair string
		if i := strings.IndexAny(raw, "&;"); i >= 0 {
			pair, raw = raw[:i], raw[i+1:]
		} else {
			pair, raw = raw, ""
		}
		name, _, _ := strings.Cut(pair, "=")
		if strings.ContainsRune(name, '%') {
			if decoded, err := url.QueryUnescape(name); err == nil {
				name = decoded
			}
		}
		if name == "access_token" {
			return true
		}
	}
	return false
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Denylist)(nil)
	_ caddy.Validator             = (*Denylist)(nil)
	_ caddyhttp.MiddlewareHandler = (*Denylist)(nil)
)
