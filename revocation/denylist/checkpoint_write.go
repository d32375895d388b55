package denylist

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// snapshotStride is how many slots are copied without letting others have the
// lock.
const snapshotStride = 2048

// WriteCheckpoint saves entries and position to a file, which it replaces at
// once: whoever reads the path, even after a crash, finds the old checkpoint or
// the new one. Checks go on meanwhile, and so do changes, which wait for a few
// microseconds now and then.
//
// Proven is the moment of which the caller can prove that everything recorded in
// the ledger until then had been applied; zero if there is none. It goes into
// the checkpoint, so that whoever loads it knows how old its knowledge is: a
// checkpoint of a denylist that never caught up, or of one that had lost its
// ledger an hour before, is not fresh because it was just written.
//
// Place says which ledger is followed, in the caller's words: only a caller that
// names the same place can load the file.
func (d *Denylist) WriteCheckpoint(path, place string, proven time.Time) error {
	d.checkpoint.Lock()
	defer d.checkpoint.Unlock()
	write := func(to io.Writer) error { return d.writeCheckpoint(to, place, proven) }
	err := replaceFile(path, write)
	if errors.Is(err, errHistoryTurned) {
		err = replaceFile(path, write) // once: histories don't come in rows
	}
	if err != nil {
		return fmt.Errorf("writing checkpoint: %w", err)
	}
	return nil
}

var errHistoryTurned = errors.New("the ledger turned out to be another one meanwhile")

func (d *Denylist) writeCheckpoint(to io.Writer, place string, proven time.Time) error {
	// The position comes first: whatever changes while entries are copied has a
	// higher sequence, and the follower will bring it again.
	d.mu.Lock()
	position, turn := d.position, d.turn
	absent := make(map[revocation.Fingerprint]missing)
	d.lack.absent(absent)
	d.history.keep()
	d.shapes.pin()
	d.actors.pinned = true
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		d.history.release()
		d.shapes.unpin()
		d.actors.pinned = false
		d.mu.Unlock()
	}()

	w := newCheckpointWriter(to)
	var buf []byte
	for i := range d.index.shards {
		// A table that is replaced while it is copied stays as it was then,
		// which is good enough: see above.
		t := d.index.shards[i].Load()
		for from := 0; from < len(t.slots); from += snapshotStride {
			buf = d.copyEntries(buf[:0], t, from)
			w.section(sectionEntries, buf)
		}
	}
	meta, ahead, undone, now := d.restOfCheckpoint()
	if now != turn {
		// Entries of two histories with the position of one.
		return errHistoryTurned
	}
	ahead, meta.Lost = latest(ahead, meta.Lost)
	buf = buf[:0]
	for _, a := range ahead {
		buf = checkpointEntry{print: a.print, term: a.term, origin: a.sequence}.append(buf)
	}
	w.section(sectionAhead, buf)
	buf = buf[:0]
	for _, u := range undone {
		if u.sequence > position.Sequence {
			buf = checkpointEntry{print: u.print, origin: u.sequence}.append(buf)
		}
	}
	w.section(sectionUndone, buf)
	meta.Place, meta.ProvenAt = place, proven
	meta.Position = checkpointPosition(position)
	// What found room meanwhile may be in neither part of the file otherwise.
	d.lack.absent(absent)
	b, err := marshalMeta(meta, absent)
	if err != nil {
		return err
	}
	w.section(sectionMeta, b)
	return w.finish()
}

func (d *Denylist) copyEntries(buf []byte, t *table, from int) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	t.each(from, from+snapshotStride, func(_ *table, s *slot) {
		o := origin(s.origin.Load())
		switch e := o.era(); {
		case e == d.era:
			o = o.at(o.sequence(), filePresent)
		case e == d.era.mixed():
			o = o.at(o.sequence(), fileMixed)
		default:
			o = o.lost()
		}
		buf = checkpointEntry{print: s.fingerprint(), term: term(s.term.Load()), origin: uint64(o)}.append(buf)
	})
	return buf
}

// restOfCheckpoint returns what belongs to entries copied since the position was
// taken. Whoever loads the file follows on from that position, and needs what was
// ahead of it then, or has come since: the follower may have passed some of it
// meanwhile. All that depends on the number of entries is left to the caller, who
// does not hold the lock.
func (d *Denylist) restOfCheckpoint() (meta checkpointMeta, ahead []aheadEntry, undone []undoneAt, turn uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for n := range d.shapes.slots {
		var c checkpointShape
		if s := &d.shapes.slots[n]; s.inUse || s.retired {
			c = checkpointShape{Mode: s.mode.String(), Names: s.names}
		}
		meta.Shapes = append(meta.Shapes, c)
	}
	for n := range d.actors.slots {
		meta.Actors = append(meta.Actors, d.actors.slots[n].name)
	}
	for len(meta.Actors) > 0 && meta.Actors[len(meta.Actors)-1] == "" {
		meta.Actors = meta.Actors[:len(meta.Actors)-1]
	}
	ahead, meta.Lost = d.history.sinceKept()
	// What is in order never changes: it is appended to, and forgotten from the
	// other end.
	undone = d.history.order
	meta.Before = d.before
	meta.Reason, meta.IncompleteUntil, meta.Unreadable = d.lack.lasting()
	meta.WaivedUntil = d.lack.waivedUntil()
	return meta, ahead, undone, d.turn
}

// checkpointWriter remembers the first error, as bufio.Writer does.
type checkpointWriter struct {
	w   *bufio.Writer
	sum hash.Hash
}

func newCheckpointWriter(to io.Writer) *checkpointWriter {
	sum := sha256.New()
	w := &checkpointWriter{w: bufio.NewWriterSize(io.MultiWriter(to, sum), 1<<18), sum: sum}
	_, _ = w.w.WriteString(checkpointMagic)
	_, _ = w.w.Write(binary.LittleEndian.AppendUint32(nil, checkpointVersion))
	return w
}

func (w *checkpointWriter) section(kind byte, content []byte) {
	if len(content) == 0 {
		return
	}
	_ = w.w.WriteByte(kind)
	_, _ = w.w.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(content))))
	_, _ = w.w.Write(content)
}

func (w *checkpointWriter) finish() error {
	if err := w.w.Flush(); err != nil {
		return err
	}
	_, _ = w.w.Write(w.sum.Sum(nil))
	return w.w.Flush()
}

// replaceFile writes a file beside path, makes it durable, and gives it the
// name. Only the owner may read it.
func replaceFile(path string, write func(io.Writer) error) (err error) {
	dir, base := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	removeAbandoned(dir, "."+base+".*.tmp")
	// A name of its own: another process may write the same checkpoint.
	f, err := os.CreateTemp(dir, "."+base+".*.tmp") // readable by its owner only
	if err != nil {
		return err
	}
	temporary := f.Name()
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(temporary)
		}
	}()
	if err := write(f); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return err
	}
	return syncDir(dir)
}

// removeAbandoned deletes what crashes left behind. Nobody writes for an hour.
func removeAbandoned(dir, pattern string) {
	names, _ := filepath.Glob(filepath.Join(dir, pattern)) // the pattern is good
	for _, name := range names {
		if info, err := os.Stat(name); err == nil && time.Since(info.ModTime()) > time.Hour {
			_ = os.Remove(name) // it is in nobody's way
		}
	}
}

// syncDir makes the new name durable. Windows can't and need not.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}
