package denylist

import (
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Defaults of [Options].
const (
	DefaultMaxEntries = 1_000_000
	DefaultCacheBytes = 16 << 20
)

const (
	minCacheBytes = 64 << 10
	maxMaxEntries = 60_000_000 // what a checkpoint can hold
)

// Options say how a [Denylist] is bounded. The zero value is a good one.
type Options struct {
	// MaxEntries is how many entries are held at most; [DefaultMaxEntries] if
	// zero. An entry takes up to about 50 bytes, which are used only as needed.
	// At 80 % there is an alarm, from 90 % on ordinary clients' revocations of
	// single tokens are not admitted, and the last 5 % are for entries that name
	// many tokens. What the ledger brings beyond the maximum is not held, and [Denylist.Incomplete] says so.
	MaxEntries int
	// CacheBytes is the size of the identity cache; [DefaultCacheBytes] if
	// zero, at least 64 KiB. A JWT takes one and a half to two and a half
	// kilobytes.
	CacheBytes int64
	// ActorQuota is how many entries one actor that is no operator may have at a
	// time, at one issuer; a quarter of MaxEntries if zero, unlimited if negative.
	// Some 4,000 actors with entries are told apart; those beyond share one quota.
	ActorQuota int
	// OnAlarm, if not nil, is called when the number of entries reaches 80 % of
	// MaxEntries, again only after it fell below 75 %. It may run on any
	// goroutine that adds entries, and must not block. The alarm is logged in
	// any case.
	OnAlarm func(entries, maxEntries int)
	// Now is the clock; time.Now if nil. If its times carry a monotonic reading,
	// wall clock steps do not make the denylist end or delete entries early.
	Now func() time.Time
	// Logger is for conditions that an operator must know of; nothing is logged
	// if nil.
	Logger *slog.Logger

	monotonic func(now time.Time) time.Duration // for tests: now's times have no such reading there
}

func (o Options) withDefaults() (Options, error) {
	if o.MaxEntries == 0 {
		o.MaxEntries = DefaultMaxEntries
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = DefaultCacheBytes
	}
	if o.ActorQuota == 0 {
		o.ActorQuota = max(o.MaxEntries/4, 1)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case o.MaxEntries < 1 || o.MaxEntries > maxMaxEntries:
		return o, fmt.Errorf("%w: the maximum of entries is not between 1 and %d", ErrInvalidOptions, maxMaxEntries)
	case o.CacheBytes < minCacheBytes:
		return o, fmt.Errorf("%w: the identity cache is smaller than %d bytes", ErrInvalidOptions, minCacheBytes)
	}
	return o, nil
}

// ErrInvalidOptions is wrapped by the errors of [New] about its options.
var ErrInvalidOptions = errors.New("invalid denylist options")
