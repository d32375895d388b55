package ledger_test

import (
	"errors"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/ledger"
)

// Exactly the documented role keeps a fleet in sync whose edges may not write;
// what could get lost it does not publish unseen.
func TestAProducerMayWriteHeartbeatsWithoutReading(t *testing.T) {
	t.Parallel()
	o := embedded(t.TempDir())
	o.Embedded.Listen = "127.0.0.1:0"
	o.Embedded.Users = []ledger.User{
		{Name: "reader", Password: secret, Role: ledger.RoleEdge},
		{Name: "writer", Password: secret, Role: ledger.RoleProducer},
	}
	own := open(t, o)
	as := func(user string) *ledger.Ledger {
		return open(t, ledger.Options{External: &ledger.ExternalOptions{
			URLs: []string{"nats://" + own.Status().Listen}, User: user, Password: secret,
		}, HeartbeatInterval: 100 * time.Millisecond})
	}
	f := as("reader").Follow(newSink(), ledger.Observer{})
	defer f.Stop()
	producer := as("writer")
	for range 2 {
		if sequence, err := producer.PublishHeartbeat(t.Context()); err != nil || sequence == 0 {
			t.Fatalf("a heartbeat at %d: %v", sequence, err)
		}
	}
	eventually(t, "in sync", func() bool {
		if f.State().InSync {
			return true
		}
		_, err := producer.PublishHeartbeat(t.Context())
		return err != nil
	})
	_, err := producer.PublishRevocation(t.Context(), revoke("x"))
	if !errors.Is(err, ledger.ErrNotPermitted) || !errors.Is(err, revocation.ErrUnavailable) {
		t.Errorf("a revocation into a stream that nobody looked at: %v", err)
	}
	if _, err := as("reader").PublishHeartbeat(t.Context()); !errors.Is(err, ledger.ErrNotPermitted) {
		t.Errorf("a heartbeat of an edge that may not write: %v", err)
	}
}
