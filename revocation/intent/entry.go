package intent

import (
	"context"
	"log/slog"
	"time"
)

// Entry is an intent that somebody works on: one request, or the worker.
type Entry struct {
	journal *Journal
	name    string
	intent  Intent

	// The journal's lock guards the rest.
	held     bool
	accepted bool
	// token is the token itself while it can still help to learn the outcome. It
	// is in memory only.
	token string
	since time.Time // when token came here
}

func (e *Entry) is(issuer, client, token string) bool {
	return e.intent.Token == token && e.intent.Client == client && e.intent.Issuer == issuer
}

// Intent returns what is to be recorded.
func (e *Entry) Intent() *Intent { return &e.intent }

// Drop forgets the intent: the authorization server has refused, or its answer
// counts for nothing. One that was accepted before, for an earlier attempt, is
// kept and recorded.
func (e *Entry) Drop() {
	j := e.journal
	j.mu.Lock()
	defer j.mu.Unlock()
	if e.accepted {
		j.release(e)
		j.rouse()
		return
	}
	j.forget(e)
	j.release(e)
}

// Leave keeps the intent although its outcome is unknown. The token is what the
// authorization server may be asked about: it has to be one that it is known to
// have called active before. Empty means that there is nothing to ask.
func (e *Entry) Leave(token string) {
	j := e.journal
	j.mu.Lock()
	defer j.mu.Unlock()
	if token != "" && j.options.Active != nil && !e.accepted {
		e.token, e.since = token, j.options.Now()
	}
	j.release(e)
	j.rouse()
}

// Accept marks the intent as accepted: from now on it is recorded, whatever
// happens to this process. An error says that it may not survive this process;
// it is to be recorded all the same.
func (e *Entry) Accept() error {
	j := e.journal
	j.mu.Lock()
	defer j.mu.Unlock()
	if e.accepted {
		return nil
	}
	e.accepted, e.token = true, ""
	if err := j.folder.accept(e.name); err != nil {
		j.log.Error("an accepted revocation can't be marked on disk", slog.Any("error", err))
		return err
	}
	return nil
}

// Record calls record, and forgets the intent if that succeeds; if not, the worker
// goes on. It is called after [Entry.Accept]. The error is that of record.
func (e *Entry) Record(ctx context.Context, record func(context.Context, *Intent) error) error {
	err := record(ctx, &e.intent)
	j := e.journal
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case finished(err):
		j.forget(e)
	case hopeless(err):
		j.giveUp(e, err)
	default:
		defer j.rouse()
	}
	j.release(e)
	return err
}

// giveUp puts an intent aside that can't ever be recorded. The caller holds j.mu.
func (j *Journal) giveUp(e *Entry, err error) {
	j.log.Error("a revocation that the authorization server has accepted can't be recorded; its file was put aside",
		slog.String("client_id", e.intent.Client), slog.Any("error", err))
	delete(j.entries, e.name)
	if err := j.folder.setAside(e.name); err != nil {
		j.log.Error("an intent can't be put aside", slog.Any("error", err))
	}
}
