package streams

import (
	"fmt"
	"runtime"
	"testing"
	"unsafe"
)

// BenchmarkShortRequest is what a request costs that is over before anything is
// revoked.
func BenchmarkShortRequest(b *testing.B) {
	d := newDenylist(b)
	r := watching(b, d, Options{})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		o := newToken("sub", "a")
		id := o.extract(nil)
		for pb.Next() {
			o.Stream = Stream{}
			r.Open(&o.Stream, o, id, 0, 0)
			r.Close(&o.Stream)
		}
	})
}

// BenchmarkMemory is what the registry holds of an open stream, by the number of
// shapes in use.
func BenchmarkMemory(b *testing.B) {
	for _, shapes := range []int{0, 1, 3, 6} {
		b.Run(fmt.Sprintf("shapes=%d", shapes), func(b *testing.B) {
			for range b.N {
				measureMemory(b, shapes)
			}
		})
	}
}

func measureMemory(b *testing.B, shapes int) {
	const count = 100_000
	d := newDenylist(b)
	r := byHand(b, d, Options{})
	all := make([]*token, count)
	for i := range all {
		n := fmt.Sprint(i)
		all[i] = newToken("sub", n, "jti", n, "sid", n, "client_id", "app", "token", n, "kid", "k")
	}
	before := heapInUse()
	for _, o := range all {
		r.Open(&o.Stream, o, &o.whole, 0, 0)
	}
	r.turn()
	for i, name := range []string{"sub", "jti", "client_id", "sid", "token", "kid"}[:shapes] {
		d.Revoke(uint64(i+1), block(criteria(name, "other")))
	}
	r.turn()
	b.ReportMetric((heapInUse()-before)/count+float64(unsafe.Sizeof(Stream{})), "B/stream")
	runtime.KeepAlive(all)
}

func heapInUse() float64 {
	var m runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// BenchmarkRevoke is until the streams of one user of a hundred are found and cut,
// without what their requests do then.
func BenchmarkRevoke(b *testing.B) {
	for _, count := range []int{10_000, 100_000} {
		b.Run(fmt.Sprintf("streams=%d", count), func(b *testing.B) {
			d := newDenylist(b)
			r := byHand(b, d, Options{})
			for i := range count {
				n := fmt.Sprint(i)
				newToken("sub", fmt.Sprint(i%100), "jti", n, "client_id", "app").open(r, d, 0)
			}
			r.turn()
			for i := range b.N {
				d.Revoke(uint64(i+1), cutoff(criteria("sub", fmt.Sprint(i%100)), 1)) // names none
				r.turn()
			}
		})
	}
}
