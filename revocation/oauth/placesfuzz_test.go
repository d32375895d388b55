package oauth

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"net/url"
	"strings"
	"testing"
)

// FuzzPlaces compares what is read with what net/http and lenient readers make
// of the same request: no token in a place that was not found, and no other one.
func FuzzPlaces(f *testing.F) {
	for _, s := range [][4]string{
		{"Bearer a", "", "", ""},
		{"", "access_token=a; b=c", "x=1&access_token=b", "access_token=c"},
		{"", `a="x; access_token=a"`, "access%5Ftoken=a;b", "access_token=%61"},
		{"", "Access_Token=a,access_token=b", "?access_token[]=a", "a=1;access_token=b"},
		{"", "access_token=\"a\"", "access_token=a+b", "\r\naccess_token=a"},
	} {
		for _, t := range []string{formType, formType + "; charset=utf-8", "Multipart/form-data; boundary=x", ""} {
			f.Add(s[0], s[1], s[2], s[3], t)
		}
	}
	var sets [3]*Places
	for a := range sets {
		sets[a] = mustPlaces(f, everyPlace(PlaceAction(a))...)
	}
	f.Fuzz(func(t *testing.T, header, cookie, query, body, contentType string) {
		if _, err := url.Parse("/?" + query); err != nil || strings.ContainsAny(query, "#\r\n ") {
			return // such a request does not arrive
		}
		for _, s := range []string{header, cookie, contentType} {
			if strings.ContainsAny(s, "\r\n\x00") {
				return
			}
		}
		request := func() *http.Request {
			r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
			r.URL.RawQuery = query
			for name, value := range map[string]string{"X-Access-Token": header, "Cookie": cookie, "Content-Type": contentType} {
				if value = textproto.TrimString(value); value != "" {
					r.Header.Set(name, value)
				}
			}
			return r
		}
		for action, places := range sets {
			r := request()
			got, err := places.Read(r)
			var refused *PlaceError
			if err != nil && !errors.Is(err, ErrNoToken) && !errors.As(err, &refused) {
				t.Fatalf("error %v", err)
			}
			if refused != nil {
				continue // it goes nowhere
			}
			places.Strip(r)
			forwarded, err := io.ReadAll(r.Body)
			if err != nil || PlaceAction(action) != PlaceStrip && string(forwarded) != body {
				t.Fatalf("body %q became %q, %v", body, forwarded, err)
			}
			if int64(len(forwarded)) != r.ContentLength {
				t.Fatalf("%d bytes with a length of %d", len(forwarded), r.ContentLength)
			}
			r.Body = io.NopCloser(bytes.NewReader(forwarded))
			for _, token := range tokensSeen(r) {
				if token != got.Token {
					t.Fatalf("action %d: receivers see %q, judged was %q", action, token, got.Token)
				}
			}
		}
	})
}

// tokensSeen is what receivers find in the places.
func tokensSeen(r *http.Request) (tokens []string) {
	add := func(name, value string) {
		if strings.EqualFold(name, DefaultParameter) && value != "" {
			tokens = append(tokens, value)
		}
	}
	for _, c := range r.Cookies() {
		add(c.Name, c.Value)
	}
	for _, field := range r.Header["Cookie"] {
		// as nginx does
		for part := range strings.FieldsFuncSeq(field, func(c rune) bool { return c == ';' || c == ',' }) {
			if name, value, ok := strings.Cut(strings.Trim(part, " "), "="); ok {
				add(strings.TrimRight(name, " "), strings.Trim(strings.TrimLeft(value, " "), `"`))
			}
		}
	}
	// as those do that know semicolons
	for _, raw := range []string{r.URL.RawQuery, strings.ReplaceAll(r.URL.RawQuery, ";", "&")} {
		values, _ := url.ParseQuery(raw)
		for name, list := range values {
			for _, value := range list {
				add(strings.TrimLeft(name, "? "), value)
			}
		}
	}
	_ = r.ParseMultipartForm(1 << 20)
	for name, list := range r.Form {
		for _, value := range list {
			add(name, value)
		}
	}
	if value := r.Header.Get("X-Access-Token"); value != "" {
		if len(value) > 7 && strings.EqualFold(value[:7], "bearer ") {
			value = strings.TrimLeft(value[7:], " ")
		}
		add(DefaultParameter, value)
	}
	return tokens
}
