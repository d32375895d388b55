package oauth

import (
	"net/http"
	"sync/atomic"
	"testing"
)

func TestOneGuardForAllEndpointsCountsAllFailures(t *testing.T) {
	clock := newClock()
	guard := NewGuard(GuardOptions{Now: clock.now})
	share := func(o *EndpointOptions) { o.Guard, o.Now = guard, clock.now }
	before, beside := newRig(t, share), newRig(t, share)
	wrong := authorize(basicAuth("app", "wrong"))
	for range 5 {
		for _, r := range []*rig{before, beside} {
			if w := r.post("token=x.y.z", wrong); w.Code != http.StatusUnauthorized {
				t.Fatalf("status %d", w.Code)
			}
		}
	}
	after := newRig(t, share) // as a reload makes it
	for name, r := range map[string]*rig{"the same endpoint": before, "another one": beside, "a new one": after} {
		if w := r.post("token=x.y.z", wrong); w.Code != http.StatusTooManyRequests {
			t.Errorf("%s gives more guesses: status %d", name, w.Code)
		}
	}
}

func TestGuardRemembersVerifiedSecretsForAllEndpoints(t *testing.T) {
	var count atomic.Int64
	clients, err := NewStaticClients(Client{ID: "one", Issuer: issuerA, Secrets: []Secret{counting("right", &count)}})
	if err != nil {
		t.Fatal(err)
	}
	guard := NewGuard(GuardOptions{})
	for range 3 {
		r := newRig(t, func(o *EndpointOptions) { o.Clients, o.Guard = clients, guard })
		if w := r.post("token=x.y.z", authorize(basicAuth("one", "right"))); w.Code != http.StatusOK {
			t.Fatalf("status %d", w.Code)
		}
	}
	if got := count.Load(); got != 1 {
		t.Errorf("%d hashes for three endpoints", got)
	}
}
