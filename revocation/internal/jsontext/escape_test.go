package jsontext_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/edge-revocation/caddy-token-revocation/revocation/internal/jsontext"
)

// Whatever is accepted means what encoding/json takes it for, and nothing that it
// takes is refused but for halves of surrogate pairs, which it replaces.
func FuzzAppendUnescaped(f *testing.F) {
	for _, seed := range []string{
		``, `plain`, `\"\\\/\b\f\n\r\t`, `\u0041`, `\u00e9`, `\ud83d\ude00`, `\uD83D\uDE00`, `\ud83d`, `\ude00`, `\ud83d\u0041`,
		`\ud83d\ud83d`, `\u12`, `\u12g4`, `\x`, `\`, `a\`, `\uffff`, `\u0000`, `\ufffd`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, ok := jsontext.AppendUnescaped([]byte("before "), []byte(text))
		if ok {
			got = got[len("before "):]
		}
		var want string
		if !utf8.ValidString(text) || json.Unmarshal([]byte(`"`+text+`"`), &want) != nil {
			return // whether a text is a string at all is for scanners to say
		}
		switch {
		case ok && string(got) != want:
			t.Errorf("%q means %q, not %q", text, want, got)
		case !ok && !strings.ContainsRune(want, utf8.RuneError):
			t.Errorf("%q is refused, and means %q", text, want)
		}
	})
}

// Half of a surrogate pair is no character.
func TestHalvesOfSurrogatePairsAreRefused(t *testing.T) {
	for _, text := range []string{`\ud83d`, `\ude00`, `\ud83dx`, `\ud83d\n`, `\ud83d\u0041`, `\ud83d\ud83d`, `\ude00\ud83d`} {
		if got, ok := jsontext.AppendUnescaped(nil, []byte(text)); ok {
			t.Errorf("%s means %q", text, got)
		}
	}
}
