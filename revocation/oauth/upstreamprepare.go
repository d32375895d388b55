package oauth

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"log/slog"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/intent"
	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
)

// prepare resolves the token, and remembers what is to be recorded if the
// authorization server says 200. It returns the answer if the request must not be
// forwarded.
func (u *Upstream) prepare(ctx context.Context, x *passage) *answer {
	q := x.request
	if q.token == "" {
		x.outcome.Result = ResultNoToken
		return nil
	}
	start := u.options.Now()
	resolved, refusal, err := u.resolve(ctx, x)
	x.outcome.Latency.Token = u.options.Now().Sub(start)
	switch {
	case refusal != nil:
		return refusal
	case err == nil:
		return u.begin(ctx, x, resolved)
	case errors.Is(err, ErrTokenInvalid), errors.Is(err, ErrTokenExpired), errors.Is(err, ErrTokenUnsupported):
		return u.unresolved(ctx, x, err)
	default:
		// After the server's 200 there would be nothing to record, and a retry
		// would find the token dead.
		u.log.LogAttrs(ctx, slog.LevelWarn, "token cannot be verified for revocation", slog.Any("error", err))
		return unavailable("the token cannot be verified now", u.options.RetryAfter)
	}
}

// resolve verifies the token. Of a server that needs to be asked whether it has
// revoked a token, it also finds out whether the token was active before, since
// inactive is what it calls any that has ended.
func (u *Upstream) resolve(ctx context.Context, x *passage) (t Resolved, refusal *answer, err error) {
	q := x.request
	release, refusal := u.turn(ctx, x.outcome.ClientIP)
	if refusal != nil {
		return t, refusal, nil
	}
	defer release()
	t, err = u.options.Tokens.Resolve(ctx, q.token, ResolveFor{Issuer: u.options.Issuer, Hint: plainHint(q.hint)})
	if err != nil || t.Asked || u.options.Confirm == nil || t.Identity == nil {
		return t, nil, err
	}
	owner, _ := t.Identity.Value(revocation.ClaimClientID)
	if t.Identity.Issuer != u.options.Issuer || !slices.Contains(q.clients, owner) || u.expired(t.Identity) {
		return t, nil, nil // nothing is recorded
	}
	active, err := u.options.Confirm(ctx, u.options.Issuer, q.token)
	x.alone = !active
	return t, nil, err
}

// begin remembers a token that was resolved, if it is the client's.
func (u *Upstream) begin(ctx context.Context, x *passage, t Resolved) *answer {
	id := t.Identity
	if id == nil || !id.Verified {
		u.log.LogAttrs(ctx, slog.LevelError, "token resolver returned an unverified identity")
		return unavailable("the token cannot be verified now", u.options.RetryAfter)
	}
	owner, owned := id.Value(revocation.ClaimClientID)
	x.outcome.Use = t.Use
	x.outcome.Token, _ = t.TokenCriteria()
	x.outcome.Owner = owner
	switch {
	case u.expired(id):
		x.outcome.Result = ResultTokenExpired
		return nil
	case id.Issuer != u.options.Issuer, !owned, !slices.Contains(x.request.clients, owner):
		// The server may say 200 to that as well; then it counts for nothing.
		x.outcome.Result = ResultNotOwner
		return nil
	case len(x.request.clients) > 1:
		x.outcome.Result = ResultAmbiguousClient
		return refuse(http.StatusBadRequest, "the client in the authorization header can be read in two ways; send client_id in the form, too")
	}
	x.outcome.ClientID, x.outcome.Issuer = owner, id.Issuer
	x.outcome.Cascade = u.cascade.cascadeOf(t, x.request.hint)
	requests, whole, err := u.requestsOf(owner, t, x.request.hint)
	if err != nil {
		u.log.LogAttrs(ctx, slog.LevelError, "token can't be revoked", slog.Any("error", err))
		return unavailable("the token cannot be revoked now", u.options.RetryAfter)
	}
	if x.alone {
		requests, whole = requests[:1], false
	}
	// What else the token's end means, only the server knows.
	recheck := u.options.Recheck != nil && (!whole || t.Use == UseUnknown && !t.IsRefresh(x.request.hint))
	e, err := u.options.Intents.Begin(ctx, intent.Intent{
		Issuer: id.Issuer, Client: owner, Token: intentToken(x.request.token),
		Requests: requests, Recheck: recheck, Made: u.options.Now(), Ends: u.ends(requests),
	})
	if err != nil {
		u.log.LogAttrs(ctx, slog.LevelError, "revocation cannot be remembered, and is not forwarded", slog.Any("error", err))
		x.outcome.Result = ResultIntentFailed
		return unavailable("the revocation cannot be remembered now; it was not forwarded", u.options.RetryAfter)
	}
	// A JWT was verified by its signature: nobody has said that the server takes
	// it for active, unless that was asked.
	x.entry, x.active = e, t.Asked || u.options.Confirm != nil && !x.alone
	return nil
}

