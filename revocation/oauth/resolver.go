package oauth

import (
	"context"
	"errors"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// Errors of a [TokenResolver].
var (
	// ErrTokenInvalid says that the token is proven not to be one of ours: bad
	// syntax, a bad signature, an issuer that nobody configured. It is answered
	// with 200, and nothing is stored (RFC 7009, section 2.2).
	ErrTokenInvalid = errors.New("the token is invalid")
	// ErrTokenExpired says that the token was one of ours and has ended, every
	// leeway included. It is answered with 200, and nothing is stored.
	ErrTokenExpired = errors.New("the token has expired")
	// ErrTokenUnsupported says that tokens of this type cannot be revoked here,
	// or that nothing can be said of this one: it is opaque, and there is nobody
	// to ask. It is answered with 400 unsupported_token_type, whatever the hint:
	// a 200 would make the client believe that a live token is dead.
	ErrTokenUnsupported = errors.New("tokens of this type cannot be revoked here")
	// ErrResolveUnavailable says that the token could not be judged now: no keys,
	// no answer from introspection. It is answered with 503.
	ErrResolveUnavailable = errors.New("the token cannot be verified now")
)

// TokenResolver turns a presented token into a verified identity. Expiry within
// the leeway and the audience are no reason to refuse: a token that any upstream
// may still accept can be revoked.
//
// Resolve returns an identity whose Verified is true, or an error that wraps one
// of the errors above; every other error counts as [ErrResolveUnavailable]. The
// error's text must not contain the token, since it is logged. Implementations
// are safe for concurrent use.
type TokenResolver interface {
	Resolve(ctx context.Context, token string) (*revocation.Identity, error)
}

// Revoker makes a revocation durable. It is implemented by [revocation.Service],
// whose errors it documents.
type Revoker interface {
	Revoke(ctx context.Context, req revocation.Request) (revocation.Receipt, error)
}

var _ Revoker = (*revocation.Service)(nil)
