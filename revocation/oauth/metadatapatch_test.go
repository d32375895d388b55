package oauth

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	ourRevocation    = "https://edge.example/revoke?tenant=a&b=c"
	ourIntrospection = "https://edge.example/introspect"
)

func newPatch(t testing.TB, change func(*MetadataPatchOptions)) *MetadataPatch {
	t.Helper()
	o := MetadataPatchOptions{
		RevocationEndpoint: ourRevocation, IntrospectionEndpoint: ourIntrospection, Clients: testClients(t),
		Issuer: func(name string) (string, bool) {
			return issuerA, name == issuerA || name == "https://alias.example"
		},
	}
	if change != nil {
		change(&o)
	}
	p, err := NewMetadataPatch(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// asMetadata is a document as an authorization server writes it.
const asMetadata = `{
  "issuer" : "https://a.example",
  "revocation_endpoint": "https://as.example/revoke",
  "token_endpoint": "https://a\u0073.example/token",
  "signed_metadata": "x.y.z",
  "revocation_endpoint_auth_methods_supported": ["private_key_jwt"],
  "revocation_endpoint_auth_signing_alg_values_supported": ["RS256"],
  "introspection_endpoint_auth_signing_alg_values_supported": ["RS256"],
  "introspection_signing_alg_values_supported": ["RS256"],
  "n": 12345678901234567890.50,
  "mtls_endpoint_aliases": { "revocation_endpoint": "https://m.example/r", "token_endpoint" : "https://m.example/t", "introspection_endpoint": "https://m.example/i" },
  "introspection_endpoint": "https://as.example/introspect"
}
`

func TestPatchPutsOurEndpointsInTheirPlace(t *testing.T) {
	got, err := newPatch(t, nil).Apply([]byte(asMetadata))
	want := `{"issuer" : "https://a.example",` +
		`"revocation_endpoint":"https://edge.example/revoke?tenant=a\u0026b=c",` +
		`"token_endpoint": "https://a\u0073.example/token",` +
		`"revocation_endpoint_auth_methods_supported":["client_secret_basic","client_secret_post","none"],` +
		`"n": 12345678901234567890.50,` +
		`"mtls_endpoint_aliases":{"token_endpoint" : "https://m.example/t"},` +
		`"introspection_endpoint":"https://edge.example/introspect",` +
		`"introspection_endpoint_auth_methods_supported":["client_secret_basic","client_secret_post"]}`
	if err != nil || string(got) != want {
		t.Errorf("%v\ngot  %s\nwant %s", err, got, want)
	}
}

func TestPatchPublishesTheAlgorithmsOfAssertions(t *testing.T) {
	p := newPatch(t, func(o *MetadataPatchOptions) {
		o.Clients = &listedMethods{[]AuthMethod{AuthNone, AuthPrivateKeyJWT}, []string{"ES256"}}
	})
	got, err := p.Apply([]byte(`{"issuer":"https://alias.example"}`))
	want := `{"issuer":"https://alias.example",` +
		`"revocation_endpoint":"https://edge.example/revoke?tenant=a\u0026b=c",` +
		`"revocation_endpoint_auth_methods_supported":["none","private_key_jwt"],` +
		`"revocation_endpoint_auth_signing_alg_values_supported":["ES256"],` +
		`"introspection_endpoint":"https://edge.example/introspect",` +
		`"introspection_endpoint_auth_methods_supported":["private_key_jwt"],` +
		`"introspection_endpoint_auth_signing_alg_values_supported":["ES256"]}`
	if err != nil || string(got) != want {
		t.Errorf("%v\ngot  %s\nwant %s", err, got, want)
	}
}

// The clients authenticate at the authorization server: it knows how.
func TestPatchLeavesTheMethodsOfAnEndpointThatOnlyPassesOn(t *testing.T) {
	p := newPatch(t, func(o *MetadataPatchOptions) {
		o.RevocationUpstream, o.IntrospectionEndpoint, o.Clients = true, "", nil
	})
	got, err := p.Apply([]byte(asMetadata))
	if err != nil {
		t.Fatal(err)
	}
	var before, after map[string]any
	if json.Unmarshal([]byte(asMetadata), &before) != nil || json.Unmarshal(got, &after) != nil {
		t.Fatalf("%s", got)
	}
	before["revocation_endpoint"] = ourRevocation
	delete(before, "signed_metadata")
	delete(before[memberAliases].(map[string]any), memberEndpoint)
	if !reflect.DeepEqual(before, after) {
		t.Errorf("got %v, want %v", after, before)
	}
}

func TestPatchLeavesAloneWhatIsNotOurs(t *testing.T) {
	p := newPatch(t, nil)
	for says, document := range map[string]string{
		"not configured":   `{"issuer":"https://b.example"}`,
		"names no issuer":  `{"token_endpoint":"https://a.example/token"}`,
		"no issuer":        `{"issuer":""}`,
		"no issuer ":       `{"issuer":["https://a.example"]}`,
		"no issuer  ":      `{"Issuer":"https://a.example"}`,
		"given twice":      `{"issuer":"https://a.example","issuer":"https://b.example"}`,
		"given twice ":     `{"issuer":"https://a.example","\u0069ssuer":"https://a.example"}`,
		"not a JSON":       `[]`,
		"not a JSON ":      `{"issuer":"https://a.example"} x`,
		"not a JSON obje":  `<html>`,
		"not a JSON objec": ``,
	} {
		if got, err := p.Apply([]byte(document)); err == nil || !strings.Contains(err.Error(), strings.TrimSpace(says)) {
			t.Errorf("%s: %v, %s", document, err, got)
		}
	}
}

func TestPatchReplacesEveryOccurrence(t *testing.T) {
	got, err := newPatch(t, nil).Apply([]byte(`{"signed_metadata":1,"revocation_endpoint":"a","issuer":"https://a.example","x":1,"revocation\u005fendpoint":"b","x":2,"signed_metadata":2,` +
		`"mtls_endpoint_aliases":{"revocation_endpoint":"c","revocation_endpoint":"d"},"mtls_endpoint_aliases":[]}`))
	want := `{"revocation_endpoint":"https://edge.example/revoke?tenant=a\u0026b=c","issuer":"https://a.example","x":1,"x":2,"mtls_endpoint_aliases":[],`
	if err != nil || !strings.HasPrefix(string(got), want) {
		t.Errorf("%v %s", err, got)
	}
}

func TestPatchIsNotMadeOfNonsense(t *testing.T) {
	for says, change := range map[string]func(*MetadataPatchOptions){
		"nothing to patch":    func(o *MetadataPatchOptions) { o.RevocationEndpoint, o.IntrospectionEndpoint = "", "" },
		"the issuers":         func(o *MetadataPatchOptions) { o.Issuer = nil },
		"the clients":         func(o *MetadataPatchOptions) { o.Clients = nil },
		"has no address":      func(o *MetadataPatchOptions) { o.RevocationEndpoint, o.RevocationUpstream = "", true },
		"revocation endpoint": func(o *MetadataPatchOptions) { o.RevocationEndpoint = "http://x.example" },
		"introspection endp":  func(o *MetadataPatchOptions) { o.IntrospectionEndpoint = "http://x.example" },
	} {
		o := MetadataPatchOptions{
			RevocationEndpoint: ourRevocation, IntrospectionEndpoint: ourIntrospection, Clients: testClients(t),
			Issuer: func(string) (string, bool) { return issuerA, true },
		}
		change(&o)
		if _, err := NewMetadataPatch(o); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", says, err)
		}
	}
}

// behind is an authorization server over HTTP, and a patch before it.
func behind(t *testing.T, p *MetadataPatch, as http.HandlerFunc) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(as)
	t.Cleanup(server.Close)
	target, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.FlushInterval = -1 // flushes after each write
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := p.ServePassing(w, r, func(w http.ResponseWriter, r *http.Request) error { proxy.ServeHTTP(w, r); return nil }); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(front.Close)
	return front
}

