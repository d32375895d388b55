package issuer

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memoryStore is a Store in memory, with a Locker's methods left out.
type memoryStore struct {
	mu     sync.Mutex
	values map[string][]byte
	err    error
}

func newMemoryStore() *memoryStore { return &memoryStore{values: make(map[string][]byte)} }

func (s *memoryStore) Load(_ context.Context, name string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, s.err
	}
	v, found := s.values[name]
	if !found {
		return nil, fs.ErrNotExist
	}
	return bytes.Clone(v), nil
}

func (s *memoryStore) Save(_ context.Context, name string, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	s.values[name] = bytes.Clone(value)
	return nil
}

// logBuffer collects what is logged.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func (b *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

// clock is a clock that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Now()} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// newIssuer returns an issuer that is not started.
func newIssuer(t testing.TB, c Config, o Options) *Issuer {
	t.Helper()
	i, err := New(c, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(i.Stop)
	return i
}

// startIssuer returns an issuer that has loaded its keys.
func startIssuer(t testing.TB, c Config, o Options) *Issuer {
	t.Helper()
	i := newIssuer(t, c, o)
	i.Start()
	eventually(t, "the issuer has keys", i.Ready)
	return i
}

// trustServer returns the set of one issuer that has loaded the server's keys.
func trustServer(t testing.TB, as *revocationtest.AuthServer, change func(*Config)) (*Set, *Issuer) {
	t.Helper()
	c := Config{Issuer: as.Issuer(), JWKSURI: as.URL + revocationtest.JWKSPath}
	if change != nil {
		change(&c)
	}
	i := startIssuer(t, c, Options{Client: clientOf(t, as)})
	return newSet(t, i), i
}

// clientOf returns a client that trusts the server and keeps no connection.
func clientOf(t testing.TB, as *revocationtest.AuthServer) *http.Client {
	t.Helper()
	c := as.Client()
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func newSet(t testing.TB, issuers ...*Issuer) *Set {
	t.Helper()
	s, err := NewSet(issuers...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("not within ten seconds: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// accept identifies a token that must be accepted.
func accept(t testing.TB, s *Set, token string, req Request) *revocation.Identity {
	t.Helper()
	id, i, err := s.Identify(context.Background(), token, req)
	if err != nil {
		t.Fatalf("refused: %v", err)
	}
	if i == nil || id.Verified == req.SkipVerify {
		t.Fatalf("issuer %v, verified %v", i, id.Verified)
	}
	return id
}

// refuse identifies a token that must be refused with this error, and no other.
func refuse(t testing.TB, s *Set, token string, req Request, want error) {
	t.Helper()
	id, _, err := s.Identify(context.Background(), token, req)
	if !errors.Is(err, want) {
		t.Fatalf("got identity %v and error %v, want the error %q", id, err, want)
	}
	if id != nil && !errors.Is(want, ErrUnknownIssuer) {
		t.Fatalf("an identity came with the error %v", err)
	}
	for _, other := range []error{
		ErrNotJWT, ErrMalformed, ErrUnknownIssuer, ErrInvalid, ErrExpired, ErrNotYetValid, ErrKeysUnavailable,
	} {
		if !errors.Is(other, want) && errors.Is(err, other) {
			t.Fatalf("the error %v is both %q and %q", err, want, other)
		}
	}
}

func slogDiscard() *slog.Logger { return slog.New(slog.DiscardHandler) }
