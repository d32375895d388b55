package revocation_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/edge-revocation/caddy-token-revocation"

// Import paths, each standing for itself and for what lies below it.
const (
	caddy      = "github.com/caddyserver"
	zap        = "go.uber.org/zap"
	nats       = "github.com/nats-io"
	ristretto  = "github.com/dgraph-io/ristretto"
	jose       = "github.com/go-jose"
	prometheus = "github.com/prometheus"
)

func TestImportsPointFromTheAdapterToTheCoreAndNeverBack(t *testing.T) {
	for _, test := range []struct {
		name      string
		packages  string
		forbidden []string
	}{
		{
			name:     "the core knows neither Caddy nor the adapter",
			packages: "./revocation/...",
			forbidden: []string{
				caddy, zap,
				module + "/caddymodule", module + "/cmd", module + "/e2e",
			},
		},
		{
			name:     "the vocabulary knows none of its children, nor what they need",
			packages: "./revocation",
			forbidden: []string{
				module + "/revocation/",
				nats, ristretto, jose, prometheus,
			},
		},
		{
			name:      "the hot path knows neither the ledger nor its server",
			packages:  "./revocation/denylist",
			forbidden: []string{nats, module + "/revocation/ledger"},
		},
		{
			name:      "the binary holds nothing that is for tests",
			packages:  "./cmd/caddy",
			forbidden: []string{module + "/revocation/revocationtest", module + "/e2e"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			deps := goList(t, "-deps", test.packages)
			if len(deps) < 10 {
				t.Fatalf("go list -deps %s names %d packages only: %q", test.packages, len(deps), deps)
			}
			for _, dep := range deps {
				for _, path := range test.forbidden {
					if isIn(dep, path) {
						t.Errorf("%s depends on %s", test.packages, dep)
					}
				}
			}
		})
	}
}

func TestOnlyOneRoomKnowsEachDependency(t *testing.T) {
	rooms := map[string]string{
		nats:      module + "/revocation/ledger",
		ristretto: module + "/revocation/denylist",
	}
	// What revocationtest needs to play the counterparty is its own affair:
	// no package but a test's holds it.
	for _, line := range goList(t, "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...") {
		importer, imports, _ := strings.Cut(line, " ")
		if isIn(importer, module+"/revocation/revocationtest") {
			continue
		}
		for imported := range strings.FieldsSeq(imports) {
			for path, room := range rooms {
				if isIn(imported, path) && !isIn(importer, room) {
					t.Errorf("%s imports %s, which is for %s alone", importer, imported, room)
				}
			}
		}
	}
}

// isIn tells whether the package is path or lies below it. A path with a final
// slash stands for what lies below it only.
func isIn(pkg, path string) bool {
	return pkg == path || strings.HasPrefix(pkg, strings.TrimSuffix(path, "/")+"/")
}

// goList returns the lines that "go list" prints in the module's root.
func goList(t *testing.T, args ...string) []string {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	// go test reuses a result while the files that the test itself looked at
	// are unchanged; it cannot see those that "go list" looks at.
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "node_modules"):
			return filepath.SkipDir
		case strings.HasSuffix(path, ".go"), entry.Name() == "go.mod":
			_, err = os.Stat(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list"}, args...)...)
	cmd.Dir = root
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, stderr.String())
	}
	return slices.DeleteFunc(strings.Split(string(out), "\n"), func(line string) bool { return line == "" })
}
