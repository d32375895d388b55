package ledger_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/denylist"
	"github.com/edge-revocation/caddy-token-revocation/revocation/ledger"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// discard is a sink that costs nothing.
type discard struct {
	n atomic.Int64
	p revocation.Position
}

func (d *discard) Revoke(uint64, *revocation.Revocation)      { d.n.Add(1) }
func (d *discard) RevokeHeld(uint64, *revocation.HeldEntry)   { d.n.Add(1) }
func (d *discard) Restore(uint64, *revocation.Restoration)    {}
func (d *discard) Recheck(uint64, string)                     {}
func (d *discard) Position() revocation.Position              { return revocation.Position{} }
func (d *discard) SetPosition(p revocation.Position)          { d.p = p }
func (d *discard) NewHistory(p revocation.Position, _ uint64) { d.p = p }
func (d *discard) MarkUnreadable(_ uint64, _ string, _ int64) {}
func (d *discard) Acknowledge(uint64) bool                    { return false }

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
	b.ReportAllocs()
	b.ResetTimer()
	began := time.Now()
	s := &discard{}
	f := l.Follow(s, ledger.Observer{})
	defer f.Stop()
	for !f.State().InSync {
		time.Sleep(time.Millisecond)
	}
	took := time.Since(began)
	b.StopTimer()
	if n := s.n.Load(); n != int64(b.N) {
		b.Fatalf("%d of %d", n, b.N)
	}
	b.ReportMetric(float64(took)/float64(readBare(b, js)), "replay/bare")
}

// readBare reads all entries with a consumer like the follower's, looks into none
// of them, and returns how long that took.
func readBare(b *testing.B, js jetstream.JetStream) time.Duration {
	b.Helper()
	began := time.Now()
	consumer, err := js.CreateConsumer(b.Context(), ledger.DefaultStream, jetstream.ConsumerConfig{
		FilterSubject: ledger.KindEntry.Subject(), AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true,
	})
	if err != nil {
		b.Fatal(err)
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(5000))
	if err != nil {
		b.Fatal(err)
	}
	defer messages.Stop()
	for range b.N {
		if _, err := messages.Next(); err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(began)
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

// BenchmarkImport compares recording revocations one at a time, by one caller
// and by 64, with importing them, every write synced: the time of each is that of
// one revocation.
//
//	go test ./revocation/ledger -run '^$' -bench Import -benchtime 20000x
//	go test ./revocation/ledger -run '^$' -bench Import/import -benchtime 1000000x
func BenchmarkImport(b *testing.B) {
	benchmarkSync(b, 0)
}

// BenchmarkSync is the cost of each setting of the embedded server's sync
// interval.
//
//	go test ./revocation/ledger -run '^$' -bench Sync -benchtime 2000x -count 4
func BenchmarkSync(b *testing.B) {
	for _, interval := range []time.Duration{0, 100 * time.Millisecond, time.Second, 2 * time.Minute} {
		name := interval.String()
		if interval == 0 {
			name = "always"
		}
		b.Run(name, func(b *testing.B) { benchmarkSync(b, interval) })
	}
}

func benchmarkSync(b *testing.B, interval time.Duration) {
	o := embedded(b.TempDir())
	o.Embedded.SyncInterval = interval
	o.MaxBytes = 8 << 30
	d, err := denylist.New(denylist.Options{MaxEntries: 1 << 24})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(d.Close)
	e := &edge{Ledger: open(b, o), denylist: d}
	e.Follower = e.Follow(d, ledger.Observer{})
	e.service = revocation.NewService(e, roomy{d}, revocation.Policy{}, nil)
	e.synced(b)
	expires := time.Now().Add(time.Hour).Unix()
	var id atomic.Int64
	one := func(b *testing.B) {
		if _, err := e.service.Revoke(b.Context(), tokenRequest(fmt.Sprintf("%032x", id.Add(1)), expires)); err != nil {
			b.Error(err)
		}
	}
	b.Run("one caller", func(b *testing.B) {
		for range b.N {
			one(b)
		}
	})
	b.Run("64 callers", func(b *testing.B) {
		b.SetParallelism(32) // times two processors
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				one(b)
			}
		})
	})
	b.Run("import", func(b *testing.B) {
		const most = 4096
		requests := make([]revocation.Request, 0, most)
		for done := 0; done < b.N; done += len(requests) {
			requests = requests[:0]
			for range min(most, b.N-done) {
				requests = append(requests, tokenRequest(fmt.Sprintf("%032x", id.Add(1)), expires))
			}
			for _, r := range e.service.Import(b.Context(), requests) {
				if r.Err != nil {
					b.Fatal(r.Err)
				}
			}
		}
	})
}

// roomy is a denylist that has room for every benchmark.
type roomy struct{ *denylist.Denylist }

func (roomy) Room() int { return 1 << 20 }
