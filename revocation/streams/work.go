package streams

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/denylist"
)

// run is the registry's goroutine.
func (r *Registry) run() {
	ticker := time.NewTicker(r.interval)
	defer ticker.Stop()
	for {
		select {
		case <-r.stop:
			return
		case <-r.wake:
		case <-ticker.C:
		}
		r.turn()
	}
}

// turn does what there is to do.
func (r *Registry) turn() {
	r.mu.Lock()
	work := r.pending
	r.pending = pending{}
	r.mu.Unlock()
	// After that: a stream that was opened since then has been checked since then.
	r.collect()

	var found cuts
	now := r.now()
	if work.all {
		r.checkAll(work.lost, now, &found)
	}
	for i := range work.changes {
		r.find(&work.changes[i], now, &found)
	}
	for s := r.index.expiry.next(now.Unix()); s != nil; s = r.index.expiry.next(now.Unix()) {
		found.add(s, CutError{Reason: Expired})
	}
	r.index.tidy(now)
	r.cut(found)
}

// collect indexes the streams that are new, and forgets those that are over.
func (r *Registry) collect() {
	for i := range r.shards {
		sh := &r.shards[i]
		sh.mu.Lock()
		dead := sh.dead
		sh.dead = nil
		var first *Stream // of those that were young, linked by next
		for s := sh.young.head.next; s != &sh.young.head; {
			next := s.next
			s.indexed = true
			s.next, first = first, s
			s = next
		}
		sh.young.init()
		sh.mu.Unlock()

		for s := first; s != nil; {
			next := s.next
			r.index.add(s)
			s = next
		}
		for s := dead; s != nil; {
			next := s.dead
			s.dead = nil
			r.index.remove(s)
			s = next
		}
	}
}

// find looks up the streams that a revocation names, and asks the denylist about
// each.
func (r *Registry) find(c *denylist.Change, now time.Time, found *cuts) {
	sh := r.index.of(c, now)
	for l := sh.streams[hashOf(c.Fingerprint)]; l != nil; l = l.next {
		for _, id := range l.stream.identities() {
			if id == nil || l.stream.isCut {
				continue
			}
			d := r.list.Check(id)
			if d.Overflow {
				if narrow := narrowed(id, sh.mode, sh.names, c.Fingerprint); narrow != nil {
					d = r.list.Check(narrow)
				}
			}
			found.judge(l.stream, d)
		}
	}
	for s := range sh.unsure {
		if s.isCut {
			continue
		}
		read := !sh.special || r.index.refresh(s)
		for _, id := range s.identities() {
			switch {
			case id == nil || c.Criteria != nil && !issuedBy(id, c.Criteria.Issuer):
			case !hides(id, sh.names, read):
				found.judge(s, r.list.Check(id))
			case c.Criteria == nil:
				found.add(s, CutError{Reason: Unreadable})
			default:
				if narrow := supposed(id, c, read); narrow != nil && r.list.Check(narrow).Denied {
					found.add(s, CutError{Reason: Unreadable})
				}
			}
		}
	}
}

// checkAll asks the denylist about each stream. If revocations are lost, those
// that may hide from one are cut.
func (r *Registry) checkAll(lost bool, now time.Time, found *cuts) {
	keys := lost && r.list.NamesKeys(now)
	all := &r.index.all.head
	for s := all.next; s != all; s = s.next {
		read := r.index.refresh(s)
		for _, id := range s.identities() {
			if id == nil {
				continue
			}
			if found.judge(s, r.list.Check(id)); lost && !read || keys && len(id.Values(revocation.ClaimKeyID)) == 0 {
				found.add(s, CutError{Reason: Unreadable})
			}
		}
	}
}

// cuts are the streams to be cut.
type cuts struct{ streams []cut }

type cut struct {
	stream *Stream
	cause  CutError
}

func (c *cuts) judge(s *Stream, d denylist.Decision) {
	switch {
	case !d.Denied || d.Stale:
	case d.Overflow:
		c.add(s, CutError{Reason: TooManyValues})
	default:
		c.add(s, CutError{Reason: Revoked, Sequence: d.Sequence, Mode: d.Mode, Shape: d.Shape})
	}
}

func (c *cuts) add(s *Stream, cause CutError) {
	if !s.isCut {
		s.isCut = true
		c.streams = append(c.streams, cut{s, cause})
	}
}

// atOnce is from how many streams on they are cut by several goroutines: each
// takes some system calls.
const atOnce = 64

// cut ends streams, and reports it.
func (r *Registry) cut(found cuts) {
	if len(found.streams) == 0 {
		return
	}
	var mu sync.Mutex
	batches := make(map[CutError]int)
	var next atomic.Int64
	work := func() {
		mine := make(map[CutError]int)
		for i := next.Add(1) - 1; i < int64(len(found.streams)); i = next.Add(1) - 1 {
			if c := &found.streams[i]; c.stream.end(&c.cause) {
				mine[c.cause]++
			}
		}
		mu.Lock()
		defer mu.Unlock()
		for cause, n := range mine {
			batches[cause] += n
		}
	}
	var workers sync.WaitGroup
	for range min(len(found.streams)/atOnce, runtime.GOMAXPROCS(0)-1) {
		workers.Go(work)
	}
	work()
	workers.Wait()
	for cause, n := range batches {
		r.report(Batch{Cause: cause, Streams: n})
	}
}

// end cuts one stream, unless it was closed. It returns false if it goes on.
func (s *Stream) end(cause *CutError) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.request == nil {
		return false
	}
	own := *cause // whoever keeps it keeps nothing else
	return s.request.Cut(&own)
}
