package denylist

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

func TestCheckpointKeepsAllOfThePosition(t *testing.T) {
	d, clock := newTest(t, Options{})
	path := filepath.Join(t.TempDir(), "checkpoint")
	want := revocation.Position{
		Ledger: "l", Created: time.Unix(1, 2).UTC(), Sequence: 9, Stored: time.Unix(3, 4).UTC(), Latest: time.Unix(5, 6).UTC(),
		Witness: 7, WitnessStored: time.Unix(7, 8).UTC(), WitnessEnds: time.Unix(9, 10).UTC(),
	}
	d.SetPosition(want)
	if err := d.WriteCheckpoint(path, testPlace, clock.Now()); err != nil {
		t.Fatal(err)
	}
	e, _ := newTest(t, Options{})
	got, _, err := e.LoadCheckpoint(path, testPlace)
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
