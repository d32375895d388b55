package denylist

import (
	"math/rand/v2"
	"testing"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// TestOwnDecisionSurvivesTheFollowersCatchingUp is about a decision that this
// edge's endpoint applied long before the follower gets there: a restoration that
// the follower brings undoes what is older, and leaves that decision alone.
func TestOwnDecisionSurvivesTheFollowersCatchingUp(t *testing.T) {
	d, _ := newTest(t, Options{ActorQuota: -1})
	d.SetPosition(position("l", 0))
	d.Revoke(1, block(epoch0+9000, "sub", "own"))
	d.SetPosition(position("l", 1))
	d.Revoke(1_000_000, block(epoch0+60, "sub", "own"))
	sequence := uint64(1)
	for range maxAhead + 1000 {
		sequence++
		d.Revoke(sequence, block(epoch0+3600, "jti", jti(int(sequence))))
		d.SetPosition(position("l", sequence))
	}
	if n := len(d.history.ahead); n != 1 {
		t.Errorf("%d decisions are ahead", n)
	}
	d.Restore(sequence+1, restoration("sub", "own"))
	tm, _ := d.index.get(criteria("sub", "own").Fingerprint(revocation.Block))
	if tm.expires() != epoch0+60 {
		t.Errorf("after the restoration it stands until +%d", tm.expires()-epoch0)
	}
}

// TestAheadDropsTheLowest compares what is remembered with a sorted list.
func TestAheadDropsTheLowest(t *testing.T) {
	var h history
	rng := rand.New(rand.NewPCG(6, 6))
	sequences := rng.Perm(maxAhead + 500)
	for _, s := range sequences {
		h.applied(revocation.Fingerprint{}, uint64(s+1), 1)
	}
	if len(h.ahead) != maxAhead || h.lost != 500 {
		t.Fatalf("%d are remembered, up to %d are lost", len(h.ahead), h.lost)
	}
	if _, _, ok := h.since(revocation.Fingerprint{}, 499); ok {
		t.Error("what is lost passes for all there is")
	}
	if _, last, ok := h.since(revocation.Fingerprint{}, 500); !ok || last != maxAhead+500 {
		t.Errorf("%d, %t", last, ok)
	}
	for passed := uint64(500); passed <= maxAhead+500; passed += 1 + rng.Uint64N(2000) {
		h.passed(passed)
		if n := len(h.ahead); n != int(maxAhead+500-passed) {
			t.Fatalf("%d are left after %d", n, passed)
		}
	}
	if h.passed(maxAhead + 500); len(h.ahead) != 0 || h.newest() != 0 {
		t.Errorf("%d are left", len(h.ahead))
	}
}

// TestRestorationsAreForgottenInStrides bounds for how long others must wait.
func TestRestorationsAreForgottenInStrides(t *testing.T) {
	var h history
	print := func(i int) (f revocation.Fingerprint) { f[0], f[1], f[2] = byte(i), byte(i>>8), byte(i>>16); return f }
	const n = 3*expireStride + 5
	for i := range n {
		h.undo(print(i), uint64(i+1), 0)
	}
	for left := n; left > 0; {
		h.expire(lateSeconds, n)
		if left = max(left-expireStride, 0); len(h.order) != left || len(h.undone) != left {
			t.Fatalf("%d of %d are left, not %d", len(h.order), n, left)
		}
	}
	if h.undone != nil {
		t.Error("the memory is kept")
	}
}
