package caddymodule

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/streams"
)

type nothing struct{ http.ResponseWriter }

// BenchmarkLiveRequest compares a request that is handed on with one that a
// revocation may end, behind the check of its token.
func BenchmarkLiveRequest(b *testing.B) {
	r, err := newReplica(newDenylistLimits(0, 0, 0))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = r.Destruct() })
	id := benchIdentity("alice")
	next := caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error { return nil })
	for _, shapes := range []int{0, 1, 5} {
		for i := range shapes {
			r.denylist.Revoke(uint64(i+1), &revocation.Revocation{
				ID: "bench", Expires: time.Now().Add(time.Hour).Unix(),
				Criteria: revocation.Criteria{Issuer: "https://issuer.example", Claims: map[string]string{
					[]string{"sub", "jti", "sid", "client_id", "token"}[i]: "other",
				}},
			})
		}
		for _, d := range []*Denylist{
			{app: &App{replica: r}},
			{app: &App{replica: r}, CutStreams: new(CutStreams)},
		} {
			b.Run(fmt.Sprintf("shapes=%d/cut_streams=%t", shapes, d.CutStreams != nil), func(b *testing.B) {
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					w, request := nothing{httptest.NewRecorder()}, httptest.NewRequest("GET", "/", nil)
					w.Header().Set("Server", "Caddy")
					for pb.Next() {
						_, epoch := r.denylist.ClaimNames()
						_ = d.serve(w, request, next, verdict{identity: id, epoch: epoch, changes: r.streams.registry.Changes()})
					}
				})
			})
		}
	}
}

func benchIdentity(user string) *revocation.Identity {
	id := &revocation.Identity{Issuer: "https://issuer.example", IssuedAt: 1, Verified: true, Claims: []revocation.Claim{
		{Name: "sub", Value: user}, {Name: "client_id", Value: "app"}, {Name: "jti", Value: "j-" + user},
		{Name: "sid", Value: "s-" + user}, {Name: "token", Value: "h-" + user},
	}}
	revocation.SortClaims(id.Claims)
	return id
}

// BenchmarkLiveStreamMemory reports what one open stream costs beyond a request
// that is handed on, its index under all shapes included. The goroutine that a
// handler has is not counted; the identity is the cache's.
func BenchmarkLiveStreamMemory(b *testing.B) {
	const count = 10_000
	r, err := newReplica(newDenylistLimits(0, 0, 0))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = r.Destruct() })
	names := []string{"sub", "jti", "sid", "client_id", "token"}
	streamMemory(b, r, count, nil, nil) // goroutines are kept for later ones
	for shapes := range len(names) + 1 {
		b.Run(fmt.Sprintf("shapes=%d", shapes), func(b *testing.B) {
			for range b.N {
				without := streamMemory(b, r, count, nil, nil)
				with := streamMemory(b, r, count, names[:shapes], new(CutStreams))
				b.ReportMetric((with-without)/count, "B/stream")
			}
		})
	}
}

// streamMemory returns the bytes that so many open streams take.
func streamMemory(b *testing.B, r *replica, count int, shapes []string, cut *CutStreams) float64 {
	d := &Denylist{app: &App{replica: r}, CutStreams: cut}
	ids := make([]*revocation.Identity, count)
	for i := range ids {
		ids[i] = benchIdentity(fmt.Sprint(i))
	}
	in, stop, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	next := caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		in <- struct{}{}
		<-stop
		runtime.KeepAlive(w)
		runtime.KeepAlive(r)
		return nil
	})
	before := heap()
	kept := make([]any, 0, 2*count) // what the server keeps in any case
	for _, id := range ids {
		request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "https://site.example/", nil)
		if err != nil {
			b.Fatal(err)
		}
		w := nothing{httptest.NewRecorder()}
		w.Header().Set("Server", "Caddy")
		kept = append(kept, request, w)
		go func() {
			defer func() { done <- struct{}{} }()
			_ = d.serve(w, request, next, verdict{identity: id})
		}()
		<-in
	}
	for _, name := range shapes {
		r.denylist.Revoke(r.denylist.Position().Sequence+1, &revocation.Revocation{
			ID: "bench", Expires: time.Now().Add(time.Hour).Unix(),
			Criteria: revocation.Criteria{Issuer: "https://issuer.example", Claims: map[string]string{name: "other"}},
		})
	}
	time.Sleep(2 * streams.DefaultInterval) // until all are indexed
	after := heap()
	close(stop)
	for range ids {
		<-done
	}
	time.Sleep(2 * streams.DefaultInterval)
	runtime.KeepAlive(ids)
	runtime.KeepAlive(kept)
	return after - before
}

func heap() float64 {
	var m runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}
