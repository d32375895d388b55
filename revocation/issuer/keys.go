package issuer

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Pace of fetching.
const (
	onDemandInterval = 10 * time.Second // between fetches caused by tokens
	onDemandBurst    = 3
	firstRetry       = time.Second // after a failed fetch, doubled up to
	lastRetry        = time.Minute
	absentFor        = onDemandInterval // a kid that the source did not have
	maxAbsent        = 256
	storeTimeout     = 3 * time.Second
)

// errStopped ends the waiting for keys of an issuer that was stopped.
var errStopped = errors.New("the issuer is stopped")

// keyring holds an issuer's keys and renews them. All fetching is done by one
// goroutine, which makes it single-flight; requests only ask for it, and wait if
// they want to.
type keyring struct {
	// load reads the keys from their source; fresh asks caches on the way not to
	// answer in its place.
	load      func(ctx context.Context, fresh bool) (found, error)
	save      func(ctx context.Context, s *keySet) error // nil if keys are not kept
	every     time.Duration                              // between regular loads
	bounded   bool                                       // every yields to Cache-Control
	retention time.Duration
	distrust  func(*key) bool
	now       func() time.Time
	logger    *slog.Logger

	current atomic.Pointer[keySet] // never nil

	mu      sync.Mutex
	limiter *rate.Limiter
	started bool
	stopped bool
	pending *flight // asked for, not begun
	running *flight
	absent  map[string]time.Time // kid → when a load did not find it
	lastErr error

	// Of the goroutine alone:
	saved          time.Time
	keptGeneration uint64

	wake   chan struct{}
	cancel context.CancelFunc
	done   chan struct{}
}

// found is the result of one load.
type found struct {
	keys []*key
	// maxAge is how long the source wants it cached, negative if it does not say.
	maxAge time.Duration
	// unchanged says that the source is as it was; keys is not set then.
	unchanged bool
	// removed says that keys which are not among them were taken out by the
	// operator, and are not to be kept as retired ones.
	removed bool
}

// flight is one load that tokens wait for.
type flight struct {
	due  time.Time           // not before
	kids map[string]struct{} // that tokens asked for
	done chan struct{}
	err  error // valid after done
}

func newKeyring() *keyring {
	k := &keyring{
		limiter: rate.NewLimiter(rate.Every(onDemandInterval), onDemandBurst),
		absent:  make(map[string]time.Time),
		wake:    make(chan struct{}, 1),
		done:    make(chan struct{}),
	}
	k.current.Store(newKeySet(nil, time.Time{}))
	return k
}

// start begins loading. It does not wait for it.
func (k *keyring) start() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.started || k.stopped {
		return
	}
	k.started = true
	k.pending = newFlight()
	ctx, cancel := context.WithCancel(context.Background())
	k.cancel = cancel
	go k.run(ctx)
}

// stop ends loading, joins the goroutine and releases who waits. Keys that were
// loaded still verify.
func (k *keyring) stop() {
	k.mu.Lock()
	started := k.started
	k.stopped = true
	if k.cancel != nil {
		k.cancel()
	}
	k.mu.Unlock()
	if started {
		<-k.done
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, f := range []*flight{k.running, k.pending} {
		if f != nil {
			f.err = errStopped
			close(f.done)
		}
	}
	k.running, k.pending = nil, nil
}

// loadNow loads keys before start, where that needs no network.
func (k *keyring) loadNow(ctx context.Context) bool {
	result, err := k.load(ctx, true)
	if err == nil {
		k.apply(ctx, result)
	}
	k.finish(newFlight(), err)
	return err == nil
}

// run is the one goroutine that loads keys.
func (k *keyring) run(ctx context.Context) {
	defer close(k.done)
	retry := firstRetry
	regular := time.NewTimer(0)
	demand := time.NewTimer(0)
	demand.Stop()
	defer regular.Stop()
	defer demand.Stop()
	for {
		asked := false
		select {
		case <-ctx.Done():
			return
		case <-k.wake:
			demand.Reset(k.delay())
			continue
		case <-demand.C:
			asked = true
		case <-regular.C:
		}
		f := k.begin()
		if f == nil {
			if asked {
				continue // a regular load took it along
			}
			f = newFlight()
		}
		result, err := k.load(ctx, len(f.kids) > 0)
		if ctx.Err() != nil {
			return // stop releases who waits
		}
		next := k.every
		switch {
		case err == nil:
			k.apply(ctx, result)
			retry = firstRetry
			if k.bounded && result.maxAge >= 0 {
				next = min(max(result.maxAge, MinRefreshInterval), MaxRefreshInterval)
			}
		case asked:
			next = 0 // the regular loads keep their own pace
		default:
			next = min(retry, k.every)
			retry = min(2*retry, lastRetry)
		}
		k.finish(f, err)
		if next > 0 {
			// Up to a tenth sooner, so that a fleet does not ask all at once.
			regular.Reset(next - rand.N(next/10+1))
		}
	}
}

func newFlight() *flight {
	return &flight{kids: make(map[string]struct{}), done: make(chan struct{})}
}

// delay returns for how long the pending flight has to wait.
func (k *keyring) delay() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pending == nil {
		return 0
	}
	return time.Until(k.pending.due)
}

