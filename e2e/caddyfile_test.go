//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The tests use the demo's Caddyfiles as they are, but for the ports and for what
// each test says that it changes.

func apply(config string, changes []func(string) string) string {
	for _, change := range changes {
		config = change(config)
	}
	return config
}

// place puts an edge's own ports into a Caddyfile that has those of the demo.
func (e *edge) place(config string) string {
	config = replacePort(config, "8080", e.address)
	config = replacePort(config, "2019", e.admin)
	config = replacePort(config, "4222", e.nats)
	if !regexp.MustCompile(`(?m)^\s*admin\s`).MatchString(config) {
		config = globalOption("admin " + e.admin)(config)
	}
	return config
}

// replacePort replaces a port by that of an address, wherever ":port" stands in
// a line that is no comment.
func replacePort(config, port, address string) string {
	own := regexp.MustCompile(`:` + port + `\b`)
	lines := strings.Split(config, "\n")
	for i, line := range lines {
		if !strings.HasPrefix(strings.TrimSpace(line), "#") {
			lines[i] = own.ReplaceAllString(line, address[strings.LastIndex(address, ":"):])
		}
	}
	return strings.Join(lines, "\n")
}

// globalOption returns a change that adds a line to the global options.
func globalOption(line string) func(string) string {
	return addAfter(regexp.MustCompile(`(?m)^\{[ \t]*(#.*)?$`), line)
}

// appOption returns a change that adds lines to the option token_revocation.
func appOption(lines string) func(string) string {
	return addAfter(regexp.MustCompile(`(?m)^[ \t]+token_revocation[ \t]*\{[ \t]*(#.*)?$`), lines)
}

func addAfter(place *regexp.Regexp, lines string) func(string) string {
	return func(config string) string {
		at := place.FindStringIndex(config)
		if at == nil {
			panic(fmt.Sprintf("no line in the Caddyfile matches %s:\n%s", place, config))
		}
		return config[:at[1]] + "\n" + lines + config[at[1]:]
	}
}

func readFile(t testing.TB, path ...string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(append([]string{root}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
