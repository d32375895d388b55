package issuer

import (
	"net/url"
	"strings"
	"testing"
)

// FuzzIntrospectionMetadata checks that no metadata document, however it is
// written, sends our credentials anywhere but to the introspection_endpoint that
// encoding/json finds in it, only if it names the issuer, and never without TLS but
// to the host that the document itself came from without TLS.
func FuzzIntrospectionMetadata(f *testing.F) {
	member := func(issuer, endpoint string) []byte {
		return []byte(`{"issuer":"` + issuer + `","introspection_endpoint":"` + endpoint + `"}`)
	}
	for _, endpoint := range []string{
		"https://as.example.com/introspect", "http://as.example.com/introspect", "http://internal:8080/introspect", "//as.example.com/i", "",
		"https://user:pass@as.example.com/", "https://as.example.com/#x", "http://127.0.0.1/i", "http://localhost:1/i", "HTTP://INTERNAL/i",
		"file:///etc/passwd", `https://as.example.com/\u0000`, "https://", "https:as.example.com",
	} {
		f.Add(member(testIssuer, endpoint))
	}
	f.Add(member(testIssuer+"/", "https://as.example.com/introspect"))
	for _, text := range []string{
		``, `null`, `[]`, `{}`, `{"issuer":"` + testIssuer + `"}`, `{"Issuer":"` + testIssuer + `","introspection_endpoint":"https://evil.example/"}`,
		`{"issuer":"` + testIssuer + `","introspection_endpoint":"https://a.example/","introspection_endpoint":"https://b.example/"}`,
		`{"issuer":"` + testIssuer + `","introspection_endpoint":["https://a.example/"]}`,
		`{"issuer":"` + testIssuer + `","introspection_\u0065ndpoint":"https://a.example/"}`,
	} {
		f.Add([]byte(text))
	}
	sources := []*url.URL{
		{Scheme: "https", Host: "as.example.com", Path: "/.well-known/openid-configuration"},
		{Scheme: "http", Host: "internal:8080", Path: "/.well-known/openid-configuration"},
		{Scheme: "http", Host: "127.0.0.1:9000", Path: "/.well-known/openid-configuration"},
	}
	e := &endpointSource{issuer: Config{Issuer: testIssuer}}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, from := range sources {
			found, err := e.read(text, from)
			if err != nil {
				if found != nil {
					t.Fatalf("%s and %v", found, err)
				}
				continue
			}
			object, refErr := reference(text)
			if refErr != nil {
				t.Fatalf("read what encoding/json does not: %v", refErr)
			}
			want, _ := object["introspection_endpoint"].(string)
			parsed, refErr := url.Parse(want)
			switch {
			case object["issuer"] != testIssuer:
				t.Fatalf("metadata of %v", object["issuer"])
			case refErr != nil || parsed.String() != found.String():
				t.Fatalf("%s, want %q: %v", found, want, refErr)
			case found.User != nil || found.Fragment != "" || found.Hostname() == "":
				t.Fatalf("accepted %s", found)
			case found.Scheme == "https":
			case found.Scheme != "http" || from.Scheme != "http":
				t.Fatalf("%s found at %s", found, from)
			case !strings.EqualFold(found.Host, from.Host) && (!isLoopback(from.Hostname()) || !isLoopback(found.Hostname())):
				t.Fatalf("%s found at %s", found, from)
			}
		}
	})
}
