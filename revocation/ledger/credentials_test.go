package ledger_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/ledger"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// Permissions as docs/ledger.md gives them.
var (
	followPermissions = []string{
		"$JS.API.STREAM.INFO.TOKEN_REVOCATIONS", "$JS.API.CONSUMER.CREATE.TOKEN_REVOCATIONS.*",
		"$JS.API.CONSUMER.MSG.NEXT.TOKEN_REVOCATIONS.*", "$JS.API.DIRECT.GET.TOKEN_REVOCATIONS",
	}
	writePermissions = []string{
		"token_revocation.v1.entry", "token_revocation.v1.restore", "token_revocation.v1.heartbeat", "token_revocation.v1.assertion.*",
	}
	operatePermissions = []string{"token_revocation.v1.genesis", "$JS.API.STREAM.CREATE.TOKEN_REVOCATIONS"}
	inboxes            = []string{"_INBOX_edge.>"}
)

func TestCredentialsFilesOfAServerInOperatorMode(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartOperatorNATS(t)
	dir := t.TempDir()
	as := func(name string, lifetime time.Duration, publish ...[]string) ledger.Options {
		file := filepath.Join(dir, name)
		var allowed []string
		for _, p := range publish {
			allowed = append(allowed, p...)
		}
		srv.Credentials(t, file, allowed, inboxes, lifetime)
		return ledger.Options{
			External:       &ledger.ExternalOptions{URLs: []string{srv.URL()}, CredentialsFile: file, InboxPrefix: "_INBOX_edge"},
			PublishTimeout: 500 * time.Millisecond, PublishDeadline: 10 * time.Second,
		}
	}
	operator := open(t, as("operator.creds", 0, followPermissions, writePermissions, operatePermissions))
	if _, err := operator.Init(t.Context()); err != nil {
		t.Fatalf("initialising: %v", err)
	}
	publisher := open(t, as("publisher.creds", 0, followPermissions, writePermissions))
	s := newSink()
	f := publisher.Follow(s, ledger.Observer{})
	defer f.Stop()
	eventually(t, "in sync", func() bool { return f.State().InSync })
	publish(t, publisher, "x")
	eventually(t, "applied", func() bool { return s.has("x") })
	if first, err := publisher.UseOnce(t.Context(), "k", time.Minute); err != nil || !first {
		t.Errorf("using an assertion: %t, %v", first, err)
	}

	follower, out := openLogged(t, as("edge.creds", 0, followPermissions))
	g := follower.Follow(newSink(), ledger.Observer{})
	defer g.Stop()
	eventually(t, "in sync by the heartbeats of others", func() bool { return g.State().InSync })
	if _, err := follower.PublishRevocation(t.Context(), revoke("y")); !errors.Is(err, ledger.ErrNotPermitted) ||
		!strings.Contains(err.Error(), "token_revocation.v1.entry") || !errors.Is(err, revocation.ErrUnavailable) {
		t.Errorf("publishing without permission: %v", err)
	}
	if _, err := follower.UseOnce(t.Context(), "k", time.Minute); !errors.Is(err, ledger.ErrNotPermitted) {
		t.Errorf("using an assertion without permission: %v", err)
	}
	if !strings.Contains(out.String(), "permission refused") {
		t.Error("the log names no missing permission")
	}

	// The server disconnects a user whose credentials expire; a file that was
	// replaced in time is read for the next connection.
	o := as("short.creds", 5*time.Second, followPermissions, writePermissions)
	short, said := openLogged(t, o)
	eventually(t, "connected", func() bool { return short.Status().Usable })
	eventually(t, "refused once they have expired", func() bool { return errors.Is(short.Status().Problem, ledger.ErrCredentials) })
	time.Sleep(2 * time.Second) // several attempts
	if n := strings.Count(said.String(), "wrong user, password"); n > 1 {
		t.Errorf("each attempt is logged: %d times", n)
	}
	srv.Credentials(t, o.External.CredentialsFile, append(followPermissions, writePermissions...), inboxes, 0)
	eventually(t, "connected by the new ones", func() bool { return short.Status().Usable })
	publish(t, short, "z")
	seed, err := os.ReadFile(o.External.CredentialsFile)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), string(seed[len(seed)/2:])) {
		t.Error("the seed is in the log")
	}

	// Another operator's users are strangers.
	stranger := revocationtest.StartOperatorNATS(t)
	file := filepath.Join(dir, "stranger.creds")
	stranger.Credentials(t, file, writePermissions, inboxes, 0)
	l := open(t, ledger.Options{External: &ledger.ExternalOptions{URLs: []string{srv.URL()}, CredentialsFile: file}})
	eventually(t, "refused", func() bool { return errors.Is(l.Status().Problem, ledger.ErrCredentials) })
	if text := l.Status().Problem.Error(); !strings.Contains(text, file) {
		t.Errorf("it does not say which: %s", text)
	}
}
