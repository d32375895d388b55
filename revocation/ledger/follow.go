package ledger

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

const (
	sessionFirstRetry = 100 * time.Millisecond
	sessionLastRetry  = 2 * time.Second
	watchInterval     = 100 * time.Millisecond
)

// Sink takes what a follower brings: a denylist. Its methods are called in the
// ledger's order, each before the position moves to it. After a restart of the
// process, following continues behind Position.
type Sink interface {
	Revoke(sequence uint64, r *revocation.Revocation)
	// RevokeHeld takes a revocation of which only the fingerprint is known.
	RevokeHeld(sequence uint64, e *revocation.HeldEntry)
	Restore(sequence uint64, r *revocation.Restoration)
	// Recheck says that what was introspected of the issuer's tokens has to be
	// asked again.
	Recheck(sequence uint64, issuer string)
	Position() revocation.Position
	SetPosition(p revocation.Position)
	// NewHistory says that what was held so far is from another history than
	// what follows from p on, which at this moment ends at the sequence last.
	NewHistory(p revocation.Position, last uint64)
	// MarkUnreadable says that there is an entry which this edge can't apply.
	// It may stand until the given time, in Unix seconds.
	MarkUnreadable(sequence uint64, reason string, until int64)
	// Acknowledge says that the unreadable entry at the sequence does not matter.
	// It tells whether there was one.
	Acknowledge(sequence uint64) bool
}

// Observer is told of what happens to a follower. Each function may be nil. They
// are called from the follower's goroutines and must not block, nor stop it.
type Observer struct {
	// Synced is called when the edge is in sync for the first time, and again
	// after it was stale.
	Synced func()
	// Stale is called when an edge that was in sync is no longer.
	Stale func(age time.Duration)
	// Applied is called for each entry, restore and recheck that was applied, with the
	// time from the decision to now. It compares the decider's clock with this
	// machine's, so that it is only as good as these. It is negative for what
	// the ledger held before the edge began to follow.
	Applied func(kind Kind, sequence uint64, delay time.Duration)
	// Alarm is called when the ledger is not what it was: deleted, emptied,
	// rolled back, or with settings that lose revocations. If it is nil, the
	// reason is logged instead.
	Alarm func(reason string)
}

// State is what a follower knows of itself. EverSynced becomes true when
// everything that the ledger held after following began has been applied, and
// stays so. Age is how old that knowledge is: everything recorded until then is
// in force here. It is the largest Duration while nothing was proven. InSync
// means that EverSynced and Age is below Options.StaleAfter.
type State struct {
	EverSynced bool
	InSync     bool
	Age        time.Duration
	// Sequence is the newest entry applied, Lag how many were waiting behind it
	// when it came.
	Sequence, Lag uint64
	// Following is true while entries are being read.
	Following bool
}

// Stats are a follower's counters since it was started.
type Stats struct {
	Applied    uint64 // entries, restores and rechecks
	Heartbeats uint64 // seen, of any edge
	Beats      uint64 // sent by this one
	Poison     uint64 // entries that break the rules
	ShortLived uint64 // messages that the server forgets before their entries end
	Newer      uint64 // entries of a newer version
	Sessions   uint64 // times that reading began
	Gaps       uint64 // deliveries with a hole, each answered by a new session
	Alarms     uint64
	// Lateness is how much longer than the fastest the newest heartbeat of
	// another edge took.
	Lateness time.Duration
}

// Follower brings the ledger's entries to a sink. State is cheap enough for
// every request.
type Follower struct {
	l        *Ledger
	sink     Sink
	observer Observer
	fresh    *freshness
	epoch    time.Time

	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{}

	everSynced, following atomic.Bool
	sequence, lag         atomic.Uint64
	counts                struct {
		applied, heartbeats, beats, poison, shortLived, newer, sessions, gaps, alarms atomic.Uint64
		lateness                                                                      atomic.Int64
	}

	// Of the sessions, which run one after the other.
	position revocation.Position // newest entry seen
	holds    holds               // where the sink's position must stay
	heeded   time.Time           // when a short-lived entry was last warned of
	poisoned uint64              // newest sequence that was logged as poison
	failure  string              // newest error that was logged
	headless bool                // an alarm was raised for a missing genesis entry
	unsound  uint64              // times that the stream could forget, and was read again since

	beats beats
}

