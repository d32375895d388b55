package caddymodule

import (
	"context"

	"github.com/edge-revocation/caddy-token-revocation/revocation/ledger"
)

// reseed writes what this edge holds, and its ledger lost, to the ledger.
func (r *replica) reseed(ctx context.Context) (ledger.Reseeded, error) {
	f := r.following.Load()
	if f.follower == nil {
		return ledger.Reseeded{}, errNotFollowing
	}
	return f.follower.Reseed(ctx, r.denylist)
}

// acknowledge ends, for the whole fleet, what an unreadable entry caused.
func (r *replica) acknowledge(ctx context.Context, sequence uint64, reason string) (uint64, error) {
	var at uint64
	err := r.onLedger(func(l *ledger.Ledger) (err error) {
		at, err = l.PublishAcknowledgment(ctx, sequence, reason, "operator")
		return err
	})
	if err == nil {
		r.denylist.Acknowledge(sequence)
	}
	return at, err
}
