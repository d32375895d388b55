package oauth

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// Foreign says what a public client is told about a token of another client.
type Foreign string

const (
	// ForeignRefuse answers with 400 invalid_grant.
	ForeignRefuse Foreign = "refuse"
	// ForeignSilent answers a public client with 200, and nothing is stored. It
	// keeps whoever knows its client_id, which is everybody, from learning
	// whether a token that they found is alive.
	ForeignSilent Foreign = "silent"
)

// A target is a token that its client may revoke, and what is to be recorded for it.
type target struct{ requests []revocation.Request }

// revoke ends the life of the token in f, or of the tokens, on behalf of client.
// Each token is looked at before anything is recorded for one of them: a refusal
// means that nothing was revoked.
func (e *Endpoint) revoke(ctx context.Context, client *Client, f form, x *exchange) *answer {
	tokens, refusal := e.readTokens(f.get(paramToken))
	if refusal != nil {
		return refusal
	}
	if e.isAll(tokens) {
		return e.revokeAll(ctx, client, f, x)
	}
	targets := make([]target, 0, len(tokens))
	for _, token := range tokens {
		t, refusal := e.judge(ctx, client, token, f, x)
		if refusal != nil {
			return refusal
		}
		if t != nil {
			targets = append(targets, *t)
		}
	}
	start := e.options.Now()
	for i, t := range targets {
		if refusal = e.record(ctx, t.requests, i > 0, x); refusal != nil {
			break
		}
	}
	took := e.options.Now().Sub(start)
	x.outcome.Latency.Ledger = took
	if x.watch.ledger > 0 {
		x.outcome.Latency.Ledger = min(x.watch.ledger, took)
		x.outcome.Latency.Apply = took - x.outcome.Latency.Ledger
	}
	return refusal
}

// judge finds out whether the client may revoke a token. It returns nil and no
// refusal if there is nothing to revoke; the result says why.
func (e *Endpoint) judge(ctx context.Context, client *Client, token string, f form, x *exchange) (*target, *answer) {
	switch {
	case len(token) > e.options.MaxToken:
		// Not 200: it may be a live one.
		return nil, refuse(http.StatusBadRequest, "the token is too long")
	case !isVSChar(token):
		// No token has such characters (RFC 6749, appendix A).
		x.outcome.Result = ResultTokenInvalid
		return nil, nil
	}
	x.token = token
	hint := f.get(paramTokenTypeHint)
	start := e.options.Now()
	resolved, err := e.options.Tokens.Resolve(ctx, token, ResolveFor{Issuer: client.Issuer, Hint: plainHint(hint)})
	x.outcome.Latency.Token += e.options.Now().Sub(start)
	if err != nil {
		return nil, e.unresolved(ctx, err, x)
	}
	id := resolved.Identity
	if id == nil || !id.Verified {
		// Claims that nobody verified are whatever their sender liked. Storing
		// them would let one client revoke the tokens of another.
		e.log.LogAttrs(ctx, slog.LevelError, "token resolver returned an unverified identity")
		return nil, unavailable("the token cannot be verified now", e.options.RetryAfter)
	}
	x.outcome.Token, _ = resolved.TokenCriteria()
	x.outcome.Owner, _ = id.Value(revocation.ClaimClientID)
	x.outcome.Use = resolved.Use
	x.outcome.Cascade = e.cascade.cascadeOf(resolved, hint)
	if e.expired(id) {
		// Whoever it belonged to, and whatever policies would say of it.
		x.outcome.Result = ResultTokenExpired
		return nil, nil
	}
	if !owns(client, id) && !e.mayRevokeAny(client, id) {
		if e.options.Foreign == ForeignSilent && client.Public() {
			x.outcome.Result = ResultForeignIgnored
			return nil, nil
		}
		return nil, &answer{
			result: ResultNotOwner, status: http.StatusBadRequest,
			code: ErrorInvalidGrant, description: "the token was not issued to this client",
		}
	}
	if e.refuses(resolved, hint) {
		return nil, unsupportedTokenType()
	}
	requests, err := e.cascade.requests(resolved, hint, "client:"+client.ID)
	switch {
	case errors.Is(err, errNoGrant):
		// Whatever was recorded of it, its access tokens would live on.
		return nil, unsupportedTokenType()
	case err != nil:
		e.log.LogAttrs(ctx, slog.LevelError, "token can't be revoked", slog.Any("error", err))
		return nil, unavailable("the token cannot be revoked now", e.options.RetryAfter)
	}
	if refusal, done := e.askPolicies(ctx, client, resolved, f, x); done {
		return nil, refusal
	}
	return &target{requests}, nil
}

