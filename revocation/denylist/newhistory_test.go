package denylist

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

func position(ledger string, sequence uint64) revocation.Position {
	return revocation.Position{Ledger: ledger, Sequence: sequence}
}

// TestEntriesFromBeforeOutliveRestorationsFromBefore replays another history over
// what is held: only restorations that were decided after it was found undo that.
func TestEntriesFromBeforeOutliveRestorationsFromBefore(t *testing.T) {
	for name, sequence := range map[string]uint64{"a low sequence": 3, "a high one": 900} {
		t.Run(name, func(t *testing.T) {
			d, _ := newTest(t, Options{})
			id := identity("sub", "a")
			d.Revoke(sequence, block(epoch0+1000, "sub", "a"))
			d.SetPosition(position("a", 1000))
			d.NewHistory(position("b", 0), 100)
			if p := d.Position(); p != position("b", 0) {
				t.Errorf("the position is %+v", p)
			}
			denied := func(want bool, when string) {
				t.Helper()
				if d.Check(id).Denied != want {
					t.Fatalf("%s: denied is %t", when, !want)
				}
			}
			denied(true, "found another history")
			d.Restore(50, restoration("sub", "a"))
			denied(true, "restored in the other history before it was found")
			d.Restore(100, restoration("sub", "a"))
			denied(true, "restored by its last entry")
			d.SetPosition(position("b", 100))
			d.Restore(101, restoration("sub", "a"))
			denied(false, "restored since")
			d.Revoke(60, block(epoch0+1000, "sub", "a"))
			denied(false, "a decision that is undone arrives late")
			d.Revoke(102, block(epoch0+1000, "sub", "a"))
			denied(true, "revoked anew")
		})
	}
}

// TestSharedHistoryIsJoinedExactly rolls a ledger back: entries that the present
// history has too can be restored by it as if nothing had happened.
func TestSharedHistoryIsJoinedExactly(t *testing.T) {
	d, _ := newTest(t, Options{})
	d.Revoke(10, block(epoch0+1000, "sub", "shared"))
	d.Revoke(11, block(epoch0+1000, "sub", "other end"))
	d.Revoke(30, block(epoch0+1000, "sub", "lost"))
	d.SetPosition(position("a", 30))
	d.NewHistory(position("a", 0), 40)
	d.Revoke(10, block(epoch0+1000, "sub", "shared"))
	d.Revoke(11, block(epoch0+2000, "sub", "other end"))
	for i, sub := range []string{"shared", "other end", "lost"} {
		d.Restore(uint64(38+i), restoration("sub", sub))
	}
	for sub, want := range map[string]bool{"shared": false, "other end": true, "lost": true} {
		if got := d.Check(identity("sub", sub)).Denied; got != want {
			t.Errorf("%s: denied is %t", sub, got)
		}
	}
}

// TestLaterDecisionSurvivesInAnEntryFromBefore undoes the old part of an entry
// by a restoration that arrives after a later decision.
func TestLaterDecisionSurvivesInAnEntryFromBefore(t *testing.T) {
	d, clock := newTest(t, Options{})
	d.Revoke(900, block(epoch0+1000, "sub", "a"))
	d.SetPosition(position("a", 900))
	d.NewHistory(position("b", 0), 100)
	d.SetPosition(position("b", 100))
	d.Revoke(103, block(epoch0+10, "sub", "a")) // by this edge's endpoint
	if _, ok := d.Standing(block(epoch0+1000, "sub", "a")); ok {
		t.Error("what the ledger lacks in part stands")
	}
	d.Restore(102, restoration("sub", "a")) // by the follower
	if !d.Check(identity("sub", "a")).Denied {
		t.Error("the later decision is gone")
	}
	if sequence, ok := d.Standing(block(epoch0+10, "sub", "a")); !ok || sequence != 103 {
		t.Errorf("at %d, %t", sequence, ok)
	}
	clock.pass(11 * time.Second)
	if d.Check(identity("sub", "a")).Denied {
		t.Error("the old decision outlived the restoration")
	}
}

