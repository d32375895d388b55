package oauth

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// Cascade says what is revoked when a client revokes a token. It is the
// endpoint's, and does not depend on the request, but for what the token is (see
// [Resolved.IsRefresh]).
type Cascade string

const (
	// CascadeToken revokes the token that was presented, and nothing else, unless
	// it is a refresh token, for which all is as with CascadeGrant.
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
	// that has none of them, or names no client, is revoked alone; a refresh token
	// is then refused. The same goes for sub if nobody tells when the
	// tokens were issued: see [Resolved].Undated.
	CascadeGrant Cascade = "grant"
	// CascadeClient is what a client does that revokes all its tokens; see
	// [EndpointOptions].AllTokens. It is no setting.
	CascadeClient Cascade = "client"
)

// maxFutureIssue bounds how far ahead of our clock an iat may be to move a
// cutoff. Beyond, it would lock the user out until then; the token itself has an
// entry of its own.
const maxFutureIssue = 5 * time.Minute

// cascadeRules decide what the revocation of a token takes with it.
type cascadeRules struct {
	cascade    Cascade
	grantClaim string
	now        func() time.Time
}

// cascadeOf returns what is revoked with the token: for a refresh token, always
// its grant (RFC 7009, section 2.1), since nothing else of it is ever presented to
// an edge.
func (c cascadeRules) cascadeOf(t Resolved, hint string) Cascade {
	if t.IsRefresh(hint) {
		return CascadeGrant
	}
	return c.cascade
}

// IsRefresh tells whether the token is taken for a refresh token. Only where its
// authorization server, asked about it, does not say what it is for, the word of
// its own client decides: the token is the client's, and so is everything that is
// revoked with it; and to tell a client that its refresh token is revoked while
// the access tokens live on would be worse.
func (t Resolved) IsRefresh(hint string) bool {
	return t.Use == UseRefresh || t.Use == UseUnknown && plainHint(hint) == hintRefreshToken
}

// Registered hints (RFC 7009, section 4.1.2.2).
const (
	hintAccessToken  = "access_token"
	hintRefreshToken = "refresh_token"
)

// plainHint returns the short form of a hint that is written as the URN of a token
// type (RFC 8693, section 3), as some clients do.
func plainHint(hint string) string {
	return strings.TrimPrefix(hint, "urn:ietf:params:oauth:token-type:")
}

// requests returns what is to be recorded, in this order. The token itself comes
// first: it is denied whatever becomes of the rest, it tells whether there is
// anything left to revoke, and a cutoff may not reach it (it may outlive the
// cutoff, or carry an iat that is far ahead).
//
// Whether the grant was revoked already is asked of the grant's own entry, and
// not concluded from the token's. That one also stands where the grant's failed
// (the retry has to record it, as of now), and where the token was revoked alone.
//
// The error is [errNoHash] or [errNoGrant].
func (c cascadeRules) requests(t Resolved, hint, actor string) ([]revocation.Request, error) {
	id := t.Identity
	token, ok := t.TokenCriteria()
	if !ok {
		return nil, errNoHash
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
		Actor:         actor,
	}
	if c.cascadeOf(t, hint) != CascadeGrant {
		return []revocation.Request{one}, nil
	}
	grant, mode, ok := grantOf(id, c.grantClaim)
	if ok && t.Undated && mode != revocation.Block {
		ok = false // the user could log in, and be refused, until the entry is over
	}
	switch refresh := t.IsRefresh(hint); {
	case !ok && refresh:
		return nil, errNoGrant
	case !ok:
		return []revocation.Request{one}, nil
	case refresh:
		return []revocation.Request{one, c.refreshGrant(t, grant, mode, expiry, actor)}, nil
	}
	all := revocation.Request{Criteria: grant, Mode: mode, Reason: "client request for its grant", Actor: actor, Once: true}
	if id.IssuedAt <= c.now().Add(maxFutureIssue).Unix() {
		all.TokenIssuedAt = id.IssuedAt
	}
	return []revocation.Request{one, all}, nil
}

var (
	errNoHash = errors.New("the token has neither jti nor hash")
	// errNoGrant says that a refresh token was presented of which nothing is known
	// that its access tokens could be told by.
	errNoGrant = errors.New("the refresh token names no grant")
)

// refreshGrant asks for the revocation of the access tokens that were issued with
// a refresh token.
//
// A block has to last until the last of them ends that can still be issued, since
// the authorization server may not have been told: until the end of the refresh
// token, which is expiry, and the life of one access token more.
//
// What a cutoff reaches does not follow from the refresh token's iat: access
// tokens were issued with it ever since. So a cutoff that stands is good enough
// only where nobody has said that it is a refresh token and alive, and it was
// presented before: otherwise, whoever keeps one, or a dead access token that is
// called one, could cut off each new login of its user.
func (c cascadeRules) refreshGrant(
	t Resolved, grant revocation.Criteria, mode revocation.Mode, expiry int64, actor string,
) revocation.Request {
	req := revocation.Request{
		Criteria: grant, Mode: mode, Reason: "client request for the grant of a refresh token", Actor: actor,
	}
	if mode != revocation.Block {
		req.Once = !t.Asked || t.Use != UseRefresh // and without TokenIssuedAt: see record
		return req
	}
	req.Once, req.IssuedUntil = true, expiry
	if t.Identity.IssuedAt <= c.now().Add(maxFutureIssue).Unix() {
		req.TokenIssuedAt = t.Identity.IssuedAt
	}
	return req
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
