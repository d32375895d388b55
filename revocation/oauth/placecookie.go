package oauth

import (
	"net/url"
	"strings"
	"unicode/utf8"
)

// readCookies reads the Cookie fields (RFC 6265, section 5.4). Receivers split
// them in several ways: at semicolons, at commas (nginx), at white space
// (Python), some minding quotes and some not. A cookie of a place's name is
// taken only if all of them find the same one.
func (p *Places) readCookies(fields []string, found *Presented) error {
	if len(fields) == 0 {
		return nil
	}
	for i := range p.cookies {
		c := &p.cookies[i]
		exact, perhaps := 0, 0
		value := ""
		for _, field := range fields {
			perhaps += max(countCookies(field, c.folded), countDecoded(field, c.folded))
			quotes := 0
			for part := range strings.SplitSeq(field, ";") {
				name, v, ok := strings.Cut(trimSpace(part), "=")
				if ok && name == c.name && quotes%2 == 0 {
					exact++
					value = v
				}
				quotes += strings.Count(part, `"`)
			}
		}
		switch {
		case perhaps == 0:
			continue
		case c.action == PlaceReject:
			return errRejected
		case exact != perhaps:
			return errBadPlace
		case c.action == PlaceStrip:
			continue
		case exact > 1:
			return errSeveralTokens
		}
		if n := len(value); n >= 2 && value[0] == '"' && value[n-1] == '"' {
			value = value[1 : n-1]
		}
		if value == "" {
			continue // as it is left behind by some who log out
		}
		if !isToken68(value) {
			return errBadPlace
		}
		if err := found.add(PlaceCookie, value, c.action); err != nil {
			return err
		}
	}
	return nil
}

// countCookies counts what some receiver may take for a cookie of that name.
func countCookies(field, folded string) (n int) {
	for rest := field; rest != ""; {
		end := strings.IndexFunc(rest, endsCookie)
		piece := rest
		if end < 0 {
			rest = ""
		} else {
			piece, rest = rest[:end], rest[end:]
			for rest != "" {
				r, size := utf8.DecodeRuneInString(rest)
				if !endsCookie(r) {
					break
				}
				rest = rest[size:]
				if r == ';' || r == ',' || r == '"' {
					break
				}
				// white space may be before an equals sign
			}
		}
		name, _, ok := strings.Cut(piece, "=")
		ok = ok || strings.HasPrefix(rest, "=")
		if ok && sameParameter(name, folded) {
			n++
		}
	}
	return n
}

func endsCookie(r rune) bool {
	return r == ';' || r == ',' || r == '"' || r <= ' ' || r == 0x7f || isBlank(r)
}

// countDecoded is countCookies for receivers that decode the field before they
// split it.
func countDecoded(field, folded string) int {
	if !strings.Contains(field, "%") {
		return 0
	}
	decoded, err := url.PathUnescape(field)
	if err != nil {
		return 0
	}
	return countCookies(decoded, folded)
}

// stripCookies returns the Cookie fields without the cookies of the places to be
// stripped, nil if nothing is left. It is called after readCookies.
func stripCookies(places []place, fields []string) []string {
	var kept []string
	for _, field := range fields {
		var parts []string
		for part := range strings.SplitSeq(field, ";") {
			name, _, _ := strings.Cut(trimSpace(part), "=")
			strip := false
			for i := range places {
				strip = strip || places[i].action == PlaceStrip && name == places[i].name
			}
			if !strip {
				parts = append(parts, part)
			}
		}
		if rest := trimSpace(strings.Join(parts, ";")); rest != "" {
			kept = append(kept, rest)
		}
	}
	return kept
}
