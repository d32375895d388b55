package caddymodule

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
)

// documentServer is an authorization server that serves its metadata, with
// entity tags, compressed for whoever accepts that, and conditional.
func documentServer(t *testing.T, issuer *string) (server *httptest.Server, asked *atomic.Int64) {
	t.Helper()
	asked = new(atomic.Int64)
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		h := w.Header()
		h.Set("Content-Type", "application/json")
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("Etag", `"as-1"`)
		switch {
		case r.URL.Path == "/down":
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, `{"issuer":"`+*issuer+`","error":"down"}`)
			return
		case r.Header.Get("If-None-Match") == `"as-1"`:
			w.WriteHeader(http.StatusNotModified)
			return
		}
		document := fmt.Sprintf(`{"issuer":%q,"revocation_endpoint":"https://as.example/revoke","introspection_endpoint":"https://as.example/i",`+
			`"revocation_endpoint_auth_methods_supported":["private_key_jwt"],"signed_metadata":"x.y.z","big":1234567890123456789012,"path":%q}`, *issuer, r.URL.Path)
		if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			h.Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = io.WriteString(z, document)
			_ = z.Close()
			return
		}
		_, _ = io.WriteString(w, document)
	}))
	t.Cleanup(server.Close)
	return server, asked
}

func TestMetadataOfTheServerBehindIsPatchedInPassing(t *testing.T) {
	s := newSite(t)
	issuer := ""
	as, _ := documentServer(t, &issuer)
	options := "embedded\nissuer https://as.example {\n jwks_uri " + as.URL + "/jwks\nalias https://old.example\n}\n" +
		"issuer https://another.example {\n jwks_uri " + as.URL + "/jwks\n}\n" +
		"client app {env.DEMO_SERVICE_SECRET} {\nissuer https://as.example\n}\nclient spa public {\nissuer https://as.example\n}"
	directives := fmt.Sprintf(`
	encode
	@metadata path /.well-known/oauth-authorization-server* */.well-known/openid-configuration /down
	token_revocation_metadata @metadata upstream {
		%%s
	}
	handle @metadata {
		reverse_proxy %s
	}
`, as.URL)
	load := func(endpoints string) {
		t.Helper()
		if err := s.load(options, fmt.Sprintf(directives, endpoints)); err != nil {
			t.Fatal(err)
		}
	}
	fetch := func(method, path string, header http.Header) (answer, map[string]any) {
		t.Helper()
		got := s.do(method, s.url(path), header, "")
		var members map[string]any
		if got.body != "" {
			if err := json.Unmarshal([]byte(got.body), &members); err != nil {
				t.Fatalf("%v: %s", err, got.body)
			}
		}
		return got, members
	}
	paths := []string{"/.well-known/oauth-authorization-server", "/.well-known/oauth-authorization-server/tenant", "/tenant/.well-known/openid-configuration"}

	load("revocation_endpoint https://edge.example/revoke\nintrospection_endpoint https://edge.example/introspect")
	for _, issuer = range []string{"https://as.example", "https://old.example"} {
		for _, path := range paths {
			got, members := fetch(http.MethodGet, path, nil)
			want := map[string]any{
				"issuer": issuer, "path": path, "big": 1234567890123456789012.0,
				"revocation_endpoint": "https://edge.example/revoke", "introspection_endpoint": "https://edge.example/introspect",
				"revocation_endpoint_auth_methods_supported":    []any{"client_secret_basic", "client_secret_post", "none"},
				"introspection_endpoint_auth_methods_supported": []any{"client_secret_basic", "client_secret_post"},
			}
			if got.status != http.StatusOK || !reflect.DeepEqual(members, want) || !strings.Contains(got.body, "1234567890123456789012") {
				t.Errorf("%s: %d %s", path, got.status, got.body)
			}
			if got.header.Get("Access-Control-Allow-Origin") != "*" || got.header.Get("Etag") == `"as-1"` || got.header.Get("Etag") == "" {
				t.Errorf("%s: fields %v", path, got.header)
			}
			// What a client has kept of the server's own document is not confirmed.
			if again, members := fetch(http.MethodGet, path, http.Header{"If-None-Match": {`"as-1"`}}); again.status != 200 || members["revocation_endpoint"] != "https://edge.example/revoke" {
				t.Errorf("%s: %d %s", path, again.status, again.body)
			}
			if same, _ := fetch(http.MethodGet, path, http.Header{"If-None-Match": {got.header.Get("Etag")}}); same.status != http.StatusNotModified {
				t.Errorf("%s: %d %s", path, same.status, same.body)
			}
			if head, _ := fetch(http.MethodHead, path, nil); head.status != 200 || head.header.Get("Content-Length") != fmt.Sprint(len(got.body)) || head.header.Get("Etag") != got.header.Get("Etag") {
				t.Errorf("%s: HEAD %d %v", path, head.status, head.header)
			}
		}
	}
	issuer = "https://as.example/" // a slash makes it another issuer
	if got, members := fetch(http.MethodGet, paths[0], nil); members["revocation_endpoint"] != "https://as.example/revoke" || members["signed_metadata"] == nil || got.header.Get("Etag") != `"as-1"` {
		t.Errorf("of another issuer: %s", got.body)
	}
	issuer = "https://as.example"
	if got, members := fetch(http.MethodGet, "/down", nil); got.status != http.StatusServiceUnavailable || members["error"] != "down" {
		t.Errorf("down: %d %s", got.status, got.body)
	}

	load("revocation_endpoint https://edge.example/revoke upstream")
	_, members := fetch(http.MethodGet, paths[0], nil)
	if members["revocation_endpoint"] != "https://edge.example/revoke" || members["introspection_endpoint"] != "https://as.example/i" ||
		!reflect.DeepEqual(members["revocation_endpoint_auth_methods_supported"], []any{"private_key_jwt"}) || members["signed_metadata"] != nil {
		t.Errorf("with the methods of the server: %v", members)
	}

	load("issuer https://another.example\nrevocation_endpoint https://edge.example/revoke")
	if _, members := fetch(http.MethodGet, paths[0], nil); members["revocation_endpoint"] != "https://as.example/revoke" {
		t.Errorf("the documents of another issuer are to be changed, and this one was: %v", members)
	}

	as.Close()
	if got := s.do(http.MethodGet, s.url(paths[0]), nil, ""); got.status != http.StatusBadGateway {
		t.Errorf("the server is gone: %d %s", got.status, got.body)
	}
}

