package caddymodule

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// Promise 7: going back to a ledger address that has an older checkpoint does not
// bring back what was restored since.
func TestOldCheckpointDoesNotUndoARestoration(t *testing.T) {
	s := newSite(t)
	server := revocationtest.StartNATS(t)
	one := onNATS(server.URL())
	two := strings.Replace(one, server.URL(), server.URL()+" nats://127.0.0.1:1", 1)
	s.mustLoad(one, "token_denylist")
	token := aliceToken(s)
	claims := map[string]string{"sub": "alice"}
	if got, _ := s.adminPost("revocations", revocationRequest{Claims: claims, Mode: "block"}); got.status != http.StatusOK {
		t.Fatal(got.body)
	}
	s.wantStatus(token, http.StatusUnauthorized, "revoked")
	r := currentApp().replica
	position := r.denylist.Position().Sequence
	s.eventually("the follower to be past the revocation", func() bool { return r.denylist.Position().Sequence > position })
	r.mu.Lock()
	r.save()
	r.mu.Unlock()

	s.mustLoad(two, "token_denylist")
	if got, _ := s.adminPost("restorations", revocationRequest{Claims: claims}); got.status != http.StatusOK {
		t.Fatal(got.body)
	}
	s.wantStatus(token, http.StatusOK, "restored")
	s.mustLoad(one, "token_denylist\nheader X-Config 3")
	s.wantStatus(token, http.StatusOK, "restored, back at the first address")
}

// An opaque token is hashed once, and a revocation under an alias of its issuer
// counts.
func TestOpaqueTokensAreCachedAndKnownByAlias(t *testing.T) {
	s := newSite(t)
	authority := revocationtest.NewAuthServer(t)
	options := "embedded\nissuer " + authority.Issuer() + " {\nalias https://old.example\n}\n"
	s.mustLoad(options, "token_denylist {\nopaque_issuer "+authority.Issuer()+"\n}")
	const token = "an-opaque-token"
	stats := func() uint64 { return currentApp().replica.denylist.Stats().CacheHits }
	before := stats()
	s.eventually("the token to be remembered", func() bool {
		s.wantStatus(token, http.StatusOK, "not revoked")
		return stats() > before
	})
	hash, err := issuer.OpaqueTokenHash(token)
	if err != nil {
		t.Fatal(err)
	}
	currentApp().replica.denylist.Revoke(1000, tokenBlock("https://old.example", hash, time.Now().Add(time.Hour)))
	s.wantStatus(token, http.StatusUnauthorized, "revoked under the issuer's old name")
}
