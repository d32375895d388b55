package issuer

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
)

var encode = base64.RawURLEncoding.EncodeToString

// compact puts a token together from header, payload and some signature.
func compact(header, payload string) string {
	return encode([]byte(header)) + "." + encode([]byte(payload)) + ".c2lnbmF0dXJl"
}

const (
	goodHeader  = `{"alg":"ES256","typ":"at+jwt","kid":"k"}`
	goodPayload = `{"iss":"https://as.example","jti":"1","exp":1700000000}`
)

func TestOnlyStrictCompactFormIsRead(t *testing.T) {
	good := compact(goodHeader, goodPayload)
	if r, err := read(good); err != nil {
		t.Fatal(err)
	} else {
		r.free()
	}
	parts := strings.Split(good, ".")
	// Two spare bits in a header of 40 bytes, none in the payload of 54.
	if len(parts[0])%4 == 0 {
		t.Fatal("the header has no spare bits")
	}
	nested := func(n int) string { return strings.Repeat(`[`, n) + strings.Repeat(`]`, n) }
	for _, c := range []struct {
		name, token string
		want        error
	}{
		{"CR LF at the end", good + "\r\n", ErrMalformed},
		{"LF in the signature", parts[0] + "." + parts[1] + ".c2ln\nbmF0dXJl", ErrMalformed},
		{"CR in the header", parts[0][:4] + "\r" + good[4:], ErrMalformed},
		{"LF in the payload", parts[0] + "." + parts[1][:8] + "\n" + parts[1][8:] + "." + parts[2], ErrMalformed},
		{"space in front", " " + good, ErrMalformed},
		{"padded header", parts[0] + "==." + parts[1] + "." + parts[2], ErrMalformed},
		{"padded signature", good + "=", ErrMalformed},
		{"base64 alphabet in the signature", parts[0] + "." + parts[1] + ".++//", ErrMalformed},
		{"byte outside ASCII", good + "\x80", ErrMalformed},
		{"NUL", good + "\x00", ErrMalformed},
		{"spare bits in the header", spare(parts[0]) + "." + parts[1] + "." + parts[2], ErrMalformed},
		{"two segments", parts[0] + "." + parts[1], ErrMalformed},
		{"no signature", parts[0] + "." + parts[1] + ".", ErrMalformed},
		{"signature of impossible length", parts[0] + "." + parts[1] + ".AAAAA", ErrMalformed},
		{"no payload", parts[0] + ".." + parts[2], ErrMalformed},
		{"four segments", good + ".AAAA", ErrMalformed},
		{"five segments without enc", good + ".AAAA.AAAA", ErrMalformed},
		{"JSON form", `{"payload":"e30","protected":"e30","signature":"AA"}`, ErrMalformed},
		{"JSON form after white space", "\t\r\n {}", ErrMalformed},
		{"white space before the header's brace", compact(" \n"+goodHeader, goodPayload), nil},
		{"byte order mark", compact("\ufeff"+goodHeader, goodPayload), ErrMalformed},
		{"too long", compact(goodHeader, `{"iss":"x","a":"`+strings.Repeat("a", 16<<10)+`"}`), ErrMalformed},
		{"encrypted", encode([]byte(`{"alg":"RSA-OAEP","enc":"A128GCM"}`)) + ".AA.AA.AA.AA", ErrNotJWT},
		{"encrypted, spelled badly", encode([]byte(`{"alg":"RSA-OAEP","enc":"A128GCM"}`)) + ".AA.AA.AA.A\n", ErrMalformed},
		{"opaque", "2YotnFZFEjr1zCsicMWpAA", ErrNotJWT},
		{"opaque with a dot", "ory_at_abc.def", ErrNotJWT},
		{"opaque with two dots", "v4.public.AAAA", ErrNotJWT},
		{"opaque, padded", "c29tZXRoaW5n==", ErrNotJWT},
		{"empty", "", ErrNotJWT},
		{"dots", "..", ErrNotJWT},
		{"header is no object", compact(`["alg"]`, goodPayload), ErrNotJWT},
		{"header has no alg", compact(`{"typ":"JWT"}`, goodPayload), ErrMalformed},
		{"alg is no text", compact(`{"alg":5}`, goodPayload), ErrMalformed},
		{"alg twice", compact(`{"alg":"ES256","alg":"none"}`, goodPayload), ErrMalformed},
		{"alg in another case only", compact(`{"ALG":"ES256"}`, goodPayload), ErrMalformed},
		{"kid is no text", compact(`{"alg":"ES256","kid":1}`, goodPayload), ErrMalformed},
		{"kid too long", compact(`{"alg":"ES256","kid":"`+strings.Repeat("k", 513)+`"}`, goodPayload), ErrMalformed},
		{"crit", compact(`{"alg":"ES256","crit":["b64"],"b64":true}`, goodPayload), ErrMalformed},
		{"empty crit", compact(`{"alg":"ES256","crit":[]}`, goodPayload), ErrMalformed},
		{"b64 false", compact(`{"alg":"ES256","b64":false}`, goodPayload), ErrMalformed},
		{"embedded key", compact(`{"alg":"ES256","jwk":{"kty":"oct","k":"AA"}}`, goodPayload), ErrMalformed},
		{"payload is an array", compact(goodHeader, `[1]`), ErrMalformed},
		{"payload is text", compact(goodHeader, `"x"`), ErrMalformed},
		{"payload empty", compact(goodHeader, ``), ErrMalformed},
		{"payload cut", compact(goodHeader, `{"iss":"x"`), ErrMalformed},
		{"something follows", compact(goodHeader, goodPayload+`{}`), ErrMalformed},
		{"zero byte follows", compact(goodHeader, goodPayload+"\x00"), ErrMalformed},
		{"white space follows", compact(goodHeader, goodPayload+" \n"), nil},
		{"comma too many", compact(goodHeader, `{"a":1,}`), ErrMalformed},
		{"comma too many in an array", compact(goodHeader, `{"a":[1,]}`), ErrMalformed},
		{"invalid UTF-8 in a value", compact(goodHeader, "{\"iss\":\"\xff\"}"), ErrMalformed},
		{"invalid UTF-8 in a name", compact(goodHeader, "{\"\xc0\xaf\":1}"), ErrMalformed},
		{"surrogate in UTF-8", compact(goodHeader, "{\"a\":\"\xed\xa0\x80\"}"), ErrMalformed},
		{"high surrogate alone", compact(goodHeader, `{"iss":"\ud800"}`), ErrMalformed},
		{"low surrogate alone", compact(goodHeader, `{"iss":"\udc00"}`), ErrMalformed},
		{"two high surrogates", compact(goodHeader, `{"iss":"\ud800\ud800"}`), ErrMalformed},
		{"surrogate pair", compact(goodHeader, `{"iss":"\ud83d\ude00"}`), nil},
		{"unknown escape", compact(goodHeader, `{"iss":"\x41"}`), ErrMalformed},
		{"escape cut", compact(goodHeader, `{"iss":"\u00"}`), ErrMalformed},
		{"control character", compact(goodHeader, "{\"iss\":\"a\nb\"}"), ErrMalformed},
		{"nested 31 deep", compact(goodHeader, `{"a":`+nested(31)+`}`), nil},
		{"nested too deeply", compact(goodHeader, `{"a":`+nested(32)+`}`), ErrMalformed},
		{"number out of range", compact(goodHeader, `{"a":1e999}`), ErrMalformed},
		{"comment", compact(goodHeader, `{"a":1/**/}`), ErrMalformed},
		{"single quotes", compact(goodHeader, `{'a':1}`), ErrMalformed},
		{"literal in another case", compact(goodHeader, `{"a":True}`), ErrMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := read(c.token)
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if r != nil {
				r.free()
			}
		})
	}
}

