package oauth

import (
	"runtime"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation/internal/turns"
)

// Bounds of the queue for slow hashes. Each of them takes a core for a good part
// of a second, and argon2id up to 256 MiB: without a bound, a few dozen wrong
// passwords a second would stop everything else that this process does. An
// unknown id costs a hash like a known one.
const (
	// maxQueuedOfNetwork is how many requests of one network may wait: enough
	// for the clients behind one address that all start at the same time.
	maxQueuedOfNetwork = 8
	maxQueued          = 1024
)

// DefaultAssertionsPerSecond is how many assertions of one client a [Guard]
// accepts a second.
const DefaultAssertionsPerSecond = 50

// GuardOptions configure a [Guard]. The zero value has all defaults.
type GuardOptions struct {
	// FailuresPerMinute is how often one client id may fail to authenticate from
	// one IPv4 address or IPv6 /64 before it is answered with 429. Zero means
	// [DefaultFailuresPerMinute], negative no limit.
	FailuresPerMinute int
	// HashConcurrency is how many bcrypt or argon2id hashes are computed at
	// once. Zero or less means half of GOMAXPROCS, at least one.
	HashConcurrency int
	// HashWait is how long a request waits for its turn before it is answered
	// with 503. Networks take turns, and a few requests of each may wait; further
	// ones are answered with 429 at once. Zero means [DefaultHashWait].
	HashWait time.Duration
	// VerifiedFor is how long a secret that a slow hash accepted is accepted
	// without computing it again. Zero means [DefaultVerifiedFor], negative
	// that it is computed each time.
	VerifiedFor time.Duration
	// AssertionsPerSecond is how many assertions of one client are accepted a
	// second, after bursts of twice as many; the others are answered with 429,
	// and may be sent again. Each accepted one is recorded for the whole fleet.
	// Zero means [DefaultAssertionsPerSecond], negative no limit.
	AssertionsPerSecond int
	// Now returns the time. Nil means time.Now.
	Now func() time.Time
}

// Guard protects client authentication against guessing: it counts failures,
// bounds the hashes that are computed at once and the assertions that are
// recorded, and remembers the secrets that a hash has accepted. It belongs to the process rather than to an endpoint. With
// one Guard for all of them, neither a second endpoint nor a reload of the
// configuration gives an attacker a new set of guesses. A Guard is safe for
// concurrent use, and needs not be closed.
type Guard struct {
	throttle *throttle // nil: off
	hashes   *turns.Limiter
	verified *verified
	spending *pace // of assertions, by client; nil: off
	passing  *upstreamThrottle
}

// NewGuard returns a guard without any failure counted.
func NewGuard(o GuardOptions) *Guard {
	if o.HashConcurrency <= 0 {
		o.HashConcurrency = max(1, runtime.GOMAXPROCS(0)/2)
	}
	setDefault(&o.HashWait, DefaultHashWait)
	setDefault(&o.VerifiedFor, DefaultVerifiedFor)
	setDefault(&o.FailuresPerMinute, DefaultFailuresPerMinute)
	setDefault(&o.AssertionsPerSecond, DefaultAssertionsPerSecond)
	if o.Now == nil {
		o.Now = time.Now
	}
	g := &Guard{
		hashes: turns.New(turns.Options{
			Slots: o.HashConcurrency, Wait: o.HashWait, Queue: maxQueued, NetworkQueue: maxQueuedOfNetwork,
		}),
		verified: newVerified(o.VerifiedFor, maxVerified, o.Now),
	}
	if o.FailuresPerMinute > 0 {
		g.throttle = newThrottle(o.FailuresPerMinute, o.Now)
		g.passing = newUpstreamThrottle(o.Now)
	}
	if o.AssertionsPerSecond > 0 {
		g.spending = newPace(o.AssertionsPerSecond, 2*o.AssertionsPerSecond, o.Now)
	}
	return g
}
