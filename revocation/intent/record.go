package intent

import (
	"context"
	"errors"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// Revoker makes a revocation durable; [revocation.Service] is one.
type Revoker interface {
	Revoke(ctx context.Context, req revocation.Request) (revocation.Receipt, error)
}

// Recorded is a request of an intent with what became of it.
type Recorded struct {
	Request revocation.Request
	Receipt revocation.Receipt
}

// prompt is how late a cutoff of "now" may still be one.
const prompt = 5 * time.Second

// RecordAll records the requests of i in their order, and returns those that are
// durable. The error is the first one of the revoker, or nil; a retry records
// again what was recorded already, which changes nothing. [revocation.ErrExpired]
// of a request means that there is nothing left to record for it, and is none.
//
// A cutoff stays at the moment of the client's request, however late it is
// recorded: who logged in anew after it is not cut off. Skew is the issuer's, see
// [revocation.Policy].
func RecordAll(ctx context.Context, to Revoker, i *Intent, now time.Time, skew time.Duration) ([]Recorded, error) {
	late := now.Sub(i.Made) > prompt
	stood := false
	var done []Recorded
	for _, req := range i.Requests {
		switch {
		case req.Mode != revocation.Block && req.Cutoff == 0 && late:
			req.Cutoff = max(i.Made.Unix(), req.TokenIssuedAt) + int64(max(skew, 0)/time.Second)
			req.Once = false // which goes with a cutoff of now only
		case req.Once && req.TokenIssuedAt == 0:
			// As the revocation endpoint has it: a token whose iat says nothing
			// must not move a cutoff as often as it is presented.
			req.Once = stood
		}
		receipt, err := to.Revoke(ctx, req)
		switch {
		case err == nil:
			stood = stood || receipt.Stood
			done = append(done, Recorded{Request: req, Receipt: receipt})
		case errors.Is(err, revocation.ErrExpired):
		default:
			return done, err
		}
	}
	return done, nil
}

// hopeless tells whether no retry can record what was refused with err.
func hopeless(err error) bool {
	return errors.Is(err, revocation.ErrInvalidRequest) || errors.Is(err, revocation.ErrInvalidCriteria) ||
		errors.Is(err, revocation.ErrInvalidRevocation)
}
