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
	logger *slog.Logger
	limits limits

	// What checks read, without a lock.
	index  *index
	inUse  atomic.Pointer[shapeSet]
	claims atomic.Pointer[claimNames]
	cache  *cache
	lack   lack

	// mu is held by whatever changes the above or reads what is below. No check
	// takes it, and nobody holds it for more than a few hundred microseconds.
	mu       sync.Mutex
	shapes   *shapeTable
	actors   *actorTable
	clock    purgeClock
	history  history
	position revocation.Position
	cursor   cursor
	alarmed  bool
	pending  []func() // to be done after mu is released
	counts   counts

	checkpoint sync.Mutex // held while a checkpoint is read or written

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
	d.background.Go(func() { d.wall.run(d.stop) })
	return d, nil
}

func newDenylist(o Options) *Denylist {
	wall := &wallClock{now: o.Now}
	if o.Now == nil {
		o.Now = time.Now
	}
	percent := func(p int) int { return max(int(int64(o.MaxEntries)*int64(p)/100), 1) }
	d := &Denylist{
		now:    o.Now,
		wall:   wall,
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
		clock:  newPurgeClock(o.Now()),
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

// SetPosition records that every entry of the ledger up to p was applied. Only
// the ledger's follower calls it: a decision that this edge's own endpoint
// applies ahead of the follower says nothing about the entries before it.
//
// A follower that finds another history (a new ledger, or one that was rolled
// back) calls SetPosition with its place there before it applies the first
// entry: a new history counts from one again, and restorations of the old one
// must not undo its entries. What the index holds stays until it ends.
func (d *Denylist) SetPosition(p revocation.Position) {
	d.mu.Lock()
	defer d.mu.Unlock()
	was := d.position
	if was != (revocation.Position{}) &&
		(p.Ledger != was.Ledger || !p.Created.Equal(was.Created) || p.Sequence < was.Sequence) {
		d.history.forget()
	}
	d.position = p
	d.history.passed(p.Sequence)
}
