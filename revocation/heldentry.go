package revocation

import (
	"fmt"
	"slices"
	"unicode/utf8"
)

// HeldEntry is what an edge still knows of a revocation that it holds. The
// criteria are gone, but for their fingerprint and the names of their claims:
// enough to deny the same tokens, to be restored by the same criteria, and to be
// recorded again in a ledger that lost it.
type HeldEntry struct {
	Fingerprint Fingerprint
	Mode        Mode
	// Names are the claim names of the criteria, sorted and without repeats.
	Names []string
	// Cutoff is in Unix seconds, inclusive. Zero for a [Block].
	Cutoff int64
	// Expires is when the revocation ends, in Unix seconds.
	Expires int64
	// Actor is who decided, empty if it is not known any more.
	Actor string
}

// Validate reports the first reason why e must not be recorded or applied. The
// error wraps [ErrInvalidRevocation].
func (e *HeldEntry) Validate() error {
	switch {
	case e.Fingerprint == Fingerprint{}:
		return fmt.Errorf("%w: the fingerprint is missing", ErrInvalidRevocation)
	case len(e.Names) > MaxCriteriaClaims:
		return fmt.Errorf("%w: %d claim names, at most %d can be combined", ErrInvalidRevocation, len(e.Names), MaxCriteriaClaims)
	case !e.Mode.Valid():
		return fmt.Errorf("%w: unknown mode %d", ErrInvalidRevocation, e.Mode)
	case e.Mode == Block && e.Cutoff != 0:
		return fmt.Errorf("%w: a block has no cutoff", ErrInvalidRevocation)
	case e.Mode != Block && e.Cutoff <= 0:
		return fmt.Errorf("%w: the cutoff is missing", ErrInvalidRevocation)
	case e.Expires <= 0:
		return fmt.Errorf("%w: the end is missing", ErrInvalidRevocation)
	case len(e.Actor) > MaxActor || !utf8.ValidString(e.Actor):
		return fmt.Errorf("%w: the actor is not valid UTF-8 of at most %d bytes", ErrInvalidRevocation, MaxActor)
	}
	for i, name := range e.Names {
		if name == "" || len(name) > MaxClaimName || !utf8.ValidString(name) {
			return fmt.Errorf("%w: a claim name is not valid UTF-8 of 1 to %d bytes", ErrInvalidRevocation, MaxClaimName)
		}
		if i > 0 && name <= e.Names[i-1] {
			return fmt.Errorf("%w: the claim names are not in order", ErrInvalidRevocation)
		}
	}
	return nil
}

// NamesOneToken tells whether e can match at most one token.
func (e *HeldEntry) NamesOneToken() bool {
	return slices.Contains(e.Names, ClaimTokenID) || slices.Contains(e.Names, ClaimToken)
}
