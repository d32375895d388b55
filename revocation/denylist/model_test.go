package denylist

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// event is one entry of the model's ledger. Its sequence is its index plus one.
type event struct {
	revoke  *revocation.Revocation
	restore *revocation.Restoration
}

func (e event) criteria() revocation.Criteria {
	if e.revoke != nil {
		return e.revoke.Criteria
	}
	return e.restore.Criteria
}

func (e event) apply(d *Denylist, sequence uint64) {
	if e.revoke != nil {
		d.Revoke(sequence, e.revoke)
	} else {
		d.Restore(sequence, e.restore)
	}
}

// model is the naive denylist: the whole ledger, and which of its entries were
// applied. It is slow and obviously right.
type model struct {
	ledger  []event
	applied map[int]bool
}

func matches1(c revocation.Criteria, id *revocation.Identity) bool {
	if c.Issuer != id.Issuer {
		return false
	}
	for name, value := range c.Claims {
		found := false
		for _, claim := range id.Claims {
			found = found || claim.Name == name && claim.Value == value
		}
		if !found {
			return false
		}
	}
	return true
}

func denies1(r *revocation.Revocation, id *revocation.Identity, now int64) bool {
	if now > r.Expires {
		return false
	}
	switch r.Mode {
	case revocation.IssuedBefore:
		return id.IssuedAt == 0 || id.IssuedAt <= r.Cutoff
	case revocation.AuthenticatedBefore:
		return id.AuthTime == 0 || id.AuthTime <= r.Cutoff
	}
	return true
}

// verdict returns whether the identity must be denied, and whether it may be:
// decisions on the same criteria merge, so that the longer one may lend its end
// to the one with the later cutoff.
func (m *model) verdict(id *revocation.Identity, now int64) (must, may bool) {
	together := map[string]*revocation.Revocation{}
	for i, e := range m.ledger {
		if e.revoke == nil || !m.applied[i] || !matches1(e.revoke.Criteria, id) || m.undone(i) {
			continue
		}
		must = must || denies1(e.revoke, id, now)
		key := fmt.Sprint(e.revoke.Mode, e.revoke.Criteria)
		if was := together[key]; was != nil {
			merged := *was
			merged.Cutoff = max(merged.Cutoff, e.revoke.Cutoff)
			merged.Expires = max(merged.Expires, e.revoke.Expires)
			together[key] = &merged
		} else {
			together[key] = e.revoke
		}
	}
	for _, r := range together {
		may = may || denies1(r, id, now)
	}
	return must, may
}

func (m *model) undone(i int) bool {
	for k := i + 1; k < len(m.ledger); k++ {
		if e := m.ledger[k]; e.restore != nil && m.applied[k] && e.criteria().String() == m.ledger[i].criteria().String() {
			return true
		}
	}
	return false
}

var (
	someNames  = []string{"jti", "sub", "client_id", "tenant", "role"}
	someValues = []string{"a", "b", "c"}
)

func drawCriteria(t *rapid.T) revocation.Criteria {
	c := criteria()
	for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom(someNames), 0, 2, rapid.ID[string]).Draw(t, "names") {
		c.Claims[name] = rapid.SampledFrom(someValues).Draw(t, "value")
	}
	if rapid.IntRange(0, 9).Draw(t, "issuer") == 0 {
		c.Issuer = "https://other.example"
	}
	return c
}

func drawIdentity(t *rapid.T, now int64) *revocation.Identity {
	id := identity()
	if rapid.IntRange(0, 9).Draw(t, "issuer") == 0 {
		id.Issuer = "https://other.example"
	}
	for _, name := range someNames {
		// Up to two values: array claims.
		for _, v := range rapid.SliceOfNDistinct(rapid.SampledFrom(someValues), 0, 2, rapid.ID[string]).Draw(t, name) {
			id.Claims = append(id.Claims, revocation.Claim{Name: name, Value: v})
		}
	}
	revocation.SortClaims(id.Claims)
	moments := rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(now-7200, now+60))
	id.IssuedAt = moments.Draw(t, "iat")
	id.AuthTime = moments.Draw(t, "auth_time")
	return id
}

func drawEvent(t *rapid.T, now int64) event {
	c := drawCriteria(t)
	if rapid.IntRange(0, 3).Draw(t, "restore") == 0 {
		return event{restore: &revocation.Restoration{ID: "x", Criteria: c, Expires: now + 1<<20}}
	}
	r := &revocation.Revocation{
		ID: "x", Criteria: c, Actor: rapid.SampledFrom([]string{"", "operator", "client:a"}).Draw(t, "actor"),
		Mode:    rapid.SampledFrom([]revocation.Mode{revocation.Block, revocation.IssuedBefore, revocation.AuthenticatedBefore}).Draw(t, "mode"),
		Expires: now + rapid.Int64Range(-100, 3*3600).Draw(t, "end"),
	}
	if r.Mode != revocation.Block {
		r.Cutoff = now + rapid.Int64Range(-7200, 60).Draw(t, "cutoff")
	}
	return event{revoke: r}
}

