//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/edge-revocation/caddy-token-revocation/revocation/ledger"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// What an operator's mistake, or a restored backup, makes of the ledger: its
// history is another one than the edges know. None of them may forget what it
// held.

func TestFaultDeletedAndCreatedStreamForgetsNothingAnyEdgeHeld(t *testing.T) {
	t.Parallel()
	server := startNATSServer(t)
	f := newFleet(t)
	nats := "nats nats://" + server.addr // nobody but the operator may create
	held := f.add(nats, beating())
	restarted := f.add(nats, beating())
	asleep := f.add(nats, beating())
	f.init(held)
	f.run()
	old := f.revokeSome(held, inForm(40, 2000))
	f.waitKnowing()
	asleep.process.stop()

	js := server.jetStream()
	id := held.status().Ledger.ID
	if err := js.DeleteStream(t.Context(), ledger.DefaultStream); err != nil {
		t.Fatal(err)
	}
	if a := held.tryRevoke(f.token("user")); a.status != 503 {
		t.Errorf("revoking without a stream: want 503: %s", a)
	}
	f.wantAllRefused("while there is no stream", old, held, restarted)
	f.init(held)
	for _, e := range []*edge{held, restarted} {
		e.wantAlarm()
	}
	f.wantAllRefused("after the stream was created again", old, held, restarted)
	fresh := f.settle(held, restarted)
	if now := held.status().Ledger.ID; now == id || now == "" {
		t.Errorf("the ledger's id was %q and is %q", id, now)
	}
	all := append(old, fresh...)
	f.wantAllRefused("with new revocations", all, held, restarted)

	f.reseed(nats, all, held)
	restarted.process.stop()
	restarted.run()
	f.wantAllRefused("restarted from a checkpoint", all, restarted)
	asleep.run()
	asleep.wantAlarm()
	waitKnowing(t, asleep)
	f.wantAllRefused("started from a checkpoint of the deleted stream", all, asleep)
	crashed := held
	crashed.process.stop() // writes a checkpoint
	crashed.run()
	crashed.process.kill()
	crashed.client.CloseIdleConnections()
	crashed.run()
	f.wantAllRefused("killed and started from a checkpoint", all, crashed)
}

// A backup of the store is put back. Whether the stream then ends before what
// the edges have applied, or has grown beyond that again with other entries, they
// must notice and keep what they held.
func TestFaultRolledBackStoreForgetsNothingAnyEdgeHeld(t *testing.T) {
	t.Parallel()
	for name, grown := range map[string]bool{"shorter": false, "grown again": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := startNATSServer(t)
			f := newFleet(t)
			nats := following("nats://"+server.addr, 1)
			held := f.add(nats, beating())
			restarted := f.add(nats, beating())
			f.run()
			tokens := f.revokeSome(held, 20)

			server.process.stop()
			backup := t.TempDir()
			if err := os.CopyFS(backup, os.DirFS(server.dir)); err != nil {
				t.Fatal(err)
			}
			server.start()
			f.waitKnowing()
			tokens = append(tokens, f.revokeSome(held, inForm(40, 2000))...) // lost with the store
			f.waitKnowing()
			last := held.status().Ledger.Sequence
			restarted.process.stop()

			server.process.stop()
			err := os.RemoveAll(server.dir)
			if err == nil {
				err = os.CopyFS(server.dir, os.DirFS(backup))
			}
			if err != nil {
				t.Fatal(err)
			}
			if grown {
				server.growAlone(last + 50)
			}
			server.start()
			held.wantAlarm()
			f.wantAllRefused("after the store was rolled back", tokens, held)
			restarted.start()
			restarted.wantAlarm()
			all := append(tokens, f.settle(held, restarted)...)
			f.wantAllRefused("with new revocations", all, held, restarted)
			f.reseed(nats, all, held)
			for _, e := range f.edges {
				e.process.stop()
				e.run()
			}
			f.wantAllRefused("restarted from checkpoints", all, held, restarted)
		})
	}
}

// growAlone starts the server at another address, where no edge finds it, writes
// heartbeats until the stream ends beyond a sequence, and stops it again.
func (s *natsServer) growAlone(beyond uint64) {
	s.t.Helper()
	addr, config := s.addr, s.config
	s.addr, s.config = fmt.Sprintf("127.0.0.1:%d", revocationtest.FreePort(s.t)), filepath.Join(s.t.TempDir(), "nats.conf")
	s.configure("")
	s.start()
	js := s.jetStream()
	ctx, cancel := context.WithTimeout(s.t.Context(), startDeadline)
	defer cancel()
	for sequence := uint64(0); sequence <= beyond; {
		data, err := json.Marshal(map[string]any{"v": 1, "id": fmt.Sprint(sequence), "edge": "test", "at": time.Now().UnixMilli()})
		if err != nil {
			s.t.Fatal(err)
		}
		ack, err := js.Publish(ctx, ledger.KindHeartbeat.Subject(), data, jetstream.WithMsgTTL(time.Minute))
		if err != nil {
			s.t.Fatalf("growing the stream: %v", err)
		}
		sequence = ack.Sequence
	}
	js.Conn().Close()
	s.process.stop()
	s.addr, s.config = addr, config
}

// reseed has an edge write what it holds to the ledger that lost it, and wants
// the ledger to hold everything then.
func (f *fleet) reseed(ledger string, tokens []string, from *edge) {
	f.t.Helper()
	out, err := from.command("reseed")
	if err != nil {
		f.t.Fatalf("reseed: %s, %v", out, err)
	}
	f.t.Logf("reseeded by %s: %s", from.name, out)
	f.wantHeldByTheLedger(tokens, ledger, beating())
}

// init creates the ledger as an operator does, with an edge's config.
func (f *fleet) init(e *edge) {
	f.t.Helper()
	out, err := output(f.t, e.logs, e.dir, e.env, binary, "token-revocation", "init", "--config", e.caddyfile(), "--adapter", "caddyfile")
	if err != nil || !strings.Contains(out, "is ready") {
		f.t.Fatalf("init: %s, %v", out, err)
	}
}

// settle waits until the edges work with the ledger as it is now, and returns
// tokens that were revoked since.
func (f *fleet) settle(edges ...*edge) []string {
	f.t.Helper()
	for _, e := range edges {
		e.waitInSync()
	}
	waitKnowing(f.t, edges...)
	var tokens []string
	for _, e := range edges {
		tokens = append(tokens, f.revokeSome(e, 10)...)
	}
	waitKnowing(f.t, edges...)
	return tokens
}

func (e *edge) wantAlarm() {
	e.t.Helper()
	eventually(e.t, startDeadline, e.name+" raises an alarm", func() (bool, string) {
		a := e.api("GET", "/metrics", nil)
		if a.status != 200 {
			return false, a.String()
		}
		n := e.alarms()
		return n > 0, fmt.Sprint(n)
	})
}
