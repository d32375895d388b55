package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// wireRecheck is the JSON of a recheck.
type wireRecheck struct {
	Version   int    `json:"v"`
	ID        string `json:"id,omitempty"`
	Issuer    string `json:"issuer"`
	Reason    string `json:"reason,omitempty"`
	Actor     string `json:"actor,omitempty"`
	DecidedAt int64  `json:"decided_at,omitempty"`
}

// PublishRecheck is [Ledger.PublishRevocation] for a recheck. Like a client's
// revocation, it is refused when the ledger is nearly full.
func (l *Ledger) PublishRecheck(ctx context.Context, r *revocation.Recheck) (uint64, error) {
	data, err := encodeRecheck(r)
	if err != nil {
		return 0, err
	}
	if l.NearlyFull() {
		return 0, fmt.Errorf("%w: the rest of it is for operators", revocation.ErrFull)
	}
	if err := l.covers(KindRecheck.Subject(), SubjectPrefix+"*"); err != nil {
		return 0, fmt.Errorf("%w: %w", revocation.ErrUnavailable, err)
	}
	return l.publish(ctx, message{kind: KindRecheck, id: r.ID, data: data, ttl: l.recheckTTL()})
}

// recheckTTL is how long the server has to keep a recheck: an edge that was cut
// off may rely on what it was told just before that for as long.
func (l *Ledger) recheckTTL() time.Duration {
	return messageTTL(int64(revocation.MaxIntrospectionAge/time.Second), time.Unix(0, 0), l.o.MaxClockSkew)
}

func encodeRecheck(r *revocation.Recheck) ([]byte, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	return encode(wireRecheck{
		Version: PayloadVersion, ID: r.ID, Issuer: r.Issuer, Reason: r.Reason, Actor: r.Actor, DecidedAt: r.DecidedAt,
	})
}

// decodeRecheck reads a recheck. Its error is a [VersionError] or wraps
// [ErrPayload]; neither quotes the entry.
func decodeRecheck(data []byte) (*revocation.Recheck, error) {
	rec, err := decode(data)
	if err != nil {
		return nil, err
	}
	// What looks narrower is not understood, rather than carried out too widely
	// or not at all.
	if other := rec.has &^ hasIssuer; other != 0 {
		return nil, fmt.Errorf("%w: a recheck with the member %s", ErrPayload, other.first())
	}
	if err := rec.require(hasIssuer); err != nil {
		return nil, err
	}
	r := &revocation.Recheck{ID: rec.id, Issuer: rec.issuer, Reason: rec.reason, Actor: rec.actor, DecidedAt: rec.decidedAt}
	return r, validated(r, &r.ID)
}
