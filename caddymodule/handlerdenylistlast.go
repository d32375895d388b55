package caddymodule

import (
	"container/list"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
)

const (
	maxLastBytes = 32 << 20 // of all answers
	lastOverhead = 320      // bytes of one, besides its text
)

// lastAnswers are what authorization servers said of tokens when they were last
// asked. With fail_open, a revocation must not be what lets a token through: it
// ends the kept answer, and the server may be away. Whose token it was is known
// from here then. That only ever refuses a token. What was used last is kept.
//
// It belongs to the replica, so that it outlives a reload of the config. The zero
// value is ready for use.
type lastAnswers struct {
	wanted atomic.Bool // some route fails open

	mu    sync.Mutex
	bySum map[lastKey]*list.Element
	order list.List // of *lastAnswer, the one used last in front
	bytes int
}

type lastKey [sha256.Size]byte

type lastAnswer struct {
	key    lastKey
	active json.RawMessage // nil: no longer active
}

func (a *lastAnswer) cost() int { return lastOverhead + len(a.active) }

func newLastKey(issuerName, token string) lastKey {
	h := sha256.New()
	h.Write([]byte(issuerName))
	h.Write([]byte{0})
	h.Write([]byte(token))
	return lastKey(h.Sum(nil))
}

// keep keeps that a token was active.
func (l *lastAnswers) keep(issuerName, token string, answer json.RawMessage) {
	if !l.wanted.Load() {
		return
	}
	key := newLastKey(issuerName, token)
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.bySum[key]
	if e == nil {
		if l.bySum == nil {
			l.bySum = make(map[lastKey]*list.Element)
		}
		e = l.order.PushFront(&lastAnswer{key: key})
		l.bySum[key] = e
		l.bytes += lastOverhead
	}
	l.order.MoveToFront(e)
	a := e.Value.(*lastAnswer)
	l.bytes -= a.cost()
	a.active = answer
	l.bytes += a.cost()
	for l.bytes > maxLastBytes {
		l.drop(l.order.Back())
	}
}

// end notes that a token is no longer active. Of tokens that never were, which
// anybody can make up, nothing is kept.
func (l *lastAnswers) end(issuerName, token string) {
	if !l.wanted.Load() {
		return
	}
	key := newLastKey(issuerName, token)
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.bySum[key]; e != nil {
		a := e.Value.(*lastAnswer)
		l.bytes -= len(a.active)
		a.active = nil
	}
}

func (l *lastAnswers) find(issuerName, token string) (active json.RawMessage, known bool) {
	key := newLastKey(issuerName, token)
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.bySum[key]
	if e == nil {
		return nil, false
	}
	l.order.MoveToFront(e)
	return e.Value.(*lastAnswer).active, true
}

// drop forgets one. The mutex is held.
func (l *lastAnswers) drop(e *list.Element) {
	a := l.order.Remove(e).(*lastAnswer)
	delete(l.bySum, a.key)
	l.bytes -= a.cost()
}

var errLastInactive = errors.New("its issuer can't be asked, and said last that it is not active")

// lastRefused tells whether a token that nobody can be asked about now is known to
// be revoked, by what was said of it last.
func (d *Denylist) lastRefused(token string) (verdict, bool) {
	answer, known := d.app.replica.last.find(d.opaque.Name(), token)
	switch {
	case !known:
		return verdict{}, false
	case answer == nil:
		return verdict{asked: true, result: inactive, err: errLastInactive}, true
	}
	revoked := d.app.replica.denylist
	for range 3 {
		names, epoch := revoked.ClaimNames()
		id, err := d.asked.Reread(token, answer, names)
		if _, now := revoked.ClaimNames(); now != epoch {
			continue
		}
		if errors.Is(err, issuer.ErrIntrospectionUnavailable) {
			return verdict{asked: true, result: unaskable, err: err}, true
		}
		if err != nil {
			return verdict{asked: true, result: invalid, err: err}, true
		}
		v := decide(revoked.Check(id), id)
		v.asked = true
		return v, v.result != allowed
	}
	return verdict{asked: true, result: unaskable, err: errKeepChanging}, true
}
