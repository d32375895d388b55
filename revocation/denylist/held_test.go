package denylist

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// bigShard returns a denylist with n entries in its first shard, which takes
// several strides, and their fingerprints.
func bigShard(t *testing.T, n int) (*Denylist, []revocation.Fingerprint) {
	t.Helper()
	d, _ := newTest(t, Options{ActorQuota: -1})
	rng := rand.New(rand.NewPCG(12, 12))
	var prints []revocation.Fingerprint
	for len(prints) < n {
		f := randomPrint(rng)
		if d.index.hash(words(f))%shardCount != 0 {
			continue
		}
		prints = append(prints, f)
		d.RevokeHeld(uint64(len(prints)), &revocation.HeldEntry{Fingerprint: f, Names: []string{"jti"}, Expires: epoch0 + 1000})
	}
	return d, prints
}

// TestHeldEntriesOfATableThatWasReplaced has the shard rebuilt, and removes its
// entries, when the walk has seen a part of it.
func TestHeldEntriesOfATableThatWasReplaced(t *testing.T) {
	d, prints := bigShard(t, 5000)
	n := 0
	for range d.HeldEntries() {
		if n++; n > 1 {
			continue
		}
		d.mu.Lock()
		d.index.rebuild(0, 20_000)
		for _, f := range prints {
			tab, s := d.index.find(f)
			d.kill(tab, s)
		}
		d.mu.Unlock()
	}
	if n == 0 || n > heldStride {
		t.Errorf("%d entries come that were removed", n)
	}
}

func TestStanding(t *testing.T) {
	d, _ := newTest(t, Options{})
	issuedBefore := revocation.IssuedBefore
	d.Revoke(5, block(epoch0+100, "jti", "1"))
	d.Revoke(6, cutoff(issuedBefore, epoch0, epoch0+100, "sub", "a"))
	stands := func(what string, r *revocation.Revocation, want uint64) {
		t.Helper()
		if sequence, ok := d.Standing(r); ok != (want != 0) || sequence != want {
			t.Errorf("%s: at %d, %t", what, sequence, ok)
		}
	}
	stands("the same", block(epoch0+100, "jti", "1"), 5)
	stands("shorter", block(epoch0+99, "jti", "1"), 5)
	stands("longer", block(epoch0+101, "jti", "1"), 0)
	stands("another", block(epoch0+100, "jti", "2"), 0)
	stands("the same cutoff", cutoff(issuedBefore, epoch0, epoch0+100, "sub", "a"), 6)
	stands("earlier cutoff", cutoff(issuedBefore, epoch0-1, epoch0+100, "sub", "a"), 6)
	stands("later cutoff", cutoff(issuedBefore, epoch0+1, epoch0+100, "sub", "a"), 0)
	stands("another mode", cutoff(revocation.AuthenticatedBefore, epoch0, epoch0+100, "sub", "a"), 0)
	d.Restore(7, restoration("jti", "1"))
	stands("restored", block(epoch0+100, "jti", "1"), 0)
	d.SetPosition(position("a", 7))
	d.NewHistory(position("b", 0), 3)
	stands("from before", cutoff(issuedBefore, epoch0, epoch0+100, "sub", "a"), 0)
	d.Revoke(4, cutoff(issuedBefore, epoch0, epoch0+100, "sub", "a"))
	stands("recorded again", cutoff(issuedBefore, epoch0, epoch0+100, "sub", "a"), 4)
}

