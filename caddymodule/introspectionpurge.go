package caddymodule

import (
	"slices"
	"sync"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/denylist"
	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
)

// The pause between two looks through all kept answers is at least purgePause, and
// purgeShare times as long as a look takes. It bounds what a flood of revocations
// costs.
const (
	purgePause = 100 * time.Millisecond
	purgeShare = 20
)

// purger makes introspectors forget what was answered about tokens that have been
// revoked since (RFC 7662, section 4).
//
// What a token says of itself is compared with the denylist at each request, kept
// answer or not: no revocation waits for the purger. It is what ends an answer for
// good, so that the token is asked about again when the revocation is restored.
// Where the denylist can't tell, the purger acts before the change counts as
// applied: after an entry to ask again (recheck), a revocation of a key, of a whole
// issuer or of one token by its hash, nobody gets an answer from before.
type purger struct {
	denylist *denylist.Denylist
	all      []*issuer.Introspector
	byName   map[string]*issuer.Introspector // with aliases

	unwatch func()
	wake    chan struct{} // holds one: there is something to look for
	stop    chan struct{}
	done    sync.WaitGroup
}

// newPurger begins to watch the denylist, until close is called.
func newPurger(list *denylist.Denylist, introspectors []*issuer.Introspector) *purger {
	p := &purger{
		denylist: list,
		all:      introspectors,
		byName:   make(map[string]*issuer.Introspector),
		wake:     make(chan struct{}, 1),
		stop:     make(chan struct{}),
	}
	for _, n := range introspectors {
		c := n.Issuer().Config()
		for _, name := range append([]string{c.Issuer}, c.Aliases...) {
			p.byName[name] = n
		}
	}
	p.done.Go(p.run)
	p.unwatch = list.Watch(p.changed)
	return p
}

// close waits for the purge that is running. A nil purger has nothing to do.
func (p *purger) close() {
	if p == nil {
		return
	}
	p.unwatch()
	close(p.stop)
	p.done.Wait()
}

// changed is called by whoever applies a change, and must be quick: what needs a
// look at each answer is left to run.
func (p *purger) changed(c denylist.Change) {
	switch {
	case c.Recheck != "":
		p.forgetAll(c.Recheck)
	case slices.Contains(c.Names, revocation.ClaimKeyID), len(c.Names) == 0:
		// An answer does not tell which key signed the token.
		if c.Criteria == nil {
			for _, n := range p.all {
				n.PurgeAll()
			}
			return
		}
		p.forgetAll(c.Criteria.Issuer)
	case c.Criteria != nil && p.byName[c.Criteria.Issuer] == nil:
		// somebody else's
	case c.Criteria != nil && len(c.Names) == 1 && c.Names[0] == revocation.ClaimToken:
		p.byName[c.Criteria.Issuer].PurgeToken(c.Criteria.Claims[revocation.ClaimToken])
	default:
		select {
		case p.wake <- struct{}{}:
		default: // it will see this one too
		}
	}
}

func (p *purger) forgetAll(name string) {
	if n := p.byName[name]; n != nil {
		n.PurgeAll()
	}
}

// run looks through the kept answers once for all changes that came together.
func (p *purger) run() {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-pause.C:
		}
		select {
		case <-p.stop:
			return
		case <-p.wake:
		}
		began := time.Now()
		for _, n := range p.all {
			names, _ := p.denylist.ClaimNames()
			n.Purge(func(id *revocation.Identity) bool { return p.denylist.Check(id).Denied }, names...)
		}
		pause.Reset(max(purgePause, purgeShare*time.Since(began)))
	}
}
