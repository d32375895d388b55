package issuer

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// DevelopmentIssuer is the iss of tokens that a development issuer signs. The
// top-level domain is reserved so that it can never exist (RFC 2606, section 2).
const DevelopmentIssuer = "https://development.invalid"

// developmentKeysName is where the development keys are in the [Store]. They are
// private keys.
const developmentKeysName = "development/keys.json"

// developmentPoll is how often the development keys are read again: another
// process with the same store may have made them.
const developmentPoll = 30 * time.Second

// minter holds the private keys of a development issuer.
type minter struct {
	store Store
	mu    sync.Mutex // one creation at a time
}

func (i *Issuer) developmentKeys() error {
	if i.store == nil {
		return errors.New("a development issuer needs a store for its keys")
	}
	i.minter = &minter{store: i.store}
	i.keys.load = i.minter.load
	i.keys.every = developmentPoll
	i.keys.retention = 0
	return nil
}

// load makes the public halves known, and the keys first if there are none.
func (m *minter) load(ctx context.Context, _ bool) (found, error) {
	private, err := m.privateKeys(ctx)
	if err != nil {
		return found{}, err
	}
	var set jose.JSONWebKeySet
	for _, k := range private {
		set.Keys = append(set.Keys, k.Public())
	}
	text, err := json.Marshal(set)
	if err != nil {
		return found{}, err
	}
	keys, _, err := parseKeySet(text)
	return found{keys: keys, maxAge: -1, removed: true}, err
}

// privateKeys returns the stored keys, after creating them if there are none.
//
// Two edges that share a store may start together. With a [Locker] only one of
// them creates keys. Without, both may, and the one that saves last wins: that
// is why keys are always read from the store, after saving too and for each
// token that is signed, and never used from memory.
func (m *minter) privateKeys(ctx context.Context) ([]jose.JSONWebKey, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	keys, err := m.stored(ctx)
	if !errors.Is(err, fs.ErrNotExist) {
		return keys, err
	}
	if locker, ok := m.store.(Locker); ok {
		if err := locker.Lock(ctx, developmentKeysName); err != nil {
			return nil, fmt.Errorf("locking the development keys: %w", err)
		}
		defer func() { _ = locker.Unlock(context.WithoutCancel(ctx), developmentKeysName) }()
		if keys, err = m.stored(ctx); !errors.Is(err, fs.ErrNotExist) {
			return keys, err
		}
	}
	if keys, err = newDevelopmentKeys(); err != nil {
		return nil, fmt.Errorf("creating the development keys: %w", err)
	}
	text, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
	if err != nil {
		return nil, err
	}
	if err := m.store.Save(ctx, developmentKeysName, text); err != nil {
		return nil, fmt.Errorf("saving the development keys: %w", err)
	}
	return m.stored(ctx)
}

func (m *minter) stored(ctx context.Context) ([]jose.JSONWebKey, error) {
	text, err := m.store.Load(ctx, developmentKeysName)
	if err != nil {
		return nil, fmt.Errorf("loading the development keys: %w", err)
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(text, &set); err != nil || len(set.Keys) == 0 {
		return nil, fmt.Errorf("loading the development keys: %s is damaged; remove it to create new ones", developmentKeysName)
	}
	return set.Keys, nil
}

// newDevelopmentKeys creates one key of each kind, so that every algorithm can
// be tried.
func newDevelopmentKeys() ([]jose.JSONWebKey, error) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	rs, err := rsa.GenerateKey(rand.Reader, minRSABits)
	if err != nil {
		return nil, err
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	keys := []jose.JSONWebKey{
		{Key: ec, Algorithm: string(jose.ES256), Use: "sig"},
		{Key: rs, Algorithm: string(jose.RS256), Use: "sig"},
		{Key: ed, Algorithm: string(jose.EdDSA), Use: "sig"},
	}
	for i := range keys {
		sum, err := keys[i].Thumbprint(crypto.SHA256)
		if err != nil {
			return nil, err
		}
		keys[i].KeyID = "development-" + base64.RawURLEncoding.EncodeToString(sum[:8])
	}
	return keys, nil
}
