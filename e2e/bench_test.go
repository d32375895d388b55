//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// BenchmarkRevokeToRefusedOnTheOtherEdge measures, for 1,000 tokens one after
// the other, the time from sending the revocation to the first edge, and from
// its 200, until the second edge refuses the token, which it had seen before.
func BenchmarkRevokeToRefusedOnTheOtherEdge(b *testing.B) {
	first := newFirstEdge(b).run()
	second := newSecondEdge(b, first).run()
	for b.Loop() {
		var sinceSent, sinceAcknowledged []time.Duration
		for i := range 1000 {
			token := first.mintFor(fmt.Sprintf("user-%d", i))
			second.wantPass("a fresh token", token)
			sent := time.Now()
			first.revoke(token)
			acknowledged := time.Now()
			for a := second.get(token); !refused(a); a = second.get(token) {
				if time.Since(acknowledged) > 10*time.Second {
					b.Fatalf("not refused on the other edge: %s", a)
				}
			}
			now := time.Now()
			sinceSent = append(sinceSent, now.Sub(sent))
			sinceAcknowledged = append(sinceAcknowledged, now.Sub(acknowledged))
		}
		for name, delays := range map[string][]time.Duration{"sent": sinceSent, "acked": sinceAcknowledged} {
			b.ReportMetric(quantile(delays, 0.5).Seconds()*1e3, "p50-ms-since-"+name)
			b.ReportMetric(quantile(delays, 0.99).Seconds()*1e3, "p99-ms-since-"+name)
		}
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkRequestsWithAndWithoutDenylist compares two processes that differ in
// the one line token_denylist, hammered in turn: the median of the ratios of
// neighbours, since the machine's speed changes from minute to minute. The
// tokens are valid, seen before, and none of them is revoked; the denylist holds
// revocations of all the kinds of which tokens can be revoked.
func BenchmarkRequestsWithAndWithoutDenylist(b *testing.B) {
	const pairs, during, connections = 41, 500 * time.Millisecond, 16
	with := newFirstEdge(b).run()
	without := newFirstEdge(b, func(config string) string {
		return strings.Replace(config, "\n\ttoken_denylist\n", "\n", 1)
	}).run()
	if a := without.get("no-token"); a.status != http.StatusOK {
		b.Fatalf("the edge without a denylist checks tokens: %s", a)
	}
	var tokens []string
	for i := range 200 {
		tokens = append(tokens, with.mint(map[string]any{
			"subject": fmt.Sprintf("user-%d", i), "client_id": publicClient, "session_id": fmt.Sprintf("s-%d", i), "lifetime": "1h",
		}))
	}
	for _, name := range []string{"jti", "sub", "client_id", "sid"} {
		a := with.api(http.MethodPost, "/token_revocation/revocations", map[string]any{"claims": map[string]string{name: "nobody"}})
		if a.status != http.StatusOK {
			b.Fatalf("revoking: %s", a)
		}
	}
	for b.Loop() {
		var ratios, cpuWith, cpuWithout, perSecondWith, perSecondWithout []float64
		hammer(b, with, tokens, connections, during, http.StatusOK)
		hammer(b, without, tokens, connections, during, http.StatusOK)
		for pair := range pairs {
			var l, other load
			if pair%2 == 0 {
				l, other = hammer(b, with, tokens, connections, during, http.StatusOK), hammer(b, without, tokens, connections, during, http.StatusOK)
			} else {
				other, l = hammer(b, without, tokens, connections, during, http.StatusOK), hammer(b, with, tokens, connections, during, http.StatusOK)
			}
			ratios = append(ratios, l.perSecond()/other.perSecond())
			perSecondWith, perSecondWithout = append(perSecondWith, l.perSecond()), append(perSecondWithout, other.perSecond())
			cpuWith, cpuWithout = append(cpuWith, l.cpuPerRequest()), append(cpuWithout, other.cpuPerRequest())
		}
		b.ReportMetric(quantile(ratios, 0.5), "with/without")
		b.ReportMetric(quantile(perSecondWith, 0.5), "req/s-with")
		b.ReportMetric(quantile(perSecondWithout, 0.5), "req/s-without")
		b.ReportMetric(quantile(cpuWith, 0.5), "cpu-µs/req-with")
		b.ReportMetric(quantile(cpuWithout, 0.5), "cpu-µs/req-without")
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkIdleEdgeAgainstPlainCaddy measures resident memory 10 s after the
// start, the time from exec to the first 200 (of an edge: to a request with a
// token, after a restart with the ledger of before), and the size of the binary
// as xcaddy builds it.
func BenchmarkIdleEdgeAgainstPlainCaddy(b *testing.B) {
	const starts = 7
	edgeBinary, plainBinary := buildStripped(b, "./cmd/caddy"), buildStripped(b, "./e2e/plaincaddy")
	e := newFirstEdge(b)
	plain := newEdge(b, "plain Caddy", "{\n\tadmin localhost:2019\n}\nhttp://localhost:8080 {\n\tbind 127.0.0.1\n\trespond demo\n}\n")
	startWith := func(e *edge, binary string) {
		e.process = start(b, e.name, e.logs, e.dir, e.env, binary, "run", "--config", e.caddyfile(), "--adapter", "caddyfile")
	}
	startWith(e, edgeBinary)
	e.waitInSync()
	token := e.mint(map[string]any{"subject": "alice", "client_id": publicClient, "lifetime": "1h"})
	e.process.stop()

	for b.Loop() {
		memory, startup := map[*edge][]float64{}, map[*edge][]time.Duration{}
		for range starts {
			for e, binary := range map[*edge]string{e: edgeBinary, plain: plainBinary} {
				e.client.CloseIdleConnections()
				started := time.Now()
				startWith(e, binary)
				for e.get(token).status != http.StatusOK {
					if e.process.ended() || time.Since(started) > startDeadline {
						b.Fatalf("%s does not answer", e.name)
					}
					time.Sleep(500 * time.Microsecond)
				}
				startup[e] = append(startup[e], time.Since(started))
				time.Sleep(10 * time.Second) // what the start needed is given back
				memory[e] = append(memory[e], residentMemory(b, e.process))
				e.process.stop()
			}
		}
		for e, name := range map[*edge]string{e: "edge", plain: "plain"} {
			b.ReportMetric(quantile(memory[e], 0.5)/1e6, "rss-MB-"+name)
			b.ReportMetric(quantile(startup[e], 0.5).Seconds()*1e3, "start-ms-"+name)
		}
		b.ReportMetric(fileSize(b, edgeBinary)/1e6, "binary-MB-edge")
		b.ReportMetric(fileSize(b, plainBinary)/1e6, "binary-MB-plain")
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkRevocationEndpoint measures how many revocations a second one edge
// acknowledges, every write synced, from 16 clients at once.
func BenchmarkRevocationEndpoint(b *testing.B) {
	const clients, each = 16, 100
	e := newFirstEdge(b).run()
	for b.Loop() {
		b.StopTimer()
		tokens := make(chan string, clients*each)
		for range clients * each {
			tokens <- e.mintFor("alice")
		}
		close(tokens)
		b.StartTimer()
		started := time.Now()
		failures := make(chan answer, clients)
		for range clients {
			go func() {
				var failure answer
				for token := range tokens {
					a := e.post(url.Values{"token": {token}, "client_id": {publicClient}}, "", "")
					if a.status != http.StatusOK {
						failure = a
					}
				}
				failures <- failure
			}()
		}
		for range clients {
			if a := <-failures; a.header != nil || a.body != "" {
				b.Fatalf("revoking: %s", a)
			}
		}
		b.ReportMetric(clients*each/time.Since(started).Seconds(), "revocations/s")
	}
	b.ReportMetric(0, "ns/op")
}

// buildStripped builds a command of this module as xcaddy does.
func buildStripped(b *testing.B, pkg string) string {
	b.Helper()
	out := filepath.Join(b.TempDir(), "caddy")
	build := exec.CommandContext(b.Context(), "go", "build", "-trimpath", "-ldflags=-s -w",
		"-tags=e2e,nobadger,nomysql,nopgx", "-o", out, pkg)
	build.Dir = root
	if output, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%s: %v\n%s", build, err, output)
	}
	return out
}

func fileSize(b *testing.B, path string) float64 {
	b.Helper()
	info, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	return float64(info.Size())
}
