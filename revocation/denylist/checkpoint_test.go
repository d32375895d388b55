package denylist

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

func TestCheckpointKeepsEverything(t *testing.T) {
	path := filepath.Join(t.TempDir(), "checkpoint")
	d, clock := newTest(t, Options{ActorQuota: 3, MaxEntries: 5000})
	for i := range 3000 {
		d.Revoke(uint64(i+1), block(epoch0+100, "jti", jti(i)))
	}
	r := cutoff(revocation.IssuedBefore, epoch0, epoch0+100, "role", "admin", "tenant", "t")
	for _, sub := range []string{"a", "b", "c"} {
		mine := block(epoch0+100, "sub", sub)
		mine.Actor = "client:app"
		d.Revoke(3001, mine)
	}
	d.Revoke(3002, r)
	place := revocation.Position{Ledger: "l", Created: time.Unix(5, 6).UTC(), Sequence: 3002, Stored: time.Unix(7, 8).UTC()}
	d.SetPosition(place)
	d.MarkIncomplete("later version", epoch0+50)
	proven := clock.Now().Add(-40 * time.Second)
	if err := d.WriteCheckpoint(path, testPlace, proven); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}

	e, _ := newTest(t, Options{ActorQuota: 3, MaxEntries: 5000})
	e.Revoke(1, block(epoch0+100, "jti", "own")) // is there already, and stays
	got, provenAt, err := e.LoadCheckpoint(path, testPlace)
	if err != nil {
		t.Fatal(err)
	}
	if got != place || e.Position() != place || !provenAt.Equal(proven) {
		t.Errorf("%+v proven at %v", got, provenAt)
	}
	for i := range 3000 {
		if dec := e.Check(identity("jti", jti(i))); !dec.Denied || dec.Sequence != uint64(i+1) {
			t.Fatalf("%d: %+v", i, dec)
		}
	}
	if names, _ := e.ClaimNames(); len(names) != 2 {
		t.Errorf("claims: %v", names)
	}
	if dec := e.Check(identity("role", "admin", "role", "user", "tenant", "t")); !dec.Denied || dec.Shape != "role,tenant" {
		t.Errorf("%+v", dec)
	}
	if !e.Check(identity("jti", "own")).Denied {
		t.Error("what was there is gone")
	}
	if reason, until, ok := e.Incomplete(clock.Now()); !ok || until != epoch0+50 || reason != "later version" {
		t.Errorf("%q until %d, %t", reason, until, ok)
	}
	mine := block(epoch0+100, "sub", "d")
	mine.Actor = "client:app"
	if err := e.Admit(mine, false); !errors.Is(err, revocation.ErrFull) {
		t.Errorf("the quota is forgotten: %v", err)
	}
	e.Restore(3003, restoration("role", "admin", "tenant", "t"))
	if e.Check(identity("role", "admin", "tenant", "t")).Denied {
		t.Error("what was loaded can not be restored")
	}
	if s := e.Stats(); s.Entries != 3004 {
		t.Errorf("%+v", s)
	}
}

func TestCheckpointBeyondTheCapIsIncomplete(t *testing.T) {
	path := filepath.Join(t.TempDir(), "checkpoint")
	d, _ := newTest(t, Options{})
	for i := range 100 {
		d.Revoke(uint64(i+1), block(epoch0+100, "jti", jti(i)))
	}
	if err := d.WriteCheckpoint(path, testPlace, time.Now()); err != nil {
		t.Fatal(err)
	}
	e, clock := newTest(t, Options{MaxEntries: 50})
	if _, _, err := e.LoadCheckpoint(path, testPlace); err != nil {
		t.Fatal(err)
	}
	if _, until, ok := e.Incomplete(clock.Now()); !ok || until != epoch0+100 || e.Stats().Entries != 48 {
		t.Errorf("until %d, %t, %+v", until, ok, e.Stats())
	}
}

