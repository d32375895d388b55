//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"testing"
	"time"
)

func TestTokenRevokedOnEitherEdgeIsRefusedOnBoth(t *testing.T) {
	first := newFirstEdge(t).run()
	second := newSecondEdge(t, first).run()
	if first.status().Standalone || second.status().Standalone {
		t.Errorf("two edges of one ledger report themselves as standalone: %+v, %+v", first.status(), second.status())
	}
	if a, b := first.status().Ledger.ID, second.status().Ledger.ID; a == "" || a != b {
		t.Errorf("the edges follow ledgers %q and %q", a, b)
	}

	bystander := first.mintFor("bystander")
	edges := []*edge{first, second}
	var delays []time.Duration
	for i := range 40 {
		token := first.mintFor(fmt.Sprintf("user-%d", i))
		at, other := edges[i%2], edges[1-i%2]
		at.wantPass("a fresh token", token)
		other.wantPass("a fresh token", token)
		at.revoke(token)
		acknowledged := time.Now()
		at.wantRefused("a token revoked here", token)
		other.eventuallyRefused("a token revoked elsewhere", token)
		delays = append(delays, time.Since(acknowledged))
		at.wantRefused("a token revoked a while ago", token)
	}
	for _, e := range edges {
		e.wantPass("a token that nobody revoked", bystander)
	}
	slices.Sort(delays)
	t.Logf("from the 200 to the first 401 of the other edge: median %s, longest of %d: %s",
		delays[len(delays)/2], len(delays), delays[len(delays)-1])
}

func TestConfidentialClientRevokesBySecretInFormAndByBasic(t *testing.T) {
	e := newFirstEdge(t).run()
	secret := demoSecret(t)
	e.logs.forbid(secret)
	mint := func() string {
		return e.mint(map[string]any{"subject": "service", "client_id": secretClient})
	}

	inForm, byBasic := mint(), mint()
	if a := e.post(url.Values{"token": {inForm}, "client_id": {secretClient}, "client_secret": {secret}}, "", ""); a.status != http.StatusOK {
		t.Errorf("client_secret_post: %s", a)
	}
	if a := e.post(url.Values{"token": {byBasic}}, secretClient, secret); a.status != http.StatusOK {
		t.Errorf("client_secret_basic: %s", a)
	}
	e.wantRefused("the token revoked with the secret in the form", inForm)
	e.wantRefused("the token revoked by HTTP Basic", byBasic)

	entries := e.status().Denylist.Entries
	for name, send := range map[string]func(token string) answer{
		"a wrong secret in the form": func(token string) answer {
			return e.post(url.Values{"token": {token}, "client_id": {secretClient}, "client_secret": {"wrong-" + secret}}, "", "")
		},
		"a wrong secret by Basic": func(token string) answer {
			return e.post(url.Values{"token": {token}}, secretClient, "wrong-"+secret)
		},
		"no secret": func(token string) answer {
			return e.post(url.Values{"token": {token}, "client_id": {secretClient}}, "", "")
		},
		"an unknown client": func(token string) answer {
			return e.post(url.Values{"token": {token}, "client_id": {"nobody"}}, "", "")
		},
	} {
		token := mint()
		if a := send(token); a.status != http.StatusUnauthorized {
			t.Errorf("%s: want 401: %s", name, a)
		}
		e.wantPass("a token after "+name, token)
	}
	if now := e.status().Denylist.Entries; now != entries {
		t.Errorf("clients that did not authenticate stored %d entries", now-entries)
	}
}

func TestEdgeThatNeverKnewTheLedgerAnswers503(t *testing.T) {
	first := newFirstEdge(t).run()
	token := first.mintFor("alice")
	revoked := first.mintFor("mallory")
	first.revoke(revoked)

	// The ledger that the second edge is to follow is not there yet.
	late := newFirstEdge(t)
	nowhere := *first
	nowhere.nats = late.nats
	second := newSecondEdge(t, &nowhere)
	second.start()
	eventually(t, startDeadline, "the second edge answers", func() (bool, string) {
		a := second.get("")
		return a.status != 0, a.String()
	})
	for range 20 {
		for name, bearer := range map[string]string{"a good token": token, "a revoked token": revoked} {
			a := second.get(bearer)
			if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
				t.Fatalf("%s: want 503 with Retry-After from an edge that has not been in sync yet: %s", name, a)
			}
		}
	}
	if s := second.status(); s.State != "syncing" || s.Serving {
		t.Errorf("status says %q, serving %v", s.State, s.Serving)
	}
	if a := second.post(url.Values{"token": {token}, "client_id": {publicClient}}, "", ""); a.status == http.StatusOK {
		t.Errorf("the revocation endpoint answered 200 without a ledger: %s", a)
	}

	late.run()
	second.waitInSync()
	second.wantPass("a good token, now that the ledger is there,", token)
}
