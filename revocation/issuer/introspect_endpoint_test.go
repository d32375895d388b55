package issuer

import (
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
)

type countingJar struct{ used bool }

func (j *countingJar) SetCookies(*url.URL, []*http.Cookie) { j.used = true }
func (j *countingJar) Cookies(*url.URL) []*http.Cookie     { j.used = true; return nil }

// metadataServer serves metadata that change with the test.
type metadataServer struct {
	*httptest.Server
	text  atomic.Pointer[string] // nil: status 500
	asked atomic.Int64
}

func newMetadataServer(t *testing.T) *metadataServer {
	t.Helper()
	m := &metadataServer{}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text := m.text.Load()
		if !strings.HasSuffix(r.URL.Path, "/.well-known/openid-configuration") || text == nil {
			http.Error(w, "no", http.StatusInternalServerError)
			return
		}
		m.asked.Add(1)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, *text)
	}))
	t.Cleanup(m.Close)
	return m
}

func (m *metadataServer) set(members map[string]any) {
	text, err := json.Marshal(members)
	if err != nil {
		panic(err)
	}
	s := string(text)
	m.text.Store(&s)
}

func TestTheEndpointIsDiscovered(t *testing.T) {
	now := newClock()
	m := newMetadataServer(t)
	s := newAsked(t, answers(`{"active":false}`))
	n := s.introspector(t, func(of *Config, c *IntrospectionConfig, o *Options) {
		*of = Config{Issuer: testIssuer, Discovery: m.URL + "/realms/prod"}
		c.Endpoint, c.BreakerFailures = "", -1
		o.Now = now.Now
	})
	ask := func(want error) {
		t.Helper()
		introspectError(t, n, testToken, IntrospectionRequest{}, want)
	}
	ask(ErrIntrospectionUnavailable)
	if st := n.Status(); st.Endpoint != "" || st.Failures != 1 {
		t.Errorf("%+v", st)
	}
	m.set(map[string]any{"issuer": testIssuer, "introspection_endpoint": s.URL + "/a"})
	ask(ErrInactive)
	ask(ErrInactive)
	if st := n.Status(); st.Endpoint != s.URL+"/a" || m.asked.Load() != 1 || s.last(t).path != "/a" {
		t.Errorf("%+v, %d times", st, m.asked.Load())
	}
	// It is looked up again from time to time, and the last known one stays.
	m.set(map[string]any{"issuer": testIssuer, "introspection_endpoint": s.URL + "/b"})
	now.add(DefaultRefreshInterval)
	ask(ErrInactive)
	if s.last(t).path != "/b" {
		t.Error(s.last(t).path)
	}
	m.text.Store(nil)
	now.add(DefaultRefreshInterval)
	ask(ErrInactive)
	asked := m.asked.Load()
	m.set(map[string]any{"issuer": testIssuer, "introspection_endpoint": s.URL + "/c"})
	ask(ErrInactive)
	if s.last(t).path != "/b" || m.asked.Load() != asked {
		t.Error("asked again at once")
	}
	now.add(rediscoverAfterFailure)
	ask(ErrInactive)
	if s.last(t).path != "/c" {
		t.Error(s.last(t).path)
	}
}

func TestTheEndpointIsDiscoveredOnceForAll(t *testing.T) {
	m := newMetadataServer(t)
	s := newAsked(t, answers(`{"active":false}`))
	m.set(map[string]any{"issuer": testIssuer, "introspection_endpoint": s.URL})
	n := s.introspector(t, func(of *Config, c *IntrospectionConfig, o *Options) {
		*of = Config{Issuer: testIssuer, Discovery: m.URL}
		c.Endpoint = ""
		slow(of, c, o)
	})
	var waiting []chan verdict
	for _, token := range []string{"a", "b", "c", "d", "e"} {
		waiting = append(waiting, inBackground(t.Context(), n, token, IntrospectionRequest{}))
	}
	for _, c := range waiting {
		if v := await(t, c); v.err == nil || !strings.Contains(v.err.Error(), "inactive") {
			t.Error(v.err)
		}
	}
	if m.asked.Load() != 1 {
		t.Errorf("%d times", m.asked.Load())
	}
}

func TestMetadataOfAnotherIssuerNameNoEndpoint(t *testing.T) {
	m := newMetadataServer(t)
	s := newAsked(t, answers(activeText(nil)))
	for name, c := range map[string]struct {
		members map[string]any
		says    string
	}{
		"another issuer": {map[string]any{"issuer": testIssuer + "/", "introspection_endpoint": s.URL}, "its issuer is"},
		"no issuer":      {map[string]any{"introspection_endpoint": s.URL}, "its issuer is"},
		"no endpoint":    {map[string]any{"issuer": testIssuer}, "no introspection_endpoint"},
		"another case":   {map[string]any{"issuer": testIssuer, "Introspection_Endpoint": s.URL}, "no introspection_endpoint"},
		"not a text":     {map[string]any{"issuer": testIssuer, "introspection_endpoint": []string{s.URL}}, "no introspection_endpoint"},
		"relative":       {map[string]any{"issuer": testIssuer, "introspection_endpoint": "/introspect"}, "not an absolute"},
		"plain http":     {map[string]any{"issuer": testIssuer, "introspection_endpoint": "http://as.example.com/i"}, "not https"},
		"user name":      {map[string]any{"issuer": testIssuer, "introspection_endpoint": "https://a:b@as.example.com/i"}, "user name"},
	} {
		t.Run(name, func(t *testing.T) {
			m.set(c.members)
			n := s.introspector(t, func(of *Config, ic *IntrospectionConfig, _ *Options) {
				*of = Config{Issuer: testIssuer, Discovery: m.URL}
				ic.Endpoint = ""
			})
			err := introspectError(t, n, testToken, IntrospectionRequest{}, ErrIntrospectionUnavailable)
			if !strings.Contains(err.Error(), c.says) || s.count() != 0 {
				t.Error(err)
			}
		})
	}
	text := `{"issuer":"` + testIssuer + `","introspection_endpoint":"` + s.URL + `","introspection_endpoint":"https://x"}`
	m.text.Store(&text)
	n := s.introspector(t, func(of *Config, ic *IntrospectionConfig, _ *Options) {
		*of = Config{Issuer: testIssuer, Discovery: m.URL}
		ic.Endpoint = ""
	})
	introspectError(t, n, testToken, IntrospectionRequest{}, ErrIntrospectionUnavailable)
}

func TestAnEndpointWithoutATrustedCertificateIsNotAsked(t *testing.T) {
	server := httptest.NewUnstartedServer(answers(activeText(nil)))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // of the client that does not trust it
	server.StartTLS()
	t.Cleanup(server.Close)
	i := newIssuer(t, Config{Issuer: testIssuer, JWKSFile: "/x"}, Options{})
	c := IntrospectionConfig{Endpoint: server.URL, BearerToken: "x"}
	n, err := NewIntrospector(i, c, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if err := introspectError(t, n, testToken, IntrospectionRequest{}, ErrIntrospectionUnavailable); !strings.Contains(err.Error(), "certificate") {
		t.Error(err)
	}
	client := server.Client()
	defer client.CloseIdleConnections()
	if n, err = NewIntrospector(i, c, client); err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	introspect(t, n, testToken, IntrospectionRequest{})
}
