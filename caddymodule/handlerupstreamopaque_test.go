package caddymodule

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// opaqueSite is a site before an authorization server whose tokens are opaque.
func opaqueSite(t *testing.T, options string) (*site, *fakeServer, *revocationtest.OpaqueServer) {
	s, as, opaque := newSite(t), newFakeServer(t), revocationtest.NewOpaqueServer(t, edgeSecret)
	s.mustLoad(opaqueOptions(t, opaque), as.behind(options))
	return s, as, opaque
}

func app(token string) url.Values { return url.Values{"token": {token}, "client_id": {"app"}} }

// A retry finds an opaque token dead. That it was the client's is known from the
// first attempt, also to the next process.
func TestARetryRecordsAnOpaqueTokenThatIsDeadByThen(t *testing.T) {
	const options = "timeout 500ms\ncascade grant"
	s, as, opaque := opaqueSite(t, options)
	token, sibling, other := opaque.Issue(nil), opaque.Issue(nil), opaque.Issue(map[string]any{"sid": "another"})
	id, siblingID, otherID := s.mustAsk(opaque.URL, token), s.mustAsk(opaque.URL, sibling), s.mustAsk(opaque.URL, other)

	opaque.Fail(http.StatusBadGateway)
	if got := s.pass(app(token)); got.status != http.StatusServiceUnavailable || as.seen() != 0 {
		t.Fatalf("without introspection: status %d, the server has seen %d", got.status, as.seen())
	}
	opaque.Fail(0)
	as.set(func(_ http.ResponseWriter, r *http.Request) { // it revokes, and its answer gets lost
		opaque.Fail(http.StatusBadGateway)
		opaque.Kill(token)
		<-r.Context().Done()
	})
	if got := s.pass(app(token)); got.status != http.StatusServiceUnavailable {
		t.Fatalf("status %d", got.status)
	}
	s.wantIntents(0, 1)
	s.restart() // nobody knows the token itself any more
	opaque.Fail(0)
	s.mustLoad(opaqueOptions(t, opaque), as.behind(options))
	s.wantIntents(0, 1)
	as.set(write(200, "", ""))
	if got := s.pass(url.Values{"token": {token}, "client_id": {"other"}}); got.status != 200 || isDenied(id) {
		t.Fatalf("another client: status %d, denied %v", got.status, isDenied(id))
	}
	if got := s.pass(app(token)); got.status != 200 || !isDenied(id) || !isDenied(siblingID) || isDenied(otherID) {
		t.Errorf("its own: status %d, denied %v, its grant %v, another session %v",
			got.status, isDenied(id), isDenied(siblingID), isDenied(otherID))
	}
	s.wantIntents(0, 0)
}

// Whoever has the token can be refused in the client's name: that ends nothing that
// the client itself has begun. The next process knows of it, too.
func TestARefusedRetryKeepsAnUnknownIntent(t *testing.T) {
	const options = "timeout 500ms\ncascade grant"
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("restart %v", restart), func(t *testing.T) {
			s, as, opaque := opaqueSite(t, options)
			token, sibling := opaque.Issue(map[string]any{"token_type": "refresh_token"}), opaque.Issue(nil)
			siblingID := s.mustAsk(opaque.URL, sibling)
			as.set(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
			if got := s.pass(app(token)); got.status != http.StatusServiceUnavailable {
				t.Fatalf("status %d", got.status)
			}
			thief := app(token)
			thief.Set("client_secret", "wrong")
			as.set(write(401, "application/json", `{"error":"invalid_client"}`))
			if got := s.pass(thief); got.status != 401 { // the token still lives: a slow server
				t.Fatalf("status %d", got.status)
			}
			if restart {
				opaque.Fail(http.StatusBadGateway)
				opaque.Kill(token)
				s.restart()
				opaque.Fail(0)
				s.mustLoad(opaqueOptions(t, opaque), as.behind(options))
			} else {
				opaque.Kill(token)
			}
			if got := s.pass(thief); got.status != 401 {
				t.Fatalf("status %d", got.status)
			}
			s.wantIntents(0, 1)
			as.set(write(200, "", ""))
			if got := s.pass(app(token)); got.status != 200 || !isDenied(siblingID) {
				t.Errorf("the client's own: status %d, its grant denied: %v", got.status, isDenied(siblingID))
			}
			s.wantIntents(0, 0)
		})
	}
}

// Promise 6: who has the token, but not the client's secret, must not end the
// session by waiting until the token ends by itself.
func TestATokenThatEndsByItselfTakesNothingWithIt(t *testing.T) {
	s, as, opaque := opaqueSite(t, "")
	refresh, sibling := opaque.Issue(map[string]any{"token_type": "refresh_token"}), opaque.Issue(nil)
	siblingID := s.mustAsk(opaque.URL, sibling)
	as.set(write(500, "text/plain", "oops"))
	thief := app(refresh)
	thief.Set("client_secret", "wrong")
	if got := s.pass(thief); got.status != 500 {
		t.Fatalf("status %d", got.status)
	}
	opaque.Kill(refresh) // its client has used it, and has got another one
	s.eventually("the token itself to be denied", func() bool { return entries() == 1 })
	if isDenied(siblingID) {
		t.Error("the session is denied, though nobody with the secret has asked for that")
	}
	s.wantIntents(0, 1)
}