// TestDamagedCheckpointChangesNothing flips, cuts and appends everywhere.
func TestDamagedCheckpointChangesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "checkpoint")
	d, _ := newTest(t, Options{})
	for i := range 50 {
		d.Revoke(uint64(i+1), block(epoch0+100, "jti", jti(i)))
	}
	d.SetPosition(revocation.Position{Ledger: "l", Sequence: 50})
	if err := d.WriteCheckpoint(path, testPlace, time.Now()); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	e, _ := newTest(t, Options{})
	refused := func(what string, b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := e.LoadCheckpoint(path, testPlace); !errors.Is(err, ErrCheckpoint) {
			t.Fatalf("%s: %v", what, err)
		}
		if e.Stats().Entries != 0 || e.Position() != (revocation.Position{}) {
			t.Fatalf("%s: half loaded", what)
		}
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1 << (i % 8)
		refused("a flipped bit", bad)
		refused("cut off", good[:i])
	}
	refused("longer", append(bytes.Clone(good), 0))
	refused("twice", append(bytes.Clone(good), good...))
	refused("foreign", []byte("PK\x03\x04 something else altogether, long enough to hold a checksum"))

	reseal := func(change func(body []byte) []byte) []byte {
		body := change(bytes.Clone(good[:len(good)-sha256.Size]))
		sum := sha256.Sum256(body)
		return append(body, sum[:]...)
	}
	refused("later version", reseal(func(b []byte) []byte { b[len(checkpointMagic)]++; return b }))
	refused("no sections", reseal(func(b []byte) []byte { return b[:headerBytes] }))
	refused("unknown shape", reseal(func(b []byte) []byte { return bytes.Replace(b, []byte(`"jti"`), []byte(`"\u0000"`), 1) }))
	refused("unknown mode", reseal(func(b []byte) []byte { return bytes.Replace(b, []byte(`"block"`), []byte(`"clock"`), 1) }))
	refused("section beyond the end", reseal(func(b []byte) []byte { b[headerBytes+8] = 1; return b }))

	if _, _, err := e.LoadCheckpoint(filepath.Join(t.TempDir(), "none"), testPlace); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if _, _, err := e.LoadCheckpoint(t.TempDir(), testPlace); err == nil {
		t.Error("a directory is loaded")
	}
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := e.LoadCheckpoint(path, testPlace); err != nil || e.Stats().Entries != 50 {
		t.Errorf("the good one: %v", err)
	}
}

func TestCheckpointOfAnotherPlaceIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "checkpoint")
	d, _ := newTest(t, Options{})
	d.Revoke(1, block(epoch0+100, "jti", "1"))
	d.MarkUnreadable(2, "later version", epoch0+100)
	d.SetPosition(revocation.Position{Ledger: "l", Sequence: 2})
	if err := d.WriteCheckpoint(path, "here", time.Now()); err != nil {
		t.Fatal(err)
	}
	e, clock := newTest(t, Options{})
	_, _, err := e.LoadCheckpoint(path, "there")
	if !errors.Is(err, ErrCheckpoint) || !strings.Contains(err.Error(), "another ledger") ||
		!strings.Contains(err.Error(), "here") || !strings.Contains(err.Error(), "there") {
		t.Errorf("%v", err)
	}
	if _, _, incomplete := e.Incomplete(clock.Now()); incomplete || e.Stats().Entries != 0 || e.Position() != (revocation.Position{}) {
		t.Error("something is loaded")
	}
	if _, _, err := e.LoadCheckpoint(path, "here"); err != nil || e.Stats().Entries != 1 {
		t.Errorf("its own: %v", err)
	}
}

