package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/denylist"
	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
)

// result is what became of a token, or of a request without one.
type result uint8

const (
	allowed       result = iota
	noToken              // none is required
	passed               // not ours to judge, handed on
	passedForeign        // the same, a JWT of an issuer that is not configured
	passedUnasked        // its issuer can't be asked, handed on
	failedOpen           // this edge is stale or incomplete, handed on
	missing              // a token is required
	malformed
	denied // revoked
	invalid
	expired
	inactive // as its issuer says
	unbound  // bound to a key that its presenter does not prove to have
	unknownIssuer
	opaque
	overflow     // too many values to be looked up
	unverifiable // the keys to verify it are not known now
	unaskable    // its issuer can't be asked now
	stale        // this edge is stale or incomplete
	results
)

// resultNames are the results in metrics, logs and placeholders.
var resultNames = [results]string{
	allowed: "allowed", noToken: "no_token", passed: "passed_unchecked", passedForeign: "passed_unknown_issuer",
	passedUnasked: "introspection_failed_open", failedOpen: "failed_open", missing: "missing", malformed: "malformed",
	denied: "revoked", invalid: "invalid", expired: "expired", inactive: "inactive", unbound: "not_bound",
	unknownIssuer: "unknown_issuer", opaque: "opaque", overflow: "too_many_values",
	unverifiable: "keys_unavailable", unaskable: "introspection_unavailable", stale: "stale",
}

func (r result) String() string { return resultNames[r] }

// passes tells whether the request is let through.
func (r result) passes() bool { return r < missing }

// description is what a client may know: nothing about whose token it is or
// what was decided of it.
func (r result) description() string {
	switch r {
	case denied:
		return "the token has been revoked"
	case expired:
		return "the token has expired"
	case unbound:
		return "the token is bound to a key that this request does not prove to have"
	case unverifiable, unaskable, stale:
		return "the token can't be checked at the moment"
	default:
		return "the token is not valid here"
	}
}

// verdict is what was decided about a request, and why.
type verdict struct {
	result    result
	asked     bool  // by introspection
	err       error // for operators, never with the token
	presented oauth.Presented
	// identity is what the denylist was asked about; nil if nothing was known of
	// the token.
	identity *revocation.Identity
	// self is what a token says of itself whose issuer was asked about it: the
	// denylist was asked about that, too. It is nil if that says no more.
	self *revocation.Identity
	// epoch is that of the claims that identity has.
	epoch uint64
	// changes is how often the denylist had changed before it was asked.
	changes uint64
	// answer is what the issuer answered when it was asked about the token.
	answer json.RawMessage
}

// judgeSampled judges a token and measures how long it takes, of one in sixteen:
// reading the clock twice costs a good part of what it would measure.
func (d *Denylist) judgeSampled(r *http.Request, token string) verdict {
	if rand.Uint32()&15 != 0 {
		return d.judge(r.Context(), token)
	}
	began := time.Now()
	v := d.judge(r.Context(), token)
	if !v.asked {
		d.app.metrics.duration.Observe(time.Since(began).Seconds())
	}
	return v
}

// judge decides about one token. It waits for nothing but introspection.
func (d *Denylist) judge(ctx context.Context, token string) verdict {
	list := d.app.replica.denylist
	if seen, known := list.Lookup(token, d.scope()); known {
		if decision := list.CheckSeen(seen); !decision.Stale {
			v := decide(decision, seen.Identity())
			v.epoch = seen.Epoch()
			return v
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
		if err != nil && d.asked != nil && d.isForIssuer(token, err) {
			return d.ask(ctx, token)
		}
		if d.opaque != nil && errors.Is(err, issuer.ErrNotJWT) {
			id, err = d.opaqueIdentity(token)
		}
		if err != nil {
			v := d.unidentified(id, err)
			v.epoch = epoch
			return v
		}
		seen := list.Remember(token, scope, id, epoch)
		if decision := list.CheckSeen(seen); !decision.Stale {
			v := decide(decision, id)
			v.epoch = epoch
			return v
		}
	}
	return verdict{result: unverifiable, err: errKeepChanging}
}

var errKeepChanging = errors.New("keys, or the claims that revocations name, keep changing")

// scope stamps cached identities: with the keys and rules that they were made
// under, and whether they were verified.
func (d *Denylist) scope() uint64 {
	scope := d.app.generation() + d.opaqueScope
	if d.Verify == "off" {
		scope = ^scope // what was only read never counts as verified
	}
	return scope
}

func decide(decision denylist.Decision, id *revocation.Identity) verdict {
	switch {
	case !decision.Denied:
		return verdict{result: allowed, identity: id}
	case decision.Overflow:
		return verdict{result: overflow, identity: id, err: errOverflow}
	default:
		return verdict{result: denied, identity: id, err: &revokedError{decision}}
	}
}

var errOverflow = errors.New("the token's claims have too many values to be checked")

// revokedError names the ledger's entry, for the log; the client does not see it.
type revokedError struct{ decision denylist.Decision }

func (e *revokedError) Error() string {
	shape := e.decision.Shape
	if shape == "" {
		shape = "the whole issuer"
	}
	return fmt.Sprintf("token revoked by entry %d (%s of %s)", e.decision.Sequence, e.decision.Mode, shape)
}

// unidentified decides about a token that could not be turned into an identity
// to be trusted. Of a foreign issuer's token, what it says of itself is known.
func (d *Denylist) unidentified(id *revocation.Identity, err error) verdict {
	switch {
	case errors.Is(err, issuer.ErrKeysUnavailable):
		return verdict{result: unverifiable, err: err}
	case errors.Is(err, issuer.ErrUnknownIssuer):
		if d.UnknownIssuer != "pass" {
			return verdict{result: unknownIssuer, err: err}
		}
		// The upstream judges it, but not against a revocation that names it.
		v := decide(d.app.replica.denylist.Check(id), id)
		if v.result == allowed {
			v.result = passedForeign
		}
		return v
	case errors.Is(err, issuer.ErrExpired):
		return verdict{result: expired, err: err}
	case errors.Is(err, issuer.ErrNotJWT):
		if d.PassUnknown {
			return verdict{result: passed}
		}
		return verdict{result: opaque, err: err}
	default:
		return verdict{result: invalid, err: err}
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
