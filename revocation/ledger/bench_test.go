package ledger_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/ledger"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// discard is a sink that costs nothing.
type discard struct {
	n atomic.Int64
	p revocation.Position
}

func (d *discard) Revoke(uint64, *revocation.Revocation)     { d.n.Add(1) }
func (d *discard) Restore(uint64, *revocation.Restoration)   {}
func (d *discard) Position() revocation.Position             { return revocation.Position{} }
func (d *discard) SetPosition(p revocation.Position)         { d.p = p }
func (d *discard) MarkIncomplete(reason string, until int64) {}

// BenchmarkReplay is the time per entry from Follow to in sync, on a stream that
// holds all of them already, over TCP.
func BenchmarkReplay(b *testing.B) {
	srv := revocationtest.StartNATS(b)
	o := external(srv.URL())
	o.MaxBytes = 2 << 30
	l, err := ledger.Open(o)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if _, err := l.Init(b.Context()); err != nil {
		b.Fatal(err)
	}
	js := client(b, srv.URL())
	end := time.Now().Add(24 * time.Hour).Unix()
	for i := range b.N {
		payload := fmt.Sprintf(`{"v":1,"id":"%032x","issuer":"https://sso.example.com","criteria":{"jti":"%032x"},"expires":%d,"reason":"logout","actor":"client:demo","decided_at":1700000000123}`, i, i, end)
		if _, err := js.PublishAsync(ledger.KindEntry.Subject(), []byte(payload), jetstream.WithMsgTTL(24*time.Hour), jetstream.WithStallWait(time.Minute)); err != nil {
			b.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
	s := &discard{}
	b.ReportAllocs()
	b.ResetTimer()
	f := l.Follow(s, ledger.Observer{})
	defer f.Stop()
	for !f.State().InSync {
		time.Sleep(time.Millisecond)
	}
	b.StopTimer()
	if n := s.n.Load(); n != int64(b.N) {
		b.Fatalf("%d of %d", n, b.N)
	}
}

// BenchmarkPublish compares recording a decision, by 64 callers with every write
// synced, with bare JetStream publishing on the same server.
func BenchmarkPublish(b *testing.B) {
	o := embedded(b.TempDir())
	o.Embedded.SyncInterval = 0
	o.Embedded.Listen = "127.0.0.1:0"
	o.MaxBytes = 4 << 30
	l := open(b, o)
	if _, err := l.Init(b.Context()); err != nil {
		b.Fatal(err)
	}
	js := client(b, "nats://"+l.Status().Listen)
	var id atomic.Int64
	payload := []byte(entry("00000000000000000000000000000000"))
	b.Run("bare", func(b *testing.B) {
		b.SetParallelism(32) // times two processors
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := js.Publish(b.Context(), ledger.KindEntry.Subject(), payload, jetstream.WithMsgTTL(time.Hour)); err != nil {
					b.Error(err)
				}
			}
		})
	})
	b.Run("ledger", func(b *testing.B) {
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := l.PublishRevocation(b.Context(), revoke(fmt.Sprintf("%032x", id.Add(1)))); err != nil {
					b.Error(err)
				}
			}
		})
	})
}
