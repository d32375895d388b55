// Package turns bounds how much is done at once of what anybody can ask for, and
// lets networks take turns at it.
package turns

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Errors of [Limiter.Acquire].
var (
	// ErrBusy says that no slot became free in time, or that nobody else may wait.
	ErrBusy = errors.New("too many at once")
	// ErrCrowded says that too many requests of the same network wait already.
	ErrCrowded = errors.New("too many at once for one network")
)

// Options configure a [Limiter].
type Options struct {
	// Slots is how many may work at the same time.
	Slots int
	// Wait is how long a request waits for its slot.
	Wait time.Duration
	// Queue is how many requests may wait.
	Queue int
	// NetworkQueue is how many requests of one network may wait. Zero means that
	// only Queue bounds them.
	NetworkQueue int
}

// Limiter bounds what is done at once. It is safe for concurrent use, and needs
// not be closed.
//
// Networks take turns. Where requests cost something before it is known who
// sends them, anybody can make up as many as they like, so that no count of
// failures stops them: in one queue for all, a single address would keep
// everybody out. With turns, a network that asks for a slot now and then is the
// next one, however many requests of another one were there before. For the same
// reason, a full queue takes one more request of a network that has few in it,
// and drops the last one of the network that has most.
type Limiter struct {
	options Options

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
	network netip.Prefix // zero: not known
	turn    uint64
	ready   chan struct{} // closed when it is let in, or dropped
	dropped bool          // valid after ready
}

// New returns a limiter whose slots are all free.
func New(o Options) *Limiter {
	return &Limiter{options: o, free: o.Slots, networks: make(map[netip.Prefix]*share)}
}

// Acquire waits for a slot, at most for the limiter's wait or until ctx is done;
// the error is then [ErrBusy]. It is [ErrCrowded] if too many of the same network
// wait. Requests from an unknown address count as one network, but are never too
// many for NetworkQueue: they may be everybody's. After a nil error the caller has
// to call release, once.
func (l *Limiter) Acquire(ctx context.Context, from netip.Addr) (release func(), err error) {
	network, known := Network(from)
	release = func() { l.release(network) }
	q, err := l.enter(network, known)
	if q == nil {
		return release, err
	}
	ctx, cancel := context.WithTimeout(ctx, l.options.Wait)
	defer cancel()
	select {
	case <-q.ready:
	case <-ctx.Done():
		if l.leave(q) {
			return nil, ErrBusy
		}
		<-q.ready // at this very moment
	}
	switch {
	case !q.dropped:
		return release, nil
	case known:
		return nil, ErrCrowded
	default:
		return nil, ErrBusy
	}
}

// Try takes a slot if one is free. It returns nil if not.
func (l *Limiter) Try(from netip.Addr) (release func()) {
	network, _ := Network(from)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.free == 0 {
		return nil
	}
	l.take(network)
	return func() { l.release(network) }
}

// enter takes a free slot, or a place in the queue, which it returns.
func (l *Limiter) enter(network netip.Prefix, known bool) (*queued, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.free > 0 {
		l.take(network)
		return nil, nil
	}
	var waiting int
	if s := l.networks[network]; s != nil {
		waiting = s.queued
	}
	switch {
	case known && l.options.NetworkQueue > 0 && waiting >= l.options.NetworkQueue:
		return nil, ErrCrowded
	case len(l.queue) >= l.options.Queue && !l.dropFor(waiting):
		return nil, ErrBusy
	}
	s, turn := l.next(network)
	s.queued++
	q := &queued{network: network, turn: turn, ready: make(chan struct{})}
	l.queue = append(l.queue, q)
	return q, nil
}

// take takes a free slot. While there is one, nobody waits.
func (l *Limiter) take(network netip.Prefix) {
	s, turn := l.next(network)
	l.free--
	s.running++
	l.turn = turn
}

// next returns what a network has, and the turn of its next request.
func (l *Limiter) next(network netip.Prefix) (*share, uint64) {
	s := l.networks[network]
	if s == nil {
		s = new(share)
		l.networks[network] = s
	}
	turn := max(l.turn, s.next)
	s.next = turn + 1
	return s, turn
}

// dropFor makes room in the queue for a network of which so many wait already. It
// returns false if no other has more, after the exchange: two that have the same
// would only take the places from each other.
func (l *Limiter) dropFor(waiting int) bool {
	most := waiting + 1
	var network netip.Prefix
	found := false
	for n, s := range l.networks {
		if s.queued > most {
			most, network, found = s.queued, n, true
		}
	}
	if !found {
		return false
	}
	for i, q := range slices.Backward(l.queue) {
		if q.network == network {
			l.queue = slices.Delete(l.queue, i, i+1)
			s := l.networks[network]
			s.queued--
			s.next = q.turn // its last: the turn was not taken
			q.dropped = true
			close(q.ready)
			return true
		}
	}
	return false
}

// leave takes q out of the queue, and returns false if it was let in or dropped
// before.
func (l *Limiter) leave(q *queued) bool {
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
func (l *Limiter) release(network netip.Prefix) {
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

func (l *Limiter) forget(network netip.Prefix) {
	if s := l.networks[network]; s.running == 0 && s.queued == 0 {
		delete(l.networks, network)
	}
}

// Network is what counts as one place: an IPv4 address, or the /64 of an IPv6
// address, since a single host may use all of it. It is false if the address is
// not known.
func Network(addr netip.Addr) (netip.Prefix, bool) {
	if !addr.IsValid() {
		return netip.Prefix{}, false
	}
	addr = addr.Unmap().WithZone("")
	bits := 64
	if addr.Is4() {
		bits = 32
	}
	p, err := addr.Prefix(bits)
	return p, err == nil
}
