package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// standsTimeout bounds how long it may take to find out that nothing needs to be
// published. Publishing is what happens otherwise, and not slow.
const standsTimeout = 500 * time.Millisecond

// Stands tells whether the entry at the sequence exists in the ledger's present
// history and denies by itself all that each of rs would, for as long; and has
// then brought to the sink every restoration that was acknowledged, by any edge,
// before the call: ask the sink again after it. An error means the same as false:
// publish.
//
// A heartbeat that is sent and comes back proves it: at most one every 10 ms,
// shared by all callers. Nothing else is written.
func (f *Follower) Stands(ctx context.Context, sequence uint64, rs ...*revocation.Revocation) (bool, error) {
	s := f.provable()
	if s == nil || f.sequence.Load() < sequence {
		return false, errNoProof // no use in waiting
	}
	ctx, cancel := context.WithTimeout(ctx, standsTimeout)
	defer cancel()
	if err := f.prove(ctx, s); err != nil {
		return false, err
	}
	m, err := f.l.entryAt(ctx, sequence)
	if err != nil {
		return false, err
	}
	kind, said, err := read(m.subject, m.data)
	if err != nil || kind != KindEntry {
		return false, err
	}
	for _, r := range rs {
		if !coversAny(said.items, r) {
			return false, nil
		}
		// An edge that starts tomorrow needs it too.
		if life, limited := messageLife(m.header); limited && m.at.Add(life).Unix() < r.Expires {
			return false, nil
		}
	}
	return f.beats.session.Load() == s, nil
}

func coversAny(items []item, r *revocation.Revocation) bool {
	for _, i := range items {
		if i.covers(r) {
			return true
		}
	}
	return false
}

// ErrNoEntry says that the ledger has no entry at a sequence, as far as the
// server that answered knows.
var ErrNoEntry = errors.New("the ledger has no such entry")

// entryAt reads one message.
func (l *Ledger) entryAt(ctx context.Context, sequence uint64) (stored, error) {
	nc, _, _, err := l.link.current()
	if err != nil {
		return stored{}, fmt.Errorf("%w: %w", revocation.ErrUnavailable, err)
	}
	msgs, err := l.directGet(ctx, nc, directRequest{Sequence: sequence})
	switch {
	case errors.Is(err, errNoMessage):
		return stored{}, fmt.Errorf("%w: %d", ErrNoEntry, sequence)
	case err != nil:
		return stored{}, fmt.Errorf("%w: %w", revocation.ErrUnavailable, err)
	}
	return msgs[0], nil
}
