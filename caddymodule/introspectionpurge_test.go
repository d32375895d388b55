package caddymodule

import (
	"net/http"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// RFC 7662, section 4: what was revoked is denied while the answer that the token
// is active is still kept, from the moment on at which the revocation is in force;
// and the answer is forgotten.
func TestARevocationEndsKeptAnswers(t *testing.T) {
	s := newSite(t)
	as := revocationtest.NewOpaqueServer(t, edgeSecret)
	s.mustLoad(opaqueOptions(t, as), "token_denylist")
	for _, claims := range []map[string]string{
		{"sub": "alice"}, {"client_id": "app"}, {"sid": "session-1"}, {"sub": "alice", "client_id": "app"},
		{"team": "red"}, // a claim that no revocation has named before
	} {
		token, other := as.Issue(map[string]any{"team": "red"}), as.Issue(map[string]any{"sub": "bob", "client_id": "b", "sid": "s2"})
		if s.denied(as.URL, token) || s.denied(as.URL, other) {
			t.Fatalf("%v: denied before it was revoked", claims)
		}
		purged := currentApp().introspectors[0].Status().Purged
		if got, _ := s.adminPost("revocations", revocationRequest{Claims: claims}); got.status != http.StatusOK {
			t.Fatalf("revoking: %s", got.body)
		}
		// at once, whether it is forgotten by now or not
		if !s.denied(as.URL, token) || s.denied(as.URL, other) {
			t.Fatalf("%v: a kept answer hides the revocation, or another token is denied", claims)
		}
		s.eventually("the answer to be forgotten", func() bool {
			return currentApp().introspectors[0].Status().Purged > purged
		})
		if got, _ := s.adminPost("restorations", revocationRequest{Claims: claims}); got.status != http.StatusOK {
			t.Fatalf("restoring: %s", got.body)
		}
		if s.denied(as.URL, token) || as.Asked(token) != 2 {
			t.Errorf("%v: restored, and asked about %d times", claims, as.Asked(token))
		}
		if s.denied(as.URL, other); as.Asked(other) != 1 {
			t.Errorf("%v: the answer about another token was forgotten", claims)
		}
	}
}

// Where the denylist can't tell which tokens are meant, nobody who asks after the
// change is applied gets an answer from before.
func TestNothingFromBeforeIsAnsweredAfter(t *testing.T) {
	s := newSite(t)
	as, others := revocationtest.NewOpaqueServer(t, edgeSecret), revocationtest.NewOpaqueServer(t, edgeSecret)
	s.mustLoad(opaqueOptions(t, as)+"issuer "+others.URL+" {\nopaque\nintrospection "+others.URL+
		"/introspect {\nclient_id edge\nclient_secret {env.EDGE_SECRET}\ncache_ttl 10m\n}\n}", "token_denylist")
	list := currentApp().replica.denylist
	token, foreign := as.Issue(nil), others.Issue(nil)
	s.mustAsk(others.URL, foreign)
	hash, err := issuer.OpaqueTokenHash(token)
	if err != nil {
		t.Fatal(err)
	}
	block := func(name string, claims map[string]string) *revocation.Revocation {
		return &revocation.Revocation{
			ID: "test", Mode: revocation.Block, Expires: time.Now().Add(time.Minute).Unix(),
			Criteria: revocation.Criteria{Issuer: name, Claims: claims},
		}
	}
	sequence := uint64(1 << 20)
	for name, change := range map[string]func(){
		"ask again": func() { list.Recheck(sequence, as.URL) },
		"ask again, through the ledger": func() {
			if _, err := currentApp().service.Recheck(t.Context(), revocation.RecheckRequest{Issuer: as.URL, Actor: "test"}); err != nil {
				t.Errorf("recording: %v", err)
			}
		},
		"ask again, under an alias": func() { list.Recheck(sequence, "https://old.example") },
		"a key":                     func() { list.Revoke(sequence, block(as.URL, map[string]string{"kid": "thumbprint"})) },
		"the token":                 func() { list.Revoke(sequence, block(as.URL, map[string]string{"token": hash})) },
		"the issuer":                func() { list.Revoke(sequence, block("https://old.example", nil)) },
	} {
		s.mustAsk(as.URL, token)
		asked := as.Asked(token)
		sequence++
		change()
		s.mustAsk(as.URL, token)
		if as.Asked(token) != asked+1 {
			t.Errorf("%s: an answer from before was given", name)
		}
	}
	// Those that nobody is asked about are nobody's concern here.
	for _, claims := range []map[string]string{{"token": hash}, {"kid": "thumbprint"}, {"sub": "alice"}, nil} {
		sequence++
		list.Revoke(sequence, block("https://not-asked.example", claims))
	}
	list.Recheck(sequence, "https://not-asked.example")
	s.mustAsk(others.URL, foreign)
	if others.Asked(foreign) != 1 {
		t.Error("the answer of another issuer was forgotten")
	}
}

// An answer is read again for a claim that no revocation had named when it came.
func TestAKeptAnswerIsForgottenForANewClaim(t *testing.T) {
	s := newSite(t)
	as := revocationtest.NewOpaqueServer(t, edgeSecret)
	s.mustLoad(opaqueOptions(t, as), "token_denylist")
	s.mustAsk(as.URL, as.Issue(map[string]any{"team": "red"}))
	s.mustAsk(as.URL, as.Issue(map[string]any{"team": "blue"}))
	if got, _ := s.adminPost("revocations", revocationRequest{Claims: map[string]string{"team": "red"}}); got.status != http.StatusOK {
		t.Fatalf("revoking: %s", got.body)
	}
	s.eventually("one answer to be forgotten", func() bool {
		status := currentApp().introspectors[0].Status()
		return status.Purged == 1 && status.Answers == 1
	})
}
