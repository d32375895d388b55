package denylist

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

var _ revocation.Denylist = (*Denylist)(nil)

// Denylist is one edge's memory of what is revoked. It is safe for concurrent
// use. After [Denylist.Close] it still answers from the index, exactly as
// before; only tokens are not remembered any more.
type Denylist struct {
	now    func() time.Time
	wall   *wallClock
	steady *steadyClock
	logger *slog.Logger
	limits limits

	// What checks read, without a lock.
	index  *index
	inUse  atomic.Pointer[shapeSet]
	claims atomic.Pointer[claimNames]
	cache  *cache
	lack   lack
	// keysUntil is when the last entry that names a signing key ends, in Unix
	// seconds; zero if there is none.
	keysUntil atomic.Int64

	watchers atomic.Pointer[[]*func(Change)] // see Watch

	// mu is held by whatever changes the above or reads what is below. No check
	// takes it. Walks over entries give it up every few thousand; to rebuild a
	// shard takes it for longest, 0.4 ms with 1M entries and 3 ms with 10M.
	mu       sync.Mutex
	shapes   *shapeTable
	actors   *actorTable
	clock    purgeClock
	history  history
	era      era    // of the entries that are from the ledger's present history
	before   uint64 // its newest sequence when it turned out to be another one
	turn     uint64 // how often it did
	position revocation.Position
	cursor   cursor
	alarmed  bool
	pending  []func() // to be done after mu is released
	counts   counts

	checkpoint sync.Mutex // held while a checkpoint is read or written
	turning    sync.Mutex // held by NewHistory

	closing    sync.Once
	stop       chan struct{}
	background sync.WaitGroup
}

// limits are numbers of entries.
type limits struct {
	max      int
	alarm    int // from here on there is an alarm
	rearm    int // below this the next alarm is armed
	pressure int // from here on ended entries are deleted without delay
	clients  int // from here on single tokens are admitted from operators only
	tokens   int // from here on there is room for entries that name many tokens only
	quota    int // per actor; negative for none
	onAlarm  func(entries, maxEntries int)
}

// New returns an empty denylist, which the caller closes. The error wraps
// [ErrInvalidOptions].
func New(o Options) (*Denylist, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	d := newDenylist(o)
	if d.cache, err = newCache(o.CacheBytes); err != nil {
		return nil, err
	}
	d.background.Go(d.sweepUntilClosed)
	d.background.Go(d.windClocks)
	return d, nil
}

func newDenylist(o Options) *Denylist {
	wall := &wallClock{now: o.Now}
	if o.Now == nil {
		o.Now = time.Now
	}
	began := o.Now()
	monotonic := o.monotonic
	if monotonic == nil {
		monotonic = func(now time.Time) time.Duration { return now.Sub(began) }
	}
	percent := func(p int) int { return max(int(int64(o.MaxEntries)*int64(p)/100), 1) }
	d := &Denylist{
		now:    o.Now,
		wall:   wall,
		steady: newSteadyClock(began, monotonic),
		logger: o.Logger,
		limits: limits{
			max:      o.MaxEntries,
			alarm:    percent(80),
			rearm:    percent(75),
			pressure: percent(85),
			clients:  percent(90),
			tokens:   o.MaxEntries - o.MaxEntries/20,
			quota:    o.ActorQuota,
			onAlarm:  o.OnAlarm,
		},
		index:  newIndex(),
		shapes: newShapeTable(),
		actors: newActorTable(),
		clock:  newPurgeClock(began, monotonic),
		era:    eraFirst,
		stop:   make(chan struct{}),
	}
	d.publishShapes()
	return d
}

// Close ends the background work and empties the identity cache. It may be
// called more than once, and while others use d.
func (d *Denylist) Close() {
	d.closing.Do(func() {
		close(d.stop)
		d.background.Wait()
		d.cache.close()
	})
}

// Position returns the follower's place in the ledger, as set last by
// [Denylist.SetPosition] or found in a checkpoint.
func (d *Denylist) Position() revocation.Position {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.position
}
