package oauth

import (
	"fmt"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"
)

func mustKey(t *testing.T, id, addr string) throttleKey {
	t.Helper()
	k, ok := throttleKeyOf(id, netip.MustParseAddr(addr))
	if !ok {
		t.Fatalf("no key for %s", addr)
	}
	return k
}

func TestThrottleAllowsTenFailuresInAnyMinute(t *testing.T) {
	c := newClock()
	th := newThrottle(10, c.now)
	k := mustKey(t, "app", "192.0.2.1")
	for i := range 10 {
		if wait := th.blocked(k); wait != 0 {
			t.Fatalf("blocked after %d failures", i)
		}
		th.failed(k)
		c.advance(time.Second)
	}
	if wait := th.blocked(k); wait != 50*time.Second {
		t.Fatalf("has to wait %v, want 50s until the first failure leaves the minute", wait)
	}
	c.advance(50 * time.Second)
	if wait := th.blocked(k); wait != 0 {
		t.Fatalf("still blocked for %v", wait)
	}
	// One failure has left the minute, so there is room for exactly one.
	th.failed(k)
	if wait := th.blocked(k); wait != time.Second {
		t.Errorf("has to wait %v, want 1s", wait)
	}
}

func TestThrottleCountsPerClientAndNetwork(t *testing.T) {
	tests := []struct {
		name       string
		id1, addr1 string
		id2, addr2 string
		same       bool
	}{
		{"same client, same address", "a", "192.0.2.1", "a", "192.0.2.1", true},
		{"never the client alone", "a", "192.0.2.1", "a", "192.0.2.2", false},
		{"never the address alone", "a", "192.0.2.1", "b", "192.0.2.1", false},
		{"one IPv6 host has a whole /64", "a", "2001:db8::1", "a", "2001:db8::ffff:1", true},
		{"another /64", "a", "2001:db8::1", "a", "2001:db8:0:1::1", false},
		{"IPv4 in IPv6 is the IPv4 address", "a", "::ffff:192.0.2.1", "a", "192.0.2.1", true},
		{"two IPv4 in IPv6 are two", "a", "::ffff:192.0.2.1", "a", "::ffff:192.0.2.2", false},
		{"a zone is no other network", "a", "fe80::1%eth0", "a", "fe80::1%eth1", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if same := mustKey(t, tt.id1, tt.addr1) == mustKey(t, tt.id2, tt.addr2); same != tt.same {
				t.Errorf("same counter: %v, want %v", same, tt.same)
			}
		})
	}
	if _, ok := throttleKeyOf("a", netip.Addr{}); ok {
		t.Error("an unknown address has a counter, which would be the client's alone")
	}
}

func TestThrottleForgetsAndStaysBounded(t *testing.T) {
	c := newClock()
	th := newThrottle(10, c.now)
	addr := netip.MustParseAddr("192.0.2.1")
	for i := range maxThrottled + 100 {
		k, _ := throttleKeyOf(fmt.Sprint(i), addr)
		th.failed(k)
	}
	if n := len(th.entries); n != maxThrottled || th.byAge.Len() != n {
		t.Errorf("%d entries, %d in order, want %d", n, th.byAge.Len(), maxThrottled)
	}
	c.advance(throttleWindow)
	th.failed(mustKey(t, "x", "192.0.2.1"))
	if n := len(th.entries); n != 1 {
		t.Errorf("%d entries a minute later, want 1", n)
	}
}

func TestThrottleMakesRoomByForgettingTheQuietest(t *testing.T) {
	th := newThrottle(10, newClock().now)
	addr := netip.MustParseAddr("192.0.2.1")
	attacked := mustKey(t, "attacked", "192.0.2.1")
	for i := range maxThrottled {
		if i%1000 == 0 {
			th.failed(attacked)
		}
		k, _ := throttleKeyOf(fmt.Sprint(i), addr)
		th.failed(k)
	}
	th.failed(mustKey(t, "one more", "192.0.2.1"))
	if th.blocked(attacked) == 0 {
		t.Error("a counter in use was pushed out")
	}
}

func TestPeerIPIsTheConnectionsPeer(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.1:80": "192.0.2.1", "[2001:db8::1]:80": "2001:db8::1", "[fe80::1%eth0]:80": "fe80::1%eth0",
		"@": "invalid IP", "": "invalid IP", "name:80": "invalid IP",
	} {
		r := httptest.NewRequest("POST", "/", nil)
		r.RemoteAddr = remote
		if got := peerIP(r).String(); got != want {
			t.Errorf("%q: %s, want %s", remote, got, want)
		}
	}
}
