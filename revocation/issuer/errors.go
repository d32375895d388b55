package issuer

import (
	"errors"
	"fmt"
)

// What can be wrong with a presented token. Every error of [Set.Identify] wraps
// exactly one of these, apart from [ErrOtherKind] and [ErrNoIssuer]. No error text
// holds a token or a part of its signature.
var (
	// ErrNotJWT says that the token is opaque, or encrypted, which is the same
	// to whoever has no key: only introspection, or the hash of the whole token
	// ([OpaqueTokenHash]), can say more.
	ErrNotJWT = errors.New("not a signed JWT")
	// ErrMalformed says that the token looks like a signed JWT and is not a
	// well-formed one. It is never treated as opaque: a lax parser behind us
	// might accept what our reader refuses.
	ErrMalformed = errors.New("malformed token")
	// ErrNoIssuer says that a signed JWT has no iss at all: no access token that is
	// accepted here, but perhaps a refresh token that only its server understands.
	// Its errors wrap [ErrMalformed], too.
	ErrNoIssuer = errors.New("no issuer")
	// ErrUnknownIssuer says that no configured issuer has the token's iss.
	ErrUnknownIssuer = errors.New("unknown issuer")
	// ErrInvalid says that the token was proven not to be a valid access token:
	// signature, algorithm, kind of token, audience, lifetime or a claim.
	ErrInvalid = errors.New("invalid token")
	// ErrOtherKind says why a token is invalid: it claims to be of a configured
	// issuer, and is another kind of JWT than its access tokens, by its typ or its
	// claims, or because it has an algorithm that they don't use: a refresh token,
	// say. Nothing more is proven. It may be alive for all that: a revocation
	// endpoint must not say that it is not. Its errors wrap [ErrInvalid], too.
	ErrOtherKind = errors.New("not an access token")
	// ErrExpired says that exp is over, leeway included.
	ErrExpired = errors.New("expired token")
	// ErrNotYetValid says that nbf or iat is still to come, leeway included.
	ErrNotYetValid = errors.New("token not valid yet")
	// ErrKeysUnavailable says that nothing is proven, because the key which the
	// token names is not known and cannot be asked for now. The same token may
	// turn out valid later: answer 503, never 401 or a revocation's 200.
	ErrKeysUnavailable = errors.New("the issuer's keys are unavailable")
)

// A malformedError is a constant, so that a flood of garbage does not allocate.
type malformedError string

func (e malformedError) Error() string        { return "malformed token: " + string(e) }
func (e malformedError) Is(target error) bool { return target == ErrMalformed }

// noIssuerError is a malformedError that is [ErrNoIssuer] as well.
type noIssuerError struct{ malformedError }

func (e noIssuerError) Is(target error) bool {
	return target == ErrNoIssuer || e.malformedError.Is(target)
}

var errNoIssuer error = noIssuerError{"it has no iss"}

// An invalidError is the constant counterpart for [ErrInvalid].
type invalidError string

func (e invalidError) Error() string        { return "invalid token: " + string(e) }
func (e invalidError) Is(target error) bool { return target == ErrInvalid }

// An otherKindError is an invalidError that is [ErrOtherKind] as well. All of them
// are made in advance, for the same reason.
type otherKindError struct {
	reason string
	use    TokenUse // what the token says that it is for
}

func (e *otherKindError) Error() string { return "invalid token: " + e.reason }
func (e *otherKindError) Is(target error) bool {
	return target == ErrInvalid || target == ErrOtherKind
}

// UseOf tells what a token says that it is for, which an [ErrOtherKind] was
// returned for: [UseUnknown] if that is not recognised. Nothing of it is proven.
func UseOf(err error) TokenUse {
	if other, ok := errors.AsType[*otherKindError](err); ok {
		return other.use
	}
	return UseUnknown
}

// UnknownIssuerError tells which issuer a token named. It wraps
// [ErrUnknownIssuer].
type UnknownIssuerError struct {
	// Issuer is the token's iss, unverified: whoever presents a token chooses it.
	Issuer string
	// Configured is the configured issuer whose spelling differs by a trailing
	// slash only, if there is one: most likely a mistake in the configuration.
	Configured string
}

func (e *UnknownIssuerError) Error() string {
	if e.Configured != "" {
		return fmt.Sprintf("unknown issuer: the token says %q, the configuration %q", e.Issuer, e.Configured)
	}
	return fmt.Sprintf("unknown issuer: %q", e.Issuer)
}

func (e *UnknownIssuerError) Unwrap() error { return ErrUnknownIssuer }
