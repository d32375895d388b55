package caddymodule

import (
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation/ledger"
)

// observer tells the operator and the running config what the follower sees. The
// follower outlives configs, so each event goes to whichever app is current.
func (r *replica) observer(f *following) ledger.Observer {
	return ledger.Observer{
		Synced: func() {
			sequence := r.denylist.Position().Sequence
			r.logger.Info("denylist in sync with the ledger",
				"sequence", sequence, "entries", r.denylist.Stats().Entries)
			r.announce("denylist_synced", map[string]any{"sequence": sequence})
		},
		Stale: func(age time.Duration) {
			r.logger.Warn("denylist stale: the ledger has not been heard of", "age", age.Round(time.Millisecond))
			r.announce("denylist_stale", map[string]any{"age": age.Seconds()})
		},
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
