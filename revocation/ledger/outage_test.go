package ledger_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation/ledger"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

func TestAFrozenLinkMakesTheEdgeStaleInTimeAndHeals(t *testing.T) {
	srv := revocationtest.StartNATS(t)
	proxy := revocationtest.StartProxy(t, srv.Addr())
	o := external("nats://" + proxy.Addr())
	o.HeartbeatInterval, o.StaleAfter = 200*time.Millisecond, time.Second
	edge := open(t, o)
	writer := open(t, external(srv.URL()))
	s, seen := newSink(), &alarms{}
	f := edge.Follow(s, seen.observer())
	defer f.Stop()
	eventually(t, "in sync", func() bool { return f.State().InSync })
	publish(t, writer, "before")
	eventually(t, "applied", func() bool { return s.has("before") })

	proxy.Freeze()
	frozen := time.Now()
	publish(t, writer, "during")
	eventually(t, "stale", func() bool { return !f.State().InSync })
	took := time.Since(frozen)
	t.Logf("stale %s after the link froze", took)
	if took > 5*time.Second {
		t.Errorf("stale only after %s", took)
	}
	// As long as nothing can have come through, it must not look fresh again.
	for time.Since(frozen) < 3*time.Second {
		if st := f.State(); st.InSync || s.has("during") {
			t.Fatalf("in sync on a frozen link: %+v", st)
		}
		time.Sleep(10 * time.Millisecond)
	}
	proxy.Thaw()
	eventually(t, "in sync again", func() bool { return f.State().InSync })
	if !s.has("during") {
		t.Error("in sync without the entry from during the outage")
	}
	eventually(t, "told", func() bool { synced, stale := seen.times(); return synced >= 2 && stale >= 1 })
	if r := seen.raised(); len(r) > 0 {
		t.Errorf("alarms: %q", r)
	}
}

// An edge that may only listen can't ask for an echo of its own: it must judge
// the heartbeats of others.
func TestHeartbeatsHeldUpByTheNetworkDoNotCountAsFresh(t *testing.T) {
	o := embedded(t.TempDir())
	o.HeartbeatInterval = 100 * time.Millisecond
	o.Embedded.Listen = "127.0.0.1:0"
	o.Embedded.Users = []ledger.User{{Name: "reader", Password: "secret", Role: ledger.RoleEdge}}
	writer := open(t, o)
	fw := writer.Follow(newSink(), ledger.Observer{})
	defer fw.Stop()
	proxy := revocationtest.StartProxy(t, writer.Status().Listen)
	edge := open(t, ledger.Options{
		External:          &ledger.ExternalOptions{URLs: []string{"nats://" + proxy.Addr()}, User: "reader", Password: "secret"},
		HeartbeatInterval: 100 * time.Millisecond, StaleAfter: 1200 * time.Millisecond,
	})
	s := newSink()
	f := edge.Follow(s, ledger.Observer{})
	defer f.Stop()
	eventually(t, "in sync", func() bool { return f.State().InSync })
	if f.Stats().Heartbeats == 0 {
		t.Error("in sync without any heartbeat")
	}
	proxy.Freeze()
	publish(t, writer, "during")
	time.Sleep(1800 * time.Millisecond)
	proxy.Thaw()
	// What arrives first is old. In sync again only with the rest.
	eventually(t, "in sync again", func() bool { return f.State().InSync })
	if !s.has("during") {
		t.Error("in sync without the entry from during the outage")
	}
}

func TestStoppingDoesNotWaitForADeadServer(t *testing.T) {
	for name, fault := range map[string]func(*revocationtest.Proxy){
		"frozen":  (*revocationtest.Proxy).Freeze,
		"refused": (*revocationtest.Proxy).Refuse,
	} {
		t.Run(name, func(t *testing.T) {
			srv := revocationtest.StartNATS(t)
			proxy := revocationtest.StartProxy(t, srv.Addr())
			l := open(t, external("nats://"+proxy.Addr()))
			f := l.Follow(newSink(), ledger.Observer{})
			eventually(t, "in sync", func() bool { return f.State().InSync })
			fault(proxy)
			time.Sleep(300 * time.Millisecond)
			begin := time.Now()
			f.Stop()
			stopped := time.Since(begin)
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			closed := time.Since(begin)
			t.Logf("stopped after %s, closed after %s", stopped, closed)
			if closed > 3*time.Second {
				t.Errorf("stopped after %s, closed after %s", stopped, closed)
			}
		})
	}
}

func TestClosingWhileConnectingIsQuick(t *testing.T) {
	srv := revocationtest.StartNATS(t)
	proxy := revocationtest.StartProxy(t, srv.Addr())
	proxy.Freeze()
	l := open(t, external("nats://"+proxy.Addr()))
	f := l.Follow(newSink(), ledger.Observer{})
	eventually(t, "dialled", func() bool { return proxy.Dialled() > 0 })
	begin := time.Now()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > 1500*time.Millisecond {
		t.Errorf("closing took %s", took)
	}
	if st := f.State(); st.EverSynced || st.InSync || st.Age < time.Hour {
		t.Errorf("%+v", st)
	}
	f.Stop() // after Close, and again
	f.Stop()
}

func TestAServerRestartLosesNothing(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	l := open(t, external(srv.URL()))
	s, seen := newSink(), &alarms{}
	f := l.Follow(s, seen.observer())
	defer f.Stop()
	var acknowledged []string
	for round := range 3 {
		for i := range 20 {
			id := fmt.Sprintf("%d-%d", round, i)
			if _, err := l.PublishRevocation(t.Context(), revoke(id)); err == nil {
				acknowledged = append(acknowledged, id)
			}
			if i == 10 {
				srv.Stop()
				srv.Start()
			}
		}
	}
	eventually(t, "in sync", func() bool { return f.State().InSync && l.Status().Usable })
	eventually(t, "applied", func() bool {
		for _, id := range acknowledged {
			if !s.has(id) {
				return false
			}
		}
		return true
	})
	t.Logf("%d of 60 acknowledged, 0 missing", len(acknowledged))
	if len(acknowledged) < 50 {
		t.Errorf("only %d of 60 acknowledged over restarts of a moment", len(acknowledged))
	}
	if r := seen.raised(); len(r) > 0 {
		t.Errorf("alarms: %q", r)
	}
}

func TestAnEdgeThatStartsBeforeTheServerFindsIt(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	srv.Stop()
	l := open(t, external(srv.URL()))
	s := newSink()
	f := l.Follow(s, ledger.Observer{})
	defer f.Stop()
	eventually(t, "a reason is known", func() bool { return l.Status().Problem != nil && !l.Status().Connected })
	srv.Start()
	eventually(t, "in sync", func() bool { return f.State().InSync })
}