func TestFailedWriteKeepsTheOldCheckpoint(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "checkpoint")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	// What a crash left behind does not stay.
	abandoned := filepath.Join(dir, ".checkpoint.1.tmp")
	if err := os.WriteFile(abandoned, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(abandoned, time.Time{}, time.Now().Add(-2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	d, _ := newTest(t, Options{})
	if err := d.WriteCheckpoint(filepath.Join(dir, "missing", "checkpoint"), testPlace, time.Now()); err == nil {
		t.Error("written to a directory that does not exist")
	}
	if b, _ := os.ReadFile(path); string(b) != "old" {
		t.Error("the old one is gone")
	}
	if err := d.WriteCheckpoint(path, testPlace, time.Now()); err != nil {
		t.Fatal(err)
	}
	names, _ := os.ReadDir(dir)
	if len(names) != 1 {
		t.Errorf("left over: %v", names)
	}
}

// TestCheckpointWhileEverythingChanges writes checkpoints while entries come
// and go. Each, loaded and followed on from its position, holds what was decided
// before it was begun and denies nobody else.
func TestCheckpointWhileEverythingChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "checkpoint")
	d, _ := newTest(t, Options{ActorQuota: -1})
	var events []*event
	rng := rand.New(rand.NewPCG(4, 4))
	for i := range 20_000 {
		if i%3 == 2 {
			events = append(events, &event{restore: restoration("jti", jti(rng.IntN(i)))})
		} else {
			r := block(epoch0+1000, "jti", jti(i))
			if i%100 == 0 {
				r = block(epoch0+1000, []string{"sub", "sid", "tenant", "role"}[i/100%4], jti(i))
			}
			events = append(events, &event{revoke: r})
		}
	}
	var applied atomic.Int64
	var writer sync.WaitGroup
	writer.Go(func() {
		for i, e := range events {
			e.apply(d, uint64(i+1))
			d.SetPosition(revocation.Position{Ledger: "l", Sequence: uint64(i + 1)})
			applied.Store(int64(i + 1))
			if i%1000 == 0 {
				d.sweep(10)
			}
		}
	})
	for done := false; !done; {
		before := applied.Load()
		if err := d.WriteCheckpoint(path, testPlace, time.Now()); err != nil {
			t.Fatal(err)
		}
		done = applied.Load() == int64(len(events))
		e, _ := newTest(t, Options{ActorQuota: -1})
		p, _, err := e.LoadCheckpoint(path, testPlace)
		if err != nil || int64(p.Sequence) < before {
			t.Fatalf("%+v, %v", p, err)
		}
		for i := int(p.Sequence); i < len(events); i++ {
			events[i].apply(e, uint64(i+1))
			e.SetPosition(revocation.Position{Ledger: "l", Sequence: uint64(i + 1)})
		}
		want := map[string]bool{}
		for _, ev := range events {
			want[ev.criteria().String()] = ev.revoke != nil
		}
		for _, ev := range events {
			c := ev.criteria()
			for name, value := range c.Claims {
				if got := e.Check(identity(name, value)).Denied; got != want[c.String()] {
					t.Fatalf("%s: denied is %t", c, got)
				}
			}
		}
		e.Close()
	}
	writer.Wait()
}

// reload loads what was written into another denylist.
func reload(t *testing.T, b []byte) (*Denylist, *testClock) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "checkpoint")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	d, clock := newTest(t, Options{ActorQuota: -1})
	if _, _, err := d.LoadCheckpoint(path, testPlace); err != nil {
		t.Fatal(err)
	}
	return d, clock
}

// TestCheckpointPositionIsFromBeforeItsEntries follows on from a checkpoint in
// the middle of which entries came: none is lost between it and the position.
func TestCheckpointPositionIsFromBeforeItsEntries(t *testing.T) {
	d, _ := newTest(t, Options{ActorQuota: -1})
	const before, meanwhile = 12_000, 500
	event := func(d *Denylist, i int) {
		d.Revoke(uint64(i+1), block(epoch0+100, "jti", jti(i)))
		d.SetPosition(revocation.Position{Ledger: "l", Sequence: uint64(i + 1)})
	}
	for i := range before {
		event(d, i)
	}
	w := &writerFunc{first: func() {
		for i := range meanwhile {
			event(d, before+i)
		}
	}}
	if err := d.writeCheckpoint(w, testPlace, time.Now()); err != nil {
		t.Fatal(err)
	}
	e, _ := reload(t, w.Bytes())
	if e.Stats().Entries == before+meanwhile {
		t.Error("nothing came in the middle")
	}
	for i := int(e.Position().Sequence); i < before+meanwhile; i++ {
		event(e, i)
	}
	for i := range before + meanwhile {
		if !e.Check(identity("jti", jti(i))).Denied {
			t.Fatalf("entry %d is lost", i)
		}
	}
}

