//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/edge-revocation/caddy-token-revocation/revocation/ledger"
)

// What the ledger costs, next to bare JetStream on the same server in the same
// run. With -short, of little, to see that they work.

const (
	bareStream  = "BARE"
	bareSubject = "bare.entry"
)

// createBareStream makes a second stream with the ledger's settings.
func createBareStream(b *testing.B, js jetstream.JetStream) {
	b.Helper()
	_, err := js.CreateStream(b.Context(), jetstream.StreamConfig{
		Name: bareStream, Subjects: []string{"bare.>"}, Storage: jetstream.FileStorage, Discard: jetstream.DiscardNew,
		MaxBytes: 64 << 20, AllowMsgTTL: true, AllowDirect: true, DenyDelete: true, DenyPurge: true,
	})
	if err != nil {
		b.Fatal(err)
	}
}

// BenchmarkRevokeToRefusedOnTenEdges measures the time from the 200 of one edge
// until another one refuses the token, and in turn with it, from publishing to
// the same server until one of ten bare consumers has the message.
func BenchmarkRevokeToRefusedOnTenEdges(b *testing.B) {
	rounds := 1000
	if testing.Short() {
		rounds = 20
	}
	const edges = 10
	server := newNATSServer(b, "nats", b.TempDir())
	server.sync = "always" // as the embedded server does
	server.configure("")
	server.start()
	js := server.jetStream()
	createBareStream(b, js)
	f := newFleet(b)
	for range edges {
		f.add(following("nats://"+server.addr, 1))
	}
	f.run()
	arrivals := make([]chan time.Time, edges)
	for i := range arrivals {
		arrivals[i] = consumeBare(b, server)
	}
	payload := []byte(benchEntry(0))
	for b.Loop() {
		var refusals, sent, bare []time.Duration
		for i := range rounds {
			at, other := f.edges[i%edges], f.edges[(i+1+i/edges%(edges-1))%edges]
			token := f.token("user")
			other.wantPass("a fresh token", token)
			began := time.Now()
			at.revoke(token)
			acknowledged := time.Now()
			for a := other.get(token); !refused(a); a = other.get(token) {
				if time.Since(acknowledged) > 10*time.Second {
					b.Fatalf("not refused on the other edge: %s", a)
				}
			}
			now := time.Now()
			refusals, sent = append(refusals, now.Sub(acknowledged)), append(sent, now.Sub(began))

			began = time.Now()
			if _, err := js.Publish(b.Context(), bareSubject, payload, jetstream.WithMsgTTL(time.Hour)); err != nil {
				b.Fatal(err)
			}
			for n, arrived := range arrivals {
				if took := (<-arrived).Sub(began); n == i%edges {
					bare = append(bare, took)
				}
			}
		}
		for name, delays := range map[string][]time.Duration{"acked-to-refused": refusals, "sent-to-refused": sent, "bare": bare} {
			b.ReportMetric(quantile(delays, 0.5).Seconds()*1e3, "p50-ms-"+name)
			b.ReportMetric(quantile(delays, 0.99).Seconds()*1e3, "p99-ms-"+name)
		}
		b.ReportMetric(quantile(refusals, 0.5).Seconds()/quantile(bare, 0.5).Seconds(), "p50-acked/bare")
	}
	b.ReportMetric(0, "ns/op")
}

// consumeBare follows the second stream on a connection of its own, and says when
// each message came.
func consumeBare(b *testing.B, server *natsServer) chan time.Time {
	b.Helper()
	js := server.jetStream()
	consumer, err := js.CreateConsumer(b.Context(), bareStream, jetstream.ConsumerConfig{
		AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, InactiveThreshold: time.Minute,
	})
	if err != nil {
		b.Fatal(err)
	}
	arrived := make(chan time.Time, 16)
	consuming, err := consumer.Consume(func(jetstream.Msg) { arrived <- time.Now() })
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(consuming.Stop)
	return arrived
}

