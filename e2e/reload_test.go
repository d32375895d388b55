//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// reloads is how often a config is loaded under load: half of them fail.
const reloads = 36

func TestReloadAndFailedReloadUnderLoadLoseNothing(t *testing.T) {
	e := newFirstEdge(t).run()
	// Caddy closes the connections of the config before, now and then one that a
	// request is just on its way to.
	e.lost = new(atomic.Int64)
	longLived := func(subject string) string {
		return e.mint(map[string]any{"subject": subject, "client_id": publicClient, "lifetime": "1h"})
	}
	good, revoked := longLived("good"), longLived("revoked")
	e.revoke(revoked)

	// Good configs that differ, so that Caddy does not skip the reload; and
	// bad ones that fail at different depths: while adapting, provisioning an
	// app, provisioning a handler, and starting (the address is taken).
	config := e.config()
	configs := []string{
		config,
		globalOption("grace_period 1s")(config),
		appOption("client another public\nleeway 6m")(config),
	}
	failing := []string{
		config + "\n:0 {\n\tno_such_directive\n}\n",
		appOption("stale fail_closed 7")(config),
		appOption("client broken {env.NOT_SET_ANYWHERE}")(config),
		strings.Replace(config, "embedded {", "embedded {\nsync 1s", 1),
		config + "\nhttp://localhost:1 {\n\ttoken_denylist {\n\t\topaque_issuer https://nobody.example\n\t}\n}\n",
		config + fmt.Sprintf("\nhttp://localhost%s {\n\tbind 127.0.0.1\n\trespond taken\n}\n", e.nats[strings.LastIndex(e.nats, ":"):]),
	}

	var (
		stop     = make(chan struct{})
		load     sync.WaitGroup
		requests atomic.Int64
		firstBad atomic.Pointer[string]
	)
	report := func(format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		firstBad.CompareAndSwap(nil, &text)
	}
	for worker := range 6 {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				requests.Add(1)
				if worker%2 == 0 {
					if a := e.get(good); a.status != http.StatusOK {
						report("a good token: %s", a)
					}
				} else if a := e.get(revoked); !refused(a) {
					report("a revoked token: %s", a)
				}
			}
		})
	}

	var more []string // revoked between the reloads
	loaded, refusedConfigs := 0, 0
	for i := range reloads {
		if i%2 == 0 {
			if a := e.api(http.MethodPost, "/load", configs[(i/2)%len(configs)]); a.status != http.StatusOK {
				t.Fatalf("loading a good config: %s", a)
			}
			loaded++
		} else {
			if a := e.api(http.MethodPost, "/load", failing[(i/2)%len(failing)]); a.status == http.StatusOK {
				t.Fatalf("config %d should not load", (i/2)%len(failing))
			}
			refusedConfigs++
		}
		token := longLived(fmt.Sprintf("between-%d", i))
		e.wantPass("a token of the time between two reloads", token)
		e.revoke(token)
		more = append(more, token)
		for _, token := range more {
			e.wantRefused("a token revoked before a reload", token)
		}
	}
	close(stop)
	load.Wait()
	if bad := firstBad.Load(); bad != nil {
		t.Errorf("under load: %s", *bad)
	}
	if s := e.status(); s.State != "in_sync" || s.Denylist.Entries < len(more)+1 {
		t.Errorf("after the reloads: %+v", s)
	}
	t.Logf("%d reloads, %d failed ones, %d requests meanwhile, %d of them sent twice", loaded, refusedConfigs, requests.Load(), e.lost.Load())
}