// fetched is an answer to a request for metadata.
type fetched struct {
	status int
	header http.Header
	length int64 // as the header says
}

func fetch(t *testing.T, method, target string, header http.Header) (fetched, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, target, nil)
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(req.Header, header)
	transport := &http.Transport{DisableCompression: true}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return fetched{resp.StatusCode, resp.Header, resp.ContentLength}, string(body)
}

func TestPassingDocumentIsPatchedWithTheFieldsThatDescribeIt(t *testing.T) {
	var asked []*http.Request
	front := behind(t, newPatch(t, nil), func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r)
		h := w.Header()
		for name, value := range map[string]string{
			"Content-Type": "application/json;charset=UTF-8", "Etag": `"as"`, "Last-Modified": "Mon, 02 Jan 2006 15:04:05 GMT",
			"Content-Md5": "x", "Digest": "x", "Content-Digest": "x", "Repr-Digest": "x", "Accept-Ranges": "bytes",
			"Cache-Control": "public, max-age=3600", "Access-Control-Allow-Origin": "*", "X-Own": "kept",
		} {
			h.Set(name, value)
		}
		if r.Header.Get("If-None-Match") != "" {
			w.WriteHeader(http.StatusNotModified) // would confirm a copy that was not patched
			return
		}
		// In pieces, and without a length.
		for i := 0; i < len(asMetadata); i += 100 {
			_, _ = io.WriteString(w, asMetadata[i:min(i+100, len(asMetadata))])
			_ = http.NewResponseController(w).Flush()
		}
	})
	first, body := fetch(t, http.MethodGet, front.URL, http.Header{"Accept-Encoding": {"gzip, br"}, "If-None-Match": {`"as"`}, "Range": {"bytes=0-5"}})
	if first.status != 200 || !strings.Contains(body, ourIntrospection) || first.length != int64(len(body)) {
		t.Fatalf("%d %v %s", first.status, first.header, body)
	}
	if got := asked[0].Header.Get("Accept-Encoding"); got != "identity" {
		t.Errorf("asked for %q", got)
	}
	for _, gone := range []string{"Last-Modified", "Content-Md5", "Digest", "Content-Digest", "Repr-Digest", "Accept-Ranges"} {
		if first.header.Get(gone) != "" {
			t.Errorf("%s is still there", gone)
		}
	}
	for name, want := range map[string]string{"Cache-Control": "public, max-age=3600", "Access-Control-Allow-Origin": "*", "X-Own": "kept", "Content-Type": "application/json;charset=UTF-8"} {
		if got := first.header.Get(name); got != want {
			t.Errorf("%s is %q", name, got)
		}
	}
	tag := first.header.Get("Etag")
	if tag == "" || tag == `"as"` {
		t.Fatalf("tag %q", tag)
	}
	head, none := fetch(t, http.MethodHead, front.URL, nil)
	if head.status != 200 || none != "" || head.header.Get("Etag") != tag || head.header.Get("Content-Length") != strconv.Itoa(len(body)) {
		t.Errorf("HEAD: %d %v", head.status, head.header)
	}
	for _, field := range []string{tag, "W/" + tag, `"x", ` + tag, "*"} {
		same, none := fetch(t, http.MethodGet, front.URL, http.Header{"If-None-Match": {field}})
		if same.status != 304 || none != "" || same.header.Get("Etag") != tag || same.header.Get("Cache-Control") == "" {
			t.Errorf("%s: %d %v %s", field, same.status, same.header, none)
		}
	}
}

