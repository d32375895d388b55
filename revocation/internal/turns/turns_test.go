package turns

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// idle checks that nothing is left of what a test has done.
func (l *Limiter) idle(t *testing.T, slots int) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.free != slots || len(l.queue) != 0 || len(l.networks) != 0 {
		t.Errorf("left over: %d free, %d queued, %d networks", l.free, len(l.queue), len(l.networks))
	}
}

// line is a limiter of one slot, and those who were let in one after another, a
// second each.
type line struct {
	*Limiter
	wg      sync.WaitGroup
	mu      sync.Mutex
	in, out string // those let in, and those refused
}

func newLine(o Options) *line {
	o.Slots, o.Wait = 1, time.Hour
	return &line{Limiter: New(o)}
}

func (l *line) ask(t *testing.T, name string, from netip.Addr, want error) {
	t.Helper()
	l.wg.Go(func() {
		release, err := l.Acquire(t.Context(), from)
		l.mu.Lock()
		if err != nil {
			if !errors.Is(err, want) {
				t.Errorf("%s: error %v, want %v", name, err, want)
			}
			l.out += name
		} else {
			l.in += name
		}
		l.mu.Unlock()
		if err == nil {
			time.Sleep(time.Second)
			release()
		}
	})
	synctest.Wait()
}

func (l *line) order(t *testing.T, in, out string) {
	t.Helper()
	l.wg.Wait()
	if l.in != in || l.out != out {
		t.Errorf("let in %s, refused %s, want %s and %s", l.in, l.out, in, out)
	}
	l.idle(t, 1)
}

var a, b, c = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")

func TestNetworksTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(Options{Queue: 100})
		for range 5 {
			l.ask(t, "a", a, nil)
		}
		for range 3 {
			l.ask(t, "b", b, nil)
		}
		l.ask(t, "c", c, nil)
		l.order(t, "abcababaa", "")
	})
}

func TestAFullQueueTakesThoseOfWhomFewWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(Options{Queue: 4})
		for _, name := range []string{"A", "1", "2", "3", "4"} {
			l.ask(t, name, a, ErrCrowded)
		}
		l.ask(t, "b", b, nil) // in place of 4
		l.ask(t, "5", a, ErrBusy)
		l.ask(t, "B", b, ErrCrowded) // in place of 3; then each has two
		l.ask(t, "c", c, nil)        // in place of one of them
		if len(l.queue) != 4 {
			t.Errorf("%d wait", len(l.queue))
		}
		l.wg.Wait()
		if l.in != "Abc1B" && l.in != "Abc12" || len(l.out) != 4 {
			t.Errorf("let in %s, refused %s", l.in, l.out)
		}
		l.idle(t, 1)
	})
}

func TestOneNetworkQueuesOnlySoMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(Options{Queue: 10, NetworkQueue: 2})
		for _, name := range []string{"1", "2", "3", "4"} {
			l.ask(t, name, a, ErrCrowded)
		}
		l.order(t, "123", "4")
		// Whose address is unknown may be anybody.
		l = newLine(Options{Queue: 10, NetworkQueue: 2})
		for _, name := range []string{"1", "2", "3", "4"} {
			l.ask(t, name, netip.Addr{}, nil)
		}
		l.order(t, "1234", "")
	})
}

func TestTheUnknownAreDroppedAsWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(Options{Queue: 2})
		for _, name := range []string{"1", "2", "3"} {
			l.ask(t, name, netip.Addr{}, ErrBusy)
		}
		l.ask(t, "a", a, nil)
		l.order(t, "1a2", "3")
	})
}

func TestTheQueueIsBoundedAndForgetsWhoGaveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const waiting = 1024
		l := New(Options{Slots: 1, Wait: time.Second, Queue: waiting})
		release, err := l.Acquire(t.Context(), netip.Addr{})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		var atOnce atomic.Int64
		for i := range waiting + 100 {
			wg.Go(func() {
				start := time.Now()
				_, err := l.Acquire(t.Context(), netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}))
				if !errors.Is(err, ErrBusy) {
					t.Errorf("error %v", err)
				}
				if time.Since(start) == 0 {
					atOnce.Add(1)
				}
			})
		}
		wg.Wait()
		if atOnce.Load() != 100 || len(l.queue) != 0 || len(l.networks) != 1 {
			t.Errorf("%d refused at once, %d in the queue, %d networks", atOnce.Load(), len(l.queue), len(l.networks))
		}
		release()
		l.idle(t, 1)
	})
}

// TestAtOnce lets everything run at the same time, for the race detector.
func TestAtOnce(t *testing.T) {
	const slots = 2
	l := New(Options{Slots: slots, Wait: time.Millisecond, Queue: 8})
	var wg sync.WaitGroup
	var now atomic.Int64
	for w := range 40 {
		wg.Go(func() {
			for i := range 200 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%5)*time.Millisecond)
				release, err := l.Acquire(ctx, netip.AddrFrom4([4]byte{192, 0, 2, byte(w % 7)}))
				if err == nil {
					if now.Add(1) > slots {
						t.Error("too many at once")
					}
					now.Add(-1)
					release()
				}
				cancel()
			}
		})
	}
	wg.Wait()
	l.idle(t, slots)
}
