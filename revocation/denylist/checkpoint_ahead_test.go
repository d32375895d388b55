package denylist

import (
	"bytes"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// TestCheckpointKeepsWhatIsPassedWhileItIsWritten merges decisions with entries
// before these are copied, and has the follower pass them before the file is
// complete.
func TestCheckpointKeepsWhatIsPassedWhileItIsWritten(t *testing.T) {
	d, _ := newTest(t, Options{ActorQuota: -1})
	const users, others = 300, 30_000
	sequence := uint64(0)
	for i := range users {
		sequence++
		d.Revoke(sequence, block(epoch0+9000, "sub", jti(i)))
	}
	for i := range others {
		sequence++
		d.Revoke(sequence, block(epoch0+9000, "jti", jti(i)))
	}
	d.SetPosition(position("l", sequence))
	restored, again := sequence, sequence+users
	apply := func(d *Denylist) { // the follower
		for i := range users {
			d.Restore(restored+uint64(i)+1, restoration("sub", jti(i)))
			d.SetPosition(position("l", restored+uint64(i)+1))
		}
		for i := range users {
			d.Revoke(again+uint64(i)+1, block(epoch0+60, "sub", jti(i)))
			d.SetPosition(position("l", again+uint64(i)+1))
		}
	}
	w := &writerFunc{
		first: func() {
			for i := range users { // the endpoint
				d.Revoke(again+uint64(i)+1, block(epoch0+60, "sub", jti(i)))
			}
		},
		second: func() { apply(d) },
	}
	if err := d.writeCheckpoint(w, testPlace, time.Now()); err != nil {
		t.Fatal(err)
	}
	if d.history.keeping || d.history.kept != nil {
		t.Error("what was passed is kept for ever")
	}
	e, _ := reload(t, w.Bytes())
	apply(e)
	for i := range users {
		tm, _ := e.index.get(criteria("sub", jti(i)).Fingerprint(revocation.Block))
		if tm.expires() != epoch0+60 {
			t.Fatalf("user %d: the loaded entry stands until +%d", i, tm.expires()-epoch0)
		}
	}
}

// TestCheckpointIsBoundedWhileTheFollowerCatchesUp has more decisions ahead of the
// checkpoint's position than one may have.
func TestCheckpointIsBoundedWhileTheFollowerCatchesUp(t *testing.T) {
	for _, own := range []uint64{0, 100} {
		testBoundedCheckpoint(t, own)
	}
}

func testBoundedCheckpoint(t *testing.T, own uint64) {
	t.Helper()
	d, _ := newTest(t, Options{ActorQuota: -1})
	d.SetPosition(position("l", 1))
	for i := range uint64(12_000) {
		d.Revoke(1, block(epoch0+100, "jti", jti(int(i))))
	}
	for i := range own {
		d.Revoke(10_000_000+i, block(epoch0+100, "sid", jti(int(i))))
	}
	w := &writerFunc{first: func() {
		for i := range uint64(maxAhead + 1000) {
			d.Revoke(i+2, block(epoch0+100, "sub", jti(int(i))))
			d.SetPosition(position("l", i+2))
		}
	}}
	if err := d.writeCheckpoint(w, testPlace, time.Now()); err != nil {
		t.Fatal(err)
	}
	c, err := parseCheckpoint(w.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if n := len(c.ahead) / entryBytes; n != maxAhead || c.lost != 1+1000+own {
		t.Errorf("%d decisions are ahead, up to %d are lost", n, c.lost)
	}
	e, _ := newTest(t, Options{ActorQuota: -1})
	e.join(c)
	if e.history.lost != c.lost || len(e.history.ahead) != maxAhead {
		t.Errorf("%d are ahead, up to %d are lost", len(e.history.ahead), e.history.lost)
	}
	var b bytes.Buffer
	if err := e.writeCheckpoint(&b, testPlace, time.Now()); err != nil {
		t.Fatal(err)
	}
	if c, err := parseCheckpoint(b.Bytes()); err != nil || c.lost != e.history.lost {
		t.Errorf("%v", err)
	}
}
