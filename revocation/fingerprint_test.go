package revocation_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// Promise 7: no two criteria share a fingerprint, whatever their parts are.
func TestDifferentCriteriaHaveDifferentFingerprints(t *testing.T) {
	// parts that would meet if they were joined, or if names did not count
	part := rapid.SampledFrom([]string{"a", "b", "ab", "a\x01b", "|", "a|b", "\x00", "sub", "jti", "sub=a", ",", "aa"})
	draw := rapid.Custom(func(t *rapid.T) revocation.Criteria {
		return revocation.Criteria{
			Issuer: part.Draw(t, "issuer"),
			Claims: rapid.MapOfN(part, part, 0, 3).Draw(t, "claims"),
		}
	})
	modes := rapid.SampledFrom([]revocation.Mode{revocation.Block, revocation.IssuedBefore, revocation.AuthenticatedBefore})
	rapid.Check(t, func(t *rapid.T) {
		a, b := draw.Draw(t, "a"), draw.Draw(t, "b")
		m, n := modes.Draw(t, "mode of a"), modes.Draw(t, "mode of b")
		same := a.String() == b.String() && m == n
		if (a.Fingerprint(m) == b.Fingerprint(n)) != same {
			t.Fatalf("%s under %s and %s under %s", a, m, b, n)
		}
	})
}

// The layout is part of checkpoints: it must not change unnoticed.
func TestFingerprintIsStable(t *testing.T) {
	c := revocation.Criteria{Issuer: "https://issuer.example", Claims: map[string]string{"sub": "alice", "client_id": "app"}}
	if got := c.Fingerprint(revocation.IssuedBefore).String(); got != "c16fa3d0f590986b253789e1d587f875" {
		t.Errorf("fingerprint %s: the domain string must name another layout if this is meant", got)
	}
}

func TestFingerprintOfLongPartsIsRight(t *testing.T) {
	long := strings.Repeat("x", revocation.MaxClaimValue)
	c := revocation.Criteria{Issuer: long, Claims: map[string]string{"sub": long}}
	names, values := []string{"sub"}, []string{long}
	if c.Fingerprint(revocation.Block) != revocation.FingerprintOf(long, revocation.Block, names, values) {
		t.Error("two ways, two fingerprints")
	}
	values[0] = long[1:]
	if c.Fingerprint(revocation.Block) == revocation.FingerprintOf(long, revocation.Block, names, values) {
		t.Error("a value one byte shorter has the same fingerprint")
	}
}

func TestIdentityValues(t *testing.T) {
	id := revocation.Identity{Claims: []revocation.Claim{
		{Name: "roles", Value: "b"}, {Name: "sub", Value: "alice"}, {Name: "jti", Value: "1"}, {Name: "roles", Value: "a"},
	}}
	revocation.SortClaims(id.Claims)
	if got := id.Values("roles"); len(got) != 2 || got[0].Value != "a" || got[1].Value != "b" {
		t.Errorf("roles: %v", got)
	}
	if got := id.Values("absent"); len(got) != 0 {
		t.Errorf("absent: %v", got)
	}
	if _, one := id.Value("roles"); one {
		t.Error("an array has one value")
	}
	if v, one := id.Value("sub"); !one || v != "alice" {
		t.Errorf("sub: %q, %v", v, one)
	}
	if c, ok := id.TokenCriteria(); !ok || c.Claims["jti"] != "1" || !c.NamesOneToken() {
		t.Errorf("criteria %v, %v", c, ok)
	}
	hashed := revocation.Identity{Issuer: "x", Claims: []revocation.Claim{{Name: "token", Value: "hash"}}}
	if c, ok := hashed.TokenCriteria(); !ok || c.Claims["token"] != "hash" {
		t.Errorf("criteria without jti %v, %v", c, ok)
	}
	if _, ok := (&revocation.Identity{Issuer: "x"}).TokenCriteria(); ok {
		t.Error("a token without jti and hash can be named")
	}
}

// FuzzCriteria holds that validation never panics and that what it accepts has a
// fingerprint of its own.
func FuzzCriteria(f *testing.F) {
	f.Add("https://issuer.example", "sub", "alice")
	f.Add("", "", "\xff")
	f.Fuzz(func(t *testing.T, issuer, name, value string) {
		c := revocation.Criteria{Issuer: issuer, Claims: map[string]string{name: value}}
		if c.Validate() != nil {
			return
		}
		other := revocation.Criteria{Issuer: issuer, Claims: map[string]string{name + value: value}}
		if c.Fingerprint(revocation.Block) == other.Fingerprint(revocation.Block) {
			t.Fatalf("%s and %s", c, other)
		}
	})
}
