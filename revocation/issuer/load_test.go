package issuer

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

func TestKeysAreKeptAcrossRestarts(t *testing.T) {
	as := revocationtest.NewAuthServer(t)
	store, now := newMemoryStore(), newClock()
	config := Config{Issuer: as.Issuer(), JWKSURI: as.URL + revocationtest.JWKSPath, KeyRetention: Duration(time.Hour)}
	options := Options{Client: clientOf(t, as), Store: store, Now: now.Now}
	start := func() *Issuer {
		i := newIssuer(t, config, options)
		i.Start()
		return i
	}
	first := startIssuer(t, config, options)
	old := as.Rotate("ES256", "rotated")
	byOldKey := revocationtest.SignWith(t, old, nil, as.Claims(nil))
	accept(t, newSet(t, first), as.Token(nil), Request{Wait: true}) // loads the new one
	eventually(t, "the keys are kept", func() bool {
		kept, err := loadKeys(context.Background(), store, config.Issuer, first.source, now.Now(), time.Hour)
		return err == nil && kept != nil && kept.has("rotated")
	})
	first.Stop()

	as.Fail(http.StatusServiceUnavailable)
	second := start()
	set := newSet(t, second)
	if !second.Ready() {
		t.Fatal("no keys right after the start")
	}
	accept(t, set, as.Token(nil), Request{})
	accept(t, set, byOldKey, Request{})
	refuse(t, set, revocationtest.SignWith(t, revocationtest.NewKey(t, "ES256", "x"), nil, as.Claims(nil)), Request{Wait: true}, ErrKeysUnavailable)
	if second.Generation() != first.Generation() {
		t.Error("the same keys and configuration have two generations")
	}
	second.Stop()

	// Retired keys end, published ones stay however old the copy is.
	now.add(2 * time.Hour)
	third := start()
	set = newSet(t, third)
	if s := third.KeyStatus(); s.Retired != 0 || s.Published == 0 {
		t.Errorf("%+v", s)
	}
	refuse(t, set, revocationtest.SignWith(t, old, nil, as.Claims(map[string]any{"iat": now.Now().Unix(), "exp": now.Now().Unix() + 60})), Request{}, ErrKeysUnavailable)
	third.Stop()

	for name, change := range map[string]func(){
		"another source": func() { config.JWKSURI += "?x" },
		"damaged": func() {
			config.JWKSURI = as.URL + revocationtest.JWKSPath
			store.values[storeKey(config.Issuer)] = []byte("{")
		},
		"store broken": func() { store.err = errors.New("broken") },
	} {
		t.Run(name, func(t *testing.T) {
			change()
			if i := start(); i.Ready() {
				t.Error("keys out of nowhere")
			} else {
				i.Stop()
			}
		})
	}
}

func TestKeyFileIsFollowedAndABrokenOneChangesNothing(t *testing.T) {
	as := revocationtest.NewAuthServer(t)
	path := filepath.Join(t.TempDir(), "keys.json")
	write := func(text []byte, age time.Duration) {
		t.Helper()
		if err := os.WriteFile(path+".new", text, 0o600); err != nil {
			t.Fatal(err)
		}
		stamp := time.Now().Add(-age)
		if err := os.Chtimes(path+".new", stamp, stamp); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	var log logBuffer
	write(as.KeySet(), time.Hour)
	i := startIssuer(t, Config{Issuer: as.Issuer(), JWKSFile: path}, Options{Logger: log.logger()})
	set := newSet(t, i)
	token := as.Token(nil)
	accept(t, set, token, Request{})

	unknown := revocationtest.SignWith(t, revocationtest.NewKey(t, "ES256", "new"), nil, as.Claims(nil))
	write([]byte(`{"keys":[`), time.Minute)
	refuse(t, set, unknown, Request{Wait: true}, ErrKeysUnavailable)
	accept(t, set, token, Request{})
	if !strings.Contains(log.String(), "level=ERROR") || !strings.Contains(log.String(), "not a JWK set") {
		t.Errorf("not loud:\n%s", log.String())
	}

	// A key that the operator removes is distrusted at once.
	before := i.Generation()
	as.Rotate("ES256", "rotated")
	write(as.KeySet(), 0)
	accept(t, set, as.Token(nil), Request{Wait: true})
	refuse(t, set, token, Request{Wait: true}, ErrInvalid)
	if i.Generation() == before || i.KeyStatus().Retired != 0 {
		t.Error("the removed key is still there")
	}
}

func TestKeyRemovedFromTheFileWhileDownDoesNotComeBack(t *testing.T) {
	as := revocationtest.NewAuthServer(t)
	path, store := filepath.Join(t.TempDir(), "keys.json"), newMemoryStore()
	write := func(text []byte) {
		t.Helper()
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	start := func() *Issuer {
		i := newIssuer(t, Config{Issuer: as.Issuer(), JWKSFile: path}, Options{Store: store})
		i.Start()
		if !i.Ready() {
			t.Fatal("no keys right after the start")
		}
		return i
	}
	write(as.KeySet())
	start().Stop()
	token := as.Token(nil)
	as.Rotate("ES256", "rotated")
	write([]byte("broken"))
	second := start()
	accept(t, newSet(t, second), token, Request{}) // the last good keys
	second.Stop()
	write(as.KeySet())
	refuse(t, newSet(t, start()), token, Request{}, ErrKeysUnavailable)
}

func TestKeysAreFetchedFromWhereTheConfigSays(t *testing.T) {
	as := revocationtest.NewTLSAuthServer(t)
	set, _ := trustServer(t, as, nil)
	accept(t, set, as.Token(nil), Request{})

	t.Run("certificates are checked", func(t *testing.T) {
		i := newIssuer(t, Config{Issuer: as.Issuer(), JWKSURI: as.URL + revocationtest.JWKSPath}, Options{})
		i.Start()
		eventually(t, "the fetch fails", func() bool { return i.KeyStatus().Err != nil })
		if err := i.KeyStatus().Err.Error(); !strings.Contains(err, "certificate") {
			t.Error(err)
		}
	})
	for name, handler := range map[string]http.HandlerFunc{
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, as.URL+revocationtest.JWKSPath, http.StatusFound)
		},
		"longer than":  func(w http.ResponseWriter, _ *http.Request) { _, _ = io.CopyN(w, zeros{}, maxDocument+1) },
		"status 404":   http.NotFound,
		"not a JWK se": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") },
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(handler)
			defer server.Close()
			i := newIssuer(t, Config{Issuer: as.Issuer(), JWKSURI: server.URL}, Options{Client: server.Client()})
			i.Start()
			eventually(t, "the fetch fails", func() bool { return i.KeyStatus().Err != nil })
			i.Stop()
			if err := i.KeyStatus().Err.Error(); !strings.Contains(err, name) {
				t.Error(err)
			}
		})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '0'
	}
	return len(p), nil
}

func TestCacheControlIsRead(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"": -1, "max-age=60": time.Minute, "public, Max-Age=3600": time.Hour, `max-age="5"`: 5 * time.Second,
		"no-store": 0, "no-cache, max-age=60": 0, "max-age=x": -1, "max-age=-1": -1, "max-age=99999999999": -1, "private": -1,
	} {
		if got := cacheMaxAge(http.Header{"Cache-Control": {value}}); got != want {
			t.Errorf("%q: %s, want %s", value, got, want)
		}
	}
}
