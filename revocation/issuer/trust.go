package issuer

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// Set is all the issuers that a place trusts. It is safe for concurrent use.
type Set struct {
	issuers []*Issuer // by name
	byName  map[string]*Issuer
	// byBare has the issuers by their spellings without a trailing slash, to
	// recognise the most frequent mistake.
	byBare map[string]string
	warned map[string]*atomic.Bool
}

// NewSet returns the set of these issuers. No two may share a name or an alias:
// a token belongs to exactly one.
func NewSet(issuers ...*Issuer) (*Set, error) {
	s := &Set{
		byName: make(map[string]*Issuer),
		byBare: make(map[string]string),
		warned: make(map[string]*atomic.Bool),
	}
	for _, i := range issuers {
		for _, name := range append([]string{i.config.Issuer}, i.config.Aliases...) {
			if _, taken := s.byName[name]; taken {
				return nil, fmt.Errorf("two issuers are called %q: each name and alias belongs to one", name)
			}
			s.byName[name] = i
			s.byBare[strings.TrimSuffix(name, "/")] = name
			s.warned[name] = new(atomic.Bool)
		}
		s.issuers = append(s.issuers, i)
	}
	slices.SortFunc(s.issuers, func(a, b *Issuer) int { return strings.Compare(a.config.Issuer, b.config.Issuer) })
	return s, nil
}

// Issuer returns the issuer with this name or alias.
func (s *Set) Issuer(name string) (*Issuer, bool) {
	i, found := s.byName[name]
	return i, found
}

// Issuers returns all issuers, sorted by name. The slice must not be changed.
func (s *Set) Issuers() []*Issuer { return s.issuers }

// Generation combines the generations of all issuers, see [Issuer.Generation].
func (s *Set) Generation() uint64 {
	g := uint64(len(s.issuers))
	for _, i := range s.issuers {
		g = mix(g, i.Generation())
	}
	return g
}

// Request says how to identify a token. The zero value is what enforcement
// needs: everything is checked, and nothing is waited for.
type Request struct {
	// ClaimNames are canonical claim names to extract besides jti, sub,
	// client_id, sid, token and kid.
	ClaimNames []string
	// Wait allows to wait for an issuer's keys until the context ends. Without
	// it, an unknown key is asked for in the background, and the error is
	// [ErrKeysUnavailable].
	Wait bool
	// IgnoreAudience accepts tokens that are meant for others, as a revocation
	// endpoint has to.
	IgnoreAudience bool
	// IgnoreExpiry does not look at exp, nbf and iat: a token that is over here,
	// or lives for too long to be accepted here, may still pass elsewhere, and
	// one that is not valid yet can be revoked.
	IgnoreExpiry bool
	// Refresh identifies refresh tokens, too, that the issuer's keys verify: those
	// whose typ is known or one of [Config].RefreshTypes.
	Refresh bool
	// SkipVerify only reads the token. Nothing of the identity is proven, and
	// Verified is false: good enough to compare with the denylist in front of
	// something that verifies, and for nothing else. Such an identity has no
	// kid, so that revocations of a signing key do not match it.
	SkipVerify bool
}

// Identify returns the identity of a token and its issuer. The errors are those
// at the top of this package: [ErrNotJWT], [ErrMalformed], [ErrUnknownIssuer],
// [ErrInvalid], [ErrExpired], [ErrNotYetValid], [ErrKeysUnavailable].
//
// The identity is nil with every error but one. With [ErrUnknownIssuer] it is
// what the token says of itself, unverified and under standard claim names, so
// that a route which lets unknown issuers pass can still ask its denylist. The
// error is then an [*UnknownIssuerError].
func (s *Set) Identify(ctx context.Context, token string, req Request) (*revocation.Identity, *Issuer, error) {
	id, i, _, err := s.IdentifyUse(ctx, token, req)
	return id, i, err
}

// IdentifyUse is [Set.Identify] that also tells what a verified token is for:
// [UseAccess], or [UseRefresh] if req asks for refresh tokens too. The issuer is
// known with every error but [ErrNotJWT], [ErrMalformed] and [ErrUnknownIssuer].
func (s *Set) IdentifyUse(ctx context.Context, token string, req Request) (*revocation.Identity, *Issuer, TokenUse, error) {
	r, err := read(token)
	if err != nil {
		return nil, nil, UseUnknown, err
	}
	defer r.free()
	name, err := r.issuer()
	if err != nil {
		return nil, nil, UseUnknown, err
	}
	i, known := s.byName[string(name)]
	switch {
	case !known:
		id, err := r.unverified(string(name), &standardClaims, req.ClaimNames)
		if err != nil {
			return nil, nil, UseUnknown, err
		}
		return id, nil, UseUnknown, s.unknown(string(name))
	case req.SkipVerify:
		id, err := r.unverified(i.config.Issuer, &i.claims, req.ClaimNames)
		if err != nil {
			return nil, i, UseUnknown, err
		}
		id.Aliases = i.config.Aliases
		return id, i, UseUnknown, nil
	}
	id, use, err := i.identify(ctx, token, r, req)
	return id, i, use, err
}

var standardClaims = newClaimMap(nil)

// issuer returns the token's iss.
func (r *reading) issuer() ([]byte, error) {
	m := r.registered[claimIss]
	switch {
	case m.name == nil:
		return nil, errNoIssuer
	case len(m.value) == 0:
		return nil, malformedError("it has no iss")
	case m.kind == kindString:
	case m.kind == kindEscaped:
		start := len(r.scratch)
		r.scratch = unescape(r.scratch, m.value)
		m.value = r.scratch[start:]
	default:
		return nil, malformedError("its iss is not a text")
	}
	if len(m.value) > revocation.MaxIssuer {
		return nil, malformedError("its iss is too long")
	}
	return m.value, nil
}

// unverified returns the identity that the token claims to have.
func (r *reading) unverified(issuer string, claims *claimMap, extra []string) (*revocation.Identity, error) {
	if strings.EqualFold(string(r.alg), "none") {
		return nil, errUnsigned
	}
	t, err := r.times()
	if err != nil {
		return nil, err
	}
	return r.makeIdentity(issuer, claims, extra, t, "")
}

const errUnsigned = invalidError("it is not signed")

// unknown returns the error for a token whose issuer is not configured, and logs
// it, once for each configured issuer, if only a trailing slash is to blame:
// such a mistake would otherwise look like an attack, and refuse everything.
func (s *Set) unknown(name string) error {
	err := &UnknownIssuerError{Issuer: name, Configured: s.byBare[strings.TrimSuffix(name, "/")]}
	if err.Configured != "" && s.warned[err.Configured].CompareAndSwap(false, true) {
		s.byName[err.Configured].logger.Warn("tokens differ from the configured issuer by a trailing slash and are not accepted; "+
			"correct the issuer, or add an alias", "configured", err.Configured, "token", name)
	}
	return err
}
