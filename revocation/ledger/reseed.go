package ledger

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

const (
	reseedProof  = 5 * time.Second
	reseedBatch  = 2048
	reseedRounds = 1000
)

// ErrNotReplayed says that this edge does not know the ledger's present history
// to its end, so that it can't tell what is missing in it.
var ErrNotReplayed = errors.New("this edge has not read the ledger's present history to its end")

// Reseeded says what [Follower.Reseed] wrote.
type Reseeded struct {
	Entries  int // revocations
	Messages int // that hold them
}

// Holder is a sink that can say what it holds. The sequence is zero for what the
// ledger's present history may lack.
type Holder interface {
	HeldEntries() iter.Seq2[uint64, revocation.HeldEntry]
}

// Reseed writes what h, the follower's sink, holds and the ledger's present
// history lacks: after the stream was deleted, emptied or rolled back, edges that
// start later would let through what this one still denies. It is the operator's
// decision, since whoever emptied the ledger may have meant it. On an error, what
// was written so far stays written, and Reseed can be called again.
//
// A restoration that is recorded meanwhile is heeded: an entry is stored only if
// the newest restoration in the ledger, of which the server makes sure, is one
// that this edge had applied when it took the entry from h. That needs a NATS
// server of version 2.12 or later.
//
// The error wraps [ErrNotReplayed] if the edge has not read the present history,
// else it is one of those of [Ledger.PublishRevocation].
func (f *Follower) Reseed(ctx context.Context, h Holder) (done Reseeded, err error) {
	for range reseedRounds {
		again, err := f.reseed(ctx, h, &done)
		if !again {
			return done, err
		}
		select {
		case <-ctx.Done():
			return done, fmt.Errorf("%w: %w", revocation.ErrUnavailable, ctx.Err())
		case <-f.ctx.Done():
			return done, fmt.Errorf("%w: %w", revocation.ErrUnavailable, ErrClosed)
		case <-time.After(probeInterval):
		}
	}
	return done, fmt.Errorf("%w: restorations keep coming in between, try again", revocation.ErrUnavailable)
}

// reseed walks once, and tells whether a restoration came in between.
func (f *Follower) reseed(ctx context.Context, h Holder, done *Reseeded) (again bool, err error) {
	s, err := f.replayed(ctx)
	if err != nil {
		return false, err
	}
	if !atLeast(s.nc.ConnectedServerVersion(), 2, 12) {
		return false, fmt.Errorf("%w: reseeding needs NATS server 2.12 or later, this one is %s", revocation.ErrUnavailable, s.nc.ConnectedServerVersion())
	}
	last, err := f.l.lastOn(ctx, s.nc, KindRestore.Subject())
	if err != nil {
		return false, err
	}
	if last > f.sequence.Load() {
		return true, nil // it is about to come
	}
	w := reseeder{f: f, s: s, last: last, done: done}
	for sequence, e := range h.HeldEntries() {
		if sequence != 0 {
			continue
		}
		w.batch = append(w.batch, e)
		if len(w.batch) < reseedBatch {
			continue
		}
		if err = w.write(ctx, 1); err != nil {
			break
		}
	}
	for err == nil && len(w.batch) > 0 {
		err = w.write(ctx, len(w.batch))
	}
	return errors.Is(err, errOvertaken), err
}

// replayed waits until everything that the ledger holds is applied here, and
// returns the session that applied it.
func (f *Follower) replayed(ctx context.Context) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, reseedProof)
	defer cancel()
	for {
		s, err := f.beats.session.Load(), errNoProof
		if s != nil {
			if err = f.prove(ctx, s); err == nil {
				return s, nil
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", ErrNotReplayed, err)
		case <-f.ctx.Done():
			return nil, fmt.Errorf("%w: %w", ErrNotReplayed, ErrClosed)
		case <-time.After(probeInterval):
		}
	}
}

// reseeder writes entries of one walk.
type reseeder struct {
	f     *Follower
	s     *session
	last  uint64 // the newest restoration that was applied before the walk
	batch []revocation.HeldEntry
	done  *Reseeded
}

// write writes messages until as many entries of the batch are written as asked,
// or more.
func (w *reseeder) write(ctx context.Context, least int) error {
	for least > 0 && len(w.batch) > 0 {
		if w.f.beats.session.Load() != w.s {
			return fmt.Errorf("%w: following began again meanwhile", ErrNotReplayed)
		}
		n, err := w.f.l.publishHeld(ctx, w.batch, w.last)
		if err != nil {
			return err
		}
		w.done.Entries += n
		w.done.Messages++
		w.batch = append(w.batch[:0], w.batch[n:]...)
		least -= n
	}
	return nil
}

// publishHeld stores as many of hs as fit into one message, if the newest restore
// in the ledger is the one at the sequence last; else the error is errOvertaken.
func (l *Ledger) publishHeld(ctx context.Context, hs []revocation.HeldEntry, last uint64) (n int, err error) {
	data, n, err := pack(len(hs), func(i int) (any, error) { return encodeHeld(&hs[i]) })
	if err != nil {
		return 0, err
	}
	var expires int64
	for i := range hs[:n] {
		expires = max(expires, hs[i].Expires)
	}
	_, err = l.publish(ctx, message{
		kind: KindEntry, id: randomID(), data: data, ttl: messageTTL(expires, l.now(), l.o.MaxClockSkew),
		after: KindRestore.Subject(), last: last,
	})
	return n, err
}

// lastOn returns the sequence of the newest message on a subject, or zero.
func (l *Ledger) lastOn(ctx context.Context, nc *nats.Conn, subject string) (uint64, error) {
	msgs, err := l.directGet(ctx, nc, directRequest{Last: subject})
	switch {
	case errors.Is(err, errNoMessage):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("%w: %w", revocation.ErrUnavailable, err)
	}
	return msgs[0].sequence, nil
}

// atLeast compares a server's version with major.minor. What can't be read is
// taken for new.
func atLeast(version string, major, minor int) bool {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 3 {
		return true
	}
	m, err1 := strconv.Atoi(parts[0])
	n, err2 := strconv.Atoi(parts[1])
	return err1 != nil || err2 != nil || m > major || m == major && n >= minor
}
