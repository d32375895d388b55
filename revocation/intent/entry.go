package intent

import (
	"context"
	"log/slog"
	"reflect"
	"time"
)

// Entry is an intent that one or more requests hold: attempts of one client on the
// same token at about the same time share it. Each has to let go of it once, with
// [Entry.Drop], [Entry.Leave] or [Entry.Record].
type Entry struct {
	journal *Journal
	name    string
	intent  Intent
	// written is closed once the file is durable, or can't be: then err is set.
	written chan struct{}
	err     error

	// The journal's lock guards the rest.
	holders  int
	accepted bool
	// kept is true once the outcome of an attempt is unknown. From then on, no
	// attempt that the authorization server refuses ends the intent: what it says
	// to one attempt, it does not say of another.
	kept bool
	// due is true if the worker is to record it: all of it if it is accepted, and
	// else the token itself.
	due bool
	// token is the token itself while it can still help to learn the outcome. It
	// is in memory only.
	token string
	since time.Time // when token came here
}

// isWritten is the written of entries that come from the disk.
var isWritten = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

func (e *Entry) is(issuer, client, token string) bool {
	return e.intent.Token == token && e.intent.Client == client && e.intent.Issuer == issuer
}

// asks tells whether the same is to be recorded for i. The same token may be
// presented with another hint, or where another grant claim is configured.
func (e *Entry) asks(i *Intent) bool {
	return e.is(i.Issuer, i.Client, i.Token) && e.intent.Recheck == i.Recheck &&
		reflect.DeepEqual(e.intent.Requests, i.Requests)
}

// idle tells whether nobody learned what became of it, and nobody works on it. The
// caller holds j.mu, here and below.
func (e *Entry) idle() bool { return e.holders == 0 && !e.accepted && !e.due }

// Intent returns what is to be recorded. It must not be changed.
func (e *Entry) Intent() *Intent { return &e.intent }

// Accepted tells whether the authorization server has answered 200 to one of the
// attempts.
func (e *Entry) Accepted() bool {
	e.journal.mu.Lock()
	defer e.journal.mu.Unlock()
	return e.accepted
}

// Drop says that the authorization server has refused this attempt, or that its
// answer counts for nothing. If there was no other attempt, the intent is
// forgotten. One of unknown outcome, or one that was accepted, from an earlier
// attempt, is kept.
func (e *Entry) Drop() {
	j := e.journal
	j.mu.Lock()
	defer j.mu.Unlock()
	e.holders--
	j.settle(e)
}

// Leave keeps the intent although the outcome of this attempt is unknown. The
// token is what the authorization server may be asked about: it has to be one that
// it is known to have called active before. Empty means that there is nothing to
// ask.
func (e *Entry) Leave(token string) {
	j := e.journal
	j.mu.Lock()
	defer j.mu.Unlock()
	e.holders--
	e.kept = true
	if token != "" && j.options.Active != nil && !e.accepted {
		e.token, e.since = token, j.options.Now()
		j.asking.rouse()
	}
	for _, old := range j.entries {
		if old != e && old.idle() && old.asks(&e.intent) {
			j.forget(old) // this attempt takes its place
		}
	}
	j.settle(e)
}

// settle is called after a holder has let go.
func (j *Journal) settle(e *Entry) {
	switch {
	case e.holders > 0 || j.entries[e.name] != e:
	case e.accepted:
		e.due = true
		j.recording.rouse()
	case !e.kept && !e.due:
		j.forget(e)
	}
}

// Accept marks the intent as accepted: from now on it is recorded, whatever
// happens to this process. An error says that it may not survive this process;
// it is to be recorded all the same.
func (e *Entry) Accept() error {
	j := e.journal
	j.mu.Lock()
	if e.accepted {
		j.mu.Unlock()
		return nil
	}
	e.accepted, e.token = true, ""
	f := j.folder
	j.mu.Unlock()
	if f == nil {
		return errGone
	}
	err := f.accept(e.name)
	if err == nil {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.entries[e.name] != e {
		return nil // another attempt has recorded it meanwhile
	}
	j.log.Error("an accepted revocation can't be marked on disk", slog.Any("error", err))
	return err
}

// Record calls record, and forgets the intent if that succeeds; if not, the worker
// goes on. It is called after [Entry.Accept]. The error is that of record.
func (e *Entry) Record(ctx context.Context, record func(context.Context, *Intent) error) error {
	err := record(ctx, &e.intent)
	j := e.journal
	j.mu.Lock()
	defer j.mu.Unlock()
	e.holders--
	j.recorded(e, err)
	return err
}

// recorded acts on the outcome of recording all of e.
func (j *Journal) recorded(e *Entry, err error) {
	if j.entries[e.name] != e {
		return // somebody else was faster
	}
	switch {
	case finished(err):
		j.forget(e)
		for _, old := range j.entries {
			if old.idle() && old.is(e.intent.Issuer, e.intent.Client, e.intent.Token) {
				j.forget(old) // the 200 was for that attempt, too
			}
		}
	case hopeless(err):
		j.giveUp(e, err)
	default:
		e.due = true
		j.recording.rouse()
	}
}

// giveUp puts an intent aside that can't ever be recorded.
func (j *Journal) giveUp(e *Entry, err error) {
	j.log.Error("a revocation that the authorization server has accepted can't be recorded; its file was put aside",
		slog.String("client_id", e.intent.Client), slog.Any("error", err))
	delete(j.entries, e.name)
	if j.folder == nil {
		return
	}
	if err := j.folder.setAside(e.name); err != nil {
		j.log.Error("an intent can't be put aside", slog.Any("error", err))
	}
}
