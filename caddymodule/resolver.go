package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
)

// resolver returns what tells whose token was presented. It may wait for keys and
// for the authorization server's answer, and asks neither for this resource's
// audience nor for a token that has not expired: any token of a trusted issuer
// can be revoked. Identities have the grant claim, if there is one, besides the
// usual ones.
func (a *App) resolver(grantClaim string) oauth.TokenResolver {
	r := tokenResolver{app: a}
	if grantClaim != "" {
		r.claims = []string{grantClaim}
	}
	return r
}

type tokenResolver struct {
	app    *App
	claims []string      // canonical names besides the well-known
	maxAge time.Duration // of an answer of the authorization server; see issuer.IntrospectionRequest
}

// Resolve implements oauth.TokenResolver. A signed JWT is verified with the keys
// of the issuer that it names, and nobody is asked. What no key can verify, an
// opaque or encrypted token, or a JWT of the issuer that its access tokens do not
// look like, is asked about at the one issuer that it can belong to: the
// client's.
func (r tokenResolver) Resolve(ctx context.Context, token string, as oauth.ResolveFor) (oauth.Resolved, error) {
	resolved, err := r.verify(ctx, token, as, r.claims)
	if len(r.claims) > 0 && errors.Is(err, issuer.ErrInvalid) && errors.Is(err, oauth.ErrTokenInvalid) {
		// A grant claim that no revocation can name (too long, too many values)
		// makes the token itself no less alive. Nobody is asked twice: this is
		// about tokens that are verified; for others, see ask.
		return r.verify(ctx, token, as, nil)
	}
	return resolved, err
}

// verify resolves a token by its signature, or asks about it.
func (r tokenResolver) verify(ctx context.Context, token string, as oauth.ResolveFor, claims []string) (oauth.Resolved, error) {
	id, iss, use, err := r.app.trusted.IdentifyUse(ctx, token, issuer.Request{
		ClaimNames:     claims,
		Wait:           true,
		IgnoreAudience: true,
		IgnoreExpiry:   true, // the service knows for how long tokens outlive exp
		Refresh:        true,
	})
	var unknown *issuer.UnknownIssuerError
	switch {
	case err == nil:
		resolved := oauth.Resolved{Identity: id, Use: oauth.UseRefresh, Claims: oauth.JWTClaims(token)}
		if use != issuer.UseRefresh {
			resolved.Use = useOfVerified(token, as.Hint, id, resolved.Claims, iss.Config())
			resolved.Undated = id.IssuedAt == 0 // and so are the issuer's others
		}
		return resolved, nil
	case errors.Is(err, issuer.ErrNotJWT), errors.Is(err, issuer.ErrNoIssuer):
		// Nothing that is accepted here has no iss; but a refresh token needs none.
		return r.ask(ctx, r.app.introspector(as.Issuer), token, as.Hint, claims, err)
	case errors.Is(err, issuer.ErrOtherKind):
		// A refresh token that is a JWT, for example: it may well be alive. What
		// says that it is for something else is not asked about.
		n := r.app.introspector(as.Issuer)
		if issuer.UseOf(err) == issuer.UseOther || n != nil && n.Issuer() != iss {
			n = nil
		}
		return r.ask(ctx, n, token, as.Hint, claims, err)
	case errors.As(err, &unknown) && unknown.Configured != "":
		// Most likely a live token, and an issuer that is misspelled here.
		return oauth.Resolved{}, fmt.Errorf("%w: %w", oauth.ErrTokenUnsupported, err)
	case errors.Is(err, issuer.ErrExpired):
		return oauth.Resolved{}, fmt.Errorf("%w: %w", oauth.ErrTokenExpired, err)
	case errors.Is(err, issuer.ErrMalformed), errors.Is(err, issuer.ErrInvalid), errors.Is(err, issuer.ErrUnknownIssuer):
		return oauth.Resolved{}, fmt.Errorf("%w: %w", oauth.ErrTokenInvalid, err)
	default:
		return oauth.Resolved{}, fmt.Errorf("%w: %w", oauth.ErrResolveUnavailable, err)
	}
}

