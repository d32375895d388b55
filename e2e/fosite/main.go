// Command fosite is an authorization server for the end-to-end tests: the
// library ory/fosite, which Ory Hydra is built on, with its own store in memory,
// on a free port of the loopback interface.
//
// It reads its clients and users as JSON from the environment variable AS_CONFIG
// and prints one line of JSON, which names the issuer, when it is ready. It stops
// at the end of standard input.
//
// POST /test/storage?fail=true makes everything fail that revokes in the store.
package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v3"
	"github.com/ory/fosite"
	"github.com/ory/fosite/compose"
	"github.com/ory/fosite/handler/oauth2"
	"github.com/ory/fosite/storage"
	"github.com/ory/fosite/token/jwt"
	"golang.org/x/crypto/bcrypt"
)

// config is what the parent passes.
type config struct {
	// Format of access tokens: "opaque" or "jwt". Refresh tokens are opaque.
	Format string `json:"format"`
	// TokenUse tells whether introspection says what a token is for, as that of
	// Ory Hydra does and fosite's own does not.
	TokenUse bool `json:"token_use"`
	// Lifetime of access tokens in seconds.
	Lifetime int `json:"lifetime"`
	Clients  []struct {
		ID     string `json:"id"`
		Secret string `json:"secret"`
	} `json:"clients"`
	Users map[string]string `json:"users"` // name → password
}

const keyID = "e2e-1"

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	var c config
	if err := json.Unmarshal([]byte(os.Getenv("AS_CONFIG")), &c); err != nil {
		return fmt.Errorf("reading AS_CONFIG: %w", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	issuer := "http://" + listener.Addr().String()
	s, err := newServer(issuer, c)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(map[string]string{"issuer": issuer}); err != nil {
		return err
	}
	server := &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second}
	// Nobody is left to stop the server when the test process is gone.
	go func() {
		_, _ = io.Copy(io.Discard, bufio.NewReader(os.Stdin))
		_ = server.Close()
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// store is fosite's own, but for users, whose name is their subject, and for
// failures on request.
type store struct {
	*storage.MemoryStore
	failing atomic.Bool
}

var errStorage = errors.New("the store fails, as the test asked for")

func (s *store) Authenticate(ctx context.Context, name, password string) (string, error) {
	if _, err := s.MemoryStore.Authenticate(ctx, name, password); err != nil {
		return "", err
	}
	return name, nil
}

func (s *store) RevokeRefreshToken(ctx context.Context, requestID string) error {
	if s.failing.Load() {
		return errStorage
	}
	return s.MemoryStore.RevokeRefreshToken(ctx, requestID)
}

func (s *store) RevokeAccessToken(ctx context.Context, requestID string) error {
	if s.failing.Load() {
		return errStorage
	}
	return s.MemoryStore.RevokeAccessToken(ctx, requestID)
}

type server struct {
	*http.ServeMux
	issuer   string
	tokenUse bool
	provider fosite.OAuth2Provider
	store    *store
	keys     jose.JSONWebKeySet
}

func newServer(issuer string, c config) (*server, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return nil, err
	}
	s := &server{
		ServeMux: http.NewServeMux(),
		issuer:   issuer,
		tokenUse: c.TokenUse,
		store:    &store{MemoryStore: storage.NewMemoryStore()},
		keys: jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
			{Key: key.Public(), KeyID: keyID, Algorithm: "RS256", Use: "sig"},
		}},
	}
	for _, client := range c.Clients {
		hash, err := bcrypt.GenerateFromPassword([]byte(client.Secret), bcrypt.MinCost)
		if err != nil {
			return nil, err
		}
		s.store.Clients[client.ID] = &fosite.DefaultClient{
			ID: client.ID, Secret: hash, Scopes: []string{"read", "offline"},
			GrantTypes: []string{"client_credentials", "password", "refresh_token"},
		}
	}
	for name, password := range c.Users {
		s.store.Users[name] = storage.MemoryUserRelation{Username: name, Password: password}
	}
	settings := &fosite.Config{
		GlobalSecret:        secret,
		AccessTokenLifespan: time.Duration(c.Lifetime) * time.Second,
		AccessTokenIssuer:   issuer,
		HashCost:            bcrypt.MinCost,
		RefreshTokenScopes:  []string{"offline"},
	}
	var strategy oauth2.CoreStrategy = compose.NewOAuth2HMACStrategy(settings)
	if c.Format == "jwt" {
		strategy = compose.NewOAuth2JWTStrategy(func(context.Context) (any, error) { return key, nil }, strategy, settings)
	}
	s.provider = compose.Compose(settings, s.store, strategy,
		compose.OAuth2ClientCredentialsGrantFactory,
		compose.OAuth2ResourceOwnerPasswordCredentialsFactory,
		compose.OAuth2RefreshTokenGrantFactory,
		compose.OAuth2TokenIntrospectionFactory,
		compose.OAuth2TokenRevocationFactory,
	)
	s.HandleFunc("POST /token", s.token)
	s.HandleFunc("POST /revoke", s.revoke)
	s.HandleFunc("POST /introspect", s.introspect)
	s.HandleFunc("GET /jwks.json", s.jwks)
	s.HandleFunc("GET /.well-known/openid-configuration", s.metadata)
	s.HandleFunc("POST /test/storage", func(_ http.ResponseWriter, r *http.Request) {
		s.store.failing.Store(r.URL.Query().Get("fail") == "true")
	})
	return s, nil
}

