package revocation_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

const issuerName = "https://issuer.example"

var decided = time.Date(2026, 5, 1, 12, 0, 0, 500_000_000, time.UTC)

// recorder is a ledger and a denylist that note what happens to them, in order.
type recorder struct {
	events  []string
	refuse  error // of Admit
	lose    error // of the ledger
	decided *revocation.Revocation
	undone  *revocation.Restoration
	recheck *revocation.Recheck

	standing func(*revocation.Revocation) (uint64, bool)
	stands   func() bool
	unsure   error // of Stands
	fits     int   // into one entry; zero: all
	room     int
	sequence uint64
}

func (r *recorder) PublishRevocation(_ context.Context, d *revocation.Revocation) (uint64, error) {
	r.events = append(r.events, "publish")
	r.decided = d
	return 42, r.lose
}

func (r *recorder) PublishRestoration(_ context.Context, d *revocation.Restoration) (uint64, error) {
	r.events = append(r.events, "publish")
	r.undone = d
	return 43, r.lose
}

func (r *recorder) PublishRecheck(_ context.Context, d *revocation.Recheck) (uint64, error) {
	r.events = append(r.events, "publish")
	r.recheck = d
	return 44, r.lose
}

func (r *recorder) Recheck(sequence uint64, issuer string) {
	r.events = append(r.events, fmt.Sprint("recheck ", sequence, " ", issuer))
}

func (r *recorder) Admit(*revocation.Revocation, bool) error {
	r.events = append(r.events, "admit")
	return r.refuse
}

func (r *recorder) Revoke(uint64, *revocation.Revocation)   { r.events = append(r.events, "revoke") }
func (r *recorder) Restore(uint64, *revocation.Restoration) { r.events = append(r.events, "restore") }

func (r *recorder) PublishRevocations(_ context.Context, ds []*revocation.Revocation) (int, uint64, error) {
	n := min(len(ds), cmp.Or(r.fits, len(ds)))
	r.events = append(r.events, fmt.Sprintf("publish(%d)", n))
	r.sequence++
	return n, r.sequence, r.lose
}

func (r *recorder) Standing(d *revocation.Revocation) (uint64, bool) {
	if r.standing == nil {
		return 0, false
	}
	return r.standing(d)
}

func (r *recorder) Stands(_ context.Context, sequence uint64, ds ...*revocation.Revocation) (bool, error) {
	r.events = append(r.events, fmt.Sprintf("stands(%d, %d)", sequence, len(ds)))
	return r.stands == nil || r.stands(), r.unsure
}

func (r *recorder) Room() int { return cmp.Or(r.room, 1000) }

func newService(r *recorder, policy revocation.Policy) *revocation.Service {
	return revocation.NewService(r, r, policy, func() time.Time { return decided })
}

func criteria(pairs ...string) revocation.Criteria {
	c := revocation.Criteria{Issuer: issuerName, Claims: map[string]string{}}
	for i := 0; i < len(pairs); i += 2 {
		c.Claims[pairs[i]] = pairs[i+1]
	}
	return c
}

// Promise 1: acknowledged means durable. Nothing is in force, and nothing is
// answered, before the ledger has it.
func TestDecisionIsInForceOnlyAfterTheLedgerHasIt(t *testing.T) {
	lost := errors.New("lost")
	for name, c := range map[string]struct {
		r    recorder
		want string
		err  error
	}{
		"stored":       {recorder{}, "admit publish revoke", nil},
		"not admitted": {recorder{refuse: revocation.ErrFull}, "admit", revocation.ErrFull},
		"not stored":   {recorder{lose: lost}, "admit publish", lost},
	} {
		receipt, err := newService(&c.r, revocation.Policy{}).Revoke(context.Background(),
			revocation.Request{Criteria: criteria("sub", "alice"), Mode: revocation.IssuedBefore})
		if got := strings.Join(c.r.events, " "); got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %s, error %v; want %s, error %v", name, got, err, c.want, c.err)
		}
		if (receipt.Sequence == 42) != (c.err == nil) {
			t.Errorf("%s: receipt %+v", name, receipt)
		}
	}
}

