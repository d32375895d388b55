package caddymodule

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/denylist"
	"github.com/edge-revocation/caddy-token-revocation/revocation/ledger"
)

// checkpointInterval bounds how much an edge has to follow again after a crash.
const checkpointInterval = time.Minute

// checkpointGrace is how long an edge tries to read the ledger before it serves
// with what its checkpoint holds: revocations since then would be let through.
const checkpointGrace = 5 * time.Second

// replica is this process's copy of the ledger: one denylist, and whatever
// ledger it follows at the moment. It outlives configs. The connection is apart
// from it, so that new credentials, another address or a failed reload neither
// empty nor pause the denylist.
type replica struct {
	denylist *denylist.Denylist
	logger   *slog.Logger
	limits   denylistLimits

	// following is read on each request; everything else only on changes.
	following atomic.Pointer[following]
	wasReady  atomic.Bool

	mu         sync.Mutex
	sources    []*source // in the order of their configs; the last one is followed
	checkpoint string    // file name; empty: none
	place      string    // what the checkpoint is of
	written    written   // what is in the newest checkpoint
	known      knowledge // of the ledger that was followed last

	metrics *metrics
	streams *liveStreams
	last    lastAnswers
	events  chan event

	stop     chan struct{}
	saving   sync.WaitGroup
	emitting sync.WaitGroup
}

// denylistLimits are what a denylist can't change while it runs.
type denylistLimits struct {
	maxEntries  int
	clientQuota int
	cacheBytes  int64
}

// written is what tells one checkpoint from the next. While an entry that can't be
// applied holds the position, what comes behind it is new all the same, and so is
// the moment up to which everything is known.
type written struct {
	sequence, changes uint64
	proven            time.Time
}

// following is what the replica follows, with what was known before it began.
type following struct {
	source   *source
	follower *ledger.Follower // nil while there is nothing to follow
	known    knowledge
	// doubted is set when the ledger turns out to be another one than the
	// knowledge is about.
	doubted atomic.Bool
}

// knowledge is what was proven about a ledger before its present follower: a new
// connection, or a restart while the ledger can't be reached, does not make an
// edge forget what it knew a moment ago.
type knowledge struct {
	source *source
	at     time.Time // everything recorded until then is in force; zero: nothing is known
	// from is when the edge begins to rely on it. A checkpoint stands in for a
	// ledger that can't be reached, not for one that is about to be read.
	from time.Time
}

// source is a ledger that a config wants to be followed.
type source struct {
	ledger     *ledger.Ledger
	embedded   bool
	servers    []string // the addresses, or the store's directory
	checkpoint string   // file name
	place      string   // see LedgerConfig.place
}

// same tells whether both are one ledger, reached perhaps by other credentials or
// by more servers of the same cluster.
func (s *source) same(other *source) bool {
	return other != nil && s.embedded == other.embedded &&
		slices.ContainsFunc(s.servers, func(server string) bool { return slices.Contains(other.servers, server) })
}

// newDenylistLimits fills in defaults, so that writing one out is no change.
func newDenylistLimits(maxEntries, clientQuota int, cacheBytes int64) denylistLimits {
	return denylistLimits{
		maxEntries:  cmp.Or(maxEntries, denylist.DefaultMaxEntries),
		clientQuota: clientQuota,
		cacheBytes:  cmp.Or(cacheBytes, denylist.DefaultCacheBytes),
	}
}

func newReplica(limits denylistLimits) (*replica, error) {
	logger := processLogger("denylist")
	d, err := denylist.New(denylist.Options{
		MaxEntries: limits.maxEntries,
		ActorQuota: limits.clientQuota,
		CacheBytes: limits.cacheBytes,
		Logger:     logger,
	})
	if err != nil {
		return nil, err
	}
	r := &replica{
		denylist: d,
		logger:   logger,
		limits:   limits,
		events:   make(chan event, 64),
		stop:     make(chan struct{}),
	}
	r.metrics = newMetrics(r)
	r.streams = newLiveStreams(r)
	r.metrics.collectors = append(r.metrics.collectors, r.streams.collectors()...)
	r.following.Store(&following{})
	r.saving.Go(r.saveRegularly)
	r.saving.Go(r.watch)
	r.emitting.Go(r.emitEvents)
	return r, nil
}

