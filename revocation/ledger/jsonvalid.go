package ledger

// maxNesting bounds arrays and objects in each other. Entries need three levels.
const maxNesting = 64

// validJSON tells whether data is one JSON text (RFC 8259) that is not nested too
// deeply. It is what an edge spends most of a replay on, and several times as
// fast as encoding/json.Valid, with which it agrees.
func validJSON(data []byte) bool {
	v := validator{b: data}
	v.space()
	if !v.value(0) {
		return false
	}
	v.space()
	return v.i == len(v.b)
}

type validator struct {
	b []byte
	i int
}

// peek returns the next byte, or zero at the end, which is no part of any token.
func (v *validator) peek() byte {
	if v.i < len(v.b) {
		return v.b[v.i]
	}
	return 0
}

func (v *validator) space() {
	for v.i < len(v.b) {
		switch v.b[v.i] {
		case ' ', '\t', '\n', '\r':
			v.i++
		default:
			return
		}
	}
}

func (v *validator) value(depth int) bool {
	switch c := v.peek(); c {
	case '"':
		return v.str()
	case '{':
		return v.list(depth, '}')
	case '[':
		return v.list(depth, ']')
	case 't':
		return v.word("true")
	case 'f':
		return v.word("false")
	case 'n':
		return v.word("null")
	default:
		return v.number()
	}
}

// list reads an object or an array, from its bracket to the one that ends it.
func (v *validator) list(depth int, end byte) bool {
	if depth == maxNesting {
		return false
	}
	v.i++
	v.space()
	if v.peek() == end {
		v.i++
		return true
	}
	for {
		if end == '}' {
			if v.peek() != '"' || !v.str() {
				return false
			}
			v.space()
			if v.peek() != ':' {
				return false
			}
			v.i++
			v.space()
		}
		if !v.value(depth + 1) {
			return false
		}
		v.space()
		switch v.peek() {
		case ',':
			v.i++
			v.space()
		case end:
			v.i++
			return true
		default:
			return false
		}
	}
}

func (v *validator) str() bool {
	for v.i++; v.i < len(v.b); v.i++ {
		switch c := v.b[v.i]; {
		case c == '"':
			v.i++
			return true
		case c < ' ':
			return false
		case c == '\\':
			v.i++
			if !v.escape() {
				return false
			}
		}
	}
	return false
}

// escape reads what follows a backslash, up to its last byte.
func (v *validator) escape() bool {
	switch v.peek() {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return true
	case 'u':
		for range 4 {
			v.i++
			c := v.peek()
			if (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
				return false
			}
		}
		return true
	}
	return false
}

func (v *validator) word(w string) bool {
	if len(v.b)-v.i < len(w) || string(v.b[v.i:v.i+len(w)]) != w {
		return false
	}
	v.i += len(w)
	return true
}

func (v *validator) number() bool {
	if v.peek() == '-' {
		v.i++
	}
	// No digit may follow a leading zero: it would be another value.
	if v.peek() == '0' {
		v.i++
	} else if !v.digits() {
		return false
	}
	if v.peek() == '.' {
		v.i++
		if !v.digits() {
			return false
		}
	}
	if c := v.peek(); c == 'e' || c == 'E' {
		v.i++
		if c := v.peek(); c == '+' || c == '-' {
			v.i++
		}
		return v.digits()
	}
	return true
}

func (v *validator) digits() bool {
	start := v.i
	for c := v.peek(); c >= '0' && c <= '9'; c = v.peek() {
		v.i++
	}
	return v.i > start
}
