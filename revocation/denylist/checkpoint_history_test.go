package denylist

import (
	"bytes"
	"testing"
	"time"
)

// TestRestorationDuringACheckpointIsCarriedOutAgain restores, while a checkpoint
// is written, entries that are already in it: the file then holds both.
func TestRestorationDuringACheckpointIsCarriedOutAgain(t *testing.T) {
	d, _ := newTest(t, Options{ActorQuota: -1})
	const entries = 12_000
	for i := range entries {
		d.Revoke(uint64(i+1), block(epoch0+100, "jti", jti(i)))
		d.SetPosition(position("l", uint64(i+1)))
	}
	restore := func(d *Denylist, i int) {
		d.Restore(uint64(entries+1+i), restoration("jti", jti(i)))
		d.SetPosition(position("l", uint64(entries+1+i)))
	}
	w := &writerFunc{first: func() {
		for i := range entries {
			restore(d, i)
		}
	}}
	if err := d.writeCheckpoint(w, testPlace, time.Now()); err != nil {
		t.Fatal(err)
	}
	e, _ := reload(t, w.Bytes())
	if n := e.Stats().Entries; n == 0 || n == entries {
		t.Fatalf("%d entries were copied before they were restored", n)
	}
	for i := int(e.Position().Sequence) - entries; i < entries; i++ {
		restore(e, i)
	}
	if n := e.Stats().Entries; n != 0 {
		t.Errorf("%d entries deny although they were restored", n)
	}
}

// TestCheckpointIsOfOneHistory turns the history while a checkpoint is written.
func TestCheckpointIsOfOneHistory(t *testing.T) {
	d, _ := newTest(t, Options{})
	for i := range 12_000 {
		d.Revoke(uint64(i+1), block(epoch0+100, "jti", jti(i)))
	}
	d.SetPosition(position("a", 12_000))
	w := &writerFunc{first: func() {
		d.NewHistory(position("b", 0), 5)
		d.Revoke(6, block(epoch0+100, "sub", "a"))
	}}
	if err := d.writeCheckpoint(w, testPlace, time.Now()); err == nil {
		t.Fatal("written")
	}
	w = &writerFunc{}
	if err := d.writeCheckpoint(w, testPlace, time.Now()); err != nil {
		t.Fatal(err)
	}
	e, _ := reload(t, w.Bytes())
	if sequence, ok := e.Standing(block(epoch0+100, "sub", "a")); !ok || sequence != 6 {
		t.Errorf("the decision of the new history stands at %d, %t", sequence, ok)
	}
	e.Restore(5, restoration("jti", jti(0)))
	if !e.Check(identity("jti", jti(0))).Denied {
		t.Error("an entry from before is undone by a restoration from before")
	}
	e.SetPosition(position("b", 6))
	e.Restore(7, restoration("jti", jti(0)))
	if e.Check(identity("jti", jti(0))).Denied {
		t.Error("an entry from before can not be restored")
	}
}

// TestCheckpointOfAnotherHistoryIsFromBefore loads one into a denylist that
// follows already.
func TestCheckpointOfAnotherHistoryIsFromBefore(t *testing.T) {
	d, _ := newTest(t, Options{})
	d.Revoke(3, block(epoch0+100, "sub", "a"))
	d.Restore(9, restoration("sub", "b"))
	d.SetPosition(position("a", 4))
	var b bytes.Buffer
	if err := d.writeCheckpoint(&b, testPlace, time.Now()); err != nil {
		t.Fatal(err)
	}
	c, err := parseCheckpoint(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	e, _ := newTest(t, Options{})
	e.SetPosition(position("b", 50))
	e.join(c)
	if e.Position() != position("b", 50) {
		t.Errorf("%+v", e.Position())
	}
	e.Restore(50, restoration("sub", "a"))
	e.Revoke(8, block(epoch0+100, "sub", "b"))
	for _, sub := range []string{"a", "b"} {
		if !e.Check(identity("sub", sub)).Denied {
			t.Errorf("%s is undone by another history's restoration", sub)
		}
	}
	e.Restore(51, restoration("sub", "a"))
	if e.Check(identity("sub", "a")).Denied {
		t.Error("can not be restored")
	}
}

// TestLoadedEntriesStayRestored loads a checkpoint into the denylist that wrote it,
// and has restored an entry since.
func TestLoadedEntriesStayRestored(t *testing.T) {
	d, _ := newTest(t, Options{})
	d.Revoke(1, block(epoch0+100, "sub", "a"))
	d.SetPosition(position("a", 1))
	var b bytes.Buffer
	if err := d.writeCheckpoint(&b, testPlace, time.Now()); err != nil {
		t.Fatal(err)
	}
	c, err := parseCheckpoint(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	d.Restore(2, restoration("sub", "a"))
	d.SetPosition(position("a", 2))
	if d.join(c); d.Check(identity("sub", "a")).Denied {
		t.Error("denied")
	}
}
