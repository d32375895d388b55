package revocation

import (
	"context"
	"fmt"
	"time"
	"unicode/utf8"
)

// MaxIntrospectionAge is for how long an edge may rely on an authorization
// server's answer about a token (RFC 7662, section 4, leaves it to the protected
// resource) at the most. After that the answers that a [Recheck] is about have
// ended everywhere.
const MaxIntrospectionAge = 10 * time.Minute

// Recheck is a recorded decision that names no token: what any edge was told
// about the issuer's tokens by introspection, before this came, does not count any
// more, and is asked again. It is for a token which the authorization server has
// revoked and of which nothing else is known.
type Recheck struct {
	// ID is the decision's random id, as in [Revocation].
	ID string
	// Issuer is the exact iss.
	Issuer    string
	Reason    string
	Actor     string
	DecidedAt int64 // Unix milliseconds, informative
}

// Validate reports the first reason why r must not be recorded or applied. The
// error wraps [ErrInvalidCriteria] or [ErrInvalidRevocation].
func (r *Recheck) Validate() error {
	if err := (Criteria{Issuer: r.Issuer}).Validate(); err != nil {
		return err
	}
	switch {
	case r.ID == "" || len(r.ID) > 64:
		return fmt.Errorf("%w: the id is not 1 to 64 bytes long", ErrInvalidRevocation)
	case len(r.Reason) > MaxReason || !utf8.ValidString(r.Reason):
		return fmt.Errorf("%w: the reason is not valid UTF-8 of at most %d bytes", ErrInvalidRevocation, MaxReason)
	case len(r.Actor) > MaxActor || !utf8.ValidString(r.Actor):
		return fmt.Errorf("%w: the actor is not valid UTF-8 of at most %d bytes", ErrInvalidRevocation, MaxActor)
	}
	return nil
}

// RecheckRequest asks for a [Recheck].
type RecheckRequest struct {
	Issuer string
	Reason string
	Actor  string
}

// Recheck records that what was learned by introspection about an issuer's tokens
// has to be asked again, and returns after that is durable and in force on this
// edge. The receipt's end is when all of it would have been asked again anyhow.
//
// It has no limit of its own: each call makes every edge of the fleet ask again.
// Its errors are those of [Service.Revoke]; it is refused with [ErrFull] like a
// client's revocation.
func (s *Service) Recheck(ctx context.Context, req RecheckRequest) (Receipt, error) {
	now := s.now()
	r := &Recheck{
		ID:        newDecisionID(),
		Issuer:    req.Issuer,
		Reason:    req.Reason,
		Actor:     req.Actor,
		DecidedAt: now.UnixMilli(),
	}
	if err := r.Validate(); err != nil {
		return Receipt{}, err
	}
	seq, err := s.ledger.PublishRecheck(ctx, r)
	if err != nil {
		return Receipt{}, err
	}
	s.denylist.Recheck(seq, r.Issuer)
	return Receipt{ID: r.ID, Sequence: seq, Expires: now.Add(MaxIntrospectionAge).Unix(), NewTokensPass: true}, nil
}
