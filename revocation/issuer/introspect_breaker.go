package issuer

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// BreakerState says whether an authorization server is asked at all.
type BreakerState uint8

const (
	// BreakerClosed is the normal state: everything is asked.
	BreakerClosed BreakerState = iota
	// BreakerOpen: too many questions failed in a row, none are asked for now.
	BreakerOpen
	// BreakerHalfOpen: one question is on its way, and its outcome decides.
	BreakerHalfOpen
)

// String returns "closed", "open" or "half_open".
func (s BreakerState) String() string {
	switch s {
	case BreakerClosed:
		return "closed"
	case BreakerOpen:
		return "open"
	case BreakerHalfOpen:
		return "half_open"
	default:
		return fmt.Sprintf("BreakerState(%d)", uint8(s))
	}
}

// outcome is what one question says of the server, whatever it says of the
// token.
type outcome uint8

const (
	// outcomeVoid says nothing: the question was never sent, or taken back.
	outcomeVoid outcome = iota
	// outcomeAnswered: the server is there and understands us. What somebody who
	// presents a token can bring about must be this or nothing, or garbage would
	// cut everybody off.
	outcomeAnswered
	outcomeFailed
)

// breaker stops questions to a server that does not answer them.
type breaker struct {
	limit    int // failures in a row; negative: never opens
	cooldown time.Duration
	now      func() time.Time

	mu       sync.Mutex
	state    BreakerState
	failures int
	until    time.Time // when open
	// epoch changes with the state. The outcome of a question that was asked in
	// an earlier one is old news.
	epoch uint64
}

// admit tells whether a question may be asked now. The ticket is for
// [breaker.report], which has to be called then.
func (b *breaker) admit() (ticket uint64, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.state == BreakerHalfOpen, b.state == BreakerOpen && b.now().Before(b.until):
		return 0, false
	case b.state == BreakerOpen:
		b.change(BreakerHalfOpen)
	}
	return b.epoch, true
}

// stands tells whether a question that was admitted may still be sent.
func (b *breaker) stands(ticket uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.epoch == ticket
}

// report takes the outcome of an admitted question, and returns the state before
// and after.
func (b *breaker) report(ticket uint64, o outcome) (before, after BreakerState) {
	b.mu.Lock()
	defer b.mu.Unlock()
	before = b.state
	if ticket != b.epoch {
		return before, before
	}
	switch {
	case o == outcomeAnswered:
		b.failures = 0
		if b.state != BreakerClosed {
			b.change(BreakerClosed)
		}
	case o == outcomeFailed:
		b.failures++
		if b.limit >= 0 && b.failures >= b.limit {
			b.change(BreakerOpen)
			// A fleet does not come back all at once.
			b.until = b.now().Add(b.cooldown + rand.N(b.cooldown/10+1))
		}
	case b.state == BreakerHalfOpen:
		b.change(BreakerOpen) // until is over: the next question decides
	}
	return before, b.state
}

func (b *breaker) change(to BreakerState) {
	b.state = to
	b.epoch++
}

// status returns the state and how many questions failed in a row.
func (b *breaker) status() (BreakerState, int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state, b.failures
}
