package caddymodule

import (
	"context"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
)

// usedAssertions remembers client assertions in the ledger that is followed, so
// that one which was used at this edge works at no other.
type usedAssertions struct{ replica *replica }

// UseOnce implements oauth.AssertionStore.
func (s usedAssertions) UseOnce(ctx context.Context, key string, ttl time.Duration) (first bool, err error) {
	return s.replica.useOnce(ctx, key, ttl)
}

// Interface guard
var _ oauth.AssertionStore = usedAssertions{}
