package issuer

import (
	"bytes"
	"strconv"
	"unicode/utf8"

	"github.com/edge-revocation/caddy-token-revocation/revocation/internal/jsontext"
)

// maxDepth bounds the nesting of a token's JSON, and with it the recursion here.
const maxDepth = 32

// fewNames is up to how many names of one object are compared one by one to
// find duplicates. Larger objects get a map, so that a token full of names costs
// linear time.
const fewNames = 24

type kind uint8

const (
	kindString  kind = iota
	kindEscaped      // a string with at least one escape
	kindNumber
	kindTrue
	kindFalse
	kindNull
	kindArray
	kindObject
)

// member is one name and value of the outermost object.
type member struct {
	name []byte // unescaped
	// value is the JSON text of the value; of strings, what is between the
	// quotes.
	value []byte
	kind  kind
}

// scanner checks a JSON text (RFC 8259) and lists the members of its outermost
// object. It is stricter than encoding/json where two readers could understand
// one text differently: a name that occurs twice in an object, at any level,
// invalid UTF-8, half a surrogate pair, and numbers beyond the range of a double
// are errors (RFC 7519, section 4; RFC 7493). Names are compared after
// unescaping and with case.
//
// A scanner can be used again; its slices refer to the scanned text and are
// valid until then.
type scanner struct {
	text    []byte
	pos     int
	depth   int
	members []member
	names   [][]byte // of the nested objects that are open
	decoded []byte   // names that had to be unescaped
}

func (s *scanner) reset(text []byte) {
	s.text, s.pos, s.depth = text, 0, 0
	s.members, s.names, s.decoded = s.members[:0], s.names[:0], s.decoded[:0]
}

// scan reads text, which must be one object and nothing else but white space.
func (s *scanner) scan(text []byte) error {
	s.reset(text)
	s.space()
	if s.pos >= len(s.text) || s.text[s.pos] != '{' {
		return malformedError("not a JSON object")
	}
	if err := s.object(true); err != nil {
		return err
	}
	s.space()
	if s.pos != len(s.text) {
		return malformedError("something follows the JSON object")
	}
	return nil
}

// find returns the member with exactly this name.
func (s *scanner) find(name string) (member, bool) {
	for i := range s.members {
		if string(s.members[i].name) == name {
			return s.members[i], true
		}
	}
	return member{}, false
}