// Destruct is called by the pool after the last config that used it is gone.
func (r *replica) Destruct() error {
	close(r.stop)
	r.saving.Wait()
	r.awaitEvents()
	r.mu.Lock()
	defer r.mu.Unlock()
	if f := r.following.Load(); f.follower != nil {
		f.follower.Stop()
	}
	r.save()
	r.streams.stop()
	r.denylist.Close()
	return nil
}

// attach makes the replica follow s from now on. The caller detaches exactly
// what it attached.
func (r *replica) attach(s *source) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sources = append(r.sources, s)
	r.follow()
}

// detach ends the caller's wish; the config before or after it is then followed.
func (r *replica) detach(s *source) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := slices.Index(r.sources, s); i >= 0 {
		r.sources = slices.Delete(r.sources, i, i+1)
	}
	r.follow()
}

// follow switches to the last source if that is another ledger than the present
// one. The caller holds r.mu.
func (r *replica) follow() {
	was := r.following.Load()
	var next *source
	if len(r.sources) > 0 {
		next = r.sources[len(r.sources)-1]
	}
	if was.source != nil && next != nil && was.source.ledger == next.ledger {
		return
	}
	if was.source == nil && next == nil {
		return
	}
	if was.follower != nil {
		was.follower.Stop()
	}
	now := &following{source: next}
	// What is known of one ledger says nothing of another.
	at := was.proven()
	if !at.IsZero() && was.source != nil {
		r.known = knowledge{source: was.source, at: at}
	}
	if next == nil {
		// The last config ends. The checkpoint that is written next is as good
		// as what was followed up to here.
		now.known = knowledge{source: was.source, at: at}
	}
	if next != nil {
		if next.same(r.known.source) {
			now.known = r.known
		}
		if next.checkpoint != r.checkpoint {
			r.checkpoint, r.place, r.written = next.checkpoint, next.place, written{}
			now.known = r.loadInto(next, now.known)
		}
		now.follower = next.ledger.Follow(r.denylist, r.observer(now))
	}
	r.following.Store(now)
}

// proven returns the newest moment up to which everything recorded is in force
// here, or zero.
func (f *following) proven() time.Time {
	if f.follower != nil {
		if s := f.follower.State(); s.EverSynced {
			return time.Now().Add(-s.Age)
		}
	}
	if f.doubted.Load() {
		return time.Time{}
	}
	return f.known.at
}

// state is what the present follower can prove, or what was known before it.
func (f *following) state() ledger.State {
	var s ledger.State
	if f.follower != nil {
		s = f.follower.State()
	}
	if !s.EverSynced && !f.known.at.IsZero() && !f.doubted.Load() {
		if now := time.Now(); !now.Before(f.known.from) {
			s.EverSynced = true
			s.Age = now.Sub(f.known.at)
		}
	}
	return s
}

// state reports how well this edge knows the ledger. It is called on each
// request and reads only atomics.
func (r *replica) state() ledger.State { return r.following.Load().state() }

// ready tells whether this edge has known the ledger, or knew it recently enough
// when it was started without it. Once true, it stays so.
func (r *replica) ready(maxAge time.Duration) bool {
	if r.wasReady.Load() {
		return true
	}
	s := r.state()
	ready := s.InSync || s.EverSynced && s.Age <= maxAge
	if ready {
		r.wasReady.Store(true)
	}
	return ready
}

func (r *replica) source() *source { return r.following.Load().source }

// loadInto loads the checkpoint of s, and returns what is known of s then.
func (r *replica) loadInto(s *source, known knowledge) knowledge {
	if r.denylist.Position() != (revocation.Position{}) {
		// Not into a denylist that has followed a ledger: what was restored since
		// the file was written would come back, and the follower, which is beyond
		// that, would not restore it again.
		return known
	}
	at := r.load()
	if known.at.IsZero() && !s.embedded {
		return knowledge{source: s, at: at, from: time.Now().Add(checkpointGrace)}
	}
	return known
}

