package oauth

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"

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

// TokenUse is what a token is for.
type TokenUse uint8

// Uses of tokens. Those of any other use, such as ID tokens, are not resolved.
const (
	// UseUnknown is that of a token that is active, and of which its
	// authorization server does not say what it is for.
	UseUnknown TokenUse = iota
	UseAccess
	UseRefresh
)

// String returns "unknown", "access" or "refresh".
func (u TokenUse) String() string {
	switch u {
	case UseAccess:
		return "access"
	case UseRefresh:
		return "refresh"
	default:
		return "unknown"
	}
}

// ResolveFor says on whose behalf a token is resolved.
type ResolveFor struct {
	// Issuer is that of the client that has presented the token: only there is
	// asked about a token that does not say itself whose it is. Empty means that
	// nobody is asked.
	Issuer string
	// Hint is the request's token_type_hint. It is handed on to whoever is asked,
	// and may make the use of a token unknown that says nothing of it. It never
	// limits what is found (RFC 7009, section 2.1).
	Hint string
}

// Resolved is a token that was verified.
type Resolved struct {
	// Identity is not nil, and Verified.
	Identity *revocation.Identity
	// Use is what the token is for.
	Use TokenUse
	// Asked is true if its authorization server was asked and says that the token
	// is active, and false if it was verified with the issuer's keys.
	Asked bool
	// Undated is true if nobody tells when the access tokens of its authorization
	// server were issued: a cutoff would deny those to come as well, for as long as
	// it is kept.
	Undated bool
	// Claims are those of the token under the issuer's own names; for a token
	// that was asked about, the members of the answer (RFC 7662, section 2.2).
	// Numbers are of type [json.Number]. They must not be changed.
	Claims map[string]any
}

// TokenResolver turns a presented token into a verified identity. Expiry within
// the leeway and the audience are no reason to refuse: a token that any upstream
// may still accept can be revoked.
//
// Resolve returns an identity whose Verified is true, or an error that wraps one
// of the errors above; every other error counts as [ErrResolveUnavailable]. The
// error's text must not contain the token, since it is logged. Implementations
// are safe for concurrent use.
type TokenResolver interface {
	Resolve(ctx context.Context, token string, as ResolveFor) (Resolved, error)
}

// JWTClaims returns the claims of a signed JWT for [Resolved], none for anything
// else. It proves nothing: the caller has verified the token.
func JWTClaims(token string) map[string]any {
	none := map[string]any{}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return none
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return none
	}
	if claims := ObjectMembers(payload); claims != nil {
		return claims
	}
	return none
}

// ObjectMembers returns the members of a JSON object for [Resolved], nil for
// anything else.
func ObjectMembers(text []byte) map[string]any {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var members map[string]any
	if d.Decode(&members) != nil {
		return nil
	}
	return members
}

// Revoker makes a revocation durable. It is implemented by [revocation.Service],
// whose errors it documents.
type Revoker interface {
	Revoke(ctx context.Context, req revocation.Request) (revocation.Receipt, error)
}

var _ Revoker = (*revocation.Service)(nil)
