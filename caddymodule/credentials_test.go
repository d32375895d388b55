package caddymodule

import (
	"fmt"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// A credentials file that was replaced is used from the next reload on, without
// emptying or pausing the denylist; one that does not work is noticed, and what
// is held stays in force.
func TestCredentialsAreRotatedByAReload(t *testing.T) {
	s := newSite(t)
	srv := revocationtest.StartOperatorNATS(t)
	file := filepath.Join(t.TempDir(), "edge.creds")
	everything, inboxes := []string{">"}, []string{"_INBOX.>"}
	srv.Credentials(t, file, everything, inboxes, 0)
	options := fmt.Sprintf("nats %s {\ncredentials %s\ncreate\n}\nissuer development\nclient demo-app public", srv.URL(), file)
	s.mustLoad(options, "token_denylist")
	revoked, alive := aliceToken(s), aliceToken(s)
	s.mustRevoke(revoked, "demo-app")
	connection := currentApp().replica.source().ledger

	for i := range 3 {
		srv.Credentials(t, file, everything, inboxes, 0)
		if err := s.load(options, fmt.Sprintf("token_denylist\nheader X-Config %d", i)); err != nil {
			t.Fatalf("reload %d: %v", i, err)
		}
		s.wantStatus(revoked, http.StatusUnauthorized, "a revoked token right after the reload")
		s.wantStatus(alive, http.StatusOK, "a live token right after the reload")
		now := currentApp().replica.source().ledger
		if now == connection {
			t.Error("the replaced file was not used")
		}
		connection = now
		s.eventually("the new user to be in sync", func() bool { return currentApp().status().State == "in_sync" })
	}
	again := aliceToken(s)
	s.mustRevoke(again, "demo-app")
	s.wantStatus(again, http.StatusUnauthorized, "revoked by the new user")
	wantOneReferenceEach(t, "after rotating")

	stranger := revocationtest.StartOperatorNATS(t)
	stranger.Credentials(t, file, everything, inboxes, 0)
	if err := s.load(options, "token_denylist\nheader X-Config stranger"); err != nil {
		t.Fatalf("reload with another operator's user: %v", err)
	}
	s.wantStatus(revoked, http.StatusUnauthorized, "a revoked token without a connection")
	s.eventually("the status to name the credentials", func() bool {
		status := currentApp().status()
		return !status.Ledger.Connected && status.Ledger.Error != ""
	})
	srv.Credentials(t, file, everything, inboxes, 0)
	if err := s.load(options, "token_denylist\nheader X-Config repaired"); err != nil {
		t.Fatalf("reload with good credentials: %v", err)
	}
	s.eventually("in sync again", func() bool {
		status := currentApp().status()
		return status.State == "in_sync" && status.Ledger.Connected
	})
	s.wantStatus(alive, http.StatusOK, "a live token")
}
