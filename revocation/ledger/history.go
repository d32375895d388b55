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
// ever. Acked is what the server had acknowledged to us before h was asked for.
func (l *Ledger) divergence(ctx context.Context, nc *nats.Conn, h *history, p revocation.Position, acked acknowledged) (string, error) {
	if p.Sequence == 0 {
		return "", nil
	}
	if acked.sequence <= p.Sequence || !acked.created.Equal(h.created) {
		acked = acknowledged{}
	}
	switch {
	case p.Ledger != h.ledger:
		return fmt.Sprintf("another ledger: its id was %q and is %q", p.Ledger, h.ledger), nil
	case !p.Created.Equal(h.created):
		return fmt.Sprintf("the stream was created again at %s", h.created.UTC()), nil
	case h.state.LastSeq < p.Sequence:
		return fmt.Sprintf("the stream was rolled back: it ends at %d, %d was applied", h.state.LastSeq, p.Sequence), nil
	case h.state.LastSeq < acked.sequence:
		return fmt.Sprintf("the stream was rolled back: it ends at %d, %d was acknowledged", h.state.LastSeq, acked.sequence), nil
	}
	if acked.sequence != 0 {
		msgs, err := l.directGet(ctx, nc, directRequest{Sequence: acked.sequence})
		if err != nil && !errors.Is(err, errNoMessage) { // which may have ended
			return "", err
		}
		if err == nil && msgs[0].header.Get(nats.MsgIdHdr) != acked.id {
			return fmt.Sprintf("the stream was rolled back and has grown again: entry %d is not the one that was acknowledged", acked.sequence), nil
		}
	}
	// A stream that was rolled back and has grown beyond the position again holds
	// entries at sequences that we passed. All of them were stored after the
	// position's own entry: so look at the newest of each kind up to there. The
	// entry at the position itself may have expired, most often it was a
	// heartbeat. Used assertions have a subject each and do not matter here:
	// they revoke nothing.
	msgs, err := l.directGet(ctx, nc, directRequest{MultiLast: []string{SubjectPrefix + "*"}, UpTo: p.Sequence})
	if errors.Is(err, errNoMessage) {
		return "", nil // not even the genesis entry: a replica that lags behind
	}
	if err != nil {
		return "", err
	}
	// The position's own time stamp is not the newest one where the server's
	// clock was set back before it. A position of before that was kept lacks it.
	latest := p.Latest
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

// acknowledged is the newest message that the server acknowledged to us. The
// follower may not have come to it when the stream is rolled back to before it.
type acknowledged struct {
	created  time.Time // of the stream
	sequence uint64
	id       string
}

// newestAcked returns what was acknowledged last.
func (l *Ledger) newestAcked() acknowledged {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acked
}

// forgetAcked is for when another history has begun.
func (l *Ledger) forgetAcked() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked = acknowledged{}
}

// moved tells whether the newest look at the stream found another ledger in it
// than h: its beginning was dropped, and with it what else was old, although the
// consumer goes on.
func (l *Ledger) moved(h *history) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen != nil && l.seen.created.Equal(h.created) && l.seen.asked.After(h.asked) && l.seen.ledger != h.ledger && l.seen.config.AllowDirect
}
