package ledger

import "github.com/edge-revocation/caddy-token-revocation/revocation"

const maxHolds = 1024

// hold keeps the sink's position behind an entry that this version can't apply,
// so that a newer version, started on this one's checkpoint, reads it.
type hold struct {
	sequence uint64
	before   revocation.Position
	until    int64 // Unix seconds: when the entry has ended
}

// holds are in the order of their sequences. Beyond maxHolds, the last one stands
// for all that follow it, and is released by its end only.
type holds []hold

func (h *holds) add(new hold) {
	if n := len(*h); n == maxHolds {
		last := &(*h)[n-1]
		last.sequence = 0 // of several: acknowledging one of them is not enough
		last.until = max(last.until, new.until)
		return
	}
	*h = append(*h, new)
}

// release ends the hold of one entry.
func (h *holds) release(sequence uint64) {
	for i, held := range *h {
		if held.sequence == sequence {
			*h = append((*h)[:i], (*h)[i+1:]...)
			return
		}
	}
}

// position returns the oldest position that is held, or p.
func (h *holds) position(p revocation.Position, now int64) revocation.Position {
	kept := (*h)[:0]
	for _, held := range *h {
		if held.until >= now {
			kept = append(kept, held)
		}
	}
	*h = kept
	if len(kept) > 0 {
		return kept[0].before
	}
	return p
}

// persistent returns the position to continue from after a restart.
func (f *Follower) persistent() revocation.Position {
	return f.holds.position(f.position, f.l.now().Unix())
}
