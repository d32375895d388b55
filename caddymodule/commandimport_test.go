package caddymodule

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
)

func (s *site) run(cmd *cobra.Command, args ...string) error {
	s.t.Helper()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(append([]string{"--address", fmt.Sprintf("127.0.0.1:%d", s.admin)}, args...))
	return cmd.Execute()
}

func TestTheCommandsOfTheOperatorReachTheEdge(t *testing.T) {
	s := newSite(t)
	s.mustLoad(demo, "token_denylist")
	token := aliceToken(s)
	file := filepath.Join(t.TempDir(), "revoked.ndjson")
	write := func(lines ...string) {
		if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"claims":{"sub":"alice"}}`)
	if err := s.run(importCommand(), "--file", file); err != nil {
		t.Errorf("importing: %v", err)
	}
	s.wantStatus(token, http.StatusUnauthorized, "after the import")
	write(`{"claims":{"sub":"bob"}}`, `rubbish`)
	if err := s.run(importCommand(), "--file", file); err == nil || !strings.Contains(err.Error(), "not every line") {
		t.Errorf("importing rubbish: %v", err)
	}
	if err := s.run(importCommand(), "--file", file+".missing"); err == nil {
		t.Error("importing a file that is not there")
	}
	if err := s.run(reseedCommand()); err != nil {
		t.Errorf("reseeding: %v", err)
	}
	if err := s.run(acknowledgeCommand()); err == nil || !strings.Contains(err.Error(), "--sequence") {
		t.Errorf("acknowledging nothing: %v", err)
	}
	readable := fmt.Sprint(currentApp().replica.denylist.Position().Sequence)
	if err := s.run(acknowledgeCommand(), "--sequence", readable); err == nil {
		t.Error("acknowledging what can be read")
	}
	s.wantStatus(token, http.StatusUnauthorized, "still revoked")
}

// A revocation that stands is answered as one that was recorded, to the client
// and to the operator.
func TestARepeatedRevocationAddsNoEntry(t *testing.T) {
	s := newSite(t)
	s.mustLoad(demo, "token_denylist")
	token := aliceToken(s)
	s.mustRevoke(token, "demo-app")
	stats := func() uint64 { return currentApp().replica.source().ledger.Status().Published }
	s.eventually("the repetition to add nothing", func() bool {
		was := stats()
		s.mustRevoke(token, "demo-app")
		return stats() == was
	})
	resolved, err := currentApp().resolver("").Resolve(t.Context(), token, oauth.ResolveFor{})
	if err != nil {
		t.Fatal(err)
	}
	id := resolved.Identity
	criteria, _ := id.TokenCriteria()
	got, answer := s.adminPost("restorations", revocationRequest{Issuer: criteria.Issuer, Claims: criteria.Claims})
	if got.status != http.StatusOK {
		t.Fatalf("restoring: %+v", got)
	}
	s.wantStatus(token, http.StatusOK, "restored")
	s.mustRevoke(token, "demo-app")
	s.wantStatus(token, http.StatusUnauthorized, "revoked again")
	receipt, err := currentApp().service.Revoke(t.Context(), revocation.Request{Criteria: criteria, TokenExpiry: id.Expiry, Actor: "operator", Operator: true})
	if err != nil || receipt.Sequence <= answer.Sequence {
		t.Errorf("%+v, %v; restored at %d", receipt, err, answer.Sequence)
	}
}