// TestCheckpointKnowsWhatCameAheadOfTheFollower goes on, after a reload, with
// what the follower brings late.
func TestCheckpointKnowsWhatCameAheadOfTheFollower(t *testing.T) {
	saved := func(d *Denylist) (*Denylist, *testClock) {
		var b bytes.Buffer
		if err := d.writeCheckpoint(&b, testPlace, time.Now()); err != nil {
			t.Fatal(err)
		}
		return reload(t, b.Bytes())
	}
	t.Run("a decision", func(t *testing.T) {
		d, _ := newTest(t, Options{})
		d.Revoke(1, block(epoch0+1000, "sub", "a"))
		d.SetPosition(revocation.Position{Ledger: "l", Sequence: 1})
		d.Revoke(3, block(epoch0+10, "sub", "a"))
		e, clock := saved(d)
		e.Restore(2, restoration("sub", "a"))
		if !e.Check(identity("sub", "a")).Denied {
			t.Error("the later decision is gone")
		}
		clock.pass(11 * time.Second)
		if e.Check(identity("sub", "a")).Denied {
			t.Error("the earlier decision's end outlived the restoration")
		}
	})
	t.Run("a restoration", func(t *testing.T) {
		d, _ := newTest(t, Options{})
		d.SetPosition(revocation.Position{Ledger: "l", Sequence: 1})
		d.Restore(3, restoration("sub", "a"))
		e, _ := saved(d)
		e.Revoke(2, block(epoch0+10, "sub", "a"))
		if e.Check(identity("sub", "a")).Denied {
			t.Error("what was undone denies")
		}
		e.Revoke(4, block(epoch0+10, "sub", "a"))
		if !e.Check(identity("sub", "a")).Denied {
			t.Error("a later decision does not deny")
		}
	})
}

// writerFunc calls first before the first write, and second before the second.
type writerFunc struct {
	bytes.Buffer
	first, second func()
}

func (w *writerFunc) Write(b []byte) (int, error) {
	if w.first != nil {
		w.first()
		w.first = nil
	} else if w.second != nil {
		w.second()
		w.second = nil
	}
	return w.Buffer.Write(b)
}

// TestCheckpointKnowsTheShapesOfItsEntries gives a shape up while entries of it
// are in the part that is written already, and brings another one into use.
func TestCheckpointKnowsTheShapesOfItsEntries(t *testing.T) {
	d, _ := newTest(t, Options{ActorQuota: -1})
	sequence := uint64(0)
	revoke := func(pairs ...string) {
		sequence++
		d.Revoke(sequence, block(epoch0+100, pairs...))
	}
	const tenants = 200
	for i := range tenants {
		revoke("tenant", jti(i))
	}
	for i := range 12_000 {
		revoke("jti", jti(i))
	}
	for i := range maxShapes - 2 {
		revoke("claim"+jti(i), "x")
	}
	w := &writerFunc{first: func() {
		for i := range tenants {
			sequence++
			d.Restore(sequence, restoration("tenant", jti(i)))
		}
		revoke("team", "x")
	}}
	if err := d.writeCheckpoint(w, testPlace, time.Now()); err != nil {
		t.Fatal(err)
	}
	if !d.Check(identity("team", "x")).Denied {
		t.Fatal("the new shape found no room")
	}
	e, _ := reload(t, w.Bytes())
	denied := 0
	for i := range tenants {
		if e.Check(identity("tenant", jti(i))).Denied {
			denied++
		}
	}
	// How many were written before the change depends on where they are.
	if denied == 0 || denied == tenants {
		t.Errorf("%d of %d", denied, tenants)
	}
	for n := range d.shapes.slots {
		if d.shapes.slots[n].retired {
			t.Error("a number is kept after the checkpoint was written")
		}
	}
}
