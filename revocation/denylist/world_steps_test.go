package denylist

import (
	"fmt"
	"os"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

func (w *world) apply(i int) {
	e, sequence := w.ledger[i], uint64(i+1)
	w.change(func() { w.m.apply(e, sequence) }, func() { e.apply(w.list(), sequence) })
}

func (w *world) decide(t *rapid.T) {
	w.ledger = append(w.ledger, drawEvent(t, w.clock.unix()))
	if rapid.Bool().Draw(t, "ahead") {
		w.apply(len(w.ledger) - 1)
	}
}

func (w *world) follow(n int) {
	for ; n > 0 && w.follower < len(w.ledger); n-- {
		w.apply(w.follower)
		w.follower++
		w.list().SetPosition(position(w.name, uint64(w.follower)))
	}
}

func (w *world) pass(d time.Duration) {
	w.change(func() {}, func() {
		// Time goes by for the model as it goes by: what ends meanwhile must not
		// be denied to the end.
		w.truth.Store(&truth{n: w.truth.Load().n + 1, capped: true, must: make([]bool, len(w.watched)), may: all(len(w.watched))})
		w.clock.pass(d)
		w.lag = max(w.lag-d/catchUp, 0)
	})
	// Late calls are late by seconds: those before are none.
	w.restarted = len(w.ledger)
}

func (w *world) step(d time.Duration) {
	w.truth.Store(&truth{n: w.truth.Load().n + 1, capped: true, must: make([]bool, len(w.watched)), may: all(len(w.watched))})
	w.clock.step(d)
	w.lag = min(max(w.lag+d, 0), time.Duration(maxLag))
	w.publish(w.verdicts())
}

func all(n int) []bool {
	b := make([]bool, n)
	for i := range b {
		b[i] = true
	}
	return b
}

// turn replaces the ledger: it was rolled back, or created again, and has got
// some entries since.
func (w *world) turn(t *rapid.T) {
	kept := 0
	if rapid.Bool().Draw(t, "rolled back") {
		kept = rapid.IntRange(0, len(w.ledger)).Draw(t, "kept")
	}
	w.ledger = slices.Clone(w.ledger[:kept])
	for range rapid.IntRange(0, 4).Draw(t, "since") {
		w.ledger = append(w.ledger, drawEvent(t, w.clock.unix()))
	}
	w.histories++
	w.name = fmt.Sprint("history ", w.histories)
	w.found(w.list())
}

// found lets d learn that the ledger is another one.
func (w *world) found(d *Denylist) {
	w.gens++
	w.change(func() { w.m.turn(w.gens, uint64(len(w.ledger))) }, func() {
		d.NewHistory(position(w.name, 0), uint64(len(w.ledger)))
	})
	w.follower, w.restarted = 0, len(w.ledger)
}

// save writes a checkpoint, perhaps while entries change.
func (w *world) save(t *rapid.T) {
	s := savedWorld{m: w.m.clone(), name: w.name, follower: w.follower}
	to := &writerFunc{}
	if rapid.Bool().Draw(t, "meanwhile") {
		to.first = func() {
			for range rapid.IntRange(1, 4).Draw(t, "events") {
				w.decide(t)
				w.follow(1)
			}
			s.until = len(w.ledger)
		}
	}
	if err := w.list().writeCheckpoint(to, testPlace, time.Now()); err != nil {
		t.Fatal(err)
	}
	s.file = to.Bytes()
	w.saved = s
}

// load reads the checkpoint into d, from a file.
func (w *world) load(t *rapid.T, d *Denylist) {
	if err := os.WriteFile(w.path, w.saved.file, 0o600); err != nil {
		t.Fatal(err)
	}
	p, _, err := d.LoadCheckpoint(w.path, testPlace)
	if err != nil {
		t.Fatal(err)
	}
	if p != position(w.saved.name, uint64(w.saved.follower)) {
		t.Fatalf("the position is %+v, not %d of %s", p, w.saved.follower, w.saved.name)
	}
}

// reload starts again with the checkpoint.
func (w *world) reload(t *rapid.T) {
	if w.saved.m == nil || w.saved.until > 0 && w.saved.name != w.name {
		return // nobody would bring again what came while it was written
	}
	d := w.fresh()
	w.load(t, d)
	if d.Position().Sequence != uint64(w.saved.follower) {
		t.Fatalf("%+v", d.Position())
	}
	was := w.list()
	w.change(func() {
		w.m, w.follower = w.saved.m.clone(), w.saved.follower
		if w.saved.name != w.name {
			w.gens++
			w.m.turn(w.gens, uint64(len(w.ledger)))
			w.follower = 0
		}
		// What came while it was written may be in it or not, until the follower
		// has been there again.
		for ; w.saved.name == w.name && w.follower < w.saved.until; w.follower++ {
			w.m.apply(w.ledger[w.follower], uint64(w.follower+1))
		}
	}, func() {
		if w.saved.name != w.name {
			d.NewHistory(position(w.name, 0), uint64(len(w.ledger)))
		}
		for i := w.saved.follower; w.saved.name == w.name && i < w.follower; i++ {
			w.ledger[i].apply(d, uint64(i+1))
			d.SetPosition(position(w.name, uint64(i+1)))
		}
		w.d.Store(d)
	})
	was.Close()
	w.restarted, w.seen = len(w.ledger), nil
}

// join reads the checkpoint into the denylist that serves.
func (w *world) join(t *rapid.T) {
	if w.saved.m == nil || w.saved.until > 0 {
		return
	}
	d := w.list()
	before := w.verdicts()
	w.truth.Store(&truth{n: w.truth.Load().n + 1, capped: before.capped, must: before.must, may: all(len(before.may))})
	w.load(t, d)
	saved := w.saved.m.clone()
	if w.saved.name == w.name {
		for _, s := range saved.applied {
			i := slices.IndexFunc(w.m.applied, func(a *applied) bool {
				return a.event == s.event && a.sequence == s.sequence && a.gen == s.gen
			})
			if i < 0 {
				t.Fatal("a checkpoint has what the denylist never had")
			}
			if must, _ := w.m.state(w.m.applied[i]); !must {
				w.m.applied[i].revived = true
			}
		}
	} else {
		if d.before < max(w.m.before, uint64(w.follower)) {
			t.Fatalf("entries of another history are from before %d", d.before)
		}
		w.m.freeze(false)
		w.m.before = d.before
		saved.freeze(true)
		for _, s := range saved.applied {
			s.gen = w.m.gen - 1
			w.m.applied = append(w.m.applied, s)
		}
	}
	w.publish(w.verdicts())
}

// held compares what is held with what surely is, and what may be.
func (w *world) held(t *rapid.T) {
	held, known := map[revocation.Fingerprint]revocation.HeldEntry{}, map[revocation.Fingerprint]bool{}
	for _, h := range w.list().HeldEntries() {
		held[h.Fingerprint] = h
	}
	for _, a := range w.m.applied {
		if a.revoke == nil {
			continue
		}
		must, may := w.m.state(a)
		print := a.revoke.Criteria.Fingerprint(a.revoke.Mode)
		h, ok := held[print]
		if must && a.revoke.Expires >= w.clock.unix() && !w.mayMiss() && (!ok || h.Expires < a.revoke.Expires || h.Cutoff < a.revoke.Cutoff) {
			t.Fatalf("%+v is not held: %+v", a.revoke, h)
		}
		if may {
			known[print] = true
		}
	}
	for print, h := range held {
		if !known[print] {
			t.Fatalf("%+v is held", h)
		}
	}
}

// standing asks for a decision of the present history.
func (w *world) standing(t *rapid.T) {
	r := drawEvent(t, w.clock.unix()).revoke
	if len(w.ledger) > 0 && rapid.Bool().Draw(t, "known") {
		r = w.ledger[rapid.IntRange(0, len(w.ledger)-1).Draw(t, "entry")].revoke
	}
	if r == nil {
		return
	}
	sequence, ok := w.list().Standing(r)
	if !ok {
		return
	}
	for _, a := range w.m.applied {
		if a.revoke == nil || a.gen != w.m.gen || a.sequence != sequence ||
			a.revoke.Mode != r.Mode || a.criteria().String() != r.Criteria.String() {
			continue
		}
		if _, may := w.m.state(a); may {
			return
		}
	}
	t.Fatalf("%+v stands at %d", r, sequence)
}

// until asks when what is held for some criteria has ended.
func (w *world) until(t *rapid.T) {
	c := drawCriteria(t)
	if len(w.ledger) > 0 && rapid.Bool().Draw(t, "known") {
		c = w.ledger[rapid.IntRange(0, len(w.ledger)-1).Draw(t, "entry")].criteria()
	}
	until, ok := w.list().HeldUntil(c)
	if !ok {
		return
	}
	for _, a := range w.m.applied {
		if a.revoke == nil || a.criteria().String() != c.String() {
			continue
		}
		if must, _ := w.m.state(a); must && a.revoke.Expires >= w.clock.unix() && (a.gen != w.m.gen || a.revoke.Expires+purgeMargin > until) {
			t.Fatalf("%+v of history %d, now %d, is taken to have ended at %d", a.revoke, a.gen, w.m.gen, until)
		}
	}
}

func (w *world) remember(t *rapid.T) {
	id := drawIdentity(t, w.clock.unix())
	_, epoch := w.list().ClaimNames()
	w.tokens++
	s := w.list().Remember(fmt.Sprint("token ", w.tokens), 1, id, epoch)
	w.seen = append(w.seen, s)
	w.compare(t, w.list().CheckSeen(s), id)
}
