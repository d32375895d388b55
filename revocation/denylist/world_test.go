package denylist

import (
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// world is a denylist with all that happens to it, and the model of it.
type world struct {
	path  string
	o     Options
	clock *testClock
	d     atomic.Pointer[Denylist] // the one that serves
	m     *model

	ledger    []*event // the present history; sequences are indexes plus one
	name      string   // its id
	histories int
	gens      int // of the model
	follower  int // events that it has applied
	restarted int // events published before the last reload or passing of time
	saved     savedWorld

	// lag is how far the steady clock may be behind the wall clock.
	lag    time.Duration
	offset time.Duration // of the wall clock
	ahead  time.Duration // of the wall clock too, since the start, until it is set right
	gaps   bool          // it was ahead, so that something may be missing, which is said
	tokens int
	seen   []*Seen

	watched []*revocation.Identity
	truth   atomic.Pointer[truth]
	failure atomic.Pointer[string]
}

// savedWorld is what belongs to a checkpoint.
type savedWorld struct {
	file     []byte
	m        *model
	name     string
	follower int
	until    int // events that were applied while it was written
}

// truth is what the readers may see from now on, one for each watched identity.
type truth struct {
	n         int
	must, may []bool
	capped    bool
}

func newWorld(t *rapid.T, path string) *world {
	clock := newTestClock()
	o := Options{CacheBytes: minCacheBytes, Now: clock.Now, monotonic: clock.monotonic}
	if rapid.IntRange(0, 2).Draw(t, "capped") == 0 {
		o.MaxEntries = rapid.IntRange(1, 12).Draw(t, "max")
	}
	w := &world{path: path, o: o, clock: clock, m: &model{gen: 1}, gens: 1, name: "history 0"}
	if rapid.IntRange(0, 2).Draw(t, "begins with a clock that is ahead") == 0 {
		w.ahead, w.gaps = time.Duration(rapid.IntRange(1, 8).Draw(t, "hours"))*time.Hour, true
		clock.step(w.ahead)
	}
	for range 5 {
		w.watched = append(w.watched, drawIdentity(t, clock.unix()))
	}
	w.d.Store(w.fresh())
	w.list().SetPosition(position(w.name, 0))
	w.publish(w.verdicts())
	return w
}

// fresh returns a denylist that nothing sweeps or winds up but the test.
func (w *world) fresh() *Denylist {
	o, _ := w.o.withDefaults()
	d := newDenylist(o)
	d.cache, _ = newCache(o.CacheBytes)
	return d
}

func (w *world) list() *Denylist { return w.d.Load() }

// verdict is the model's, at any time that the steady clock may show.
func (w *world) verdict(id *revocation.Identity) (must *revocation.Revocation, may bool) {
	wall := w.clock.unix()
	return w.m.verdict(id, wall, wall-int64(w.lag/time.Second)-2)
}

// mayMiss tells whether entries may be missing, if the denylist says so.
func (w *world) mayMiss() bool { return w.o.MaxEntries != 0 || w.gaps }

func (w *world) verdicts() *truth {
	v := &truth{capped: w.mayMiss()}
	for _, id := range w.watched {
		must, may := w.verdict(id)
		v.must, v.may = append(v.must, must != nil), append(v.may, may)
	}
	return v
}

func (w *world) publish(v *truth) {
	if was := w.truth.Load(); was != nil {
		v.n = was.n + 1
	}
	w.truth.Store(v)
}

// change does something to the denylist that the model does at once. While it
// lasts, readers may see the state before or after.
func (w *world) change(model, denylist func()) {
	before := w.verdicts()
	model()
	during := w.verdicts()
	for i := range during.must {
		during.must[i] = during.must[i] && before.must[i]
		during.may[i] = during.may[i] || before.may[i]
	}
	w.publish(during)
	denylist()
	w.publish(w.verdicts())
}

// read checks the watched identities until done is set: one that must be denied
// before a check begins and after it has ended is never allowed, one that may not
// be is never denied.
func (w *world) read(done *atomic.Bool) {
	for i := 0; !done.Load(); i++ {
		k := i % len(w.watched)
		before := w.truth.Load()
		d := w.list()
		id := w.watched[k]
		dec := d.Check(id)
		if i&1 == 0 {
			_, epoch := d.ClaimNames()
			dec = d.CheckSeen(d.Remember(fmt.Sprint("watched ", k), uint64(i)/8, id, epoch))
		}
		_, _, incomplete := d.Incomplete(w.clock.Now())
		after := w.truth.Load()
		if dec.Stale || dec.Overflow || after.n-before.n > 1 {
			continue
		}
		switch must, may := before.must[k] && after.must[k], before.may[k] || after.may[k]; {
		case must && !dec.Denied && !(after.capped && incomplete):
			w.fail("a reader: false allowed: %+v", id)
		case !may && dec.Denied:
			w.fail("a reader: false denied: %+v by %+v", id, dec)
		}
		runtime.Gosched()
	}
}

func (w *world) fail(format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	w.failure.CompareAndSwap(nil, &what)
}

// compare holds an answer of the denylist against the model's.
func (w *world) compare(t *rapid.T, dec Decision, id *revocation.Identity) {
	if dec.Overflow {
		return
	}
	must, may := w.verdict(id)
	if must != nil && !dec.Denied {
		_, until, incomplete := w.list().Incomplete(w.clock.Now())
		if !w.mayMiss() || !incomplete || until < must.Expires {
			t.Fatalf("false allowed: %+v; incomplete is %t until %d, the end is %d", id, incomplete, until, must.Expires)
		}
	}
	if dec.Denied && !may {
		t.Fatalf("false denied: %+v by %+v", id, dec)
	}
}

// TestNeverAFalseAnswerWhateverTheOrder runs any sequence of decisions, applied
// by the endpoint ahead of the follower, by the follower, late or twice, by
// criteria or by fingerprint; of passing time, clock steps within an hour, a clock
// that is hours ahead from the start until it is set right, sweeps,
// checkpoints written while entries change, reloads, checkpoints loaded while it
// serves, and ledgers that turn out to be others. It compares each answer with
// the naive model's, and so do readers that never pause.
func TestNeverAFalseAnswerWhateverTheOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "checkpoint")
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(rt, path)
		forward := rapid.Bool().Draw(rt, "clock errs forward")
		var done atomic.Bool
		var readers sync.WaitGroup
		for range 2 {
			readers.Go(func() { w.read(&done) })
		}
		defer func() {
			done.Store(true)
			readers.Wait()
			w.list().Close()
		}()
		rt.Repeat(map[string]func(*rapid.T){
			"decide": w.decide,
			"follow": func(t *rapid.T) { w.follow(rapid.IntRange(1, 5).Draw(t, "entries")) },
			"again or late": func(t *rapid.T) {
				// The endpoints of a process that is gone don't call any more.
				if len(w.ledger) > w.restarted {
					w.apply(rapid.IntRange(w.restarted, len(w.ledger)-1).Draw(t, "entry"))
				}
			},
			"pass": func(t *rapid.T) {
				w.pass(time.Duration(rapid.IntRange(1, 3600).Draw(t, "seconds")) * time.Second)
			},
			"step": func(t *rapid.T) {
				next := time.Duration(rapid.IntRange(0, 3600).Draw(t, "offset")) * time.Second
				if !forward {
					next = -next
				}
				w.step(next - w.offset)
				w.offset = next
			},
			"set right": func(*rapid.T) {
				if w.ahead > 0 {
					w.step(-w.ahead)
					w.ahead = 0
				}
			},
			"wind":       func(*rapid.T) { w.list().steady.wind(w.clock.Now()) },
			"sweep":      func(*rapid.T) { sweepAll(w.list()) },
			"turn":       w.turn,
			"checkpoint": w.save,
			"reload":     w.reload,
			"join":       w.join,
			"held":       w.held,
			"standing":   w.standing,
			"until":      w.until,
			"check": func(t *rapid.T) {
				id := drawIdentity(t, w.clock.unix())
				w.compare(t, w.list().Check(id), id)
			},
			"remember": w.remember,
			"check seen": func(t *rapid.T) {
				if len(w.seen) == 0 {
					return
				}
				s := w.seen[rapid.IntRange(0, len(w.seen)-1).Draw(t, "seen")]
				if dec := w.list().CheckSeen(s); !dec.Stale {
					w.compare(t, dec, s.identity)
				}
			},
			"": func(t *rapid.T) {
				for _, id := range w.watched {
					w.compare(t, w.list().Check(id), id)
				}
				if what := w.failure.Load(); what != nil {
					t.Fatal(*what)
				}
				d := w.list()
				if s := d.Stats(); s.Entries > s.MaxEntries {
					t.Fatalf("%d entries of at most %d", s.Entries, s.MaxEntries)
				}
				if reason, _, incomplete := d.Incomplete(w.clock.Now()); incomplete && !w.mayMiss() {
					t.Fatalf("incomplete: %s", reason)
				}
			},
		})
	})
}
