//go:build e2e

package e2e

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// beating is the interval of heartbeats in the fault tests: shorter than the
// default in the short form, since most of their time is waiting for one.
func beating() string { return "heartbeat " + inForm("300ms", "2s") }

func TestFaultKilledNATSServerLosesNothingAcknowledged(t *testing.T) {
	t.Parallel()
	server := startNATSServer(t)
	f := newFleet(t)
	ledger := following("nats://"+server.addr, 1)
	for range 2 {
		f.add(ledger, beating())
	}
	f.run()
	crowd := f.startCrowd(f.edges...)
	kills := inForm(3, 20)
	for range kills {
		crowd.waitFor(t, 30)
		server.process.kill()
		time.Sleep(rand.N(500 * time.Millisecond))
		server.start()
	}
	crowd.waitFor(t, 30)
	tokens := crowd.end(t, false)
	f.waitKnowing()
	when := fmt.Sprintf("after %d kills of the server", kills)
	f.wantAllRefused(when, tokens, f.edges...)
	f.wantHeldByTheLedger(tokens, ledger, beating())
	f.wantNoAlarm()
}

// The first edge is the ledger too: its server is in the process that is killed.
func TestFaultKilledEdgesLoseNothingAcknowledged(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	first := f.add("embedded {\n\t\t\tlisten 127.0.0.1:4222\n\t\t}", beating())
	ledger := "nats nats://" + first.nats
	f.add(ledger, beating())
	f.run()
	crowd := f.startCrowd(f.edges...)
	kills := inForm(2, 12)
	for range kills {
		for _, e := range f.edges {
			crowd.waitFor(t, 30)
			e.process.kill()
			e.client.CloseIdleConnections()
			e.start()
			e.waitInSync()
		}
	}
	crowd.waitFor(t, 30)
	tokens := crowd.end(t, true)
	f.waitKnowing()
	when := fmt.Sprintf("after %d kills of each edge", kills)
	f.wantAllRefused(when, tokens, f.edges...)
	f.wantHeldByTheLedger(tokens, ledger, beating())
	f.wantNoAlarm()
}

// wantNoAlarm is for faults in which the ledger's history is what it was: a
// false alarm would teach operators to ignore it.
func (f *fleet) wantNoAlarm() {
	f.t.Helper()
	for _, e := range f.edges {
		if n := e.alarms(); n != 0 {
			f.t.Errorf("%s raised %v alarms", e.name, n)
		}
	}
}
