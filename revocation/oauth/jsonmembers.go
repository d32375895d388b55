package oauth

import (
	"encoding/json"
	"errors"
	"strings"
)

// A jsonMember is one member of a JSON object as it was written, so that it can
// be passed on without being touched: re-encoding would change numbers, escapes
// and the order.
type jsonMember struct {
	name  string // unescaped
	text  []byte // name and value, without the comma
	value []byte
}

var errNoObject = errors.New("it is not a JSON object")

// splitObject returns the members of a JSON object in their order, those whose
// name occurs again among them. Nothing but white space may surround the object.
func splitObject(text []byte) ([]jsonMember, error) {
	if !json.Valid(text) {
		return nil, errNoObject
	}
	// From here on the text is known to be JSON: what is looked for is there.
	s := jsonText{text: text}
	s.space()
	if s.text[s.pos] != '{' {
		return nil, errNoObject
	}
	s.pos++
	var members []jsonMember
	for s.space(); s.text[s.pos] != '}'; s.space() {
		if s.text[s.pos] == ',' {
			s.pos++
			s.space()
		}
		start := s.pos
		s.skipString()
		var m jsonMember
		if err := json.Unmarshal(text[start:s.pos], &m.name); err != nil {
			return nil, err
		}
		s.space()
		s.pos++ // the colon
		s.space()
		value := s.pos
		s.skipValue()
		m.text, m.value = text[start:s.pos:s.pos], text[value:s.pos:s.pos]
		members = append(members, m)
	}
	return members, nil
}

// jsonText walks over a text that is known to be JSON.
type jsonText struct {
	text []byte
	pos  int
}

func (s *jsonText) space() {
	for strings.IndexByte(" \t\r\n", s.text[s.pos]) >= 0 {
		s.pos++
	}
}

func (s *jsonText) skipString() {
	for s.pos++; s.text[s.pos] != '"'; s.pos++ {
		if s.text[s.pos] == '\\' {
			s.pos++
		}
	}
	s.pos++
}

func (s *jsonText) skipValue() {
	for depth := 0; ; {
		switch s.text[s.pos] {
		case '"':
			s.skipString()
		case '{', '[':
			depth++
			s.pos++
			continue
		case '}', ']':
			depth--
			s.pos++
		case ',', ':', ' ', '\t', '\r', '\n': // between the values of a nested one
			s.pos++
			continue
		default: // a number or a word; an object around it always follows
			for strings.IndexByte(",:]} \t\r\n", s.text[s.pos]) < 0 {
				s.pos++
			}
		}
		if depth == 0 {
			return
		}
	}
}

// joinObject writes members as an object.
func joinObject(members []jsonMember) []byte {
	size := 2
	for _, m := range members {
		size += len(m.text) + 1
	}
	text := append(make([]byte, 0, size), '{')
	for i, m := range members {
		if i > 0 {
			text = append(text, ',')
		}
		text = append(text, m.text...)
	}
	return append(text, '}')
}

// newMember makes a member of a name that needs no escapes, and a string, a
// number, or a list of strings.
func newMember(name string, value any) jsonMember {
	encoded, err := json.Marshal(value)
	if err != nil { // cannot happen with these
		encoded = []byte("null")
	}
	text := append([]byte(`"`+name+`":`), encoded...)
	return jsonMember{name: name, text: text, value: encoded}
}

// textValue returns the value of a member that is a string.
func (m *jsonMember) textValue() (string, bool) {
	var s string
	if len(m.value) == 0 || m.value[0] != '"' || json.Unmarshal(m.value, &s) != nil {
		return "", false
	}
	return s, true
}

// textValues returns the value of a member that is a string, or an array of
// strings and nothing else.
func (m *jsonMember) textValues() []string {
	if s, ok := m.textValue(); ok {
		return []string{s}
	}
	var list []any
	if len(m.value) == 0 || m.value[0] != '[' || json.Unmarshal(m.value, &list) != nil {
		return nil
	}
	values := make([]string, 0, len(list))
	for _, v := range list {
		s, ok := v.(string)
		if !ok {
			return nil
		}
		values = append(values, s)
	}
	return values
}

// findMember returns the first member of this name.
func findMember(members []jsonMember, name string) (*jsonMember, bool) {
	for i := range members {
		if members[i].name == name {
			return &members[i], true
		}
	}
	return nil, false
}
