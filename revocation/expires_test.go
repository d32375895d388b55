package revocation_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// A request that says when it ends is the same whenever it is made, and never
// ends a cutoff early.
func TestARequestMaySayWhenItEnds(t *testing.T) {
	const day = 24 * time.Hour
	end := decided.Add(20 * day).Unix()
	for name, request := range map[string]revocation.Request{
		"a token":             {Criteria: criteria("jti", "1"), Expires: end},
		"a token, by its exp": {Criteria: criteria("jti", "1"), TokenExpiry: end - 300},
		"a block":             {Criteria: criteria("sub", "a"), Expires: end},
		"a cutoff":            {Criteria: criteria("sub", "a"), Mode: revocation.IssuedBefore, Cutoff: decided.Unix(), Expires: end},
	} {
		for _, later := range []time.Duration{0, time.Second, 10 * day} {
			r := &recorder{}
			s := revocation.NewService(r, r, revocation.Policy{}, func() time.Time { return decided.Add(later) })
			receipt, err := s.Revoke(context.Background(), request)
			if err != nil || receipt.Expires != end || r.decided.Expires != end {
				t.Errorf("%s, %s later: ends at %+d, %v", name, later, receipt.Expires-end, err)
			}
		}
	}
	r := &recorder{}
	early := revocation.Request{Criteria: criteria("sub", "a"), Mode: revocation.IssuedBefore, Expires: decided.Unix() + 60}
	receipt, err := newService(r, revocation.Policy{}).Revoke(context.Background(), early)
	if err != nil || receipt.Expires < decided.Add(revocation.DefaultRetention).Unix() {
		t.Errorf("a cutoff ends before the tokens that it denies: %+v, %v", receipt, err)
	}
}

func TestAnEndThatMakesNoSenseIsRefused(t *testing.T) {
	now := decided.Unix()
	for name, c := range map[string]struct {
		request revocation.Request
		want    error
	}{
		"past":                 {revocation.Request{Expires: now - 1}, revocation.ErrExpired},
		"now":                  {revocation.Request{Expires: now}, revocation.ErrExpired},
		"negative":             {revocation.Request{Expires: -1}, revocation.ErrInvalidRequest},
		"in milliseconds":      {revocation.Request{Expires: decided.UnixMilli()}, revocation.ErrInvalidRequest},
		"with a lifetime":      {revocation.Request{Expires: now + 60, Lifetime: time.Hour}, revocation.ErrInvalidRequest},
		"with a token's":       {revocation.Request{Expires: now + 60, TokenExpiry: now + 60}, revocation.ErrInvalidRequest},
		"of what is said once": {revocation.Request{Expires: now + 60, Once: true}, revocation.ErrInvalidRequest},
	} {
		r := &recorder{}
		c.request.Criteria = criteria("jti", "1")
		if _, err := newService(r, revocation.Policy{}).Revoke(context.Background(), c.request); !errors.Is(err, c.want) || len(r.events) > 0 {
			t.Errorf("%s: %v, %v", name, err, r.events)
		}
	}
}
