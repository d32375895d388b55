package issuer

import (
	"errors"
	"strings"
	"testing"
)

func TestConfirmationIsReadOrTheTokenRefused(t *testing.T) {
	for name, c := range map[string]struct {
		payload               string
		certificate, proofKey string
		bad                   bool
	}{
		"none":                  {payload: `{}`},
		"null":                  {payload: `{"cnf":null}`},
		"another method":        {payload: `{"cnf":{"jwk":{"kty":"EC","jkt":"x"},"kid":"a"}}`},
		"certificate":           {payload: `{"cnf":{"x5t#S256":"abc"}}`, certificate: "abc"},
		"key":                   {payload: `{"cnf":{"jkt":"ab\u0063"}}`, proofKey: "abc"},
		"both":                  {payload: `{"cnf":{ "jkt":"k" , "x5t#S256":"c"}}`, certificate: "c", proofKey: "k"},
		"names have a case":     {payload: `{"CNF":{"jkt":"k"},"cnf":{"JKT":"k"}}`},
		"a text":                {payload: `{"cnf":"x5t#S256"}`, bad: true},
		"a list":                {payload: `{"cnf":[{"jkt":"k"}]}`, bad: true},
		"an empty thumbprint":   {payload: `{"cnf":{"jkt":""}}`, bad: true},
		"a list of thumbprints": {payload: `{"cnf":{"jkt":["k"]}}`, bad: true},
		"a number":              {payload: `{"cnf":{"x5t#S256":1}}`, bad: true},
		"null as a thumbprint":  {payload: `{"cnf":{"x5t#S256":null}}`, bad: true},
		"a long one":            {payload: `{"cnf":{"jkt":"` + strings.Repeat("k", 200) + `"}}`, bad: true},
	} {
		var r reading
		if err := r.scanner.scan([]byte(c.payload)); err != nil {
			t.Fatal(err)
		}
		certificate, proofKey, err := r.confirmation()
		if certificate != c.certificate || proofKey != c.proofKey || (err != nil) != c.bad || err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %q, %q, %v", name, certificate, proofKey, err)
		}
	}
}
