package caddymodule

import (
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation/ledger"
)

// watchInterval is how often it is looked whether the edge is in sync.
const watchInterval = 100 * time.Millisecond

// watch tells the operator and the running config when this edge gets in sync and
// when it turns stale. A follower could not: after a reload there is another one,
// which may never be in sync.
func (r *replica) watch() {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	var w watcher
	for {
		select {
		case <-r.stop:
			return
		case <-ticker.C:
		}
		f := r.following.Load()
		if f.follower == nil {
			continue // there is nothing to be in sync with
		}
		switch event, age := w.look(f.state(), time.Now()); event {
		case "denylist_synced":
			sequence := r.denylist.Position().Sequence
			r.logger.Info("denylist in sync with the ledger",
				"sequence", sequence, "entries", r.denylist.Stats().Entries)
			r.announce(event, map[string]any{"sequence": sequence})
		case "denylist_stale":
			r.logger.Warn("denylist stale: the ledger has not been heard of", "age", age.Round(time.Millisecond))
			r.announce(event, map[string]any{"age": age.Seconds()})
		}
	}
}

// watcher decides when to tell. It is for one goroutine.
type watcher struct {
	synced bool      // told, and not stale since
	stale  bool      // told, and not in sync since
	proven time.Time // up to then everything was known
}

// look returns the event that there is to tell, if any, and the age of what is
// known. What was known before the present follower counts until it is old.
func (w *watcher) look(s ledger.State, now time.Time) (event string, age time.Duration) {
	if s.EverSynced {
		w.proven = now.Add(-s.Age)
	}
	switch {
	case s.InSync && !w.synced:
		w.synced, w.stale = true, false
		return "denylist_synced", s.Age
	case s.InSync, s.EverSynced && s.Age < staleVisible:
		return "", s.Age
	case !w.stale && !w.proven.IsZero():
		w.synced, w.stale = false, true
		return "denylist_stale", now.Sub(w.proven)
	default:
		return "", s.Age // never in sync, or told
	}
}

// observer tells what else a follower sees.
func (r *replica) observer(f *following) ledger.Observer {
	return ledger.Observer{
		Alarm: func(reason string) {
			f.doubted.Store(true)
			r.metrics.alarms.Inc()
			r.logger.Error("the revocation ledger is not what it was", "reason", reason)
		},
		Applied: func(_ ledger.Kind, _ uint64, delay time.Duration) {
			if delay >= 0 { // else it was in the ledger before we came
				r.metrics.propagation.Observe(delay.Seconds())
			}
		},
	}
}

// announce queues an event for the config that is current when its turn comes.
// Event handlers are the operator's and may be slow (a command, a webhook): they
// must not hold up the follower. If they fall far behind, events are dropped.
func (r *replica) announce(name string, data map[string]any) {
	select {
	case r.events <- event{name, data}:
	default:
		r.logger.Warn("event dropped: its handlers are too slow", "event", name)
	}
}

type event struct {
	name string
	data map[string]any
}

// awaitEvents waits for the handler that is running. Not for long: it may be one
// that waits for Caddy to finish what it is just doing.
func (r *replica) awaitEvents() {
	done := make(chan struct{})
	go func() {
		r.emitting.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(2 * time.Second):
		r.logger.Warn("an event handler is still running")
	}
}

func (r *replica) emitEvents() {
	for {
		select {
		case <-r.stop:
			return
		case e := <-r.events:
			if app := currentApp(); app != nil {
				app.emit(e.name, e.data)
			}
		}
	}
}
