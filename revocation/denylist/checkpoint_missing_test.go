package denylist

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// fullCheckpoint is that of a denylist which could hold two of many decisions.
func fullCheckpoint(t *testing.T, decisions int) *loaded {
	t.Helper()
	d, clock := newTest(t, Options{MaxEntries: 2, ActorQuota: -1})
	d.SetPosition(position("l", 0))
	for i := range decisions {
		r := block(epoch0+1000+int64(i), "sub", jti(i))
		r.Actor = "client:app"
		d.Revoke(uint64(i+1), r)
		d.SetPosition(position("l", uint64(i+1)))
	}
	if _, _, incomplete := d.Incomplete(clock.Now()); !incomplete {
		t.Fatal("complete")
	}
	var b bytes.Buffer
	if err := d.writeCheckpoint(&b, testPlace, time.Now()); err != nil {
		t.Fatal(err)
	}
	c, err := parseCheckpoint(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestMoreRoomAfterARestartHealsTheDenylist loads, with a higher max_entries, the
// checkpoint of a denylist that was full: the follower brings nothing of that
// again.
func TestMoreRoomAfterARestartHealsTheDenylist(t *testing.T) {
	c := fullCheckpoint(t, 5)
	d, clock := newTest(t, Options{MaxEntries: 100, ActorQuota: 5})
	d.join(c)
	if reason, _, incomplete := d.Incomplete(clock.Now()); incomplete || d.Position() != position("l", 5) {
		t.Errorf("%s, %+v", reason, d.Position())
	}
	for i := range 5 {
		if sequence, ok := d.Standing(block(epoch0+1000+int64(i), "sub", jti(i))); !ok || sequence != uint64(i+1) {
			t.Errorf("decision %d stands at %d, %t", i+1, sequence, ok)
		}
	}
	mine := block(epoch0+100, "sub", "one more")
	mine.Actor = "client:app"
	if err := d.Admit(mine, false); !errors.Is(err, revocation.ErrFull) {
		t.Errorf("the quota is forgotten: %v", err)
	}
	d.Restore(6, restoration("sub", jti(4)))
	if d.Check(identity("sub", jti(4))).Denied {
		t.Error("can not be restored")
	}
}

// TestNoMoreRoomAfterARestart loads it where there is no more room than before.
func TestNoMoreRoomAfterARestart(t *testing.T) {
	c := fullCheckpoint(t, 4)
	d, clock := newTest(t, Options{MaxEntries: 2, ActorQuota: -1})
	d.join(c)
	wants := func(until int64, when string) {
		t.Helper()
		if got := untilWhen(d, clock.Now()); got != until {
			t.Errorf("%s: incomplete until %d, not %d", when, got-epoch0, until-epoch0)
		}
	}
	wants(epoch0+1003, "loaded")
	d.Restore(5, restoration("sub", jti(3)))
	wants(epoch0+1002, "one was restored")
	d.Restore(6, restoration("sub", jti(2)))
	wants(0, "both were restored")

	// Another history: what was missing is from before, and so are restorations
	// up to where that was found.
	e, clock := newTest(t, Options{MaxEntries: 100, ActorQuota: -1})
	e.SetPosition(position("m", 50))
	e.join(c)
	if _, _, incomplete := e.Incomplete(clock.Now()); incomplete || e.Stats().Entries != 4 {
		t.Errorf("%+v", e.Stats())
	}
	for sequence := range e.HeldEntries() {
		if sequence != 0 {
			t.Errorf("held as if the present history had it at %d", sequence)
		}
	}
	if e.Restore(50, restoration("sub", jti(3))); !e.Check(identity("sub", jti(3))).Denied {
		t.Error("undone by an older restoration")
	}
	if e.Restore(51, restoration("sub", jti(3))); e.Check(identity("sub", jti(3))).Denied {
		t.Error("can not be restored")
	}
}

// TestMissingFromBeforeStaysSo has the history change between the miss and the
// checkpoint: the present one may lack the entry, which is to be recorded again.
func TestMissingFromBeforeStaysSo(t *testing.T) {
	d, _ := newTest(t, Options{MaxEntries: 1})
	d.Revoke(1, block(epoch0+100, "sub", "a"))
	d.Revoke(2, block(epoch0+100, "sub", "b"))
	d.SetPosition(position("l", 2))
	d.NewHistory(position("m", 0), 5)
	var b bytes.Buffer
	if err := d.writeCheckpoint(&b, testPlace, time.Now()); err != nil {
		t.Fatal(err)
	}
	e, _ := reload(t, b.Bytes())
	n := 0
	for sequence := range e.HeldEntries() {
		if n++; sequence != 0 {
			t.Errorf("held as if the present history had it at %d", sequence)
		}
	}
	if n != 2 {
		t.Errorf("%d entries", n)
	}
	if e.Restore(5, restoration("sub", "b")); !e.Check(identity("sub", "b")).Denied {
		t.Error("undone by an older restoration")
	}
	if e.Restore(6, restoration("sub", "b")); e.Check(identity("sub", "b")).Denied {
		t.Error("can not be restored")
	}
}

// TestMoreMissingThanACheckpointTells keeps the gap where the entries do not fit.
func TestMoreMissingThanACheckpointTells(t *testing.T) {
	c := fullCheckpoint(t, maxMissing+10)
	if len(c.missing) != maxMissing || c.gap.until != epoch0+1000+maxMissing+9 {
		t.Errorf("%d are told, the others end at +%d", len(c.missing), c.gap.until-epoch0)
	}
	d, clock := newTest(t, Options{ActorQuota: -1})
	d.join(c)
	if until := untilWhen(d, clock.Now()); until != c.gap.until {
		t.Errorf("incomplete until +%d", until-epoch0)
	}

	absent := make(map[revocation.Fingerprint]missing)
	long := bytes.Repeat([]byte("x"), 5000)
	for i := range maxMissing {
		print := criteria("sub", jti(i)).Fingerprint(revocation.Block)
		absent[print] = missing{term: newTerm(epoch0+int64(i), 0), names: []string{"sub"}, actor: fmt.Sprint(string(long), i)}
	}
	b, err := marshalMeta(checkpointMeta{Place: testPlace}, absent)
	var meta checkpointMeta
	if err != nil || len(b) > maxMeta || json.Unmarshal(b, &meta) != nil {
		t.Fatal(len(b), err)
	}
	if len(meta.Missing) != 0 || meta.IncompleteUntil != epoch0+maxMissing-1 {
		t.Errorf("%d, until +%d", len(meta.Missing), meta.IncompleteUntil-epoch0)
	}
}

func TestMalformedMissingEntriesAreRefused(t *testing.T) {
	good := checkpointMissing{
		checkpointShape: checkpointShape{Mode: "block", Names: []string{"sub"}},
		Print:           make([]byte, 16), Term: uint64(newTerm(epoch0, 0)), Sequence: 1,
	}
	if _, err := good.decision(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(m *checkpointMissing){
		"mode":     func(m *checkpointMissing) { m.Mode = "clock" },
		"no mode":  func(m *checkpointMissing) { m.Mode = "" },
		"names":    func(m *checkpointMissing) { m.Names = []string{"sub", "jti"} },
		"print":    func(m *checkpointMissing) { m.Print = m.Print[:15] },
		"no end":   func(m *checkpointMissing) { m.Term = 5 },
		"sequence": func(m *checkpointMissing) { m.Sequence = maxSequence + 1 },
	} {
		bad := good
		if change(&bad); !errorsIsCheckpoint(bad) {
			t.Errorf("%s: taken", name)
		}
	}
}

func errorsIsCheckpoint(m checkpointMissing) bool {
	_, err := m.decision()
	return errors.Is(err, ErrCheckpoint)
}

// TestCheckpointKeepsWhatFindsRoomMeanwhile holds missing entries after the place
// where they would be was copied, and misses others that it knew nothing of then.
func TestCheckpointKeepsWhatFindsRoomMeanwhile(t *testing.T) {
	const others, users = 12_000, 300
	d, _ := newTest(t, Options{MaxEntries: others, ActorQuota: -1})
	for i := range others {
		d.Revoke(uint64(i+1), block(epoch0+100, "client_id", jti(i)))
	}
	user := func(i int) *revocation.Revocation { return block(epoch0+100, "sub", jti(i)) }
	for i := range users {
		d.Revoke(uint64(others+i+1), user(i))
	}
	d.SetPosition(position("l", others+users))
	w := &writerFunc{first: func() {
		d.limits.max += users
		for i := range 2 * users { // the first half late, as an endpoint may
			d.Revoke(uint64(others+i+1), user(i))
		}
	}}
	if err := d.writeCheckpoint(w, testPlace, time.Now()); err != nil {
		t.Fatal(err)
	}
	if d.Stats().Missing != users {
		t.Fatalf("%+v", d.Stats())
	}
	e, _ := reload(t, w.Bytes())
	for i := range 2 * users {
		if !e.Check(identity("sub", jti(i))).Denied {
			t.Fatalf("user %d is lost", i)
		}
	}
}
