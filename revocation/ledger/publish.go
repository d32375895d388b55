package ledger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

const (
	firstPublishRetry = 20 * time.Millisecond
	lastPublishRetry  = 500 * time.Millisecond
)

// JetStream's codes for having no room.
const (
	codeInsufficientResources = 10023
	codeMemoryExceeded        = 10028
	codeStorageExceeded       = 10047
	codeStoreFailed           = 10077
)

// PublishRevocation stores r and returns its sequence after the server has
// acknowledged it. Within the deadline it is tried again, with r.ID as message
// id, so that it is stored once. Any error means that r must be treated as not
// recorded: it wraps [revocation.ErrFull] if there is no room, the errors of
// Validate if r is at fault, else [revocation.ErrUnavailable] and, where known,
// one of this package's: [ErrNotPermitted] also for a user that may publish, but
// not see whether the stream is one that keeps what it is given.
func (l *Ledger) PublishRevocation(ctx context.Context, r *revocation.Revocation) (uint64, error) {
	data, err := encodeRevocation(r)
	if err != nil {
		return 0, err
	}
	return l.publish(ctx, message{kind: KindEntry, id: r.ID, data: data, ttl: messageTTL(r.Expires, l.now(), l.o.MaxClockSkew)})
}

// PublishRestoration is [Ledger.PublishRevocation] for an undo.
func (l *Ledger) PublishRestoration(ctx context.Context, r *revocation.Restoration) (uint64, error) {
	data, err := encodeRestoration(r)
	if err != nil {
		return 0, err
	}
	return l.publish(ctx, message{kind: KindRestore, id: r.ID, data: data, ttl: messageTTL(r.Expires, l.now(), l.o.MaxClockSkew)})
}

// PublishHeartbeat stores a heartbeat entry, for fleets whose edges may not
// write: something has to, every few seconds, or all of them turn stale. Unlike
// the others, it needs no permission to look at the stream.
func (l *Ledger) PublishHeartbeat(ctx context.Context) (uint64, error) {
	data, id, err := l.heartbeat()
	if err != nil {
		return 0, err
	}
	return l.publish(ctx, message{kind: KindHeartbeat, id: id, data: data, ttl: heartbeatTTL})
}

// message is what is published, and how often it is tried.
type message struct {
	kind Kind
	// subject is the kind's own unless set.
	subject string
	id      string
	data    []byte
	ttl     time.Duration // zero: kept for ever
	// after, if not empty, asks the server to store the message only if the
	// newest one on this subject is at the sequence last, zero for none.
	after string
	last  uint64
}

func (m *message) on() string { return cmp.Or(m.subject, m.kind.Subject()) }

func (l *Ledger) publish(ctx context.Context, m message) (sequence uint64, err error) {
	begin := l.now()
	select {
	case l.slots <- struct{}{}:
		defer func() { <-l.slots }()
	default:
		// Waiting in line would only add to the wait of those in front.
		l.publishes.refused.Add(1)
		return 0, fmt.Errorf("%w: too many decisions are waiting", revocation.ErrUnavailable)
	}
	ctx, cancel := context.WithTimeout(ctx, l.o.PublishDeadline)
	defer cancel()
	sequence, err = l.retry(ctx, &m)
	switch {
	case err == nil:
		l.publishes.published.Add(1)
		l.storedOne(sequence, m.id)
	case errors.Is(err, errOvertaken): // an answer, not a failure
	case errors.Is(err, revocation.ErrFull):
		l.publishes.full.Add(1)
		l.suspect() // for NearlyFull
	default:
		l.publishes.failed.Add(1)
		l.suspect()
		if hint := l.notStoring(); hint != nil {
			err = fmt.Errorf("%w: %w", err, hint)
		}
	}
	if l.o.Published != nil {
		reported := err
		if errors.Is(err, errOvertaken) {
			reported = nil
		}
		l.o.Published(m.kind, l.now().Sub(begin), reported)
	}
	return sequence, err
}