// TestOldPartOfAMixedEntryStays restores, in what the present history held when it
// was found, something that has merged with an entry from before.
func TestOldPartOfAMixedEntryStays(t *testing.T) {
	d, clock := newTest(t, Options{})
	d.Revoke(900, block(epoch0+1000, "sub", "a"))
	d.SetPosition(position("a", 900))
	d.NewHistory(position("b", 0), 100)
	d.Revoke(60, block(epoch0+10, "sub", "a"))
	d.Restore(50, restoration("sub", "a"))
	clock.pass(11 * time.Second)
	if !d.Check(identity("sub", "a")).Denied {
		t.Error("the old part is gone")
	}
}

// TestHistoriesInARow meets more of them than there are eras.
func TestHistoriesInARow(t *testing.T) {
	d, _ := newTest(t, Options{})
	for i := range uint64(7) {
		sub := jti(int(i))
		d.Revoke(500, block(epoch0+1000, "sub", sub))
		d.Revoke(501, block(epoch0+1000, "sub", "all"))
		d.SetPosition(position(sub, 600))
		d.NewHistory(position("next", 0), 100+i)
		for k := range i + 1 {
			d.Restore(99, restoration("sub", jti(int(k))))
			if !d.Check(identity("sub", jti(int(k)))).Denied {
				t.Fatalf("history %d: the entry of history %d is undone", i, k)
			}
			if _, ok := d.Standing(block(epoch0+1000, "sub", jti(int(k)))); ok {
				t.Fatalf("history %d: the entry of history %d stands", i, k)
			}
		}
	}
	d.Restore(107, restoration("sub", "all"))
	if d.Check(identity("sub", "all")).Denied {
		t.Error("a restoration after the last discovery does not count")
	}
}

// TestNewHistoryWhileEverythingChanges has the endpoint decide in the new history
// while entries of the old one are being marked, in tables that grow meanwhile.
func TestNewHistoryWhileEverythingChanges(t *testing.T) {
	d, _ := newTest(t, Options{ActorQuota: -1})
	const old, fresh, last = 40_000, 10_000, 5_000
	for i := range old {
		d.Revoke(uint64(i+1), block(epoch0+1000, "jti", jti(i)))
		d.SetPosition(position("a", uint64(i+1)))
	}
	var turned atomic.Bool
	var worker sync.WaitGroup
	var done atomic.Int64
	worker.Go(func() {
		for !turned.Load() {
			runtime.Gosched()
		}
		for i := range fresh {
			d.Revoke(uint64(last+1+i), block(epoch0+1000, "sub", jti(i)))
			done.Add(1)
		}
	})
	d.mu.Lock()
	turn := d.turn
	d.mu.Unlock()
	worker.Go(func() {
		for {
			d.mu.Lock()
			now := d.turn
			d.mu.Unlock()
			if now != turn {
				turned.Store(true)
				return
			}
		}
	})
	d.NewHistory(position("b", 0), last)
	meanwhile := done.Load()
	worker.Wait()
	t.Logf("%d of %d while the history was turned", meanwhile, fresh)
	for i := range fresh {
		if sequence, ok := d.Standing(block(epoch0+1000, "sub", jti(i))); !ok || sequence != uint64(last+1+i) {
			t.Fatalf("decision %d stands at %d, %t", i, sequence, ok)
		}
	}
	before, now := 0, 0
	for sequence := range d.HeldEntries() {
		if sequence == 0 {
			before++
		} else {
			now++
		}
	}
	if before != old || now != fresh {
		t.Errorf("%d from before, %d from now", before, now)
	}
	for i := range d.index.shards {
		tab := d.index.shards[i].Load()
		tab.each(0, len(tab.slots), func(_ *table, s *slot) {
			if e := origin(s.origin.Load()).era(); e != eraBefore && e != d.era {
				t.Fatalf("an entry is left in era %d", e)
			}
		})
	}
}

// TestMarkingGoesOnInATableThatWasReplaced has a shard shrink when a part of it is
// marked.
func TestMarkingGoesOnInATableThatWasReplaced(t *testing.T) {
	d, prints := bigShard(t, 5000)
	d.index.rebuild(0, 20_000)
	d.era = d.era.next()
	tab, from := d.markSome(0, nil, 0)
	if from >= len(tab.slots) {
		t.Fatal("the shard is too small")
	}
	d.index.rebuild(0, 0)
	for from < len(tab.slots) {
		tab, from = d.markSome(0, tab, from)
	}
	for _, f := range prints {
		if _, o := d.index.get(f); o.era() != eraBefore {
			t.Fatalf("an entry is left in era %d", o.era())
		}
	}
}
