package ledger

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// incompleteFor is how long an entry that can't be read may stand, if nothing
// says more precisely when it ends.
const incompleteFor = 7 * 24 * time.Hour

// hold keeps the sink's position behind an entry that this version can't apply,
// so that a newer version, started on this one's checkpoint, reads it.
type hold struct {
	before revocation.Position // the oldest such entry
	until  int64               // Unix seconds: when the last of them has ended
}

// apply brings one message to the sink and moves the position behind it.
func (f *Follower) apply(s *session, m jetstream.Msg, meta *jetstream.MsgMetadata) {
	sequence := meta.Sequence.Stream
	if kind, beat, err := f.applyKind(s, m, meta); err != nil {
		f.reject(kind, m, meta, err)
	} else if beat {
		defer f.beats.settle(s, sequence)
	}
	f.position = revocation.Position{
		Ledger: s.history.ledger, Created: s.history.created, Sequence: sequence, Stored: meta.Timestamp,
	}
	if meta.Timestamp.After(f.latest) {
		f.latest = meta.Timestamp
	}
	f.sink.SetPosition(f.persistent())
	f.lag.Store(meta.NumPending)
	f.sequence.Store(sequence)
}

// persistent returns the position to continue from after a restart.
func (f *Follower) persistent() revocation.Position {
	if f.held != nil && f.held.until < f.l.now().Unix() {
		f.held = nil
	}
	if f.held != nil {
		return f.held.before
	}
	return f.position
}

func (f *Follower) hold(until int64) {
	before := f.persistent()
	if f.held != nil {
		until = max(until, f.held.until)
	}
	f.held = &hold{before: before, until: until}
}

// applyKind applies by subject: what a message does is what its publisher was
// permitted to write, not what it says.
func (f *Follower) applyKind(s *session, m jetstream.Msg, meta *jetstream.MsgMetadata) (kind Kind, beat bool, err error) {
	suffix, ours := strings.CutPrefix(m.Subject(), SubjectPrefix)
	if !ours {
		return "", false, fmt.Errorf("%w: an unknown subject", ErrPayload)
	}
	sequence := meta.Sequence.Stream
	switch kind = Kind(suffix); kind {
	case KindEntry:
		r, err := decodeRevocation(m.Data())
		if err != nil {
			return kind, false, err
		}
		if r.ID == "" {
			r.ID = entryID(m.Headers().Get(nats.MsgIdHdr), sequence)
		}
		if r.DecidedAt == 0 {
			r.DecidedAt = meta.Timestamp.UnixMilli()
		}
		f.sink.Revoke(sequence, r)
		f.applied(s, kind, sequence, r.DecidedAt)
	case KindRestore:
		r, err := decodeRestoration(m.Data())
		if err != nil {
			return kind, false, err
		}
		if r.ID == "" {
			r.ID = entryID(m.Headers().Get(nats.MsgIdHdr), sequence)
		}
		if r.DecidedAt == 0 {
			r.DecidedAt = meta.Timestamp.UnixMilli()
		}
		f.sink.Restore(sequence, r)
		f.applied(s, kind, sequence, r.DecidedAt)
	case KindHeartbeat:
		id, err := decodeHeartbeat(m.Data())
		if err != nil {
			return kind, false, err
		}
		f.beats.arrived(id, meta.Timestamp)
		return kind, true, nil
	case KindGenesis: // looked up when the session began
	default:
		// A later version may have kinds that deny tokens too.
		return kind, false, &VersionError{Version: PayloadVersion + 1}
	}
	return kind, false, nil
}

func (f *Follower) applied(s *session, kind Kind, sequence uint64, decidedAt int64) {
	f.counts.applied.Add(1)
	if f.observer.Applied == nil {
		return
	}
	delay := time.Duration(-1)
	if sequence > s.history.state.LastSeq {
		delay = max(f.l.now().Sub(time.UnixMilli(decidedAt)), 0)
	}
	f.observer.Applied(kind, sequence, delay)
}

// reject deals with a message that can't be applied: it is counted, logged once,
// and passed. If it may be a revocation, the edge is incomplete.
func (f *Follower) reject(kind Kind, m jetstream.Msg, meta *jetstream.MsgMetadata, err error) {
	sequence := meta.Sequence.Stream
	newer := (*VersionError)(nil)
	isNewer := errors.As(err, &newer)
	if isNewer {
		f.counts.newer.Add(1)
	} else {
		f.counts.poison.Add(1)
	}
	if sequence > f.poisoned {
		f.poisoned = sequence
		f.l.log.Error("an entry of the revocation ledger can't be applied", "sequence", sequence, "kind", kind.known(), "error", err)
	}
	if !isNewer && kind != KindEntry {
		return
	}
	until := meta.Timestamp.Add(incompleteFor).Unix()
	if ttl, e := time.ParseDuration(m.Headers().Get("Nats-TTL")); e == nil && ttl > 0 {
		until = meta.Timestamp.Add(ttl).Unix()
	}
	if isNewer {
		until = max(until, newer.Expires)
		f.hold(until)
	}
	f.sink.MarkIncomplete(fmt.Sprintf("entry %d: %v", sequence, err), until)
}

// known hides what an outsider wrote into a subject.
func (k Kind) known() Kind {
	switch k {
	case KindEntry, KindRestore, KindHeartbeat, KindGenesis:
		return k
	default:
		return "unknown"
	}
}
