package denylist

import "github.com/edge-revocation/caddy-token-revocation/revocation"

const (
	maxUndone = 1 << 16 * modes
	maxAhead  = 1 << 16
	// lateSeconds is how long after its acknowledgment a decision may still be
	// applied by the endpoint that made it. Seconds would do: publishing has a
	// deadline, and then only the scheduler is in between.
	lateSeconds = 600
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

	ahead []aheadEntry // in order of arrival
	lost  uint64       // highest sequence among those that ahead had no room for
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

// expire drops the restorations that both the follower and any late caller have
// passed.
func (h *history) expire(now int64, passed uint64) {
	for len(h.order) > 0 {
		oldest := h.order[0]
		u, ok := h.undone[oldest.print]
		if ok && u.sequence == oldest.sequence && (u.sequence > passed || now-u.at < lateSeconds) {
			return
		}
		h.dropUndone()
	}
	h.order, h.undone = nil, nil
}

// applied remembers a decision that the follower has not passed.
func (h *history) applied(print revocation.Fingerprint, sequence uint64, t term) {
	if len(h.ahead) >= maxAhead {
		h.lost = max(h.lost, h.ahead[0].sequence)
		h.ahead = h.ahead[1:]
	}
	h.ahead = append(h.ahead, aheadEntry{print: print, sequence: sequence, term: t})
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
	n := 0
	for n < len(h.ahead) && h.ahead[n].sequence <= sequence {
		n++
	}
	switch {
	case n < len(h.ahead):
		h.ahead = h.ahead[n:]
	case cap(h.ahead) > 1024:
		h.ahead = nil
	default:
		h.ahead = h.ahead[:0]
	}
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
