package caddymodule

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
	"github.com/edge-revocation/caddy-token-revocation/revocation/ledger"
)

// This file holds the package's only mutable state: what outlives a config.
//
// Caddy provisions a new config while the old one still serves, and runs Cleanup
// for a config that failed to load. Each user therefore releases exactly the
// references that it took, and nothing here keeps a config's context, logger or
// metrics registry.
var (
	// replicas by the ledger's stream name.
	replicas = caddy.NewUsagePool()
	// ledgers by resolvedLedger.key.
	ledgers = caddy.NewUsagePool()
	// issuers by the digest of their config.
	issuers = caddy.NewUsagePool()
	// introspectors by the digest of the issuer's config and of how it is asked.
	introspectors = caddy.NewUsagePool()
	// clientKeys by the digest of where they are.
	clientKeys = caddy.NewUsagePool()
	// guards has one: the counters against guessing, which a reload must not
	// reset.
	guards = caddy.NewUsagePool()

	// running are the started apps, newest last. The admin API, whose router
	// is made before any app is loaded, finds the app here.
	running   []*App
	runningMu sync.RWMutex
)

// currentApp returns the app that serves, or nil.
func currentApp() *App {
	runningMu.RLock()
	defer runningMu.RUnlock()
	if len(running) == 0 {
		return nil
	}
	return running[len(running)-1]
}

func appStarted(a *App) {
	runningMu.Lock()
	defer runningMu.Unlock()
	running = append(running, a)
}

func appStopped(a *App) {
	runningMu.Lock()
	defer runningMu.Unlock()
	if i := slices.Index(running, a); i >= 0 {
		running = slices.Delete(running, i, i+1)
	}
}

// takeReplica returns the denylist of the named stream, made on first use.
func takeReplica(stream string, limits denylistLimits) (*replica, error) {
	value, _, err := replicas.LoadOrNew(stream, func() (caddy.Destructor, error) {
		return newReplica(limits)
	})
	if err != nil {
		return nil, err
	}
	r := value.(*replica)
	if r.limits != limits {
		_, _ = replicas.Delete(stream)
		return nil, errors.New("max_entries, client_quota and cache of the running denylist " +
			"can't be changed by a reload: restart Caddy to apply them")
	}
	return r, nil
}

func releaseReplica(stream string) error {
	_, err := replicas.Delete(stream)
	return err
}

// pooledLedger is an open ledger with the settings it was opened with.
type pooledLedger struct {
	ledger *ledger.Ledger
	digest string
}

// Destruct closes the connection and, if there is one, the embedded server.
func (p *pooledLedger) Destruct() error { return p.ledger.Close() }

// takeLedger opens the ledger of a resolved config, or shares the one that is
// already open. Published is told of each decision that is sent to it; it must
// outlive the config.
func takeLedger(c *resolvedLedger, published func(ledger.Kind, time.Duration, error)) (*ledger.Ledger, error) {
	value, loaded, err := ledgers.LoadOrNew(c.key, func() (caddy.Destructor, error) {
		options, err := c.options()
		if err != nil {
			return nil, err
		}
		options.Published = published
		l, err := ledger.Open(options)
		if err != nil {
			return nil, err
		}
		return &pooledLedger{ledger: l, digest: c.digest}, nil
	})
	if err != nil {
		return nil, err
	}
	p := value.(*pooledLedger)
	if loaded && p.digest != c.digest {
		_, _ = ledgers.Delete(c.key)
		return nil, fmt.Errorf("the settings of the embedded ledger in %s can't be changed while it runs: "+
			"restart Caddy to apply them", c.Embedded.StoreDir)
	}
	return p.ledger, nil
}

func releaseLedger(c *resolvedLedger) error {
	_, err := ledgers.Delete(c.key)
	return err
}

// pooledIssuer is a trusted issuer with the keys it has loaded.
type pooledIssuer struct{ *issuer.Issuer }

// Destruct stops loading keys.
func (p pooledIssuer) Destruct() error {
	p.Stop()
	return nil
}

// takeIssuer returns the issuer made for the same config before, with its keys,
// or a new one.
func takeIssuer(digest string, build func() (*issuer.Issuer, error)) (*issuer.Issuer, error) {
	value, _, err := issuers.LoadOrNew(digest, func() (caddy.Destructor, error) {
		i, err := build()
		if err != nil {
			return nil, err
		}
		return pooledIssuer{i}, nil
	})
	if err != nil {
		return nil, err
	}
	return value.(pooledIssuer).Issuer, nil
}

func releaseIssuer(digest string) error {
	_, err := issuers.Delete(digest)
	return err
}

// pooledIntrospector asks an issuer about its tokens. It is released before its
// issuer is, so that it never outlives it.
type pooledIntrospector struct{ *issuer.Introspector }

// Destruct takes back what is being asked and forgets all answers.
func (p pooledIntrospector) Destruct() error {
	p.Close()
	return nil
}

// takeIntrospector returns what was made for the same issuer and settings before,
// with the answers it keeps, or a new one.
func takeIntrospector(digest string, build func() (*issuer.Introspector, error)) (*issuer.Introspector, error) {
	value, _, err := introspectors.LoadOrNew(digest, func() (caddy.Destructor, error) {
		n, err := build()
		if err != nil {
			return nil, err
		}
		return pooledIntrospector{n}, nil
	})
	if err != nil {
		return nil, err
	}
	return value.(pooledIntrospector).Introspector, nil
}

func releaseIntrospector(digest string) error {
	_, err := introspectors.Delete(digest)
	return err
}
