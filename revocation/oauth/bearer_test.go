package oauth

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

func TestBearerTokenReadsExactlyOneTokenOrRefuses(t *testing.T) {
	const (
		at  = "eyJh.eyJp.c2ln-_"
		jwt = "eyJhIjoxfQ.eyJp.c2ln-_" // its header is an object
	)
	tests := []struct {
		name   string
		fields []string
		token  string
		scheme string
		err    error
	}{
		{"bearer", []string{"Bearer " + at}, at, SchemeBearer, nil},
		{"lower case", []string{"bearer " + at}, at, SchemeBearer, nil},
		{"upper case", []string{"BEARER " + at}, at, SchemeBearer, nil},
		{"mixed case", []string{"bEaReR " + at}, at, SchemeBearer, nil},
		{"dpop", []string{"DPoP " + at}, at, SchemeDPoP, nil},
		{"dpop in other letters", []string{"dpop " + at}, at, SchemeDPoP, nil},
		{"several spaces", []string{"Bearer    " + at}, at, SchemeBearer, nil},
		{"white space around the field", []string{" \tBearer " + at + "\t "}, at, SchemeBearer, nil},
		{"without a scheme", []string{at}, at, SchemeBearer, nil},
		{"opaque, without a scheme", []string{" 2YotnFZFEjr1zCsicMWpAA== "}, "2YotnFZFEjr1zCsicMWpAA==", SchemeBearer, nil},
		{"every token68 character", []string{"Bearer aZ09-._~+/=="}, "aZ09-._~+/==", SchemeBearer, nil},

		{"no field", nil, "", "", ErrNoToken},
		{"no value", []string{""}, "", "", ErrNoToken},
		{"white space only", []string{" \t"}, "", "", ErrNoToken},
		{"basic", []string{"Basic dXNlcjpwYXNz"}, "", "", ErrNoToken},
		{"digest", []string{`Digest username="bearer", realm="x"`}, "", "", ErrNoToken},
		{"another scheme with dots", []string{`Digest realm="keycloak.new.example.com", uri="/eyes/view.a.b"`}, "", "", ErrNoToken},
		{"no token68 without a scheme", []string{"key!live"}, "", "", ErrNoToken},
		{"a scheme that begins a little like ours", []string{"Bear x"}, "", "", ErrNoToken},
		{"the name of ours as the last word", []string{"Basic bearer"}, "", "", ErrNoToken},

		{"two fields", []string{"Bearer " + at, "Bearer " + at}, "", "", ErrSeveralTokens},
		{"two fields, the token in the second", []string{"Basic x", "Bearer " + at}, "", "", ErrSeveralTokens},
		{"two fields, one without a value", []string{"", "Bearer " + at}, "", "", ErrSeveralTokens},

		{"scheme alone", []string{"Bearer"}, "", "", ErrBadAuthorization},
		{"scheme and spaces", []string{"Bearer   "}, "", "", ErrBadAuthorization},
		{"tab", []string{"Bearer\t" + at}, "", "", ErrBadAuthorization},
		{"space and tab", []string{"Bearer \t" + at}, "", "", ErrBadAuthorization},
		{"two tokens", []string{"Bearer " + at + " " + at}, "", "", ErrBadAuthorization},
		{"comma list", []string{"Bearer " + at + ",x"}, "", "", ErrBadAuthorization},
		{"comma instead of a space", []string{"Bearer," + at}, "", "", ErrBadAuthorization},
		{"quoted", []string{`Bearer "` + at + `"`}, "", "", ErrBadAuthorization},
		{"quoted as a whole", []string{`"Bearer ` + at + `"`}, "", "", ErrBadAuthorization},
		{"auth-param", []string{"Bearer token=" + at}, "", "", ErrBadAuthorization},
		{"equals sign in the middle", []string{"Bearer a=b"}, "", "", ErrBadAuthorization},
		{"only equals signs", []string{"Bearer =="}, "", "", ErrBadAuthorization},
		{"colon after the scheme", []string{"Bearer: " + at}, "", "", ErrBadAuthorization},
		{"no space", []string{"Bearer" + at}, "", "", ErrBadAuthorization},
		{"another character instead of the space", []string{"Bearer_" + at}, "", "", ErrBadAuthorization},
		{"a longer scheme", []string{"DPoPx " + at}, "", "", ErrBadAuthorization},
		{"in a list after another scheme", []string{"Basic dXNlcjpwYXNz, Bearer " + at}, "", "", ErrBadAuthorization},
		{"in a list without a space", []string{"Basic dXNlcjpwYXNz,bearer " + at}, "", "", ErrBadAuthorization},
		{"in quotes after another scheme", []string{`Digest x="Bearer ` + at + `"`}, "", "", ErrBadAuthorization},
		{"after another scheme", []string{"Token Bearer " + at}, "", "", ErrBadAuthorization},
		{"after another scheme, with a tab", []string{"Token DPoP\t" + at}, "", "", ErrBadAuthorization},
		{"line break", []string{"Bearer " + at + "\r\nX: y"}, "", "", ErrBadAuthorization},
		{"line break at the end", []string{"Bearer " + at + "\n"}, "", "", ErrBadAuthorization},
		{"zero byte", []string{"Bearer " + at + "\x00"}, "", "", ErrBadAuthorization},
		{"no ASCII", []string{"Bearer ü"}, "", "", ErrBadAuthorization},
		{"a scheme without ASCII", []string{"\u212aearer " + at}, "", "", ErrBadAuthorization},
		{"a JWT under another scheme", []string{"Token " + jwt}, "", "", ErrBadAuthorization},
		{"a JWT under another scheme, quoted", []string{`Digest a=b, c="` + jwt + `"`}, "", "", ErrBadAuthorization},
		{"a JWT after seven bytes", []string{"Basic  " + jwt}, "", "", ErrBadAuthorization},
		{"a JWT after seven bytes that are no space", []string{"1234567" + jwt}, "", "", ErrBadAuthorization},
		{"a JWT whose header begins with a line break", []string{"JWT ewp9.e30."}, "", "", ErrBadAuthorization},
		{"a JWT and more", []string{jwt + " x"}, "", "", ErrBadAuthorization},
		{"more beginnings of a JWT than are looked at", []string{"X " + strings.Repeat("ey", 100) + ".x.y"}, "", "", ErrBadAuthorization},
		{"a JWT that is too long to be looked at", []string{"X ey" + strings.Repeat("a", 9000) + ".x.y"}, "", "", ErrBadAuthorization},
		{"no-break space after another scheme", []string{"Token Bearer\xa0" + at}, "", "", ErrBadAuthorization},
		{"begins with a comma", []string{", Bearer " + at}, "", "", ErrBadAuthorization},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := http.Header{"X": {"y"}}
			if tt.fields != nil {
				h["Authorization"] = tt.fields
			}
			got, err := BearerToken(h)
			if !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if got.Token != tt.token || got.Scheme != tt.scheme {
				t.Errorf("got %+v, want %q under %q", got, tt.token, tt.scheme)
			}
		})
	}
}

