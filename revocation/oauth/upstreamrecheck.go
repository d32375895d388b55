package oauth

import (
	"context"
	"sync"
	"time"
)

// Rechecks keeps clients from making a whole fleet introspect anew more often than
// once in an interval for each issuer: calls that come meanwhile are answered by
// one recheck, which begins after they came. It is safe for concurrent use.
type Rechecks struct {
	// Do records a recheck; see [revocation.Service.Recheck].
	Do func(ctx context.Context, issuer string) error
	// Interval is the least time between two rechecks of an issuer.
	Interval time.Duration
	// Timeout bounds one.
	Timeout time.Duration

	mu      sync.Mutex
	issuers map[string]*rechecks
}

type rechecks struct {
	last    time.Time
	pending *recheckBatch // those that wait for the next one
}

type recheckBatch struct {
	done chan struct{}
	err  error
}

// Recheck returns after a recheck of the issuer that began after the call. Its
// error is that of Do, or of ctx, with which only this caller stops waiting.
func (r *Rechecks) Recheck(ctx context.Context, issuer string) error {
	r.mu.Lock()
	if r.issuers == nil {
		r.issuers = make(map[string]*rechecks)
	}
	i := r.issuers[issuer]
	if i == nil {
		i = new(rechecks)
		r.issuers[issuer] = i
	}
	b := i.pending
	if b == nil {
		b = &recheckBatch{done: make(chan struct{})}
		i.pending = b
		go r.run(context.WithoutCancel(ctx), i, b, issuer, r.Interval-time.Since(i.last))
	}
	r.mu.Unlock()
	select {
	case <-b.done:
		return b.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (r *Rechecks) run(ctx context.Context, i *rechecks, b *recheckBatch, issuer string, wait time.Duration) {
	defer close(b.done)
	if wait > 0 {
		time.Sleep(wait)
	}
	r.mu.Lock()
	i.pending, i.last = nil, time.Now() // who comes from now on waits for the next one
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	b.err = r.Do(ctx, issuer)
}
