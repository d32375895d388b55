package oauth

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

const (
	issuerA = "https://a.example"
	issuerB = "https://b.example"
	expiry  = int64(2000000000)
)

// Tokens that the rig's resolver knows.
const (
	tokenOwn       = "own.access.token"
	tokenForeign   = "foreign.access.token"
	tokenPublic    = "public.access.token"
	tokenIssuerB   = "access.token.of-b"
	tokenNoClient  = "clientless.access.token"
	tokenTwoOwners = "two.clients.named"
	tokenOpaque    = "opaque"
)

// fakeResolver answers from a map. What it does not know is invalid if it has
// dots, as a JWT has, and opaque otherwise, which nobody can resolve.
type fakeResolver struct {
	mu      sync.Mutex
	known   map[string]*revocation.Identity
	uses    map[string]TokenUse // UseAccess for those that are not in it
	alive   bool                // whether their servers were asked about them
	undated bool                // and do not say when they were issued
	claims  map[string]any      // that their servers answer, if not those of a JWT
	asked   ResolveFor          // of the last call
	errs    map[string]error
	down    error
	calls   []string
	bounded bool // whether the last call had a deadline
}

func (f *fakeResolver) Resolve(ctx context.Context, token string, as ResolveFor) (Resolved, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, token)
	f.asked = as
	_, f.bounded = ctx.Deadline()
	if err := ctx.Err(); err != nil {
		return Resolved{}, err
	}
	if f.down != nil {
		return Resolved{}, f.down
	}
	if err := f.errs[token]; err != nil {
		return Resolved{}, fmt.Errorf("resolving: %w", err)
	}
	if id := f.known[token]; id != nil {
		use, ok := f.uses[token]
		if !ok {
			use = UseAccess
		}
		claims := f.claims
		if claims == nil {
			claims = JWTClaims(token)
		}
		return Resolved{Identity: id, Use: use, Asked: f.alive, Undated: f.undated, Claims: claims}, nil
	}
	if strings.Count(token, ".") == 2 {
		return Resolved{}, ErrTokenInvalid
	}
	return Resolved{}, ErrTokenUnsupported
}

type fakeRevoker struct {
	mu       sync.Mutex
	err      error
	requests []revocation.Request
}

func (f *fakeRevoker) Revoke(ctx context.Context, req revocation.Request) (revocation.Receipt, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return revocation.Receipt{}, errors.Join(revocation.ErrUnavailable, err)
	}
	if f.err != nil {
		return revocation.Receipt{}, f.err
	}
	f.requests = append(f.requests, req)
	return revocation.Receipt{ID: "decision", Sequence: uint64(len(f.requests))}, nil
}

// revoked returns the jti of everything that was recorded.
func (f *fakeRevoker) revoked() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var jtis []string
	for _, r := range f.requests {
		jtis = append(jtis, r.Criteria.Claims[revocation.ClaimTokenID])
	}
	return jtis
}

// identity describes a token whose jti is the token itself.
func identity(token, issuer string, clients ...string) *revocation.Identity {
	id := &revocation.Identity{
		Issuer: issuer, Verified: true, Expiry: expiry, IssuedAt: expiry - 3600,
		Claims: []revocation.Claim{{Name: revocation.ClaimTokenID, Value: token}, {Name: revocation.ClaimSubject, Value: "alice"}},
	}
	for _, c := range clients {
		id.Claims = append(id.Claims, revocation.Claim{Name: revocation.ClaimClientID, Value: c})
	}
	revocation.SortClaims(id.Claims)
	return id
}

// rig is an endpoint with everything around it faked except the clients.
type rig struct {
	tokens   *fakeResolver
	revoker  *fakeRevoker
	clock    *clock
	endpoint *Endpoint
	log      *syncBuffer

	mu       sync.Mutex
	outcomes []Outcome
}

type clock struct{ nanos atomic.Int64 }

func newClock() *clock {
	c := new(clock)
	c.nanos.Store(time.Unix(1900000000, 0).UnixNano())
	return c
}
func (c *clock) now() time.Time          { return time.Unix(0, c.nanos.Load()) }
func (c *clock) advance(d time.Duration) { c.nanos.Add(int64(d)) }

