package intent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// Defaults of [Options].
const (
	DefaultMaxOpen  = 1000
	DefaultTimeout  = 10 * time.Second
	DefaultMaxRetry = 10 * time.Second
	// MaxUnknown is for how long an intent of unknown outcome is kept for the
	// client's next attempt.
	MaxUnknown = 24 * time.Hour

	minRetry = 100 * time.Millisecond
	// askFor is for how long the authorization server is asked about the token
	// of an unknown outcome.
	askFor = 5 * time.Minute
	// lookAround is how often directories of dead processes are looked for.
	lookAround = 10 * time.Second
)

// ErrUnavailable says that an intent can't be kept: the disk is full or broken,
// or too many are open. The request must not be forwarded then, since what comes
// of it could get lost.
var ErrUnavailable = errors.New("the revocation can't be remembered now")

// Options configure a [Journal]. Dir and Record are required.
type Options struct {
	// Dir is the directory for intents. Several processes may share it; it has to
	// be on a local disk, since it is locked.
	Dir string
	// Record makes an accepted intent durable in the ledger, see [RecordAll]. It
	// must not return nil before that.
	Record func(context.Context, *Intent) error
	// Active tells whether the authorization server still takes the token for a
	// live one. It is asked about tokens of intents whose outcome is unknown. Nil
	// means that nobody can be asked.
	Active func(ctx context.Context, issuer, token string) (bool, error)

	// MaxOpen bounds the intents. Zero means [DefaultMaxOpen].
	MaxOpen int
	// Timeout bounds one attempt of the worker. Zero means [DefaultTimeout].
	Timeout time.Duration
	// MaxRetry is the longest pause between two attempts. Zero means
	// [DefaultMaxRetry].
	MaxRetry time.Duration
	// Now returns the time. Nil means time.Now.
	Now func() time.Time
	// Logger may be nil.
	Logger *slog.Logger
}

// Journal holds the intents of this process, and works on those that nobody else
// works on. It is safe for concurrent use.
type Journal struct {
	options Options
	log     *slog.Logger

	mu      sync.Mutex
	folder  *folder // nil until it could be opened
	entries map[string]*Entry
	changed chan struct{} // closed and replaced when an entry is released
	closed  bool
	counts  counts

	wake   chan struct{}
	cancel context.CancelFunc
	done   chan struct{}
}

type counts struct{ late, unknownEnded, evicted, refused uint64 }

