package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// PayloadVersion is the newest version of entries that this package reads, and
// the one that it writes.
const PayloadVersion = 1

// MaxPayload bounds an entry. The largest valid revocation fits, with every
// character escaped.
const MaxPayload = 72 << 10

const (
	maxEdge     = 256          // bytes
	maxDate     = 253402300799 // the end of the year 9999, in Unix seconds
	maxLedgerID = 64           // bytes
)

// Kind is what an entry does. It is the last token of the entry's subject, so
// that the server's permissions apply to it.
type Kind string

// The kinds of entries.
const (
	KindEntry     Kind = "entry"
	KindRestore   Kind = "restore"
	KindHeartbeat Kind = "heartbeat"
	KindGenesis   Kind = "genesis"
	// KindAssertion records that a client's assertion was used. Its messages
	// have a subject each, one token below the kind's own.
	KindAssertion Kind = "assertion"
	// KindRecheck says that what was introspected has to be asked again.
	KindRecheck Kind = "recheck"
)

// SubjectPrefix is what the subjects of all entries begin with.
const SubjectPrefix = "token_revocation.v1."

// Subject is where entries of the kind are published.
func (k Kind) Subject() string { return SubjectPrefix + string(k) }

// ErrPayload is wrapped by errors about entries that break the rules.
var ErrPayload = errors.New("invalid ledger entry")

// VersionError reports an entry that a newer version of this program wrote. It
// may be a revocation, so that an edge which meets one is incomplete.
type VersionError struct {
	Version int64
	// Expires is when the entry ends, in Unix seconds, if it says so as entries
	// of this version do; else zero.
	Expires int64
}

// Error implements error.
func (e *VersionError) Error() string {
	return fmt.Sprintf("the ledger entry has version %d, this program reads up to %d", e.Version, PayloadVersion)
}

// wireEntry is the JSON of an entry or a restore.
type wireEntry struct {
	Version             int               `json:"v,omitempty"` // not of one among several
	ID                  string            `json:"id,omitempty"`
	Issuer              string            `json:"issuer"`
	Criteria            map[string]string `json:"criteria"`
	IssuedBefore        int64             `json:"issued_before,omitempty"`
	AuthenticatedBefore int64             `json:"authenticated_before,omitempty"`
	Expires             int64             `json:"expires"`
	Reason              string            `json:"reason,omitempty"`
	Actor               string            `json:"actor,omitempty"`
	DecidedAt           int64             `json:"decided_at,omitempty"`
}

// wireAcknowledgment is the JSON of a restore that names an entry.
type wireAcknowledgment struct {
	Version   int    `json:"v"`
	ID        string `json:"id,omitempty"`
	Entry     uint64 `json:"entry"`
	Reason    string `json:"reason,omitempty"`
	Actor     string `json:"actor,omitempty"`
	DecidedAt int64  `json:"decided_at,omitempty"`
}

type wireHeartbeat struct {
	Version int    `json:"v"`
	ID      string `json:"id,omitempty"`
	Edge    string `json:"edge,omitempty"`
	At      int64  `json:"at,omitempty"`
}

type wireGenesis struct {
	Version int    `json:"v"`
	Ledger  string `json:"ledger"`
	At      int64  `json:"at,omitempty"`
}

// encodeRevocation returns r as an entry. The error wraps those of
// [revocation.Revocation.Validate].
func encodeRevocation(r *revocation.Revocation) ([]byte, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	return encodeEntry(wireRevocation(r))
}

// wireRevocation returns a valid r in its form on the wire.
func wireRevocation(r *revocation.Revocation) wireEntry {
	w := wireEntry{
		Version: PayloadVersion, ID: r.ID, Issuer: r.Criteria.Issuer, Criteria: r.Criteria.Claims,
		Expires: r.Expires, Reason: r.Reason, Actor: r.Actor, DecidedAt: r.DecidedAt,
	}
	switch r.Mode {
	case revocation.Block:
	case revocation.IssuedBefore:
		w.IssuedBefore = r.Cutoff
	case revocation.AuthenticatedBefore:
		w.AuthenticatedBefore = r.Cutoff
	}
	return w
}

// encodeRestoration returns r as a restore.
func encodeRestoration(r *revocation.Restoration) ([]byte, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	return encodeEntry(wireEntry{
		Version: PayloadVersion, ID: r.ID, Issuer: r.Criteria.Issuer, Criteria: r.Criteria.Claims,
		Expires: r.Expires, Reason: r.Reason, Actor: r.Actor, DecidedAt: r.DecidedAt,
	})
}

func encodeEntry(w wireEntry) ([]byte, error) {
	if err := w.prepare(); err != nil {
		return nil, err
	}
	return encode(w)
}

func (w *wireEntry) prepare() error {
	if w.Criteria == nil {
		w.Criteria = map[string]string{} // "null" is not a criteria
	}
	if w.Expires > maxDate || w.IssuedBefore > maxDate || w.AuthenticatedBefore > maxDate {
		return fmt.Errorf("%w: a time beyond the year 9999", revocation.ErrInvalidRevocation)
	}
	return nil
}

func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("encoding a ledger entry: %w", err)
	}
	data := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	if len(data) > MaxPayload {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", revocation.ErrInvalidRevocation, len(data), MaxPayload)
	}
	return data, nil
}

// entryID returns the id of an entry that has none of its own, the nth of a
// message.
func entryID(messageID string, sequence uint64, nth, of int) string {
	room := 64
	if of > 1 {
		room -= 8 // for the number
	}
	id := fmt.Sprintf("sequence-%d", sequence)
	if messageID != "" && len(messageID) <= room && utf8.ValidString(messageID) {
		id = messageID
	}
	if of > 1 {
		id = fmt.Sprintf("%s.%d", id, nth)
	}
	return id
}

// messageTTL returns how long the server has to keep an entry that ends at
// expires (Unix seconds): whole seconds, rounded up, with room for clocks that
// disagree, at least one second. The server reads a TTL of 1.9s as 1s, and loses
// messages whose end does not fit into 64 bits of nanoseconds (the year 2262).
func messageTTL(expires int64, now time.Time, skew time.Duration) time.Duration {
	const most = 100 * 365 * 24 * 3600
	seconds := expires - now.Unix() // rounds up: now's fraction is dropped
	seconds = min(max(seconds, 1), most)
	return time.Duration(seconds)*time.Second + (skew+time.Second-1)/time.Second*time.Second
}
