package ledger_test

import (
	"bytes"
	"log/slog"
	"maps"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/ledger"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// sink is a denylist that remembers everything.
type sink struct {
	mu         sync.Mutex
	revoked    map[string]*revocation.Revocation // by id
	sequences  map[string]uint64
	restored   map[string]*revocation.Restoration
	position   revocation.Position
	held       map[revocation.Fingerprint]uint64 // sequences of those by fingerprint
	unreadable map[uint64]string
	incomplete []string // every reason so far
	until      int64
	acks       []uint64 // acknowledged
	rechecked  []string // issuers
	histories  []uint64 // where each new one ended when it was found
	backwards  int      // positions that went back
}

func newSink() *sink {
	return &sink{
		revoked: map[string]*revocation.Revocation{}, sequences: map[string]uint64{},
		restored: map[string]*revocation.Restoration{},
		held:     map[revocation.Fingerprint]uint64{}, unreadable: map[uint64]string{},
	}
}

func (s *sink) Revoke(sequence uint64, r *revocation.Revocation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revoked[r.ID] = r
	s.sequences[r.ID] = sequence
}

func (s *sink) Restore(_ uint64, r *revocation.Restoration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.restored[r.ID] = r
}

func (s *sink) Recheck(_ uint64, issuer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rechecked = append(s.rechecked, issuer)
}

func (s *sink) Position() revocation.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.position
}

func (s *sink) SetPosition(p revocation.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.Sequence < s.position.Sequence {
		s.backwards++
	}
	s.position = p
}

func (s *sink) RevokeHeld(sequence uint64, e *revocation.HeldEntry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[e.Fingerprint] = sequence
}

func (s *sink) NewHistory(p revocation.Position, last uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.position = p
	s.histories = append(s.histories, last)
}

func (s *sink) MarkUnreadable(sequence uint64, reason string, until int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unreadable[sequence] = reason
	s.incomplete = append(s.incomplete, reason)
	s.until = until
}

func (s *sink) Acknowledge(sequence uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.unreadable[sequence]
	delete(s.unreadable, sequence)
	s.acks = append(s.acks, sequence)
	return ok
}

func (s *sink) has(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.revoked[id] != nil
}

func (s *sink) get(id string) *revocation.Revocation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.revoked[id]
}

func (s *sink) ids() map[string]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.sequences)
}

func (s *sink) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.revoked)
}

func (s *sink) incompletes() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.incomplete...)
}

// logs collects what a ledger logs.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logs) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// open opens a ledger that logs to the test's output if the test fails.
func open(t testing.TB, o ledger.Options) *ledger.Ledger {
	t.Helper()
	l, _ := openLogged(t, o)
	return l
}

func openLogged(t testing.TB, o ledger.Options) (*ledger.Ledger, *logs) {
	t.Helper()
	out := &logs{}
	if o.Logger == nil {
		o.Logger = out.logger()
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = 64 << 20
	}
	l, err := ledger.Open(o)
	if err != nil {
		t.Fatalf("opening the ledger: %v", err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("closing the ledger: %v", err)
		}
		if t.Failed() {
			t.Logf("log:\n%s", out)
		}
	})
	return l, out
}

func embedded(dir string) ledger.Options {
	return ledger.Options{Embedded: &ledger.EmbeddedOptions{StoreDir: dir, SyncInterval: time.Minute}}
}

func external(url string) ledger.Options {
	return ledger.Options{External: &ledger.ExternalOptions{URLs: []string{url}, Create: true}}
}

func revoke(id string) *revocation.Revocation {
	return &revocation.Revocation{
		ID:        id,
		Criteria:  revocation.Criteria{Issuer: "https://sso.example.com", Claims: map[string]string{"jti": id}},
		Expires:   time.Now().Add(time.Hour).Unix(),
		Reason:    "test",
		Actor:     "operator",
		DecidedAt: time.Now().UnixMilli(),
	}
}

func publish(t testing.TB, l *ledger.Ledger, id string) uint64 {
	t.Helper()
	seq, err := l.PublishRevocation(t.Context(), revoke(id))
	if err != nil {
		t.Fatalf("publishing %s: %v", id, err)
	}
	return seq
}

// eventually polls until ok, and fails the test after a generous time.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	within(t, 30*time.Second, what, ok)
}

func within(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", limit, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
