//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// skewVariable is read by the Caddy that buildSkewed builds: by how many seconds
// its wall clock is wrong.
const skewVariable = "E2E_CLOCK_SKEW"

// Processes of one machine have one clock, and Go programs don't ask the C
// library for it. So this Caddy is built with a standard library whose time.Now
// is wrong as told, and is otherwise the same. That takes minutes: the short form
// is TestClockSkewBetweenEdges of package ledger.
func TestFaultClocksOfEdgesWrongByFiveMinutes(t *testing.T) {
	if !longFaults() {
		t.Skip("in the long form only: it builds Caddy with another standard library")
	}
	t.Parallel()
	program := buildSkewed(t)
	server := startNATSServer(t)
	f := newFleet(t)
	ledger := following("nats://"+server.addr, 1)
	settings := []string{beating(), staleAfter()}
	for _, skew := range []time.Duration{0, 5 * time.Minute, -5 * time.Minute} {
		e := f.add(ledger, settings...)
		e.program = program
		e.name = fmt.Sprintf("edge with a clock %s wrong", skew)
		e.env = append(e.env, fmt.Sprintf("%s=%d", skewVariable, int(skew.Seconds())))
		// Else it takes the issuer's tokens for ones from the future.
		e.write(strings.Replace(e.config(), "jwks_file", "leeway 5m\n\t\t\tjwks_file", 1))
	}
	f.run()
	var tokens []string
	for _, e := range f.edges {
		tokens = append(tokens, f.revokeSome(e, 40)...)
		shown := e.doOnce(e.request("GET", e.address, "/", nil)).header.Get("Date")
		t.Logf("%s: the clock shows %s, it is %s", e.name, shown, time.Now().UTC().Format(time.TimeOnly))
	}
	f.waitKnowing()
	f.wantAllRefused("with wrong clocks", tokens, f.edges...)

	server.process.signal(syscall.SIGSTOP)
	var watches []*outageWatch
	for _, e := range f.edges {
		watches = append(watches, watchOutage(f, e, tokens[0]))
	}
	time.Sleep(outage())
	for _, w := range watches {
		w.mustHaveNoticed()
	}
	server.process.signal(syscall.SIGCONT)
	f.waitKnowing()
	for _, w := range watches {
		w.end()
	}
	for _, e := range f.edges {
		e.process.kill()
		e.client.CloseIdleConnections()
	}
	f.run()
	f.waitKnowing()
	f.wantAllRefused("with wrong clocks, after a kill", tokens, f.edges...)
	f.wantNoAlarm()
}

// buildSkewed builds Caddy with a time.Now that adds what skewVariable says.
func buildSkewed(t testing.TB) string {
	t.Helper()
	goroot, err := output(t, os.Stderr, root, nil, "go", "env", "GOROOT")
	if err != nil {
		t.Fatal(err)
	}
	library, dir := filepath.Join(strings.TrimSpace(goroot), "src", "time"), t.TempDir()
	content, err := os.ReadFile(filepath.Join(library, "time.go"))
	if err != nil {
		t.Fatal(err)
	}
	const reading = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	changed := strings.Replace(string(content), reading, reading+"\tsec += testSkew\n", 1)
	if changed == string(content) {
		t.Fatal("this Go's time.Now is another one: see how it reads the clock, and change what is replaced here")
	}
	files := map[string]string{
		"time.go": changed,
		"skew.go": fmt.Sprintf(`package time

import "syscall"

var testSkew = func() (seconds int64) {
	text, _ := syscall.Getenv(%q)
	sign := int64(1)
	for _, c := range text {
		if c == '-' {
			sign = -1
			continue
		}
		seconds = 10*seconds + int64(c-'0')
	}
	return sign * seconds
}()
`, skewVariable),
	}
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		overlay.Replace[filepath.Join(library, name)] = filepath.Join(dir, name)
	}
	list, err := json.Marshal(overlay)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "overlay.json"), list, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "caddy")
	build := exec.CommandContext(t.Context(), "go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", program, "./cmd/caddy")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", build, err, out)
	}
	return program
}
