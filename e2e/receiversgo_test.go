//go:build e2e

package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// startGoReceiver starts a server like receivers/node.mjs, by net/http.
func startGoReceiver(t testing.TB) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s := new(sightings)
			s.inHeader(r)
			s.inQuery(r.URL.RawQuery)
			s.inBody(r)
			s.inHeader(&http.Request{Header: r.Trailer}) // it is known after the body
			w.Header().Set("X-Receiver", "go")
			_, _ = io.WriteString(w, s.text.String())
		}),
		ReadHeaderTimeout: time.Minute,
	}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	return listener.Addr().String()
}

// sightings are the lines of an answer: a place, a way of reading it, and what was
// read.
type sightings struct{ text strings.Builder }

func (s *sightings) saw(place, way string, values ...string) {
	for _, value := range values {
		if value != "" {
			fmt.Fprintf(&s.text, "%s\t%s\t%q\n", place, way, value)
		}
	}
}

var (
	bearerAnywhere = regexp.MustCompile(`(?i)bearer\s+(\S+)`)
	bearerPrefix   = regexp.MustCompile(`(?i)^\s*(?:bearer|dpop)[ \t]+(.*)$`)
)

func (s *sightings) inHeader(r *http.Request) {
	values := r.Header.Values("Authorization")
	s.saw("authorization", "raw", r.Header.Get("Authorization"), strings.Join(values, ", "))
	for _, value := range values {
		s.saw("authorization", "trimmed", strings.TrimPrefix(value, "Bearer "))
		for _, expression := range []*regexp.Regexp{bearerAnywhere, bearerPrefix} {
			if found := expression.FindStringSubmatch(value); found != nil {
				s.saw("authorization", expression.String(), found[1])
			}
		}
		if _, after, found := strings.Cut(value, "Bearer "); found {
			s.saw("authorization", "cut", after)
		}
		// without a look at the scheme
		if fields := strings.Fields(value); len(fields) > 1 {
			s.saw("authorization", "blind second", fields[1])
			s.saw("authorization", "blind last", fields[len(fields)-1])
		}
		if len(value) > 7 {
			s.saw("authorization", "blind cut", value[7:])
		}
	}
	for name, values := range r.Header {
		// as net/http/cgi makes a variable of it
		if strings.EqualFold(strings.ReplaceAll(name, "-", "_"), "X_Access_Token") {
			s.saw("header", name, values...)
		}
	}
	if cookie, err := r.Cookie("access_token"); err == nil {
		s.saw("cookie", "Cookie", cookie.Value)
	}
	for _, cookie := range r.Cookies() {
		if cookie.Name == "access_token" {
			s.saw("cookie", "Cookies", cookie.Value)
		}
	}
	for _, field := range r.Header["Cookie"] {
		for part := range strings.SplitSeq(field, ";") {
			if name, value, _ := strings.Cut(part, "="); strings.TrimSpace(name) == "access_token" {
				s.saw("cookie", "by hand", value)
			}
		}
	}
}

func (s *sightings) inQuery(raw string) {
	values, _ := url.ParseQuery(raw)
	s.saw("query", "Query", values["access_token"]...)
	// as before Go 1.17
	values, _ = url.ParseQuery(strings.ReplaceAll(raw, ";", "&"))
	s.saw("query", "with semicolons", values["access_token"]...)
}

func (s *sightings) inBody(r *http.Request) {
	_ = r.ParseMultipartForm(1 << 20)
	s.saw("form", "PostForm", r.PostForm["access_token"]...)
	if r.MultipartForm != nil {
		s.saw("form", "MultipartForm", r.MultipartForm.Value["access_token"]...)
	}
	s.saw("either", "Form", r.Form["access_token"]...)
	s.saw("either", "FormValue", r.FormValue("access_token"))
	_, _ = io.Copy(io.Discard, r.Body)
}

// sighting is a line of an answer.
type sighting struct{ place, way, value string }

func readSightings(text string) (found []sighting, err error) {
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		parts := strings.SplitN(line, "\t", 3)
		switch {
		case line == "":
		case len(parts) != 3 || !slices.Contains(allPlaces, parts[0]):
			return nil, fmt.Errorf("a receiver answers %q", line)
		case parts[2] != "":
			found = append(found, sighting{parts[0], parts[1], parts[2]})
		}
	}
	return found, nil
}