func newRig(t testing.TB, change func(*EndpointOptions)) *rig {
	t.Helper()
	r := &rig{revoker: &fakeRevoker{}, clock: newClock(), log: new(syncBuffer)}
	r.tokens = &fakeResolver{
		known: map[string]*revocation.Identity{
			tokenOwn:       identity(tokenOwn, issuerA, "app"),
			tokenForeign:   identity(tokenForeign, issuerA, "other"),
			tokenPublic:    identity(tokenPublic, issuerA, "spa"),
			tokenIssuerB:   identity(tokenIssuerB, issuerB, "app"),
			tokenNoClient:  identity(tokenNoClient, issuerA),
			tokenTwoOwners: identity(tokenTwoOwners, issuerA, "app", "other"),
		},
		errs: map[string]error{
			"expired.access.token":     ErrTokenExpired,
			"unsupported.access.token": ErrTokenUnsupported,
			"an.id.token":              ErrTokenUnsupported,
			"keyless.access.token":     ErrResolveUnavailable,
			"surprising.access.token":  errors.New("something else"),
		},
	}
	o := EndpointOptions{
		Clients: testClients(t),
		Tokens:  r.tokens,
		Revoker: r.revoker,
		Realm:   "test",
		Now:     r.clock.now,
		Logger:  newTestLogger(r.log),
		Observe: func(o Outcome) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.outcomes = append(r.outcomes, o)
		},
	}
	if change != nil {
		change(&o)
	}
	e, err := NewEndpoint(o)
	if err != nil {
		t.Fatal(err)
	}
	r.endpoint = e
	return r
}

// testClients are clients of each kind, all of them at issuer A.
func testClients(t testing.TB) *StaticClients {
	t.Helper()
	s, err := NewStaticClients(
		Client{ID: "app", Issuer: issuerA, Secrets: []Secret{clearSecret(t, "app-secret"), clearSecret(t, "old-app-secret")}},
		Client{ID: "other", Issuer: issuerA, Secrets: []Secret{clearSecret(t, "other-secret")}},
		Client{ID: "basic-only", Issuer: issuerA, Methods: []AuthMethod{AuthSecretBasic}, Secrets: []Secret{clearSecret(t, "basic-secret")}},
		Client{ID: "post-only", Issuer: issuerA, Methods: []AuthMethod{AuthSecretPost}, Secrets: []Secret{clearSecret(t, "post-secret")}},
		Client{ID: "https://c.example", Issuer: issuerA, Secrets: []Secret{clearSecret(t, "p%a+s s:ü")}},
		Client{ID: "an:identifier", Issuer: issuerA, Secrets: []Secret{clearSecret(t, "some secure & non-standard secret")}},
		Client{ID: "plus", Issuer: issuerA, Secrets: []Secret{clearSecret(t, "a+b")}},
		Client{ID: "spa", Issuer: issuerA, Methods: []AuthMethod{AuthNone}},
		Client{ID: "bcrypt", Issuer: issuerA, Secrets: []Secret{bcryptOf(t, "bcrypt-secret")}},
		Client{ID: "digest", Issuer: issuerA, Secrets: []Secret{digestOf(t, "Zk9wTXlHcW1vU2VjcmV0")}},
	)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func clearSecret(t testing.TB, s string) Secret {
	t.Helper()
	secret, err := ClearSecret(s)
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

func bcryptOf(t testing.TB, s string) Secret {
	t.Helper()
	h, err := bcrypt.GenerateFromPassword([]byte(s), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := ParseSecret(string(h))
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

func digestOf(t testing.TB, s string) Secret {
	t.Helper()
	sum := sha256.Sum256([]byte(s))
	secret, err := ParseSecret("sha256:" + hex.EncodeToString(sum[:]))
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

func basicAuth(id, secret string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(id+":"+secret))
}

// post sends a form, changed by change, to the handler without a network.
func (r *rig) post(body string, change func(*http.Request)) *httptest.ResponseRecorder {
	req := httptest.NewRequest(http.MethodPost, "/oauth/revoke", strings.NewReader(body))
	req.Header.Set("Content-Type", formMediaType)
	req.RemoteAddr = "192.0.2.1:1234"
	if change != nil {
		change(req)
	}
	w := httptest.NewRecorder()
	r.endpoint.ServeHTTP(w, req)
	return w
}

func authorize(value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Authorization", value) }
}

func asApp(r *http.Request) { r.Header.Set("Authorization", basicAuth("app", "app-secret")) }

func (r *rig) lastOutcome(t *testing.T) Outcome {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.outcomes) == 0 {
		t.Fatal("nothing was observed")
	}
	return r.outcomes[len(r.outcomes)-1]
}

// errorCode returns the error member of an answer, and checks its form.
func errorCode(t *testing.T, status int, body io.Reader) string {
	t.Helper()
	raw, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	var members map[string]string
	if err := json.Unmarshal(raw, &members); err != nil {
		t.Fatalf("body %q of a %d is no object of strings: %v", raw, status, err)
	}
	if status == http.StatusOK && len(members) != 0 {
		t.Errorf("a 200 has the body %q", raw)
	}
	for name, text := range members {
		if !legal(text, true) {
			t.Errorf("%s has characters that RFC 6749, section 5.2, forbids: %q", name, text)
		}
	}
	return members["error"]
}