// begin makes the pending flight the running one, and returns it.
func (k *keyring) begin() *flight {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.running, k.pending = k.pending, nil
	return k.running
}

// apply makes what was loaded the current set, and keeps it.
func (k *keyring) apply(ctx context.Context, result found) {
	now := k.now()
	old := k.current.Load()
	if result.unchanged {
		return
	}
	fresh := make([]*key, 0, len(result.keys))
	for _, key := range result.keys {
		if k.distrust == nil || !k.distrust(key) {
			fresh = append(fresh, key)
		}
	}
	retention := k.retention
	if result.removed {
		retention = 0
	}
	next := old.replace(fresh, now, retention)
	k.current.Store(next)
	if next.generation != old.generation {
		k.logger.Info("issuer keys changed", "published", next.published(), "retired", len(next.keys)-next.published())
	}
	k.keep(ctx, next, now)
}

// keep saves the set for the next start, if it differs from what was saved or
// that is an hour old: the age of retired keys counts from there.
func (k *keyring) keep(ctx context.Context, s *keySet, now time.Time) {
	if k.save == nil || s.generation == k.keptGeneration && now.Sub(k.saved) < time.Hour && !k.saved.IsZero() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err := k.save(ctx, s); err != nil {
		k.logger.Warn("keeping issuer keys for the next start", "error", err)
		return
	}
	k.saved, k.keptGeneration = now, s.generation
}

// finish ends a load, and notes which of the keys that tokens asked for are
// proven not to exist: the source was asked after the token was presented.
func (k *keyring) finish(f *flight, err error) {
	now := k.now()
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil && (k.lastErr == nil || k.lastErr.Error() != err.Error()) {
		k.logger.Error("loading issuer keys; the last known keys stay in use",
			"error", err, "keys", len(k.current.Load().keys))
	} else if err == nil && k.lastErr != nil {
		k.logger.Info("loading issuer keys works again")
	}
	k.lastErr = err
	k.running = nil
	if err == nil {
		clear(k.absent)
		set := k.current.Load()
		for kid := range f.kids {
			if kid == "" || !set.has(kid) {
				k.absent[kid] = now
			}
		}
	}
	f.err = err
	close(f.done)
}

// isAbsent tells whether the source was asked for this kid just now and did not
// have it.
func (k *keyring) isAbsent(kid []byte) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	at, found := k.absent[string(kid)]
	if !found {
		return false
	}
	since := k.now().Sub(at)
	return 0 <= since && since < absentFor
}

// ask asks for a load that begins from now on, because a token names a key that
// is not known, and returns it; nil if nothing loads keys. There is at most one
// in ten seconds, after a few (RFC 8725, section 3.10: a kid is the presenter's
// choice), so its due time may be in the future. While the very first load is
// running, that one is returned; it may have begun before the token's key was
// published, so proof is false.
func (k *keyring) ask(kid []byte) (f *flight, proof bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.started || k.stopped {
		return nil, false
	}
	if k.pending == nil {
		if k.running != nil && k.current.Load().loaded.IsZero() {
			return k.running, false
		}
		// One reservation at a time: there is no second before this one's load
		// has begun.
		k.pending = newFlight()
		k.pending.due = time.Now().Add(k.limiter.Reserve().Delay())
		select {
		case k.wake <- struct{}{}:
		default:
		}
	}
	if len(k.pending.kids) < maxAbsent {
		k.pending.kids[string(kid)] = struct{}{}
	}
	return k.pending, true
}

// loaded tells whether the present keys are what their source had when it was
// last asked.
func (k *keyring) loaded() bool {
	return !k.current.Load().loaded.IsZero() && k.lastError() == nil
}

// lastError returns why the last load failed, nil if it did not.
func (k *keyring) lastError() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.lastErr
}
