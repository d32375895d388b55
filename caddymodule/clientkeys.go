package caddymodule

import (
	"errors"

	"github.com/caddyserver/caddy/v2"

	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
)

// pooledKeys are the keys of clients that were given the same place for them.
type pooledKeys struct{ *issuer.KeySource }

// Destruct stops loading keys.
func (p *pooledKeys) Destruct() error {
	p.Stop()
	return nil
}

// pooledGuard counts failures to authenticate for as long as this module is in
// use.
type pooledGuard struct{ *oauth.Guard }

// Destruct has nothing to release.
func (*pooledGuard) Destruct() error { return nil }

const guardKey = "guard"

func takeGuard() (*oauth.Guard, error) {
	value, _, err := guards.LoadOrNew(guardKey, func() (caddy.Destructor, error) {
		return &pooledGuard{oauth.NewGuard(oauth.GuardOptions{})}, nil
	})
	if err != nil {
		return nil, err
	}
	return value.(*pooledGuard).Guard, nil
}

func releaseGuard() error {
	_, err := guards.Delete(guardKey)
	return err
}

// keyHolder holds the references to keys that one config, or one version of a
// clients file, took. Keys in a config itself need no loading and are not shared.
type keyHolder struct {
	digests []string
	sources []*issuer.KeySource
}

// take returns the keys that c describes. The error has no secret.
func (h *keyHolder) take(c issuer.KeySourceConfig, clientID string) (*issuer.KeySource, error) {
	build := func() (*issuer.KeySource, error) {
		return issuer.NewKeySource(c, issuer.Options{Logger: processLogger("client_keys").With("client_id", clientID)})
	}
	if c.JWKSFile == "" && c.JWKSURI == "" {
		return build()
	}
	digest := digestOf(c)
	value, _, err := clientKeys.LoadOrNew(digest, func() (caddy.Destructor, error) {
		keys, err := build()
		if err != nil {
			return nil, err
		}
		return &pooledKeys{keys}, nil
	})
	if err != nil {
		return nil, err
	}
	keys := value.(*pooledKeys).KeySource
	h.digests = append(h.digests, digest)
	h.sources = append(h.sources, keys)
	return keys, nil
}

// start begins to load keys, those that are not being loaded yet.
func (h *keyHolder) start() {
	for _, keys := range h.sources {
		keys.Start()
	}
}

// release gives back what was taken.
func (h *keyHolder) release() error {
	var errs []error
	for _, digest := range h.digests {
		_, err := clientKeys.Delete(digest)
		errs = append(errs, err)
	}
	h.digests, h.sources = nil, nil
	return errors.Join(errs...)
}
