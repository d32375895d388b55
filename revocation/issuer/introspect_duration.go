package issuer

import (
	"sync/atomic"
	"time"
)

// introspectionBuckets are the upper bounds of [Durations], from a server on the
// same machine to the longest timeout.
var introspectionBuckets = [...]time.Duration{
	time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond,
	10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 3 * time.Second, 10 * time.Second, MaxIntrospectionTimeout,
}

// Durations tells how long questions took, from when they were sent until the
// answer was read or nothing was left to wait for.
type Durations struct {
	Count uint64
	Sum   time.Duration
	// Buckets are how many took no longer than each bound. Longer ones are in
	// Count only.
	Buckets map[time.Duration]uint64
}

// durationCounts counts for [Durations]. It is safe for concurrent use.
type durationCounts struct {
	within [len(introspectionBuckets)]atomic.Uint64 // and not within the bound before
	beyond atomic.Uint64
	sum    atomic.Int64 // nanoseconds
}

func (c *durationCounts) observe(took time.Duration) {
	c.sum.Add(int64(took))
	for n, bound := range introspectionBuckets {
		if took <= bound {
			c.within[n].Add(1)
			return
		}
	}
	c.beyond.Add(1)
}

// read returns the present state. Count is never less than a bucket.
func (c *durationCounts) read() Durations {
	d := Durations{Buckets: make(map[time.Duration]uint64, len(introspectionBuckets))}
	for n, bound := range introspectionBuckets {
		d.Count += c.within[n].Load()
		d.Buckets[bound] = d.Count
	}
	d.Count += c.beyond.Load()
	d.Sum = time.Duration(c.sum.Load())
	return d
}
