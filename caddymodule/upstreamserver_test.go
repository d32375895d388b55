package caddymodule

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
)

// fakeServer is the revocation endpoint of an authorization server, over real
// HTTP, that answers as it is told.
type fakeServer struct {
	*httptest.Server

	mu     sync.Mutex
	answer http.HandlerFunc
	forms  []url.Values
}

func newFakeServer(t *testing.T) *fakeServer {
	f := &fakeServer{answer: func(http.ResponseWriter, *http.Request) {}}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		form, _ := url.ParseQuery(string(body))
		f.mu.Lock()
		f.forms = append(f.forms, form)
		answer := f.answer
		f.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(func() { f.CloseClientConnections(); f.Close() })
	return f
}

func (f *fakeServer) set(answer http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = answer
}

// seen returns how many requests came.
func (f *fakeServer) seen() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.forms)
}

// behind returns the directives of a site that has the server behind it.
func (f *fakeServer) behind(options string) string {
	return fmt.Sprintf(`
	route /as/revoke {
		token_revocation upstream {
			%s
		}
		reverse_proxy %s
	}
	token_denylist /
`, options, f.Listener.Addr())
}

// pass posts a form to the authorization server, through Caddy.
func (s *site) pass(form url.Values, change ...func(http.Header)) answer {
	s.t.Helper()
	h := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	for _, c := range change {
		c(h)
	}
	return s.do(http.MethodPost, s.url("/as/revoke"), h, form.Encode())
}

func own(token string) url.Values {
	return url.Values{"token": {token}, "client_id": {"demo-app"}}
}

func entries() int { return currentApp().replica.denylist.Stats().Entries }

// wantIntents waits until as many are accepted and of unknown outcome.
func (s *site) wantIntents(accepted, unknown int) {
	s.t.Helper()
	s.eventually(fmt.Sprintf("%d accepted and %d unknown intents", accepted, unknown), func() bool {
		i := upstreamIntents()
		return i != nil && i.Accepted == accepted && i.Unknown == unknown && i.Forwarded == 0
	})
}

func write(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if contentType != "" {
			w.Header().Set("Content-Type", contentType)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func raw(answer string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		_, _ = io.WriteString(conn, answer)
		_ = conn.Close()
	}
}

func zipped(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = z.Write([]byte(body))
		_ = z.Close()
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(b.Bytes())
	}
}
