//go:build e2e

package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// demoSecret is the secret of the demo's confidential client, as the README
// tells it to the user.
func demoSecret(t testing.TB) string {
	t.Helper()
	found := regexp.MustCompile(`(?m)^SECRET=(\S+)$`).FindStringSubmatch(readFile(t, "README.md"))
	if found == nil {
		t.Fatal("README.md has no line SECRET=…")
	}
	return found[1]
}

// TestQuickStartWorksExactlyAsTheREADMESaysIt runs every command of the section
// "Quick start" as it stands there, in a fresh checkout, with an empty data
// directory. It needs the demo's own ports.
func TestQuickStartWorksExactlyAsTheREADMESaysIt(t *testing.T) {
	for _, port := range []int{8080, 8081, 4222, 2019, 2020} {
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			skipUnlessCI(t, "the quick start needs port %d: %v", port, err)
		}
		if err := listener.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, program := range []string{"bash", "curl", "git"} {
		if _, err := exec.LookPath(program); err != nil {
			skipUnlessCI(t, "%v", err)
		}
	}
	checkout, home := checkoutCopy(t), t.TempDir()
	env := append(goEnv(t), "HOME="+home,
		"XDG_DATA_HOME="+filepath.Join(home, "data"), "XDG_CONFIG_HOME="+filepath.Join(home, "config"))

	// What the commands print, in the order of the README. It also says that a
	// user's tokens are denied up to two seconds after a revocation of that
	// user, which nobody types fast enough to notice; a test does.
	want := []string{"200", "200", "401", "200", "200", "200", "200", "401"}
	var got []string
	secret := demoSecret(t)
	started := 0
	for _, block := range shellBlocks(readFile(t, "README.md"), "## Quick start") {
		if strings.Contains(block, "caddy run --config") {
			started++
			name := fmt.Sprintf("caddy number %d", started)
			logs := newLogs(t, name)
			logs.forbid(secret)
			p := start(t, name, logs, checkout, env, "bash", "-euc", block)
			waitAnswering(t, p, map[int]string{1: "http://localhost:8080/", 2: "http://localhost:8081/"}[started])
			continue
		}
		out, err := output(t, io.Discard, checkout, env, "bash", "-euc", block)
		if err != nil {
			t.Fatalf("%s\n%s\n%v", block, out, err)
		}
		for line := range strings.SplitSeq(out, "\n") {
			for _, found := range statusPrinted.FindAllStringSubmatch(line, -1) {
				got = append(got, found[1]+found[2])
			}
		}
		if strings.Contains(block, "token-revocation revoke") {
			time.Sleep(3 * time.Second)
		}
	}
	if started != 2 || !slices.Equal(got, want) {
		t.Errorf("%d edges were started, the answers were %q, want 2 and %q", started, got, want)
	}
	entries, err := filepath.Glob(filepath.Join(home, "data", "caddy", "token_revocation", "*"))
	if err != nil || len(entries) == 0 {
		t.Errorf("nothing is stored in $XDG_DATA_HOME/caddy/token_revocation: %v", err)
	}
}

// statusPrinted matches what curl prints of a status: by -i, maybe right behind
// the body before it, or by the README's -w.
var statusPrinted = regexp.MustCompile(`HTTP/1\.1 (\d{3})\b|^[a-z ]+: (\d{3})\b`)

// shellBlocks returns the fenced blocks of shell code of a section and the
// sections below it.
func shellBlocks(markdown, heading string) []string {
	_, section, _ := strings.Cut(markdown, "\n"+heading+"\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var blocks []string
	for _, found := range regexp.MustCompile("(?ms)^```sh\n(.*?)^```$").FindAllStringSubmatch(section, -1) {
		blocks = append(blocks, found[1])
	}
	return blocks
}

// checkoutCopy copies the files that git has or would have, which is what a
// fresh clone holds.
func checkoutCopy(t *testing.T) string {
	t.Helper()
	list, err := output(t, os.Stderr, root, nil, "git", "-c", "safe.directory=*",
		"ls-files", "-z", "--cached", "--others", "--exclude-standard")
	if err != nil {
		t.Fatalf("listing the checkout's files: %v", err)
	}
	dir := t.TempDir()
	for name := range strings.SplitSeq(strings.TrimSuffix(list, "\x00"), "\x00") {
		content, err := os.ReadFile(filepath.Join(root, name))
		if os.IsNotExist(err) {
			continue // deleted, and not yet committed
		}
		to := filepath.Join(dir, name)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(to), 0o755)
		}
		if err == nil {
			err = os.WriteFile(to, content, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// goEnv keeps Go's caches and settings where they are although HOME changes.
func goEnv(t *testing.T) []string {
	t.Helper()
	names := []string{"GOCACHE", "GOMODCACHE", "GOPATH", "GOENV"}
	out, err := output(t, os.Stderr, root, nil, "go", append([]string{"env"}, names...)...)
	if err != nil {
		t.Fatal(err)
	}
	var env []string
	for i, value := range strings.Split(strings.TrimRight(out, "\n"), "\n") {
		env = append(env, names[i]+"="+value)
	}
	return env
}

// waitAnswering waits until a GET is answered with 200. The first "go run" may
// have to compile all of Caddy.
func waitAnswering(t *testing.T, p *process, address string) {
	t.Helper()
	eventually(t, 10*time.Minute, p.name+" answers", func() (bool, string) {
		if p.ended() {
			t.Fatalf("%s ended: %s", p.name, p.cmd.ProcessState)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false, err.Error()
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK, resp.Status
	})
}

// skipUnlessCI is for what a developer's machine may lack. In CI a test that did
// not run must not look like one that passed.
func skipUnlessCI(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}