func newSession() *oauth2.JWTSession {
	return &oauth2.JWTSession{
		JWTClaims: &jwt.JWTClaims{Extra: map[string]any{}},
		JWTHeader: &jwt.Headers{Extra: map[string]any{"kid": keyID, "typ": "at+jwt"}},
	}
}

func (s *server) token(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	request, err := s.provider.NewAccessRequest(ctx, r, newSession())
	if err != nil {
		s.provider.WriteAccessError(ctx, w, request, err)
		return
	}
	session, ok := request.GetSession().(*oauth2.JWTSession)
	if !ok {
		http.Error(w, "a session of another type", http.StatusInternalServerError)
		return
	}
	claims := session.JWTClaims
	switch {
	case request.GetGrantTypes().ExactOne("refresh_token"):
		claims.IssuedAt = time.Time{} // the time of the login, which fosite would keep
	case request.GetGrantTypes().ExactOne("password"):
		claims.Subject = session.Subject
		// Each login is a session, which its refreshes stay in.
		claims.Extra["sid"] = rand.Text()
	default:
		claims.Subject = request.GetClient().GetID()
	}
	claims.Extra["client_id"] = request.GetClient().GetID()
	for _, scope := range request.GetRequestedScopes() {
		request.GrantScope(scope)
	}
	response, err := s.provider.NewAccessResponse(ctx, request)
	if err != nil {
		s.provider.WriteAccessError(ctx, w, request, err)
		return
	}
	s.provider.WriteAccessResponse(ctx, w, request, response)
}

func (s *server) revoke(w http.ResponseWriter, r *http.Request) {
	err := s.provider.NewRevocationRequest(r.Context(), r)
	if err != nil {
		log.Printf("revoking: %v", fosite.ErrorToRFC6749Error(err).ErrorField)
	}
	s.provider.WriteRevocationResponse(r.Context(), w, err)
}

func (s *server) introspect(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	answer, err := s.provider.NewIntrospectionRequest(ctx, r, newSession())
	if err != nil {
		s.provider.WriteIntrospectionError(ctx, w, err)
		return
	}
	if !s.tokenUse || !answer.IsActive() {
		s.provider.WriteIntrospectionResponse(ctx, w, answer)
		return
	}
	recorded := httptest.NewRecorder()
	s.provider.WriteIntrospectionResponse(ctx, recorded, answer)
	var members map[string]any
	if err := json.Unmarshal(recorded.Body.Bytes(), &members); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	members["token_use"] = answer.GetTokenUse()
	writeJSON(w, members)
}

func (s *server) jwks(w http.ResponseWriter, _ *http.Request) { writeJSON(w, s.keys) }

func (s *server) metadata(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, map[string]any{
		"issuer":                 s.issuer,
		"jwks_uri":               s.issuer + "/jwks.json",
		"token_endpoint":         s.issuer + "/token",
		"revocation_endpoint":    s.issuer + "/revoke",
		"introspection_endpoint": s.issuer + "/introspect",
	})
}

func writeJSON(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value)
}
