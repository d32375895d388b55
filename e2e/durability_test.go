//go:build e2e

package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"
)

// killRounds is how often the first edge is killed.
const killRounds = 12

func TestAcknowledgedRevocationSurvivesKill(t *testing.T) {
	e := newFirstEdge(t).run()
	good := e.mint(map[string]any{"subject": "bystander", "client_id": publicClient, "lifetime": "1h"})
	var revoked []string
	answered := 0
	for round := range killRounds {
		acknowledged := revokeUntilKilled(t, e, round)
		revoked = append(revoked, acknowledged...)
		e.start()
		newest := acknowledged[len(acknowledged)-1]
		eventually(t, startDeadline, "the killed edge is back", func() (bool, string) {
			a := e.get(newest)
			if a.status == http.StatusOK {
				t.Fatalf("round %d: the token passes that was revoked before the kill", round)
			}
			if a.status != 0 {
				answered++
			}
			return refused(a), a.String()
		})
		for _, token := range revoked {
			if a := e.get(token); !refused(a) {
				t.Fatalf("round %d: a token passes that was revoked before a kill: %s", round, a)
			}
		}
		e.waitInSync()
		e.wantPass("a token that nobody revoked", good)
	}
	t.Logf("%d revocations acknowledged in %d kills, none lost; %d answers while starting", len(revoked), killRounds, answered)
}

// revokeUntilKilled revokes tokens from several clients at once, kills the edge
// in the middle of it, and returns the tokens whose revocation was acknowledged,
// the newest last.
func revokeUntilKilled(t *testing.T, e *edge, round int) []string {
	t.Helper()
	const clients, each = 4, 25
	tokens := make([][]string, clients)
	for c := range tokens {
		for i := range each {
			tokens[c] = append(tokens[c], e.mint(map[string]any{
				"subject": fmt.Sprintf("user-%d-%d-%d", round, c, i), "client_id": publicClient, "lifetime": "1h",
			}))
		}
	}
	var (
		mu           sync.Mutex
		acknowledged []string
		enough       = make(chan struct{}) // closed when it is time to kill
		once         sync.Once
		atLeast      = 1 + rand.IntN(clients*each/2)
		senders      sync.WaitGroup
	)
	for _, own := range tokens {
		senders.Go(func() {
			for _, token := range own {
				if e.post(url.Values{"token": {token}, "client_id": {publicClient}}, "", "").status != http.StatusOK {
					return
				}
				mu.Lock()
				acknowledged = append(acknowledged, token)
				if len(acknowledged) >= atLeast {
					once.Do(func() { close(enough) })
				}
				mu.Unlock()
			}
		})
	}
	select {
	case <-enough:
	case <-time.After(30 * time.Second):
		t.Error("the revocations before the kill took too long")
	}
	e.process.kill()
	senders.Wait()
	e.client.CloseIdleConnections()
	if len(acknowledged) == 0 {
		t.Fatal("nothing was acknowledged before the kill")
	}
	return acknowledged
}

// TestRevocationAcknowledgedAfterTheCheckpointSurvivesKill is for what an edge
// knows from its ledger only: a regular end leaves a checkpoint, and an edge that
// served from it before it has read the ledger would let a token pass whose
// revocation it acknowledged since.
func TestRevocationAcknowledgedAfterTheCheckpointSurvivesKill(t *testing.T) {
	first := newFirstEdge(t).run()
	second := newSecondEdge(t, first).run()
	for round := range 4 {
		for _, e := range []*edge{second, first} {
			e.revoke(e.mint(map[string]any{"subject": "mallory", "client_id": publicClient}))
			e.process.stop()
			e.client.CloseIdleConnections()
		}
		first.run()
		second.run()
		token := first.mint(map[string]any{"subject": "alice", "client_id": publicClient, "lifetime": "1h"})
		second.revoke(token)
		first.eventuallyRefused("the token", token)
		killBothAndWantRefused(t, first, second, round, token)
	}
}

func TestRevocationAcknowledgedByTheOtherEdgeSurvivesTheirKills(t *testing.T) {
	first := newFirstEdge(t).run()
	second := newSecondEdge(t, first).run()
	for round := range 4 {
		token := first.mint(map[string]any{"subject": "alice", "client_id": publicClient, "lifetime": "1h"})
		second.revoke(token)
		killBothAndWantRefused(t, first, second, round, token)
	}
}

// killBothAndWantRefused starts both edges again and asks from the first moment:
// neither may answer 200.
func killBothAndWantRefused(t *testing.T, first, second *edge, round int, token string) {
	t.Helper()
	both := []*edge{first, second}
	for _, e := range []*edge{second, first} {
		e.process.kill()
		e.client.CloseIdleConnections()
	}
	for _, e := range both {
		e.start()
	}
	for _, e := range both {
		passed := 0
		took := eventually(t, startDeadline, e.name+" refuses the token after the kill", func() (bool, string) {
			a := e.get(token)
			if a.status == http.StatusOK {
				passed++
			}
			return refused(a), a.String()
		})
		if passed > 0 {
			t.Errorf("round %d: %s let %d requests pass, in %s, with the token that was revoked before the kill", round, e.name, passed, took)
		}
		e.waitInSync()
	}
}