// Open returns a journal and begins to work on what dead processes have left. A
// directory that can't be used now is tried again: until then, [Journal.Begin]
// returns [ErrUnavailable].
func Open(o Options) (*Journal, error) {
	if o.Dir == "" || o.Record == nil {
		return nil, errors.New("opening intents: the directory or the recorder is missing")
	}
	o.MaxOpen = cmp.Or(o.MaxOpen, DefaultMaxOpen)
	o.Timeout = cmp.Or(o.Timeout, DefaultTimeout)
	o.MaxRetry = cmp.Or(o.MaxRetry, DefaultMaxRetry)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	j := &Journal{
		options: o, log: o.Logger, cancel: cancel,
		entries: make(map[string]*Entry), changed: make(chan struct{}),
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
	j.mu.Lock()
	if err := j.open(); err != nil {
		j.log.Error("intents can't be kept, requests to the authorization server are refused", slog.Any("error", err))
	}
	j.mu.Unlock()
	go j.work(ctx)
	return j, nil
}

// open opens the folder, if it isn't yet. The caller holds j.mu.
func (j *Journal) open() error {
	if j.folder != nil {
		return nil
	}
	if j.closed {
		return errors.New("the journal is closed")
	}
	f, err := openFolder(j.options.Dir)
	if err != nil {
		return err
	}
	j.folder = f
	j.adopt()
	return nil
}

// adopt takes over what dead processes have left. The caller holds j.mu.
func (j *Journal) adopt() {
	items := j.folder.takeOver(func(file string, err error) {
		j.log.Error("an intent can't be read: a revocation that an authorization server has accepted may be lost",
			slog.String("file", file), slog.Any("error", err))
	})
	for _, item := range items {
		e := &Entry{journal: j, name: item.name, intent: *item.intent, accepted: item.accepted}
		j.entries[e.name] = e
		j.log.Info("intent taken over", slog.Bool("accepted", e.accepted),
			slog.String("issuer", e.intent.Issuer), slog.String("client_id", e.intent.Client))
	}
}

// Begin makes an intent durable, before its request is forwarded. The caller holds
// the entry until it calls one of [Entry.Drop], [Entry.Leave] and [Entry.Record].
// The error wraps [ErrUnavailable].
func (j *Journal) Begin(i Intent) (*Entry, error) {
	content, err := encode(&i)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.open(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if !j.makeRoom() {
		j.counts.refused++
		return nil, fmt.Errorf("%w: %d intents are open", ErrUnavailable, len(j.entries))
	}
	e := &Entry{journal: j, name: randomName(), intent: i, held: true}
	// Under the lock: a place must not be given twice, and one disk syncs once at
	// a time anyway.
	if err := j.folder.write(e.name, content); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	for _, old := range j.entries {
		if old.is(i.Issuer, i.Client, i.Token) && !old.held && !old.accepted {
			j.forget(old) // this attempt takes its place
		}
	}
	j.entries[e.name] = e
	return e, nil
}

// makeRoom tells whether there is room for one more, after it has dropped an
// unknown outcome if need be: nobody was promised anything about those. The caller
// holds j.mu.
func (j *Journal) makeRoom() bool {
	if len(j.entries) < j.options.MaxOpen {
		return true
	}
	var oldest *Entry
	for _, e := range j.entries {
		if !e.held && !e.accepted && (oldest == nil || e.intent.Made.Before(oldest.intent.Made)) {
			oldest = e
		}
	}
	if oldest == nil {
		return false
	}
	j.counts.evicted++
	j.log.Warn("intent of unknown outcome dropped for a newer one", slog.String("client_id", oldest.intent.Client))
	j.forget(oldest)
	return true
}

// Resume returns the intent of an earlier attempt of the client on the same token,
// nil if there is none. It may be accepted already, and not recorded. The caller
// holds it, as after [Journal.Begin]; if somebody else does, it waits. The error
// is that of ctx.
func (j *Journal) Resume(ctx context.Context, issuer, client, token string) (*Entry, error) {
	for {
		j.mu.Lock()
		var match *Entry
		for _, e := range j.entries {
			if e.is(issuer, client, token) && (match == nil || e.held && !match.held) {
				match = e
			}
		}
		changed := j.changed
		if match == nil || !match.held {
			if match != nil {
				match.held = true
			}
			j.mu.Unlock()
			return match, nil
		}
		j.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// forget removes an entry and its file. The caller holds j.mu.
func (j *Journal) forget(e *Entry) {
	delete(j.entries, e.name)
	if j.folder == nil {
		return
	}
	if err := j.folder.remove(e.name); err != nil {
		j.log.Warn("an intent that is done can't be removed", slog.Any("error", err))
	}
}

// release lets others have the entry. The caller holds j.mu.
func (j *Journal) release(e *Entry) {
	e.held = false
	close(j.changed)
	j.changed = make(chan struct{})
}

// rouse makes the worker look now.
func (j *Journal) rouse() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// Close stops the worker. Intents stay on disk; the next process, or journal on
// the same directory, takes them over.
func (j *Journal) Close() error {
	j.cancel()
	<-j.done
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil
	}
	j.closed = true
	left := 0
	for _, e := range j.entries {
		if e.accepted {
			left++
		}
	}
	if left > 0 {
		j.log.Warn("revocations that the authorization server has accepted are not recorded yet; "+
			"they are when Caddy runs again with token_revocation upstream", slog.Int("intents", left))
	}
	if j.folder == nil {
		return nil
	}
	return j.folder.close()
}

// Stats describes a journal for operators and metrics.
type Stats struct {
	// Usable tells whether intents can be kept.
	Usable bool
	// Forwarded are at the authorization server just now, Unknown were and nobody
	// learned what came of it, and Accepted are still to be recorded.
	Forwarded, Unknown, Accepted int
	// OldestAccepted is the age of the oldest of Accepted; zero if there is none.
	OldestAccepted time.Duration
	// Quarantined are files that were put aside, since they can't be read or
	// recorded.
	Quarantined int

	Late    uint64 // recorded by the worker
	Ended   uint64 // of unknown outcome until the end
	Evicted uint64 // of unknown outcome, dropped for newer ones
	Refused uint64 // not begun, since too many were open
}

// Stats returns the present state.
func (j *Journal) Stats() Stats {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := Stats{
		Usable: j.folder != nil && !j.closed,
		Late:   j.counts.late, Ended: j.counts.unknownEnded, Evicted: j.counts.evicted, Refused: j.counts.refused,
	}
	now := j.options.Now()
	for _, e := range j.entries {
		switch {
		case e.accepted:
			s.Accepted++
			s.OldestAccepted = max(s.OldestAccepted, now.Sub(e.intent.Made))
		case e.held:
			s.Forwarded++
		default:
			s.Unknown++
		}
	}
	if j.folder != nil {
		s.Quarantined = j.folder.quarantined()
	}
	return s
}

// finished tells whether err of a recorder leaves nothing to do.
func finished(err error) bool { return err == nil || errors.Is(err, revocation.ErrExpired) }