// BenchmarkStartWithAMillionRevocations measures the time from the start of the
// process until the edge is in sync: by reading the whole ledger, and from a
// checkpoint.
func BenchmarkStartWithAMillionRevocations(b *testing.B) {
	entries := 1_000_000
	if testing.Short() {
		entries = 10_000
	}
	server := newNATSServer(b, "nats", b.TempDir())
	server.start()
	f := newFleet(b)
	e := f.add(following("nats://"+server.addr, 1), "max_bytes 3GiB", "max_entries 4_000_000")
	e.run()
	e.process.stop()
	fillLedger(b, server.jetStream(), entries)
	timed := func() float64 {
		e.client.CloseIdleConnections()
		began := time.Now()
		e.run()
		took := time.Since(began)
		if held := e.status().Denylist.Entries; held < entries {
			b.Fatalf("in sync with %d of %d revocations", held, entries)
		}
		e.process.stop()
		return took.Seconds()
	}
	for b.Loop() {
		e.forgetCheckpoint()
		b.ReportMetric(timed(), "s-replay")
		b.ReportMetric(timed(), "s-checkpoint")
	}
	b.ReportMetric(float64(entries), "revocations")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkDurableRevocationsThroughHTTP compares 64 clients of the endpoint of
// one edge, every write synced by its embedded server, with 64 publishers of the
// same server that do nothing but wait for acknowledgments: in pairs, of which it
// reports the median.
func BenchmarkDurableRevocationsThroughHTTP(b *testing.B) {
	const clients, pairs = 64, 7
	each := 100
	if testing.Short() {
		each = 4
	}
	f := newFleet(b)
	e := f.add("embedded {\n\t\t\tlisten 127.0.0.1:4222\n\t\t}", "client_quota 1000000")
	f.run()
	nc, err := nats.Connect("nats://" + e.nats)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		b.Fatal(err)
	}
	createBareStream(b, js)
	payload := []byte(benchEntry(0))
	for b.Loop() {
		var http, bare, ratios []float64
		for range pairs {
			requests := make([][][]byte, clients)
			for c := range requests {
				for range each {
					requests[c] = append(requests[c], e.rawRevocation(f.token("user")))
				}
			}
			h := perSecond(b, clients, each, func(c int) error { return postAll(e.address, requests[c]) })
			p := perSecond(b, clients, each, func(int) error {
				for range each {
					if _, err := js.Publish(b.Context(), bareSubject, payload, jetstream.WithMsgTTL(time.Hour), jetstream.WithMsgID(rand.Text())); err != nil {
						return err
					}
				}
				return nil
			})
			http, bare, ratios = append(http, h), append(bare, p), append(ratios, h/p)
		}
		b.ReportMetric(quantile(http, 0.5), "revocations/s")
		b.ReportMetric(quantile(bare, 0.5), "bare-publishes/s")
		b.ReportMetric(quantile(ratios, 0.5), "http/bare")
	}
	b.ReportMetric(0, "ns/op")
}

// perSecond lets workers do a number of things each, and returns how many were
// done in a second.
func perSecond(b *testing.B, workers, each int, do func(worker int) error) float64 {
	b.Helper()
	var wg sync.WaitGroup
	failures := make(chan error, workers)
	began := time.Now()
	for worker := range workers {
		wg.Go(func() { failures <- do(worker) })
	}
	wg.Wait()
	took := time.Since(began)
	for range workers {
		if err := <-failures; err != nil {
			b.Fatal(err)
		}
	}
	return float64(workers*each) / took.Seconds()
}

// rawRevocation is a request to the endpoint as it goes over the wire: preparing
// it must not be part of what is measured.
func (e *edge) rawRevocation(token string) []byte {
	body := url.Values{"token": {token}, "client_id": {publicClient}}.Encode()
	return fmt.Appendf(nil, "POST /oauth/revoke HTTP/1.1\r\nHost: localhost%s\r\n"+
		"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s",
		e.address[strings.LastIndex(e.address, ":"):], len(body), body)
}

// postAll sends requests one after the other on one connection.
func postAll(address string, requests [][]byte) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	reader := bufio.NewReader(conn)
	for _, request := range requests {
		if _, err := conn.Write(request); err != nil {
			return err
		}
		status, err := skipAnswer(reader)
		if err != nil {
			return err
		}
		if status != http.StatusOK {
			return fmt.Errorf("revoking: status %d", status)
		}
	}
	return nil
}

// forgetCheckpoint removes what the edge has stored beside the ledger.
func (e *edge) forgetCheckpoint() {
	e.t.Helper()
	if err := os.RemoveAll(filepath.Join(e.data(), "caddy", "token_revocation", "checkpoints")); err != nil {
		e.t.Fatal(err)
	}
}

// fillLedger publishes entries as another program would.
func fillLedger(b *testing.B, js jetstream.JetStream, entries int) {
	b.Helper()
	for i := range entries {
		if _, err := js.PublishAsync(ledger.KindEntry.Subject(), []byte(benchEntry(i)),
			jetstream.WithMsgTTL(48*time.Hour), jetstream.WithStallWait(time.Minute)); err != nil {
			b.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	select {
	case <-js.PublishAsyncComplete():
	case <-ctx.Done():
		b.Fatal("the server does not acknowledge the entries")
	}
}

// benchEntry is an ordinary entry of the ledger: the revocation of one token.
func benchEntry(i int) string {
	entry, err := json.Marshal(map[string]any{
		"v": 1, "id": fmt.Sprintf("%032x", i), "issuer": faultIssuer, "criteria": map[string]string{"jti": fmt.Sprintf("%026d", i)},
		"expires": time.Now().Add(24 * time.Hour).Unix(), "reason": "logout", "actor": "client:" + publicClient, "decided_at": time.Now().UnixMilli(),
	})
	if err != nil {
		panic(err) // the tests' own mistake
	}
	return string(entry)
}