// TestHeldEntriesRebuildTheDenylist takes what one denylist holds into another
// one that knows no criteria, and undoes it there by criteria.
func TestHeldEntriesRebuildTheDenylist(t *testing.T) {
	d, clock := newTest(t, Options{})
	revocations := []*revocation.Revocation{
		block(epoch0+100, "jti", "1"),
		block(epoch0+200, "role", "admin", "tenant", "t"),
		block(epoch0 + 300),
		cutoff(revocation.IssuedBefore, epoch0, epoch0+400, "sub", "a"),
		cutoff(revocation.AuthenticatedBefore, epoch0-5, epoch0+500, "sub", "a"),
		block(epoch0+1<<40, "jti", "for ever"),
	}
	revocations[2].Criteria.Issuer = "https://other.example"
	for i, r := range revocations {
		r.Actor = "client:app"
		d.Revoke(uint64(i+1), r)
	}
	d.Revoke(50, block(epoch0+5, "jti", "has ended"))
	clock.pass(6 * time.Second)
	d.SetPosition(position("a", 50))
	d.NewHistory(position("b", 0), 60)
	d.Revoke(61, block(epoch0+100, "jti", "new"))

	e, _ := newTest(t, Options{})
	n := uint64(0)
	for sequence, h := range d.HeldEntries() {
		if err := h.Validate(); err != nil {
			t.Fatal(err)
		}
		if h.Fingerprint == criteria("jti", "new").Fingerprint(revocation.Block) {
			if sequence != 61 || h.Actor != "" {
				t.Errorf("at %d, %+v", sequence, h)
			}
			continue
		}
		if sequence != 0 || h.Actor != "client:app" {
			t.Errorf("at %d, %+v", sequence, h)
		}
		n++
		e.RevokeHeld(n, &h)
		e.SetPosition(position("c", n))
	}
	if int(n) != len(revocations) {
		t.Fatalf("%d entries", n)
	}
	for _, r := range revocations {
		if _, ok := e.Standing(r); !ok {
			t.Errorf("%s %s is not held", r.Mode, r.Criteria)
		}
	}
	for _, r := range revocations {
		e.Restore(n+1, &revocation.Restoration{ID: "x", Criteria: r.Criteria, Expires: r.Expires})
		if _, ok := e.Standing(r); ok {
			t.Errorf("%s %s is not restored", r.Mode, r.Criteria)
		}
	}
	if e.Stats().Entries != 0 {
		t.Errorf("%+v", e.Stats())
	}
	// What was undone stays so when the entry arrives late, whatever its mode.
	for sequence, h := range d.HeldEntries() {
		if sequence == 0 {
			e.RevokeHeld(n, &h)
		}
	}
	if e.Stats().Entries != 0 {
		t.Errorf("%d entries came back", e.Stats().Entries)
	}
	// Recorded again in the ledger that lost them, they are of its history.
	sequence := uint64(70)
	for lost, h := range d.HeldEntries() {
		if lost == 0 {
			d.RevokeHeld(sequence, &h)
			sequence++
		}
	}
	for sequence := range d.HeldEntries() {
		if sequence == 0 {
			t.Error("recorded again and still from before")
		}
	}
}

func TestHeldEntriesWhileTheyChange(t *testing.T) {
	d, _ := newTest(t, Options{ActorQuota: -1})
	const stay, gone = 20_000, 1000
	for i := range gone {
		d.Revoke(uint64(i+1), block(epoch0+1000, "sub", jti(i)))
	}
	for i := range stay {
		d.Revoke(uint64(gone+i+1), block(epoch0+1000, "jti", jti(i)))
	}
	d.SetPosition(position("a", gone+stay))
	seen := map[revocation.Fingerprint]bool{}
	for _, h := range d.HeldEntries() {
		if len(seen) == 0 { // every table is replaced, and what is restored must not come
			for i := range gone {
				d.Restore(uint64(gone+stay+1+i), restoration("sub", jti(i)))
			}
			for i := range stay {
				d.Revoke(uint64(2*gone+stay+1+i), block(epoch0+1000, "sid", jti(i)))
			}
		} else if h.Names[0] == "sub" {
			// In the stride that was copied before.
			if len(seen) > heldStride {
				t.Fatal("an entry comes that was restored")
			}
		}
		if seen[h.Fingerprint] {
			t.Fatal("an entry comes twice")
		}
		seen[h.Fingerprint] = true
	}
	for i := range stay {
		if !seen[criteria("jti", jti(i)).Fingerprint(revocation.Block)] {
			t.Fatal("an entry is missing")
		}
	}
	for range d.HeldEntries() {
		break
	}
}

func TestInvalidHeldEntriesMakeItIncomplete(t *testing.T) {
	d, clock := newTest(t, Options{})
	d.RevokeHeld(1, &revocation.HeldEntry{Names: []string{"sub"}, Expires: epoch0 + 10})
	if _, until, ok := d.Incomplete(clock.Now()); !ok || until != epoch0+10 || d.Stats().Entries != 0 {
		t.Error("not incomplete")
	}
}
