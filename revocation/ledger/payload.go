package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
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
	Version             int               `json:"v"`
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
	default:
		return nil, fmt.Errorf("%w: mode %s has no entry", revocation.ErrInvalidRevocation, r.Mode)
	}
	return encodeEntry(w)
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
	if w.Criteria == nil {
		w.Criteria = map[string]string{} // "null" is not a criteria
	}
	if w.Expires > maxDate {
		return nil, fmt.Errorf("%w: the end is beyond the year 9999", revocation.ErrInvalidRevocation)
	}
	return encode(w)
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

// members is a set of the members that an entry has.
type members uint16

const (
	hasIssuer members = 1 << iota
	hasCriteria
	hasExpires
	hasLedger
	hasIssuedBefore
	hasAuthenticatedBefore
)

// memberNames are in the order of the bits.
var memberNames = [...]string{"issuer", "criteria", "expires", "ledger", "issued_before", "authenticated_before"}

// first returns the name of the first member in the set.
func (m members) first() string { return memberNames[bits.TrailingZeros16(uint16(m))] }

// record is what the members of an entry of any kind say.
type record struct {
	has                               members
	id, issuer, reason, actor, ledger string
	criteria                          map[string]string
	issuedBefore, authenticatedBefore int64
	expires, decidedAt                int64
}

// decodeRevocation reads an entry. Its error is a [VersionError] or wraps
// [ErrPayload]; neither quotes the entry.
func decodeRevocation(data []byte) (*revocation.Revocation, error) {
	rec, err := decode(data)
	if err != nil {
		return nil, err
	}
	if err := rec.require(hasIssuer | hasCriteria | hasExpires); err != nil {
		return nil, err
	}
	r := &revocation.Revocation{
		ID: rec.id, Criteria: revocation.Criteria{Issuer: rec.issuer, Claims: rec.criteria},
		Expires: rec.expires, Reason: rec.reason, Actor: rec.actor, DecidedAt: rec.decidedAt,
	}
	switch {
	case rec.has&hasIssuedBefore != 0 && rec.has&hasAuthenticatedBefore != 0:
		return nil, fmt.Errorf("%w: both issued_before and authenticated_before", ErrPayload)
	case rec.has&hasIssuedBefore != 0:
		r.Mode, r.Cutoff = revocation.IssuedBefore, rec.issuedBefore
	case rec.has&hasAuthenticatedBefore != 0:
		r.Mode, r.Cutoff = revocation.AuthenticatedBefore, rec.authenticatedBefore
	}
	if r.Cutoff > maxDate {
		return nil, fmt.Errorf("%w: the cutoff is beyond the year 9999 (milliseconds instead of seconds?)", ErrPayload)
	}
	return r, validated(r, &r.ID)
}

// decodeRestoration reads a restore, with the errors of decodeRevocation.
func decodeRestoration(data []byte) (*revocation.Restoration, error) {
	rec, err := decode(data)
	if err != nil {
		return nil, err
	}
	if err := rec.require(hasIssuer | hasCriteria | hasExpires); err != nil {
		return nil, err
	}
	if rec.has&(hasIssuedBefore|hasAuthenticatedBefore) != 0 {
		return nil, fmt.Errorf("%w: a restore with a cutoff", ErrPayload)
	}
	r := &revocation.Restoration{
		ID: rec.id, Criteria: revocation.Criteria{Issuer: rec.issuer, Claims: rec.criteria},
		Expires: rec.expires, Reason: rec.reason, Actor: rec.actor, DecidedAt: rec.decidedAt,
	}
	return r, validated(r, &r.ID)
}

// validated runs the core's validation, with a stand-in for an absent id: the
// follower fills it in.
func validated(r interface{ Validate() error }, id *string) error {
	if *id == "" {
		*id = "absent"
		defer func() { *id = "" }()
	}
	if err := r.Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrPayload, err)
	}
	return nil
}

// decodeHeartbeat reads a heartbeat's id. A heartbeat of a newer version is one
// too: that it came through the ledger is all it has to say.
func decodeHeartbeat(data []byte) (id string, err error) {
	rec, err := decode(data)
	if newer := (*VersionError)(nil); errors.As(err, &newer) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if other := rec.has & (hasIssuer | hasCriteria | hasExpires | hasLedger); other != 0 {
		return "", fmt.Errorf("%w: a heartbeat with the member %s", ErrPayload, other.first())
	}
	return rec.id, nil
}

