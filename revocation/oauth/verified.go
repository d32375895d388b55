package oauth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"
)

// maxVerified bounds the entries of a verified cache.
const maxVerified = 1024

// verified remembers for a short while which secrets a slow hash has accepted, so
// that a client that logs out a thousand sessions pays for one hash and not for a
// thousand. It holds no secret but a MAC of it under a key that never leaves this
// process. Failures are not remembered: they always cost the full hash.
//
// The key of an entry covers the client and the configured hash. A client whose
// secret was changed or removed therefore finds nothing, whatever the store is.
type verified struct {
	key   [sha256.Size]byte
	keep  time.Duration
	limit int
	now   func() time.Time

	mu    sync.Mutex
	until map[[sha256.Size]byte]time.Time
}

func newVerified(keep time.Duration, limit int, now func() time.Time) *verified {
	v := &verified{keep: keep, limit: limit, now: now, until: make(map[[sha256.Size]byte]time.Time)}
	_, _ = rand.Read(v.key[:]) // never fails (crypto/rand)
	return v
}

func (v *verified) mac(clientID string, s Secret, presented string) [sha256.Size]byte {
	m := hmac.New(sha256.New, v.key[:])
	m.Write(s.tag[:])
	// A length in front of the id: no id and secret can pass for another pair.
	m.Write(binary.BigEndian.AppendUint64(nil, uint64(len(clientID))))
	m.Write([]byte(clientID))
	m.Write([]byte(presented))
	return [sha256.Size]byte(m.Sum(nil))
}

// has tells whether presented was accepted for s a short while ago.
func (v *verified) has(clientID string, s Secret, presented string) bool {
	if v.keep <= 0 || !s.slow() {
		return false
	}
	mac := v.mac(clientID, s, presented)
	v.mu.Lock()
	defer v.mu.Unlock()
	until, ok := v.until[mac]
	return ok && v.now().Before(until)
}

// add remembers that s accepted presented. Using an entry does not prolong it.
func (v *verified) add(clientID string, s Secret, presented string) {
	if v.keep <= 0 || !s.slow() {
		return
	}
	mac := v.mac(clientID, s, presented)
	v.mu.Lock()
	defer v.mu.Unlock()
	now := v.now()
	if len(v.until) >= v.limit {
		for k, until := range v.until {
			if !now.Before(until) {
				delete(v.until, k)
			}
		}
	}
	if len(v.until) >= v.limit {
		clear(v.until) // rare, and costs each client one hash
	}
	v.until[mac] = now.Add(v.keep)
}
