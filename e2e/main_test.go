//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// binaryVariable names the environment variable with the binary to test.
const binaryVariable = "CADDY_TOKEN_REVOCATION_BIN"

// Where the tests find things; set by TestMain before any test runs.
var (
	binary   string // Caddy with this module
	root     string // of the repository
	programs string // directory of what the tests build
)

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	if root, err = filepath.Abs(".."); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	// Whoever runs the tests may have these set for a Caddy of their own.
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, "XDG_") || strings.HasPrefix(name, "CADDY_") && name != binaryVariable {
			if err := os.Unsetenv(name); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
		}
	}
	if programs, err = os.MkdirTemp("", "caddy-token-revocation"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(programs)
	if binary = os.Getenv(binaryVariable); binary != "" {
		if binary, err = filepath.Abs(binary); err == nil {
			_, err = os.Stat(binary)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", binaryVariable, err)
			return 1
		}
		return m.Run()
	}
	binary = filepath.Join(programs, "caddy")
	args := []string{"build", "-o", binary, "./cmd/caddy"}
	if !benchmarking() {
		args = append(args[:1], append([]string{"-race"}, args[1:]...)...)
	}
	build := exec.Command("go", args...)
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n%s", build, err, out)
		return 1
	}
	return m.Run()
}

// benchmarking tells whether the binary is to be measured rather than tested:
// the race detector would be most of what is measured.
func benchmarking() bool {
	for _, arg := range os.Args[1:] {
		if strings.HasPrefix(arg, "-test.bench=") {
			return true
		}
	}
	return false
}
