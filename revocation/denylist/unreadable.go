package denylist

import (
	"log/slog"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// maxUnread is how many unreadable entries are known one by one.
const maxUnread = 1024

// MarkUnreadable is [Denylist.MarkIncomplete] for an entry of the ledger that is
// there but can't be read, so that [Denylist.Acknowledge] can close the gap. Marks
// survive in checkpoints; if the process that has loaded one applies the entry,
// because it is of a newer version, the gap is closed too.
//
// At most 1024 entries are remembered with their sequence; the gaps that any
// others leave can't be closed.
func (d *Denylist) MarkUnreadable(sequence uint64, reason string, until int64) {
	now := d.now()
	if until <= 0 {
		until = now.Add(revocation.MaxRetention).Unix()
	}
	if d.lack.markUnread(sequence, gap{reason: reason, until: until}, now.Unix()) {
		d.logger.Error("denylist is incomplete: an entry can not be read",
			slog.Uint64("sequence", sequence), slog.String("reason", reason), slog.Int64("until", until))
	}
}

// Acknowledge says that the unreadable entry at this sequence of the ledger does
// not matter: the incompleteness that it caused ends. Other gaps stay. It returns
// false, and is not remembered, if there is no such mark: an acknowledgment that
// this edge's own endpoint applies before the follower has come to the entry
// itself counts when the follower brings it.
//
// A mark from before the present history (see [Denylist.NewHistory]) is
// acknowledged only after the follower has passed what that history held when it
// was found: older acknowledgments mean another entry.
func (d *Denylist) Acknowledge(sequence uint64) bool {
	d.mu.Lock()
	caughtUp := d.position.Sequence >= d.before
	d.mu.Unlock()
	return d.lack.acknowledge(sequence, caughtUp)
}

func (l *lack) markUnread(sequence uint64, g gap, now int64) (first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first = g.until >= now && l.complete(now)
	was, known := l.unread[sequence]
	switch {
	case !known && len(l.unread) >= maxUnread:
		if g.until > l.marked.until {
			l.marked = g
		}
	case known && was.until >= g.until:
		l.unread[sequence] = unread{gap: was.gap}
	default:
		if l.unread == nil {
			l.unread = make(map[uint64]unread)
		}
		l.unread[sequence] = unread{gap: g}
	}
	l.publish()
	return first
}

func (l *lack) acknowledge(sequence uint64, caughtUp bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	u, ok := l.unread[sequence]
	if !ok || u.before && !caughtUp {
		return false
	}
	delete(l.unread, sequence)
	l.waived = max(l.waived, u.until)
	l.publish()
	return true
}

// waivedUntil returns when the last of the entries that were acknowledged ends.
func (l *lack) waivedUntil() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waived
}

// readable records that the entry at this sequence was applied, or a part of it:
// one entry may hold several decisions, and a mark that was made by this process
// is about another part.
func (l *lack) readable(sequence uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if u, ok := l.unread[sequence]; ok && u.loaded && !u.before {
		delete(l.unread, sequence)
		l.publish()
	}
}

// newHistory records that the sequences known so far are of another history than
// those to come, which is at last now.
func (l *lack) newHistory(last uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for print, m := range l.missing {
		m.last, m.mixed = last, true
		l.missing[print] = m
	}
	for sequence, u := range l.unread {
		u.before = true
		l.unread[sequence] = u
	}
}

// checkpointUnread is an unreadable entry in a checkpoint.
type checkpointUnread struct {
	Sequence uint64 `json:"sequence"`
	Reason   string `json:"reason,omitempty"`
	Until    int64  `json:"until"` // Unix seconds
	Before   bool   `json:"before,omitempty"`
}

// lasting returns what a checkpoint has to say: why, and until when, the index
// is not complete, apart from what [lack.absent] says. What has ended is part of it: the clock may be wrong.
func (l *lack) lasting() (reason string, until int64, unreadable []checkpointUnread) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for sequence, u := range l.unread {
		unreadable = append(unreadable, checkpointUnread{
			Sequence: sequence, Reason: u.reason, Until: u.until, Before: u.before,
		})
	}
	if g := l.rest(gap{reason: l.full.reason, until: l.untold}); g.until > 0 {
		reason, until = g.reason, g.until
	}
	return reason, until, unreadable
}

// join adds what a checkpoint says. Marks that are not of the present history
// stay until they end, or the operator acknowledges them.
func (l *lack) join(unreadable []checkpointUnread, waived int64, present bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waived = max(l.waived, waived)
	for _, c := range unreadable {
		u := unread{gap: gap{reason: c.Reason, until: c.Until}, before: c.Before || !present, loaded: true}
		was, known := l.unread[c.Sequence]
		switch {
		case known && was.before == u.before:
			u.until, u.loaded = max(u.until, was.until), was.loaded
			fallthrough
		case !known && len(l.unread) < maxUnread:
			if l.unread == nil {
				l.unread = make(map[uint64]unread)
			}
			l.unread[c.Sequence] = u
		case u.until > l.marked.until:
			l.marked = u.gap
		}
	}
	l.publish()
}
