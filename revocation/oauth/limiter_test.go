package oauth

import (
	"context"
	"fmt"
	"net/http"
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
	})
}
