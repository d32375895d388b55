package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

const (
	lookInterval  = 5 * time.Second
	leastInterval = 50 * time.Millisecond
	// A stream that was deleted and created within milliseconds can come back
	// with old messages in it.
	recreateAfter = 2 * time.Second
	nearlyFull    = 0.9
)

// Ledger is the durable, ordered log of revocations. It is safe for concurrent
// use.
type Ledger struct {
	o        Options
	log      *slog.Logger
	now      func() time.Time
	embedded *embedded
	link     link

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	once   sync.Once
	closed error

	kick    chan struct{} // asks for a look at the stream
	changed signal        // of what follows

	mu      sync.Mutex
	seen    *history  // newest look at the stream
	problem error     // why the stream can't be used; nil if it can
	missing time.Time // since when the stream is gone, if it was there
	skew    time.Duration
	unsound uint64 // times that the stream was found with settings that lose
	acked   acknowledged
	// Attempts to publish that timed out in a row.
	unstored         int
	unstoredSince    time.Time
	notStoringLogged bool

	choked    atomic.Bool // see choke
	slots     chan struct{}
	publishes counters
}

type counters struct {
	published, duplicates, failed, full, refused atomic.Uint64
}

// Interface guard: a ledger, with the follower of the denylist in question.
var _ revocation.Ledger = (*struct {
	*Ledger
	*Follower
})(nil)

// Open validates the options, starts the embedded server or begins to connect to
// the external one, and returns without waiting for the network. The error wraps
// [ErrOptions], or [ErrLocked] if the store directory is in use. Close the Ledger
// when done.
func Open(o Options) (*Ledger, error) {
	o, err := o.normalize()
	if err != nil {
		return nil, err
	}
	l := &Ledger{o: o, log: o.Logger, now: o.Now, kick: make(chan struct{}, 1), slots: make(chan struct{}, o.MaxPublishing)}
	l.link.l = l
	l.problem = errNotLooked
	l.ctx, l.cancel = context.WithCancel(context.Background())
	if o.Embedded != nil {
		if l.embedded, err = startEmbedded(o); err != nil {
			l.cancel()
			return nil, err
		}
		if err := l.link.dial(l.ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("connecting to the embedded server: %w", err), l.Close())
		}
		l.log.Info("opened the embedded revocation ledger", "store", o.Embedded.StoreDir,
			"listen", l.embedded.listen, "standalone", o.Embedded.Listen == "")
	} else {
		l.wg.Go(func() { l.link.connect(l.ctx) })
	}
	l.wg.Go(l.supervise)
	if l.embedded != nil {
		l.wg.Go(l.tendStore)
	}
	return l, nil
}

// errNotLooked is the state before the first answer.
var errNotLooked = fmt.Errorf("%w yet", ErrNotConnected)

// Close stops the followers, disconnects, and stops the embedded server. It does
// not wait for a server that does not answer. Calling it again returns the same.
func (l *Ledger) Close() error {
	l.once.Do(func() {
		l.cancel()
		l.link.close()
		l.wg.Wait()
		l.link.close() // what was dialled meanwhile
		if l.embedded != nil {
			l.closed = l.embedded.close()
		}
	})
	return l.closed
}

// supervise looks at the stream whenever a connection begins, every few seconds,
// and when asked to. It creates what is missing, if that is our job.
func (l *Ledger) supervise() {
	wait := firstRetry
	for {
		nc, js, up, err := l.link.await(l.ctx)
		if err != nil {
			return
		}
		err = l.prepare(up, nc, js)
		l.conclude(up, err)
		next := lookInterval
		if err != nil && !errors.Is(err, ErrStreamSettings) {
			next, wait = wait, min(2*wait, lastRetry)
		} else {
			wait = firstRetry
		}
		select {
		case <-l.ctx.Done():
			return
		case <-up.Done():
			l.conclude(up, ErrNotConnected)
		case <-l.kick:
			select { // many may ask at once
			case <-l.ctx.Done():
				return
			case <-time.After(leastInterval):
			}
		case <-time.After(jitter(next)):
		}
	}
}

// prepare makes the stream usable and remembers what it looks like. On an error
// that is about the stream, what is remembered is still the newest.
func (l *Ledger) prepare(ctx context.Context, nc *nats.Conn, js jetstream.JetStream) error {
	mayCreate := l.embedded != nil || l.o.External.Create
	h, err := l.look(ctx, nc, js)
	if errors.Is(err, ErrStreamMissing) && mayCreate && l.mayRecreate() {
		if err = l.create(ctx, js); err == nil {
			h, err = l.look(ctx, nc, js)
		}
	}
	if err != nil {
		return err
	}
	l.remember(h)
	err = l.judge(h)
	if errors.Is(err, ErrNoGenesis) && mayCreate {
		if err := l.writeGenesis(ctx, js); err != nil {
			return err
		}
		if h, err = l.look(ctx, nc, js); err != nil {
			return err
		}
		l.remember(h)
		err = l.judge(h)
	}
	if err != nil {
		return err
	}
	if l.embedded != nil && h.config.MaxBytes != l.o.MaxBytes {
		return l.resize(ctx, js, h.config)
	}
	return nil
}