// Follow begins to bring entries to the sink, from its position on, until Stop
// or [Ledger.Close].
func (l *Ledger) Follow(sink Sink, o Observer) *Follower {
	f := &Follower{l: l, sink: sink, observer: o, done: make(chan struct{}), epoch: l.now()}
	f.fresh = newFreshness(f.epoch)
	f.beats.init(f)
	f.position = sink.Position()
	f.sequence.Store(f.position.Sequence)
	f.ctx, f.cancel = context.WithCancel(l.ctx)
	var wg sync.WaitGroup
	wg.Go(f.run)
	wg.Go(f.watch)
	l.wg.Go(func() { wg.Wait(); close(f.done) })
	return f
}

// Stop ends following and waits for it. It does not wait for the server.
func (f *Follower) Stop() {
	f.cancel()
	<-f.done
}

// State returns the present state. It reads a few atomic values.
func (f *Follower) State() State {
	s := State{
		EverSynced: f.everSynced.Load(),
		Age:        f.fresh.age(f.l.now()),
		Sequence:   f.sequence.Load(),
		Lag:        f.lag.Load(),
		Following:  f.following.Load(),
	}
	s.InSync = s.EverSynced && s.Age < f.l.o.StaleAfter
	return s
}

// Stats returns the counters.
func (f *Follower) Stats() Stats {
	c := &f.counts
	return Stats{
		Applied: c.applied.Load(), Heartbeats: c.heartbeats.Load(), Beats: c.beats.Load(),
		Poison: c.poison.Load(), Newer: c.newer.Load(), Sessions: c.sessions.Load(),
		ShortLived: c.shortLived.Load(), Gaps: c.gaps.Load(), Alarms: c.alarms.Load(), Lateness: time.Duration(c.lateness.Load()),
	}
}

// run holds one session after the other.
func (f *Follower) run() {
	wait := sessionFirstRetry
	for f.ctx.Err() == nil {
		nc, js, up, err := f.l.link.await(f.ctx)
		if err != nil {
			return
		}
		if f.l.awaitLook(up, f.ctx) != nil {
			continue
		}
		begin := f.l.now()
		ctx, cancel := context.WithCancelCause(up)
		stop := context.AfterFunc(f.ctx, func() { cancel(context.Canceled) })
		s := &session{f: f, l: f.l, nc: nc, js: js, cancel: cancel}
		err = s.run(ctx)
		f.following.Store(false)
		f.beats.session.Store(nil)
		stop()
		cancel(nil)
		if f.ctx.Err() != nil {
			return
		}
		if errors.Is(err, errReplayed) {
			continue
		}
		changed := f.l.changed.wait()
		f.complain(up, err)
		if f.l.now().Sub(begin) > lookInterval {
			wait = sessionFirstRetry
		}
		select {
		case <-f.ctx.Done():
		case <-changed:
		case <-time.After(jitter(wait)):
		}
		wait = min(2*wait, sessionLastRetry)
	}
}

// complain logs why a session ended, once as long as it is the same.
func (f *Follower) complain(up context.Context, err error) {
	if err == nil || up.Err() != nil {
		return // the connection was lost, which logs for itself
	}
	if text := err.Error(); text != f.failure {
		f.failure = text
		f.l.log.Warn("following the revocation ledger begins again", "error", err)
	}
	f.l.suspect()
}

// watch tells the observer when the edge gets in sync or stale, sends heartbeats
// when they are due, and ends sessions that hear none.
func (f *Follower) watch() {
	t := time.NewTicker(min(watchInterval, max(f.l.o.HeartbeatInterval/20, time.Millisecond)))
	defer t.Stop()
	defer f.l.choked.Store(false)
	inSync, sound := false, true
	for {
		select {
		case <-f.ctx.Done():
			return
		case <-f.beats.wake:
		case <-t.C:
		}
		f.beats.tend()
		if s := f.beats.session.Load(); s != nil && f.l.moved(s.history) {
			s.cancel(errMoved)
		} else if s != nil {
			if times, sound := f.l.soundness(); sound && times != s.unsound {
				s.cancel(errSound)
			}
		}
		if err := f.l.unsoundness(); err == nil {
			sound = true
		} else if sound {
			sound = false
			f.alarm(err.Error())
		}
		switch s := f.State(); {
		case s.InSync && !inSync:
			inSync = true
			f.l.log.Debug("denylist in sync", "sequence", s.Sequence)
			if f.observer.Synced != nil {
				f.observer.Synced()
			}
		case !s.InSync && inSync:
			inSync = false
			f.l.log.Debug("denylist stale", "age", s.Age, "sequence", s.Sequence)
			if f.observer.Stale != nil {
				f.observer.Stale(s.Age)
			}
		}
	}
}

func (f *Follower) alarm(reason string) {
	f.counts.alarms.Add(1)
	if f.observer.Alarm == nil {
		f.l.log.Error("the revocation ledger is not what it was", "reason", reason)
		return
	}
	f.observer.Alarm(reason)
}
