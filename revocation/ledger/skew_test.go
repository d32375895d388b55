package ledger_test

import (
	"fmt"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/denylist"
	"github.com/edge-revocation/caddy-token-revocation/revocation/ledger"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// skewedEdge is what an edge consists of, with a clock that is wrong. What has
// passed can be added to the clocks of all.
type skewedEdge struct {
	skew     time.Duration
	denylist *denylist.Denylist
	ledger   *ledger.Ledger
	service  *revocation.Service
	follower *ledger.Follower
}

func newSkewedEdge(t *testing.T, address string, skew time.Duration, passed *atomic.Int64) *skewedEdge {
	t.Helper()
	// Added to a reading with a monotonic part, it moves both.
	now := func() time.Time { return time.Now().Add(skew + time.Duration(passed.Load())) }
	d, err := denylist.New(denylist.Options{Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	o := external(address)
	o.Now = now
	o.HeartbeatInterval, o.StaleAfter = 200*time.Millisecond, 3*time.Second
	e := &skewedEdge{skew: skew, denylist: d, ledger: open(t, o)}
	e.follower = e.ledger.Follow(d, ledger.Observer{})
	e.service = revocation.NewService(struct {
		*ledger.Ledger
		*ledger.Follower
	}{e.ledger, e.follower}, d, revocation.Policy{}, now)
	t.Cleanup(e.follower.Stop)
	return e
}

// Clocks of edges that are five minutes wrong, either way, neither let a revoked
// token pass before it has expired by the clock of its issuer, nor deny another
// one, nor change what an edge believes of its own freshness.
func TestClockSkewBetweenEdges(t *testing.T) {
	const each, lifetime = 20, 10 * time.Minute
	var passed atomic.Int64
	srv := revocationtest.StartNATS(t)
	var edges []*skewedEdge
	for _, skew := range []time.Duration{0, 5 * time.Minute, -5 * time.Minute} {
		edges = append(edges, newSkewedEdge(t, srv.URL(), skew, &passed))
	}
	issued := time.Now() // by the issuer's clock, which is right
	identity := func(jti, sub string) *revocation.Identity {
		id := &revocation.Identity{
			Issuer: "https://sso.example.com", Verified: true,
			Claims:   []revocation.Claim{{Name: "jti", Value: jti}, {Name: "sub", Value: sub}},
			IssuedAt: issued.Unix(), Expiry: issued.Add(lifetime).Unix(),
		}
		revocation.SortClaims(id.Claims)
		return id
	}
	var revoked []*revocation.Identity
	for _, e := range edges {
		eventually(t, "in sync", func() bool { return e.follower.State().InSync })
		for i := range each {
			id := identity(fmt.Sprintf("%s-%d", e.skew, i), "bob")
			request := revocation.Request{
				Criteria:    revocation.Criteria{Issuer: id.Issuer, Claims: map[string]string{"jti": id.Claims[0].Value}},
				TokenExpiry: id.Expiry,
			}
			if i == 0 { // all tokens of a user, by one that was presented
				id = identity("of a user", "alice"+url.QueryEscape(e.skew.String()))
				request = revocation.Request{
					Criteria: revocation.Criteria{Issuer: id.Issuer, Claims: map[string]string{"sub": id.Claims[1].Value}},
					Mode:     revocation.IssuedBefore, TokenIssuedAt: id.IssuedAt,
				}
			}
			if _, err := e.service.Revoke(t.Context(), request); err != nil {
				t.Fatalf("revoking at the edge that is %s wrong: %v", e.skew, err)
			}
			revoked = append(revoked, id)
		}
	}
	good := identity("nobody revoked it", "bob")
	eventually(t, "everything is applied everywhere", func() bool {
		for _, e := range edges {
			if e.denylist.Stats().Entries < len(revoked) {
				return false
			}
		}
		return true
	})
	for _, e := range edges {
		eventually(t, "in sync, whatever the clock shows", func() bool { return e.follower.State().InSync })
		shown := e.ledger.Status().ClockSkew
		if (shown - e.skew).Abs() > 2*time.Second {
			t.Errorf("a clock that is %s wrong is shown as %s", e.skew, shown)
		}
	}
	for _, after := range []time.Duration{0, lifetime / 2, lifetime - time.Second} {
		passed.Store(int64(after))
		// One more that knows nothing but what the ledger still holds.
		late := newSkewedEdge(t, srv.URL(), -5*time.Minute, &passed)
		eventually(t, "in sync", func() bool { return late.follower.State().InSync })
		for _, e := range append(edges, late) {
			missing := 0
			for _, id := range revoked {
				if !e.denylist.Check(id).Denied {
					missing++
				}
			}
			t.Logf("%s after the tokens were issued, clock %s wrong: %d revocations acknowledged and checked, %d missing", after, e.skew, len(revoked), missing)
			if missing > 0 {
				t.Errorf("%d of %d revoked tokens pass", missing, len(revoked))
			}
			if e.denylist.Check(good).Denied {
				t.Error("a token is denied that nobody revoked")
			}
		}
	}
	for _, e := range edges {
		eventually(t, "in sync after the clocks were set", func() bool { return e.follower.State().InSync })
	}
	srv.Stop()
	for _, e := range edges {
		eventually(t, "stale, whatever the clock shows", func() bool { return !e.follower.State().InSync })
	}
}

// A clock of this edge that jumps ahead shows the same as one of the server that
// is set back: every heartbeat of others looks late, for ever, unless the clocks
// are compared again. The session goes on: heartbeats do come.
func TestAnEdgeThatMayOnlyFollowSurvivesAServerClockThatIsSetBack(t *testing.T) {
	t.Parallel()
	o := embedded(t.TempDir())
	o.HeartbeatInterval = 100 * time.Millisecond
	o.Embedded.Listen = "127.0.0.1:0"
	o.Embedded.Users = []ledger.User{{Name: "reader", Password: secret, Role: ledger.RoleEdge}}
	own := open(t, o)
	writer := own.Follow(newSink(), ledger.Observer{})
	defer writer.Stop()
	var step atomic.Int64
	edge := open(t, ledger.Options{
		External:          &ledger.ExternalOptions{URLs: []string{"nats://" + own.Status().Listen}, User: "reader", Password: secret},
		HeartbeatInterval: 100 * time.Millisecond, StaleAfter: 2 * time.Second,
		Now: func() time.Time { return time.Now().Add(time.Duration(step.Load())) },
	})
	f := edge.Follow(newSink(), ledger.Observer{})
	defer f.Stop()
	eventually(t, "in sync", func() bool { return f.State().InSync })
	step.Add(int64(8 * time.Second))
	beats := f.Stats().Heartbeats
	eventually(t, "heartbeats go on", func() bool { return f.Stats().Heartbeats > beats+5 })
	eventually(t, "in sync again", func() bool { return f.State().InSync })
}
