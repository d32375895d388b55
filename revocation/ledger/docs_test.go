package ledger_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/ledger"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// What the manual has other programs publish is carried out, and kept by the
// server for as long as it stands. The shell expands the command as written; in
// place of the nats tool, a client of ours sends what that would.
func TestTheDocumentedCommandRevokes(t *testing.T) {
	t.Parallel()
	m := documented(t, ledger.KindEntry)
	srv := revocationtest.StartNATS(t)
	e := newEdge(t, external(srv.URL())).synced(t)
	js := client(t, srv.URL())
	ack, err := js.PublishMsg(t.Context(), m)
	if err != nil || ack.Stream != ledger.DefaultStream {
		t.Fatalf("publishing to %s: %v", m.Subject, err)
	}
	eventually(t, "applied", func() bool { return e.State().Sequence >= ack.Sequence })
	alice := &revocation.Identity{
		Issuer: "https://sso.example.com/realms/prod", Claims: []revocation.Claim{{Name: "sub", Value: "alice"}},
		IssuedAt: time.Now().Add(-time.Minute).Unix(),
	}
	if !e.denylist.Check(alice).Denied {
		t.Errorf("%s is not denied by %s", alice.Claims, m.Data)
	}
	if st := e.Stats(); st.ShortLived != 0 || st.Poison != 0 || st.Newer != 0 {
		t.Errorf("%+v", st)
	}
}

func TestTheDocumentedCommandMakesEdgesAskAgain(t *testing.T) {
	t.Parallel()
	m := documented(t, ledger.KindRecheck)
	srv := revocationtest.StartNATS(t)
	e := newEdge(t, external(srv.URL())).synced(t)
	seen := new(told).watch(t, e.denylist)
	if _, err := client(t, srv.URL()).PublishMsg(t.Context(), m); err != nil {
		t.Fatalf("publishing to %s: %v", m.Subject, err)
	}
	eventually(t, "told", func() bool { return len(seen.all()) == 1 })
	if st := e.Stats(); seen.all()[0] != "https://as.example.com" || st.ShortLived != 0 || st.Poison != 0 || st.Newer != 0 {
		t.Errorf("%q, %+v", seen.all(), st)
	}
}

// documented returns what the manual's command for a kind publishes.
func documented(t *testing.T, kind ledger.Kind) *nats.Msg {
	t.Helper()
	manual, err := os.ReadFile("../../docs/ledger.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(manual), "```sh\nnats pub --jetstream "+kind.Subject()+" ")
	command, _, ended := strings.Cut(after, "```")
	if !ok || !ended {
		t.Fatal("the manual has no nats command")
	}
	bin := t.TempDir()
	script := "#!/bin/sh\nprintf '%s\\0' \"$@\"\n"
	if err := os.WriteFile(filepath.Join(bin, "nats"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", "nats pub --jetstream "+kind.Subject()+" "+command)
	cmd.Env = append(os.Environ(), "PATH="+bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
	out, err := cmd.Output()
	if err != nil {
		if os.Getenv("CI") == "" {
			t.Skipf("the command needs a shell with openssl and GNU date: %v", err)
		}
		t.Fatal(err)
	}
	m := nats.NewMsg("")
	args := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	for i := 1; i < len(args); i++ {
		switch arg := args[i]; {
		case arg == "--jetstream":
		case arg == "-H":
			i++
			name, value, ok := strings.Cut(args[i], ":")
			if !ok {
				t.Fatalf("header %q", args[i])
			}
			m.Header.Set(name, strings.TrimSpace(value))
		case m.Subject == "":
			m.Subject = arg
		case m.Data == nil:
			m.Data = []byte(arg)
		default:
			t.Fatalf("unexpected argument %q", arg)
		}
	}
	return m
}
