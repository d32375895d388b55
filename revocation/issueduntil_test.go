package revocation_test

import (
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// A block on a grant ends when the last token ends that its refresh token can still
// bring; a cutoff, which does not reach those, is kept as ever.
func TestABlockOutlivesTheTokensThatCanStillBeIssued(t *testing.T) {
	const day = int64(86400)
	now, leeway := decided.Unix(), int64(300)
	for _, tt := range []struct {
		name   string
		mode   revocation.Mode
		claim  string
		until  int64
		expect int64 // seconds from now
	}{
		{"for a month", revocation.Block, "sid", now + 30*day, 37*day + leeway},
		{"for a moment", revocation.Block, "sid", now + 1, 7*day + 1 + leeway},
		{"over", revocation.Block, "sid", now - 1, 7*day + leeway},
		{"not known", revocation.Block, "sid", 0, 7*day + leeway},
		{"for longer than anything is kept", revocation.Block, "sid", now + 4000*day, 3650*day + leeway},
		{"without an end", revocation.Block, "sid", revocation.NoExpiry, 3650*day + leeway},
		{"a cutoff", revocation.IssuedBefore, "sub", now + 30*day, 7*day + leeway + 2},
		{"one token", revocation.Block, "jti", now + 30*day, day + leeway},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := new(recorder)
			s := revocation.NewService(r, r, revocation.Policy{}, func() time.Time { return decided })
			req := revocation.Request{
				Criteria: revocation.Criteria{Issuer: issuerName, Claims: map[string]string{tt.claim: "x"}},
				Mode:     tt.mode, IssuedUntil: tt.until,
			}
			if tt.claim == "jti" {
				req.TokenExpiry = now + day
			}
			receipt, err := s.Revoke(t.Context(), req)
			if err != nil || receipt.Expires != now+tt.expect {
				t.Errorf("%v; ends %d s from now, want %d", err, receipt.Expires-now, tt.expect)
			}
		})
	}
}

// Presented again, the refresh token finds its block standing, also much later.
func TestABlockOnAGrantIsRecordedOnce(t *testing.T) {
	for _, until := range []int64{decided.Unix() + 30*86400, revocation.NoExpiry} {
		r := new(recorder)
		clock := decided
		s := revocation.NewService(r, r, revocation.Policy{}, func() time.Time { return clock })
		req := revocation.Request{
			Criteria: revocation.Criteria{Issuer: issuerName, Claims: map[string]string{"sid": "x"}},
			Mode:     revocation.Block, IssuedUntil: until, Once: true, TokenIssuedAt: decided.Unix() - 3600,
		}
		first, err := s.Revoke(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		r.standing = func(d *revocation.Revocation) (uint64, bool) { return first.Sequence, d.Expires <= first.Expires }
		r.stands = func() bool { return true }
		clock = clock.Add(20 * 24 * time.Hour)
		if again, err := s.Revoke(t.Context(), req); err != nil || !again.Stood {
			t.Errorf("until %d: %+v, %v", until, again, err)
		}
	}
}
