package oauth

import (
	"encoding/base64"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func TestParseBasicReturnsEveryReadingOfTheCredentials(t *testing.T) {
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	tests := []struct {
		name  string
		value string
		want  []credential // nil: an error
	}{
		{"plain", "Basic " + b64("app:secret"), []credential{{"app", "secret"}}},
		{"scheme in other letters", "bAsIc " + b64("app:secret"), []credential{{"app", "secret"}}},
		{"several spaces", "Basic   " + b64("app:secret"), []credential{{"app", "secret"}}},
		{"a colon in the secret", "Basic " + b64("app:a:b"), []credential{{"app", "a:b"}}},
		{"empty secret", "Basic " + b64("app:"), []credential{{"app", ""}}},
		{"empty id", "Basic " + b64(":secret"), []credential{{"", "secret"}}},
		{"encoded", "Basic " + b64("a%3Ab:c+%26"), []credential{{"a:b", "c &"}, {"a%3Ab", "c+%26"}}},
		{"a raw plus has two readings", "Basic " + b64("app:a+b"), []credential{{"app", "a b"}, {"app", "a+b"}}},
		{"a raw percent sign has one", "Basic " + b64("app:100%"), []credential{{"app", "100%"}}},
		{"no UTF-8", "Basic " + b64("app:\xff"), []credential{{"app", "\xff"}}},

		{"no credentials", "Basic", nil},
		{"only spaces", "Basic  ", nil},
		{"another scheme", "Bearer " + b64("app:secret"), nil},
		{"a longer scheme", "BasicX " + b64("app:secret"), nil},
		{"tab", "Basic\t" + b64("app:secret"), nil},
		{"no base64", "Basic !!!", nil},
		{"the padding is missing", "Basic " + strings.TrimRight(b64("app:s"), "="), nil},
		{"two of them", "Basic " + b64("app:secret") + "," + b64("app:secret"), nil},
		{"no colon", "Basic " + b64("app"), nil},
		{"a line break inside", "Basic " + b64("app:secret")[:4] + "\n" + b64("app:secret")[4:], nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseBasic(tt.value)
			if (err != nil) != (tt.want == nil) || !slices.Equal(got, tt.want) {
				t.Errorf("got %q, %v; want %q", got, err, tt.want)
			}
		})
	}
}

// FuzzParseBasic checks both ways of writing credentials: whatever id and secret
// are, one of the readings is what was meant.
func FuzzParseBasic(f *testing.F) {
	f.Add("app", "secret")
	f.Add("https://c.example", "p%a+s s:ü")
	f.Add("", "%")
	f.Fuzz(func(t *testing.T, id, secret string) {
		meant := credential{id, secret}
		encoded := basicAuth(url.QueryEscape(id), url.QueryEscape(secret))
		if got, err := parseBasic(encoded); err != nil || got[0] != meant {
			t.Fatalf("encoded: %q, %v", got, err)
		}
		if !strings.Contains(id, ":") {
			if got, err := parseBasic(basicAuth(id, secret)); err != nil || got[len(got)-1] != meant {
				t.Fatalf("raw: %q, %v", got, err)
			}
		}
		if got, err := parseBasic("Basic " + id + secret); err == nil && (len(got) == 0 || len(got) > 2) {
			t.Fatalf("%d readings", len(got))
		}
	})
}
