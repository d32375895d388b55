package ledger

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// item is one revocation of an entry, which may hold many: by its criteria, or
// by their fingerprint if nothing else is left of them.
type item struct {
	revocation *revocation.Revocation
	held       *revocation.HeldEntry
}

func (i item) expires() int64 {
	if i.held != nil {
		return i.held.Expires
	}
	return i.revocation.Expires
}

// covers tells whether the item by itself denies everything that r denies, for at
// least as long.
func (i item) covers(r *revocation.Revocation) bool {
	print := r.Criteria.Fingerprint(r.Mode)
	if h := i.held; h != nil {
		return h.Fingerprint == print && h.Cutoff >= r.Cutoff && h.Expires >= r.Expires
	}
	d := i.revocation
	return d.Mode == r.Mode && d.Criteria.Fingerprint(d.Mode) == print && d.Cutoff >= r.Cutoff && d.Expires >= r.Expires
}

// decodeEntry reads an entry: one revocation, or several in "entries". If any of
// them breaks the rules, there are none. Its error is a [VersionError] or wraps
// [ErrPayload]; neither quotes the entry.
func decodeEntry(data []byte) ([]item, error) {
	rec, err := decode(data)
	if err != nil {
		return nil, err
	}
	if other := rec.has & (hasEntry | hasLedger); other != 0 {
		return nil, fmt.Errorf("%w: an entry with the member %s", ErrPayload, other.first())
	}
	if rec.has&hasEntries == 0 {
		r, err := rec.revocation()
		if err != nil {
			return nil, err
		}
		return []item{{revocation: r}}, nil
	}
	if other := rec.has &^ hasEntries; other != 0 {
		return nil, fmt.Errorf("%w: %s next to entries", ErrPayload, other.first())
	}
	var items []item
	err = scanArray(rec.entries, func(raw []byte) error {
		i, err := rec.item(raw)
		if err != nil {
			return fmt.Errorf("entries[%d]: %w", len(items), err)
		}
		items = append(items, i)
		return nil
	})
	switch {
	case err != nil && !errors.Is(err, ErrPayload):
		return nil, fmt.Errorf("%w: %w", ErrPayload, err)
	case err != nil:
		return nil, err
	case len(items) == 0:
		return nil, fmt.Errorf("%w: entries is empty", ErrPayload)
	}
	return items, nil
}

// item decodes one element of entries. It inherits what the message says about
// who decided, when and why.
func (r *record) item(raw []byte) (item, error) {
	rec := &record{reason: r.reason, actor: r.actor, decidedAt: r.decidedAt}
	err := scanMembers(raw, func(name string, raw []byte) error {
		if err := rec.setItem(name, raw); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrPayload, name, err)
		}
		return nil
	})
	if err != nil {
		return item{}, err
	}
	if rec.has&hasFingerprint == 0 {
		if other := rec.has & (hasMode | hasNames); other != 0 {
			return item{}, fmt.Errorf("%w: %s without fingerprint", ErrPayload, other.first())
		}
		d, err := rec.revocation()
		return item{revocation: d}, err
	}
	h, err := rec.heldEntry()
	return item{held: h}, err
}

func (r *record) setItem(name string, raw []byte) (err error) {
	switch name {
	case "v", "entries", "entry", "ledger":
		return errors.New("belongs to the message")
	case "fingerprint":
		r.has |= hasFingerprint
		r.fingerprint, err = fingerprint(raw)
	case "mode":
		r.has |= hasMode
		r.mode, err = mode(raw)
	case "names":
		r.has |= hasNames
		err = scanArray(raw, func(raw []byte) error {
			if len(r.names) == revocation.MaxCriteriaClaims {
				return fmt.Errorf("more than %d", revocation.MaxCriteriaClaims)
			}
			s, err := text(raw, revocation.MaxClaimName)
			r.names = append(r.names, s)
			return err
		})
	default:
		err = r.set(name, raw)
	}
	return err
}

