package intent

import (
	"context"
	"log/slog"
	"slices"
	"time"
)

// work goes on with intents that no request works on, until ctx ends.
func (j *Journal) work(ctx context.Context) {
	defer close(j.done)
	pause := minRetry
	idle := false
	looked := j.options.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-j.wake:
			// While it is busy anyway, nothing is tried out of turn: the ledger
			// may be down.
			if idle {
				idle = false
				timer.Reset(minRetry)
			}
			continue
		case <-timer.C:
		}
		if now := j.options.Now(); now.Sub(looked) >= lookAround {
			looked = now
			j.look()
		}
		if j.pass(ctx) {
			pause = minRetry
		} else {
			pause = min(2*pause, j.options.MaxRetry)
		}
		if idle = j.idle(); idle {
			timer.Reset(lookAround)
		} else {
			timer.Reset(pause)
		}
	}
}

// look opens the folder, or looks for what dead processes have left.
func (j *Journal) look() {
	j.mu.Lock()
	defer j.mu.Unlock()
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

// idle tells whether there is nothing to do but to wait.
func (j *Journal) idle() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, e := range j.entries {
		if e.accepted || e.token != "" {
			return false
		}
	}
	return j.folder != nil
}

// pass tries each intent once, the oldest first, and returns false if one of them
// has to be tried again.
func (j *Journal) pass(ctx context.Context) (ok bool) {
	j.mu.Lock()
	todo := make([]*Entry, 0, len(j.entries))
	now := j.options.Now()
	for _, e := range j.entries {
		switch {
		case e.held:
		case j.over(e, now):
		case e.accepted, e.token != "":
			todo = append(todo, e)
		}
	}
	j.mu.Unlock()
	slices.SortFunc(todo, func(a, b *Entry) int { return a.intent.Made.Compare(b.intent.Made) })
	ok = true
	down := false // the ledger: the others would only wait for it, too
	for _, e := range todo {
		if ctx.Err() != nil {
			return false
		}
		switch {
		case !j.hold(e):
			continue
		case !j.settle(ctx, e):
			ok = false
			j.free(e)
		case down:
			ok = false
			j.free(e)
		default:
			attempt, cancel := context.WithTimeout(ctx, j.options.Timeout)
			err := e.Record(attempt, j.options.Record)
			cancel()
			switch {
			case finished(err):
				j.mu.Lock()
				j.counts.late++
				j.mu.Unlock()
				j.log.Info("revocation recorded late", slog.String("issuer", e.intent.Issuer),
					slog.String("client_id", e.intent.Client), slog.Duration("after", j.options.Now().Sub(e.intent.Made)))
			case !hopeless(err):
				ok, down = false, true
				j.log.Debug("revocation not recorded yet", slog.Any("error", err))
			}
		}
	}
	return ok
}

// over forgets what can't matter any more. The caller holds j.mu.
func (j *Journal) over(e *Entry, now time.Time) bool {
	switch {
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

// hold takes the entry, unless a request has it by now, or it is gone.
func (j *Journal) hold(e *Entry) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if e.held || j.entries[e.name] != e {
		return false
	}
	e.held = true
	return true
}

func (j *Journal) free(e *Entry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.release(e)
}

// settle tells whether the entry, which the caller holds, is accepted. If its
// outcome is unknown, the authorization server is asked: a token that was alive
// before the request and is dead now may be denied, whoever's doing it was. One
// that is still alive proves nothing yet: the request may be on its way.
func (j *Journal) settle(ctx context.Context, e *Entry) bool {
	j.mu.Lock()
	accepted, token, since := e.accepted, e.token, e.since
	j.mu.Unlock()
	if accepted {
		return true
	}
	if token == "" {
		return false
	}
	attempt, cancel := context.WithTimeout(ctx, j.options.Timeout)
	active, err := j.options.Active(attempt, e.intent.Issuer, token)
	cancel()
	if err == nil && !active {
		_ = e.Accept() // logged there
		return true
	}
	if j.options.Now().Sub(since) > askFor {
		j.mu.Lock()
		e.token = ""
		j.mu.Unlock()
	}
	return false
}
