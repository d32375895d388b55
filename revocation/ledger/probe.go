package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// probeInterval is the least time between two probes of a follower: whoever
// wants one meanwhile shares the next.
const probeInterval = 10 * time.Millisecond

var errNoProof = errors.New("it can't be proven that everything in the ledger is in force here")

// probe is a heartbeat that someone waits for.
type probe struct {
	back chan struct{} // closed when it has come through the ledger
}

// prove returns nil after a heartbeat that was sent after the call has come
// through the ledger in the session s: everything that anyone was told is
// recorded, before the call, has then been given to the sink. Unlike any answer
// of the API, that holds in a partition too: there, no heartbeat comes through.
func (f *Follower) prove(ctx context.Context, s *session) error {
	b := &f.beats
	b.mu.Lock()
	p, wait := b.next, time.Duration(-1)
	if p == nil {
		p = &probe{back: make(chan struct{})}
		b.next = p
		wait = max(0, probeInterval-f.l.now().Sub(b.probed))
	}
	b.mu.Unlock()
	if wait >= 0 {
		// The first who asked sends it for all. One whose time is over meanwhile
		// sends it too, for the others.
		if wait > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(wait):
			}
		}
		b.mu.Lock()
		b.next, b.probed = nil, f.l.now() // who comes now needs another one
		b.mu.Unlock()
		b.sendFor(s, p)
	}
	select {
	case <-p.back:
	case <-ctx.Done():
		return fmt.Errorf("%w: no heartbeat came through: %w", errNoProof, ctx.Err())
	case <-f.ctx.Done():
		return fmt.Errorf("%w: %w", errNoProof, ErrClosed)
	}
	if b.session.Load() != s {
		return fmt.Errorf("%w: following began again meanwhile", errNoProof)
	}
	return nil
}

// provable returns the present session, or nil if there is no use in trying to
// prove anything in it.
func (f *Follower) provable() *session {
	s := f.beats.session.Load()
	if st := f.State(); s == nil || !st.EverSynced || st.Age > 3*f.l.o.HeartbeatInterval {
		return nil
	}
	if f.l.usable() != nil || f.l.link.refused.has(KindHeartbeat.Subject()) {
		return nil
	}
	return s
}

// take removes and returns the probe that waits for the heartbeat id.
func (b *beats) take(id string) *probe {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.probes[id]
	delete(b.probes, id)
	return p
}