// unresolved looks for an earlier attempt on the token. With that one's 200, or
// its end in the dark, the token died, and this one's 200 means that it did so at
// the client's wish.
func (u *Upstream) unresolved(ctx context.Context, x *passage, because error) *answer {
	q := x.request
	x.dead = errors.Is(because, issuer.ErrInactive)
	switch {
	case errors.Is(because, ErrTokenUnsupported):
		x.outcome.Result, x.recheck = ResultTokenUnsupported, true
	case errors.Is(because, ErrTokenExpired):
		x.outcome.Result = ResultTokenExpired
	default:
		// Servers that introspect access tokens only say the same of a live
		// refresh token.
		x.outcome.Result, x.recheck = ResultTokenInvalid, x.dead
	}
	if len(q.clients) != 1 {
		return nil
	}
	e, err := u.options.Intents.Resume(ctx, u.options.Issuer, q.clients[0], intentToken(q.token))
	if err != nil {
		return unavailable("an earlier attempt on this token is still being worked on; try again", u.options.RetryAfter)
	}
	if e == nil {
		return nil
	}
	// Of a server whose 200 proves nothing, this one does not prove either that
	// the token has ended at the client's wish.
	x.alone = u.options.Confirm != nil && !e.Accepted()
	x.entry, x.active, x.recheck = e, false, x.alone
	return nil
}

// requestsOf returns what is recorded for a token of the client's own. whole is
// false for a refresh token of which nothing is known that its access tokens could
// be told by: then it is its own end only.
func (u *Upstream) requestsOf(client string, t Resolved, hint string) (requests []revocation.Request, whole bool, err error) {
	actor := "client:" + client
	if len(actor) > revocation.MaxActor {
		actor = strings.ToValidUTF8(actor[:revocation.MaxActor], "")
	}
	requests, err = u.cascade.requests(t, hint, actor)
	if !errors.Is(err, errNoGrant) {
		return requests, true, err
	}
	alone := cascadeRules{cascade: CascadeToken, now: u.options.Now}
	requests, err = alone.requests(Resolved{Identity: t.Identity, Use: UseAccess}, "", actor)
	return requests, false, err
}

// expired tells whether the token has ended, the leeway included.
func (u *Upstream) expired(id *revocation.Identity) bool {
	leeway := int64((u.options.Leeway + time.Second - 1) / time.Second)
	return id.Expiry != 0 && id.Expiry+leeway <= u.options.Now().Unix()
}

// ends returns when none of the requests can matter any more.
func (u *Upstream) ends(requests []revocation.Request) time.Time {
	latest := u.options.Now().Add(revocation.MaxRetention)
	var end time.Time
	for _, r := range requests {
		until := latest
		if r.TokenExpiry > 0 && r.TokenExpiry < latest.Unix() {
			until = time.Unix(r.TokenExpiry, 0).Add(u.options.Leeway)
		}
		if until.After(end) {
			end = until
		}
	}
	return end
}

// intentToken is the name of a token among the intents: not the hash that a
// criteria has, since that is public.
func intentToken(token string) string {
	sum := sha256.Sum256([]byte("token_revocation intent\x00" + token))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// cleanMediaType keeps what can be logged of a server's content type.
func cleanMediaType(value string) string {
	mediaType, _, err := mime.ParseMediaType(value)
	if err != nil || len(mediaType) > 64 {
		return ""
	}
	return cleanText(mediaType)
}
