package denylist

import (
	"cmp"
	"slices"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

const (
	maxUndone = 1 << 16 * modes
	maxAhead  = 1 << 16
	// lateSeconds is how long after its acknowledgment a decision may still be
	// applied by the endpoint that made it. Seconds would do: publishing has a
	// deadline, and then only the scheduler is in between.
	lateSeconds = 600
	// expireStride is how many restorations are dropped in one go.
	expireStride = 2048
)

// history makes the order in which decisions arrive irrelevant. It remembers
// two things for as long as they can matter, which is usually milliseconds:
// restorations, to ignore an older decision that arrives late; and decisions
// that arrived ahead of the follower, to undo what lies before a restoration
// that the follower brings later, but not them.
//
// Both are bounded. Beyond the bounds the index errs on the side of denying.
type history struct {
	undone map[revocation.Fingerprint]undone // a restoration is one for each mode
	order  []undoneAt                        // oldest first

	ahead []aheadEntry // a heap, the lowest sequence first
	lost  uint64       // highest sequence among those that there was no room for

	// While a checkpoint is written, what the follower passes is kept: entries in
	// the file may have merged with it, and whoever loads it has not passed it.
	keeping bool
	kept    []aheadEntry // in the order in which they were passed
	unkept  uint64       // highest sequence among those that kept had no room for
}

type undone struct {
	sequence uint64
	at       int64 // seconds of the purge clock
}

type undoneAt struct {
	print    revocation.Fingerprint
	sequence uint64
}

type aheadEntry struct {
	print    revocation.Fingerprint
	sequence uint64
	term     term
}

// isUndone tells whether a restoration undid the decision with this sequence.
func (h *history) isUndone(print revocation.Fingerprint, sequence uint64) bool {
	return sequence < h.undone[print].sequence
}

// undo remembers a restoration and returns the sequence of the latest that is
// remembered for print, which may be a later one.
func (h *history) undo(print revocation.Fingerprint, sequence uint64, now int64) uint64 {
	if latest := h.undone[print].sequence; sequence <= latest {
		return latest
	}
	if h.undone == nil {
		h.undone = make(map[revocation.Fingerprint]undone)
	}
	h.undone[print] = undone{sequence: sequence, at: now}
	h.order = append(h.order, undoneAt{print: print, sequence: sequence})
	if len(h.order) > maxUndone {
		h.dropUndone()
	}
	return sequence
}

func (h *history) dropUndone() {
	oldest := h.order[0]
	h.order = h.order[1:]
	if h.undone[oldest.print].sequence == oldest.sequence {
		delete(h.undone, oldest.print)
	}
}

// expire drops some of the restorations that both the follower and any late
// caller have passed.
func (h *history) expire(now int64, passed uint64) {
	for n := 0; len(h.order) > 0; n++ {
		if n == expireStride {
			return
		}
		oldest := h.order[0]
		u, ok := h.undone[oldest.print]
		if ok && u.sequence == oldest.sequence && (u.sequence > passed || now-u.at < lateSeconds) {
			return
		}
		h.dropUndone()
	}
	h.order, h.undone = nil, nil
}

// applied remembers a decision that the follower has not passed. If there are
// too many, the lowest goes: restorations above it need not know it.
func (h *history) applied(print revocation.Fingerprint, sequence uint64, t term) {
	h.push(aheadEntry{print: print, sequence: sequence, term: t})
	if len(h.ahead) > maxAhead {
		h.lost = max(h.lost, h.pop().sequence)
	}
}

func (h *history) push(a aheadEntry) {
	h.ahead = append(h.ahead, a)
	for i := len(h.ahead) - 1; i > 0; {
		parent := (i - 1) / 2
		if h.ahead[parent].sequence <= h.ahead[i].sequence {
			return
		}
		h.ahead[parent], h.ahead[i] = h.ahead[i], h.ahead[parent]
		i = parent
	}
}

// pop removes the decision with the lowest sequence.
func (h *history) pop() aheadEntry {
	lowest, last := h.ahead[0], len(h.ahead)-1
	h.ahead[0] = h.ahead[last]
	h.ahead = h.ahead[:last]
	for i := 0; ; {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < last; child++ {
			if h.ahead[child].sequence < h.ahead[least].sequence {
				least = child
			}
		}
		if least == i {
			return lowest
		}
		h.ahead[least], h.ahead[i] = h.ahead[i], h.ahead[least]
		i = least
	}
}

// since returns the merged terms of the decisions on print above sequence, and
// the highest sequence among them. ok is false if they are not all remembered.
func (h *history) since(print revocation.Fingerprint, sequence uint64) (t term, last uint64, ok bool) {
	for i := range h.ahead {
		if a := &h.ahead[i]; a.print == print && a.sequence > sequence {
			t, last = t.merge(a.term), max(last, a.sequence)
		}
	}
	return t, last, h.lost <= sequence
}

// passed drops the decisions up to the follower's place.
func (h *history) passed(sequence uint64) {
	for len(h.ahead) > 0 && h.ahead[0].sequence <= sequence {
		a := h.pop()
		if !h.keeping {
			continue
		}
		if len(h.kept) >= maxAhead {
			h.unkept = max(h.unkept, h.kept[0].sequence)
			h.kept = h.kept[1:]
		}
		h.kept = append(h.kept, a)
	}
	if len(h.ahead) == 0 && cap(h.ahead) > 1024 {
		h.ahead = nil
	}
}

// keep begins to keep what the follower passes.
func (h *history) keep() { h.keeping = true }

// release ends what keep began.
func (h *history) release() { h.keeping, h.kept, h.unkept = false, nil, 0 }

// sinceKept returns what came ahead of the follower's place when keep was called,
// or has since, and the highest sequence of what is missing from it. The slice is
// the caller's.
func (h *history) sinceKept() (all []aheadEntry, lost uint64) {
	return slices.Concat(h.kept, h.ahead), max(h.lost, h.unkept)
}

// latest bounds what a checkpoint says of decisions ahead of the follower to
// those with the highest sequences.
func latest(all []aheadEntry, lost uint64) ([]aheadEntry, uint64) {
	if len(all) <= maxAhead {
		return all, lost
	}
	slices.SortFunc(all, func(a, b aheadEntry) int { return cmp.Compare(a.sequence, b.sequence) })
	surplus := len(all) - maxAhead
	return all[surplus:], max(lost, all[surplus-1].sequence)
}

// newest returns the highest sequence that is remembered.
func (h *history) newest() (sequence uint64) {
	for i := range h.ahead {
		sequence = max(sequence, h.ahead[i].sequence)
	}
	for i := range h.order {
		sequence = max(sequence, h.order[i].sequence)
	}
	return sequence
}

// forget drops everything: another history of the ledger has begun.
func (h *history) forget() { *h = history{} }