func (s *scanner) space() {
	for s.pos < len(s.text) {
		switch s.text[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// next skips white space and returns the byte that follows, zero at the end.
func (s *scanner) next() byte {
	if s.pos < len(s.text) && s.text[s.pos] > ' ' {
		return s.text[s.pos]
	}
	s.space()
	if s.pos < len(s.text) {
		return s.text[s.pos]
	}
	return 0
}

func (s *scanner) enter() error {
	if s.depth++; s.depth > maxDepth {
		return malformedError("nested too deeply")
	}
	s.pos++ // the bracket
	return nil
}

func (s *scanner) leave() {
	s.depth--
	s.pos++
}

// object reads the object at pos.
func (s *scanner) object(outermost bool) error {
	if err := s.enter(); err != nil {
		return err
	}
	if s.next() == '}' {
		s.leave()
		return nil
	}
	first := len(s.names)
	var many map[string]struct{}
	for count := 0; ; count++ {
		name, err := s.name()
		if err != nil {
			return err
		}
		if count == fewNames {
			many = make(map[string]struct{}, 4*fewNames)
			for _, n := range s.names[first:] {
				many[string(n)] = struct{}{}
			}
		}
		if many != nil {
			if _, found := many[string(name)]; found {
				return errDuplicate
			}
			many[string(name)] = struct{}{}
		} else {
			for _, n := range s.names[first:] {
				if bytes.Equal(n, name) {
					return errDuplicate
				}
			}
			s.names = append(s.names, name)
		}
		value, kind, err := s.value()
		if err != nil {
			return err
		}
		if outermost {
			s.members = append(s.members, member{name: name, value: value, kind: kind})
		}
		switch s.next() {
		case ',':
			s.pos++
		case '}':
			s.names = s.names[:first]
			s.leave()
			return nil
		default:
			return malformedError("an object has no end")
		}
	}
}

const errDuplicate = malformedError("a name occurs twice in one JSON object")

// name reads a member's name and the colon after it.
func (s *scanner) name() ([]byte, error) {
	if s.next() != '"' {
		return nil, malformedError("a member has no name")
	}
	name, kind, err := s.str()
	if err != nil {
		return nil, err
	}
	if kind == kindEscaped {
		start := len(s.decoded)
		s.decoded = unescape(s.decoded, name)
		name = s.decoded[start:len(s.decoded):len(s.decoded)]
	}
	if s.next() != ':' {
		return nil, malformedError("a member has no value")
	}
	s.pos++
	return name, nil
}

func (s *scanner) array() error {
	if err := s.enter(); err != nil {
		return err
	}
	if s.next() == ']' {
		s.leave()
		return nil
	}
	for {
		if _, _, err := s.value(); err != nil {
			return err
		}
		switch s.next() {
		case ',':
			s.pos++
		case ']':
			s.leave()
			return nil
		default:
			return malformedError("an array has no end")
		}
	}
}

// value reads the value at pos and returns its text.
func (s *scanner) value() (text []byte, k kind, err error) {
	c := s.next()
	start := s.pos
	switch {
	case c == '"':
		return s.str()
	case c == '{':
		k, err = kindObject, s.object(false)
	case c == '[':
		k, err = kindArray, s.array()
	case c == '-' || '0' <= c && c <= '9':
		k, err = kindNumber, s.number()
	case c == 't':
		k, err = kindTrue, s.literal("true")
	case c == 'f':
		k, err = kindFalse, s.literal("false")
	case c == 'n':
		k, err = kindNull, s.literal("null")
	default:
		err = malformedError("a JSON value is missing")
	}
	if err != nil {
		return nil, k, err
	}
	return s.text[start:s.pos:s.pos], k, nil
}

func (s *scanner) literal(word string) error {
	if len(s.text)-s.pos < len(word) || string(s.text[s.pos:s.pos+len(word)]) != word {
		return malformedError("a JSON value is missing")
	}
	s.pos += len(word)
	return nil
}

func (s *scanner) digits() bool {
	start := s.pos
	for s.pos < len(s.text) && '0' <= s.text[s.pos] && s.text[s.pos] <= '9' {
		s.pos++
	}
	return s.pos > start
}

func (s *scanner) number() error {
	start := s.pos
	if s.text[s.pos] == '-' {
		s.pos++
	}
	if s.pos < len(s.text) && s.text[s.pos] == '0' {
		s.pos++
	} else if !s.digits() {
		return errNumber
	}
	if s.pos < len(s.text) && s.text[s.pos] == '.' {
		s.pos++
		if !s.digits() {
			return errNumber
		}
	}
	exponent := false
	if s.pos < len(s.text) && (s.text[s.pos] == 'e' || s.text[s.pos] == 'E') {
		exponent = true
		s.pos++
		if s.pos < len(s.text) && (s.text[s.pos] == '+' || s.text[s.pos] == '-') {
			s.pos++
		}
		if !s.digits() {
			return errNumber
		}
	}
	// Readers differ in what they make of a number that a double cannot hold.
	if exponent || s.pos-start > 300 {
		if _, err := strconv.ParseFloat(string(s.text[start:s.pos]), 64); err != nil {
			return malformedError("a number is out of range")
		}
	}
	return nil
}

const errNumber = malformedError("a number is not one in JSON")

// plain has the ASCII bytes that stand for themselves in a string.
var plain = func() (t [256]bool) {
	for c := byte(' '); c < utf8.RuneSelf; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// str reads the string at pos and returns what is between its quotes.
func (s *scanner) str() ([]byte, kind, error) {
	s.pos++
	start, k := s.pos, kindString
	for s.pos < len(s.text) {
		pos := s.pos
		for pos < len(s.text) && plain[s.text[pos]] {
			pos++
		}
		if s.pos = pos; pos == len(s.text) {
			break
		}
		switch c := s.text[s.pos]; {
		case c == '"':
			text := s.text[start:s.pos:s.pos]
			s.pos++
			return text, k, nil
		case c == '\\':
			k = kindEscaped
			if !s.escape() {
				return nil, k, malformedError("a string has an invalid escape")
			}
		case c < ' ':
			return nil, k, malformedError("a string has a control character")
		default:
			r, size := utf8.DecodeRune(s.text[s.pos:])
			if r == utf8.RuneError && size <= 1 {
				return nil, k, malformedError("a string is not valid UTF-8")
			}
			s.pos += size
		}
	}
	return nil, k, malformedError("a string has no end")
}

// escape reads the escape sequence at pos; of a surrogate pair, both halves.
func (s *scanner) escape() bool {
	rest := s.text[s.pos:]
	if len(rest) < 2 {
		return false
	}
	switch rest[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.pos += 2
		return true
	case 'u':
	default:
		return false
	}
	_, size, ok := jsontext.Unicode(rest)
	if !ok {
		return false
	}
	s.pos += size
	return true
}
