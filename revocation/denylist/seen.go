package denylist

import (
	"strings"
	"sync/atomic"
	"unsafe"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// Seen is what is remembered of one token: its identity as the caller read it,
// in which scope, and the fingerprints to look up. It says nothing about
// whether the token is revoked.
type Seen struct {
	token      string
	identity   *revocation.Identity
	scope      uint64
	epoch      uint64
	generation uint64

	prints atomic.Pointer[prints] // of the shapes in use when last checked
	first  prints                 // where prints points at first
}

// Identity returns what the token was identified as. It must not be changed.
func (s *Seen) Identity() *revocation.Identity { return s.identity }

// Epoch returns the epoch of the claims that the identity has; see
// [Denylist.ClaimNames].
func (s *Seen) Epoch() uint64 { return s.epoch }

// Lookup returns what is remembered of a token, compared byte by byte. The
// scope is the caller's stamp for everything that an identity depends on: which
// keys and mappings are trusted, whether signatures are verified. A record of
// another scope is none; so is one that may lack a claim which a criteria in use
// names, or whose token has expired (exp, without leeway).
//
// It allocates nothing and takes no lock of the denylist.
func (d *Denylist) Lookup(token string, scope uint64) (*Seen, bool) {
	s := d.cache.get(token, scope)
	if s == nil || s.epoch < d.inUse.Load().epoch {
		return nil, false
	}
	if exp := s.identity.Expiry; exp != 0 && d.wall.unix() >= exp {
		return nil, false
	}
	return s, true
}

// Remember makes a record of a token, and keeps it if it can; not beyond
// id.Expiry. The epoch is the one that [Denylist.ClaimNames] returned before the
// token was read. The record is good for [Denylist.CheckSeen] in any case.
//
// The caller remembers only what it trusts: with verification, verified tokens.
// id must not be changed afterwards.
func (d *Denylist) Remember(token string, scope uint64, id *revocation.Identity, epoch uint64) *Seen {
	s := &Seen{
		token:      strings.Clone(token), // it is part of a request that should not be kept
		identity:   id,
		scope:      scope,
		epoch:      epoch,
		generation: d.cache.generation.Load(),
	}
	s.first.compute(d.inUse.Load(), id)
	s.prints.Store(&s.first)
	if id.Expiry == 0 || d.wall.unix() < id.Expiry {
		d.cache.set(s)
	}
	return s
}

// Forget drops everything that is remembered of tokens. No record made before is
// returned by [Denylist.Lookup] after Forget returns. The index is not touched.
func (d *Denylist) Forget() { d.cache.forget() }

const (
	// seenBytes includes the fingerprints that take the place of the first ones
	// when the shapes in use change.
	seenBytes     = int64(unsafe.Sizeof(Seen{}) + unsafe.Sizeof(prints{}))
	identityBytes = int64(unsafe.Sizeof(revocation.Identity{}))
	claimBytes    = int64(unsafe.Sizeof(revocation.Claim{}))
	moreBytes     = int64(unsafe.Sizeof(morePrint{}))
)

// cost returns the bytes that the record takes.
func (s *Seen) cost() int64 {
	id := s.identity
	n := recordOverhead + seenBytes + int64(len(s.token)) +
		identityBytes + int64(len(id.Issuer)+len(id.Certificate)+len(id.ProofKey)) + int64(cap(id.Claims))*claimBytes +
		int64(cap(s.first.more))*moreBytes
	if p := s.prints.Load(); p != nil && p != &s.first {
		n += int64(cap(p.more)) * moreBytes
	}
	for i := range id.Claims {
		// Names are constants of the reader; values may share one buffer.
		n += int64(len(id.Claims[i].Value))
	}
	return n
}
