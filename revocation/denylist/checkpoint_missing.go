package denylist

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// checkpointMissing is an entry that there was no room for. Whoever loads the
// checkpoint tries again: the follower goes on behind it and brings it no more.
type checkpointMissing struct {
	checkpointShape
	Print    []byte `json:"print"`
	Term     uint64 `json:"term"` // as in an entry
	Sequence uint64 `json:"sequence"`
	Mixed    bool   `json:"mixed,omitempty"`
	Actor    string `json:"actor,omitempty"`
}

// absent adds what is known to be missing to the given entries.
func (l *lack) absent(known map[revocation.Fingerprint]missing) {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.Copy(known, l.missing)
}

// marshalMeta returns the JSON section. It says that entries are missing without
// saying which if that would take too much room.
func marshalMeta(meta checkpointMeta, absent map[revocation.Fingerprint]missing) ([]byte, error) {
	for print, m := range absent {
		meta.Missing = append(meta.Missing, checkpointMissing{
			checkpointShape: checkpointShape{Mode: m.mode.String(), Names: m.names},
			Print:           print[:], Term: uint64(m.term), Sequence: m.last, Mixed: m.mixed, Actor: m.actor,
		})
	}
	// The longest first: they are what a smaller denylist must not drop.
	slices.SortFunc(meta.Missing, func(a, b checkpointMissing) int { return -cmp.Compare(a.Term, b.Term) })
	b, err := json.Marshal(meta)
	if err != nil || len(b) <= maxMeta && len(meta.Missing) <= maxMissing {
		return b, err
	}
	for _, m := range absent {
		if m.term.expires() > meta.IncompleteUntil {
			meta.Reason, meta.IncompleteUntil = "there were more entries than a checkpoint can tell", m.term.expires()
		}
	}
	meta.Missing = nil
	if b, err = json.Marshal(meta); err == nil && len(b) > maxMeta {
		return nil, errors.New("there are too many actors")
	}
	return b, err
}

// decision returns what is to be held, as one of the history that the checkpoint
// is of.
func (m checkpointMissing) decision() (decision, error) {
	s, err := m.shape()
	if err != nil {
		return decision{}, err
	}
	if len(m.Print) != len(revocation.Fingerprint{}) || !s.mode.Valid() || m.Sequence > maxSequence || term(m.Term).expires() == 0 {
		return decision{}, fmt.Errorf("%w: a missing entry is malformed", ErrCheckpoint)
	}
	e := decision{
		print: revocation.Fingerprint(m.Print), sequence: m.Sequence, era: filePresent, term: term(m.Term),
		mode: s.mode, names: s.names, actor: m.Actor,
	}
	if m.Mixed {
		e.era = fileMixed
	}
	return e, nil
}
