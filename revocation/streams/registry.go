package streams

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/denylist"
)

// Denylist decides about what the registry has found.
type Denylist interface {
	// Check tells whether the token is revoked, see [denylist.Denylist.Check].
	Check(id *revocation.Identity) denylist.Decision
	// ClaimNames returns the claims that identities need beyond those that every
	// identity has, see [denylist.Denylist.ClaimNames].
	ClaimNames() (names []string, epoch uint64)
	// NamesKeys tells whether a revocation in force names a signing key, see
	// [denylist.Denylist.NamesKeys].
	NamesKeys(now time.Time) bool
}

// Request is what a stream stands for. Its methods are called by the registry,
// from any goroutine, and never after [Registry.Close] of the stream has
// returned. They must not block, nor call the registry.
type Request interface {
	// Cut ends the request. It is called once at most. It returns false if the
	// request goes on, and nothing is to be reported.
	Cut(cause *CutError) bool
	// Identify reads the token again, with further claims: a revocation names one
	// that was not extracted before. It must not fail for a token that has expired
	// meanwhile. With an error, the stream is cut if the revocation would name the
	// token, were the claims that are not known those of the revocation.
	Identify(names []string) (*revocation.Identity, error)
}

// Options of a [Registry].
type Options struct {
	// Denylist decides. Required.
	Denylist Denylist
	// Report is told of each batch of streams that was cut, if it is not nil. It
	// is called by the registry's goroutine and should be quick.
	Report func(Batch)
	// Interval is how often streams that are new or over are looked at, and how
	// late at most a stream is cut after it has expired. Default: 250 ms.
	Interval time.Duration
	// Now is the clock by which tokens expire. Default: [time.Now].
	Now func() time.Time
}

// Batch is how many streams were cut for one cause at one time.
type Batch struct {
	Cause   CutError
	Streams int
}

// DefaultInterval is the default of [Options.Interval].
const DefaultInterval = 250 * time.Millisecond

// shardCount spreads the locks that requests take when they begin and end.
const shardCount = 64

// maxPending bounds the changes that wait for the registry's goroutine, in a
// replay of the ledger for instance. With more, it looks at each stream instead,
// and keeps only the changes that some streams hide from.
const maxPending = 4096

// Registry knows the open streams. It is safe for concurrent use.
type Registry struct {
	list     Denylist
	report   func(Batch)
	interval time.Duration
	now      func() time.Time

	awake   atomic.Bool   // the goroutine runs, or need not any more
	changes atomic.Uint64 // what Applied and CheckAll were told
	_       [48]byte      // those who only read it do not wait for those who open
	open    atomic.Int64
	shards  [shardCount]shard

	// What the goroutine was told and has not seen yet.
	mu      sync.Mutex
	started bool
	stopped bool
	pending pending
	wake    chan struct{} // has room for one
	stop    chan struct{}
	running sync.WaitGroup

	index index // the goroutine's
}

// pending is what there is to do.
type pending struct {
	changes []denylist.Change
	all     bool // every stream has to be checked
	lost    bool // nor is it known for what: changes are missing that streams may hide from
}

func (p *pending) add(c denylist.Change) {
	switch {
	case p.all && !doubtful(c.Names):
	case len(p.changes) < maxPending:
		p.changes = append(p.changes, c)
	case p.all:
		p.lost = true
	default:
		p.all = true
		p.changes = slices.DeleteFunc(p.changes, func(c denylist.Change) bool { return !doubtful(c.Names) })
		p.add(c)
	}
}

type shard struct {
	mu    sync.Mutex
	young ring    // opened and not indexed
	dead  *Stream // closed and still indexed, linked by dead
	_     [24]byte
}

// Stream is an open request. Its zero value is ready for [Registry.Open], so that
// it can be part of what stands for the request.
type Stream struct {
	// Also is what else is known of the token, if a revocation that names it ends
	// the stream as well: the token itself may say more than its issuer, which was
	// asked about it. It is set before the stream is opened, or nil; it is not read
	// again by [Request.Identify].
	Also *revocation.Identity

	// Of the ring it is in: its shard's young ones under shard.mu, then the
	// index's.
	prev, next *Stream
	shard      *shard
	dead       *Stream // guarded by shard.mu, as is indexed
	indexed    bool

	// mu is held while the request is cut, so that it never is after Close.
	mu      sync.Mutex
	request Request // nil: closed

	// The rest belongs to the registry's goroutine.
	isCut   bool
	queued  int32 // its place among those that expire, from 1; 0: none
	id      *revocation.Identity
	epoch   uint64
	expires int64 // Unix seconds; 0: never
	links   *link
}

