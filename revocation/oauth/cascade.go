package oauth

import (
	"context"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// Cascade says what is revoked when a client revokes a token. It is the
// endpoint's, and never depends on the request: least of all on a hint (RFC 7009,
// section 2.1).
type Cascade string

const (
	// CascadeToken revokes the token that was presented, and nothing else.
	CascadeToken Cascade = "token"
	// CascadeGrant revokes the token and all others of its grant, which is, by
	// the first of these that the token has:
	//
	//   - the grant claim, see [EndpointOptions].GrantClaim: also tokens that are
	//     issued later, with a refresh token that lived on;
	//   - sid, the login session: likewise;
	//   - sub: what was issued up to now.
	//
	// A token that the grant's revocation denies already moves nothing: presented
	// again it neither cuts off a new login nor makes anything last longer.
	//
	// Each is combined with the client that the token was issued to: tokens of
	// other clients survive, also those of the same user and session. A token
	// that has none of them, or names no client, is revoked alone.
	CascadeGrant Cascade = "grant"
)

// maxFutureIssue bounds how far ahead of our clock an iat may be to move a
// cutoff. Beyond, it would lock the user out until then; the token itself has an
// entry of its own.
const maxFutureIssue = 5 * time.Minute

// requests returns what is to be recorded, in this order. The token itself comes
// first: it is denied whatever becomes of the rest, it tells whether there is
// anything left to revoke, and a cutoff may not reach it (it may outlive the
// cutoff, or carry an iat that is far ahead).
//
// Whether the grant was revoked already is asked of the grant's own entry, and
// not concluded from the token's. That one also stands where the grant's failed
// (the retry has to record it, as of now), and where the token was revoked alone.
func (e *Endpoint) requests(client *Client, id *revocation.Identity) ([]revocation.Request, bool) {
	token, ok := id.TokenCriteria()
	if !ok {
		return nil, false
	}
	expiry := id.Expiry
	if expiry == 0 {
		expiry = revocation.NoExpiry
	}
	one := revocation.Request{
		Criteria:      token,
		Mode:          revocation.Block,
		TokenExpiry:   expiry,
		TokenIssuedAt: id.IssuedAt,
		Reason:        "client request",
		Actor:         "client:" + client.ID,
	}
	if e.options.Cascade != CascadeGrant {
		return []revocation.Request{one}, true
	}
	grant, mode, ok := grantOf(id, e.options.GrantClaim)
	if !ok {
		return []revocation.Request{one}, true
	}
	all := revocation.Request{Criteria: grant, Mode: mode, Reason: "client request for its grant", Actor: one.Actor, Once: true}
	if id.IssuedAt <= e.options.Now().Add(maxFutureIssue).Unix() {
		all.TokenIssuedAt = id.IssuedAt
	}
	return []revocation.Request{one, all}, true
}

// grantOf returns the criteria of the grant that the token belongs to.
func grantOf(id *revocation.Identity, grantClaim string) (revocation.Criteria, revocation.Mode, bool) {
	owner, ok := id.Value(revocation.ClaimClientID)
	if !ok || owner == "" {
		return revocation.Criteria{}, revocation.Block, false
	}
	for _, by := range []struct {
		claim string
		mode  revocation.Mode
	}{
		{grantClaim, revocation.Block},
		{revocation.ClaimSessionID, revocation.Block},
		// A block would lock the user out of this client.
		{revocation.ClaimSubject, revocation.IssuedBefore},
	} {
		if by.claim == "" {
			continue
		}
		value, ok := id.Value(by.claim)
		if !ok || value == "" {
			continue
		}
		c := revocation.Criteria{Issuer: id.Issuer, Claims: map[string]string{
			by.claim: value, revocation.ClaimClientID: owner,
		}}
		if c.Validate() == nil {
			return c, by.mode, true
		}
	}
	return revocation.Criteria{}, revocation.Block, false
}

// stopwatch adds up the time that a ledger takes.
type stopwatch struct{ ledger time.Duration }

type stopwatchKey struct{}

// TimeLedger returns a ledger that lets an [Endpoint] know how long the
// acknowledgements took; see [Latency].
func TimeLedger(l revocation.Ledger) revocation.Ledger { return timedLedger{l} }

type timedLedger struct{ revocation.Ledger }

func (t timedLedger) PublishRevocation(ctx context.Context, r *revocation.Revocation) (uint64, error) {
	if w, ok := ctx.Value(stopwatchKey{}).(*stopwatch); ok {
		start := time.Now()
		defer func() { w.ledger += time.Since(start) }()
	}
	return t.Ledger.PublishRevocation(ctx, r)
}
