package denylist

import (
	"bytes"
	"fmt"
	"testing"
	"time"
)

// untilWhen returns when the denylist is complete again, zero if it is.
func untilWhen(d *Denylist, now time.Time) int64 {
	_, until, _ := d.Incomplete(now)
	return until
}

func TestAcknowledgedEntriesAreNotMissed(t *testing.T) {
	d, clock := newTest(t, Options{})
	wants := func(until int64, when string) {
		t.Helper()
		if got := untilWhen(d, clock.Now()); got != until {
			t.Fatalf("%s: incomplete until %d, not %d", when, got, until)
		}
	}
	if d.Acknowledge(5) {
		t.Error("acknowledged before it is known")
	}
	d.MarkUnreadable(5, "a later version", epoch0+500)
	wants(epoch0+500, "marked")
	d.MarkUnreadable(6, "no JSON", epoch0+300)
	d.MarkUnreadable(6, "no JSON", epoch0+200)
	d.MarkIncomplete("something else", epoch0+100)
	if d.Acknowledge(7) || !d.Acknowledge(5) || d.Acknowledge(5) {
		t.Error("not acknowledged once")
	}
	wants(epoch0+300, "the longest acknowledged")
	d.Acknowledge(6)
	wants(epoch0+100, "all acknowledged")
	clock.pass(101 * time.Second)
	wants(0, "later")
	d.MarkUnreadable(8, "no end", 0)
	if untilWhen(d, clock.Now()) == 0 {
		t.Error("an entry without end is complete")
	}
	d.Revoke(8, block(clock.unix()+10, "jti", "1"))
	if untilWhen(d, clock.Now()) == 0 {
		t.Error("another decision of the same entry closes the gap")
	}
	d.Acknowledge(8)
	d.Revoke(9, block(clock.unix()+10))
	r := block(clock.unix()+50, "jti", "1")
	r.Mode = 9
	d.Revoke(10, r)
	wants(clock.unix()+50, "invalid")
	d.Acknowledge(10)
	wants(0, "invalid and acknowledged")
}

func TestUnreadableEntriesAreBounded(t *testing.T) {
	d, clock := newTest(t, Options{})
	for i := range 2 * maxUnread {
		d.MarkUnreadable(uint64(i+1), "no JSON", epoch0+100+int64(i))
	}
	for i := range 2 * maxUnread {
		if d.Acknowledge(uint64(i+1)) != (i < maxUnread) {
			t.Fatalf("entry %d", i)
		}
	}
	if untilWhen(d, clock.Now()) != epoch0+100+2*maxUnread-1 {
		t.Error("what is beyond the bound is forgotten")
	}
	clock.pass(5 * time.Hour)
	d.sweep(1)
	d.MarkUnreadable(1, "no JSON", clock.unix()+10)
	clock.pass(5 * time.Hour)
	for range 3 {
		d.sweep(1)
		clock.pass(time.Hour)
	}
	if n := len(d.lack.unread); n != 0 {
		t.Errorf("%d are kept after their end", n)
	}
}

// TestUnreadableStaysSoAfterARestart is about a gap that can be closed
// afterwards.
func TestUnreadableStaysSoAfterARestart(t *testing.T) {
	for _, acknowledged := range []bool{false, true} {
		t.Run(fmt.Sprint(acknowledged), func(t *testing.T) {
			d, _ := newTest(t, Options{})
			d.MarkUnreadable(5, "a later version", epoch0+500)
			d.MarkUnreadable(6, "no JSON", epoch0+400)
			d.MarkIncomplete("something else", epoch0+100)
			d.SetPosition(position("l", 7))
			if acknowledged {
				d.Acknowledge(5)
			}
			var b bytes.Buffer
			if err := d.writeCheckpoint(&b, testPlace, time.Now()); err != nil {
				t.Fatal(err)
			}
			e, clock := reload(t, b.Bytes())
			if e.Acknowledge(5) == acknowledged {
				t.Errorf("acknowledged is %t", acknowledged)
			}
			if reason, until, _ := e.Incomplete(clock.Now()); until != epoch0+400 || reason != "no JSON" {
				t.Errorf("%q until %d", reason, until)
			}
			e.Revoke(6, block(epoch0+10, "jti", "1")) // a newer version can
			if until := untilWhen(e, clock.Now()); until != epoch0+100 {
				t.Errorf("until %d", until)
			}
		})
	}
}

// TestAcknowledgmentsMeanTheirOwnHistory replays another history's
// acknowledgments over a mark of the old one.
func TestAcknowledgmentsMeanTheirOwnHistory(t *testing.T) {
	d, _ := newTest(t, Options{})
	d.MarkUnreadable(5, "a later version", epoch0+500)
	d.MarkUnreadable(6, "a later version", epoch0+400)
	d.SetPosition(position("a", 9))
	var b bytes.Buffer
	if err := d.writeCheckpoint(&b, testPlace, time.Now()); err != nil {
		t.Fatal(err)
	}
	d, clock := reload(t, b.Bytes())
	d.NewHistory(position("b", 0), 20)
	d.Revoke(5, block(epoch0+10, "jti", "1"))
	if d.Acknowledge(5) || untilWhen(d, clock.Now()) != epoch0+500 {
		t.Error("another entry of the same number closes the gap")
	}
	d.MarkUnreadable(6, "a later version", epoch0+400)
	if !d.Acknowledge(6) {
		t.Error("the entry that both histories have can not be acknowledged")
	}
	d.SetPosition(position("b", 20))
	if !d.Acknowledge(5) || untilWhen(d, clock.Now()) != 0 {
		t.Error("can not be acknowledged afterwards")
	}
}
