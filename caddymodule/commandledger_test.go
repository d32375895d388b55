package caddymodule

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	"github.com/edge-revocation/caddy-token-revocation/revocation/denylist"
	"github.com/edge-revocation/caddy-token-revocation/revocation/ledger"
)

// A fleet whose edges may not write is kept in sync by the command, with the
// producer's role and nothing more.
func TestTheHeartbeatCommandNeedsTheProducersRoleOnly(t *testing.T) {
	const password = "a-long-enough-password"
	openLedger := func(o ledger.Options) *ledger.Ledger {
		l, err := ledger.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		return l
	}
	own := openLedger(ledger.Options{Embedded: &ledger.EmbeddedOptions{
		StoreDir: t.TempDir(), SyncInterval: time.Minute, Listen: "127.0.0.1:0",
		Users: []ledger.User{
			{Name: "reader", Password: password, Role: ledger.RoleEdge},
			{Name: "writer", Password: password, Role: ledger.RoleProducer},
		},
	}})
	url := "nats://" + own.Status().Listen
	d, err := denylist.New(denylist.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	edge := openLedger(ledger.Options{
		External:          &ledger.ExternalOptions{URLs: []string{url}, User: "reader", Password: password},
		HeartbeatInterval: 100 * time.Millisecond,
	})
	f := edge.Follow(d, ledger.Observer{})
	defer f.Stop()

	config := filepath.Join(t.TempDir(), "caddy.json")
	content := fmt.Sprintf(`{"apps":{"token_revocation":{"ledger":{"heartbeat":"100ms",`+
		`"nats":{"urls":[%q],"user":"writer","password":%q}}}}}`, url, password)
	if err := os.WriteFile(config, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	flags := heartbeatCommand().Flags()
	if err := flags.Set("config", config); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	type result struct {
		code int
		err  error
	}
	done := make(chan result, 1)
	go func() {
		code, err := beat(ctx, caddycmd.Flags{FlagSet: flags})
		done <- result{code, err}
	}()
	for deadline := time.Now().Add(30 * time.Second); !f.State().InSync; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never in sync: %+v", f.Stats())
		}
	}
	stop()
	if r := <-done; r.code != caddy.ExitCodeSuccess || r.err != nil {
		t.Errorf("exit code %d, %v", r.code, r.err)
	}
}
