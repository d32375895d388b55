package denylist

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// loadStride is how many entries are added without letting others have the lock.
const loadStride = 1024

// LoadCheckpoint adds the entries of a checkpoint to those that are there, and
// returns the position that goes with them and the moment that was given to
// [Denylist.WriteCheckpoint], by the clock of that time. If the denylist had no position, it has this one afterwards.
// Entries that find no room make the denylist incomplete, as in
// [Denylist.Revoke]; so does a checkpoint that was saved incomplete.
//
// It is to be called before a follower starts: entries that were restored since
// the checkpoint come back, and the follower, which continues from its position,
// restores them again.
//
// Place is what the caller would give to [Denylist.WriteCheckpoint]. The
// checkpoint of another place is refused: it says nothing about this ledger.
// That of the same place and another history (the stream was created again) is
// loaded: the follower finds out.
//
// A file that can't be read or wraps [ErrCheckpoint] changes nothing.
func (d *Denylist) LoadCheckpoint(path, place string) (revocation.Position, time.Time, error) {
	d.checkpoint.Lock()
	defer d.checkpoint.Unlock()
	b, err := readCheckpoint(path)
	if err != nil {
		return revocation.Position{}, time.Time{}, fmt.Errorf("loading checkpoint: %w", err)
	}
	c, err := parseCheckpoint(b)
	if err != nil {
		return revocation.Position{}, time.Time{}, fmt.Errorf("loading checkpoint: %w", err)
	}
	if c.place != place {
		return revocation.Position{}, time.Time{}, fmt.Errorf("loading checkpoint: %w: it is that of another ledger, %s, not of %s",
			ErrCheckpoint, c.place, place)
	}
	d.join(c)
	return c.position, c.provenAt, nil
}

func readCheckpoint(path string) (b []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%w: not a regular file", ErrCheckpoint)
	case info.Size() > maxCheckpoint:
		return nil, fmt.Errorf("%w: the file has more than %d bytes", ErrCheckpoint, int64(maxCheckpoint))
	}
	b = make([]byte, info.Size())
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, err
	}
	return b, nil
}

// loaded is a checkpoint in which nothing is left to be wrong.
type loaded struct {
	checkpointFile
	place      string
	position   revocation.Position
	provenAt   time.Time
	before     uint64
	lost       uint64
	shapes     []shape // by number
	actors     []string
	gap        gap
	unreadable []checkpointUnread
	waived     int64
	missing    []decision // their eras are those of the file
}

func parseCheckpoint(b []byte) (*loaded, error) {
	f, err := splitCheckpoint(b)
	if err != nil {
		return nil, err
	}
	var meta checkpointMeta
	dec := json.NewDecoder(bytes.NewReader(f.meta))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&meta); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCheckpoint, err)
	}
	c := &loaded{
		checkpointFile: f,
		place:          meta.Place,
		position:       revocation.Position(meta.Position),
		provenAt:       meta.ProvenAt,
		before:         meta.Before,
		lost:           meta.Lost,
		actors:         meta.Actors,
		unreadable:     meta.Unreadable,
		waived:         meta.WaivedUntil,
		gap:            gap{reason: meta.Reason, until: meta.IncompleteUntil},
	}
	if len(meta.Shapes) > 1<<shapeBits || len(meta.Actors) > 1<<actorBits || len(meta.Unreadable) > maxUnread || len(meta.Missing) > maxMissing {
		return nil, fmt.Errorf("%w: too many shapes, actors, unreadable or missing entries", ErrCheckpoint)
	}
	for _, m := range meta.Missing {
		e, err := m.decision()
		if err != nil {
			return nil, err
		}
		c.missing = append(c.missing, e)
	}
	for _, m := range meta.Shapes {
		s, err := m.shape()
		if err != nil {
			return nil, err
		}
		c.shapes = append(c.shapes, s)
	}
	for _, part := range f.entries {
		for ; len(part) > 0; part = part[entryBytes:] {
			e := readEntry(part)
			n := origin(e.origin).shape()
			if origin(e.origin).era() > fileMixed {
				return nil, fmt.Errorf("%w: an entry is of no known history", ErrCheckpoint)
			}
			if e.term.expires() == 0 || n >= len(c.shapes) || !c.shapes[n].mode.Valid() {
				return nil, fmt.Errorf("%w: an entry has no end or no shape", ErrCheckpoint)
			}
		}
	}
	return c, nil
}

// unusedMode marks a number that no entry may have.
const unusedMode = revocation.Mode(255)

