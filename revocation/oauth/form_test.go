package oauth

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"strings"
	"testing"
)

func TestParseFormReadsWhatWasSentAndNothingElse(t *testing.T) {
	many := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "p%d=x&", i)
		}
		return b.String()
	}
	tests := []struct {
		name string
		body string
		want form
		err  error
	}{
		{"empty", "", form{}, nil},
		{"one", "token=x", form{"token": "x"}, nil},
		{"two", "token=x&client_id=y", form{"token": "x", "client_id": "y"}, nil},
		{"a parameter without a value is empty", "token", form{"token": ""}, nil},
		{"a parameter with an empty value is empty", "token=", form{"token": ""}, nil},
		{"nothing between the separators", "&&token=x&", form{"token": "x"}, nil},
		{"an equals sign in the value", "token=a==", form{"token": "a=="}, nil},
		{"escapes", "token=%41%2b%3D", form{"token": "A+="}, nil},
		{"a plus is a space", "token=a+b", form{"token": "a b"}, nil},
		{"an encoded name", "%74oken=x", form{"token": "x"}, nil},
		{"an escape is decoded once", "token=%2541", form{"token": "%41"}, nil},
		{"bytes that are no UTF-8", "token=%ff", form{"token": "\xff"}, nil},
		{"names are case-sensitive", "Token=x", form{"Token": "x"}, nil},
		{"as many as allowed", many(maxParameters), nil, nil},

		{"one more than allowed", many(maxParameters + 1), nil, errFormSize},
		{"repeated", "token=a&token=b", nil, errFormRepeated},
		{"repeated without a value", "token=&token=b", nil, errFormRepeated},
		{"repeated in another spelling", "token=a&tok%65n=b", nil, errFormRepeated},
		{"an unknown one repeated", "x=a&x=b", nil, errFormRepeated},
		{"broken escape", "token=%zz", nil, errFormEncoding},
		{"escape cut off", "token=%4", nil, errFormEncoding},
		{"broken escape in a name", "%=x", nil, errFormEncoding},
		{"broken escape in a parameter that nobody reads", "token=x&y=%", nil, errFormEncoding},
		{"semicolon", "token=a;client_id=b", nil, errFormByte},
		{"space", "token=a b", nil, errFormByte},
		{"line break at the end", "token=a\r\n", nil, errFormByte},
		{"zero byte", "token=a\x00", nil, errFormByte},
		{"no ASCII", "token=ü", nil, errFormByte},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseForm(tt.body)
			if !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if tt.want != nil && !maps.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// FuzzParseForm compares with the standard library: what we accept, it accepts
// with the same meaning.
func FuzzParseForm(f *testing.F) {
	for _, s := range []string{"token=x", "token=a&token=b", "a=%41+b&c", "%", "a;b=c", "=x&==", "token=\xff", "a=1&%61=2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, body string) {
		got, err := parseForm(body)
		if err != nil {
			return
		}
		want, err := url.ParseQuery(body)
		if err != nil {
			t.Fatalf("%q: accepted, but %v", body, err)
		}
		if len(got) != len(want) || len(got) > maxParameters {
			t.Fatalf("%q: %d parameters, want %d", body, len(got), len(want))
		}
		for name, values := range want {
			if len(values) != 1 || got[name] != values[0] {
				t.Fatalf("%q: %q is %q, want %q", body, name, got[name], values)
			}
		}
	})
}
