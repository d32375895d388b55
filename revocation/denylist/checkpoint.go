package denylist

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// A checkpoint is a file of
//
//	magic      8 bytes
//	version    uint32
//	sections   each: kind byte, length uint64, content
//	checksum   32 bytes: SHA-256 of all the above
//
// with numbers in little-endian order. Sections of entries come as often as the
// writer likes, then decisions and restorations that came ahead of the follower,
// then one of JSON with all else, which is last because only then the writer knows which shapes
// and actors the entries refer to. It has no secret in it: criteria appear as
// fingerprints, clients by name.
const (
	checkpointMagic   = "TKDENYL\n"
	checkpointVersion = 2

	sectionEntries = 'E' // 32 bytes each: fingerprint, term, origin
	sectionAhead   = 'A' // 32 bytes each: fingerprint, term, sequence
	sectionUndone  = 'U' // 32 bytes each: fingerprint, zero, sequence; one for each mode
	sectionMeta    = 'M'

	headerBytes  = len(checkpointMagic) + 4
	sectionBytes = 1 + 8
	entryBytes   = 32
	maxMeta      = 16 << 20
	// maxCheckpoint bounds the file: 64 Mi entries.
	maxCheckpoint = maxMeta + 64<<20*entryBytes
)

// ErrCheckpoint is wrapped by the errors of [Denylist.LoadCheckpoint] that say
// that the file is no checkpoint, is damaged, has another version, or is that of
// another ledger.
var ErrCheckpoint = errors.New("invalid checkpoint")

// checkpointMeta is the JSON section.
type checkpointMeta struct {
	Place           string             `json:"place"`
	ProvenAt        time.Time          `json:"proven_at"`
	Position        checkpointPosition `json:"position"`
	Before          uint64             `json:"before,omitempty"` // sequence; see Denylist.NewHistory
	Lost            uint64             `json:"lost,omitempty"`   // highest sequence ahead of the follower that sectionAhead lacks
	Shapes          []checkpointShape  `json:"shapes"`           // by number
	Actors          []string           `json:"actors"`           // by number
	Reason          string             `json:"incomplete_reason,omitempty"`
	IncompleteUntil int64              `json:"incomplete_until,omitempty"` // Unix seconds
	Unreadable      []checkpointUnread `json:"unreadable,omitempty"`
	WaivedUntil     int64              `json:"waived_until,omitempty"` // Unix seconds

	Missing []checkpointMissing `json:"missing,omitempty"` // not among the reasons above
}

// The eras of entries in a file, whatever they were in the denylist that wrote it.
const (
	fileBefore  = eraBefore
	filePresent = eraFirst
	fileMixed   = eraFirst + 1
)

type checkpointPosition struct {
	Ledger   string    `json:"ledger,omitempty"`
	Created  time.Time `json:"created,omitzero"`
	Sequence uint64    `json:"sequence,omitempty"`
	Stored   time.Time `json:"stored,omitzero"`
	Latest   time.Time `json:"latest,omitzero"`

	Witness       uint64    `json:"witness,omitempty"`
	WitnessStored time.Time `json:"witness_stored,omitzero"`
	WitnessEnds   time.Time `json:"witness_ends,omitzero"`
}

type checkpointShape struct {
	Mode  string   `json:"mode,omitempty"` // empty for a number that is not in use
	Names []string `json:"names,omitempty"`
}

// checkpointEntry is the binary form of an entry.
type checkpointEntry struct {
	print  revocation.Fingerprint
	term   term
	origin uint64 // of what came ahead: its sequence
}

func (e checkpointEntry) append(b []byte) []byte {
	b = append(b, e.print[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(e.term))
	return binary.LittleEndian.AppendUint64(b, e.origin)
}

func readEntry(b []byte) checkpointEntry {
	return checkpointEntry{
		print:  revocation.Fingerprint(b[:16]),
		term:   term(binary.LittleEndian.Uint64(b[16:])),
		origin: binary.LittleEndian.Uint64(b[24:]),
	}
}

// checkpointFile is a checkpoint taken apart. Its parts are slices of the file.
type checkpointFile struct {
	entries [][]byte
	ahead   []byte
	undone  []byte
	meta    []byte
}

// splitCheckpoint checks everything about the form of a file.
func splitCheckpoint(b []byte) (f checkpointFile, err error) {
	damaged := func(what string) (checkpointFile, error) {
		return checkpointFile{}, fmt.Errorf("%w: %s", ErrCheckpoint, what)
	}
	switch {
	case len(b) < headerBytes || string(b[:len(checkpointMagic)]) != checkpointMagic:
		return damaged("this is no denylist checkpoint")
	case binary.LittleEndian.Uint32(b[len(checkpointMagic):]) != checkpointVersion:
		return damaged(fmt.Sprintf("format version %d is not known", binary.LittleEndian.Uint32(b[len(checkpointMagic):])))
	case len(b) < headerBytes+sha256.Size:
		return damaged("the file is cut off")
	}
	body, sum := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	if sha256.Sum256(body) != [sha256.Size]byte(sum) {
		return damaged("the checksum is wrong")
	}
	for rest := body[headerBytes:]; len(rest) > 0; {
		if len(rest) < sectionBytes {
			return damaged("a section is cut off")
		}
		kind, n := rest[0], binary.LittleEndian.Uint64(rest[1:])
		if rest = rest[sectionBytes:]; n > uint64(len(rest)) {
			return damaged("a section is longer than the file")
		}
		content := rest[:n]
		rest = rest[n:]
		switch {
		case f.meta != nil:
			return damaged("something follows the last section")
		case kind == sectionMeta && n > 0 && n <= maxMeta:
			f.meta = content
		case kind == sectionEntries && n%entryBytes == 0:
			f.entries = append(f.entries, content)
		case kind == sectionAhead && n%entryBytes == 0 && n <= maxAhead*entryBytes && f.ahead == nil:
			f.ahead = content
		case kind == sectionUndone && n%entryBytes == 0 && n <= uint64(maxUndone*entryBytes) && f.undone == nil:
			f.undone = content
		default:
			return damaged("a section is malformed")
		}
	}
	if f.meta == nil {
		return damaged("the last section is missing")
	}
	return f, nil
}
