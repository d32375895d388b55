package ledger

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func depthOf(data []byte) (deepest int) {
	depth := 0
	for _, c := range data { // brackets in strings count too: that is on the safe side
		switch c {
		case '{', '[':
			depth++
			deepest = max(deepest, depth)
		case '}', ']':
			depth--
		}
	}
	return deepest
}

func TestJSONIsAsDeepAsAllowed(t *testing.T) {
	nested := func(n int) []byte {
		return []byte(strings.Repeat("[", n) + strings.Repeat("]", n))
	}
	if !validJSON(nested(maxNesting)) {
		t.Errorf("%d levels are refused", maxNesting)
	}
	if validJSON(nested(maxNesting + 1)) {
		t.Errorf("%d levels are accepted", maxNesting+1)
	}
}

// FuzzValidJSON finds no text on which encoding/json is of another opinion.
func FuzzValidJSON(f *testing.F) {
	for _, text := range []string{
		``, ` `, `{}`, `[]`, ` { } `, `{"a":1}`, `{"a":1,}`, `{,}`, `[1,]`, `[,]`, `{"a"}`, `{"a":}`, `{a:1}`, `{"a":1}x`, `{}{}`,
		`0`, `-0`, `01`, `-`, `1.`, `.1`, `1.5`, `1e5`, `1E+5`, `1e-`, `1e`, `+1`, `1_0`, `0x1`, `Infinity`, `NaN`,
		`true`, `false`, `null`, `tru`, `nul`, `truee`, `"a"`, `"`, `"\"`, `"\\"`, `"\u00e9"`, `"\u00g0"`, `"\u12"`, `"\x"`, "\"\x01\"", "\"\x7f\"",
		"\"\x00\"", "\x00", `{"a":[{"b":[1,2,{"c":null}]},"d"],"e":-1.5e+3}`, "\ufeff{}", "[\"\xff\"]", "\v{}", "{}\n\t\r ", `["\/\b\f\n\r\t"]`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if depthOf(data) > maxNesting {
			return
		}
		if got, want := validJSON(data), json.Valid(data); got != want {
			t.Fatalf("%q: %t, encoding/json says %t", bytes.TrimSpace(data), got, want)
		}
	})
}