// askPolicies lets the policies have their say. It returns done if the token is
// not revoked, with nil for a 200.
func (e *Endpoint) askPolicies(ctx context.Context, client *Client, token Resolved, f form, x *exchange) (refusal *answer, done bool) {
	if len(e.options.Policies) == 0 {
		return nil, false
	}
	start := e.options.Now()
	defer func() { x.outcome.Latency.Policy += e.options.Now().Sub(start) }()
	return e.consult(ctx, e.makeFacts(client, token, f, x), x)
}

// expired tells whether the token has ended, the leeway included.
func (e *Endpoint) expired(id *revocation.Identity) bool {
	leeway := int64((e.options.Leeway + time.Second - 1) / time.Second)
	return id.Expiry != 0 && id.Expiry+leeway <= e.options.Now().Unix()
}

// owns tells whether the token was issued to client. The same client_id at
// another issuer is another client, and a token that does not say whom it was
// issued to belongs to nobody.
func owns(client *Client, id *revocation.Identity) bool {
	owner, ok := id.Value(revocation.ClaimClientID)
	return ok && owner == client.ID && id.Issuer == client.Issuer
}

// mayRevokeAny tells whether client may revoke the token although it is not its
// own. Both the client and the endpoint have to say so, and a client_id alone is
// no proof of being that client.
func (e *Endpoint) mayRevokeAny(client *Client, id *revocation.Identity) bool {
	return e.options.AllowRevokeAny && client.RevokeAny && !client.Public() && id.Issuer == client.Issuer
}

// unresolved answers for a token without an identity; nil for a 200. The hint has
// no part in it:
// whoever says access_token of a refresh token, as some libraries always do, must
// not be told that it is dead (RFC 7009, section 2.1).
func (e *Endpoint) unresolved(ctx context.Context, err error, x *exchange) *answer {
	switch {
	case errors.Is(err, ErrTokenInvalid):
		x.outcome.Result = ResultTokenInvalid
		return nil
	case errors.Is(err, ErrTokenExpired):
		x.outcome.Result = ResultTokenExpired
		return nil
	case errors.Is(err, ErrTokenUnsupported):
		return unsupportedTokenType()
	default:
		e.log.LogAttrs(ctx, slog.LevelWarn, "token cannot be verified for revocation", slog.Any("error", err))
		return unavailable("the token cannot be verified now", e.options.RetryAfter)
	}
}

// record makes the revocation of one token durable. Nothing but its success is a
// 200. What was recorded before a failure stays: a retry records it again, which
// changes nothing. others is true if other tokens of the same request are recorded
// already.
func (e *Endpoint) record(ctx context.Context, requests []revocation.Request, others bool, x *exchange) *answer {
	again := false
	for i, req := range requests {
		if req.Once && req.TokenIssuedAt == 0 {
			// There is no iat that a cutoff could be compared with: it is far
			// ahead, or says nothing of the tokens that are meant. Any that
			// stands will do if the token was presented before; else it could
			// move one as often as it is presented.
			req.Once = again
		}
		receipt, err := e.options.Revoker.Revoke(ctx, req)
		if err == nil {
			again = again || receipt.Stood
			x.outcome.add(req, receipt)
			continue
		}
		switch {
		case errors.Is(err, revocation.ErrExpired) && i == 0:
			if x.outcome.Result != ResultRevoked {
				x.outcome.Result = ResultTokenExpired
			}
			return nil
		case errors.Is(err, revocation.ErrUnavailable), errors.Is(err, revocation.ErrFull):
			e.log.LogAttrs(ctx, slog.LevelWarn, "revocation not recorded", slog.Any("error", err))
		default:
			e.log.LogAttrs(ctx, slog.LevelError, "revocation refused by the service", slog.Any("error", err))
		}
		switch {
		case others:
			return unavailable("some of the tokens are revoked, but not all; try again", e.options.RetryAfter)
		case i > 0:
			return unavailable("the token is revoked, but not the others of its grant; try again", e.options.RetryAfter)
		default:
			return unavailable("the revocation was not recorded; the token is still valid", e.options.RetryAfter)
		}
	}
	x.outcome.Result = ResultRevoked
	return nil
}

// add notes what a request for a revocation came to.
func (o *Outcome) add(req revocation.Request, receipt revocation.Receipt) {
	d := Decision{
		Criteria: req.Criteria, Mode: req.Mode, Cutoff: receipt.Cutoff, ID: receipt.ID, Sequence: receipt.Sequence,
	}
	if receipt.Stood {
		o.Stood = append(o.Stood, d)
	} else {
		o.Decisions = append(o.Decisions, d)
	}
}

// isVSChar tells whether s consists of VSCHAR, as every token does (RFC 6749,
// appendix A).
func isVSChar(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}
