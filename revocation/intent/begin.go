package intent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
)

// Begin makes an intent durable, before its request is forwarded. Attempts of the
// client on the same token at the same time share one: whoever has the token could
// take all places else. The caller holds the entry, see [Entry]. The error wraps
// [ErrUnavailable].
func (j *Journal) Begin(ctx context.Context, i Intent) (*Entry, error) {
	content, err := encode(&i)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	j.mu.Lock()
	if err := j.open(); err != nil {
		j.counts.refused++
		j.mu.Unlock()
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	e := j.shared(&i)
	if e != nil {
		e.holders++
		j.mu.Unlock()
		return e, j.await(ctx, e)
	}
	if err := j.makeRoom(&i); err != nil {
		j.counts.refused++
		j.mu.Unlock()
		return nil, err
	}
	e = &Entry{journal: j, name: randomName(), intent: i, holders: 1, written: make(chan struct{})}
	j.entries[e.name] = e
	f := j.folder
	j.mu.Unlock()
	j.write(ctx, f, e, content)
	return e, j.await(ctx, e)
}

// shared returns the entry of an attempt that is on its way now, if it is as good
// as one of i's own. An older one is not: a cutoff that is recorded late stays at
// the moment of the intent. The caller holds j.mu.
func (j *Journal) shared(i *Intent) *Entry {
	for _, e := range j.entries {
		age := i.Made.Sub(e.intent.Made)
		if e.holders > 0 && !e.accepted && age >= 0 && age < prompt && e.asks(i) {
			return e
		}
	}
	return nil
}

// write makes the file of e. It does so without the lock: others may write
// meanwhile, and a disk syncs several files in little more time than one.
func (j *Journal) write(ctx context.Context, f *folder, e *Entry, content []byte) {
	defer close(e.written)
	select {
	case j.writing <- struct{}{}:
		defer func() { <-j.writing }()
		e.err = f.write(e.name, content)
		j.mu.Lock()
		defer j.mu.Unlock()
		j.wrote(f, e.err)
	case <-ctx.Done():
		e.err = ctx.Err()
		j.mu.Lock()
		defer j.mu.Unlock()
	}
	if e.err != nil {
		j.counts.refused++
		delete(j.entries, e.name)
	}
}

// wrote remembers whether something could be written to f. The caller holds j.mu.
func (j *Journal) wrote(f *folder, err error) {
	if j.folder != f {
		return
	}
	j.broken = err
	if errors.Is(err, fs.ErrNotExist) { // somebody has removed it: make another one
		j.folder = nil
		_ = f.lock.Close()
	}
}

// await returns when the entry, which the caller holds, is durable. With an error,
// which wraps [ErrUnavailable], the caller holds it no longer.
func (j *Journal) await(ctx context.Context, e *Entry) error {
	var err error
	select {
	case <-e.written:
		err = e.err
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err == nil {
		return nil
	}
	e.Drop()
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// makeRoom makes room for one more of the client, if need be by dropping one of
// unknown outcome: nobody was promised anything about those. One client can't take
// the places of all others. The caller holds j.mu.
func (j *Journal) makeRoom(i *Intent) error {
	open := 0
	var oldest, own *Entry
	for _, e := range j.entries {
		mine := e.intent.Issuer == i.Issuer && e.intent.Client == i.Client
		if mine && !e.accepted {
			open++
		}
		if !e.idle() {
			continue
		}
		if oldest == nil || e.intent.Made.Before(oldest.intent.Made) {
			oldest = e
		}
		if mine && (own == nil || e.intent.Made.Before(own.intent.Made)) {
			own = e
		}
	}
	switch {
	case open >= max(minShare, j.options.MaxOpen/4):
		oldest = own
	case len(j.entries) < j.options.MaxOpen:
		return nil
	}
	if oldest == nil {
		return fmt.Errorf("%w: %d intents are open, %d of this client", ErrUnavailable, len(j.entries), open)
	}
	j.counts.evicted++
	j.log.Warn("intent of unknown outcome dropped for a newer one", slog.String("client_id", oldest.intent.Client))
	j.forget(oldest)
	return nil
}

// Resume returns the intent of an earlier attempt of the client on the same token,
// nil if there is none. It may be accepted already, and not recorded, or another
// attempt may still be on its way. The caller holds it, as after [Journal.Begin].
// The error is that of ctx.
func (j *Journal) Resume(ctx context.Context, issuer, client, token string) (*Entry, error) {
	j.mu.Lock()
	var match *Entry
	for _, e := range j.entries {
		if e.is(issuer, client, token) && (match == nil || e.says(match)) {
			match = e
		}
	}
	if match == nil {
		j.mu.Unlock()
		return nil, nil
	}
	match.holders++
	j.mu.Unlock()
	switch err := j.await(ctx, match); {
	case err == nil:
		return match, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	default:
		return nil, nil // it was not forwarded
	}
}

// says tells whether more is known of e than of another intent of the same token,
// or more is to be recorded for it.
func (e *Entry) says(more *Entry) bool {
	switch {
	case e.accepted != more.accepted:
		return e.accepted
	case len(e.intent.Requests) != len(more.intent.Requests):
		return len(e.intent.Requests) > len(more.intent.Requests)
	default:
		return e.intent.Made.After(more.intent.Made)
	}
}