// judge returns why the stream can't be used as a ledger, or nil.
func (l *Ledger) judge(h *history) error {
	if err := settingProblem(h.config); err != nil {
		return err
	}
	if h.ledger == "" {
		return fmt.Errorf("%w: %s; run init once", ErrNoGenesis, l.o.Stream)
	}
	return nil
}

// resize gives an embedded stream the size that the options say now.
func (l *Ledger) resize(ctx context.Context, js jetstream.JetStream, c jetstream.StreamConfig) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	c.MaxBytes = l.o.MaxBytes
	if _, err := js.UpdateStream(ctx, c); err != nil {
		return l.apiError(ctx, "changing the stream's maximum size", err)
	}
	return nil
}

// mayRecreate tells whether a missing stream may be created now.
func (l *Ledger) mayRecreate() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen == nil {
		return true
	}
	if l.missing.IsZero() {
		l.missing = l.now()
	}
	return l.now().Sub(l.missing) >= recreateAfter
}

func (l *Ledger) remember(h *history) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = h
	l.missing = time.Time{}
	l.skew = h.asked.Add(h.rtt / 2).Round(0).Sub(h.at)
}

// clockSkew returns how far this machine's clock is ahead of the server's.
func (l *Ledger) clockSkew() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.skew
}

// newestLook returns the newest look at the stream, or nil.
func (l *Ledger) newestLook() *history {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen
}

// conclude records whether the ledger can be used.
func (l *Ledger) conclude(up context.Context, err error) {
	if l.ctx.Err() != nil {
		return
	}
	if err != nil && up.Err() != nil {
		err = ErrNotConnected // whatever failed, that is why
	}
	l.mu.Lock()
	before := l.problem
	l.problem = err
	if errors.Is(err, ErrStreamSettings) && !errors.Is(before, ErrStreamSettings) {
		l.unsound++
	}
	l.mu.Unlock()
	switch {
	case err == nil && before == nil, err != nil && before != nil && before.Error() == err.Error():
		return // as before
	case err == nil:
		l.log.Debug("the revocation ledger is usable")
	case !errors.Is(err, ErrNotConnected): // which the connection logs
		l.log.Error("the revocation ledger is not usable", "error", err)
	}
	l.changed.fire()
}

// usable returns nil, or why the ledger can't be used now.
func (l *Ledger) usable() error {
	if l.ctx.Err() != nil {
		return ErrClosed
	}
	if l.embedded != nil {
		if err := l.embedded.storage(); err != nil {
			return err
		}
	}
	if _, _, _, err := l.link.current(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.problem
}

// unsoundness returns the setting with which the stream could lose revocations,
// if the newest look at it found one.
func (l *Ledger) unsoundness() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if errors.Is(l.problem, ErrStreamSettings) {
		return l.problem
	}
	return nil
}

// soundness returns how often the stream was found with settings that could lose
// revocations, and whether the newest look at it found nothing wrong.
func (l *Ledger) soundness() (times uint64, sound bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unsound, l.problem == nil
}

// choke takes whether heartbeats fail to come through a stream that has no room
// for another one.
func (l *Ledger) choke(now bool) {
	if was := l.choked.Swap(now); now && !was {
		l.log.Error("the revocation ledger is full", "error", ErrNoRoom)
	}
}

// awaitLook waits for the first look at the stream, which may create it.
func (l *Ledger) awaitLook(up, ctx context.Context) error {
	for {
		changed := l.changed.wait()
		l.mu.Lock()
		looked := !errors.Is(l.problem, errNotLooked)
		l.mu.Unlock()
		if looked {
			return nil
		}
		select {
		case <-changed:
		case <-up.Done():
			return up.Err()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// awaitUsable waits until the ledger can be used, ctx ends, or it turns out that
// waiting does not help.
func (l *Ledger) awaitUsable(ctx context.Context) error {
	for {
		changed, linked := l.changed.wait(), l.link.changed.wait()
		err := l.usable()
		if err == nil || errors.Is(err, ErrStreamSettings) || errors.Is(err, ErrNotPermitted) || errors.Is(err, ErrStorage) || errors.Is(err, ErrClosed) {
			return err
		}
		select {
		case <-changed:
		case <-linked:
		case <-l.ctx.Done():
		case <-ctx.Done():
			return err
		}
	}
}

// suspect asks for a look at the stream soon: something does not fit.
func (l *Ledger) suspect() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// Init creates the stream if it is missing and makes it a ledger if it is none
// yet. It returns the ledger's id. The errors are those of [Status.Problem].
func (l *Ledger) Init(ctx context.Context) (string, error) {
	nc, js, up, err := l.link.await(ctx)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(up, cancel)()
	h, err := l.look(ctx, nc, js)
	if errors.Is(err, ErrStreamMissing) {
		if err = l.create(ctx, js); err == nil {
			h, err = l.look(ctx, nc, js)
		}
	}
	if err == nil {
		err = settingProblem(h.config)
	}
	if err == nil && h.ledger == "" {
		if err = l.writeGenesis(ctx, js); err == nil {
			h, err = l.look(ctx, nc, js)
		}
	}
	if err != nil {
		return "", err
	}
	l.suspect()
	return h.ledger, nil
}

// jitter returns d, up to a quarter more or less, so that a fleet does not act
// in step.
func jitter(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2+1)
}
