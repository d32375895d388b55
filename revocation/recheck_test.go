package revocation_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
)

func TestRecheckIsInForceOnlyAfterTheLedgerHasIt(t *testing.T) {
	ids := map[string]bool{}
	for range 2 {
		r := &recorder{}
		receipt, err := newService(r, revocation.Policy{}).Recheck(context.Background(),
			revocation.RecheckRequest{Issuer: issuerName, Reason: "opaque", Actor: "client:app"})
		if got := strings.Join(r.events, "; "); got != "publish; recheck 44 "+issuerName || err != nil {
			t.Errorf("%s, error %v", got, err)
		}
		if d := r.recheck; len(d.ID) != 32 || ids[d.ID] || d.Issuer != issuerName || d.Reason != "opaque" || d.Actor != "client:app" || d.DecidedAt != decided.UnixMilli() {
			t.Errorf("recorded %+v", d)
		}
		ids[r.recheck.ID] = true
		if receipt.ID != r.recheck.ID || receipt.Sequence != 44 || receipt.Expires != decided.Add(revocation.MaxIntrospectionAge).Unix() {
			t.Errorf("receipt %+v", receipt)
		}
	}
	for _, lost := range []error{revocation.ErrUnavailable, revocation.ErrFull} {
		r := &recorder{lose: lost}
		_, err := newService(r, revocation.Policy{}).Recheck(context.Background(), revocation.RecheckRequest{Issuer: issuerName})
		if got := strings.Join(r.events, "; "); got != "publish" || !errors.Is(err, lost) {
			t.Errorf("%s, error %v", got, err)
		}
	}
}

func TestARecheckThatNobodyCouldReadIsNotPublished(t *testing.T) {
	for name, c := range map[string]struct {
		request revocation.RecheckRequest
		want    error
	}{
		"no issuer":               {revocation.RecheckRequest{}, revocation.ErrInvalidCriteria},
		"an issuer too long":      {revocation.RecheckRequest{Issuer: strings.Repeat("x", revocation.MaxIssuer+1)}, revocation.ErrInvalidCriteria},
		"an issuer of wrong code": {revocation.RecheckRequest{Issuer: "\xff"}, revocation.ErrInvalidCriteria},
		"a reason too long":       {revocation.RecheckRequest{Issuer: "x", Reason: strings.Repeat("x", revocation.MaxReason+1)}, revocation.ErrInvalidRevocation},
		"an actor of wrong code":  {revocation.RecheckRequest{Issuer: "x", Actor: "\xff"}, revocation.ErrInvalidRevocation},
	} {
		r := &recorder{}
		if _, err := newService(r, revocation.Policy{}).Recheck(context.Background(), c.request); !errors.Is(err, c.want) || len(r.events) > 0 {
			t.Errorf("%s: %v, %v", name, r.events, err)
		}
	}
}

// The ledger forgets a recheck when no answer can be older any more.
func TestNoIntrospectionIsKeptForLongerThanARecheckReaches(t *testing.T) {
	if issuer.MaxIntrospectionTTL > revocation.MaxIntrospectionAge {
		t.Errorf("answers are kept for %s, the ledger knows of %s", issuer.MaxIntrospectionTTL, revocation.MaxIntrospectionAge)
	}
}
