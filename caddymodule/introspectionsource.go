package caddymodule

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
)

// introspectionSource finds out whether a token is active: by the keys of its
// issuer, or by asking the authorization server; and by the denylist.
type introspectionSource struct{ app *App }

// Introspect implements oauth.TokenIntrospector.
func (s introspectionSource) Introspect(ctx context.Context, token string, q oauth.IntrospectionQuery) (*oauth.ActiveToken, error) {
	list := s.app.replica.denylist
	for range 3 {
		names, epoch := list.ClaimNames()
		t, own, err := s.read(ctx, token, q, names)
		if err != nil {
			return nil, err
		}
		// The denylist is asked last, and right before the answer: the keys or the
		// authorization server may have taken their time.
		denied := list.Check(t.Identity).Denied || own != nil && list.Check(own).Denied
		if _, now := list.ClaimNames(); now != epoch {
			continue // an identity may lack a claim that a revocation names
		}
		if denied {
			return nil, oauth.ErrTokenRevoked
		}
		return t, nil
	}
	return nil, fmt.Errorf("%w: the claims that revocations name keep changing", oauth.ErrResolveUnavailable)
}

// read returns the token if it is valid, revoked or not, and if it is a JWT that
// was asked about, what it says of itself: its authorization server may have told
// less, and a revocation may name the rest.
func (s introspectionSource) read(
	ctx context.Context, token string, q oauth.IntrospectionQuery, names []string,
) (t *oauth.ActiveToken, own *revocation.Identity, err error) {
	// The audience is that of the client that asks, not that of this edge.
	id, err := s.app.identify(ctx, token, issuer.Request{ClaimNames: names, Wait: true, IgnoreAudience: true})
	switch {
	case err == nil:
		claims, err := payloadOf(token)
		return &oauth.ActiveToken{Identity: id, Claims: claims}, nil, err
	case errors.Is(err, issuer.ErrNotJWT), errors.Is(err, issuer.ErrNoIssuer):
		t, err := s.ask(ctx, token, q, names)
		return t, nil, err
	case errors.Is(err, issuer.ErrOtherKind) && issuer.UseOf(err) != issuer.UseOther:
		// A refresh token perhaps, of which only the authorization server knows
		// whether it was used up. That it vouches for the token proves the claims.
		t, err := s.ask(ctx, token, q, names)
		if err != nil {
			return nil, nil, err
		}
		own, err := s.app.identify(ctx, token, issuer.Request{ClaimNames: names, SkipVerify: true})
		if err != nil {
			return nil, nil, judgement(err)
		}
		return t, own, nil
	default:
		return nil, nil, judgement(err)
	}
}

// ask asks the authorization server of the client about a token. What it has
// answered a moment ago will do: a revocation that names the token has purged
// that, and the denylist is asked after it.
func (s introspectionSource) ask(ctx context.Context, token string, q oauth.IntrospectionQuery, names []string) (*oauth.ActiveToken, error) {
	server := s.app.introspector(q.Issuer)
	if server == nil {
		// Nothing is known of the token here, and nobody can be asked.
		return nil, oauth.ErrTokenUnsupported
	}
	req := issuer.IntrospectionRequest{ClaimNames: names, Hint: q.Hint, AnyUse: true, IgnoreAudience: true, Source: clientIPOf(ctx)}
	known, err := introspectAnyHint(ctx, server, token, req)
	use := known.Use
	if errors.Is(err, issuer.ErrInvalid) {
		// It lives for longer than the issuer's access tokens do, or without an
		// end: a refresh token. The answer is kept, so that this asks nobody again.
		req.IgnoreExpiry = true
		if known, err = introspectAnyHint(ctx, server, token, req); err == nil {
			if use = longLivedUse(known, server.Issuer().Config()); use != issuer.UseRefresh {
				return nil, fmt.Errorf("%w: it lives for longer than the issuer's max_token_lifetime", oauth.ErrTokenInvalid)
			}
		}
	}
	switch {
	case err != nil:
		return nil, judgement(err)
	case use == issuer.UseOther:
		return nil, fmt.Errorf("%w: it is neither an access token nor a refresh token", oauth.ErrTokenInvalid)
	}
	return &oauth.ActiveToken{
		Identity: known.Identity,
		Refresh:  use == issuer.UseRefresh,
		Claims:   known.Response,
		Answered: true,
	}, nil
}

// longLivedUse returns what a token is for that lives for longer than the issuer's
// access tokens: a token_type like Bearer is no sign, since some servers write it
// for refresh tokens, too.
func longLivedUse(known issuer.Introspection, c issuer.Config) issuer.TokenUse {
	use := known.Use
	if use == issuer.UseAccess && saysBearerOnly(oauth.ObjectMembers(known.Response)) {
		use = issuer.UseUnknown
	}
	if use == issuer.UseUnknown && outlivesAccessTokens(known.Identity, known.Asked, c) {
		use = issuer.UseRefresh
	}
	return use
}

// judgement translates what keys and authorization servers say of a token.
func judgement(err error) error {
	class := oauth.ErrResolveUnavailable
	switch {
	case errors.Is(err, issuer.ErrIntrospectionUnavailable), errors.Is(err, issuer.ErrKeysUnavailable):
	case errors.Is(err, issuer.ErrExpired):
		class = oauth.ErrTokenExpired
	case errors.Is(err, issuer.ErrUnknownIssuer), errors.Is(err, issuer.ErrInactive):
		class = oauth.ErrTokenUnsupported
	case errors.Is(err, issuer.ErrMalformed), errors.Is(err, issuer.ErrInvalid),
		errors.Is(err, issuer.ErrNotYetValid), errors.Is(err, issuer.ErrNotAToken):
		class = oauth.ErrTokenInvalid
	}
	return fmt.Errorf("%w: %w", class, err)
}

// payloadOf returns the claims of a JWT that was verified, as they were signed.
func payloadOf(token string) ([]byte, error) {
	_, rest, _ := strings.Cut(token, ".")
	payload, _, _ := strings.Cut(rest, ".")
	claims, err := base64.RawURLEncoding.Strict().DecodeString(payload)
	if err != nil { // verified before: cannot happen
		return nil, fmt.Errorf("%w: its payload can't be decoded", oauth.ErrTokenInvalid)
	}
	return claims, nil
}

// Interface guard
var _ oauth.TokenIntrospector = introspectionSource{}
