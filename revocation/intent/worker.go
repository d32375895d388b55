package intent

import (
	"context"
	"log/slog"
	"slices"
	"time"
)

// lane is one kind of the worker's work. What was accepted is not to wait until
// an authorization server has been asked about something else.
type lane struct {
	wake chan struct{}
	pass func(context.Context) (ok bool) // tries each intent once; false: try again
	idle func() bool                     // there is nothing to do but to wait
}

// rouse makes the lane look now.
func (l *lane) rouse() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// work goes on with intents that no request works on, until ctx ends.
func (j *Journal) work(ctx context.Context, l *lane) {
	pause := minRetry
	idle := false
	looked := j.options.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
			// While it is busy anyway, nothing is tried out of turn: the ledger
			// may be down.
			if idle {
				idle = false
				timer.Reset(minRetry)
			}
			continue
		case <-timer.C:
		}
		if now := j.options.Now(); l == &j.recording && now.Sub(looked) >= lookAround {
			looked = now
			j.look()
		}
		if l.pass(ctx) {
			pause = minRetry
		} else {
			pause = min(2*pause, j.options.MaxRetry)
		}
		if idle = l.idle(); idle {
			timer.Reset(lookAround)
		} else {
			timer.Reset(pause)
		}
	}
}

// look opens the folder, or looks for what dead processes have left, and whether a
// folder that could not be written to can be again.
func (j *Journal) look() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return
	}
	if f := j.folder; f != nil && (j.broken != nil || !exists(f.path)) {
		j.mu.Unlock()
		err := f.probe()
		j.mu.Lock()
		j.wrote(f, err)
		if err != nil && j.folder == f {
			j.log.Error("intents can't be kept, requests to the authorization server are refused", slog.Any("error", err))
		}
	}
	switch {
	case j.closed:
	case j.folder == nil:
		if err := j.open(); err != nil {
			j.log.Error("intents can't be kept, requests to the authorization server are refused", slog.Any("error", err))
		}
	default:
		j.adopt()
	}
}

func (j *Journal) nothingDue() bool {
	return len(j.pick(func(e *Entry) bool { return e.due })) == 0
}

func (j *Journal) nothingToAsk() bool {
	return len(j.pick(func(e *Entry) bool { return e.token != "" })) == 0
}

// pick returns the entries that are wanted, the oldest first.
func (j *Journal) pick(wanted func(*Entry) bool) []*Entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	var picked []*Entry
	for _, e := range j.entries {
		if wanted(e) {
			picked = append(picked, e)
		}
	}
	slices.SortFunc(picked, func(a, b *Entry) int { return a.intent.Made.Compare(b.intent.Made) })
	return picked
}

// recordAll records what is due. It ends with the first failure: the ledger is
// down, and the others would only wait for it, too.
func (j *Journal) recordAll(ctx context.Context) (ok bool) {
	now := j.options.Now()
	for _, e := range j.pick(func(e *Entry) bool { return !j.over(e, now) && e.due }) {
		if ctx.Err() != nil || !j.recordLate(ctx, e) {
			return false
		}
	}
	return true
}

// recordLate records an intent, or its first request only if the authorization
// server has said nothing but that the token is dead. It returns false if it has
// to be tried again.
func (j *Journal) recordLate(ctx context.Context, e *Entry) (ok bool) {
	j.mu.Lock()
	all, i := e.accepted, e.intent
	gone := j.entries[e.name] != e || !e.due
	j.mu.Unlock()
	if gone {
		return true
	}
	if !all {
		i.Requests = i.Requests[:1]
	}
	attempt, cancel := context.WithTimeout(ctx, j.options.Timeout)
	err := j.options.Record(attempt, &i)
	cancel()
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case !finished(err) && !hopeless(err):
		j.log.Debug("revocation not recorded yet", slog.Any("error", err))
		return false
	case j.entries[e.name] != e:
		return true // a request has recorded it meanwhile
	case all || !finished(err):
		j.recorded(e, err)
	case e.accepted:
		return true // meanwhile: the rest of it is for its request
	default:
		e.due = false
		if e.kept = len(e.intent.Requests) > 1; !e.kept {
			j.settle(e)
		}
	}
	if finished(err) {
		j.counts.late++
		j.log.Info("revocation recorded late", slog.String("issuer", i.Issuer), slog.String("client_id", i.Client),
			slog.Bool("accepted", all), slog.Duration("after", j.options.Now().Sub(i.Made)))
	}
	return true
}

// over forgets what can't matter any more. The caller holds j.mu.
func (j *Journal) over(e *Entry, now time.Time) bool {
	switch {
	case e.holders > 0:
		return false
	case now.After(e.intent.Ends):
		if e.accepted {
			j.log.Warn("a revocation was not recorded before its token ended", slog.String("client_id", e.intent.Client))
		} else {
			j.counts.unknownEnded++
		}
	case !e.accepted && now.Sub(e.intent.Made) > MaxUnknown:
		j.counts.unknownEnded++
		j.log.Info("intent dropped: nobody learned what became of it", slog.String("client_id", e.intent.Client))
	default:
		return false
	}
	j.forget(e)
	return true
}

// askAll asks the authorization server about tokens of unknown outcome. One that
// was alive before the request and is dead now may be denied, whoever's doing it
// was. One that is still alive proves nothing yet: the request may be on its way.
func (j *Journal) askAll(ctx context.Context) (ok bool) {
	ok = true
	for _, e := range j.pick(func(e *Entry) bool { return e.token != "" }) {
		j.mu.Lock()
		token, since := e.token, e.since
		gone := j.entries[e.name] != e || token == ""
		j.mu.Unlock()
		switch {
		case ctx.Err() != nil:
			return false
		case gone:
			continue
		}
		attempt, cancel := context.WithTimeout(ctx, j.options.Timeout)
		active, err := j.options.Active(attempt, e.intent.Issuer, token)
		cancel()
		j.mu.Lock()
		switch {
		case e.token == "": // accepted meanwhile
		case err == nil && !active:
			e.token, e.due = "", true
			j.recording.rouse()
		case j.options.Now().Sub(since) > askFor:
			e.token = ""
		default:
			ok = false
		}
		j.mu.Unlock()
	}
	return ok
}