// spare sets the lowest spare bit of the last character.
func spare(segment string) string {
	last := len(segment) - 1
	return segment[:last] + string(base64URL[base64Value(segment[last])|1])
}

func TestDuplicateNamesAreFoundInLargeObjectsToo(t *testing.T) {
	for _, n := range []int{2, fewNames - 1, fewNames, fewNames + 1, 500} {
		var b strings.Builder
		for i := range n {
			b.WriteString(`"` + strings.Repeat("x", i) + `":{"a":{}},`)
		}
		var s scanner
		if err := s.scan([]byte(`{` + b.String() + `"last":1}`)); err != nil {
			t.Errorf("%d names: %v", n, err)
		}
		for _, twice := range []string{`""`, `"x"`, `"\u0078"`} {
			if s.scan([]byte(`{`+b.String()+twice+`:1}`)) == nil {
				t.Errorf("%s twice among %d names", twice, n)
			}
			if s.scan([]byte(`{"y":{`+b.String()+twice+`:1}}`)) == nil {
				t.Errorf("%s twice among %d nested names", twice, n)
			}
		}
	}
}

func TestHeaderStringsAreUnescaped(t *testing.T) {
	r, err := read(compact(`{"\u0061lg":"\u0045S256","kid":"a\/b\u00e9","t\u0079p":"at\u002bjwt"}`, goodPayload))
	if err != nil {
		t.Fatal(err)
	}
	defer r.free()
	if string(r.alg) != "ES256" || string(r.kid) != "a/bé" || string(r.typ) != "at+jwt" {
		t.Errorf("alg %q, kid %q, typ %q", r.alg, r.kid, r.typ)
	}
}

