package intent

import (
	"cmp"
	"context"
	"errors"
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
	// minShare is how many intents one client may have open at least that are not
	// accepted; it may have a quarter of all.
	minShare = 64
	// maxWriting is how many are written to the disk at once.
	maxWriting = 16
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
	broken  error   // of the last attempt to write; nil: it has succeeded
	entries map[string]*Entry
	closed  bool
	counts  counts

	writing   chan struct{} // one each while a file is written
	recording lane
	asking    lane
	cancel    context.CancelFunc
	workers   sync.WaitGroup
}

// errGone says that the directory is not there any more.
var errGone = errors.New("the directory of intents is gone")

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
		entries: make(map[string]*Entry), writing: make(chan struct{}, maxWriting),
	}
	j.recording = lane{wake: make(chan struct{}, 1), pass: j.recordAll, idle: j.nothingDue}
	j.asking = lane{wake: make(chan struct{}, 1), pass: j.askAll, idle: j.nothingToAsk}
	j.mu.Lock()
	if err := j.open(); err != nil {
		j.log.Error("intents can't be kept, requests to the authorization server are refused", slog.Any("error", err))
	}
	j.mu.Unlock()
	j.workers.Go(func() { j.work(ctx, &j.recording) })
	j.workers.Go(func() { j.work(ctx, &j.asking) })
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
	j.folder, j.broken = f, nil
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
		e := &Entry{journal: j, name: item.name, intent: *item.intent, written: isWritten,
			accepted: item.accepted, due: item.accepted, kept: true}
		j.entries[e.name] = e
		j.log.Info("intent taken over", slog.Bool("accepted", e.accepted),
			slog.String("issuer", e.intent.Issuer), slog.String("client_id", e.intent.Client))
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

// Close stops the workers. Intents stay on disk; the next process, or journal on
// the same directory, takes them over.
func (j *Journal) Close() error {
	j.cancel()
	j.workers.Wait()
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
	// Usable tells whether intents can be kept, as far as is known from the last
	// attempt to.
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
	Refused uint64 // not begun, since too many were open or nothing could be written
}

// Stats returns the present state.
func (j *Journal) Stats() Stats {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := Stats{
		Usable: j.folder != nil && !j.closed && j.broken == nil,
		Late:   j.counts.late, Ended: j.counts.unknownEnded, Evicted: j.counts.evicted, Refused: j.counts.refused,
	}
	now := j.options.Now()
	for _, e := range j.entries {
		switch {
		case e.accepted:
			s.Accepted++
			s.OldestAccepted = max(s.OldestAccepted, now.Sub(e.intent.Made))
		case e.holders > 0:
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