// ask resolves a token that no key can verify, which is what because says. Only a
// clear answer that the token is not active is proof that it is worthless: an
// active token that we can't handle must not be taken for a dead one.
func (r tokenResolver) ask(ctx context.Context, n *issuer.Introspector, token, hint string, claims []string, because error) (oauth.Resolved, error) {
	if n == nil {
		return oauth.Resolved{}, fmt.Errorf("%w: %w", oauth.ErrTokenUnsupported, because)
	}
	req := issuer.IntrospectionRequest{
		ClaimNames:     claims,
		Hint:           hint,
		MaxAge:         r.maxAge,
		AnyUse:         true,
		IgnoreAudience: true,
		IgnoreExpiry:   true,
		Source:         clientIPOf(ctx),
	}
	answer, err := introspectAnyHint(ctx, n, token, req)
	if errors.Is(err, issuer.ErrUnnameable) {
		// As above. The answer of a moment ago is kept: nobody is asked again.
		req.ClaimNames, req.MaxAge = nil, 0
		answer, err = introspectAnyHint(ctx, n, token, req)
	}
	switch {
	case err == nil:
	case errors.Is(err, issuer.ErrInactive) && !n.KnowsRefreshTokens():
		// It would say the same of a refresh token that is alive.
		return oauth.Resolved{}, fmt.Errorf("%w: %w, and would say so of any refresh token", oauth.ErrTokenUnsupported, err)
	case errors.Is(err, issuer.ErrInactive), errors.Is(err, issuer.ErrMalformed), errors.Is(err, issuer.ErrUnknownIssuer):
		return oauth.Resolved{}, fmt.Errorf("%w: %w", oauth.ErrTokenInvalid, err)
	case errors.Is(err, issuer.ErrIntrospectionUnavailable):
		return oauth.Resolved{}, fmt.Errorf("%w: %w", oauth.ErrResolveUnavailable, err)
	default:
		return oauth.Resolved{}, fmt.Errorf("%w: %w", oauth.ErrTokenUnsupported, err)
	}
	resolved := oauth.Resolved{Identity: answer.Identity, Asked: true, Claims: oauth.ObjectMembers(answer.Response)}
	use := answer.Use
	if use == issuer.UseUnknown {
		use = saysOfItself(token, because) // the issuer has written it, since it vouches for the token
	}
	if use == issuer.UseAccess && saysBearerOnly(resolved.Claims) {
		use = issuer.UseUnknown
	}
	if use == issuer.UseUnknown && outlivesAccessTokens(answer.Identity, answer.Asked, n.Issuer().Config()) {
		use = issuer.UseRefresh
	}
	switch use {
	case issuer.UseAccess:
		resolved.Use = oauth.UseAccess
	case issuer.UseRefresh:
		resolved.Use = oauth.UseRefresh
	case issuer.UseOther:
		return oauth.Resolved{}, fmt.Errorf("%w: it is neither an access nor a refresh token", oauth.ErrTokenUnsupported)
	}
	// Access tokens that are asked about are like this one; of others, the keys'
	// issuer says when they were issued.
	resolved.Undated = answer.Identity.IssuedAt == 0 && (use != issuer.UseRefresh || n.Issuer().Config().Opaque)
	return resolved, nil
}

// saysOfItself returns what a token that can't be verified says that it is for;
// because says why it can't.
func saysOfItself(token string, because error) issuer.TokenUse {
	if errors.Is(because, issuer.ErrNoIssuer) { // so that nothing but its syntax was looked at
		if jwt, err := issuer.ReadJWT(token); err == nil {
			return jwt.Use()
		}
	}
	return issuer.UseOf(because)
}

var _ oauth.TokenResolver = tokenResolver{}
