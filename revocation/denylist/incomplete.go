package denylist

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// maxMissing is how many entries that are not held are known one by one.
const maxMissing = 4096

// lack knows what the index should hold and does not. It never forgets that
// something is missing before it would have ended.
type lack struct {
	current atomic.Pointer[gap] // what readers see: the gap that lasts longest

	mu      sync.Mutex
	marked  gap                                // by the follower
	full    gap                                // by entries for which there was no room
	deleted int64                              // the latest end of what was deleted, or not stored, as having ended
	missing map[revocation.Fingerprint]missing // those entries for which there was no room
	unread  map[uint64]unread                  // by sequence: what the follower could not read
	untold  int64                              // the latest end among those beyond maxMissing
	waived  int64                              // the latest end of an unreadable entry that was acknowledged
}

type gap struct {
	reason string
	until  int64 // Unix seconds
}

// unread is an entry of the ledger that this edge can't read.
type unread struct {
	gap
	before bool // its sequence is that of a history before the present one
	loaded bool // an earlier process could not read it
}

// missing is an entry that the index can't hold, merged from all decisions on its
// criteria. It has what it takes to hold it elsewhere: a checkpoint carries it.
type missing struct {
	term  term
	last  uint64
	mixed bool // not all of it is of the present history
	mode  revocation.Mode
	names []string
	actor string
}

// Incomplete tells whether entries that should be in force are not held, why,
// and until when: the end of the last of them, in Unix seconds. It is cheap, and
// to be asked with each request by routes that fail closed.
func (d *Denylist) Incomplete(now time.Time) (reason string, until int64, ok bool) {
	g := d.lack.current.Load()
	if g == nil {
		return "", 0, false
	}
	// A wall clock that was just set wrong closes no gap either. The steady clock
	// need not be read for one that ended before it can be behind.
	wall := now.Unix()
	if wall-purgeMargin > g.until || wall > g.until && d.steady.unix(now) > g.until {
		return "", 0, false
	}
	return g.reason, g.until, true
}

// MarkIncomplete records that an entry of the ledger could not be applied, and
// when it ends, in Unix seconds. An end that is not known is given as zero and
// taken for [revocation.MaxRetention] from now. The reason must hold no secret.
func (d *Denylist) MarkIncomplete(reason string, until int64) {
	now := d.now()
	if until <= 0 {
		until = now.Add(revocation.MaxRetention).Unix()
	}
	if d.lack.mark(gap{reason: reason, until: until}, now.Unix()) {
		d.logger.Error("denylist is incomplete: an entry can not be applied",
			slog.String("reason", reason), slog.Int64("until", until))
	}
}

// mark returns true if the denylist was complete before.
func (l *lack) mark(g gap, now int64) (first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first = g.until >= now && l.complete(now)
	if g.until > l.marked.until {
		l.marked = g
	}
	l.publish()
	return first
}

// miss records an entry that is not held. It returns true if the denylist was
// complete before.
func (l *lack) miss(reason string, e *decision, mixed bool, now int64) (first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t, print := e.term, e.print
	first = t.expires() >= now && l.complete(now)
	l.full.reason = reason
	if m, ok := l.missing[print]; ok || len(l.missing) < maxMissing {
		if l.missing == nil {
			l.missing = make(map[revocation.Fingerprint]missing)
		}
		l.missing[print] = missing{
			term: t.merge(m.term), last: max(e.sequence, m.last), mixed: mixed || m.mixed,
			mode: e.mode, names: e.names, actor: e.actor,
		}
	} else {
		l.untold = max(l.untold, t.expires())
	}
	l.full.until = max(l.full.until, t.expires())
	l.publish()
	return first
}

// found records that the index holds an entry with this term.
func (l *lack) found(print revocation.Fingerprint, t term) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m, ok := l.missing[print]; ok && t.covers(m.term) {
		delete(l.missing, print)
		l.recount()
	}
}

// undo records a restoration: what it undoes is not missing.
func (l *lack) undo(print revocation.Fingerprint, sequence uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m, ok := l.missing[print]; ok && m.last < sequence {
		delete(l.missing, print)
		l.recount()
	}
}

// ended records that something was deleted, or not stored, because it has ended
// by a clock that may turn out to be wrong, from the start or for long. It is
// missing if the clock goes back to before its end, and nothing is otherwise.
func (l *lack) ended(expires int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if expires > l.deleted {
		l.deleted = expires
		l.publish()
	}
}

// expire forgets what has ended.
func (l *lack) expire(now int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	removed := false
	for print, m := range l.missing {
		if over(m.term.expires(), now, false) {
			l.deleted = max(l.deleted, m.term.expires())
			delete(l.missing, print)
			removed = true
		}
	}
	for sequence, u := range l.unread {
		if over(u.until, now, false) {
			l.deleted = max(l.deleted, u.until)
			delete(l.unread, sequence)
			removed = true
		}
	}
	if removed {
		l.recount()
	}
}

func (l *lack) recount() {
	l.full.until = l.untold
	for _, m := range l.missing {
		l.full.until = max(l.full.until, m.term.expires())
	}
	l.publish()
}

func (l *lack) complete(now int64) bool {
	g := l.current.Load()
	return g == nil || now > g.until
}

func (l *lack) publish() {
	g := l.rest(l.full)
	for _, u := range l.unread {
		if u.until > g.until {
			g = u.gap
		}
	}
	if was := l.current.Load(); was == nil || *was != g {
		l.current.Store(&g)
	}
}

// rest returns the gap that lasts longest among those that nobody can close, and
// the given one.
func (l *lack) rest(full gap) gap {
	g := gap{reason: "the clock went back to before the end of entries that were deleted", until: l.deleted}
	if full.until >= g.until {
		g = full
	}
	if l.marked.until >= g.until {
		g = l.marked
	}
	return g
}

// count returns how many entries are known not to be held.
func (l *lack) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.missing)
}
