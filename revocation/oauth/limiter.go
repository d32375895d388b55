package oauth

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Bounds of the queue for slow hashes.
const (
	// maxQueuedOfNetwork is how many requests of one network may wait: enough
	// for the clients behind one address that all start at the same time.
	maxQueuedOfNetwork = 8
	maxQueued          = 1024
)

var (
	// errBusy says that no slot became free in time.
	errBusy = errors.New("too many password hashes at once")
	// errCrowded says that too many requests of the same network wait already.
	errCrowded = errors.New("too many password hashes at once for one network")
)

// limiter bounds how many slow hashes are computed at once. Each of them takes a
// core for a good part of a second, and argon2id up to 256 MiB: without a bound,
// a few dozen wrong passwords a second would stop everything else that this
// process does.
//
// Networks take turns. An unknown id costs a hash like a known one, and anybody
// can make up as many as they like, so that no count of failures stops them: in
// one queue for all, a single address would keep every client out. With turns, a
// network that asks for a hash now and then is the next one, however many
// requests of another one were there before.
type limiter struct {
	wait time.Duration

	mu   sync.Mutex
	free int
	// turn is that of whoever was let in last. Requests of one network have
	// ascending turns; the first one of a network has the present turn.
	turn     uint64
	queue    []*queued // in order of arrival
	networks map[netip.Prefix]*share
}

// share is what one network has of the limiter. It is forgotten when the network
// has nothing any more.
type share struct {
	running, queued int
	next            uint64 // the turn of its next request
}

type queued struct {
	network netip.Prefix
	turn    uint64
	ready   chan struct{} // closed when it is let in
}

func newLimiter(slots int, wait time.Duration) *limiter {
	return &limiter{free: slots, wait: wait, networks: make(map[netip.Prefix]*share)}
}

// acquire waits for a slot, at most for the limiter's wait or until ctx is done;
// the error is then errBusy. It is errCrowded, at once, if too many of the same
// network wait. Requests from an unknown address count as one network, but are
// never too many: they may be everybody's. After a nil error the caller has to
// call release.
func (l *limiter) acquire(ctx context.Context, from netip.Addr) (release func(), err error) {
	network, known := networkOf(from)
	release = func() { l.release(network) }
	q, err := l.enter(network, known)
	if q == nil {
		return release, err
	}
	ctx, cancel := context.WithTimeout(ctx, l.wait)
	defer cancel()
	select {
	case <-q.ready:
		return release, nil
	case <-ctx.Done():
		if l.leave(q) {
			return nil, errBusy
		}
		return release, nil // let in at this very moment
	}
}

// enter takes a free slot, or a place in the queue, which it returns.
func (l *limiter) enter(network netip.Prefix, known bool) (*queued, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.networks[network]
	switch {
	case l.free == 0 && known && s != nil && s.queued >= maxQueuedOfNetwork:
		return nil, errCrowded
	case l.free == 0 && len(l.queue) >= maxQueued:
		return nil, errBusy
	case s == nil:
		s = new(share)
		l.networks[network] = s
	}
	turn := max(l.turn, s.next)
	s.next = turn + 1
	if l.free > 0 { // then nobody waits
		l.free--
		s.running++
		l.turn = turn
		return nil, nil
	}
	s.queued++
	q := &queued{network: network, turn: turn, ready: make(chan struct{})}
	l.queue = append(l.queue, q)
	return q, nil
}

// leave takes q out of the queue, and returns false if it was let in before.
func (l *limiter) leave(q *queued) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.queue, q)
	if i < 0 {
		return false
	}
	l.queue = slices.Delete(l.queue, i, i+1)
	l.networks[q.network].queued--
	l.forget(q.network)
	return true
}

// release gives the slot to whoever's turn comes first, of those who have waited
// for the longest time.
func (l *limiter) release(network netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.networks[network].running--
	l.forget(network)
	if len(l.queue) == 0 {
		l.free++
		return
	}
	first := 0
	for i, q := range l.queue {
		if q.turn < l.queue[first].turn {
			first = i
		}
	}
	q := l.queue[first]
	l.queue = slices.Delete(l.queue, first, first+1)
	l.turn = max(l.turn, q.turn)
	s := l.networks[q.network]
	s.queued--
	s.running++
	close(q.ready)
}

func (l *limiter) forget(network netip.Prefix) {
	if s := l.networks[network]; s.running == 0 && s.queued == 0 {
		delete(l.networks, network)
	}
}