func TestEverythingElsePassesUnchanged(t *testing.T) {
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = io.WriteString(z, asMetadata)
	_ = z.Close()
	large := `{"issuer":"https://a.example","x":"` + strings.Repeat("x", MaxPatchedMetadata) + `"}`
	tests := []struct {
		name   string
		method string
		status int
		field  string
		value  string
		body   string
		chunks bool
		logged bool
	}{
		{"an error", "GET", 503, "Retry-After", "3", asMetadata, false, false},
		{"created", "GET", 201, "", "", asMetadata, false, false},
		{"not JSON", "GET", 200, "Content-Type", "text/html", asMetadata, false, true},
		{"broken JSON", "GET", 200, "Etag", `"as"`, asMetadata[:100], false, true},
		{"an unknown issuer", "GET", 200, "Etag", `"as"`, `{"issuer":"https://b.example"}`, true, true},
		{"encoded all the same", "GET", 200, "Content-Encoding", "gzip", zipped.String(), false, true},
		{"too large", "GET", 200, "", "", large, false, true},
		{"too large, and its length not told", "GET", 200, "Etag", `"as"`, large, true, true},
		{"POST", "POST", 200, "", "", asMetadata, false, false},
		{"empty", "GET", 204, "", "", "", false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			log := new(syncBuffer)
			p := newPatch(t, func(o *MetadataPatchOptions) { o.Logger = newTestLogger(log) })
			front := behind(t, p, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				if tt.field != "" {
					w.Header().Set(tt.field, tt.value)
				}
				if !tt.chunks && tt.body != "" {
					w.Header().Set("Content-Length", strconv.Itoa(len(tt.body)))
				}
				w.WriteHeader(tt.status)
				for chunk := range slices.Chunk([]byte(tt.body), 64<<10) {
					_, _ = w.Write(chunk)
				}
			})
			resp, body := fetch(t, tt.method, front.URL, nil)
			if resp.status != tt.status || body != tt.body || tt.field != "" && resp.header.Get(tt.field) != tt.value {
				t.Errorf("%d %v, %d bytes of %d", resp.status, resp.header, len(body), len(tt.body))
			}
			// What passes is on its way before it is logged.
			told := func() bool { return strings.Contains(log.String(), "metadata passed on as it is") }
			for end := time.Now().Add(10 * time.Second); tt.logged && !told() && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
			if told() != tt.logged {
				t.Errorf("logged: %v: %s", told(), log)
			}
		})
	}
}

