package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/edge-revocation/caddy-token-revocation/revocation/internal/jsontext"
)

// maxMembers bounds the members of one object, since looking for duplicates
// costs their square.
const maxMembers = 64

// scanObject calls member for each member of the JSON object in data, with the
// decoded name and the raw value. It is strict where encoding/json is not:
// names are what they are (a struct of encoding/json takes "EXPIRES" for
// "expires"), a name that occurs twice is an error (the last one wins there, the
// first one elsewhere), text is UTF-8 without lone surrogates (which would be
// replaced, and make different values equal).
func scanObject(data []byte, member func(name string, raw []byte) error) error {
	if !utf8.Valid(data) {
		return errors.New("not UTF-8")
	}
	if !validJSON(data) {
		return errors.New("not JSON")
	}
	return scanMembers(data, member)
}

// scanMembers is scanObject for a part of a value that is known to be valid.
func scanMembers(data []byte, member func(name string, raw []byte) error) error {
	s := walker{b: data}
	s.space()
	if s.b[s.i] != '{' {
		return errors.New("not a JSON object")
	}
	s.i++
	var room [16]string
	seen := room[:0]
	for {
		s.space()
		switch s.b[s.i] {
		case '}':
			return nil
		case ',':
			s.i++
			s.space()
		}
		name, err := memberName(s.value())
		if err != nil {
			return err
		}
		if slices.Contains(seen, name) {
			return errors.New("a member occurs twice")
		}
		if len(seen) == maxMembers {
			return fmt.Errorf("more than %d members", maxMembers)
		}
		seen = append(seen, name)
		s.space()
		s.i++ // the colon
		s.space()
		if err := member(name, s.value()); err != nil {
			return err
		}
	}
}

// scanArray calls element for each element of a JSON array that is known to be
// valid.
func scanArray(data []byte, element func(raw []byte) error) error {
	s := walker{b: data}
	s.space()
	if s.b[s.i] != '[' {
		return errors.New("not a JSON array")
	}
	s.i++
	for {
		s.space()
		switch s.b[s.i] {
		case ']':
			return nil
		case ',':
			s.i++
			s.space()
		}
		if err := element(s.value()); err != nil {
			return err
		}
	}
}

// walker walks through JSON that is known to be valid.
type walker struct {
	b []byte
	i int
}

func (s *walker) space() {
	for s.b[s.i] == ' ' || s.b[s.i] == '\t' || s.b[s.i] == '\n' || s.b[s.i] == '\r' {
		s.i++
	}
}

// value returns the value that begins here, and moves behind it.
func (s *walker) value() []byte {
	start := s.i
	switch s.b[s.i] {
	case '"':
		s.skipString()
	case '{', '[':
		for depth := 0; ; {
			switch s.b[s.i] {
			case '"':
				s.skipString()
				continue
			case '{', '[':
				depth++
			case '}', ']':
				depth--
			}
			s.i++
			if depth == 0 {
				return s.b[start:s.i]
			}
		}
	default: // a number or a word
		for s.i < len(s.b) && bytes.IndexByte([]byte(",}] \t\n\r"), s.b[s.i]) < 0 {
			s.i++
		}
	}
	return s.b[start:s.i]
}

func (s *walker) skipString() {
	for s.i++; s.b[s.i] != '"'; s.i++ {
		if s.b[s.i] == '\\' {
			s.i++
		}
	}
	s.i++
}

// memberName is unquote, without allocation for the names that entries have.
func memberName(raw []byte) (string, error) {
	switch string(raw) {
	case `"v"`:
		return "v", nil
	case `"id"`:
		return "id", nil
	case `"issuer"`:
		return "issuer", nil
	case `"criteria"`:
		return "criteria", nil
	case `"issued_before"`:
		return "issued_before", nil
	case `"authenticated_before"`:
		return "authenticated_before", nil
	case `"expires"`:
		return "expires", nil
	case `"reason"`:
		return "reason", nil
	case `"actor"`:
		return "actor", nil
	case `"decided_at"`:
		return "decided_at", nil
	case `"edge"`:
		return "edge", nil
	case `"at"`:
		return "at", nil
	case `"ledger"`:
		return "ledger", nil
	case `"jti"`:
		return "jti", nil
	case `"sub"`:
		return "sub", nil
	case `"fingerprint"`:
		return "fingerprint", nil
	case `"mode"`:
		return "mode", nil
	case `"names"`:
		return "names", nil
	}
	return unquote(raw)
}

var errNotString = errors.New("not a string")

// unquote decodes a JSON string that is known to be valid.
func unquote(raw []byte) (string, error) {
	if len(raw) < 2 || raw[0] != '"' {
		return "", errNotString
	}
	raw = raw[1 : len(raw)-1]
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw), nil
	}
	out, ok := jsontext.AppendUnescaped(make([]byte, 0, len(raw)), raw)
	if !ok {
		return "", errors.New("a lone surrogate") // the rest is known to be valid
	}
	return string(out), nil
}

// integer decodes a JSON number that is written as an integer. 1e3 and 5.0 are
// refused: producers that write times in floating point lose digits.
func integer(raw []byte) (int64, error) {
	v, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil {
		return 0, errors.New("not an integer")
	}
	return v, nil
}
