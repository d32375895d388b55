//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Each reload makes servers, handlers, issuers and, where the ledger's settings
// change, a connection and a follower anew, under load. What is left behind by
// any of them would add up.
func TestFaultReloadsUnderLoadLeakNoGoroutineConnectionOrFile(t *testing.T) {
	t.Parallel()
	t.Run("nats-server", func(t *testing.T) {
		t.Parallel()
		server := startNATSServer(t)
		f := newFleet(t)
		e := f.add(following("nats://"+server.addr, 1), beating())
		// The name is a setting of the ledger: each config connects anew.
		reloadAndCompare(f, e, server.connections, "edge renamed-%d")
	})
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		f := newFleet(t)
		e := f.add("embedded", beating())
		reloadAndCompare(f, e, func() int { return 0 }, "retention %dm")
	})
}

// usage is what a process holds.
type usage struct{ goroutines, files, connections int }

func reloadAndCompare(f *fleet, e *edge, connections func() int, setting string) {
	t := f.t
	t.Helper()
	const settled = 8 // what may come and go by itself: timers, idle connections
	e.lost = new(atomic.Int64)
	f.run()
	token := f.revokeSome(e, 1)[0]
	config := e.config()
	reload := func(i int) {
		changed := appOption(fmt.Sprintf(setting, 20000+i))(config)
		if a := e.api(http.MethodPost, "/load", changed); a.status != http.StatusOK {
			t.Fatalf("loading a config: %s", a)
		}
	}
	measure := func() usage {
		e.client.CloseIdleConnections()
		return usage{e.goroutines(), e.files(), connections()}
	}
	for i := range 4 { // what is made once, at the first use
		reload(-1 - i)
	}
	e.waitInSync()
	before := usage{}
	// At rest, which is when two looks are alike.
	eventually(t, startDeadline, "the edge is at rest", func() (bool, string) {
		last := before
		time.Sleep(time.Second)
		before = measure()
		return before == last, fmt.Sprint(last, before)
	})

	var load sync.WaitGroup
	var requests atomic.Int64
	stop := make(chan struct{})
	for range inForm(3, 16) {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				requests.Add(2)
				good, revoked := e.get(f.good), e.get(token)
				// No answer: two reloads closed the connection of both attempts.
				if good.status != http.StatusOK && good.status != 0 {
					t.Errorf("a good token: %s", good)
					return
				}
				if !refused(revoked) && revoked.status != 0 {
					t.Errorf("a revoked token: %s", revoked)
					return
				}
			}
		})
	}
	reloads := inForm(50, 1000)
	var tokens []string
	for i := range reloads {
		reload(i)
		if i%10 == 0 {
			tokens = append(tokens, f.revokeSome(e, 1)...)
		}
	}
	close(stop)
	load.Wait()

	e.waitInSync()
	after := usage{}
	eventually(t, startDeadline, "what the reloads used is given back", func() (bool, string) {
		after = measure()
		return after.goroutines <= before.goroutines+settled && after.files <= before.files+settled && after.connections <= before.connections,
			fmt.Sprintf("%+v, before %+v; run with the edge's /debug/pprof/goroutine?debug=1:\n%s", after, before, tail(e.stacks(), 60))
	})
	t.Logf("%d reloads, %d requests meanwhile, %d of them sent twice: goroutines %d → %d, file descriptors %d → %d, NATS connections %d → %d",
		reloads, requests.Load(), e.lost.Load(), before.goroutines, after.goroutines, before.files, after.files, before.connections, after.connections)
	f.wantAllRefused("after the reloads", tokens, e)
	f.wantNoAlarm()
}

func (e *edge) stacks() string {
	return e.api(http.MethodGet, "/debug/pprof/goroutine?debug=1", nil).body
}

// goroutines returns how many an edge has, by Caddy's own profile.
func (e *edge) goroutines() int {
	e.t.Helper()
	found := regexp.MustCompile(`^goroutine profile: total (\d+)`).FindStringSubmatch(e.stacks())
	if found == nil {
		e.t.Fatalf("%s has no profile of its goroutines", e.name)
	}
	n, err := strconv.Atoi(found[1])
	if err != nil {
		e.t.Fatal(err)
	}
	return n
}

// files returns how many file descriptors an edge has open, by the kernel.
func (e *edge) files() int {
	e.t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", e.process.cmd.Process.Pid))
	if err != nil {
		e.t.Fatalf("counting files (Linux only): %v", err)
	}
	return len(entries)
}
