package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/ledger"
)

// PublishRevocation sends a decision to the ledger that is followed.
func (r *replica) PublishRevocation(ctx context.Context, d *revocation.Revocation) (sequence uint64, err error) {
	err = r.onLedger(func(l *ledger.Ledger) (err error) {
		sequence, err = l.PublishRevocation(ctx, d)
		return err
	})
	return sequence, err
}

// PublishRestoration sends an undo to the ledger that is followed, for as long as
// it matters if this edge can tell.
func (r *replica) PublishRestoration(ctx context.Context, d *revocation.Restoration) (sequence uint64, err error) {
	held := func() (int64, bool) { return r.denylist.HeldUntil(d.Criteria) }
	err = r.onLedger(func(l *ledger.Ledger) (err error) {
		if f := r.following.Load(); f.follower != nil && f.source.ledger == l {
			sequence, err = f.follower.PublishRestorationOf(ctx, d, held)
		} else {
			sequence, err = l.PublishRestoration(ctx, d)
		}
		return err
	})
	return sequence, err
}

// PublishRecheck sends a recheck to the ledger that is followed.
func (r *replica) PublishRecheck(ctx context.Context, d *revocation.Recheck) (sequence uint64, err error) {
	err = r.onLedger(func(l *ledger.Ledger) (err error) {
		sequence, err = l.PublishRecheck(ctx, d)
		return err
	})
	return sequence, err
}

// PublishRevocations sends many decisions to the ledger that is followed.
func (r *replica) PublishRevocations(ctx context.Context, ds []*revocation.Revocation) (n int, sequence uint64, err error) {
	n = len(ds)
	err = r.onLedger(func(l *ledger.Ledger) (err error) {
		n, sequence, err = l.PublishRevocations(ctx, ds)
		return err
	})
	return n, sequence, err
}

// useOnce records the use of a client's assertion in the ledger that is followed.
func (r *replica) useOnce(ctx context.Context, key string, ttl time.Duration) (first bool, err error) {
	var closed error
	err = r.onLedger(func(l *ledger.Ledger) (err error) {
		first, err = l.UseOnce(ctx, key, ttl)
		if errors.Is(err, ledger.ErrClosed) {
			closed = err
		}
		return err
	})
	if err == nil && !first && closed != nil {
		// What was in the way may be the first attempt, whose acknowledgment got
		// lost: nothing is known.
		return false, closed
	}
	return first, err
}

// onLedger runs do with the ledger that is followed. A reload that makes another
// connection closes the present one while requests of the config before it are
// still in flight: these go on with the next one. A decision keeps its id, so that
// it is stored once.
func (r *replica) onLedger(do func(*ledger.Ledger) error) error {
	l, err := r.current()
	if err != nil {
		return err
	}
	for {
		err := do(l)
		if !errors.Is(err, ledger.ErrClosed) {
			return err
		}
		next, noNext := r.current()
		if noNext != nil || next == l {
			return err
		}
		l = next
	}
}

func (r *replica) current() (*ledger.Ledger, error) {
	s := r.source()
	if s == nil {
		return nil, fmt.Errorf("%w: Caddy is still starting", revocation.ErrUnavailable)
	}
	return s.ledger, nil
}
