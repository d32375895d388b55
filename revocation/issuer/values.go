package issuer

import "github.com/edge-revocation/caddy-token-revocation/revocation/internal/jsontext"

// unescape appends to dst what the inside of a JSON string means. The scanner has
// checked it.
func unescape(dst, text []byte) []byte {
	dst, _ = jsontext.AppendUnescaped(dst, text)
	return dst
}

// decimal is a JSON number without loss: digits, of which the first point ones
// are before the decimal point. Neither leading nor trailing digits are zero;
// no digits at all are zero.
type decimal struct {
	negative bool
	digits   []byte
	point    int
}

// maxExponent saturates exponents: a token cannot hold that many digits.
const maxExponent = 1 << 20

// parseDecimal reads a number that the scanner has checked. buf is used for the
// digits.
func parseDecimal(text, buf []byte) decimal {
	d := decimal{digits: buf[:0]}
	if text[0] == '-' {
		d.negative = true
		text = text[1:]
	}
	fraction := false
	for i, c := range text {
		switch c {
		case '.':
			fraction = true
		case 'e', 'E':
			d.point += exponent(text[i+1:])
			return d.trimmed()
		default:
			if len(d.digits) > 0 || c != '0' {
				d.digits = append(d.digits, c)
				if !fraction {
					d.point++
				}
			} else if fraction {
				d.point-- // a zero right after the point
			}
		}
	}
	return d.trimmed()
}

func (d decimal) trimmed() decimal {
	for len(d.digits) > 0 && d.digits[len(d.digits)-1] == '0' {
		d.digits = d.digits[:len(d.digits)-1]
	}
	return d
}

func exponent(text []byte) int {
	sign, n := 1, 0
	for _, c := range text {
		switch c {
		case '-':
			sign = -1
		case '+':
		default:
			n = min(n*10+int(c-'0'), maxExponent)
		}
	}
	return sign * n
}

// appendNumber appends the canonical text of a number, as [revocation.Criteria]
// defines it: integers in plain decimal, anything else as it is written.
func appendNumber(dst, text []byte) []byte {
	var buf [32]byte
	d := parseDecimal(text, buf[:])
	switch {
	case len(d.digits) == 0:
		return append(dst, '0')
	case d.point < len(d.digits):
		return append(dst, text...)
	}
	if d.negative {
		dst = append(dst, '-')
	}
	dst = append(dst, d.digits...)
	for range d.point - len(d.digits) {
		dst = append(dst, '0')
	}
	return dst
}

// maxTime is the end of the year 9999 in Unix seconds. A later one is a mistake,
// most often milliseconds.
const maxTime = 253402300799

// numericDate reads a NumericDate (RFC 7519, section 2), which may have a
// fraction or an exponent, in Unix seconds, rounded up or down.
func numericDate(m member, roundUp bool) (int64, error) {
	if m.kind != kindNumber {
		return 0, malformedError("a time claim is not a number")
	}
	if t, ok := plainTime(m.value); ok {
		return t, nil
	}
	var buf [32]byte
	d := parseDecimal(m.value, buf[:])
	switch {
	case len(d.digits) == 0:
		return 0, nil
	case d.negative:
		return 0, malformedError("a time claim is negative")
	case d.point > 12:
		return 0, errTime
	}
	var t int64
	for i := range max(d.point, 0) {
		t *= 10
		if i < len(d.digits) {
			t += int64(d.digits[i] - '0')
		}
	}
	if roundUp && d.point < len(d.digits) {
		t++
	}
	if t > maxTime {
		return 0, errTime
	}
	return t, nil
}

// plainTime reads the usual form of a NumericDate, a few digits.
func plainTime(text []byte) (t int64, ok bool) {
	if len(text) > 11 {
		return 0, false
	}
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0, false
		}
		t = t*10 + int64(c-'0')
	}
	return t, true
}

const errTime = malformedError("a time claim is out of range (are they milliseconds?)")