func TestEachDecisionHasAnIdOfItsOwn(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		r := &recorder{}
		if _, err := newService(r, revocation.Policy{}).Revoke(context.Background(),
			revocation.Request{Criteria: criteria("sub", "alice"), Mode: revocation.IssuedBefore}); err != nil {
			t.Fatal(err)
		}
		if len(r.decided.ID) != 32 || seen[r.decided.ID] {
			t.Fatalf("id %q", r.decided.ID)
		}
		seen[r.decided.ID] = true
	}
}

// Promise 2: a decision ends no earlier than the last token that it names.
func TestDecisionsOutliveTheTokensTheyName(t *testing.T) {
	const day = 24 * time.Hour
	now := decided.Unix()
	long := revocation.Policy{MaxTokenLifetime: func(string) time.Duration { return 30 * day }}
	seconds := func(d time.Duration) int64 { return int64(d / time.Second) }
	for name, c := range map[string]struct {
		policy  revocation.Policy
		request revocation.Request
		cutoff  int64
		expires int64
	}{
		"a token": {
			request: revocation.Request{Criteria: criteria("jti", "1"), TokenExpiry: now + 60},
			expires: now + 60 + seconds(revocation.DefaultLeeway),
		},
		"a token that expired, within the leeway": {
			request: revocation.Request{Criteria: criteria("jti", "1"), TokenExpiry: now - 60},
			expires: now - 60 + seconds(revocation.DefaultLeeway),
		},
		"a token without exp": {
			request: revocation.Request{Criteria: criteria("token", "hash"), TokenExpiry: revocation.NoExpiry},
			expires: now + seconds(revocation.MaxRetention+revocation.DefaultLeeway),
		},
		"a token of unknown exp": {
			request: revocation.Request{Criteria: criteria("jti", "1")},
			expires: now + seconds(revocation.DefaultRetention+revocation.DefaultLeeway),
		},
		"a cutoff": {
			request: revocation.Request{Criteria: criteria("sub", "a"), Mode: revocation.IssuedBefore},
			cutoff:  now + 2,
			expires: now + 2 + seconds(revocation.DefaultRetention+revocation.DefaultLeeway),
		},
		"a cutoff that covers the token presented, by a clock that is ahead": {
			request: revocation.Request{Criteria: criteria("sub", "a"), Mode: revocation.IssuedBefore, TokenIssuedAt: now + 30},
			cutoff:  now + 32,
			expires: now + 32 + seconds(revocation.DefaultRetention+revocation.DefaultLeeway),
		},
		"a cutoff of long-lived tokens": {
			policy:  long,
			request: revocation.Request{Criteria: criteria("sub", "a"), Mode: revocation.AuthenticatedBefore, Lifetime: time.Hour},
			cutoff:  now + 2,
			expires: now + 2 + seconds(30*day+revocation.DefaultLeeway),
		},
		"a cutoff in the past": {
			request: revocation.Request{Criteria: criteria("sub", "a"), Mode: revocation.IssuedBefore, Cutoff: now - 1000},
			cutoff:  now - 1000,
			expires: now + seconds(revocation.DefaultRetention+revocation.DefaultLeeway),
		},
		"a block with a lifetime": {
			request: revocation.Request{Criteria: criteria("sub", "a"), Lifetime: time.Hour},
			expires: now + 3600,
		},
		"a block without": {
			policy:  long,
			request: revocation.Request{Criteria: criteria("sub", "a")},
			expires: now + seconds(30*day+revocation.DefaultLeeway),
		},
	} {
		r := &recorder{}
		receipt, err := newService(r, c.policy).Revoke(context.Background(), c.request)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if r.decided.Cutoff != c.cutoff || r.decided.Expires != c.expires {
			t.Errorf("%s: cutoff %+d, end %+d from now; want %+d, %+d", name,
				r.decided.Cutoff-now, r.decided.Expires-now, c.cutoff-now, c.expires-now)
		}
		if receipt.NewTokensPass != (c.request.Mode != revocation.Block) || receipt.Expires != c.expires {
			t.Errorf("%s: receipt %+v", name, receipt)
		}
	}
}