// A refresh token that says nothing of its grant: its access tokens end when they
// are asked about again, also where the revocation was recorded at a retry, or
// late.
func TestARecheckIsNotLost(t *testing.T) {
	for _, late := range []bool{false, true} {
		t.Run(fmt.Sprintf("late %v", late), func(t *testing.T) {
			s, as, opaque := newSite(t), newFakeServer(t), revocationtest.NewOpaqueServer(t, edgeSecret)
			srv := revocationtest.StartNATS(t)
			options := strings.Replace(opaqueOptions(t, opaque), "embedded", "nats "+srv.URL()+" {\ncreate\n}", 1)
			s.mustLoad(options, as.behind(""))
			refresh := opaque.Issue(map[string]any{"token_type": "refresh_token", "sid": nil, "sub": nil})
			access := opaque.Issue(nil)
			s.mustAsk(opaque.URL, access)
			if late {
				as.set(func(http.ResponseWriter, *http.Request) { opaque.Kill(refresh); srv.Stop() })
			} else {
				as.set(func(w http.ResponseWriter, r *http.Request) {
					opaque.Fail(http.StatusBadGateway)
					opaque.Kill(refresh)
					raw("")(w, r)
				})
			}
			if got := s.pass(app(refresh)); got.status != 503 {
				t.Fatalf("status %d", got.status)
			}
			if _, err := s.ask(opaque.URL, access); err != nil {
				t.Fatalf("the test is broken: %v", err)
			}
			opaque.Kill(access)
			if late {
				srv.Start()
			} else {
				s.wantIntents(0, 1)
				s.restart()
				opaque.Fail(0)
				s.mustLoad(options, as.behind(""))
				as.set(write(200, "", ""))
				opaque.Know(access, map[string]any{"iss": opaque.URL, "sub": "alice", "client_id": "app", "token_type": "Bearer",
					"iat": time.Now().Unix(), "exp": time.Now().Add(5 * time.Minute).Unix()})
				s.mustAsk(opaque.URL, access)
				opaque.Kill(access)
				if got := s.pass(app(refresh)); got.status != 200 {
					t.Fatalf("status %d", got.status)
				}
			}
			s.wantIntents(0, 0)
			s.eventually("the access token to be asked about again", func() bool {
				_, err := s.ask(opaque.URL, access)
				return err != nil
			})
		})
	}
}

// While the process lives, a lost answer needs no retry: the server is asked.
func TestALostAnswerIsMadeUpForByIntrospection(t *testing.T) {
	s, as, opaque := opaqueSite(t, "")
	dead, alive := opaque.Issue(nil), opaque.Issue(map[string]any{"sid": "another"})
	deadID, aliveID := s.mustAsk(opaque.URL, dead), s.mustAsk(opaque.URL, alive)
	as.set(raw(""))
	if got := s.pass(app(alive)); got.status != 503 {
		t.Fatalf("status %d", got.status)
	}
	as.set(func(w http.ResponseWriter, r *http.Request) { opaque.Kill(dead); raw("")(w, r) })
	if got := s.pass(app(dead)); got.status != 503 {
		t.Fatalf("status %d", got.status)
	}
	s.eventually("the dead one to be denied", func() bool { return isDenied(deadID) })
	s.wantIntents(0, 1)
	if isDenied(aliveID) {
		t.Error("the live one is denied")
	}
}

func TestConfirmIntrospectAsksAfterThe200(t *testing.T) {
	s, as, opaque := opaqueSite(t, "confirm introspect")
	kept, dead, dark := opaque.Issue(nil), opaque.Issue(nil), opaque.Issue(nil)
	keptID, deadID, darkID := s.mustAsk(opaque.URL, kept), s.mustAsk(opaque.URL, dead), s.mustAsk(opaque.URL, dark)

	as.set(write(200, "", ""))
	if got := s.pass(app(kept)); got.status != 200 || isDenied(keptID) {
		t.Errorf("a token that is still active: status %d, denied %v", got.status, isDenied(keptID))
	}
	as.set(func(http.ResponseWriter, *http.Request) { opaque.Kill(dead) })
	if got := s.pass(app(dead)); got.status != 200 || !isDenied(deadID) {
		t.Errorf("a token that is dead: status %d, denied %v", got.status, isDenied(deadID))
	}
	as.set(func(http.ResponseWriter, *http.Request) {
		opaque.Kill(dark)
		opaque.Fail(http.StatusBadGateway)
	})
	if got := s.pass(app(dark)); got.status != 503 || isDenied(darkID) {
		t.Errorf("nobody can be asked: status %d, denied %v", got.status, isDenied(darkID))
	}
	opaque.Fail(0)
	s.eventually("the server to be asked again", func() bool { return isDenied(darkID) })
	s.wantIntents(0, 0)
}

func isDenied(id *revocation.Identity) bool { return currentApp().replica.denylist.Check(id).Denied }

// A token that nobody here can resolve makes the fleet ask again, not more often
// than once a second, and the answer is the server's.
func TestUnresolvableTokensCauseFewRechecks(t *testing.T) {
	s, as, opaque := opaqueSite(t, "")
	as.set(write(200, "application/json", `{"x":1}`))
	sequence := func() uint64 { return currentApp().replica.denylist.Position().Sequence }
	before := sequence()
	var wg sync.WaitGroup
	for n := range 20 {
		wg.Go(func() {
			response, err := http.PostForm(s.url("/as/revoke"), app(fmt.Sprintf("refresh-%d", n)))
			if err != nil {
				t.Error(err)
				return
			}
			defer response.Body.Close()
			if body, _ := io.ReadAll(response.Body); response.StatusCode != 200 || string(body) != `{"x":1}` {
				t.Errorf("status %d, %q", response.StatusCode, body)
			}
		})
	}
	wg.Wait()
	s.eventually("the rechecks", func() bool { return sequence() > before })
	if got := sequence() - before; got > 8 { // heartbeats too
		t.Errorf("%d entries for twenty tokens", got)
	}
	if entries() != 0 {
		t.Error("something was recorded")
	}
	if s.get("").status != http.StatusOK || opaque.Hits() == 0 {
		t.Error("the test is broken")
	}
}
