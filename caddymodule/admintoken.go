package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
)

// namedToken is the one token that an operator wants revoked.
type namedToken struct {
	criteria revocation.Criteria
	expiry   int64  // as in revocation.Request; zero if it is not known
	note     string // what the operator should know besides
}

// nameToken finds out how the token in body is revoked. A JWT is verified. An
// opaque one is asked about at its issuer, if that is asked at all, and recorded by
// its hash, which every edge knows, whether it asks or not. A revocation by hash
// names nothing but that token, so it needs no proof, and does not have to wait
// until an authorization server that is down can be asked.
func (a *App) nameToken(ctx context.Context, body revocationRequest) (namedToken, error) {
	if len(body.Claims) > 0 {
		return namedToken{}, badRequest(errors.New("give a token or claims, not both"))
	}
	if body.Issuer != "" {
		if err := a.checkIssuer(body.Issuer); err != nil {
			return namedToken{}, err
		}
	}
	said, of, err := a.trusted.Identify(ctx, body.Token, issuer.Request{SkipVerify: true})
	switch {
	case errors.Is(err, issuer.ErrNotJWT):
		return a.nameOpaqueToken(ctx, body)
	case said != nil && body.Issuer != "" && !isCalled(said, body.Issuer):
		return namedToken{}, badRequest(errors.New("the token is not one of this issuer: correct the issuer, or leave it out"))
	}
	as := oauth.ResolveFor{}
	if of != nil {
		as.Issuer = of.Name()
	}
	resolved, err := a.resolver("").Resolve(ctx, body.Token, as)
	if err != nil {
		return namedToken{}, resolveError(err)
	}
	if err := checkRevocable(resolved); err != nil {
		return namedToken{}, err
	}
	t := namedToken{expiry: expiryOf(resolved.Identity)}
	t.criteria, _ = resolved.TokenCriteria()
	return t, nil
}

func (a *App) nameOpaqueToken(ctx context.Context, body revocationRequest) (namedToken, error) {
	of, err := a.opaqueTokensOf(body.Issuer)
	if err != nil {
		return namedToken{}, err
	}
	hash, err := issuer.OpaqueTokenHash(body.Token)
	if err != nil {
		return namedToken{}, badRequest(fmt.Errorf("the token can't be revoked: %w", err))
	}
	t := namedToken{criteria: revocation.Criteria{
		Issuer: of.Name(), Claims: map[string]string{revocation.ClaimToken: hash},
	}}
	const end = "; if it lives longer, say so: lifetime, or expires"
	if a.introspector(of.Name()) == nil {
		t.note = "recorded by its hash, without proof that there is such a token, since " + of.Name() + " is not asked" + end
		return t, nil
	}
	resolved, err := a.resolver("").Resolve(ctx, body.Token, oauth.ResolveFor{Issuer: of.Name()})
	switch {
	case err == nil:
		t.expiry = expiryOf(resolved.Identity)
		return t, checkRevocable(resolved)
	case errors.Is(err, issuer.ErrIntrospectionUnavailable):
		t.note = "recorded by its hash, without proof that there is such a token (" + err.Error() + ")" + end
		return t, nil
	case errors.Is(err, issuer.ErrInactive):
		return namedToken{}, badRequest(fmt.Errorf("nothing was recorded: %s says that the token is not active; "+
			"to deny it all the same, revoke the claim token=%s", of.Name(), hash))
	default:
		return namedToken{}, resolveError(err)
	}
}

// opaqueTokensOf returns the issuer that an opaque token belongs to: the one that
// is named, else the only one that there is, or that has such tokens as far as the
// config tells.
func (a *App) opaqueTokensOf(name string) (*issuer.Issuer, error) {
	candidates := a.issuers
	if name != "" {
		of, _ := a.trusted.Issuer(name)
		candidates = []*issuer.Issuer{of}
	}
	if len(candidates) > 1 {
		candidates = nil
		for _, i := range a.issuers {
			if i.Config().Opaque || a.introspector(i.Name()) != nil {
				candidates = append(candidates, i)
			}
		}
	}
	switch {
	case len(candidates) != 1:
		return nil, badRequest(fmt.Errorf("the token is opaque, and there are %d issuers: say whose it is (issuer)", len(a.issuers)))
	case candidates[0].Config().Development:
		return nil, badRequest(errors.New("this is no token of the development issuer: nothing would be denied"))
	}
	return candidates[0], nil
}

// checkRevocable refuses a token that no edge is ever shown.
func checkRevocable(r oauth.Resolved) error {
	if r.Use != oauth.UseRefresh {
		return nil
	}
	return badRequest(errors.New("this is a refresh token: its revocation alone would keep no access token from being accepted; " +
		"give claims that name its grant, such as " + grantClaims(r.Identity)))
}

// grantClaims says by which claims the access tokens can be named that were issued
// with a refresh token.
func grantClaims(id *revocation.Identity) string {
	var have []string
	for _, name := range []string{revocation.ClaimSessionID, revocation.ClaimSubject, revocation.ClaimClientID} {
		if value, ok := id.Value(name); ok && value != "" {
			have = append(have, name+"="+value)
		}
	}
	switch {
	case len(have) == 0:
		return "sid, or sub and client_id"
	case strings.HasPrefix(have[0], revocation.ClaimSessionID):
		return have[0]
	default:
		return strings.Join(have, " and ")
	}
}

func expiryOf(id *revocation.Identity) int64 {
	if id.Expiry == 0 {
		return revocation.NoExpiry
	}
	return id.Expiry
}

func isCalled(id *revocation.Identity, name string) bool {
	return id.Issuer == name || slices.Contains(id.Aliases, name)
}

func resolveError(err error) error {
	if errors.Is(err, oauth.ErrResolveUnavailable) {
		return apiError(http.StatusServiceUnavailable, fmt.Errorf("nothing was recorded, try again: %w", err))
	}
	return badRequest(fmt.Errorf("the token can't be revoked: %w", err))
}

func badRequest(err error) error { return apiError(http.StatusBadRequest, err) }

// checkIssuer refuses an issuer of which nothing here would ever be denied.
func (a *App) checkIssuer(name string) error {
	if _, found := a.trusted.Issuer(name); !found {
		return badRequest(fmt.Errorf("issuer %q is not configured here, so nothing would be denied", name))
	}
	return nil
}

// checkCriteria refuses criteria that nothing could ever match.
func (a *App) checkCriteria(c revocation.Criteria) error {
	if !a.onlyTokenCriteria(c.Issuer) {
		return nil
	}
	for name := range c.Claims {
		if name != revocation.ClaimToken {
			return badRequest(fmt.Errorf("all tokens of %s are opaque, and it is not asked about them: nothing is known of them but "+
				"their hash, so that a revocation by %s would deny nothing; revoke the tokens themselves (token) or the whole issuer, "+
				"or add an introspection block to the issuer", c.Issuer, name))
		}
	}
	return nil
}
