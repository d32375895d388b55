package ledger

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// incompleteFor is how long an entry that can't be read may stand, if nothing
// says more precisely when it ends.
const incompleteFor = 7 * 24 * time.Hour

// heedInterval is the least time between two warnings of the same kind.
const heedInterval = time.Minute

// apply brings one message to the sink and moves the position behind it.
func (f *Follower) apply(s *session, m jetstream.Msg, meta *jetstream.MsgMetadata) {
	sequence := meta.Sequence.Stream
	kind, said, err := read(m.Subject(), m.Data())
	if err != nil {
		f.reject(kind, m, meta, err)
	}
	f.carryOut(s, kind, said, m, meta)
	p := f.position
	p.Ledger, p.Created, p.Sequence, p.Stored = s.history.ledger, s.history.created, sequence, meta.Timestamp
	if p.Stored.After(p.Latest) {
		p.Latest = p.Stored
	}
	if kind == KindEntry || kind == KindRestore { // even one that can't be applied
		p = bearWitness(p, m.Headers())
	}
	f.position = p
	f.sink.SetPosition(f.persistent())
	f.lag.Store(meta.NumPending)
	f.sequence.Store(sequence)
	if said.heartbeat {
		// Only now: everything up to the heartbeat is in force.
		f.beats.settle(s, sequence)
	}
}

// content is what a message says. At most one of its members is set.
type content struct {
	items          []item
	restoration    *revocation.Restoration
	acknowledgment *acknowledgment
	recheck        *revocation.Recheck
	heartbeat      bool
	beat           string // the heartbeat's id
}

// read decodes by subject: what a message does is what its publisher was
// permitted to write, not what it says. The error is a [VersionError] or wraps
// [ErrPayload].
func read(subject string, data []byte) (kind Kind, c content, err error) {
	suffix, ours := strings.CutPrefix(subject, SubjectPrefix)
	if !ours {
		return "", c, fmt.Errorf("%w: an unknown subject", ErrPayload)
	}
	if strings.HasPrefix(suffix, string(KindAssertion)+".") {
		return KindAssertion, c, nil // the server alone judges them, see UseOnce
	}
	switch kind = Kind(suffix); kind {
	case KindEntry:
		c.items, err = decodeEntry(data)
	case KindRestore:
		c.restoration, c.acknowledgment, err = decodeRestore(data)
	case KindRecheck:
		c.recheck, err = decodeRecheck(data)
	case KindHeartbeat:
		c.beat, err = decodeHeartbeat(data)
		c.heartbeat = err == nil
	case KindGenesis: // looked up when the session began
	default:
		// A later version may have kinds that deny tokens too.
		err = &VersionError{Version: PayloadVersion + 1}
	}
	return kind, c, err
}

// carryOut gives the sink what a message says.
func (f *Follower) carryOut(s *session, kind Kind, c content, m jetstream.Msg, meta *jetstream.MsgMetadata) {
	sequence := meta.Sequence.Stream
	stored := meta.Timestamp.UnixMilli()
	switch {
	case c.items != nil:
		f.heed(c.items, m, meta)
		id := m.Headers().Get(nats.MsgIdHdr)
		for i, item := range c.items {
			if h := item.held; h != nil {
				f.sink.RevokeHeld(sequence, h)
				f.applied(s, kind, sequence, stored)
				continue
			}
			r := item.revocation
			if r.ID == "" {
				r.ID = entryID(id, sequence, i, len(c.items))
			}
			if r.DecidedAt == 0 {
				r.DecidedAt = stored
			}
			f.sink.Revoke(sequence, r)
			f.applied(s, kind, sequence, r.DecidedAt)
		}
	case c.restoration != nil:
		r := c.restoration
		if r.ID == "" {
			r.ID = entryID(m.Headers().Get(nats.MsgIdHdr), sequence, 0, 1)
		}
		if r.DecidedAt == 0 {
			r.DecidedAt = stored
		}
		f.sink.Restore(sequence, r)
		f.applied(s, kind, sequence, r.DecidedAt)
	case c.acknowledgment != nil:
		f.acknowledge(sequence, c.acknowledgment.sequence)
		f.applied(s, kind, sequence, stored)
	case c.recheck != nil:
		r := c.recheck
		f.heedEnd(meta.Timestamp.Add(revocation.MaxIntrospectionAge).Unix(), m, meta)
		f.sink.Recheck(sequence, r.Issuer)
		f.applied(s, kind, sequence, cmp.Or(r.DecidedAt, stored))
	case c.heartbeat:
		f.beats.arrived(c.beat, meta.Timestamp)
	}
}

