package revocationtest

import (
	"crypto/rand"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"
)

// OpaqueServer is an authorization server for tests whose tokens are all opaque,
// with an introspection endpoint (RFC 7662) and nothing else: no metadata, no keys.
// Its methods are safe for concurrent use.
type OpaqueServer struct {
	*httptest.Server

	mu      sync.Mutex
	id      string
	secret  string
	failing int
	byHint  bool
	tokens  map[string]map[string]any // what is answered about active ones
	asked   map[string]int            // token → number of questions with good credentials
	hits    int                       // requests of any kind
}

// IntrospectPath is where an [OpaqueServer] is asked.
const IntrospectPath = "/introspect"

// NewOpaqueServer starts an authorization server on http://127.0.0.1 that answers
// the client "edge" with this secret, by HTTP Basic, and stops it when the test
// ends. Its issuer is its URL.
func NewOpaqueServer(tb testing.TB, secret string) *OpaqueServer {
	tb.Helper()
	s := &OpaqueServer{id: "edge", secret: secret, tokens: make(map[string]map[string]any), asked: make(map[string]int)}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	tb.Cleanup(s.Close)
	return s
}

// Issue returns a new opaque access token of alice for the client "app" that lives
// for five minutes. Members are those of the answer about it (RFC 7662, section
// 2.2) that are to be otherwise; a nil member is left out.
func (s *OpaqueServer) Issue(members map[string]any) string {
	now := time.Now()
	answer := map[string]any{
		"active": true, "iss": s.URL, "sub": "alice", "client_id": "app", "sid": "session-1", "token_type": "Bearer",
		"iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(),
	}
	maps.Copy(answer, members)
	maps.DeleteFunc(answer, func(_ string, v any) bool { return v == nil })
	token := rand.Text()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[token] = answer
	return token
}

// Know makes the token active, whatever it looks like, with these members in the
// answer about it.
func (s *OpaqueServer) Know(token string, members map[string]any) {
	answer := maps.Clone(members)
	answer["active"] = true
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[token] = answer
}

// Kill makes the token inactive.
func (s *OpaqueServer) Kill(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tokens, token)
}

// Asked returns how often was asked about a token, with good credentials.
func (s *OpaqueServer) Asked(token string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[token]
}

// Hits returns how many requests came, of any kind.
func (s *OpaqueServer) Hits() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hits
}

// Fail makes the server answer every request with this status; zero makes it work
// again.
func (s *OpaqueServer) Fail(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failing = status
}

// LimitByHint makes the server look for a token only among those that the hint
// names, if there is one, as many servers do.
func (s *OpaqueServer) LimitByHint() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byHint = true
}

// SetSecret replaces the secret of the client "edge".
func (s *OpaqueServer) SetSecret(secret string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secret = secret
}

func (s *OpaqueServer) serve(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hits++
	switch {
	case s.failing != 0:
		w.WriteHeader(s.failing)
		return
	case r.URL.Path != IntrospectPath || r.Method != http.MethodPost:
		http.NotFound(w, r)
		return
	case !s.knows(r):
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	token := r.PostForm.Get("token")
	s.asked[token]++
	answer, found := s.tokens[token]
	if hint := r.PostForm.Get("token_type_hint"); s.byHint && hint != "" {
		found = found && isRefresh(answer) == (hint == "refresh_token")
	}
	if !found {
		answer = map[string]any{"active": false}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

// isRefresh tells whether a token is one of the server's refresh tokens.
func isRefresh(answer map[string]any) bool {
	switch answer["typ"] {
	case "Refresh", "Offline":
		return true
	}
	return answer["token_use"] == "refresh_token"
}

// knows checks the credentials, whose halves are form-encoded (RFC 6749, section
// 2.3.1).
func (s *OpaqueServer) knows(r *http.Request) bool {
	id, secret, ok := r.BasicAuth()
	if !ok {
		return false
	}
	id, err := url.QueryUnescape(id)
	if err != nil {
		return false
	}
	secret, err = url.QueryUnescape(secret)
	return err == nil && id == s.id && secret == s.secret
}