func TestBearerTokenDoesNotAllocate(t *testing.T) {
	for name, value := range map[string]string{
		"token": "bearer " + strings.Repeat("a", 1000), "no token": "Basic dXNlcjpwYXNz", "malformed": "Bearer a,b",
	} {
		h := http.Header{"Authorization": {value}}
		if n := testing.AllocsPerRun(100, func() { _, _ = BearerToken(h) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

var hiddenToken = regexp.MustCompile("(?i-s:(^|[^A-Za-z0-9!#$%&'*+.^_`|~-])(bearer|dpop)[ \\t])")

// hiddenJWT tells whether there is a JWT in a field.
func hiddenJWT(value string) bool {
	for _, at := range regexp.MustCompile(`e[yw]`).FindAllStringIndex(value, -1) {
		parts := strings.Split(value[at[0]:], ".")
		var header map[string]any
		text, err := base64.RawURLEncoding.DecodeString(parts[0])
		if len(parts) > 2 && err == nil && json.Unmarshal(text, &header) == nil {
			return true
		}
	}
	return false
}

// FuzzBearerToken checks that what is returned is all there is: whoever splits
// the field at its spaces finds the same token, and no second one.
func FuzzBearerToken(f *testing.F) {
	for _, s := range []string{"Bearer a", "bearer  a.b.c==", "DPoP x", "Basic eA==", "Bearer a,b", "Bearer\ta", "BearerX a", "", "a", "Token eyJhIjoxfQ.x.y", "eyJhIjoxfQ.x.y", "Basic x, Bearer y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		got, err := BearerToken(http.Header{"Authorization": {value}})
		if err != nil {
			if got != (Presented{}) {
				t.Fatalf("%q: %+v together with %v", value, got, err)
			}
			if errors.Is(err, ErrNoToken) {
				if hiddenToken.MatchString(trimSpace(value)) || isToken68(trimSpace(value)) || hiddenJWT(value) {
					t.Fatalf("%q passes as a request without a token", value)
				}
			}
			return
		}
		words := strings.Fields(value)
		if len(words) == 1 && words[0] == got.Token && got.Scheme == SchemeBearer {
			return
		}
		if len(words) != 2 || words[1] != got.Token || !strings.EqualFold(words[0], got.Scheme) {
			t.Fatalf("%q was read as %+v", value, got)
		}
	})
}
