package revocationtest

import (
	"crypto/rand"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Shape says how the tokens and endpoints of a product look, as far as its
// documentation or its published source tells.
type Shape struct {
	// IssuerPath is the path of the issuer, and of what is below it.
	IssuerPath string
	// RevokePath and IntrospectPath are the paths of the endpoints; empty: there
	// is none.
	RevokePath, IntrospectPath string
	// Type is the typ header of access tokens. Empty means that they are opaque.
	Type string
	// Claims are those that a product adds to iss, sub, iat and exp, of a JWT, and
	// that it answers about an opaque token. A nil value removes a claim.
	Claims func(t ProductToken) map[string]any
	// Introspects tells what the product answers to that client about a token
	// that is alive; nil stands for inactive. It is added to iss, sub, iat and exp.
	Introspects func(asker string, t ProductToken) map[string]any
	// RefreshKey, if set, signs refresh tokens, with a secret that nobody else
	// has. Without it, they are opaque.
	RefreshKey bool
	// Revokes tells what the product does with a token of that client's: whether
	// it dies, and what is answered.
	Revokes func(client string, t ProductToken) (dies bool, status int, body string)
	// Unknown is the body of the 200 to a token that is not known.
	Unknown string
}

// ProductToken is a token that a [Product] has issued.
type ProductToken struct {
	Text    string
	Refresh bool
	Client  string
	Subject string
	Session string
	ID      string
	Issued  time.Time
	Expiry  time.Time
}

// Product is a stand-in for a product of a known shape. It issues tokens to whoever
// asks in Go, and serves the rest by HTTP. Its methods are safe for concurrent use.
type Product struct {
	*httptest.Server
	Shape Shape

	tb      testing.TB
	key     jose.JSONWebKey
	refresh jose.JSONWebKey

	mu      sync.Mutex
	secrets map[string]string
	tokens  map[string]ProductToken
	asked   int
}

// StartProduct starts a stand-in with these clients (id → secret), and stops it
// when the test ends.
func StartProduct(tb testing.TB, shape Shape, clients map[string]string) *Product {
	tb.Helper()
	p := &Product{
		Shape: shape, tb: tb, key: NewKey(tb, "RS256", "product-1"),
		refresh: jose.JSONWebKey{Key: []byte(rand.Text() + rand.Text() + rand.Text()), Algorithm: "HS512"},
		secrets: maps.Clone(clients), tokens: make(map[string]ProductToken),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+shape.IssuerPath+strings.TrimPrefix(OIDCPath, slashOf(shape.IssuerPath)), p.metadata)
	mux.HandleFunc("GET "+JWKSPath, p.jwks)
	if shape.RevokePath != "" {
		mux.HandleFunc("POST "+shape.RevokePath, p.revoke)
	}
	if shape.IntrospectPath != "" {
		mux.HandleFunc("POST "+shape.IntrospectPath, p.introspect)
	}
	p.Server = httptest.NewServer(mux)
	tb.Cleanup(p.Close)
	return p
}

// slashOf returns the slash that the issuer's path ends in already, if it does.
func slashOf(path string) string {
	if strings.HasSuffix(path, "/") {
		return "/"
	}
	return ""
}

// Issuer returns the iss of the tokens.
func (p *Product) Issuer() string { return p.URL + p.Shape.IssuerPath }

// Login returns the tokens of a new grant.
func (p *Product) Login(client, subject, session string) (access, refresh string) {
	p.tb.Helper()
	now := time.Now()
	t := ProductToken{Client: client, Subject: subject, Session: session, ID: rand.Text(), Issued: now, Expiry: now.Add(5 * time.Minute)}
	access = rand.Text()
	if p.Shape.Type != "" {
		access = SignWith(p.tb, p.key, map[string]any{"typ": p.Shape.Type}, p.about(t, p.Shape.Claims(t)))
	}
	p.keep(access, t)
	t.Refresh, t.ID, t.Expiry = true, rand.Text(), now.Add(30*24*time.Hour)
	refresh = rand.Text()
	if p.Shape.RefreshKey {
		refresh = SignWith(p.tb, p.refresh, map[string]any{"typ": "JWT", "kid": rand.Text()}, p.about(t, p.Shape.Claims(t)))
	}
	p.keep(refresh, t)
	return access, refresh
}

func (p *Product) keep(text string, t ProductToken) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t.Text = text
	p.tokens[text] = t
}

