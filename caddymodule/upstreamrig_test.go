package caddymodule

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// restart stops Caddy, with everything that outlives a config; the next load
// starts it again on the same data.
func (s *site) restart() {
	s.t.Helper()
	if err := caddy.Stop(); err != nil {
		s.t.Fatal(err)
	}
	upstreamStates.Range(func(key, _ any) bool {
		s.t.Errorf("%v is still held after Caddy stopped", key)
		return true
	})
}

func mustGlob(t *testing.T, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestUpstreamSettingsAreChecked(t *testing.T) {
	s := newSite(t)
	for _, tt := range []struct{ options, upstream, want string }{
		{demo, "issuer https://nobody.example", "not configured"},
		{demo, "confirm introspect", "needs an introspection block"},
		{demo, "grant_claim sub", "does not identify a grant"},
		{"embedded\nissuer https://a.example\nissuer https://b.example", "", "2 issuers are configured"},
	} {
		err := s.load(tt.options, "route /as/revoke {\ntoken_revocation upstream {\n"+tt.upstream+"\n}\nrespond ok\n}")
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.upstream, err, tt.want)
		}
	}
	if _, err := os.Stat(intentsDir()); !errors.Is(err, os.ErrNotExist) {
		t.Error("a config that does not run has touched the disk")
	}
}
