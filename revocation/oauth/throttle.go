package oauth

import (
	"container/list"
	"crypto/sha256"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation/internal/turns"
)

const (
	throttleWindow = time.Minute
	// maxThrottled bounds the memory of a throttle to a few megabytes. To push
	// one counter out, an attacker has to fail this often within the window.
	maxThrottled = 16384
)

// throttle slows the guessing of secrets down: a client id from one network may
// fail a few times a minute. Only failures count, so that no client is slowed
// down by its own work, and never an id alone: anybody could lock a client out by
// failing in its name (RFC 6749, section 2.3.1, asks for protection, not for
// that).
type throttle struct {
	limit int
	now   func() time.Time

	mu      sync.Mutex
	entries map[throttleKey]*list.Element
	byAge   list.List // of *throttleEntry, the longest without failure first
}

// throttleKey is a hash, since the id is whatever was sent, of whatever length.
type throttleKey [16]byte

type throttleEntry struct {
	key      throttleKey
	failures []time.Time // within the window, oldest first, at most limit
}

func newThrottle(limit int, now func() time.Time) *throttle {
	return &throttle{limit: limit, now: now, entries: make(map[throttleKey]*list.Element)}
}

// throttleKeyOf returns the key of an id and the network of addr, and false if
// the address is not known.
func throttleKeyOf(clientID string, addr netip.Addr) (throttleKey, bool) {
	network, ok := turns.Network(addr)
	if !ok {
		return throttleKey{}, false
	}
	b, err := network.MarshalBinary()
	if err != nil { // never, for a valid prefix
		return throttleKey{}, false
	}
	sum := sha256.Sum256(append(append([]byte{byte(len(b))}, b...), clientID...))
	return throttleKey(sum[:16]), true
}

// blocked returns how long the key has to wait, zero if it may try.
func (t *throttle) blocked(key throttleKey) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, ok := t.entries[key]
	if !ok {
		return 0
	}
	entry := e.Value.(*throttleEntry)
	if len(entry.failures) < t.limit {
		return 0
	}
	return max(0, entry.failures[0].Add(throttleWindow).Sub(t.now()))
}

// failed counts a failure.
func (t *throttle) failed(key throttleKey) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	t.expire(now)
	e, ok := t.entries[key]
	if !ok {
		if t.byAge.Len() >= maxThrottled {
			t.remove(t.byAge.Front())
		}
		e = t.byAge.PushBack(&throttleEntry{key: key})
		t.entries[key] = e
	}
	t.byAge.MoveToBack(e)
	entry := e.Value.(*throttleEntry)
	if len(entry.failures) == t.limit {
		copy(entry.failures, entry.failures[1:])
		entry.failures = entry.failures[:t.limit-1]
	}
	entry.failures = append(entry.failures, now)
}

// expire forgets entries whose last failure has left the window.
func (t *throttle) expire(now time.Time) {
	for e := t.byAge.Front(); e != nil; e = t.byAge.Front() {
		failures := e.Value.(*throttleEntry).failures
		if now.Sub(failures[len(failures)-1]) < throttleWindow {
			return
		}
		t.remove(e)
	}
}

func (t *throttle) remove(e *list.Element) {
	delete(t.entries, e.Value.(*throttleEntry).key)
	t.byAge.Remove(e)
}

// peerIP is the default of [EndpointOptions.ClientIP].
func peerIP(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	return addr
}
