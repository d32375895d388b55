package ledger

import (
	"context"
	"fmt"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// PublishRevocations stores as many of rs as fit into one message, from the first
// on, and returns after the server has acknowledged it: n of them are recorded,
// at the sequence that they share, and kept for as long as the one that ends
// last. The caller goes on with the rest. On an error, which is one of those of
// [Ledger.PublishRevocation], none of the first n is recorded.
func (l *Ledger) PublishRevocations(ctx context.Context, rs []*revocation.Revocation) (n int, sequence uint64, err error) {
	if len(rs) == 0 {
		return 0, 0, errNothing
	}
	data, n, err := pack(len(rs), func(i int) (any, error) {
		if err := rs[i].Validate(); err != nil {
			return nil, err
		}
		w := wireRevocation(rs[i])
		w.Version = 0 // the message's
		err := w.prepare()
		return w, err
	})
	if err != nil || n == 1 {
		// The plain form is a little smaller; and it says what is wrong.
		sequence, err := l.PublishRevocation(ctx, rs[0])
		return 1, sequence, err
	}
	var expires int64
	for _, r := range rs[:n] {
		expires = max(expires, r.Expires)
	}
	sequence, err = l.publish(ctx, message{
		kind: KindEntry, id: randomID(), data: data, ttl: messageTTL(expires, l.now(), l.o.MaxClockSkew),
	})
	return n, sequence, err
}

var errNothing = fmt.Errorf("%w: nothing to record", revocation.ErrInvalidRequest)
