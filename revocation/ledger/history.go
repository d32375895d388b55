package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// divergence returns why the stream's history cannot be the one that position
// belongs to, or an empty string. Following it from there would miss entries for
// ever. Latest is the newest time stamp seen up to there: that of the position's
// own entry is an older one where the server's clock was set back in between.
func (l *Ledger) divergence(ctx context.Context, nc *nats.Conn, h *history, p revocation.Position, latest time.Time) (string, error) {
	if p.Sequence == 0 {
		return "", nil
	}
	switch {
	case p.Ledger != h.ledger:
		return fmt.Sprintf("another ledger: its id was %q and is %q", p.Ledger, h.ledger), nil
	case !p.Created.Equal(h.created):
		return fmt.Sprintf("the stream was created again at %s", h.created.UTC()), nil
	case h.state.LastSeq < p.Sequence:
		return fmt.Sprintf("the stream was rolled back: it ends at %d, %d was applied", h.state.LastSeq, p.Sequence), nil
	}
	// A stream that was rolled back and has grown beyond the position again holds
	// entries at sequences that we passed. All of them were stored after the
	// position's own entry: so look at the newest of each kind up to there. The
	// entry at the position itself may have expired, most often it was a
	// heartbeat.
	msgs, err := l.directGet(ctx, nc, directRequest{MultiLast: []string{SubjectPrefix + ">"}, UpTo: p.Sequence})
	if errors.Is(err, errNoMessage) {
		return "", nil // not even the genesis entry: a replica that lags behind
	}
	if err != nil {
		return "", err
	}
	if latest.Before(p.Stored) {
		latest = p.Stored
	}
	for _, m := range msgs {
		if m.at.After(latest) || (m.sequence == p.Sequence && !m.at.Equal(p.Stored)) {
			return fmt.Sprintf("the stream was rolled back and has grown again: entry %d was stored at %s", m.sequence, m.at.UTC()), nil
		}
	}
	return "", nil
}
