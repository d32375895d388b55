package issuer

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// lockingStore is a memoryStore that several processes share.
type lockingStore struct {
	*memoryStore
	lock sync.Mutex
}

func (s *lockingStore) Lock(context.Context, string) error   { s.lock.Lock(); return nil }
func (s *lockingStore) Unlock(context.Context, string) error { s.lock.Unlock(); return nil }

func TestDevelopmentIssuerMintsWhatItAccepts(t *testing.T) {
	var log logBuffer
	store := newMemoryStore()
	i := startIssuer(t, Config{Development: true}, Options{Store: store, Logger: log.logger()})
	if n := strings.Count(log.String(), "level=WARN"); n != 1 || !strings.Contains(log.String(), "development issuer") {
		t.Errorf("no warning:\n%s", log.String())
	}
	i.Start() // as a reload does with a shared issuer
	if n := strings.Count(log.String(), "level=WARN"); n != 2 {
		t.Error("no warning at the second start")
	}
	set := newSet(t, i)
	for _, alg := range []string{"", "ES256", "RS256", "EdDSA"} {
		token, err := i.Mint(context.Background(), MintRequest{
			Subject: "alice", ClientID: "c", SessionID: "s", Audience: []string{"a"}, Algorithm: alg,
			Lifetime: time.Minute, Extra: map[string]any{"role": "admin"},
		})
		if err != nil {
			t.Fatal(err)
		}
		id := accept(t, set, token, Request{ClaimNames: []string{"role", "aud"}})
		for name, want := range map[string]string{"sub": "alice", "client_id": "c", "sid": "s", "role": "admin", "aud": "a"} {
			if got, _ := id.Value(name); got != want {
				t.Errorf("%s: %q", name, got)
			}
		}
		if id.Issuer != DevelopmentIssuer || id.Expiry-id.IssuedAt != 60 || len(id.Values(revocation.ClaimTokenID)) != 1 {
			t.Errorf("%+v", id)
		}
	}
	token, err := i.Mint(context.Background(), MintRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if id := accept(t, set, token, Request{}); id.Expiry-id.IssuedAt != 300 {
		t.Errorf("%+v", id)
	}
	for name, req := range map[string]MintRequest{
		"algorithm": {Algorithm: "HS256"}, "none": {Algorithm: "none"}, "lifetime too long": {Lifetime: 25 * time.Hour},
		"lifetime negative": {Lifetime: -time.Second}, "claim that is no JSON": {Extra: map[string]any{"x": func() {}}},
	} {
		if token, err := i.Mint(context.Background(), req); err == nil {
			t.Errorf("%s: minted %s", name, token)
		}
	}

	// The keys outlive the process.
	i.Stop()
	again := startIssuer(t, Config{Development: true}, Options{Store: store})
	accept(t, newSet(t, again), token, Request{})
}

func TestOnlyDevelopmentIssuersMint(t *testing.T) {
	i := newIssuer(t, Config{Issuer: "https://as.example"}, Options{Store: newMemoryStore()})
	if _, err := i.Mint(context.Background(), MintRequest{}); !errors.Is(err, ErrNotDevelopment) {
		t.Errorf("got %v", err)
	}
	if _, err := New(Config{Development: true}, Options{}); err == nil {
		t.Error("no store, no error")
	}
}

func TestEdgesThatShareAStoreEndUpWithTheSameDevelopmentKeys(t *testing.T) {
	for name, store := range map[string]Store{
		"with a lock": &lockingStore{memoryStore: newMemoryStore()}, "without a lock": newMemoryStore(),
	} {
		t.Run(name, func(t *testing.T) {
			var edges []*Issuer
			var wg sync.WaitGroup
			for range 2 {
				i := newIssuer(t, Config{Development: true}, Options{Store: store})
				edges = append(edges, i)
				wg.Go(func() {
					i.Start()
					eventually(t, "the issuer has keys", i.Ready)
				})
			}
			wg.Wait()
			for _, from := range edges {
				token, err := from.Mint(context.Background(), MintRequest{})
				if err != nil {
					t.Fatal(err)
				}
				for _, at := range edges {
					accept(t, newSet(t, at), token, Request{Wait: true})
				}
			}
		})
	}
}

// overtakenStore is one where another process saves its keys at the worst moment:
// while we wait for the lock, or right after we saved ours.
type overtakenStore struct {
	*memoryStore
	theirs []byte
}

func (s overtakenStore) Save(ctx context.Context, name string, _ []byte) error {
	return s.memoryStore.Save(ctx, name, s.theirs)
}

// waitingStore is the same with a lock that the other process held before us.
type waitingStore struct {
	*memoryStore
	theirs []byte
}

func (s waitingStore) Lock(ctx context.Context, name string) error {
	return s.Save(ctx, name, s.theirs)
}
func (s waitingStore) Unlock(context.Context, string) error { return nil }

func TestDevelopmentKeysOfWhoWasFasterAreUsed(t *testing.T) {
	other := newMemoryStore()
	theirs := startIssuer(t, Config{Development: true}, Options{Store: other})
	token, err := theirs.Mint(context.Background(), MintRequest{})
	if err != nil {
		t.Fatal(err)
	}
	keys := other.values[developmentKeysName]
	for name, store := range map[string]Store{
		"after saving":    overtakenStore{newMemoryStore(), keys},
		"before the lock": waitingStore{newMemoryStore(), keys},
	} {
		t.Run(name, func(t *testing.T) {
			ours := startIssuer(t, Config{Development: true}, Options{Store: store})
			accept(t, newSet(t, ours), token, Request{})
			token, err := ours.Mint(context.Background(), MintRequest{})
			if err != nil {
				t.Fatal(err)
			}
			accept(t, newSet(t, theirs), token, Request{})
		})
	}
}

func TestDamagedDevelopmentKeysAreNotReplaced(t *testing.T) {
	store := newMemoryStore()
	store.values[developmentKeysName] = []byte(`{"keys":[]}`)
	i := newIssuer(t, Config{Development: true}, Options{Store: store})
	i.Start()
	if _, err := i.Mint(context.Background(), MintRequest{}); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("got %v", err)
	}
	if string(store.values[developmentKeysName]) != `{"keys":[]}` {
		t.Error("the stored keys were overwritten")
	}
}
