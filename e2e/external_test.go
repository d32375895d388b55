//go:build e2e

package e2e

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// An external ledger is never created silently: an edge waits for the operator's
// init, or for the one edge that may create it.
func TestExternalLedgerIsCreatedByInitOnly(t *testing.T) {
	nats := revocationtest.StartNATS(t)
	first := newFirstEdge(t)
	first.nats = nats.Addr()
	edge := newSecondEdge(t, first)
	edge.start()
	eventually(t, startDeadline, "the edge misses its stream", func() (bool, string) {
		a := edge.api("GET", "/token_revocation/status", nil)
		return strings.Contains(a.body, "stream"), a.String()
	})
	if s := edge.status(); s.State != "syncing" || s.Serving || s.Ledger.ID != "" {
		t.Fatalf("without a ledger: %+v", s)
	}

	args := []string{"token-revocation", "init", "--config", edge.caddyfile(), "--adapter", "caddyfile"}
	out, err := output(t, edge.logs, edge.dir, edge.env, binary, args...)
	if err != nil || !strings.Contains(out, "is ready") {
		t.Fatalf("init: %s, %v", out, err)
	}
	edge.waitInSync()
	id := edge.status().Ledger.ID
	if id == "" || !strings.Contains(out, id) {
		t.Errorf("init printed %q, the edge follows ledger %q", out, id)
	}
	if again, err := output(t, edge.logs, edge.dir, edge.env, binary, args...); err != nil || !strings.Contains(again, id) {
		t.Errorf("a second init: %s, %v", again, err)
	}

	token := edge.mintFor("alice")
	edge.wantPass("a fresh token", token)
	edge.revoke(token)
	edge.wantRefused("a revoked token", token)

	// What was acknowledged is in the server, not in the edge.
	edge.process.kill()
	nats.Stop()
	nats.Start()
	edge.run()
	edge.wantRefused("a revoked token after edge and server were restarted", token)
	if a := edge.post(url.Values{"token": {token}, "client_id": {publicClient}}, "", ""); a.status != 200 {
		t.Errorf("revoked once more: %s", a)
	}
}

// Where no edge may write heartbeats, the command does: without it, the edge
// can't prove that it knows everything.
func TestHeartbeatCommandBringsAFleetInSyncThatMayNotWrite(t *testing.T) {
	const password = "{$DEMO_EDGE_PASSWORD:demo-only}"
	nats := revocationtest.StartNATS(t, func(o *server.Options) {
		o.Users = []*server.User{
			{Username: "edge", Password: "demo-only", Permissions: &server.Permissions{
				Publish: &server.SubjectPermission{Deny: []string{"token_revocation.v1.heartbeat"}},
			}},
			{Username: "operator", Password: "demo-only"},
		}
	})
	first := newFirstEdge(t)
	first.nats = nats.Addr()
	edge := newSecondEdge(t, first)
	operator := filepath.Join(edge.dir, "operator.Caddyfile")
	config := strings.Replace(edge.config(), "user edge "+password, "user operator "+password, 1)
	if err := os.WriteFile(operator, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	command := func(name string) []string {
		return []string{"token-revocation", name, "--config", operator, "--adapter", "caddyfile"}
	}
	if out, err := output(t, edge.logs, edge.dir, edge.env, binary, command("init")...); err != nil {
		t.Fatalf("init: %s, %v", out, err)
	}
	edge.start()
	eventually(t, startDeadline, "the edge is connected", func() (bool, string) {
		s, err := edge.tryStatus()
		return err == nil && s.Ledger.Connected && s.Ledger.Sequence > 0, fmt.Sprint(s, err)
	})
	for range 20 { // several intervals in which an edge that may write would have
		if s := edge.status(); s.State != "syncing" {
			t.Fatalf("%s without any heartbeat", s.State)
		}
		time.Sleep(100 * time.Millisecond)
	}
	start(t, "heartbeat", edge.logs, edge.dir, edge.env, binary, command("heartbeat")...)
	edge.waitInSync()
	edge.wantPass("a fresh token", edge.mintFor("alice"))
}