func (m checkpointShape) shape() (shape, error) {
	if m.Mode == "" {
		return shape{mode: unusedMode}, nil
	}
	for mode := revocation.Mode(0); mode.Valid(); mode++ {
		if mode.String() != m.Mode {
			continue
		}
		// Validated as the criteria that it was once part of.
		c := revocation.Criteria{Issuer: "-", Claims: make(map[string]string, len(m.Names))}
		for _, name := range m.Names {
			c.Claims[name] = "-"
		}
		if err := c.Validate(); err != nil {
			return shape{}, fmt.Errorf("%w: %w", ErrCheckpoint, err)
		}
		if !slices.Equal(c.Names(), m.Names) {
			return shape{}, fmt.Errorf("%w: the claim names of a shape are not in order", ErrCheckpoint)
		}
		return shape{mode: mode, names: m.Names}, nil
	}
	return shape{}, fmt.Errorf("%w: unknown mode %q", ErrCheckpoint, m.Mode)
}

// join adds a checkpoint to what is there. It can't fail.
func (d *Denylist) join(c *loaded) {
	total := 0
	for _, part := range c.entries {
		total += len(part) / entryBytes
	}
	d.mu.Lock()
	d.index.reserve(min(total, max(d.limits.max-d.index.live, 0)))
	turn, present := d.turn, d.position == (revocation.Position{}) || sameHistory(d.position, c.position)
	if present {
		d.before = max(d.before, c.before)
	} else {
		// Entries of another history, known from now on.
		d.before = max(d.before, d.position.Sequence)
		d.before = max(d.before, d.history.newest())
	}
	d.unlock()
	for _, part := range c.entries {
		for stride := range slices.Chunk(part, loadStride*entryBytes) {
			d.joinSome(c, stride, present, turn)
		}
	}
	for stride := range slices.Chunk(c.missing, loadStride/4) {
		d.joinMissing(stride, present, turn)
	}
	d.mu.Lock()
	defer d.unlock()
	if c.gap.until > 0 {
		d.lack.mark(c.gap, d.now().Unix())
	}
	if present = present && d.turn == turn; !present {
		d.lack.join(c.unreadable, c.waived, false)
		return
	}
	d.lack.join(c.unreadable, c.waived, true)
	if d.position == (revocation.Position{}) {
		d.position = c.position
	}
	d.history.lost = max(d.history.lost, c.lost)
	for part := c.ahead; len(part) > 0; part = part[entryBytes:] {
		if e := readEntry(part); e.origin > d.position.Sequence {
			d.history.applied(e.print, e.origin, e.term)
		}
	}
	now := d.clock.seconds()
	for part := c.undone; len(part) > 0; part = part[entryBytes:] {
		if e := readEntry(part); e.origin > d.position.Sequence {
			d.history.undo(e.print, e.origin, now)
		}
	}
}

func (d *Denylist) joinSome(c *loaded, part []byte, present bool, turn uint64) {
	d.mu.Lock()
	defer d.unlock()
	now, ended := d.clock.advance(d.now()), int64(0)
	defer func() { d.lack.ended(ended) }()
	for ; len(part) > 0; part = part[entryBytes:] {
		e := readEntry(part)
		if over(e.term.expires(), now, false) {
			ended = max(ended, e.term.expires())
			continue
		}
		o, actor := origin(e.origin), ""
		if n := o.actor(); n < len(c.actors) {
			actor = c.actors[n]
		}
		s := c.shapes[o.shape()]
		d.joinOne(decision{
			print: e.print, sequence: o.sequence(), era: o.era(), term: e.term,
			mode: s.mode, names: s.names, actor: actor,
		}, present && d.turn == turn, now)
	}
}

// joinMissing tries to hold what the writer of the checkpoint could not.
func (d *Denylist) joinMissing(some []decision, present bool, turn uint64) {
	d.mu.Lock()
	defer d.unlock()
	now := d.clock.advance(d.now())
	for _, e := range some {
		if over(e.term.expires(), now, false) {
			d.lack.ended(e.term.expires())
			continue
		}
		d.joinOne(e, present && d.turn == turn, now)
	}
}

// joinOne holds an entry of a file, with its era there. It is called with d.mu
// held.
func (d *Denylist) joinOne(j decision, present bool, now int64) {
	era := j.era
	j.era = eraBefore
	switch {
	case present && era == filePresent:
		j.era = d.era
	case present && era == fileMixed:
		j.era = d.era.mixed()
	case era == fileMixed:
		j.sequence = 0 // that of a part only
	}
	if d.history.isUndone(j.print, d.undoneAbove(newOrigin(j.sequence, j.era, 0, 0))) {
		return // while this denylist was followed on
	}
	if d.index.live >= d.limits.most(&j) {
		d.sweepSome(capStride, now)
	}
	d.hold(j)
}
