// Package jsontext decodes what stands inside JSON strings (RFC 8259, section 7).
// encoding/json replaces half a surrogate pair; those who compare claims and
// criteria have to refuse it instead, or two different texts would become equal.
package jsontext

import (
	"unicode/utf16"
	"unicode/utf8"
)

// Unicode returns the character that the \uXXXX at the start of b stands for, and
// how many bytes that takes: 12 for a surrogate pair. It returns false if there is
// none, or only half of a pair.
func Unicode(b []byte) (r rune, size int, ok bool) {
	r, ok = hex4(b)
	if !ok || !utf16.IsSurrogate(r) {
		return r, 6, ok
	}
	low, ok := hex4(b[6:])
	r = utf16.DecodeRune(r, low)
	return r, 12, ok && r != utf8.RuneError
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range b[2:6] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// AppendUnescaped appends to dst what the inside of a JSON string means. It
// returns false if an escape sequence is not one.
func AppendUnescaped(dst, text []byte) ([]byte, bool) {
	for i := 0; i < len(text); {
		if text[i] != '\\' {
			dst = append(dst, text[i])
			i++
			continue
		}
		if i+1 == len(text) {
			return dst, false
		}
		c := text[i+1]
		switch c {
		case '"', '\\', '/':
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		case 'u':
			r, size, ok := Unicode(text[i:])
			if !ok {
				return dst, false
			}
			dst = utf8.AppendRune(dst, r)
			i += size
			continue
		default:
			return dst, false
		}
		dst = append(dst, c)
		i += 2
	}
	return dst, true
}
