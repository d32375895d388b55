package revocation

import (
	"errors"
	"fmt"
	"time"
	"unicode/utf8"
)

// Bounds of the free text of a revocation.
const (
	MaxReason = 256 // bytes
	MaxActor  = 256 // bytes
)

// MaxRetention bounds how far in the future a revocation may end. NATS counts a
// message's time to live in nanoseconds of 64 bits and loses messages that reach
// beyond the year 2262; no access token lives for ten years.
const MaxRetention = 10 * 365 * 24 * time.Hour

// ErrInvalidRevocation is wrapped by every error of [Revocation.Validate].
var ErrInvalidRevocation = errors.New("invalid revocation")

// Revocation is one recorded decision: these tokens are denied from now on.
type Revocation struct {
	// ID is the decision's random id, 16 bytes in hexadecimal. Retries of one
	// decision carry the same id; no two decisions do.
	ID string
	// Criteria says which tokens.
	Criteria Criteria
	// Mode says which of them: all, or those from before Cutoff.
	Mode Mode
	// Cutoff is in Unix seconds, inclusive. Zero for a [Block].
	Cutoff int64
	// Expires is when the revocation ends, in Unix seconds: for a cutoff or a
	// single token, the moment after which no token it names can be alive
	// anywhere, every leeway included.
	Expires int64
	// Reason is free text for people, without secrets.
	Reason string
	// Actor is who decided: "client:<client_id>", "operator", the name of
	// another producer.
	Actor string
	// DecidedAt is when, in Unix milliseconds by the decider's clock.
	// Informative: nothing is decided by it.
	DecidedAt int64
}

// Validate reports the first reason why r must not be recorded or applied. It
// does not compare with a clock: an entry that has ended is valid, only useless.
// The error wraps [ErrInvalidRevocation] or [ErrInvalidCriteria].
func (r *Revocation) Validate() error {
	if err := r.Criteria.Validate(); err != nil {
		return err
	}
	switch {
	case r.ID == "" || len(r.ID) > 64:
		return fmt.Errorf("%w: the id is not 1 to 64 bytes long", ErrInvalidRevocation)
	case !r.Mode.Valid():
		return fmt.Errorf("%w: unknown mode %d", ErrInvalidRevocation, r.Mode)
	case r.Mode == Block && r.Cutoff != 0:
		return fmt.Errorf("%w: a block has no cutoff", ErrInvalidRevocation)
	case r.Mode != Block && r.Cutoff <= 0:
		return fmt.Errorf("%w: the cutoff is missing", ErrInvalidRevocation)
	case r.Expires <= 0:
		return fmt.Errorf("%w: the end is missing", ErrInvalidRevocation)
	case len(r.Reason) > MaxReason || !utf8.ValidString(r.Reason):
		return fmt.Errorf("%w: the reason is not valid UTF-8 of at most %d bytes", ErrInvalidRevocation, MaxReason)
	case len(r.Actor) > MaxActor || !utf8.ValidString(r.Actor):
		return fmt.Errorf("%w: the actor is not valid UTF-8 of at most %d bytes", ErrInvalidRevocation, MaxActor)
	}
	return nil
}

// Restoration is the undo of a revocation, recorded in the ledger like one: from
// its sequence on, entries for exactly these criteria at lower sequences, of
// whatever mode, no longer count.
type Restoration struct {
	// ID is the decision's random id, as in [Revocation].
	ID       string
	Criteria Criteria
	// Expires is when the last entry that it undoes would have ended, in Unix
	// seconds; the ledger may forget the restoration afterwards.
	Expires   int64
	Reason    string
	Actor     string
	DecidedAt int64 // Unix milliseconds
}

// Validate reports the first reason why r must not be recorded or applied.
func (r *Restoration) Validate() error {
	as := Revocation{ID: r.ID, Criteria: r.Criteria, Expires: r.Expires, Reason: r.Reason, Actor: r.Actor}
	return as.Validate()
}
