package issuer

import (
	"slices"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// A purge is what came between a question and its answer.
type purge struct {
	match func(*revocation.Identity) bool
	names []string
}

// hits tells whether the purge is meant for the answer. One that can't be told
// apart goes too: it is only asked for again.
func (p *purge) hits(i *Issuer, a *activeAnswer) bool {
	v := a.view.Load()
	for _, name := range p.names {
		if !slices.Contains(v.names, name) {
			var err error
			if v, err = i.newView(a, p.names); err != nil {
				return true
			}
			break
		}
	}
	return p.match(v.id)
}

// Purge forgets the kept answers about tokens that match wants gone, and returns
// how many that were. Call it when a revocation that names tokens of this issuer
// is applied: whoever asks after Purge has returned gets no answer to a question
// that was asked before Purge was called, unless match was asked about it and
// refused.
//
// claimNames are canonical claim names that match looks at besides jti, sub,
// client_id, sid and token. match is called without locks held, possibly from
// several goroutines and until a few seconds after Purge has returned, for
// answers that were on their way. A match that is always true forgets
// everything.
func (n *Introspector) Purge(match func(*revocation.Identity) bool, claimNames ...string) int {
	p := &purge{match: match, names: unusualNames(claimNames)}
	n.mu.Lock()
	for f := range n.running {
		f.purges = append(f.purges, p)
		if len(f.purges) > maxPurges {
			f.unkept, f.purges = true, nil
		}
	}
	clear(n.joinable)
	kept := make([]*keptAnswer, 0, len(n.cache.bySum))
	for _, e := range n.cache.bySum {
		kept = append(kept, e.Value.(*keptAnswer))
	}
	n.mu.Unlock()

	kept = slices.DeleteFunc(kept, func(k *keptAnswer) bool { return !p.hits(n.issuer, k.answer) })

	n.mu.Lock()
	defer n.mu.Unlock()
	count := 0
	for _, k := range kept {
		if n.cache.drop(k.sum, k.answer) {
			count++
		}
	}
	n.counts.purged.Add(uint64(count))
	return count
}

// PurgeAll forgets all kept answers, and returns how many that were. It promises
// what [Introspector.Purge] does, and looks at none of them.
func (n *Introspector) PurgeAll() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	for f := range n.running {
		f.unkept = true
	}
	clear(n.joinable)
	count := len(n.cache.bySum)
	n.cache = newAnswerCache(n.cache.ttl, n.cache.limit)
	n.counts.purged.Add(uint64(count))
	return count
}

// PurgeToken forgets the kept answers about one token, in all its spellings,
// and returns how many that were. The token is named by the value of
// [revocation.ClaimToken]; for opaque tokens that is [OpaqueTokenHash]. It
// promises what [Introspector.Purge] does, and costs far less.
func (n *Introspector) PurgeToken(hash string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	for f := range n.running {
		if f.token == hash {
			f.unkept = true
			n.detach(f)
		}
	}
	sums := slices.Clone(n.cache.byToken[hash])
	for _, sum := range sums {
		n.cache.remove(n.cache.bySum[sum])
	}
	n.counts.purged.Add(uint64(len(sums)))
	return len(sums)
}

// PurgeCriteria forgets the kept answers about the tokens that c names, and
// returns how many that were; see [Introspector.Purge], whose promise it keeps.
// Of criteria with another issuer it forgets nothing. An answer does not tell
// which key has signed a token, so those that name a key count as if they named
// any.
func (n *Introspector) PurgeCriteria(c revocation.Criteria) int {
	if !n.issuer.isCalled(c.Issuer) {
		return 0
	}
	if hash, found := c.Claims[revocation.ClaimToken]; found && len(c.Claims) == 1 {
		return n.PurgeToken(hash)
	}
	return n.Purge(func(id *revocation.Identity) bool {
		for name, want := range c.Claims {
			if name != revocation.ClaimKeyID &&
				!slices.ContainsFunc(id.Values(name), func(has revocation.Claim) bool { return has.Value == want }) {
				return false
			}
		}
		return true
	}, c.Names()...)
}

// unusualNames returns those names whose claims an identity has only if it was made
// for them.
func unusualNames(names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		return name == revocation.ClaimKeyID || name == revocation.ClaimToken || slices.Contains(wellKnown[:], name)
	})
}
