package denylist

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// bare returns a denylist without a cache: ristretto's goroutines and files
// would leave a fuzzer a few inputs a second.
func bare() (*Denylist, *testClock) {
	clock := newTestClock()
	o, _ := Options{MaxEntries: 1000, Now: clock.Now}.withDefaults()
	return newDenylist(o), clock
}

// FuzzLoadCheckpoint feeds the loader files whose checksum is right, so that
// everything behind it is reached. A file is refused, or it is loaded and then
// written and loaded again with the same result.
func FuzzLoadCheckpoint(f *testing.F) {
	d, _ := bare()
	write := func(d *Denylist) []byte {
		var b bytes.Buffer
		if err := d.writeCheckpoint(&b, testPlace, time.Now()); err != nil {
			f.Fatal(err)
		}
		return b.Bytes()
	}
	seed := func() {
		b := write(d)
		f.Add(b[:len(b)-sha256.Size])
	}
	seed()
	d.Revoke(1, block(epoch0+100, "jti", "1"))
	r := cutoff(revocation.AuthenticatedBefore, epoch0, epoch0+100, "sub", "a", "tenant", "t")
	r.Actor = "client:app"
	d.Revoke(2, r)
	seed()
	d.SetPosition(revocation.Position{Ledger: "l", Sequence: 2})
	d.Revoke(3, block(epoch0+50, "sid", "s"))
	d.Restore(4, restoration("jti", "1"))
	d.MarkIncomplete("later version", epoch0+9)
	seed()
	d.MarkUnreadable(5, "no JSON", epoch0+20)
	d.NewHistory(revocation.Position{Ledger: "m", Created: time.Unix(9, 0)}, 7)
	d.Revoke(3, block(epoch0+60, "sid", "s"))
	d.MarkUnreadable(6, "no JSON", epoch0+30)
	seed()
	d.limits.max, d.limits.tokens = 1, 1
	d.Revoke(8, block(epoch0+90, "sid", "has no room"))
	d.Revoke(20, cutoff(revocation.IssuedBefore, epoch0, epoch0+80, "sub", "a"))
	d.history.lost = 15
	seed()
	d.NewHistory(revocation.Position{Ledger: "n", Created: time.Unix(10, 0)}, 30)
	seed()
	f.Add([]byte(checkpointMagic))
	f.Add([]byte{})

	f.Fuzz(func(t *testing.T, body []byte) {
		sum := sha256.Sum256(body)
		c, err := parseCheckpoint(append(slices.Clone(body), sum[:]...))
		if err != nil {
			if !errors.Is(err, ErrCheckpoint) {
				t.Fatal(err)
			}
			return
		}
		d, clock := bare()
		d.join(c)
		var b bytes.Buffer
		if err := d.writeCheckpoint(&b, testPlace, time.Now()); err != nil {
			t.Fatal(err)
		}
		again, err := parseCheckpoint(b.Bytes())
		if err != nil {
			t.Fatalf("what was loaded and written can not be loaded: %v", err)
		}
		e, _ := bare()
		e.join(again)
		p, q := d.Position(), e.Position()
		if !q.Created.Equal(p.Created) || !q.Stored.Equal(p.Stored) || q.Ledger != p.Ledger || q.Sequence != p.Sequence {
			t.Fatalf("%+v became %+v", p, q)
		}
		_, until, _ := d.Incomplete(clock.Now())
		_, untilAgain, _ := e.Incomplete(clock.Now())
		if d.index.live != e.index.live || until != untilAgain || d.before != e.before {
			t.Fatalf("%d entries until %d became %d until %d", d.index.live, until, e.index.live, untilAgain)
		}
		held := map[revocation.Fingerprint]uint64{}
		for sequence, h := range d.HeldEntries() {
			held[h.Fingerprint] = sequence
		}
		for sequence, h := range e.HeldEntries() {
			if was, ok := held[h.Fingerprint]; !ok || was != sequence {
				t.Fatalf("%+v was at %d and is at %d", h, was, sequence)
			}
			delete(held, h.Fingerprint)
		}
		if len(held) > 0 {
			t.Fatalf("lost: %v", held)
		}
	})
}

// FuzzFingerprintsOfDifferentCriteriaDiffer cuts two strings into issuer, names
// and values at any place: where the parts differ, so do the fingerprints, and
// one criteria's block denies nobody that only the other one names.
func FuzzFingerprintsOfDifferentCriteriaDiffer(f *testing.F) {
	f.Add("issuer", "sub", "x", "team", "x", uint8(0), uint8(0))
	f.Add("issuer", "a", "bc", "ab", "c", uint8(0), uint8(1))
	f.Add("i", "sub\x00", "x", "sub", "\x00x", uint8(1), uint8(2))
	f.Add("i", "\x01a\x01b", "c", "a", "b\x01c", uint8(2), uint8(2))
	f.Fuzz(func(t *testing.T, issuer, name1, value1, name2, value2 string, m1, m2 uint8) {
		a := revocation.Criteria{Issuer: issuer, Claims: map[string]string{name1: value1}}
		b := revocation.Criteria{Issuer: issuer, Claims: map[string]string{name2: value2}}
		both := revocation.Criteria{Issuer: issuer, Claims: map[string]string{name1: value1, name2: value2}}
		none := revocation.Criteria{Issuer: issuer + name1 + value1}
		mode1, mode2 := revocation.Mode(m1%3), revocation.Mode(m2%3)
		seen := map[revocation.Fingerprint]string{}
		for _, c := range []revocation.Criteria{a, b, both, none} {
			for _, mode := range []revocation.Mode{mode1, mode2} {
				what := c.String() + mode.String()
				print := c.Fingerprint(mode)
				if was, ok := seen[print]; ok && was != what {
					t.Fatalf("%s and %s have one fingerprint", was, what)
				}
				seen[print] = what
			}
		}
		r := &revocation.Revocation{ID: "x", Criteria: a, Expires: epoch0 + 10}
		if r.Validate() != nil || name1 == name2 && value1 == value2 {
			return
		}
		d, _ := bare()
		d.Revoke(1, r)
		if id := identity(name2, value2); issuer == testIssuer && d.Check(id).Denied {
			t.Fatalf("%s denies %+v", a, id)
		}
		id := identity(name1, value1)
		id.Issuer = issuer
		if !d.Check(id).Denied {
			t.Fatalf("%s does not deny %+v", a, id)
		}
	})
}
