package ledger

import (
	"errors"
	"fmt"
	"math/bits"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// members is a set of the members that an entry has.
type members uint16

const (
	hasIssuer members = 1 << iota
	hasCriteria
	hasExpires
	hasLedger
	hasIssuedBefore
	hasAuthenticatedBefore
	hasEntries
	hasEntry
	hasFingerprint
	hasMode
	hasNames
)

// memberNames are in the order of the bits.
var memberNames = [...]string{
	"issuer", "criteria", "expires", "ledger", "issued_before", "authenticated_before",
	"entries", "entry", "fingerprint", "mode", "names",
}

// first returns the name of the first member in the set.
func (m members) first() string { return memberNames[bits.TrailingZeros16(uint16(m))] }

// record is what the members of an entry of any kind say.
type record struct {
	has                               members
	id, issuer, reason, actor, ledger string
	criteria                          map[string]string
	issuedBefore, authenticatedBefore int64
	expires, decidedAt                int64
	entry                             uint64 // a sequence
	entries                           []byte // a JSON array

	// Of one among several only.
	fingerprint revocation.Fingerprint
	mode        revocation.Mode
	names       []string
}

// revocation returns what a record says that was decoded as an entry.
func (r *record) revocation() (*revocation.Revocation, error) {
	if err := r.require(hasIssuer | hasCriteria | hasExpires); err != nil {
		return nil, err
	}
	d := &revocation.Revocation{
		ID: r.id, Criteria: revocation.Criteria{Issuer: r.issuer, Claims: r.criteria},
		Expires: r.expires, Reason: r.reason, Actor: r.actor, DecidedAt: r.decidedAt,
	}
	var err error
	if d.Mode, d.Cutoff, err = r.cutoff(); err != nil {
		return nil, err
	}
	return d, validated(d, &d.ID)
}

// cutoff returns the mode that the record's members imply.
func (r *record) cutoff() (mode revocation.Mode, cutoff int64, err error) {
	switch {
	case r.has&hasIssuedBefore != 0 && r.has&hasAuthenticatedBefore != 0:
		return 0, 0, fmt.Errorf("%w: both issued_before and authenticated_before", ErrPayload)
	case r.has&hasIssuedBefore != 0:
		mode, cutoff = revocation.IssuedBefore, r.issuedBefore
	case r.has&hasAuthenticatedBefore != 0:
		mode, cutoff = revocation.AuthenticatedBefore, r.authenticatedBefore
	}
	if cutoff > maxDate {
		return 0, 0, fmt.Errorf("%w: the cutoff is beyond the year 9999 (milliseconds instead of seconds?)", ErrPayload)
	}
	return mode, cutoff, nil
}

// acknowledgment says that an entry which could not be read does not matter any
// more.
type acknowledgment struct {
	sequence uint64
}

// decodeRestore reads a restore: either the undo of revocations, or an
// acknowledgment. Its error is a [VersionError] or wraps [ErrPayload]; neither
// quotes the entry.
func decodeRestore(data []byte) (*revocation.Restoration, *acknowledgment, error) {
	rec, err := decode(data)
	if err != nil {
		return nil, nil, err
	}
	if other := rec.has & (hasEntries | hasLedger | hasIssuedBefore | hasAuthenticatedBefore); other != 0 {
		return nil, nil, fmt.Errorf("%w: a restore with the member %s", ErrPayload, other.first())
	}
	if rec.has&hasEntry != 0 {
		if other := rec.has &^ hasEntry; other != 0 {
			return nil, nil, fmt.Errorf("%w: an acknowledgment with the member %s", ErrPayload, other.first())
		}
		return nil, &acknowledgment{sequence: rec.entry}, nil
	}
	if err := rec.require(hasIssuer | hasCriteria | hasExpires); err != nil {
		return nil, nil, err
	}
	r := &revocation.Restoration{
		ID: rec.id, Criteria: revocation.Criteria{Issuer: rec.issuer, Claims: rec.criteria},
		Expires: rec.expires, Reason: rec.reason, Actor: rec.actor, DecidedAt: rec.decidedAt,
	}
	return r, nil, validated(r, &r.ID)
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
	if other := rec.has & (hasIssuer | hasCriteria | hasExpires | hasLedger | hasEntries | hasEntry); other != 0 {
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
		err := r.set(m.name, m.raw)
		switch m.name {
		case "entries":
			r.has |= hasEntries
			r.entries = m.raw
		case "entry":
			r.has |= hasEntry
			var sequence int64
			if sequence, err = integer(m.raw); err == nil && sequence < 1 {
				err = errors.New("not a sequence")
			}
			r.entry = uint64(max(sequence, 0))
		}
		if err != nil {
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