// load reads the checkpoint and returns the moment up to which it is complete,
// or zero if it proves nothing.
func (r *replica) load() time.Time {
	if r.checkpoint == "" {
		return time.Time{}
	}
	position, proven, err := r.denylist.LoadCheckpoint(r.checkpoint, r.place)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return time.Time{}
	case err != nil:
		r.logger.Error("checkpoint refused, the whole ledger is read instead",
			"file", r.checkpoint, "error", err)
		return time.Time{}
	}
	r.streams.registry.CheckAll() // nobody is told of what a checkpoint brings
	r.written = written{position.Sequence, r.changes(), proven}
	now := time.Now()
	age := now.Sub(proven)
	r.logger.Info("checkpoint loaded", "file", r.checkpoint, "sequence", position.Sequence, "proven", proven)
	if position.Sequence == 0 || proven.IsZero() || age < 0 {
		return time.Time{} // never in sync, or a clock that was set back
	}
	return now.Add(-age) // with a monotonic reading from here on
}

// save writes the checkpoint if there is anything new. The caller holds r.mu.
func (r *replica) save() {
	if r.checkpoint == "" {
		return
	}
	// Before what is written: what is applied meanwhile counts as not written.
	now := written{r.denylist.Position().Sequence, r.changes(), r.following.Load().proven()}
	if now.sequence == 0 || !now.differs(r.written) {
		return
	}
	err := os.MkdirAll(filepath.Dir(r.checkpoint), 0o700)
	if err == nil {
		err = r.denylist.WriteCheckpoint(r.checkpoint, r.place, now.proven)
	}
	if err != nil {
		r.logger.Error("checkpoint not written, a restart will read more of the ledger",
			"file", r.checkpoint, "error", err)
		return
	}
	r.written = now
}

func (w written) differs(from written) bool {
	// The moment is computed from an age, and is not the same to the nanosecond.
	return w.sequence != from.sequence || w.changes != from.changes || w.proven.Sub(from.proven) >= time.Second
}

// changes grows with each decision that the denylist takes in.
func (r *replica) changes() uint64 {
	s := r.denylist.Stats()
	return s.Inserted + s.Merged + s.Restored + s.CapHits + s.ShapeHits
}

func (r *replica) saveRegularly() {
	ticker := time.NewTicker(checkpointInterval)
	defer ticker.Stop()
	for {
		select {
		case <-r.stop:
			return
		case <-ticker.C:
			r.mu.Lock()
			r.save()
			r.mu.Unlock()
		}
	}
}

// Stands asks the follower, which alone knows what this edge has applied.
func (r *replica) Stands(ctx context.Context, sequence uint64, ds ...*revocation.Revocation) (bool, error) {
	f := r.following.Load()
	if f.follower == nil {
		return false, nil
	}
	return f.follower.Stands(ctx, sequence, ds...)
}

// Admit refuses what neither the ledger nor the denylist keeps room for.
func (r *replica) Admit(d *revocation.Revocation, operator bool) error {
	if s := r.source(); s != nil && !operator && s.ledger.NearlyFull() {
		return fmt.Errorf("%w: the rest of it is for operators", revocation.ErrFull)
	}
	return r.denylist.Admit(d, operator)
}

// Standing tells whether a decision already stands.
func (r *replica) Standing(d *revocation.Revocation) (uint64, bool) { return r.denylist.Standing(d) }

// Room leaves the last part for single decisions, which are judged more exactly:
// beyond what the denylist can hold, an edge serves nothing.
func (r *replica) Room() int {
	stats := r.denylist.Stats()
	return stats.MaxEntries*9/10 - stats.Entries
}

// Revoke puts a decision into the denylist.
func (r *replica) Revoke(sequence uint64, d *revocation.Revocation) { r.denylist.Revoke(sequence, d) }

// Restore undoes decisions in the denylist.
func (r *replica) Restore(sequence uint64, d *revocation.Restoration) {
	r.denylist.Restore(sequence, d)
}

// Recheck makes whoever keeps introspected identities forget those of the issuer.
func (r *replica) Recheck(sequence uint64, issuer string) { r.denylist.Recheck(sequence, issuer) }

var (
	_ revocation.Ledger   = (*replica)(nil)
	_ revocation.Denylist = (*replica)(nil)
	_ revocation.Roomer   = (*replica)(nil)
)
