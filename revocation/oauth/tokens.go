package oauth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// MaxTokens is how many tokens one request may have where several are allowed:
// each may cost a question to its authorization server.
const MaxTokens = 16

// TokenKind is a kind of token that an [Endpoint] can be told to refuse.
type TokenKind string

// Kinds of tokens. Each token is an access or a refresh token, and one that is
// verified with its issuer's keys or one that its authorization server is asked
// about.
const (
	KindAccess  TokenKind = "access_token"
	KindRefresh TokenKind = "refresh_token"
	KindJWT     TokenKind = "jwt"
	KindOpaque  TokenKind = "opaque"
)

// TokenKinds are all values of [TokenKind].
var TokenKinds = [...]TokenKind{KindAccess, KindRefresh, KindJWT, KindOpaque}

func validateKinds(kinds []TokenKind) error {
	for _, k := range kinds {
		if !slices.Contains(TokenKinds[:], k) {
			return fmt.Errorf("unknown kind of token %q", string(k))
		}
	}
	for _, all := range [][2]TokenKind{{KindAccess, KindRefresh}, {KindJWT, KindOpaque}} {
		if slices.Contains(kinds, all[0]) && slices.Contains(kinds, all[1]) {
			return fmt.Errorf("every token is one of %s and %s: to refuse both is to refuse everything", all[0], all[1])
		}
	}
	return nil
}

// refuses tells whether the endpoint was told to refuse tokens like this one. What
// the token is decides, not what the client calls it: whoever says refresh_token of
// an access token still has it revoked (RFC 7009, section 2.1).
func (e *Endpoint) refuses(t Resolved, hint string) bool {
	form, use := KindJWT, KindAccess
	if t.Asked {
		form = KindOpaque
	}
	if t.IsRefresh(hint) {
		use = KindRefresh
	}
	return slices.Contains(e.options.Refuse, form) || slices.Contains(e.options.Refuse, use)
}

// readTokens returns the tokens of a request: one, unless several are allowed.
func (e *Endpoint) readTokens(text string) ([]string, *answer) {
	switch {
	case trimSpace(text) == "":
		return nil, refuse(http.StatusBadRequest, "the token is missing")
	case strings.TrimRight(text, "\r\n") != text:
		// Not 200: it is a live one perhaps, read from a file with its newline.
		return nil, refuse(http.StatusBadRequest, "the token ends in a line break")
	case e.options.SeveralTokens && strings.ContainsAny(text, "\t\r\n"):
		// Not 200 for one that is invalid: these are several, and may be alive.
		return nil, refuse(http.StatusBadRequest, "tokens have to be separated by spaces")
	case !strings.Contains(text, " "), !isVSChar(text):
		return []string{text}, nil
	case !e.options.SeveralTokens:
		// A refresh token may have one, an access token that is presented in a
		// header may not: it is none that could be resolved here.
		return nil, unsupportedTokenType()
	}
	var tokens []string
	for token := range strings.SplitSeq(text, " ") {
		if token != "" && !slices.Contains(tokens, token) {
			tokens = append(tokens, token)
		}
		if len(tokens) > MaxTokens {
			return nil, refuse(http.StatusBadRequest, fmt.Sprintf("the request has more than %d tokens", MaxTokens))
		}
	}
	return tokens, nil
}

// isAll tells whether the request names no token, but all of its client.
func (e *Endpoint) isAll(tokens []string) bool {
	return e.options.AllTokens && len(tokens) == 1 && strings.EqualFold(tokens[0], "all")
}

// revokeAll revokes what was issued to the client up to now.
//
// A client_id is no proof of being that client, and everybody knows that of a
// public one: it could log all its users out.
//
// Here the hint is no hint but says what "all" means. What is recorded reaches
// access tokens, and refresh tokens where an edge is shown them. There is nothing
// that would reach refresh tokens only: a request for that is refused rather than
// widened.
func (e *Endpoint) revokeAll(ctx context.Context, client *Client, f form, x *exchange) *answer {
	if client.Public() || x.outcome.Method == AuthNone {
		return invalidClient("only a client that authenticates can revoke all its tokens")
	}
	if hint := plainHint(f.get(paramTokenTypeHint)); hint != "" && hint != hintAccessToken {
		return unsupportedTokenType()
	}
	all := &revocation.Identity{
		Issuer: client.Issuer, Verified: true,
		Claims: []revocation.Claim{{Name: revocation.ClaimClientID, Value: client.ID}},
	}
	criteria := revocation.Criteria{Issuer: client.Issuer, Claims: map[string]string{revocation.ClaimClientID: client.ID}}
	x.outcome.Token, x.outcome.Owner, x.outcome.Cascade = criteria, client.ID, CascadeClient
	// The word is no secret, and may be in any header that policies look at.
	x.secrets = slices.DeleteFunc(x.secrets, func(s string) bool { return strings.EqualFold(s, "all") })
	if refusal, done := e.askPolicies(ctx, client, Resolved{Identity: all, Claims: map[string]any{}}, f, x); done {
		return refusal
	}
	req := revocation.Request{
		Criteria: criteria, Mode: revocation.IssuedBefore,
		Reason: "client request for all its tokens", Actor: "client:" + client.ID,
	}
	start := e.options.Now()
	receipt, err := e.options.Revoker.Revoke(ctx, req)
	x.outcome.Latency.Ledger = e.options.Now().Sub(start)
	if err != nil {
		level := slog.LevelError
		if errors.Is(err, revocation.ErrUnavailable) || errors.Is(err, revocation.ErrFull) {
			level = slog.LevelWarn
		}
		e.log.LogAttrs(ctx, level, "revocation not recorded", slog.Any("error", err))
		return unavailable("the revocation was not recorded; the tokens are still valid", e.options.RetryAfter)
	}
	x.outcome.add(req, receipt)
	x.outcome.Result = ResultRevoked
	return nil
}
