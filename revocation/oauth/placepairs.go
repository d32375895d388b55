package oauth

import (
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

// readPairs looks for tokens in name-value pairs, those of a query or of a form
// body. Pairs are separated by ampersands (WHATWG URL, section 5.1); some
// receivers take semicolons as well, or begin at the last question mark of a URL,
// so a token next to one is refused.
func readPairs(places []place, kind PlaceKind, raw string, found *Presented) error {
	seen := uint64(0) // bit i: places[i] has occurred
	separators := "&;"
	if kind == PlaceQuery {
		separators = "&;?"
	}
	for pairs := (pairScanner{rest: raw, separators: separators}); pairs.next(); {
		for i := range places {
			c := &places[i]
			if !sameParameter(pairs.name, c.folded) {
				continue
			}
			if !pairs.strict || !isExactly(pairs.name, c.name) {
				if c.action == PlaceReject {
					return found.add(kind, "", PlaceReject)
				}
				return errBadPlace
			}
			if c.action != PlaceInspect {
				if err := found.add(kind, "", c.action); err != nil {
					return err
				}
				continue
			}
			if seen&(1<<(i&63)) != 0 {
				return errSeveralTokens // perhaps an empty one: receivers may take either
			}
			seen |= 1 << (i & 63)
			if pairs.value == "" {
				continue
			}
			token, err := url.QueryUnescape(pairs.value)
			if err != nil || !isToken68(token) {
				return errBadPlace
			}
			if err := found.add(kind, token, PlaceInspect); err != nil {
				return err
			}
		}
	}
	return nil
}

// stripPairs returns raw without the pairs of the places to be stripped. It is
// called after readPairs, which has refused those that are not pairs to every
// receiver.
func stripPairs(places []place, raw string) string {
	var b strings.Builder
	for kept := false; ; {
		pair, rest, more := strings.Cut(raw, "&")
		name, _, _ := strings.Cut(pair, "=")
		strip := false
		for i := range places {
			strip = strip || places[i].action == PlaceStrip && isExactly(name, places[i].name)
		}
		if !strip {
			if kept {
				b.WriteByte('&')
			}
			b.WriteString(pair)
			kept = true
		}
		if !more {
			return b.String()
		}
		raw = rest
	}
}

// pairScanner splits pairs at every byte that some receiver splits at.
type pairScanner struct {
	rest       string
	separators string
	open       bool // another one than an ampersand came before rest

	name, value string
	strict      bool // ampersands, or nothing, on both sides
}

func (p *pairScanner) next() bool {
	if p.rest == "" {
		return false
	}
	var pair string
	p.strict = !p.open
	if i := strings.IndexAny(p.rest, p.separators); i >= 0 {
		p.open = p.rest[i] != '&'
		pair, p.rest = p.rest[:i], p.rest[i+1:]
		p.strict = p.strict && !p.open
	} else {
		pair, p.rest = p.rest, ""
	}
	p.name, p.value, _ = strings.Cut(pair, "=")
	return true
}

// isExactly tells whether a raw name is the given one for every receiver.
func isExactly(raw, name string) bool {
	if raw == name {
		return true
	}
	if !strings.Contains(raw, "%") {
		return false
	}
	decoded, err := url.QueryUnescape(raw)
	return err == nil && decoded == name
}

// sameParameter tells whether some receiver may take a raw name for the one that
// was folded to this.
func sameParameter(raw, folded string) bool {
	plain := true
	for i := range len(raw) {
		switch c := raw[i]; {
		case c <= ' ', c >= 0x7f, c == '%', c == '+', c == '[', c == '?':
			plain = false
		}
	}
	if !plain {
		raw = lenientName(raw)
	}
	if len(raw) != len(folded) {
		return !plain && strings.EqualFold(raw, folded) // U+017F for s
	}
	for i := range len(raw) {
		if foldedByte(raw[i]) != folded[i] {
			return !plain && strings.EqualFold(raw, folded)
		}
	}
	return true
}

// foldParameter makes the names of parameters equal that some receiver takes for
// the same: in any case (nginx, ASP.NET), with an underscore for what PHP
// replaces by one.
func foldParameter(name string) string {
	b := []byte(name)
	for i := range b {
		b[i] = foldedByte(b[i])
	}
	return string(b)
}

func foldedByte(c byte) byte {
	if c == '.' || c == ' ' {
		return '_'
	}
	return lower(c)
}

// lenientName decodes a name as the most lenient receivers do: what is no escape
// stays, %u0061 is a letter (IIS), it ends at a zero byte or a bracket (PHP,
// Rack and qs make an array of token[]), and white space or a question mark
// before it does not count.
func lenientName(raw string) string {
	b := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		switch {
		case c == '+':
			c = ' '
		case c == '%' && i+2 < len(raw) && isHex(raw[i+1]) && isHex(raw[i+2]):
			c = unhex(raw[i+1])<<4 | unhex(raw[i+2])
			i += 2
		case c == '%' && i+5 < len(raw) && lower(raw[i+1]) == 'u' && raw[i+2] == '0' && raw[i+3] == '0' && isHex(raw[i+4]) && isHex(raw[i+5]):
			c = unhex(raw[i+4])<<4 | unhex(raw[i+5])
			i += 5
		}
		if c == 0 || c == '[' && len(b) > 0 {
			break
		}
		b = append(b, c)
	}
	name := strings.TrimLeftFunc(string(b), func(r rune) bool { return isBlank(r) || r == '?' || r == '[' })
	return strings.TrimRightFunc(name, func(r rune) bool { return isBlank(r) || r == ']' })
}

// isBlank tells whether some receiver takes r for white space. A byte that is no
// UTF-8 is a no-break space to those that read Latin-1.
func isBlank(r rune) bool {
	return unicode.IsSpace(r) || r == '\ufeff' || r == utf8.RuneError
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= lower(c) && lower(c) <= 'f'
}

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return lower(c) - 'a' + 10
}
