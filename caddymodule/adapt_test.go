package caddymodule

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddytest"

	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

// TestAdaptGolden holds what each Caddyfile becomes as JSON, or the error that
// it gets. A file is a Caddyfile, a line of ten hyphens, and one of the two, as
// in Caddy's own suite. An error must name file and line.
func TestAdaptGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/adapt/*.caddyfiletest")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			input, want, ok := strings.Cut(string(data), "----------\n")
			if !ok {
				t.Fatal("no line of ten hyphens")
			}
			input, want = strings.TrimSpace(input)+"\n", strings.TrimSpace(want)
			if strings.HasPrefix(want, "{") {
				if !caddytest.CompareAdapt(t, file, input, "caddyfile", want) {
					t.Fail()
				}
				return
			}
			_, _, err = caddyconfig.GetAdapter("caddyfile").Adapt([]byte(input), map[string]any{"filename": "Caddyfile"})
			if err == nil {
				t.Fatalf("adapted, but should have failed with: %s", want)
			}
			if want == "" || !strings.Contains(err.Error(), want) {
				t.Errorf("error:\n%s\nshould contain:\n%s", err, want)
			}
			if !strings.Contains(err.Error(), "Caddyfile:") {
				t.Errorf("error without file and line: %s", err)
			}
		})
	}
}