// Alive tells whether the product takes the token for a live one.
func (p *Product) Alive(token string) bool {
	_, alive := p.find(token)
	return alive
}

// Asked returns how often the introspection endpoint was asked.
func (p *Product) Asked() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

func (p *Product) find(token string) (ProductToken, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t, alive := p.tokens[token]
	return t, alive
}

// about returns the claims of a token, with the product's own.
func (p *Product) about(t ProductToken, own map[string]any) map[string]any {
	claims := map[string]any{"iss": p.Issuer(), "sub": t.Subject, "iat": t.Issued.Unix(), "exp": t.Expiry.Unix()}
	maps.Copy(claims, own)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	return claims
}

// client returns who has authenticated, by HTTP Basic or in the form.
func (p *Product) client(r *http.Request) (string, bool) {
	id, secret, basic := r.BasicAuth()
	if basic {
		id, _ = url.QueryUnescape(id)
		secret, _ = url.QueryUnescape(secret)
	} else {
		id, secret = r.PostFormValue("client_id"), r.PostFormValue("client_secret")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	known, ok := p.secrets[id]
	return id, ok && known == secret
}

func (p *Product) revoke(w http.ResponseWriter, r *http.Request) {
	client, ok := p.client(r)
	if !ok {
		answerJSON(w, http.StatusUnauthorized, map[string]any{"error": "invalid_client"})
		return
	}
	t, known := p.find(r.PostFormValue("token"))
	if !known {
		answerText(w, http.StatusOK, p.Shape.Unknown)
		return
	}
	dies, status, body := p.Shape.Revokes(client, t)
	if dies {
		p.mu.Lock()
		delete(p.tokens, t.Text)
		if t.Refresh { // with the access tokens of the grant
			maps.DeleteFunc(p.tokens, func(_ string, other ProductToken) bool {
				return other.Session == t.Session && other.Client == t.Client && other.Subject == t.Subject
			})
		}
		p.mu.Unlock()
	}
	answerText(w, status, body)
}

func (p *Product) introspect(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.asked++
	p.mu.Unlock()
	asker, ok := p.client(r)
	if _, protected := p.secrets[""]; !ok && !protected {
		answerJSON(w, http.StatusUnauthorized, map[string]any{"error": "invalid_client"})
		return
	}
	var answer map[string]any
	if t, known := p.find(r.PostFormValue("token")); known {
		answer = p.Shape.Introspects(asker, t)
		if answer != nil {
			answer = p.about(t, answer)
			answer["active"] = true
		}
	}
	if answer == nil {
		answer = map[string]any{"active": false}
	}
	answerJSON(w, http.StatusOK, answer)
}

func (p *Product) jwks(w http.ResponseWriter, _ *http.Request) {
	answerJSON(w, http.StatusOK, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{p.key.Public()}})
}

func (p *Product) metadata(w http.ResponseWriter, _ *http.Request) {
	m := map[string]any{"issuer": p.Issuer(), "jwks_uri": p.URL + JWKSPath}
	if p.Shape.RevokePath != "" {
		m["revocation_endpoint"] = p.URL + p.Shape.RevokePath
	}
	if p.Shape.IntrospectPath != "" {
		m["introspection_endpoint"] = p.URL + p.Shape.IntrospectPath
	}
	answerJSON(w, http.StatusOK, m)
}

func answerJSON(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value)
}

func answerText(w http.ResponseWriter, status int, body string) {
	if strings.HasPrefix(body, "{") {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(status)
	_, _ = w.Write([]byte(body))
}
