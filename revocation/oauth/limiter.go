package oauth

import (
	"context"
	"errors"
	"time"
)

// errBusy says that no slot became free in time.
var errBusy = errors.New("too many password hashes at once")

// limiter bounds how many slow hashes are computed at once. Each of them takes a
// core for a good part of a second, and argon2id up to 256 MiB: without a bound,
// a few dozen wrong passwords a second would stop everything else that this
// process does.
type limiter struct {
	slots chan struct{}
	wait  time.Duration
}

func newLimiter(slots int, wait time.Duration) *limiter {
	return &limiter{slots: make(chan struct{}, slots), wait: wait}
}

// acquire waits for a slot, at most for the limiter's wait or until ctx is done.
// After a nil error the caller has to release it.
func (l *limiter) acquire(ctx context.Context) error {
	select {
	case l.slots <- struct{}{}:
		return nil
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, l.wait)
	defer cancel()
	select {
	case l.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return errBusy
	}
}

func (l *limiter) release() { <-l.slots }
