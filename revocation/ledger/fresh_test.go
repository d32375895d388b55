package ledger

import (
	"testing"
	"time"
)

// world is a server and an edge whose wall clocks are wrong by any amount, and a
// true time that both count.
type world struct {
	t      *testing.T
	start  time.Time
	now    time.Duration // true
	server time.Duration // the server's wall clock, relative to the truth
	f      *freshness
}

func newWorld(t *testing.T) *world {
	start := time.Now()
	return &world{t: t, start: start, f: newFreshness(start)}
}

// local is what the edge's clock reads, whose monotonic part is right.
func (w *world) local() time.Time { return w.start.Add(w.now) }

// remote is what the server's clock reads: no monotonic part, and wrong.
func (w *world) remote() time.Time { return w.start.Round(0).Add(w.now + w.server) }

func (w *world) pass(d time.Duration) { w.now += d }

// ask asks the server for the time; each way takes as long as given.
func (w *world) ask(there, back time.Duration) {
	asked := w.local()
	w.pass(there)
	at := w.remote()
	w.pass(back)
	w.f.calibrate(asked, at)
}

// beat stores a heartbeat that takes as long as given to arrive.
func (w *world) beat(delay time.Duration) {
	at := w.remote()
	w.pass(delay)
	w.f.heard(at, w.local())
}

func (w *world) age(least, most time.Duration) {
	w.t.Helper()
	if age := w.f.age(w.local()); age < least || age > most {
		w.t.Errorf("age %s, want %s to %s", age, least, most)
	}
}

const ms = time.Millisecond

func TestNothingIsFreshBeforeAHeartbeat(t *testing.T) {
	w := newWorld(t)
	w.ask(ms, ms)
	w.age(never, never)
}

func TestAHeartbeatBeforeTheFirstAnswerProvesNothing(t *testing.T) {
	w := newWorld(t)
	w.beat(ms)
	w.age(never, never)
}

func TestAgeDoesNotDependOnWallClocks(t *testing.T) {
	for name, off := range map[string]time.Duration{"right": 0, "ahead": 5 * time.Minute, "behind": -5 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.server = off
			w.ask(2*ms, 2*ms)
			for range 5 {
				w.pass(2 * time.Second)
				w.beat(3 * ms)
				w.age(0, 10*ms)
			}
			w.pass(20 * time.Second)
			w.age(20*time.Second, 20*time.Second+10*ms)
		})
	}
}

func TestALateHeartbeatIsAsOldAsItIs(t *testing.T) {
	w := newWorld(t)
	w.ask(ms, ms)
	w.beat(ms)
	w.age(0, 5*ms)
	w.pass(time.Second)
	w.beat(40 * time.Second) // the network froze
	w.age(40*time.Second-5*ms, 40*time.Second+5*ms)
	w.beat(ms)
	w.age(0, 5*ms)
}

func TestAConstantDelayStaysVisible(t *testing.T) {
	w := newWorld(t)
	w.ask(ms, ms)
	for range 1000 {
		w.beat(30 * time.Second)
		w.age(30*time.Second-5*ms, 31*time.Second)
	}
}

func TestASlowAnswerMakesKnowledgeOlderNotYounger(t *testing.T) {
	for name, ways := range map[string][2]time.Duration{"there": {5 * time.Second, ms}, "back": {ms, 5 * time.Second}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.ask(ways[0], ways[1])
			w.beat(4 * time.Second)
			w.age(4*time.Second, 10*time.Second)
		})
	}
}

func TestAServerClockThatIsSetHealsWithTheNextAnswer(t *testing.T) {
	for name, step := range map[string]time.Duration{"forward": 5 * time.Minute, "back": -5 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.ask(ms, ms)
			w.beat(ms)
			w.server += step
			w.pass(2 * time.Second)
			w.beat(ms)
			w.age(0, 3*time.Second) // set back: the old proof still counts
			w.ask(ms, ms)
			w.beat(ms)
			w.age(0, 10*ms)
			w.beat(30 * time.Second)
			w.age(29*time.Second, 31*time.Second)
		})
	}
}

func TestAnOldHeartbeatNeverMakesKnowledgeOlder(t *testing.T) {
	w := newWorld(t)
	w.ask(ms, ms)
	w.beat(ms)
	w.f.heard(w.remote().Add(-time.Minute), w.local())
	w.age(0, 5*ms)
}

func TestAnEchoIsAsOldAsItsSending(t *testing.T) {
	w := newWorld(t)
	sent := w.local()
	w.pass(7 * time.Second)
	w.f.echoed(sent)
	w.age(7*time.Second, 7*time.Second)
}
