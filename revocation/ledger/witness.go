package ledger

import (
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// witnessMargin is how much longer than until now a witness must last for its
// absence to mean something: what the server forgets, it forgets by its own
// clock, which may have been set for a moment.
const witnessMargin = 2 * time.Minute

// lastWitness bounds the ends of witnesses. A message whose life reaches beyond
// what a server can count in nanoseconds is acknowledged, and vanishes.
var lastWitness = time.Date(2200, time.January, 1, 0, 0, 0, 0, time.UTC)

// bearWitness returns p with the message at its sequence as its witness.
func bearWitness(p revocation.Position, h nats.Header) revocation.Position {
	var ends time.Time
	if life, limited := messageLife(h); limited {
		if ends = p.Stored.Add(life); ends.After(lastWitness) {
			return p
		}
	}
	p.Witness, p.WitnessStored, p.WitnessEnds = p.Sequence, p.Stored, ends
	return p
}

// missing returns why the session's first delivery proves that the stream is not
// the one that the position belongs to, or an empty string. Reading starts at the
// witness. If something behind it comes first, the witness is gone, although it
// was to stay: a roll-back or a truncation that nothing else shows when only
// heartbeats, which do not last, filled the gap. No replica that lags can have
// that effect, as it could with an answer of direct get: a store that holds what
// is behind the witness has had the witness.
func (s *session) missing(first *jetstream.MsgMetadata) string {
	p := s.f.position
	if p.Witness == 0 {
		return ""
	}
	if first.Sequence.Stream == p.Witness {
		if first.Timestamp.Equal(p.WitnessStored) {
			return ""
		}
		return fmt.Sprintf("the stream was rolled back and has grown again: entry %d was stored at %s", p.Witness, first.Timestamp.UTC())
	}
	// The server's clock, or what it showed at its latest.
	now := s.history.at.Add(s.l.now().Sub(s.history.asked))
	for _, t := range []time.Time{p.Latest, first.Timestamp} {
		if t.After(now) {
			now = t
		}
	}
	if !p.WitnessEnds.IsZero() && p.WitnessEnds.Before(now.Add(witnessMargin)) {
		return ""
	}
	return fmt.Sprintf("the stream was rolled back or truncated: entry %d, which had not ended, is gone", p.Witness)
}
