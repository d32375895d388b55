package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

const (
	pullMessages      = 5000
	pullExpiry        = 5 * time.Second
	pullHeartbeat     = time.Second
	inactiveThreshold = 30 * time.Second
	consumerReplicas  = 1
)

var (
	// errQuiet is wrapped by reasons to begin again that are nobody's fault.
	errQuiet    = errors.New("no heartbeat came through the ledger (may any edge publish them?)")
	errGap      = errors.New("an entry is missing in what was delivered")
	errReplayed = errors.New("the ledger's history changed")
	errSound    = errors.New("the stream keeps everything again")
	errMoved    = errors.New("the ledger's genesis entry is not the one that it was")
)

// session is one uninterrupted reading of the stream: one consumer of one
// incarnation of the stream on one connection.
type session struct {
	f      *Follower
	l      *Ledger
	nc     *nats.Conn
	js     jetstream.JetStream
	cancel context.CancelCauseFunc

	began    time.Time
	history  *history
	consumed uint64 // consumer sequence of the newest delivery
	// Stream sequence of the newest delivery: it begins with the witness, which
	// is before the position.
	delivered uint64
	unsound   uint64 // as Follower.unsound, when reading began
}

func (s *session) run(ctx context.Context) error {
	s.f.counts.sessions.Add(1)
	// The consumer comes first, the checks second: it belongs to the stream as
	// it is now and goes with it, so that what the checks say of the stream
	// holds for what the consumer delivers, or the consumer delivers nothing.
	consumer, err := s.consumer(ctx)
	if err != nil {
		return err
	}
	s.began = s.l.now()
	acked := s.l.newestAcked() // before the look: more may come during it
	if s.history, err = s.l.look(ctx, s.nc, s.js); err != nil {
		return err
	}
	s.l.remember(s.history)
	s.f.fresh.calibrate(s.history.asked, s.history.at)
	// A stream that could lose revocations is followed all the same: what comes
	// is applied, only heartbeats prove nothing.
	err = s.l.judge(s.history)
	s.l.conclude(ctx, err)
	if errors.Is(err, ErrNoGenesis) && s.f.position.Sequence > 0 && !s.f.headless {
		s.f.headless = true
		s.f.alarm("the ledger has lost its beginning, and perhaps more: it has no genesis entry any more")
	}
	if err != nil && (!errors.Is(err, ErrStreamSettings) || !s.history.config.AllowDirect) {
		return err // without direct get, nothing can tell which history it is
	}
	s.f.headless = false
	reason, err := s.l.divergence(ctx, s.nc, s.history, s.f.position, acked)
	if err != nil {
		return err
	}
	if reason != "" {
		return s.replay(reason)
	}
	// While the stream could forget, it may have: what is held and not there any
	// more has to be known for what it is, or reseeding would pass it over.
	if times, sound := s.l.soundness(); sound && times != s.f.unsound {
		s.f.unsound = times
		if s.f.position.Sequence > 0 {
			s.l.log.Warn("the stream keeps everything again: it is read from its beginning, to learn what it forgot meanwhile")
			return s.replay("")
		}
	}
	s.unsound = s.f.unsound
	if s.f.position.Sequence == 0 {
		s.introduce()
	}
	msgs, err := consumer.Messages(
		jetstream.PullMaxMessages(pullMessages),
		jetstream.PullExpiry(pullExpiry),
		jetstream.PullHeartbeat(pullHeartbeat),
		jetstream.WithMessagesErrOnMissingHeartbeat(true))
	if err != nil {
		return fmt.Errorf("reading the stream: %w", err)
	}
	defer msgs.Stop()
	s.f.following.Store(true)
	s.f.beats.begin(s)
	for {
		m, err := msgs.Next(jetstream.NextContext(ctx))
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return fmt.Errorf("reading the stream: %w", err)
		}
		if err := s.take(m); err != nil {
			return err
		}
	}
}

// replay ends the session with reading everything again, as another history.
// What is held stays in force: replaying joins to it. A reason raises the alarm.
func (s *session) replay(reason string) error {
	s.f.position, s.f.holds = revocation.Position{}, nil
	s.l.forgetAcked()
	s.f.sink.NewHistory(s.beginning(), s.history.state.LastSeq)
	if reason != "" {
		s.f.alarm(reason)
	}
	return errReplayed
}

// introduce tells the sink, before the first entry, which history it is:
// sequences of another one say nothing about those of this one.
func (s *session) introduce() {
	was, begin := s.f.sink.Position(), s.beginning()
	switch {
	case was == revocation.Position{}:
		s.f.sink.SetPosition(begin)
	case was.Sequence != 0 || was.Ledger != begin.Ledger || !was.Created.Equal(begin.Created):
		s.f.sink.NewHistory(begin, s.history.state.LastSeq)
	}
}

func (s *session) beginning() revocation.Position {
	return revocation.Position{Ledger: s.history.ledger, Created: s.history.created}
}

func (s *session) consumer(ctx context.Context) (jetstream.Consumer, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	ctx, done := s.l.link.refused.watch(ctx, "$JS.API.CONSUMER.CREATE."+s.l.o.Stream)
	defer done()
	start := s.f.position.Sequence + 1
	if w := s.f.position.Witness; w > 0 && w < start {
		start = w
	}
	s.delivered = start - 1
	c, err := s.js.CreateConsumer(ctx, s.l.o.Stream, jetstream.ConsumerConfig{
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       start,
		AckPolicy:         jetstream.AckNonePolicy,
		MemoryStorage:     true,
		Replicas:          consumerReplicas,
		InactiveThreshold: inactiveThreshold,
	})
	if err != nil {
		return nil, s.l.apiError(ctx, "creating a consumer", err)
	}
	return c, nil
}

// take applies one message. An error ends the session.
func (s *session) take(m jetstream.Msg) error {
	meta, err := m.Metadata()
	if err != nil {
		return fmt.Errorf("reading the stream: a delivery without metadata: %w", err)
	}
	// Sequences of the stream have holes wherever an entry has expired. Those of
	// the consumer have one only where a delivery was lost.
	if meta.Sequence.Consumer != s.consumed+1 || meta.Sequence.Stream <= s.delivered {
		s.f.counts.gaps.Add(1)
		return fmt.Errorf("%w: delivery %d, entry %d, after delivery %d, entry %d", errGap,
			meta.Sequence.Consumer, meta.Sequence.Stream, s.consumed, s.delivered)
	}
	first := s.consumed == 0
	s.consumed, s.delivered = meta.Sequence.Consumer, meta.Sequence.Stream
	if first {
		if reason := s.missing(meta); reason != "" {
			return s.replay(reason)
		}
	}
	if meta.Sequence.Stream <= s.f.position.Sequence {
		return nil // applied before this session
	}
	s.f.apply(s, m, meta)
	return nil
}