// decodeGenesis reads the ledger's id. A newer version has one too.
func decodeGenesis(data []byte) (ledger string, err error) {
	rec, err := decode(data)
	if err != nil {
		return "", err
	}
	if !isName(rec.ledger) || len(rec.ledger) > maxLedgerID {
		return "", fmt.Errorf("%w: the ledger's id is not 1 to %d letters, digits, - and _", ErrPayload, maxLedgerID)
	}
	return rec.ledger, nil
}

func (r *record) require(wanted members) error {
	if missing := wanted &^ r.has; missing != 0 {
		return fmt.Errorf("%w: %s is missing", ErrPayload, missing.first())
	}
	return nil
}

// decode reads the members that any kind has. The version is judged first, since
// it says what the others mean.
func decode(data []byte) (*record, error) {
	if len(data) > MaxPayload {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrPayload, len(data), MaxPayload)
	}
	type member struct {
		name string
		raw  []byte
	}
	var room [16]member
	found := room[:0]
	var version, expires int64
	err := scanObject(data, func(name string, raw []byte) error {
		switch name {
		case "v":
			v, err := integer(raw)
			if err != nil || v < 1 {
				return errors.New("v is not a positive integer")
			}
			version = v
		case "expires":
			if v, err := integer(raw); err == nil && v <= maxDate {
				expires = max(v, 0)
			}
		}
		found = append(found, member{name, raw})
		return nil
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrPayload, err)
	case version == 0:
		return nil, fmt.Errorf("%w: v is missing", ErrPayload)
	case version > PayloadVersion:
		return nil, &VersionError{Version: version, Expires: expires}
	}
	r := &record{}
	for _, m := range found {
		if err := r.set(m.name, m.raw); err != nil {
			// Only names of the list below get here, never an outsider's text.
			return nil, fmt.Errorf("%w: %s: %w", ErrPayload, m.name, err)
		}
	}
	return r, nil
}

func (r *record) set(name string, raw []byte) (err error) {
	switch name {
	case "id", "reason", "actor", "decided_at":
		if string(raw) == "null" {
			return nil // what some serializers write for "absent"
		}
	}
	switch name {
	case "id":
		r.id, err = text(raw, 64)
	case "reason":
		r.reason, err = text(raw, revocation.MaxReason)
	case "actor":
		r.actor, err = text(raw, revocation.MaxActor)
	case "issuer":
		r.has |= hasIssuer
		r.issuer, err = text(raw, revocation.MaxIssuer)
	case "ledger":
		r.has |= hasLedger
		r.ledger, err = text(raw, maxLedgerID)
	case "criteria":
		r.has |= hasCriteria
		r.criteria, err = claims(raw)
	case "issued_before":
		r.has |= hasIssuedBefore
		r.issuedBefore, err = integer(raw)
	case "authenticated_before":
		r.has |= hasAuthenticatedBefore
		r.authenticatedBefore, err = integer(raw)
	case "expires":
		r.has |= hasExpires
		if r.expires, err = integer(raw); err == nil && r.expires > maxDate {
			err = errors.New("beyond the year 9999 (milliseconds instead of seconds?)")
		}
	case "decided_at":
		r.decidedAt, err = integer(raw)
	}
	return err
}

func text(raw []byte, limit int) (string, error) {
	s, err := unquote(raw)
	if err == nil && len(s) > limit {
		err = fmt.Errorf("longer than %d bytes", limit)
	}
	return s, err
}

func claims(raw []byte) (map[string]string, error) {
	c := make(map[string]string, 2)
	err := scanMembers(raw, func(name string, raw []byte) error {
		if len(c) == revocation.MaxCriteriaClaims {
			return fmt.Errorf("more than %d claims", revocation.MaxCriteriaClaims)
		}
		value, err := unquote(raw)
		c[name] = value
		return err
	})
	return c, err
}

// entryID returns the id of an entry that has none of its own.
func entryID(messageID string, sequence uint64) string {
	if messageID != "" && len(messageID) <= 64 && utf8.ValidString(messageID) {
		return messageID
	}
	return fmt.Sprintf("sequence-%d", sequence)
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
