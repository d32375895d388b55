//go:build e2e

package e2e

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// publishDeadline is how long an edge tries before it answers a revocation with
// 503.
const publishDeadline = 5 * time.Second

// startClusterFleet starts three servers and two edges that keep the ledger on
// all of them.
func startClusterFleet(t *testing.T) (cluster, *fleet, string) {
	t.Helper()
	servers := startCluster(t, 3)
	f := newFleet(t)
	ledger := following(servers.urls(), len(servers))
	for range 2 {
		f.add(ledger, beating())
	}
	f.run()
	return servers, f, ledger
}

func TestFaultKilledMembersAndLeaderOfAClusterLoseNothingAcknowledged(t *testing.T) {
	t.Parallel()
	servers, f, ledger := startClusterFleet(t)
	crowd := f.startCrowd(f.edges...)
	kills := map[string]int{}
	kill := func(s *natsServer, as string) {
		crowd.waitFor(t, 20)
		s.process.kill()
		killed := time.Now()
		time.Sleep(200 * time.Millisecond) // acknowledgments from before are under way
		crowd.waitFor(t, 1)
		t.Logf("%s killed as %s: acknowledging again within %s", s.name, as, time.Since(killed).Round(time.Millisecond))
		s.start()
		kills[as]++
	}
	for range inForm(1, 8) {
		leader := servers.leader()
		kill(leader, "leader")
		for _, s := range servers {
			if s != leader {
				kill(s, "member") // it may lead by now
			}
		}
	}
	crowd.waitFor(t, 20)
	tokens := crowd.end(t, false)
	f.waitKnowing()
	f.wantAllRefused(fmt.Sprintf("after %v kills", kills), tokens, f.edges...)
	f.wantHeldByTheLedger(tokens, ledger, beating())
	f.wantNoAlarm()
}

// A minority must not acknowledge: whoever revokes is told, and nothing that was
// acknowledged before is lost.
func TestFaultClusterWithoutMajorityAcknowledgesAndLosesNothing(t *testing.T) {
	t.Parallel()
	servers, f, ledger := startClusterFleet(t)
	crowd := f.startCrowd(f.edges...)
	for range inForm(1, 4) {
		crowd.waitFor(t, 30)
		leader := servers.leader()
		left := servers[slices.IndexFunc(servers, func(s *natsServer) bool { return s != leader })]
		down := slices.DeleteFunc(slices.Clone(servers), func(s *natsServer) bool { return s == left })
		for _, s := range down {
			s.process.kill()
		}
		// What was under way may still come through; what is sent later may not.
		time.Sleep(2 * time.Second)
		before := crowd.count()
		time.Sleep(publishDeadline + inForm(time.Second, 20*time.Second))
		if n := crowd.count() - before; n > 0 {
			t.Errorf("%d revocations were acknowledged by one of three members", n)
		}
		for _, s := range down {
			s.begin()
		}
		for _, s := range down {
			s.waitReady()
		}
	}
	crowd.waitFor(t, 30)
	tokens := crowd.end(t, false)
	if crowd.unavailable == 0 {
		t.Error("nobody was answered with 503")
	}
	f.waitKnowing()
	f.wantAllRefused("after an outage of two of three members", tokens, f.edges...)
	f.wantHeldByTheLedger(tokens, ledger, beating())
	f.wantNoAlarm()
}
