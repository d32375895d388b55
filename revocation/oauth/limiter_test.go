package oauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// One address that makes up ids, each of which costs a hash, must not keep the
// clients of other networks out.
func TestOneNetworkCannotTakeEveryHash(t *testing.T) {
	for _, attacker := range []string{"192.0.2.1:%d", "[2001:db8::%x]:1"} {
		synctest.Test(t, func(t *testing.T) {
			r, count, most := slowRig(t, 1, DefaultHashWait)
			ctx, cancel := context.WithCancel(t.Context())
			var statuses [600]atomic.Int64
			var wg sync.WaitGroup
			for connection := range 120 {
				wg.Go(func() {
					for i := 0; ctx.Err() == nil; i++ {
						w := r.post("token=a.b.c", func(req *http.Request) {
							req.Header.Set("Authorization", basicAuth(fmt.Sprint("nobody-", connection, "-", i), "x"))
							req.RemoteAddr = fmt.Sprintf(attacker, connection+1)
						})
						statuses[w.Code].Add(1)
						if w.Code == http.StatusTooManyRequests && w.Header().Get("Retry-After") != "5" {
							t.Errorf("Retry-After %q", w.Header().Get("Retry-After"))
						}
						time.Sleep(250 * time.Millisecond)
					}
				})
			}
			time.Sleep(time.Second)
			for range 5 {
				start := time.Now()
				w := r.post("token=a.b.c", func(req *http.Request) {
					req.Header.Set("Authorization", basicAuth("one", "right"))
					req.RemoteAddr = "198.51.100.1:1"
				})
				// The hash that is being computed, then its own.
				if took := time.Since(start); w.Code != http.StatusOK || took > 2*time.Second {
					t.Errorf("a client of another network: status %d after %v", w.Code, took)
				}
				time.Sleep(time.Second / 2)
			}
			cancel()
			wg.Wait()
			if most.Load() != 1 || statuses[http.StatusTooManyRequests].Load() == 0 {
				t.Errorf("%d hashes, %d at once, %d times 429", count.Load(), most.Load(), statuses[http.StatusTooManyRequests].Load())
			}
		})
	}
}

func TestOneNetworkQueuesOnlySoManyHashes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, count, _ := slowRig(t, 2, time.Hour)
		got := r.all(50, basicAuth("one", "right"), nil)
		if got[http.StatusOK] != 2+maxQueuedOfNetwork || got[http.StatusTooManyRequests] != 40 || got[-1] != 0 {
			t.Errorf("statuses %v after %d hashes", got, count.Load())
		}
		// Whose address is unknown may be anybody.
		got = r.all(50, basicAuth("one", "right"), func(_ int, req *http.Request) { req.RemoteAddr = "@" })
		if got[http.StatusOK] != 50 {
			t.Errorf("without an address: statuses %v", got)
		}
		if l := r.endpoint.auth.hashes; l.free != 2 || len(l.queue) != 0 || len(l.networks) != 0 {
			t.Errorf("left over: %d free, %d queued, %d networks", l.free, len(l.queue), len(l.networks))
		}
	})
}

func TestLimiterLetsNetworksTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(1, time.Hour)
		a, b, c := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")
		var mu sync.Mutex
		var order string
		var wg sync.WaitGroup
		ask := func(name string, from netip.Addr) {
			wg.Go(func() {
				release, err := l.acquire(t.Context(), from)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				order += name
				mu.Unlock()
				time.Sleep(time.Second)
				release()
			})
			synctest.Wait()
		}
		for range 5 {
			ask("a", a)
		}
		for range 3 {
			ask("b", b)
		}
		ask("c", c)
		wg.Wait()
		if order != "abcababaa" {
			t.Errorf("order %s", order)
		}
	})
}

func TestLimiterIsBoundedAndForgetsWhoGaveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(1, time.Second)
		release, err := l.acquire(t.Context(), netip.Addr{})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		var busy atomic.Int64
		for i := range maxQueued + 100 {
			wg.Go(func() {
				start := time.Now()
				_, err := l.acquire(t.Context(), netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}))
				if !errors.Is(err, errBusy) {
					t.Errorf("error %v", err)
				}
				if time.Since(start) == 0 {
					busy.Add(1)
				}
			})
		}
		wg.Wait()
		if busy.Load() != 100 || len(l.queue) != 0 || len(l.networks) != 1 {
			t.Errorf("%d refused at once, %d in the queue, %d networks", busy.Load(), len(l.queue), len(l.networks))
		}
		release()
		if l.free != 1 || len(l.networks) != 0 {
			t.Errorf("%d free, %d networks", l.free, len(l.networks))
		}
	})
}