// acknowledge ends what an unreadable entry at a lower sequence caused.
func (f *Follower) acknowledge(at, sequence uint64) {
	if sequence >= at {
		f.counts.poison.Add(1)
		f.l.log.Warn("an acknowledgment of what comes after it has no effect", "sequence", at)
		return
	}
	f.holds.release(sequence)
	if f.sink.Acknowledge(sequence) {
		f.l.log.Warn("an entry that can't be read was acknowledged: it is not in force here", "entry", sequence, "sequence", at)
	}
}

// heed warns of entries that the server forgets before they end: an edge that
// starts without a checkpoint after that does not know them. This one does.
func (f *Follower) heed(items []item, m jetstream.Msg, meta *jetstream.MsgMetadata) {
	var expires int64
	for _, i := range items {
		expires = max(expires, i.expires())
	}
	f.heedEnd(expires, m, meta)
}

// heedEnd is heed for a message of which the last part ends at the given time, in
// Unix seconds.
func (f *Follower) heedEnd(expires int64, m jetstream.Msg, meta *jetstream.MsgMetadata) {
	ttl, ok := messageLife(m.Headers())
	if !ok || expires <= meta.Timestamp.Add(ttl).Unix() {
		return
	}
	f.counts.shortLived.Add(1)
	if now := f.l.now(); f.heeded.IsZero() || now.Sub(f.heeded) > heedInterval {
		f.heeded = now
		f.l.log.Error("the ledger forgets an entry before it ends: its producer gives too short a Nats-TTL",
			"sequence", meta.Sequence.Stream, "stored_for", ttl, "expires", expires)
	}
}

// messageLife returns how long the server keeps a message, and false if it keeps
// it for ever.
func messageLife(h nats.Header) (time.Duration, bool) {
	text := h.Get("Nats-TTL")
	if text == "" {
		return 0, false
	}
	if last := text[len(text)-1]; '0' <= last && last <= '9' { // seconds, without a unit
		seconds, err := strconv.ParseInt(text, 10, 64)
		const most = math.MaxInt64 / int64(time.Second)
		return time.Duration(min(max(seconds, 0), most)) * time.Second, err == nil && seconds > 0
	}
	if ttl, err := time.ParseDuration(text); err == nil && ttl >= time.Second {
		return ttl.Truncate(time.Second), true // as the server reads it
	}
	return 0, false
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
	if !isNewer && !kind.matters() {
		return
	}
	until := meta.Timestamp.Add(incompleteFor).Unix()
	if ttl, ok := messageLife(m.Headers()); ok {
		until = meta.Timestamp.Add(ttl).Unix()
	}
	if !isNewer && kind == KindRecheck {
		// However long it is kept: what was introspected before has ended then.
		until = meta.Timestamp.Add(revocation.MaxIntrospectionAge).Unix()
	}
	if isNewer {
		until = max(until, newer.Expires)
		f.holds.add(hold{sequence: sequence, before: f.position, until: until})
	}
	f.sink.MarkUnreadable(sequence, fmt.Sprintf("entry %d: %v", sequence, err), until)
}

// known hides what an outsider wrote into a subject.
func (k Kind) known() Kind {
	switch k {
	case KindEntry, KindRestore, KindHeartbeat, KindGenesis, KindAssertion, KindRecheck:
		return k
	default:
		return "unknown"
	}
}

// matters tells whether a message of the kind that can't be read leaves something
// undone that denies tokens.
func (k Kind) matters() bool { return k == KindEntry || k == KindRecheck }