// Anybody can ask for metadata: a document that is left alone must not fill the
// log.
func TestADocumentLeftAloneIsLoggedOnce(t *testing.T) {
	log := new(syncBuffer)
	p := newPatch(t, func(o *MetadataPatchOptions) { o.Logger = newTestLogger(log) })
	front := behind(t, p, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"issuer":"https://b.example"}`)
	})
	for range 5 {
		fetch(t, http.MethodGet, front.URL, nil)
	}
	if n := strings.Count(log.String(), "WARN"); n != 1 {
		t.Errorf("%d warnings: %s", n, log)
	}
}

// A server that breaks off in the middle of its document has not answered: the
// half must not be called whole.
func TestHalfADocumentIsNoAnswer(t *testing.T) {
	front := behind(t, newPatch(t, nil), func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(asMetadata)))
		_, _ = io.WriteString(w, asMetadata[:50])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, front.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return
	}
	defer func() { _ = resp.Body.Close() }()
	if body, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

// A patched document parses, has our endpoints exactly once and no signed
// metadata, and every other member as it was.
func FuzzMetadataPatch(f *testing.F) {
	for _, seed := range []string{asMetadata, `{"issuer":"https://a.example"}`, `{"issuer":"https://a.example","signed_metadata":1,"\u0073igned_metadata":2}`,
		`{"issuer":"https://a.example","mtls_endpoint_aliases":{"revocation_endpoint":1,"x":[]},"x":{"signed_metadata":1}}`} {
		f.Add([]byte(seed), false)
		f.Add([]byte(seed), true)
	}
	f.Fuzz(func(t *testing.T, document []byte, upstream bool) {
		p := newPatch(t, func(o *MetadataPatchOptions) { o.RevocationUpstream = upstream })
		got, err := p.Apply(document)
		if err != nil {
			return
		}
		members, err := splitObject(got)
		if err != nil {
			t.Fatalf("%v: %s", err, got)
		}
		count := make(map[string]int)
		for _, m := range members {
			count[m.name]++
		}
		for name, want := range map[string]int{memberEndpoint: 1, memberIntrospection: 1, memberIntrospectionMethods: 1, memberSigned: 0, memberIssuer: 1} {
			if count[name] != want {
				t.Errorf("%d of %s: %s", count[name], name, got)
			}
		}
		written := []string{memberEndpoint, memberMethods, memberAlgorithms, memberIntrospection, memberIntrospectionMethods, memberSigned, memberAliases}
		if upstream {
			written = slices.DeleteFunc(written, func(name string) bool { return name == memberMethods || name == memberAlgorithms })
		}
		written = append(written, introspectionDropped...)
		others := func(members []jsonMember) (texts []string) {
			for _, m := range members {
				if !slices.Contains(written, m.name) {
					texts = append(texts, string(m.text))
				}
			}
			return texts
		}
		before, err := splitObject(document)
		if err != nil {
			t.Fatal(err)
		}
		if b, a := others(before), others(members); !reflect.DeepEqual(a, b) {
			t.Errorf("others were\n%q\nand are\n%q", b, a)
		}
		again, err := p.Apply(got)
		if err != nil || !bytes.Equal(again, got) {
			t.Errorf("patched again: %v %s", err, again)
		}
		if aliases, ok := findMember(members, memberAliases); ok {
			inner, err := splitObject(aliases.value)
			if _, found := findMember(inner, memberEndpoint); err == nil && found {
				t.Errorf("aliases %s", aliases.value)
			}
		}
	})
}
