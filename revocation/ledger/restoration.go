package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

const (
	// restoreTimeout bounds how long it may take to store a restoration that the
	// ledger forgets early. Storing it for good is what happens otherwise.
	restoreTimeout = 2 * time.Second
	// restoreTries is how often other revocations may come in between.
	restoreTries = 8
	// restoreMargin is for how long a restoration is kept, beyond MaxClockSkew,
	// when nothing that it undoes can deny any more.
	restoreMargin = time.Hour
)

// PublishRestorationOf is [Ledger.PublishRestoration] for an undo of what the
// follower's sink holds: the ledger forgets it some time after the last of that
// has ended, and r.Expires says then when. Held returns the second from which on
// nobody denies by what is held for r.Criteria any more, or false if that can't be
// told; it may be called several times.
//
// The server makes sure that held knew of every revocation in the ledger up to
// the restoration, whichever edge recorded it: one that came in between, and ends
// later, would outlive the restoration and deny again. In any doubt the end that
// r has is kept: if the sink may lack something, another ledger may have been here
// before, clocks are too far apart, or the server is older than NATS 2.12.
func (f *Follower) PublishRestorationOf(ctx context.Context, r *revocation.Restoration, held func() (until int64, ok bool)) (uint64, error) {
	sequence, expires, err := f.restoreUntil(ctx, r, held)
	switch {
	case err == nil:
		r.Expires = expires
		return sequence, nil
	case errors.Is(err, revocation.ErrFull):
		return 0, err
	}
	// An attempt whose acknowledgment was lost may have been stored. It is good
	// for all that came before it, and what follows here has its message id: the
	// server stores one of the two, or both, in which case the last one counts.
	return f.l.PublishRestoration(ctx, r)
}

// restoreUntil stores r with the end that held tells. Any error means that this is
// not certain.
func (f *Follower) restoreUntil(ctx context.Context, r *revocation.Restoration, held func() (int64, bool)) (sequence uint64, expires int64, err error) {
	l, s := f.l, f.provable()
	switch skew := l.clockSkew(); {
	case s == nil:
		return 0, 0, errNoProof
	case !atLeast(s.nc.ConnectedServerVersion(), 2, 12):
		return 0, 0, fmt.Errorf("%w: the server is older than 2.12", errNoProof)
	case f.counts.newer.Load() > 0:
		// Acknowledged or not: a newer version may read a revocation in them.
		return 0, 0, fmt.Errorf("%w: there were entries of a newer version", errNoProof)
	case skew.Abs() > l.o.MaxClockSkew:
		return 0, 0, fmt.Errorf("%w: the clock is %s ahead of the server's", errNoProof, skew)
	}
	ctx, cancel := context.WithTimeout(ctx, restoreTimeout)
	defer cancel()
	if err := f.proveSoon(ctx, s); err != nil {
		return 0, 0, err
	}
	for range restoreTries {
		last, err := l.lastOn(ctx, s.nc, KindEntry.Subject())
		if err != nil {
			return 0, 0, err
		}
		if err := f.awaitApplied(ctx, s, last); err != nil {
			return 0, 0, err
		}
		until, ok := held()
		if !ok || f.beats.session.Load() != s {
			return 0, 0, fmt.Errorf("%w: the sink does not know when what it holds has ended", errNoProof)
		}
		brief := *r
		brief.Expires = min(r.Expires, max(until, l.now().Unix())+int64(restoreMargin/time.Second))
		data, err := encodeRestoration(&brief)
		if err != nil {
			return 0, 0, err
		}
		sequence, err := l.publish(ctx, message{
			kind: KindRestore, id: r.ID, data: data, ttl: messageTTL(brief.Expires, l.now(), l.o.MaxClockSkew),
			after: KindEntry.Subject(), last: last,
		})
		if !errors.Is(err, errOvertaken) {
			return sequence, brief.Expires, err
		}
	}
	return 0, 0, fmt.Errorf("%w: revocations keep coming in between", errNoProof)
}

// proveSoon is prove, with an end to patience.
func (f *Follower) proveSoon(ctx context.Context, s *session) error {
	ctx, cancel := context.WithTimeout(ctx, standsTimeout)
	defer cancel()
	return f.prove(ctx, s)
}

// awaitApplied waits until the session s has brought the entry at the sequence to
// the sink.
func (f *Follower) awaitApplied(ctx context.Context, s *session, sequence uint64) error {
	for f.sequence.Load() < sequence {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: entry %d is not applied in time", errNoProof, sequence)
		case <-f.ctx.Done():
			return fmt.Errorf("%w: %w", errNoProof, ErrClosed)
		case <-time.After(time.Millisecond):
		}
		if f.beats.session.Load() != s {
			return fmt.Errorf("%w: following began again meanwhile", errNoProof)
		}
	}
	return nil
}
