package ledger

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// freshness answers how old this edge's knowledge of the ledger is. A heartbeat
// entry that was stored at some moment, and came through the ledger, proves that
// every entry from before that moment has come through too. What remains is to
// place that moment on this machine's monotonic clock, although no wall clock can
// be trusted:
//
//   - A heartbeat of our own was stored after we sent it. That is exact.
//   - For one of another edge there is the server's time stamp. The server's
//     clock is related to ours by asking it for the time: it read "at" no earlier
//     than we asked. Whatever the two clocks show, the difference holds as long
//     as neither is set; asking is repeated with each look at the stream, every
//     few seconds, and the newest answer counts.
//
// Every error is on the safe side: an answer, or a heartbeat, that was under way
// for long makes the knowledge look older, not younger. In particular an old
// heartbeat that arrives late, after the network was frozen or when following
// resumes, is as old as it is.
type freshness struct {
	epoch time.Time // origin of the monotonic clock

	mu         sync.Mutex
	calibrated bool
	asked      time.Time     // for the calibration in use
	baseline   time.Duration // smallest known (ours - server's) clock difference

	// proof is the newest moment that is proven, in nanoseconds since epoch.
	proof atomic.Int64
}

const noProof = math.MinInt64

// never is the age of knowledge that was never proven.
const never = time.Duration(math.MaxInt64)

func newFreshness(epoch time.Time) *freshness {
	f := &freshness{epoch: epoch}
	f.proof.Store(noProof)
	return f
}

// elapsed places t, whose monotonic reading counts, on the monotonic clock.
func (f *freshness) elapsed(t time.Time) time.Duration { return t.Sub(f.epoch) }

// calibrate takes that the server's clock read at, at or after the moment asked.
// What is older than the newest so far is ignored.
func (f *freshness) calibrate(asked, at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.calibrated && !asked.After(f.asked) {
		return
	}
	f.asked = asked
	f.baseline = f.elapsed(asked) - sinceUnix(at)
	f.calibrated = true
}

// heard takes that a heartbeat stored at the given time of the server's clock
// has arrived, and returns how late it is. Before the first calibration it
// proves nothing.
func (f *freshness) heard(at, arrived time.Time) (late time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.calibrated {
		return never
	}
	took := f.elapsed(arrived) - sinceUnix(at)
	// Faster than possible: the server's clock was set forward since.
	f.baseline = min(f.baseline, took)
	late = took - f.baseline
	f.prove(f.elapsed(arrived) - late)
	return late
}

// echoed takes that a heartbeat which we sent at the given time has arrived.
func (f *freshness) echoed(sent time.Time) { f.prove(f.elapsed(sent)) }

func (f *freshness) prove(moment time.Duration) {
	for {
		old := f.proof.Load()
		if int64(moment) <= old || f.proof.CompareAndSwap(old, int64(moment)) {
			return
		}
	}
}

// proven returns the newest moment that is proven, relative to the epoch.
func (f *freshness) proven() (time.Duration, bool) {
	p := f.proof.Load()
	return time.Duration(p), p != noProof
}

// age returns how old the knowledge is, or never.
func (f *freshness) age(now time.Time) time.Duration {
	p, ok := f.proven()
	if !ok {
		return never
	}
	return max(f.elapsed(now)-p, 0)
}

// sinceUnix is a time as a duration, so that the difference to a monotonic
// reading can be formed. Only differences of it mean something.
func sinceUnix(t time.Time) time.Duration { return time.Duration(t.UnixNano()) }