// identities returns what a revocation can name a stream by; the second may be nil.
func (s *Stream) identities() [2]*revocation.Identity {
	return [...]*revocation.Identity{s.id, s.Also}
}

// New returns a registry without streams. The caller closes it.
func New(o Options) *Registry {
	r := &Registry{
		list:     o.Denylist,
		report:   o.Report,
		interval: o.Interval,
		now:      o.Now,
		wake:     make(chan struct{}, 1),
		stop:     make(chan struct{}),
	}
	if r.report == nil {
		r.report = func(Batch) {}
	}
	if r.interval <= 0 {
		r.interval = DefaultInterval
	}
	if r.now == nil {
		r.now = time.Now
	}
	r.index.init(r)
	for i := range r.shards {
		r.shards[i].young.init()
	}
	return r
}

// Open registers a request. The identity is that of its token, and epoch the one
// that ClaimNames returned before the token was read. The stream is cut at
// expires, in Unix seconds, unless that is zero.
//
// The caller asks the denylist about the token afterwards (see [Registry.Changes]
// for when it may do without), and calls [Registry.Close] when the request is
// over. A stream is opened once.
func (r *Registry) Open(s *Stream, request Request, id *revocation.Identity, epoch uint64, expires int64) {
	s.request, s.id, s.epoch, s.expires = request, id, epoch, expires
	s.shard = &r.shards[rand.Uint32()%shardCount]
	// Counted first: who then finds none open puts revocations in force before
	// the caller asks.
	r.open.Add(1)
	if !r.awake.Load() {
		r.start()
	}
	s.shard.mu.Lock()
	s.shard.young.add(s)
	s.shard.mu.Unlock()
}

// Close ends the registration. Nothing is cut any more when it returns; it waits
// for a cut that is just going on.
func (r *Registry) Close(s *Stream) {
	s.mu.Lock()
	s.request = nil
	s.mu.Unlock()
	s.shard.mu.Lock()
	if s.indexed {
		s.dead, s.shard.dead = s.shard.dead, s
	} else {
		s.unlink()
	}
	s.shard.mu.Unlock()
	r.open.Add(-1)
}

// Changes counts what the registry was told. As long as it is the same before a
// token is judged and after its stream is opened, nothing can have been missed in
// between, and the denylist need not be asked a second time.
func (r *Registry) Changes() uint64 { return r.changes.Load() }

// Len returns how many streams are open.
func (r *Registry) Len() int { return int(r.open.Load()) }

// Applied tells the registry of a change of the denylist, which must be in force.
// It is made for [denylist.Denylist.Watch]: it never waits for what has to be cut.
// What it is told is never forgotten; beyond a few thousand changes at a time
// each stream is checked instead.
func (r *Registry) Applied(c denylist.Change) {
	r.changes.Add(1)
	if r.open.Load() == 0 || c.Recheck != "" {
		return
	}
	r.tell(func(p *pending) { p.add(c) })
}

// CheckAll makes the registry check each stream: the denylist has changed in a
// way that nobody was told of entry by entry.
func (r *Registry) CheckAll() {
	r.changes.Add(1)
	if r.open.Load() != 0 {
		r.tell(func(p *pending) { *p = pending{all: true, lost: true} })
	}
}

func (r *Registry) tell(change func(*pending)) {
	r.mu.Lock()
	change(&r.pending)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default: // it is awake, or will be
	}
}

// start starts the goroutine, with the first stream.
func (r *Registry) start() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.started && !r.stopped {
		r.started = true
		r.running.Go(r.run)
	}
	r.awake.Store(true)
}

// Stop ends the registry's work. Streams that are still open are not cut, now or
// later.
func (r *Registry) Stop() {
	r.mu.Lock()
	if !r.stopped {
		r.stopped = true
		close(r.stop)
	}
	r.mu.Unlock()
	r.running.Wait()
}

// ring is a list of streams, doubly linked through a stream that is none.
type ring struct{ head Stream }

func (l *ring) init() { l.head.prev, l.head.next = &l.head, &l.head }

func (l *ring) add(s *Stream) {
	s.prev, s.next = l.head.prev, &l.head
	s.prev.next, l.head.prev = s, s
}

func (s *Stream) unlink() {
	s.prev.next, s.next.prev = s.next, s.prev
	s.prev, s.next = nil, nil
}
