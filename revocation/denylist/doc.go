// Package denylist holds token revocations in memory and answers, for each
// request, whether one of them names the presented token.
//
// Two structures do what each is best at:
//
//   - The index is exact. It maps the fingerprint of a criteria to cutoff, end
//     and sequence in pointer-free tables. Reads take no lock and never wait; an
//     entry is visible to every goroutine when [Denylist.Revoke] returns; nothing
//     leaves before it has ended, except by a restoration with a higher sequence.
//   - The identity cache, ristretto, remembers tokens seen: token to identity
//     and precomputed fingerprints. It may forget anything at any time, which
//     costs the caller another parse. It never holds a verdict: the index is
//     asked for every request, so that a revocation and its undo work at once.
//
// # Order of events
//
// Decisions arrive by two ways: this edge's own endpoint applies one as soon as
// the ledger has acknowledged it, the ledger's follower applies all in order.
// Either may be first. What the denylist says depends on which decisions were
// applied, not on the order: entries merge by taking the later cutoff, the later
// end and the higher sequence, a restoration undoes exactly what has a lower
// sequence than its own, and a decision that a restoration has undone stays
// undone if it arrives late or again.
//
// # Histories
//
// Sequences count in one history of the ledger. A ledger that is created again,
// rolled back or replaced has another one, see [Denylist.NewHistory]: entries
// from before stay until they end, and only a restoration that was decided after
// the change was found undoes them. [Denylist.HeldEntries] yields what has to be
// recorded again.
//
// # Clocks
//
// An entry denies up to and including the second of its end by the wall clock,
// as long as that goes steadily. A step forward, of which nobody knows whether it
// set the clock wrong or right, does not end an entry at once: the clock that
// ends are compared with follows the wall clock with a lag of an hour at most,
// and makes up for it by an eighth of the time that passes.
//
// An entry is deleted an hour after its end, by a clock of its own that wall clock
// steps hardly move: it is never ahead of the wall clock, and advances at most
// twice as fast as monotonic time. A step forward of at most an hour, for however
// long, deletes nothing live, nor does any step that is taken back within an hour.
// After a larger step it takes as long as the step was wide until ended entries
// are deleted again. Where room is short neither is waited for: what has ended by
// the clock that ends are compared with is deleted.
//
// A clock that is ahead for longer, or was so from the start, does delete what is
// live, or does not take it in, but never silently: as soon as the clock steps
// back to when such an entry was live, the denylist is incomplete until that
// entry's end. Checkpoints remember that.
//
// # Bounds
//
// The number of entries, of claims combinations in use, of lookups a token and
// of bytes in the cache are bounded. What cannot be held makes the denylist
// incomplete, see [Denylist.Incomplete], until it would have ended.
package denylist
