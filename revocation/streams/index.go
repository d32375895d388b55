package streams

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/denylist"
)

const (
	// maxShapes bounds what the index keeps; the denylist has no more in use.
	maxShapes = 48
	// idleShape is after how long without a revocation a shape is dropped. The
	// next one of that shape costs a walk over all streams.
	idleShape = time.Hour
)

// index finds streams by the revocations that name them. It belongs to the
// registry's goroutine.
type index struct {
	all     ring
	shapes  map[string]*shape
	expiry  expiry
	list    Denylist
	scratch []byte
}

// shape is a way to name streams that some revocation has used.
type shape struct {
	mode  revocation.Mode
	names []string // sorted
	// special is true if names are among them that not every identity has.
	special bool
	// epoch is the denylist's when the shape was made. While none of its entries
	// is held, its claims need not be among those that identities have.
	epoch   uint64
	streams map[uint64]*link // by hashOf
	// unsure are those that can't be found by fingerprint alone: a claim of theirs
	// is not known, or the combinations are too many.
	unsure map[*Stream]struct{}
	used   time.Time
}

// hashOf shortens a fingerprint, to save memory. Two that have the same cost no more
// than a question to the denylist, which decides.
func hashOf(print revocation.Fingerprint) uint64 { return binary.LittleEndian.Uint64(print[:]) }

// link is one fingerprint of a stream, in the list of all streams that have it.
type link struct {
	stream     *Stream
	shape      *shape
	hash       uint64 // of the fingerprint
	prev, next *link  // prev is nil for the first, which the shape's map knows
	sibling    *link  // of the same stream
}

func (x *index) init(r *Registry) {
	x.all.init()
	x.shapes = make(map[string]*shape)
	x.list = r.list
}

// add indexes a stream under all shapes that are known.
func (x *index) add(s *Stream) {
	x.all.add(s)
	x.expiry.add(s)
	for _, sh := range x.shapes {
		x.link(s, sh)
	}
}

// remove forgets a stream.
func (x *index) remove(s *Stream) {
	s.unlink()
	x.expiry.remove(s)
	for l := s.links; l != nil; l = l.sibling {
		l.shape.remove(l)
	}
	s.links = nil
	for _, sh := range x.shapes {
		if len(sh.unsure) > 0 {
			delete(sh.unsure, s)
		}
	}
}

func (x *index) link(s *Stream, sh *shape) {
	read := !sh.special || x.refresh(s)
	for _, id := range s.identities() {
		if id != nil && (hides(id, sh.names, read) || !x.linkAs(s, id, sh)) {
			sh.unsure[s] = struct{}{}
		}
	}
}

// linkAs makes a stream be found by the fingerprints of an identity. It returns
// false if they are too many.
func (x *index) linkAs(s *Stream, id *revocation.Identity, sh *shape) bool {
	return prints(id, sh.mode, sh.names, func(print revocation.Fingerprint) {
		l := &link{stream: s, shape: sh, hash: hashOf(print), sibling: s.links}
		s.links = l
		if l.next = sh.streams[l.hash]; l.next != nil {
			l.next.prev = l
		}
		sh.streams[l.hash] = l
	})
}

func (sh *shape) remove(l *link) {
	if l.next != nil {
		l.next.prev = l.prev
	}
	switch {
	case l.prev != nil:
		l.prev.next = l.next
	case l.next != nil:
		sh.streams[l.hash] = l.next
	default:
		delete(sh.streams, l.hash)
	}
}

// refresh makes a stream's identity have each claim that revocations in force
// name. It returns false if that is impossible.
func (x *index) refresh(s *Stream) bool {
	names, epoch := x.list.ClaimNames()
	if s.epoch >= epoch || len(names) == 0 {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.request == nil {
		return true // closed: nothing is to be found
	}
	id, err := s.request.Identify(names)
	if err != nil || id == nil {
		return false
	}
	s.id, s.epoch = id, epoch
	return true
}

// of returns the shape of a change, for which all streams are indexed.
func (x *index) of(c *denylist.Change, now time.Time) *shape {
	x.scratch = append(x.scratch[:0], byte(c.Mode))
	for _, name := range c.Names {
		x.scratch = binary.AppendUvarint(x.scratch, uint64(len(name)))
		x.scratch = append(x.scratch, name...)
	}
	_, epoch := x.list.ClaimNames()
	key := string(x.scratch)
	if sh := x.shapes[key]; sh != nil {
		if !sh.special || sh.epoch == epoch {
			sh.used = now
			return sh
		}
		// A claim is named again that was not when streams were read. A claim that
		// becomes named starts an epoch.
		x.drop(key, sh)
	}
	if len(x.shapes) >= maxShapes {
		x.dropOldest()
	}
	sh := &shape{
		mode:    c.Mode,
		names:   slices.Clone(c.Names),
		special: slices.ContainsFunc(c.Names, special),
		epoch:   epoch,
		streams: make(map[uint64]*link),
		unsure:  make(map[*Stream]struct{}),
		used:    now,
	}
	x.shapes[key] = sh
	for s := x.all.head.next; s != &x.all.head; s = s.next {
		x.link(s, sh)
	}
	return sh
}

// tidy drops the shapes that were not used for long.
func (x *index) tidy(now time.Time) {
	for key, sh := range x.shapes {
		if now.Sub(sh.used) >= idleShape {
			x.drop(key, sh)
		}
	}
}

func (x *index) dropOldest() {
	var oldest string
	for key, sh := range x.shapes {
		if was := x.shapes[oldest]; was == nil || sh.used.Before(was.used) {
			oldest = key
		}
	}
	x.drop(oldest, x.shapes[oldest])
}

func (x *index) drop(key string, sh *shape) {
	delete(x.shapes, key)
	for s := x.all.head.next; s != &x.all.head; s = s.next {
		for at := &s.links; *at != nil; {
			if l := *at; l.shape == sh {
				*at = l.sibling
			} else {
				at = &l.sibling
			}
		}
	}
}
