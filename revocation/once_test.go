package revocation_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// A token that a decision denies already moves nothing, and in doubt no more than
// what reaches that token.
func TestOnceDoesNotMoveWhatReachesTheToken(t *testing.T) {
	const keep = int64((revocation.DefaultRetention + revocation.DefaultLeeway) / time.Second)
	now := decided.Unix()
	issued := now - 5000
	for name, c := range map[string]struct {
		mode          revocation.Mode
		issued        int64
		found, proven bool
		probe         int64 // cutoff that is asked for
		probeEnd      int64
		cutoff        int64 // recorded; zero: nothing, or a block
		records       bool
	}{
		"nothing stands":             {revocation.IssuedBefore, issued, false, true, issued, issued + keep, now + 2, true},
		"it stands":                  {revocation.IssuedBefore, issued, true, true, issued, issued + keep, 0, false},
		"it stands, in doubt":        {revocation.IssuedBefore, issued, true, false, issued, issued + keep, issued, true},
		"any will do without an iat": {revocation.IssuedBefore, 0, true, true, 1, 1 + keep, 0, false},
		"a block stands":             {revocation.Block, issued, true, true, 0, issued + keep, 0, false},
		"a block does not":           {revocation.Block, issued, false, true, 0, issued + keep, 0, true},
	} {
		r := &recorder{stands: func() bool { return c.proven }}
		r.standing = func(d *revocation.Revocation) (uint64, bool) {
			if d.Cutoff != c.probe || d.Expires != c.probeEnd || d.Mode != c.mode {
				t.Errorf("%s: asked for %+v", name, d)
			}
			return 7, c.found
		}
		receipt, err := newService(r, revocation.Policy{}).Revoke(context.Background(), revocation.Request{
			Criteria: criteria("sub", "alice"), Mode: c.mode, TokenIssuedAt: c.issued, Once: true,
		})
		if err != nil || receipt.Stood == c.records || (r.decided != nil) != c.records {
			t.Errorf("%s: receipt %+v, error %v, recorded %+v", name, receipt, err, r.decided)
			continue
		}
		if r.decided != nil && (r.decided.Cutoff != c.cutoff || r.decided.Expires < now+keep) {
			t.Errorf("%s: recorded %+v", name, r.decided)
		}
	}
	for _, req := range []revocation.Request{{Cutoff: now, Once: true}, {Lifetime: time.Hour, Once: true}} {
		req.Criteria, req.Mode = criteria("sub", "alice"), revocation.IssuedBefore
		if _, err := newService(&recorder{}, revocation.Policy{}).Revoke(context.Background(), req); !errors.Is(err, revocation.ErrInvalidRequest) {
			t.Errorf("%+v: %v", req, err)
		}
	}
}
