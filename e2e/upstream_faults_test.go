//go:build e2e

package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestFaultBetweenEdgeAndAuthorizationServer breaks what is between an edge and
// the server's endpoints, one after the other. A 200 is only what the server has
// said, and nothing is recorded of what it has not accepted.
func TestFaultBetweenEdgeAndAuthorizationServer(t *testing.T) { //nolint:tparallel // its subtests share what is broken
	t.Parallel()
	f := startFronted(t, startFosite(t, false, false), func(config string) string {
		return strings.NewReplacer("timeout 9s", "timeout 3s", "timeout 8s", "timeout 1s").Replace(config)
	})
	upstream, endpoint := ways[0], ways[1]
	secret := f.as.secrets[asService]
	for _, c := range []struct {
		fault  asFault
		status int
		dies   bool // at the server, by the request that looked like a failure
	}{
		{asDown, http.StatusServiceUnavailable, false},
		{asSilent, http.StatusServiceUnavailable, false},
		{asFailing, http.StatusInternalServerError, false}, // the server's own word
		{asGarbage, http.StatusOK, false},
		{asRefusal, http.StatusOK, false},
		{asLost, http.StatusServiceUnavailable, true},
	} {
		t.Run("the revocation endpoint is "+c.fault.String(), func(t *testing.T) {
			f.t, f.as.t = t, t
			token := f.as.signIn(asService, asAlice).Access
			f.wantPass("a fresh token", token)
			before := f.entries()
			f.front.set(c.fault, f.as.revokePath)
			a := f.revoke(upstream, f.first, asService, secret, token)
			f.front.set(asWell, "")
			if a.status != c.status || a.status == http.StatusServiceUnavailable && a.header.Get("Retry-After") == "" {
				t.Errorf("want %d, with Retry-After if it is a 503: %s", c.status, a)
			}
			if c.fault == asRefusal && !strings.Contains(a.body, "invalid_token") {
				t.Errorf("not the server's answer: %s", a)
			}
			if f.as.active(token) == c.dies {
				t.Fatalf("the server has revoked it: %t", !c.dies)
			}
			if c.dies {
				// What became of it is asked later.
				for _, e := range f.edges() {
					e.eventuallyRefused("a token whose revocation was answered by nobody", token)
				}
				return
			}
			time.Sleep(500 * time.Millisecond) // for whoever would record it all the same
			if now := f.entries(); now != before {
				t.Errorf("%d entries recorded", now-before)
			}
			f.wantPass("a token that was not revoked", token)
			if a := f.revoke(upstream, f.second, asService, secret, token); a.status != http.StatusOK {
				t.Errorf("again, when all is well: %s", a)
			}
			f.wantRefused("a token revoked at the second attempt", f.second, token)
		})
	}
	for _, fault := range []asFault{asDown, asSilent, asFailing, asGarbage, asRefusal} {
		t.Run("the introspection endpoint is "+fault.String(), func(t *testing.T) {
			f.t, f.as.t = t, t
			known, unknown := f.as.signIn(asService, asAlice), f.as.signIn(asService, asAlice)
			f.wantPass("a fresh token", known.Access)
			before, asked := f.entries(), f.front.requests(f.as.revokePath)
			f.front.set(fault, f.as.introspectPath)
			if a := f.first.get(unknown.Access); a.status != http.StatusServiceUnavailable {
				t.Errorf("using a token that nobody can tell anything about: %s", a)
			}
			f.first.wantPass("a token that was asked about a moment ago", known.Access)
			for _, w := range []way{upstream, endpoint} {
				for _, token := range []string{unknown.Access, unknown.Refresh} {
					if a := f.revoke(w, f.first, asService, secret, token); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
						t.Errorf("%s: want 503 with Retry-After: %s", w.name, a)
					}
				}
			}
			f.front.set(asWell, "")
			if now := f.front.requests(f.as.revokePath); now != asked {
				t.Errorf("%d requests forwarded that could not be recorded", now-asked)
			}
			if now := f.entries(); now != before {
				t.Errorf("%d entries recorded", now-before)
			}
			f.wantPass("a token that was not revoked", known.Access, unknown.Access)
		})
	}
}

// TestFaultKilledBetweenTheServersAnswerAndTheLedgers takes the ledger away, has
// the server accept a revocation, and kills the edge before it could write it.
// For the server the token is dead then: a second attempt of the client's could
// not tell the edge any more which token that was.
func TestFaultKilledBetweenTheServersAnswerAndTheLedgers(t *testing.T) {
	t.Parallel()
	for _, rig := range rigs {
		if rig.name != "django-oauth-toolkit" && rig.name != "fosite, JWT" {
			continue
		}
		t.Run(rig.name, func(t *testing.T) {
			t.Parallel()
			f := startFronted(t, rig.start(t))
			token, another := f.as.signIn(asService, asAlice).Access, f.as.signIn(asService, asAlice).Access
			f.wantPass("a fresh token", token, another)
			before := f.entries()
			f.nats.process.kill()
			a := f.revoke(ways[0], f.first, asService, f.as.secrets[asService], token)
			if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
				t.Errorf("the server's 200, but no ledger: want 503 with Retry-After: %s", a)
			}
			if f.as.active(token) {
				t.Fatal("the server has not revoked it")
			}
			f.first.process.kill()
			f.first.client.CloseIdleConnections()
			f.second.wantPass("a token whose revocation only a dead edge knows of", token)
			f.nats.start()
			f.first.run()
			f.second.waitInSync()
			for _, e := range f.edges() {
				e.eventuallyRefused("a token that the server has revoked before the edge was killed", token)
			}
			if now := f.entries(); now != before+1 {
				t.Errorf("%d entries recorded instead of one", now-before)
			}
			f.wantPass("a token that nobody has revoked", another)
			// The client did as it was told.
			if a := f.revoke(ways[0], f.first, asService, f.as.secrets[asService], token); a.status != http.StatusOK {
				t.Errorf("again: %s", a)
			}
		})
	}
}

// TestFaultKilledBeforeTheServersAnswer kills the edge after the server has got
// the request, and before the edge has got the answer. Nobody was told anything;
// but the client's next attempt finds the token dead at the server, so that no
// edge can learn any more what it was. That attempt must count all the same.
func TestFaultKilledBeforeTheServersAnswer(t *testing.T) {
	t.Parallel()
	f := startFronted(t, startFosite(t, false, false))
	secret := f.as.secrets[asService]
	untouched := f.as.signIn(asService, asAlice).Access
	for _, again := range f.edges() {
		token := f.as.signIn(asService, asAlice).Access
		f.wantPass("a fresh token", token, untouched)
		f.front.set(asSwallowed, f.as.revokePath)
		answered := make(chan answer, 1)
		go func() { answered <- f.revoke(ways[0], f.first, asService, secret, token) }()
		eventually(t, 10*time.Second, "the server has revoked the token", func() (bool, string) { return !f.as.active(token), "" })
		f.first.process.kill()
		f.first.client.CloseIdleConnections()
		if a := <-answered; a.status != 0 {
			t.Errorf("an answer from an edge that was killed before: %s", a)
		}
		f.front.set(asWell, "")
		f.first.run()
		if a := f.revoke(ways[0], again, asService, secret, token); a.status != http.StatusOK {
			t.Errorf("again, at the %s: %s", again.name, a)
		}
		f.wantRefused("a token whose revocation was tried again at the "+again.name, again, token)
		f.wantPass("a token that nobody has revoked", untouched)
	}
}
