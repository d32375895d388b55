package oauth

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// ErrTokenRevoked says that the token was one of ours and has been revoked.
var ErrTokenRevoked = errors.New("the token has been revoked")

// TokenIntrospector finds out whether a token is active.
//
// Introspect returns a token that may be used now: it was verified, with
// everything that RFC 7662, section 4, lists except its audience, which depends
// on who asks, and it is not revoked. For any other it returns an error:
// [ErrTokenInvalid], [ErrTokenExpired], [ErrTokenRevoked] and
// [ErrTokenUnsupported], which says that nobody here knows such tokens, are all
// answered as inactive; every other error as not known (503). The error's text
// must not contain the token, since it is logged. Implementations are safe for
// concurrent use.
type TokenIntrospector interface {
	Introspect(ctx context.Context, token string, q IntrospectionQuery) (*ActiveToken, error)
}

// IntrospectionQuery says who asks about a token.
type IntrospectionQuery struct {
	// Issuer is the issuer of the client that asks: the only authorization
	// server that may be asked about a token that says nothing of itself.
	Issuer string
	// Hint is the request's token_type_hint: whatever the client wrote. It may
	// speed the search up and must not limit it (RFC 7662, section 2.1).
	Hint string
}

// ActiveToken is what is known of a token that is active.
type ActiveToken struct {
	// Identity is Verified.
	Identity *revocation.Identity
	// Refresh is true for a refresh token: only its own client is told of it.
	Refresh bool
	// Claims is a JSON object without repeated names: what the token says of
	// itself, or if Answered is true, what its authorization server answered
	// (RFC 7662, section 2.2).
	Claims json.RawMessage
	// Answered says whose words Claims are.
	Answered bool
}
