package issuer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// Store keeps a few small documents across restarts: the last known keys of each
// issuer, and the keys of the development issuer. The names are relative,
// slash-separated and safe as file names. It is used from several goroutines.
type Store interface {
	// Load returns what was saved last under that name; its error wraps
	// [fs.ErrNotExist] if nothing was.
	Load(ctx context.Context, name string) ([]byte, error)
	// Save replaces what is stored under that name.
	Save(ctx context.Context, name string, value []byte) error
}

// Locker is what a [Store] that is shared by several processes may implement as
// well, so that only one of them creates the development keys.
type Locker interface {
	Lock(ctx context.Context, name string) error
	Unlock(ctx context.Context, name string) error
}

// keptKeys is how a key set is stored. There is no secret in it.
type keptKeys struct {
	Version int       `json:"v"`
	Issuer  string    `json:"issuer"`
	Source  string    `json:"source"`
	Loaded  time.Time `json:"loaded"`
	Keys    []keptKey `json:"keys"`
}

type keptKey struct {
	Key      json.RawMessage `json:"key"`
	LastSeen time.Time       `json:"last_seen"`
	Retired  bool            `json:"retired,omitempty"`
}

func saveKeys(ctx context.Context, store Store, issuer, source string, s *keySet) error {
	kept := keptKeys{Version: 1, Issuer: issuer, Source: source, Loaded: s.loaded}
	for _, k := range s.keys {
		kept.Keys = append(kept.Keys, keptKey{Key: k.raw, LastSeen: k.lastSeen, Retired: k.retired})
	}
	text, err := json.Marshal(kept)
	if err != nil {
		return err
	}
	return store.Save(ctx, storeKey(issuer), text)
}

// loadKeys returns the keys that were kept, nil if there are none. Keys from
// another source are not used: the operator has moved away from it.
func loadKeys(ctx context.Context, store Store, issuer, source string, now time.Time, retention time.Duration) (*keySet, error) {
	text, err := store.Load(ctx, storeKey(issuer))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var kept keptKeys
	if err := json.Unmarshal(text, &kept); err != nil {
		return nil, fmt.Errorf("reading the kept keys: %w", err)
	}
	if kept.Version != 1 || kept.Issuer != issuer || kept.Source != source {
		return nil, nil
	}
	var keys []*key
	for _, stored := range kept.Keys {
		if stored.Retired && !now.Before(stored.LastSeen.Add(retention)) || len(keys) >= 2*maxKeys {
			continue
		}
		k, err := parseKey(stored.Key)
		if err != nil {
			return nil, fmt.Errorf("reading the kept keys: %w", err)
		}
		k.lastSeen, k.retired = stored.LastSeen, stored.Retired
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, nil
	}
	return newKeySet(keys, kept.Loaded), nil
}