// TestNeverAFalseAnswerWhateverTheOrder runs any sequence of decisions, applied
// by the endpoint ahead of the follower, by the follower, late or twice; of
// passing time, clock steps within an hour, sweeps, checkpoints and reloads, and
// compares each answer with the naive model's.
func TestNeverAFalseAnswerWhateverTheOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "checkpoint")
	rapid.Check(t, func(rt *rapid.T) {
		d, clock := newTest(t, Options{CacheBytes: minCacheBytes})
		defer func() { d.Close() }()
		m := &model{applied: map[int]bool{}}
		follower := 0  // ledger entries that it has applied
		restarted := 0 // ledger entries published before the last reload
		var saved struct {
			ok       bool
			follower int
			applied  map[int]bool
		}
		type remembered struct {
			*Seen
			id *revocation.Identity
		}
		var seen []remembered
		offset := time.Duration(0)
		forward := rapid.Bool().Draw(rt, "clock errs forward")

		apply := func(i int) {
			m.ledger[i].apply(d, uint64(i+1))
			m.applied[i] = true
		}
		compare := func(dec Decision, id *revocation.Identity) {
			must, may := m.verdict(id, clock.unix())
			if must && !dec.Denied {
				rt.Fatalf("false allowed: %+v", id)
			}
			if dec.Denied && !may {
				rt.Fatalf("false denied: %+v by %+v", id, dec)
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"decide": func(t *rapid.T) {
				m.ledger = append(m.ledger, drawEvent(t, clock.unix()))
				if rapid.Bool().Draw(t, "ahead") {
					apply(len(m.ledger) - 1)
				}
			},
			"follow": func(t *rapid.T) {
				for n := rapid.IntRange(1, 5).Draw(t, "entries"); n > 0 && follower < len(m.ledger); n-- {
					apply(follower)
					follower++
					d.SetPosition(revocation.Position{Ledger: "l", Sequence: uint64(follower)})
				}
			},
			"again or late": func(t *rapid.T) {
				// The endpoints of a process that is gone don't call any more.
				if len(m.ledger) > restarted {
					apply(rapid.IntRange(restarted, len(m.ledger)-1).Draw(t, "entry"))
				}
			},
			"pass": func(t *rapid.T) {
				clock.pass(time.Duration(rapid.IntRange(1, 3600).Draw(t, "seconds")) * time.Second)
				// Late calls are late by seconds: those before are none.
				restarted = len(m.ledger)
			},
			"step": func(t *rapid.T) {
				next := time.Duration(rapid.IntRange(0, 3600).Draw(t, "offset")) * time.Second
				if !forward {
					next = -next
				}
				clock.step(next - offset)
				offset = next
			},
			"sweep": func(*rapid.T) { sweepAll(d) },
			"checkpoint": func(t *rapid.T) {
				if err := d.WriteCheckpoint(path, time.Now()); err != nil {
					t.Fatal(err)
				}
				saved.ok, saved.follower, saved.applied = true, follower, map[int]bool{}
				for i := range m.applied {
					saved.applied[i] = true
				}
			},
			"reload": func(t *rapid.T) {
				if !saved.ok {
					return
				}
				d.Close()
				o, _ := Options{Now: clock.Now, CacheBytes: minCacheBytes}.withDefaults()
				d = newDenylist(o)
				d.cache, _ = newCache(o.CacheBytes)
				d.clock.elapsed = monotonic(clock)
				p, _, err := d.LoadCheckpoint(path)
				if err != nil {
					t.Fatal(err)
				}
				if int(p.Sequence) != saved.follower || d.Position().Sequence != p.Sequence {
					t.Fatalf("the position is %+v, not %d", p, saved.follower)
				}
				follower, restarted, seen = saved.follower, len(m.ledger), nil
				m.applied = map[int]bool{}
				for i := range saved.applied {
					m.applied[i] = true
				}
			},
			"check": func(t *rapid.T) {
				id := drawIdentity(t, clock.unix())
				compare(d.Check(id), id)
			},
			"remember": func(t *rapid.T) {
				id := drawIdentity(t, clock.unix())
				_, epoch := d.ClaimNames()
				s := d.Remember(fmt.Sprint("token", len(seen)), 1, id, epoch)
				seen = append(seen, remembered{s, id})
				compare(d.CheckSeen(s), id)
			},
			"check seen": func(t *rapid.T) {
				if len(seen) == 0 {
					return
				}
				s := seen[rapid.IntRange(0, len(seen)-1).Draw(t, "seen")]
				if dec := d.CheckSeen(s.Seen); !dec.Stale {
					compare(dec, s.id)
				}
			},
		})
	})
}