func TestServedMetadataNamesTheIntrospectionEndpoint(t *testing.T) {
	s := newSite(t)
	if err := s.load(demo, "token_denylist {\nrequire_token\n}\ntoken_revocation_metadata /m {\nrevocation_endpoint https://edge.example/revoke\nintrospection_endpoint https://edge.example/introspect\n}"); err != nil {
		t.Fatal(err)
	}
	got := s.do(http.MethodGet, s.url("/m"), nil, "")
	var members map[string]any
	if err := json.Unmarshal([]byte(got.body), &members); err != nil || got.status != http.StatusOK {
		t.Fatalf("%d %s", got.status, got.body)
	}
	if members["introspection_endpoint"] != "https://edge.example/introspect" ||
		!reflect.DeepEqual(members["introspection_endpoint_auth_methods_supported"], []any{"client_secret_basic", "client_secret_post"}) {
		t.Errorf("%v", members)
	}
}

func TestMetadataThatContradictsItselfIsRefused(t *testing.T) {
	s := newSite(t)
	for says, config := range map[string]string{
		"is not configured":   `{"handler":"token_revocation_metadata","upstream":true,"issuer":"https://x.example","revocation_endpoint":"https://e.example/r"}`,
		"merge has no use":    `{"handler":"token_revocation_metadata","upstream":true,"merge":"x","revocation_endpoint":"https://e.example/r"}`,
		"nothing to patch":    `{"handler":"token_revocation_metadata","upstream":true}`,
		"without upstream":    `{"handler":"token_revocation_metadata","revocation_upstream":true,"revocation_endpoint":"https://e.example/r"}`,
		"is not https":        `{"handler":"token_revocation_metadata","introspection_endpoint":"http://e.example/i","revocation_endpoint":"https://e.example/r"}`,
		"endpoint is missing": `{"handler":"token_revocation_metadata","introspection_endpoint":"https://e.example/i"}`,
	} {
		if err := s.loadHandler(demo, config); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", says, err)
		}
	}
}

// loadHandler runs a config in which a handler is written as JSON.
func (s *site) loadHandler(options, handler string) error {
	s.t.Helper()
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(s.caddyfile(options, "respond 201")), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		s.t.Fatal(err)
	}
	const placeholder = `{"handler":"static_response","status_code":201}`
	if !strings.Contains(string(adapted), placeholder) {
		s.t.Fatalf("no place for the handler in %s", adapted)
	}
	return caddy.Load([]byte(strings.Replace(string(adapted), placeholder, handler, 1)), true)
}
