//go:build e2e

package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

const (
	streamUsers = 100
	// descriptors are what an edge needs beside its WebSockets.
	descriptors = 200
)

// BenchmarkCutStreams is how long after an operator began to revoke a user the
// WebSockets of that user are closed, one in a hundred of those that are open. An
// edge has two file descriptors for each, so that the limit of the machine may
// allow fewer than ten thousand.
func BenchmarkCutStreams(b *testing.B) {
	count, rounds := 10_000, 20
	if testing.Short() {
		count, rounds = 500, 3
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		b.Fatal(err)
	}
	count = min(count, (int(limit.Max)-descriptors)/2) / streamUsers * streamUsers

	upstream := fmt.Sprintf("127.0.0.1:%d", revocationtest.FreePort(b))
	start(b, "upstream", newLogs(b, "upstream"), b.TempDir(), nil, buildStripped(b, "./e2e/wsupstream"), upstream)
	s := newTokenSigner(b)
	e := newEdge(b, "edge", fmt.Sprintf("{\n\tadmin localhost:2019\n\ttoken_revocation {\n\t\tissuer %s {\n\t\t\tjwks_file %s\n\t\t\taudience orders\n\t\t}\n\t}\n}\n",
		s.issuer, s.jwksFile(b))+protected(upstream, "token_denylist {\n\t\tcut_streams\n\t}")).run()
	sockets := openSockets(b, e, s, count)

	for b.Loop() {
		var delays []time.Duration
		for user := range rounds {
			began := time.Now()
			if a := e.api(http.MethodPost, "/token_revocation/revocations", map[string]any{
				"issuer": s.issuer, "claims": map[string]string{"sub": fmt.Sprint("user-", user)}, "mode": "block", "reason": "benchmark",
			}); a.status != http.StatusOK {
				b.Fatalf("revoking: %s", a)
			}
			for i := user; i < count; i += streamUsers {
				select {
				case at := <-sockets.closed[i]:
					delays = append(delays, at.Sub(began))
				case <-time.After(30 * time.Second):
					b.Fatalf("WebSocket %d of user %d lives on", i, user)
				}
			}
		}
		time.Sleep(time.Second) // for what should not be closed
		if got, want := int(sockets.over.Load()), rounds*count/streamUsers; got != want {
			b.Fatalf("%d WebSockets are closed, not %d", got, want)
		}
		for i := rounds; i < count; i++ {
			if i%streamUsers >= rounds {
				if _, err := sockets.conns[i].Write([]byte("x")); err != nil {
					b.Fatalf("WebSocket %d: %v", i, err)
				}
			}
		}
		eventually(b, 60*time.Second, "the others still echo", func() (bool, string) {
			got := int(sockets.echoed.Load())
			return got == count-rounds*count/streamUsers, fmt.Sprint(got)
		})
		b.ReportMetric(float64(count), "websockets")
		b.ReportMetric(quantile(delays, 0.5).Seconds()*1e3, "p50-ms")
		b.ReportMetric(quantile(delays, 0.99).Seconds()*1e3, "p99-ms")
		b.ReportMetric(quantile(delays, 1).Seconds()*1e3, "max-ms")
	}
}

// sockets are open WebSockets.
type sockets struct {
	conns        []net.Conn
	closed       []chan time.Time // when each ended
	over, echoed atomic.Int64
}

// openSockets opens WebSockets through the edge, each with a token of its own, one
// in a hundred of each user.
func openSockets(b *testing.B, e *edge, s *tokenSigner, count int) *sockets {
	b.Helper()
	all := &sockets{conns: make([]net.Conn, count), closed: make([]chan time.Time, count)}
	b.Cleanup(func() {
		for _, c := range all.conns {
			if c != nil {
				_ = c.Close()
			}
		}
	})
	var opening sync.WaitGroup
	var failed atomic.Pointer[error]
	for worker := range 16 {
		opening.Go(func() {
			for i := worker; i < count && failed.Load() == nil; i += 16 {
				if err := all.open(e, s, i); err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	opening.Wait()
	if err := failed.Load(); err != nil {
		b.Fatalf("opening WebSockets: %v", *err)
	}
	return all
}

func (s *sockets) open(e *edge, signer *tokenSigner, i int) error {
	payload, err := json.Marshal(map[string]any{
		"iss": signer.issuer, "sub": fmt.Sprint("user-", i%streamUsers), "client_id": "app", "sid": fmt.Sprint("session-", i),
		"jti": fmt.Sprint("token-", i), "aud": "orders", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
	})
	if err != nil {
		return err
	}
	signed, err := signer.signer.Sign(payload)
	if err != nil {
		return err
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		return err
	}
	c, err := net.Dial("tcp", e.address)
	if err != nil {
		return err
	}
	s.conns[i], s.closed[i] = c, make(chan time.Time, 1)
	if _, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer %s\r\n\r\n", token); err != nil {
		return err
	}
	r := bufio.NewReaderSize(c, 1024)
	response, err := http.ReadResponse(r, nil) //nolint:bodyclose // a 101 has none
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("status %s", response.Status)
	}
	go func() {
		for {
			if _, err := r.ReadByte(); err != nil {
				s.closed[i] <- time.Now()
				s.over.Add(1)
				return
			}
			s.echoed.Add(1)
		}
	}()
	return nil
}
