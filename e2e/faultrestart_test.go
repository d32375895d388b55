//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// An edge that is started while it can't reach the ledger has its checkpoint
// only, and says how old that is. One without a checkpoint knows nothing.
func TestFaultEdgeRestartedDuringAnOutageServesFromItsCheckpointWithinTheBound(t *testing.T) {
	t.Parallel()
	max := inForm(18*time.Second, 60*time.Second)
	server := startNATSServer(t)
	proxy := revocationtest.StartProxy(t, server.addr)
	f := newFleet(t)
	settings := []string{beating(), "stale " + max.String()}
	restarted := f.add(following("nats://"+proxy.Addr(), 1), settings...)
	other := f.add(following("nats://"+server.addr, 1), settings...)
	blank := f.add(following("nats://"+proxy.Addr(), 1), settings...)
	restarted.start()
	other.start()
	restarted.waitInSync()
	other.waitInSync()
	before := f.revokeSome(other, inForm(40, 2000))
	waitKnowing(t, restarted)

	proxy.Refuse()
	cut := time.Now() // nothing from after this can be known
	restarted.process.stop()
	during := f.revokeSome(other, 20)
	restarted.start()
	blank.start()
	var passed, refusals, unavailable, fresh int
	firstPass, lastPass := time.Duration(0), time.Duration(0)
	for i := 0; time.Since(cut) < max+5*time.Second; i++ {
		asked := time.Now()
		good, bad, unknown := restarted.get(f.good), restarted.get(before[i%len(before)]), blank.get(f.good)
		switch {
		case bad.status == http.StatusOK:
			t.Fatalf("a token passes %s after the start that the checkpoint knows as revoked", time.Since(cut))
		case refused(bad):
			refusals++
		}
		switch good.status {
		case http.StatusOK:
			passed++
			if firstPass == 0 {
				firstPass = asked.Sub(cut)
			}
			lastPass = asked.Sub(cut)
		case http.StatusServiceUnavailable:
			unavailable++
		case 0: // it does not answer yet
		default:
			t.Fatalf("a good token: %s", good)
		}
		if unknown.status != 0 && unknown.status != http.StatusServiceUnavailable {
			t.Fatalf("an edge that knows nothing: want 503: %s", unknown)
		}
		if s, err := restarted.tryStatus(); err == nil && (s.State == "in_sync" || s.knows(asked, cut.Add(slack))) {
			fresh++
		}
		time.Sleep(20 * time.Millisecond)
	}
	s := restarted.status()
	t.Logf("checkpoint of %d revocations: good tokens passed %d times, from %s to %s after the last contact (bound %s), 503 %d times; revoked ones refused %d times; false freshness %d times; then %s, %s old",
		len(before), passed, firstPass.Round(time.Millisecond), lastPass.Round(time.Millisecond), max, unavailable, refusals, fresh, s.State, s.age())
	if passed == 0 || unavailable == 0 || refusals == 0 {
		t.Error("the edge did not serve from its checkpoint, or never stopped to")
	}
	if lastPass > max+slack {
		t.Errorf("good tokens passed %s after the last contact, beyond the bound of %s", lastPass, max)
	}
	if fresh > 0 || s.State != "stale" || s.Serving {
		t.Errorf("an edge without its ledger said that it knows it: %+v", s)
	}
	if s := blank.status(); s.State != "syncing" || s.Serving || s.AgeSeconds != "" {
		t.Errorf("an edge that knows nothing says: %+v", s)
	}
	if missing, _ := restarted.count(before); missing > 0 {
		t.Errorf("%d of %d tokens pass that the checkpoint knows as revoked", missing, len(before))
	}

	proxy.Allow()
	for _, e := range f.edges {
		e.waitInSync()
	}
	f.waitKnowing()
	f.wantAllRefused("after the outage", append(before, during...), f.edges...)
	f.wantNoAlarm()
}

// A regular stop writes a checkpoint; a kill leaves the one that was written
// before. Either must do for a start without the ledger, and what came since the
// checkpoint must be read before the edge serves, once the ledger is there.
func TestFaultEdgeKilledAndStartedWithTheLedgerBackKnowsWhatCameSinceItsCheckpoint(t *testing.T) {
	t.Parallel()
	server := startNATSServer(t)
	f := newFleet(t)
	ledger := following("nats://"+server.addr, 1)
	killed := f.add(ledger, beating())
	other := f.add(ledger, beating())
	f.run()
	tokens := f.revokeSome(other, 20)
	f.waitKnowing()
	killed.process.stop()
	killed.run()
	since := f.revokeSome(other, 20)
	waitKnowing(t, killed)
	killed.process.kill()
	killed.client.CloseIdleConnections()
	since = append(since, f.revokeSome(other, 20)...)
	server.process.kill()
	killed.start()
	eventually(t, startDeadline, killed.name+" answers", func() (bool, string) {
		a := killed.get(f.good)
		return a.status != 0, a.String()
	})
	server.start()
	passed := 0
	eventually(t, startDeadline, killed.name+" is in sync", func() (bool, string) {
		if a := killed.get(since[len(since)-1]); a.status == http.StatusOK {
			passed++
		}
		s, err := killed.tryStatus()
		return err == nil && s.Ledger.Connected && s.State == "in_sync", fmt.Sprintf("%+v %v", s, err)
	})
	if passed > 0 {
		t.Errorf("%d requests passed with a token revoked since the checkpoint", passed)
	}
	f.waitKnowing()
	f.wantAllRefused("after a kill and an outage", append(tokens, since...), f.edges...)
	f.wantNoAlarm()
}
