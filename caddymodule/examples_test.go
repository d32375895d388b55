package caddymodule

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
)

// Every example is valid, also those that need certificates to run.
func TestExamplesAdapt(t *testing.T) {
	files, err := filepath.Glob("../docs/examples/*.Caddyfile")
	if err != nil || len(files) < 3 {
		t.Fatalf("examples %v: %v", files, err)
	}
	for _, file := range append(files, "../Caddyfile.example") {
		config, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt(config, map[string]any{"filename": file})
		if err != nil {
			t.Errorf("%s: %v", file, err)
		}
		for _, w := range warnings {
			t.Errorf("%s:%d: %s", file, w.Line, w.Message)
		}
	}
}

// What the parsers know and what docs/configuration.md explains is the same.
func TestEveryOptionIsDocumented(t *testing.T) {
	docs, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	sources, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	known := regexp.MustCompile(`unknownOption\(d(?:isp)?, ((?:"[^"]*"[\s+]*)+)\)`)
	var options []string
	for _, source := range sources {
		code, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range known.FindAllStringSubmatch(string(code), -1) {
			list := strings.NewReplacer(`"`, "", "+", "", "\n", "", "\t", "").Replace(match[1])
			options = append(options, strings.Split(strings.ReplaceAll(list, " ", ""), ",")...)
		}
	}
	if len(options) < 40 || !slices.Contains(options, "distrust_key") {
		t.Fatalf("found only %d options: %v", len(options), options)
	}
	for _, option := range options {
		if !regexp.MustCompile(`(?m)^\t+` + regexp.QuoteMeta(option) + `\b`).Match(docs) {
			t.Errorf("docs/configuration.md has no line for %s in its grammar", option)
		}
	}
}

func TestProbes(t *testing.T) {
	s := newSite(t)
	const probes = "token_revocation_health /ready\ntoken_revocation_health /live live"
	unreachable := strings.Replace(demo, "embedded", "nats nats://127.0.0.1:1", 1)
	if err := s.load(unreachable, probes); err != nil {
		t.Fatal(err)
	}
	want := func(path string, status int) {
		t.Helper()
		if got := s.do(http.MethodGet, s.url(path), nil, ""); got.status != status {
			t.Errorf("%s: %d, want %d", path, got.status, status)
		}
	}
	want("/ready", http.StatusServiceUnavailable)
	want("/live", http.StatusOK)
	s.mustLoad(demo, probes)
	want("/ready", http.StatusOK)
	// the same edge, cut off from its ledger again
	if err := s.load(unreachable, probes+"\nheader X-Config 2"); err != nil {
		t.Fatal(err)
	}
	want("/ready", http.StatusOK)
	want("/live", http.StatusOK)
}