// heldEntry returns what the record says about criteria of which only the
// fingerprint is known.
func (r *record) heldEntry() (*revocation.HeldEntry, error) {
	if err := r.require(hasMode | hasNames | hasExpires); err != nil {
		return nil, err
	}
	if other := r.has & (hasIssuer | hasCriteria); other != 0 {
		return nil, fmt.Errorf("%w: %s next to fingerprint", ErrPayload, other.first())
	}
	mode, cutoff, err := r.cutoff()
	if err != nil {
		return nil, err
	}
	if mode != r.mode {
		return nil, fmt.Errorf("%w: the mode does not fit the cutoff", ErrPayload)
	}
	h := &revocation.HeldEntry{
		Fingerprint: r.fingerprint, Mode: mode, Names: r.names, Cutoff: cutoff, Expires: r.expires, Actor: r.actor,
	}
	if err := h.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPayload, err)
	}
	return h, nil
}

func fingerprint(raw []byte) (print revocation.Fingerprint, err error) {
	s, err := unquote(raw)
	if err != nil {
		return print, err
	}
	if len(s) != 2*len(print) || bytes.ContainsAny([]byte(s), "ABCDEF") {
		return print, errors.New("not 32 lower-case hexadecimal digits")
	}
	if _, err := hex.Decode(print[:], []byte(s)); err != nil {
		return print, errors.New("not 32 lower-case hexadecimal digits")
	}
	return print, nil
}

func mode(raw []byte) (revocation.Mode, error) {
	s, err := unquote(raw)
	if err != nil {
		return 0, err
	}
	for m := revocation.Mode(0); m.Valid(); m++ {
		if m.String() == s {
			return m, nil
		}
	}
	return 0, errors.New("unknown mode")
}

// wireHeld is the JSON of a revocation of which only the fingerprint is known.
type wireHeld struct {
	Fingerprint         string   `json:"fingerprint"`
	Mode                string   `json:"mode"`
	Names               []string `json:"names"`
	IssuedBefore        int64    `json:"issued_before,omitempty"`
	AuthenticatedBefore int64    `json:"authenticated_before,omitempty"`
	Expires             int64    `json:"expires"`
	Actor               string   `json:"actor,omitempty"`
}

func encodeHeld(h *revocation.HeldEntry) (any, error) {
	if err := h.Validate(); err != nil {
		return nil, err
	}
	if h.Expires > maxDate || h.Cutoff > maxDate {
		return nil, fmt.Errorf("%w: a time beyond the year 9999", revocation.ErrInvalidRevocation)
	}
	w := wireHeld{
		Fingerprint: h.Fingerprint.String(), Mode: h.Mode.String(), Names: slices.Clone(h.Names),
		Expires: h.Expires, Actor: h.Actor,
	}
	if w.Names == nil {
		w.Names = []string{}
	}
	switch h.Mode {
	case revocation.IssuedBefore:
		w.IssuedBefore = h.Cutoff
	case revocation.AuthenticatedBefore:
		w.AuthenticatedBefore = h.Cutoff
	case revocation.Block:
	}
	return w, nil
}

// pack encodes as many of the n items as fit into one entry, from the first on,
// and returns how many. The error is about the first item; one that is at fault
// further on ends the pack before it.
func pack(n int, encoded func(i int) (any, error)) (data []byte, packed int, err error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"v":%d,"entries":[`, PayloadVersion)
	const end = `]}`
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	for i := range n {
		before := b.Len()
		if i > 0 {
			b.WriteByte(',')
		}
		v, err := encoded(i)
		if err == nil {
			err = e.Encode(v)
		}
		if err == nil {
			b.Truncate(b.Len() - 1) // the encoder ends each value with a line feed
		}
		if err == nil && b.Len()+len(end) > MaxPayload {
			err = fmt.Errorf("%w: more than %d bytes", revocation.ErrInvalidRevocation, MaxPayload)
		}
		if err != nil {
			if i == 0 {
				return nil, 0, err
			}
			b.Truncate(before)
			break
		}
		packed++
	}
	b.WriteString(end)
	return b.Bytes(), packed, nil
}
