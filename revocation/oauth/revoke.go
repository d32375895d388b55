package oauth

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
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

// revoke ends the life of the token in f on behalf of client.
func (e *Endpoint) revoke(ctx context.Context, client *Client, f form, x *exchange) *answer {
	token := f.get(paramToken)
	switch {
	case trimSpace(token) == "":
		return refuse(http.StatusBadRequest, "the token is missing")
	case len(token) > e.options.MaxToken:
		// Not 200: it may be a live one.
		return refuse(http.StatusBadRequest, "the token is too long")
	case strings.TrimRight(token, "\r\n") != token:
		// Not 200: it is a live one perhaps, read from a file with its newline.
		return refuse(http.StatusBadRequest, "the token ends in a line break")
	case !isVSChar(token):
		// No token has such characters (RFC 6749, appendix A).
		x.outcome.Result = ResultTokenInvalid
		return nil
	case strings.Contains(token, " "):
		// A refresh token may have one, an access token that is presented in a
		// header may not: it is none that could be resolved here.
		return unsupportedTokenType()
	}
	start := e.options.Now()
	id, err := e.options.Tokens.Resolve(ctx, token)
	x.outcome.Latency.Token = e.options.Now().Sub(start)
	if err != nil {
		return e.unresolved(ctx, err, x)
	}
	if id == nil || !id.Verified {
		// Claims that nobody verified are whatever their sender liked. Storing
		// them would let one client revoke the tokens of another.
		e.log.LogAttrs(ctx, slog.LevelError, "token resolver returned an unverified identity")
		return unavailable("the token cannot be verified now", e.options.RetryAfter)
	}
	x.outcome.Token, _ = id.TokenCriteria()
	x.outcome.Owner, _ = id.Value(revocation.ClaimClientID)
	if e.expired(id) {
		// Whoever it belonged to, and whatever policies would say of it.
		x.outcome.Result = ResultTokenExpired
		return nil
	}
	if !owns(client, id) && !e.mayRevokeAny(client, id) {
		if e.options.Foreign == ForeignSilent && client.Public() {
			x.outcome.Result = ResultForeignIgnored
			return nil
		}
		return &answer{
			result: ResultNotOwner, status: http.StatusBadRequest,
			code: ErrorInvalidGrant, description: "the token was not issued to this client",
		}
	}
	if len(e.options.Policies) > 0 {
		start = e.options.Now()
		refusal, done := e.consult(ctx, e.makeFacts(client, id, f, x), x)
		x.outcome.Latency.Policy = e.options.Now().Sub(start)
		if done {
			return refusal
		}
	}
	start = e.options.Now()
	refusal := e.record(ctx, client, id, x)
	took := e.options.Now().Sub(start)
	x.outcome.Latency.Ledger = took
	if x.watch.ledger > 0 {
		x.outcome.Latency.Ledger = min(x.watch.ledger, took)
		x.outcome.Latency.Apply = took - x.outcome.Latency.Ledger
	}
	return refusal
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

// unresolved answers for a token without an identity. The hint has no part in it:
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

// record makes the revocation durable. Nothing but its success is a 200. What was
// recorded before a failure stays: a retry records it again, which changes nothing.
func (e *Endpoint) record(ctx context.Context, client *Client, id *revocation.Identity, x *exchange) *answer {
	requests, ok := e.requests(client, id)
	if !ok {
		e.log.LogAttrs(ctx, slog.LevelError, "token has neither jti nor hash")
		return unavailable("the token cannot be revoked now", e.options.RetryAfter)
	}
	again := false
	for i, req := range requests {
		if req.Once && req.TokenIssuedAt == 0 {
			// No cutoff can be compared with an iat that is far ahead. Any that
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
			x.outcome.Result = ResultTokenExpired
			return nil
		case errors.Is(err, revocation.ErrUnavailable), errors.Is(err, revocation.ErrFull):
			e.log.LogAttrs(ctx, slog.LevelWarn, "revocation not recorded", slog.Any("error", err))
		default:
			e.log.LogAttrs(ctx, slog.LevelError, "revocation refused by the service", slog.Any("error", err))
		}
		if i > 0 {
			return unavailable("the token is revoked, but not the others of its grant; try again", e.options.RetryAfter)
		}
		return unavailable("the revocation was not recorded; the token is still valid", e.options.RetryAfter)
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
