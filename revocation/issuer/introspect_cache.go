package issuer

import (
	"container/list"
	"crypto/sha256"
	"slices"
	"time"
)

// tokenSum is the SHA-256 of a token exactly as it was presented. Answers are
// kept by it and not by the canonical hash: of a JWT, that one does not cover
// the signature.
type tokenSum [sha256.Size]byte

// answerCache keeps answers that tokens are active, by the least recent use and
// within a number of bytes. Inactive ones are never kept: such an answer may
// mean "not active yet" or "not for you", costs little to get again, and a
// flood of garbage would drive out the rest. It is guarded by the Introspector's
// mutex.
type answerCache struct {
	ttl   time.Duration // not positive: nothing is kept
	limit int64         // bytes

	size    int64
	recent  *list.List // of *keptAnswer, the most recently used first
	bySum   map[tokenSum]*list.Element
	byToken map[string][]tokenSum // canonical hash → its spellings
}

type keptAnswer struct {
	sum    tokenSum
	answer *activeAnswer
	cost   int64
}

func newAnswerCache(ttl time.Duration, limit int64) answerCache {
	return answerCache{
		ttl: ttl, limit: limit, recent: list.New(),
		bySum: make(map[tokenSum]*list.Element), byToken: make(map[string][]tokenSum),
	}
}

// get returns the answer about a token if it is younger than maxAge and the
// token lives.
func (c *answerCache) get(sum tokenSum, maxAge time.Duration, now time.Time) *activeAnswer {
	e, found := c.bySum[sum]
	if !found {
		return nil
	}
	a := e.Value.(*keptAnswer).answer
	age := now.Sub(a.asked)
	if age < 0 || age >= c.ttl || a.expiry != 0 && now.Unix() >= a.expiry {
		c.remove(e)
		return nil
	}
	if age >= maxAge {
		return nil // good enough for others
	}
	c.recent.MoveToFront(e)
	return a
}

// put keeps an answer, unless a later one is kept.
func (c *answerCache) put(sum tokenSum, a *activeAnswer, now time.Time) {
	if c.ttl <= 0 || a.expiry != 0 && now.Unix() >= a.expiry {
		return
	}
	if e, found := c.bySum[sum]; found {
		if e.Value.(*keptAnswer).answer.seq > a.seq {
			return
		}
		c.remove(e)
	}
	k := &keptAnswer{sum: sum, answer: a, cost: a.cost()}
	if k.cost > c.limit {
		return
	}
	for c.size+k.cost > c.limit {
		c.remove(c.recent.Back())
	}
	c.bySum[sum] = c.recent.PushFront(k)
	c.byToken[a.token] = append(c.byToken[a.token], sum)
	c.size += k.cost
}

func (c *answerCache) remove(e *list.Element) {
	k := c.recent.Remove(e).(*keptAnswer)
	delete(c.bySum, k.sum)
	c.size -= k.cost
	token := k.answer.token
	sums := slices.DeleteFunc(c.byToken[token], func(sum tokenSum) bool { return sum == k.sum })
	if len(sums) == 0 {
		delete(c.byToken, token)
	} else {
		c.byToken[token] = sums
	}
}

// drop removes exactly this answer, and tells whether it was there.
func (c *answerCache) drop(sum tokenSum, a *activeAnswer) bool {
	e, found := c.bySum[sum]
	if !found || e.Value.(*keptAnswer).answer != a {
		return false
	}
	c.remove(e)
	return true
}

// dropOlder removes the answer about a token if it was asked for before seq.
func (c *answerCache) dropOlder(sum tokenSum, seq uint64) {
	if e, found := c.bySum[sum]; found && e.Value.(*keptAnswer).answer.seq < seq {
		c.remove(e)
	}
}
