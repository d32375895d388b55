package oauth

import (
	"container/list"
	"crypto/sha256"
	"strconv"
	"sync"
	"time"
)

// maxPaced bounds the memory of a pace to a few megabytes. Its keys are clients
// that have authenticated, of which few are busy at the same time.
const maxPaced = 16384

// pace bounds how often a second each client may do something, with bursts: a
// token bucket for each, kept as the time at which it is full again.
type pace struct {
	interval time.Duration // in which one token comes
	burst    time.Duration // in which a whole bucket comes
	now      func() time.Time

	mu      sync.Mutex
	entries map[paceKey]*list.Element
	byUse   list.List // of *paceEntry, the longest unused first
}

// paceKey is a hash, since other stores' ids may be of any length.
type paceKey [16]byte

type paceEntry struct {
	key  paceKey
	full time.Time
}

func newPace(perSecond, burst int, now func() time.Time) *pace {
	interval := time.Second / time.Duration(perSecond)
	return &pace{
		interval: interval, burst: time.Duration(burst) * interval, now: now,
		entries: make(map[paceKey]*list.Element),
	}
}

// paceKeyOf returns the key of a client. The length keeps two clients from having
// the same text.
func paceKeyOf(c *Client) paceKey {
	sum := sha256.Sum256([]byte(strconv.Itoa(len(c.Issuer)) + ":" + c.Issuer + c.ID))
	return paceKey(sum[:16])
}

// take takes one token, or returns for how long there is none.
func (p *pace) take(key paceKey) (wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	e, ok := p.entries[key]
	if !ok {
		p.makeRoom(now)
		e = p.byUse.PushBack(&paceEntry{key: key})
		p.entries[key] = e
	}
	p.byUse.MoveToBack(e)
	entry := e.Value.(*paceEntry)
	full := entry.full
	// A clock that was set back must not keep a client out for longer than its
	// bucket takes to fill.
	if missing := full.Sub(now); missing < 0 || missing > p.burst {
		full = now
	}
	full = full.Add(p.interval)
	if over := full.Sub(now) - p.burst; over > 0 {
		return over
	}
	entry.full = full
	return 0
}

// makeRoom forgets buckets that are full, the longest unused ones, and if that
// gives no room, the longest unused one as it is.
func (p *pace) makeRoom(now time.Time) {
	for e := p.byUse.Front(); e != nil; e = p.byUse.Front() {
		entry := e.Value.(*paceEntry)
		if entry.full.After(now) && p.byUse.Len() < maxPaced {
			return
		}
		delete(p.entries, entry.key)
		p.byUse.Remove(e)
	}
}

// tooMany refuses what is no failure, but comes too often.
func tooMany(description string, retryAfter time.Duration) *answer {
	a := throttled(retryAfter)
	a.description = description
	return a
}