func (l *Ledger) retry(ctx context.Context, m *message) (uint64, error) {
	wait := firstPublishRetry
	for {
		err := l.awaitUsable(ctx)
		if m.kind == KindHeartbeat && errors.Is(err, ErrNotPermitted) {
			// Whoever may only write can't look at the stream. Its name is checked
			// all the same, and who follows it judges what it is.
			err = nil
		}
		if err != nil {
			return 0, fmt.Errorf("%w: %w", revocation.ErrUnavailable, err)
		}
		sequence, again, err := l.attempt(ctx, m)
		if err == nil {
			return sequence, nil
		}
		if !again {
			return 0, err
		}
		select {
		case <-ctx.Done():
			return 0, err
		case <-l.ctx.Done():
			return 0, fmt.Errorf("%w: %w", revocation.ErrUnavailable, ErrClosed)
		case <-time.After(jitter(wait)):
		}
		wait = min(2*wait, lastPublishRetry)
	}
}

// attempt publishes once, and tells whether another attempt can help.
func (l *Ledger) attempt(ctx context.Context, m *message) (sequence uint64, again bool, err error) {
	_, js, up, err := l.link.current()
	if err != nil {
		return 0, true, fmt.Errorf("%w: %w", revocation.ErrUnavailable, err)
	}
	ctx, cancel := context.WithTimeout(ctx, l.o.PublishTimeout)
	defer cancel()
	// With the connection goes the acknowledgment.
	defer context.AfterFunc(up, cancel)()
	ctx, done := l.link.refused.watch(ctx, m.on())
	defer done()
	opts := []jetstream.PublishOpt{
		jetstream.WithMsgID(m.id),
		jetstream.WithExpectStream(l.o.Stream),
		jetstream.WithRetryAttempts(0),
	}
	if m.ttl > 0 {
		opts = append(opts, jetstream.WithMsgTTL(m.ttl))
	}
	switch m.after {
	case "":
	case m.on():
		opts = append(opts, jetstream.WithExpectLastSequencePerSubject(m.last))
	default:
		opts = append(opts, jetstream.WithExpectLastSequenceForSubject(m.last, m.after))
	}
	ack, err := js.PublishMsg(ctx, &nats.Msg{Subject: m.on(), Data: m.data}, opts...)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) && up.Err() == nil {
			l.timedOut()
		}
		return l.publishError(ctx, err)
	}
	if ack.Stream != l.o.Stream || ack.Sequence == 0 {
		return 0, false, fmt.Errorf("%w: an acknowledgment of another stream", revocation.ErrUnavailable)
	}
	if ack.Duplicate {
		l.publishes.duplicates.Add(1)
	}
	return ack.Sequence, false, nil
}

func (l *Ledger) publishError(ctx context.Context, err error) (uint64, bool, error) {
	var api *jetstream.APIError
	if cause := context.Cause(ctx); errors.Is(cause, ErrNotPermitted) {
		return 0, false, fmt.Errorf("%w: %w", revocation.ErrUnavailable, cause)
	}
	switch {
	case errors.As(err, &api):
		switch api.ErrorCode {
		case jetstream.JSErrCodeStreamWrongLastSequence, jetstream.JSErrCodeStreamWrongLastSequenceConstant:
			return 0, false, errOvertaken
		case codeInsufficientResources, codeMemoryExceeded, codeStorageExceeded:
			return 0, false, fmt.Errorf("%w: %s", revocation.ErrFull, api.Description)
		case codeStoreFailed:
			if strings.Contains(api.Description, "maximum") {
				return 0, false, fmt.Errorf("%w: %s", revocation.ErrFull, api.Description)
			}
		}
		l.suspect() // the stream may not be what it was
		return 0, true, fmt.Errorf("%w: the server refused it: %s (%d)", revocation.ErrUnavailable, api.Description, api.ErrorCode)
	case errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, nats.ErrNoResponders):
		l.suspect()
		return 0, true, fmt.Errorf("%w: %w or has no leader", revocation.ErrUnavailable, ErrStreamMissing)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return 0, true, fmt.Errorf("%w: no acknowledgment in time: %w", revocation.ErrUnavailable, err)
	default:
		return 0, true, fmt.Errorf("%w: %w: %w", revocation.ErrUnavailable, ErrNotConnected, err)
	}
}
