package issuer

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/big"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4"
)

// FuzzJSON compares the scanner with encoding/json: it accepts nothing that
// encoding/json refuses, nothing with a duplicate name, and of what it accepts
// both see the same names and values.
func FuzzJSON(f *testing.F) {
	for _, seed := range []string{
		`{}`, goodPayload, ` { "a" : [ 1 , -0.5e+10 , true , false , null , "x" , { } , [ ] ] } `, `{"a":1,"A":2}`, `{"a":1,"a":2}`,
		`{"\u0061":1,"a":2}`, `{"a":{"b":1,"b":2}}`, `{"a":"\ud83d\ude00\ud800"}`, `{"a":"\ud83d\ude00é\u0000\/"}`, `{"a":1e999}`, `{"a":01}`,
		`{"a":-}`, `{"a":1.}`, `{"a":"` + "\xff" + `"}`, `{"a":"` + "\n" + `"}`, `{"":""}`, `[{}]`, `{"a":[[[[[[]]]]]]}`, `{"a":1}x`, "\ufeff{}",
		`{"x":1e-400,"y":1e-5,"z":123456789012345678901234567890,"w":-0}`, `{"a":tru}`, `{"a":nullx}`, `{"a" 1}`, `{a:1}`, `{"a":1,}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > maxToken {
			return
		}
		var s scanner
		err := s.scan(text)
		want, refErr := reference(text)
		if err != nil {
			return // we may be stricter, see TestScannerRefusesOnlyWhatItShould
		}
		if refErr != nil {
			t.Fatalf("accepted what encoding/json refuses: %v", refErr)
		}
		if len(s.members) != len(want) {
			t.Fatalf("%d members, want %d", len(s.members), len(want))
		}
		for _, m := range s.members {
			v, found := want[string(m.name)]
			if !found {
				t.Fatalf("no member %q", m.name)
			}
			compareValue(t, m, v)
		}
	})
}

// compareValue compares a member with what encoding/json made of it.
func compareValue(t *testing.T, m member, v any) {
	t.Helper()
	var r reading
	text := func() string {
		r.joined, r.values = nil, nil
		if _, err := r.addScalar("x", m); err != nil {
			return ""
		}
		return string(r.joined)
	}
	switch v := v.(type) {
	case nil:
		if m.kind != kindNull {
			t.Fatalf("%s is not null", m.value)
		}
	case bool:
		if text() != fmt.Sprint(v) {
			t.Fatalf("%q, want %v", text(), v)
		}
	case string:
		if m.kind != kindString && m.kind != kindEscaped || len(v) <= 1024 && text() != v {
			t.Fatalf("%q, want %q", text(), v)
		}
	case json.Number:
		if m.kind != kindNumber {
			t.Fatalf("%s is not a number", m.value)
		}
		compareNumber(t, m, v)
	case []any:
		if m.kind != kindArray {
			t.Fatalf("%s is not an array", m.value)
		}
		if len(v) > maxValues {
			return
		}
		if err := r.addElements("x", m.value); err == nil {
			n := 0
			for _, e := range v {
				switch e := e.(type) {
				case string:
					if e != "" {
						n++
					}
				case bool, json.Number:
					n++
				}
			}
			if n != len(r.values) {
				t.Fatalf("%d values, want %d", len(r.values), n)
			}
		}
	case map[string]any:
		if m.kind != kindObject {
			t.Fatalf("%s is not an object", m.value)
		}
	}
}

// compareNumber compares our reading of a number with exact arithmetic.
func compareNumber(t *testing.T, m member, n json.Number) {
	t.Helper()
	if d := parseDecimal(m.value, nil); d.point < -400 || d.point > 400 || len(m.value) > 400 {
		return // too slow to compare
	}
	exact, ok := new(big.Rat).SetString(n.String())
	if !ok {
		t.Fatalf("%s is not a number", n)
	}
	canonical := string(appendNumber(nil, m.value))
	if exact.IsInt() && canonical != exact.Num().String() {
		t.Fatalf("%s: %s, want %s", n, canonical, exact.Num())
	}
	if !exact.IsInt() && canonical != n.String() {
		t.Fatalf("%s: %s", n, canonical)
	}
	valid := exact.Sign() >= 0 && exact.Cmp(new(big.Rat).SetInt64(maxTime)) <= 0
	down, err := numericDate(m, false)
	up, errUp := numericDate(m, true)
	floor := new(big.Int).Div(exact.Num(), exact.Denom())
	if !valid {
		if errUp == nil || err == nil && floor.Cmp(big.NewInt(maxTime)) > 0 {
			t.Fatalf("%s is accepted as a time: %d %d", n, down, up)
		}
		return
	}
	if err != nil || errUp != nil || floor.Cmp(big.NewInt(down)) != 0 {
		t.Fatalf("%s: %d %v, %d %v", n, down, err, up, errUp)
	}
	if want := down; (exact.IsInt() && up != want) || (!exact.IsInt() && up != want+1) {
		t.Fatalf("%s: rounded up to %d from %d", n, up, down)
	}
}

// reference reads an object with encoding/json, and refuses what no two readers
// agree on.
func reference(text []byte) (map[string]any, error) {
	var loose map[string]any
	if err := json.Unmarshal(text, &loose); err != nil {
		return nil, err // numbers out of range are errors here
	}
	if loose == nil || !utf8.Valid(text) {
		return nil, fmt.Errorf("not an object in UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	v, err := referenceValue(d)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("something follows")
	}
	return v.(map[string]any), nil
}

func referenceValue(d *json.Decoder) (any, error) {
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch token {
	case json.Delim('['):
		list := []any{}
		for d.More() {
			v, err := referenceValue(d)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err = d.Token()
		return list, err
	case json.Delim('{'):
		object := map[string]any{}
		for d.More() {
			name, err := d.Token()
			if err != nil {
				return nil, err
			}
			if _, twice := object[name.(string)]; twice {
				return nil, fmt.Errorf("%q occurs twice", name)
			}
			if object[name.(string)], err = referenceValue(d); err != nil {
				return nil, err
			}
		}
		_, err = d.Token()
		return object, err
	}
	return token, nil
}

// FuzzToken compares the reader with go-jose: it accepts no token that go-jose
// cannot parse, and both see the same algorithm, key id and payload. What looks
// like a JWT to go-jose, after the cleaning that lenient callers do, is never
// taken for opaque.
func FuzzToken(f *testing.F) {
	good := compact(goodHeader, goodPayload)
	for _, seed := range []string{
		good, good + "\n", " " + good, good + "=", strings.Replace(good, ".", "..", 1), "", "..", "a.b.c", "v4.public.AAAA",
		compact(`{"alg":"none"}`, goodPayload), compact(`{"alg":"RS256","jwk":{}}`, goodPayload), compact(`{"alg":"RS256","x5c":["AA"]}`, goodPayload),
		compact(`{"alg":"RS256","crit":["exp"],"exp":1}`, goodPayload), compact(`{"alg":"RS256","b64":false,"crit":["b64"]}`, goodPayload),
		compact(`{"alg":"RS256","nonce":1}`, goodPayload), compact(`{"alg":"RS256","kid":null}`, goodPayload), compact(`{"alg":"RS256","x":1e999}`, goodPayload),
		encode([]byte(`{"alg":"dir","enc":"A128GCM"}`)) + ".AA.AA.AA.AA", `{"payload":"e30","signatures":[]}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(checkToken)
}

// FuzzHeader is [FuzzToken] with the encoding done, to get further.
func FuzzHeader(f *testing.F) {
	for _, header := range []string{
		goodHeader, `{"alg":"RS256","x5c":["AA"],"x5u":":","jku":"x","x5t":5}`, `{"\u0061lg":"HS256","kid":"\ud83d\ude00","typ":"a/b"}`,
		`{"alg":"RS256","nonce":"x","b64":true,"cty":1e5,"epk":{},"zip":[1,{"a":null}]}`, `{"alg":"none"}`, `{"alg":"ES256","crit":["b64"]}`,
	} {
		f.Add([]byte(header), []byte(goodPayload))
	}
	f.Fuzz(func(t *testing.T, header, payload []byte) { checkToken(t, compact(string(header), string(payload))) })
}

// parserAlgorithms is what go-jose is asked to parse.
func parserAlgorithms(more ...string) []jose.SignatureAlgorithm {
	all := append(slices.Clone(asymmetric[:]), jose.HS256, jose.HS384, jose.HS512)
	for _, alg := range more {
		all = append(all, jose.SignatureAlgorithm(alg))
	}
	return all
}

func checkToken(t *testing.T, token string) {
	r, err := read(token)
	var malformed malformedError
	switch {
	case err == nil:
		defer r.free()
		checkRead(t, token, r)
	case errors.Is(err, ErrNotJWT):
		for _, cleaned := range []string{token, strings.Join(strings.Fields(token), ""), strings.ReplaceAll(token, "=", "")} {
			if _, err := jose.ParseSigned(cleaned, parserAlgorithms()); err == nil { //nolint:staticcheck // the lenient parser is meant
				t.Fatalf("%q is opaque to us and signed for go-jose", token)
			}
		}
	case !errors.As(err, &malformed):
		t.Fatalf("unexpected error %v", err)
	}
}

// checkRead compares a token that was read with what go-jose sees.
func checkRead(t *testing.T, token string, r *reading) {
	if hash, err := OpaqueTokenHash(token); err != nil || len(hash) != 43 {
		t.Fatalf("no hash for a token that was read: %v", err)
	}
	header, _, _ := strings.Cut(token, ".")
	text, _ := base64.RawURLEncoding.DecodeString(header)
	members, err := reference(text)
	if err != nil {
		t.Fatalf("accepted a header that encoding/json refuses: %v", err)
	}
	alg, _ := members["alg"].(string)
	kid, _ := members["kid"].(string)
	if alg != string(r.alg) || kid != string(r.kid) {
		t.Fatalf("alg %q, kid %q, want %q, %q", r.alg, r.kid, alg, kid)
	}
	jws, err := jose.ParseSignedCompact(token, parserAlgorithms(alg))
	if err != nil {
		t.Fatalf("accepted what go-jose refuses: %v", err)
	}
	if err == nil && !bytes.Equal(jws.UnsafePayloadWithoutVerification(), r.payload) {
		t.Fatal("another payload than go-jose's")
	}
	// Reading again gives the same identity.
	id, err := r.makeIdentity("x", &standardClaims, []string{"aud", "scope"}, times{}, "")
	if err != nil {
		return
	}
	again, err := read(token)
	if err != nil {
		t.Fatal(err)
	}
	defer again.free()
	id2, err := again.makeIdentity("x", &standardClaims, []string{"aud", "scope"}, times{}, "")
	if err != nil || !slices.Equal(id.Claims, id2.Claims) {
		t.Fatalf("%v, then %v, %v", id.Claims, id2, err)
	}
}

// TestScannerRefusesOnlyWhatItShould guards the other direction: what
// encoding/json reads unambiguously is read by us as well.
func TestScannerRefusesOnlyWhatItShould(t *testing.T) {
	values := []any{
		nil, true, "", "a\"\\/\b\f\n\r\t\x00\u2028é😀", 0, -1, 1.5, 1e300, -1e-300, math.MaxFloat64, math.SmallestNonzeroFloat64, uint64(math.MaxUint64),
		[]any{}, []any{1, "a", nil, []any{}}, map[string]any{}, map[string]any{"": map[string]any{"x": []any{map[string]any{"y": "z"}}}},
	}
	object := make(map[string]any)
	for n, v := range values {
		object[fmt.Sprintf("name %d é😀\n", n)] = v
	}
	text, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	indented, _ := json.MarshalIndent(object, "\t", "\r\n ")
	for _, text := range [][]byte{text, indented} {
		var s scanner
		if err := s.scan(text); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		want, err := reference(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range s.members {
			compareValue(t, m, want[string(m.name)])
		}
		if len(s.members) != len(slices.Collect(maps.Keys(want))) {
			t.Error("members are missing")
		}
	}
}
