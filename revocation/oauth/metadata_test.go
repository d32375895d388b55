package oauth

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
)

type listedMethods struct {
	methods    []AuthMethod
	algorithms []string
}

func (l *listedMethods) AuthMethods(string) ([]AuthMethod, []string) { return l.methods, l.algorithms }

const publicEndpoint = "https://id.example/oauth/revoke?tenant=a"

func newMetadata(t *testing.T, clients MethodLister, base string) *Metadata {
	t.Helper()
	o := MetadataOptions{Issuer: issuerA, Endpoint: publicEndpoint, Clients: clients}
	if base != "" {
		o.Base = []byte(base)
	}
	m, err := NewMetadata(o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func document(t *testing.T, m *Metadata) map[string]any {
	t.Helper()
	w := httptest.NewRecorder()
	m.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	var doc map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil || w.Code != 200 {
		t.Fatalf("status %d, %v", w.Code, err)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json", "Cache-Control": "public, max-age=300", "Access-Control-Allow-Origin": "*",
	} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s is %q", name, got)
		}
	}
	return doc
}

func TestMetadataSaysWhatIsTrueAndNothingElse(t *testing.T) {
	m := newMetadata(t, testClients(t), "")
	want := map[string]any{
		"issuer": issuerA, "revocation_endpoint": publicEndpoint,
		"revocation_endpoint_auth_methods_supported": []any{"client_secret_basic", "client_secret_post", "none"},
	}
	if got := document(t, m); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := m.Missing(); len(got) != 3 {
		t.Errorf("missing %q", got)
	}
}

func TestMetadataFollowsTheClients(t *testing.T) {
	clients := &listedMethods{}
	m := newMetadata(t, clients, "")
	if got, ok := document(t, m)[memberMethods].([]any); !ok || len(got) != 0 {
		t.Errorf("without clients: %v", got) // left out it would mean client_secret_basic
	}
	clients.methods, clients.algorithms = []AuthMethod{AuthPrivateKeyJWT}, []string{"ES256"}
	doc := document(t, m)
	if !reflect.DeepEqual(doc[memberMethods], []any{"private_key_jwt"}) || !reflect.DeepEqual(doc[memberAlgorithms], []any{"ES256"}) {
		t.Errorf("got %v", doc)
	}
}

func TestMetadataKeepsWhatTheAuthorizationServerSays(t *testing.T) {
	base := `{"issuer":"https://a.example","token_endpoint":"https://id.example/token","response_types_supported":["code"],
		"authorization_endpoint":"https://id.example/auth","revocation_endpoint":"https://id.example/old",
		"revocation_endpoint_auth_signing_alg_values_supported":["RS256"],"signed_metadata":"x.y.z","n":12345678901234567890,
		"mtls_endpoint_aliases":{"revocation_endpoint":"https://mtls.id.example/old","token_endpoint":"https://mtls.id.example/token"}}`
	m := newMetadata(t, testClients(t), base)
	doc := document(t, m)
	if doc["revocation_endpoint"] != publicEndpoint || doc["token_endpoint"] != "https://id.example/token" || doc["issuer"] != issuerA {
		t.Errorf("got %v", doc)
	}
	for _, gone := range []string{"signed_metadata", memberAlgorithms} {
		if _, ok := doc[gone]; ok {
			t.Errorf("%s is still there", gone)
		}
	}
	if got := doc[memberAliases]; !reflect.DeepEqual(got, map[string]any{"token_endpoint": "https://mtls.id.example/token"}) {
		t.Errorf("the aliases are %v", got)
	}
	only := newMetadata(t, testClients(t), `{"mtls_endpoint_aliases":{"revocation_endpoint":"https://mtls.id.example/old"}}`)
	if got, ok := document(t, only)[memberAliases]; ok {
		t.Errorf("the aliases are %v", got)
	}
	if got := m.Missing(); len(got) != 0 {
		t.Errorf("missing %q", got)
	}
	raw, err := m.Document()
	if err != nil || !strings.Contains(string(raw), "12345678901234567890") {
		t.Errorf("a number was changed: %s, %v", raw, err)
	}
}

func TestMetadataRefusesWhatMustNotBePublished(t *testing.T) {
	clients := testClients(t)
	for says, o := range map[string]MetadataOptions{
		"not https":       {Issuer: issuerA, Endpoint: "http://id.example/revoke", Clients: clients},
		"fragment":        {Issuer: issuerA, Endpoint: "https://id.example/revoke#x", Clients: clients},
		"absolute":        {Issuer: issuerA, Endpoint: "/revoke", Clients: clients},
		"missing":         {Issuer: issuerA, Endpoint: publicEndpoint},
		"of the issuer":   {Issuer: issuerA, Endpoint: publicEndpoint, Clients: clients, Base: []byte(`{"issuer":"https://b.example"}`)},
		"not a JSON":      {Issuer: issuerA, Endpoint: publicEndpoint, Clients: clients, Base: []byte(`[]`)},
		"not a JSON ":     {Issuer: issuerA, Endpoint: publicEndpoint, Clients: clients, Base: []byte(`null`)},
		"aliases":         {Issuer: issuerA, Endpoint: publicEndpoint, Clients: clients, Base: []byte(`{"mtls_endpoint_aliases":[]}`)},
		"something after": {Issuer: issuerA, Endpoint: publicEndpoint, Clients: clients, Base: []byte(`{} {}`)},
		"larger":          {Issuer: issuerA, Endpoint: publicEndpoint, Clients: clients, Base: make([]byte, MaxMetadataSize+1)},
	} {
		if _, err := NewMetadata(o); err == nil || !strings.Contains(err.Error(), strings.TrimSpace(says)) {
			t.Errorf("error %v, want one with %q", err, says)
		}
	}
}

func TestMetadataIsOnlyRead(t *testing.T) {
	m := newMetadata(t, testClients(t), "")
	for method, want := range map[string]int{"GET": 200, "HEAD": 200, "POST": 405, "OPTIONS": 405, "DELETE": 405} {
		w := httptest.NewRecorder()
		m.ServeHTTP(w, httptest.NewRequest(method, "/", nil))
		if w.Code != want || (w.Header().Get("Allow") != "") != (want == 405) {
			t.Errorf("%s: %d %v", method, w.Code, w.Header())
		}
	}
}
