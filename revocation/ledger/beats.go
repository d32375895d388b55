package ledger

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	heartbeatTTL    = time.Minute
	silence         = 10 * time.Second // without any heartbeat entry: a new session
	maxBeatsPending = 64
	beatRoom        = 1 << 10 // more than one takes in the stream, in bytes
)

// beats sends heartbeat entries when nobody else does, and reads those that come.
type beats struct {
	f       *Follower
	wake    chan struct{}
	session atomic.Pointer[session]

	mu      sync.Mutex
	pending map[string]time.Time // of our own, by id: when they were sent
	probes  map[string]*probe    // by the id of the heartbeat that each waits for
	next    *probe               // not sent yet
	probed  time.Time            // when the newest was sent
	sent    time.Time            // newest
	heard   time.Time            // newest of anybody, or the session's beginning
	patient time.Duration        // how long to wait for others this time
}

func (b *beats) init(f *Follower) {
	b.f = f
	b.wake = make(chan struct{}, 1)
	b.pending = map[string]time.Time{}
	b.probes = map[string]*probe{}
}

// begin starts a session with a heartbeat of our own: it is the quickest proof
// of being in sync.
func (b *beats) begin(s *session) {
	b.mu.Lock()
	b.heard = b.f.l.now()
	b.mu.Unlock()
	b.send(s)
	b.session.Store(s)
}

// tend is called several times a second.
func (b *beats) tend() {
	// A session may last for months, and the server's clock be set meanwhile:
	// heartbeats of others would look as old as the difference for ever.
	h := b.f.l.newestLook()
	if h != nil {
		b.f.fresh.calibrate(h.asked, h.at)
	}
	unheard := b.f.fresh.age(b.f.l.now()) > 3*b.f.l.o.HeartbeatInterval
	b.f.l.choke(unheard && h != nil && h.full())
	s := b.session.Load()
	if s == nil {
		return
	}
	now := b.f.l.now()
	b.mu.Lock()
	quiet := now.Sub(b.heard)
	due := b.f.fresh.age(now) > b.patient && now.Sub(b.sent) > b.patient
	b.mu.Unlock()
	if quiet > max(silence, 3*b.f.l.o.HeartbeatInterval) && b.f.lag.Load() == 0 {
		s.cancel(errQuiet)
		return
	}
	if due {
		b.send(s)
	}
}

// send publishes a heartbeat without waiting for an answer: it counts when it
// comes back through the ledger, and not before.
func (b *beats) send(s *session) { b.sendFor(s, nil) }

// sendFor is send for someone who waits for the heartbeat to come back.
func (b *beats) sendFor(s *session, p *probe) {
	now := b.f.l.now()
	b.mu.Lock()
	b.sent = now
	b.patience()
	b.mu.Unlock()
	if b.f.l.usable() != nil || b.f.l.link.refused.has(KindHeartbeat.Subject()) {
		return // other edges may; without any, this one turns stale
	}
	data, id, err := b.f.l.heartbeat()
	if err != nil {
		return
	}
	b.mu.Lock()
	if len(b.pending) >= maxBeatsPending {
		clear(b.pending)
		clear(b.probes)
	}
	b.pending[id] = now
	if p != nil {
		b.probes[id] = p
	}
	b.mu.Unlock()
	m := nats.NewMsg(KindHeartbeat.Subject())
	m.Data = data
	m.Header.Set("Nats-TTL", heartbeatTTL.String())
	m.Header.Set(nats.ExpectedStreamHdr, b.f.l.o.Stream)
	if err := s.nc.PublishMsg(m); err != nil {
		return // the connection is lost, which ends the session
	}
	b.f.counts.beats.Add(1)
}

// patience chooses how long to wait for others before beating again. Chance
// makes one edge of a fleet the first, and the rest hear it in time.
func (b *beats) patience() {
	interval := b.f.l.o.HeartbeatInterval
	b.patient = interval + rand.N(interval/2+1)
}

// arrived takes a heartbeat that was stored at the given time.
func (b *beats) arrived(id string, stored time.Time) {
	f := b.f
	now := f.l.now()
	f.counts.heartbeats.Add(1)
	b.mu.Lock()
	b.heard = now
	sent, own := b.pending[id]
	delete(b.pending, id)
	b.patience()
	b.mu.Unlock()
	// On a stream that may drop entries, what came through proves nothing.
	if f.l.unsoundness() != nil {
		return
	}
	if own {
		f.fresh.echoed(sent)
		if p := b.take(id); p != nil {
			close(p.back)
		}
		return
	}
	if late := f.fresh.heard(stored, now); late != never {
		f.counts.lateness.Store(int64(late))
	}
}

// settle decides, after a heartbeat was applied, whether the edge has synced: a
// heartbeat of after the session's beginning came through, and with it everything
// that the ledger held then.
func (b *beats) settle(s *session, sequence uint64) {
	f := b.f
	if f.everSynced.Load() {
		return
	}
	moment, ok := f.fresh.proven()
	if !ok {
		return
	}
	after := moment >= f.fresh.elapsed(s.began)
	// Or it is the newest entry that there was, or newer, and not old.
	last := sequence >= s.history.state.LastSeq && f.fresh.age(f.l.now()) < f.l.o.StaleAfter
	if after || last {
		f.everSynced.Store(true)
		select {
		case b.wake <- struct{}{}:
		default:
		}
	}
}

// heartbeat returns a heartbeat entry and its id.
func (l *Ledger) heartbeat() (data []byte, id string, err error) {
	id = randomID()
	data, err = encode(wireHeartbeat{Version: PayloadVersion, ID: id, Edge: l.o.Edge, At: l.now().UnixMilli()})
	return data, id, err
}
