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
// the ledger's sequence, the history that it counts in, and the numbers under
// which this process knows the actor and the shape.
type origin uint64

const (
	shapeBits = 6
	actorBits = 12
	eraBits   = 3

	actorShift    = shapeBits
	eraShift      = actorShift + actorBits
	sequenceShift = eraShift + eraBits

	// maxSequence is beyond reach: a ledger that takes 10,000 entries a second
	// gets there in 28 years.
	maxSequence = 1<<(64-sequenceShift) - 1
)

// era says which history of the ledger an entry is from: a stream that was
// created again or rolled back counts again from where it is, so that its
// sequences cannot be compared with those from before.
//
// The present history has two values, one for entries that are all its own and
// one for those that have also merged with an entry from before. Values take
// turns, so that all entries change from present to before at once.
type era uint8

const (
	eraBefore era = 0 // of any history before the present one
	eraFirst  era = 1
	eraSecond era = 3
)

func (e era) next() era {
	if e == eraFirst {
		return eraSecond
	}
	return eraFirst
}

// mixed is the value of an entry that is from before and from this era.
func (e era) mixed() era { return e + 1 }

// isMixed tells whether e is the mixed value of some era.
func (e era) isMixed() bool { return e != eraBefore && e&1 == 0 }

func newOrigin(sequence uint64, e era, actor, shape int) origin {
	return origin(sequence<<sequenceShift | uint64(e)<<eraShift | uint64(actor)<<actorShift | uint64(shape))
}

func (o origin) sequence() uint64 { return uint64(o >> sequenceShift) }
func (o origin) era() era         { return era(o >> eraShift & (1<<eraBits - 1)) }
func (o origin) actor() int       { return int(o >> actorShift & (1<<actorBits - 1)) }
func (o origin) shape() int       { return int(o & (1<<shapeBits - 1)) }

// at returns o with another place in the ledger.
func (o origin) at(sequence uint64, e era) origin {
	return newOrigin(sequence, e, o.actor(), o.shape())
}

// lost returns o as that of an entry from before the present history. It keeps
// its sequence, by which that history may turn out to have it too, unless that
// is the sequence of a part only.
func (o origin) lost() origin {
	if o.era().isMixed() {
		return o.at(0, eraBefore)
	}
	return o.at(o.sequence(), eraBefore)
}