func TestNumbersHaveOneText(t *testing.T) {
	for text, want := range map[string]string{
		"5": "5", "5.0": "5", "5e0": "5", "50e-1": "5", "0.5e1": "5", "0.05E+2": "5", "500e-2": "5", "5.000": "5",
		"-5": "-5", "-5.0": "-5", "0": "0", "-0": "0", "0.0": "0", "0e9": "0", "-0.0e-3": "0", "0e99999999999": "0",
		"1e3": "1000", "1.5e3": "1500", "12e2": "1200", "123456789012345678901234567890": "123456789012345678901234567890",
		"100": "100", "1e0": "1", "10e-1": "1", "1.5": "1.5", "1.50": "1.50", "15e-1": "15e-1", "1e-400": "1e-400",
		"1e300": "1" + strings.Repeat("0", 300),
	} {
		if got := string(appendNumber(nil, []byte(text))); got != want {
			t.Errorf("%s: got %q, want %q", text, got, want)
		}
	}
}

func TestTimesAreRoundedToTheSafeSide(t *testing.T) {
	for _, c := range []struct {
		text       string
		down, up   int64
		outOfRange bool
	}{
		{text: "1700000000", down: 1700000000, up: 1700000000},
		{text: "1.7e9", down: 1700000000, up: 1700000000},
		{text: "1700000000.000", down: 1700000000, up: 1700000000},
		{text: "1700000000.0001", down: 1700000000, up: 1700000001},
		{text: "17000000009e-1", down: 1700000000, up: 1700000001},
		{text: "0.5", down: 0, up: 1}, {text: "0.0001", down: 0, up: 1}, {text: "1e-400", down: 0, up: 1},
		{text: "0", down: 0, up: 0}, {text: "-0", down: 0, up: 0}, {text: "1e0", down: 1, up: 1},
		{text: "253402300799", down: 253402300799, up: 253402300799},
		{text: "253402300800", outOfRange: true}, {text: "1700000000000", outOfRange: true},
		{text: "1e12", outOfRange: true}, {text: "1e300", outOfRange: true}, {text: "-1", outOfRange: true},
		{text: "-0.1", outOfRange: true}, {text: "99999999999999999999", outOfRange: true},
	} {
		m := member{kind: kindNumber, value: []byte(c.text)}
		down, err := numericDate(m, false)
		up, err2 := numericDate(m, true)
		if c.outOfRange {
			if !errors.Is(err, ErrMalformed) || !errors.Is(err2, ErrMalformed) {
				t.Errorf("%s: %d, %v, %d, %v", c.text, down, err, up, err2)
			}
		} else if err != nil || err2 != nil || down != c.down || up != c.up {
			t.Errorf("%s: %d, %v, %d, %v", c.text, down, err, up, err2)
		}
	}
}
