package denylist

import (
	"math"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// term is the part of an entry that decides: the second of its end in the upper
// 32 bits and its cutoff in the lower, both Unix time without sign, which lasts
// until 2106. The largest value of each means "for ever" and "all tokens": what
// is beyond the range is rounded to the strict side. Zero is no entry; an entry
// always has an end.
type term uint64

const forever = math.MaxUint32

func newTerm(expires, cutoff int64) term {
	return term(clamp(expires)<<32 | clamp(cutoff))
}

func clamp(seconds int64) uint64 {
	return uint64(min(max(seconds, 0), forever))
}

func (t term) expires() int64 {
	if t>>32 == forever {
		return math.MaxInt64
	}
	return int64(t >> 32)
}

func (t term) cutoff() int64 {
	if t&forever == forever {
		return math.MaxInt64
	}
	return int64(t & forever)
}

// merge takes the later end and the later cutoff: whatever the order in which
// entries arrive, nothing that one of them denies gets through.
func (t term) merge(u term) term {
	return max(t>>32, u>>32)<<32 | max(t&forever, u&forever)
}

// covers tells whether t denies at least what u denies.
func (t term) covers(u term) bool { return t.merge(u) == t }

// denies judges an identity that the entry names.
func (t term) denies(mode revocation.Mode, id *revocation.Identity, now int64) bool {
	if t == 0 || now > t.expires() {
		return false
	}
	switch mode {
	case revocation.IssuedBefore:
		// Issued in the same second as the cutoff: perhaps before it. An iat
		// of zero is a missing one, and below every cutoff.
		return id.IssuedAt <= t.cutoff()
	case revocation.AuthenticatedBefore:
		return id.AuthTime <= t.cutoff()
	default:
		return true
	}
}

// origin is the part of an entry that is needed to undo and to account for it:
// the ledger's sequence, and the numbers under which this process knows the
// actor and the shape.
type origin uint64

const (
	shapeBits = 6
	actorBits = 12

	// maxSequence is beyond reach: a ledger that takes 100,000 entries a
	// second gets there in 22 years.
	maxSequence = 1<<(64-shapeBits-actorBits) - 1
)

func newOrigin(sequence uint64, actor, shape int) origin {
	return origin(sequence<<(shapeBits+actorBits) | uint64(actor)<<shapeBits | uint64(shape))
}

func (o origin) sequence() uint64 { return uint64(o >> (shapeBits + actorBits)) }
func (o origin) actor() int       { return int(o >> shapeBits & (1<<actorBits - 1)) }
func (o origin) shape() int       { return int(o & (1<<shapeBits - 1)) }

func (o origin) withSequence(sequence uint64) origin {
	return newOrigin(sequence, o.actor(), o.shape())
}