func TestRequestsThatContradictThemselvesAreRefused(t *testing.T) {
	now := decided.Unix()
	for name, c := range map[string]struct {
		request revocation.Request
		want    error
	}{
		"a token past exp and leeway": {revocation.Request{Criteria: criteria("jti", "1"), TokenExpiry: now - 3600}, revocation.ErrExpired},
		"a block with a cutoff":       {revocation.Request{Criteria: criteria("sub", "a"), Cutoff: now}, revocation.ErrInvalidRequest},
		"a negative lifetime":         {revocation.Request{Criteria: criteria("sub", "a"), Lifetime: -1}, revocation.ErrInvalidRequest},
		"a lifetime beyond any":       {revocation.Request{Criteria: criteria("sub", "a"), Lifetime: 2 * revocation.MaxRetention}, revocation.ErrInvalidRequest},
		"a lifetime for a token":      {revocation.Request{Criteria: criteria("jti", "1"), TokenExpiry: now + 60, Lifetime: 1}, revocation.ErrInvalidRequest},
		"a cutoff in milliseconds": {
			revocation.Request{Criteria: criteria("sub", "a"), Mode: revocation.IssuedBefore, Cutoff: decided.UnixMilli()},
			revocation.ErrInvalidRequest,
		},
		"no issuer":          {revocation.Request{Criteria: revocation.Criteria{}}, revocation.ErrInvalidCriteria},
		"an empty value":     {revocation.Request{Criteria: criteria("sub", "")}, revocation.ErrInvalidCriteria},
		"an empty name":      {revocation.Request{Criteria: criteria("", "a")}, revocation.ErrInvalidCriteria},
		"broken UTF-8":       {revocation.Request{Criteria: criteria("sub", "\xff")}, revocation.ErrInvalidCriteria},
		"an unknown mode":    {revocation.Request{Criteria: criteria("sub", "a"), Mode: 9}, revocation.ErrInvalidRevocation},
		"a reason too long":  {revocation.Request{Criteria: criteria("sub", "a"), Reason: strings.Repeat("x", 257)}, revocation.ErrInvalidRevocation},
		"too many claims":    {revocation.Request{Criteria: criteria("a", "1", "b", "1", "c", "1", "d", "1", "e", "1", "f", "1", "g", "1", "h", "1", "i", "1")}, revocation.ErrInvalidCriteria},
		"a value too long":   {revocation.Request{Criteria: criteria("sub", strings.Repeat("x", 1025))}, revocation.ErrInvalidCriteria},
		"an issuer too long": {revocation.Request{Criteria: revocation.Criteria{Issuer: strings.Repeat("x", 1025)}}, revocation.ErrInvalidCriteria},
	} {
		r := &recorder{}
		_, err := newService(r, revocation.Policy{}).Revoke(context.Background(), c.request)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: error %v, want %v", name, err, c.want)
		}
		if len(r.events) != 0 {
			t.Errorf("%s: %v happened all the same", name, r.events)
		}
	}
}

func TestRestorationIsInForceOnlyAfterTheLedgerHasIt(t *testing.T) {
	r := &recorder{}
	receipt, err := newService(r, revocation.Policy{}).Restore(context.Background(),
		revocation.RestoreRequest{Criteria: criteria("sub", "alice"), Actor: "operator"})
	if got := strings.Join(r.events, " "); got != "publish restore" || err != nil || receipt.Sequence != 43 {
		t.Errorf("%s, receipt %+v, error %v", got, receipt, err)
	}
	// it must stand for as long as anything that it undoes could be read again
	if kept := time.Unix(r.undone.Expires, 0).Sub(decided); kept < revocation.MaxRetention-time.Second {
		t.Errorf("kept for %s only", kept)
	}
	r = &recorder{lose: revocation.ErrUnavailable}
	if _, err := newService(r, revocation.Policy{}).Restore(context.Background(),
		revocation.RestoreRequest{Criteria: criteria("sub", "alice")}); !errors.Is(err, revocation.ErrUnavailable) || len(r.events) != 1 {
		t.Errorf("error %v after %v", err, r.events)
	}
}
