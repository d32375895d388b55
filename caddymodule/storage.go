package caddymodule

import (
	"context"
	"path"

	"github.com/caddyserver/certmagic"

	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
)

// storagePrefix keeps what this module stores apart from Caddy's certificates.
const storagePrefix = "token_revocation"

// keyStore keeps issuers' last known keys, and the development issuer's signing
// keys, in Caddy's configured storage: edges that share a storage share them.
//
// Issuers outlive configs, and a storage is closed with its config: it is the
// running config's, or before any runs, that of the first.
type keyStore struct {
	first func() certmagic.Storage
}

func (s keyStore) storage() certmagic.Storage {
	if app := currentApp(); app != nil {
		return app.ctx.Storage()
	}
	return s.first()
}

// Load returns the stored value, or an error that is fs.ErrNotExist.
func (s keyStore) Load(ctx context.Context, key string) ([]byte, error) {
	return s.storage().Load(ctx, path.Join(storagePrefix, key))
}

// Save replaces the stored value.
func (s keyStore) Save(ctx context.Context, key string, value []byte) error {
	return s.storage().Store(ctx, path.Join(storagePrefix, key), value)
}

// Lock makes other processes on the same storage wait.
func (s keyStore) Lock(ctx context.Context, name string) error {
	return s.storage().Lock(ctx, path.Join(storagePrefix, name))
}

// Unlock ends Lock.
func (s keyStore) Unlock(ctx context.Context, name string) error {
	return s.storage().Unlock(ctx, path.Join(storagePrefix, name))
}

var (
	_ issuer.Store  = keyStore{}
	_ issuer.Locker = keyStore{}
)
