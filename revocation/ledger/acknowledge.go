package ledger

import (
	"context"
	"errors"
	"fmt"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// PublishAcknowledgment records, by the operator's word and for the whole fleet,
// that the entry at the sequence does not matter although it can't be read: edges
// that are incomplete because of it are so no more. It returns the sequence of
// the acknowledgment.
//
// It refuses what this edge can read, with [revocation.ErrInvalidRequest]: an
// entry that is understood is undone by a restoration of its criteria, by whoever
// may do that. It wraps [ErrNoEntry] if there is nothing at the sequence; other
// errors are those of [Ledger.PublishRevocation].
func (l *Ledger) PublishAcknowledgment(ctx context.Context, sequence uint64, reason, actor string) (uint64, error) {
	if len(reason) > revocation.MaxReason || len(actor) > revocation.MaxActor {
		return 0, fmt.Errorf("%w: the reason is longer than %d bytes", revocation.ErrInvalidRequest, revocation.MaxReason)
	}
	if sequence == 0 {
		return 0, fmt.Errorf("%w: the sequence is missing", revocation.ErrInvalidRequest)
	}
	m, err := l.entryAt(ctx, sequence)
	if err != nil {
		return 0, err
	}
	kind, _, err := read(m.subject, m.data)
	newer := (*VersionError)(nil)
	isNewer := errors.As(err, &newer)
	switch {
	case err == nil:
		return 0, fmt.Errorf("%w: entry %d can be read here, there is nothing to acknowledge; to undo a revocation, restore its criteria", revocation.ErrInvalidRequest, sequence)
	case !isNewer && !kind.matters():
		return 0, fmt.Errorf("%w: entry %d makes no edge incomplete", revocation.ErrInvalidRequest, sequence)
	}
	out := message{kind: KindRestore, id: randomID()}
	// It has to outlive what it acknowledges, or an edge that reads the ledger
	// from its beginning is incomplete again.
	if life, limited := messageLife(m.header); limited {
		until := m.at.Add(life).Unix()
		if isNewer {
			until = max(until, newer.Expires)
		}
		out.ttl = messageTTL(until, l.now(), l.o.MaxClockSkew)
	}
	out.data, err = encode(wireAcknowledgment{
		Version: PayloadVersion, ID: out.id, Entry: sequence, Reason: reason, Actor: actor, DecidedAt: l.now().UnixMilli(),
	})
	if err != nil {
		return 0, err
	}
	return l.publish(ctx, out)
}
