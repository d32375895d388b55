package caddymodule

import (
	"net/http"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/edge-revocation/caddy-token-revocation/revocation/ledger"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// What the ledger keeps of a token's revocation ends with the token, and so does
// what it keeps of the undo; one of which nothing is known here stays.
func TestARestorationIsKeptForAsLongAsItMatters(t *testing.T) {
	s := newSite(t)
	srv := revocationtest.StartNATS(t)
	s.mustLoad(onNATS(srv.URL()), "token_denylist")
	nc, err := nats.Connect(srv.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	life := func(claims map[string]string) time.Duration {
		got, answer := s.adminPost("restorations", revocationRequest{Claims: claims})
		if got.status != http.StatusOK {
			t.Fatalf("restoring %v: %d %s", claims, got.status, got.body)
		}
		stream, err := js.Stream(t.Context(), ledger.DefaultStream)
		if err != nil {
			t.Fatal(err)
		}
		m, err := stream.GetMsg(t.Context(), answer.Sequence)
		if err != nil {
			t.Fatal(err)
		}
		d, err := time.ParseDuration(m.Header.Get(jetstream.MsgTTLHeader))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	s.eventually("in sync", func() bool { return currentApp().replica.state().InSync })
	claims := map[string]string{"sub": "alice"}
	s.eventually("kept as long as a cutoff", func() bool {
		if got, _ := s.adminPost("revocations", revocationRequest{Claims: claims}); got.status != http.StatusOK {
			t.Fatalf("revoking: %d %s", got.status, got.body)
		}
		// Longer only where the machine is slow at the moment.
		return life(claims) < 30*24*time.Hour
	})
	if d := life(map[string]string{"sub": "nobody"}); d < 9*365*24*time.Hour {
		t.Errorf("kept for %s, although nothing is known of it", d)
	}
}
