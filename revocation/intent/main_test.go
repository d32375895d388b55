package intent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

const childDir = "INTENT_TEST_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		child(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

var errDown = fmt.Errorf("%w: down", revocation.ErrUnavailable)

// child is a process that has three intents, accepts two of them, and can't reach
// the ledger. It lives until it is killed.
func child(dir string) {
	j, err := Open(Options{Dir: dir, Record: func(context.Context, *Intent) error { return errDown }})
	if err != nil {
		panic(err)
	}
	for _, name := range []string{"a", "b", "c"} {
		e, err := j.Begin(context.Background(), someIntent(name))
		if err != nil {
			panic(err)
		}
		if name == "c" {
			break
		}
		if err := e.Accept(); err != nil {
			panic(err)
		}
		_ = e.Record(context.Background(), func(context.Context, *Intent) error { return errDown })
	}
	fmt.Println("ready")
	select {}
}

// startChild returns after the child is ready.
func startChild(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), childDir+"="+dir)
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("child says %q, %v", line, err)
	}
	return c
}

const iss = "https://as.example"

// someIntent is one of a token that is named so.
func someIntent(name string) Intent {
	now := time.Now()
	return Intent{
		Issuer: iss, Client: "app", Token: name, Made: now, Ends: now.Add(time.Hour),
		Requests: []revocation.Request{{
			Criteria:    revocation.Criteria{Issuer: iss, Claims: map[string]string{revocation.ClaimTokenID: name}},
			TokenExpiry: now.Add(time.Hour).Unix(), Reason: "client request", Actor: "client:app",
		}},
	}
}

// recorder is a ledger that can be down.
type recorder struct {
	mu    sync.Mutex
	err   error
	names []string
	calls int
}

func (r *recorder) record(_ context.Context, i *Intent) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls++
	if r.err != nil {
		return r.err
	}
	r.names = append(r.names, i.Token)
	return nil
}

func (r *recorder) set(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

// recorded returns the names in order, each once.
func (r *recorder) recorded() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := slices.Clone(r.names)
	slices.Sort(names)
	return slices.Compact(names)
}

func (r *recorder) tried() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.calls
}

func open(t testing.TB, dir string, r *recorder, change ...func(*Options)) *Journal {
	t.Helper()
	o := Options{Dir: dir, Record: r.record, MaxRetry: 200 * time.Millisecond}
	for _, c := range change {
		c(&o)
	}
	j, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

func begin(t testing.TB, j *Journal, name string) *Entry {
	t.Helper()
	e, err := j.Begin(context.Background(), someIntent(name))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for %s", what)
		}
	}
}

// image copies a directory of intents as a crash at this moment would leave it.
func image(t testing.TB, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "image")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

// files returns the names of the intents' files, without the random part.
func files(t testing.TB, dir string) (exts []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err == nil && !d.IsDir() && d.Name() != lockFile {
			ext := filepath.Ext(path)
			if strings.Contains(path, quarantineDir) {
				ext += " in quarantine"
			}
			exts = append(exts, ext)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return exts
}
