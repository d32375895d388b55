package ledger_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/ledger"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

func TestTheOperatorAcknowledgesWhatNobodyCanRead(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	e := newEdge(t, external(srv.URL())).synced(t)
	js := client(t, srv.URL())
	readable := publish(t, e.Ledger, "x")
	poison := put(t, js, ledger.KindEntry, `garbage`, jetstream.WithMsgTTL(time.Hour))
	newer := put(t, js, ledger.KindEntry, `{"v":2}`, jetstream.WithMsgTTL(2*time.Hour))
	last := publish(t, e.Ledger, "y")
	eventually(t, "incomplete", func() bool {
		_, _, incomplete := e.denylist.Incomplete(time.Now())
		return incomplete && e.State().Sequence >= last
	})
	if at := e.denylist.Position().Sequence; at != newer-1 {
		t.Errorf("the position is %d, not before entry %d", at, newer)
	}
	// It is no back door to restoring.
	for name, sequence := range map[string]uint64{"a revocation": readable, "the genesis entry": 1, "nothing": 0} {
		if _, err := e.PublishAcknowledgment(t.Context(), sequence, "", "operator"); !errors.Is(err, revocation.ErrInvalidRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := e.PublishAcknowledgment(t.Context(), last+1000, "", "operator"); !errors.Is(err, ledger.ErrNoEntry) {
		t.Errorf("an entry that is not there: %v", err)
	}
	// Nor is what somebody writes by hand.
	put(t, js, ledger.KindRestore, fmt.Sprintf(`{"v":1,"entry":%d}`, readable))
	ahead := put(t, js, ledger.KindRestore, fmt.Sprintf(`{"v":1,"entry":%d}`, uint64(1)<<40))
	eventually(t, "applied", func() bool { return e.State().Sequence >= ahead })
	if !e.denies("x") {
		t.Error("an acknowledgment undid a revocation")
	}
	if _, err := e.PublishAcknowledgment(t.Context(), poison, "a bug in a script", "operator"); err != nil {
		t.Fatal(err)
	}
	second, err := e.PublishAcknowledgment(t.Context(), newer, "", "operator")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "complete, and beyond it", func() bool {
		_, _, incomplete := e.denylist.Incomplete(time.Now())
		return !incomplete && e.denylist.Position().Sequence >= second
	})
	fresh := newEdge(t, external(srv.URL())).synced(t)
	if reason, _, incomplete := fresh.denylist.Incomplete(time.Now()); incomplete {
		t.Errorf("an edge that starts now is incomplete: %s", reason)
	}
	// The acknowledgment outlives what it is about.
	for _, sequence := range []uint64{second} {
		stream, err := js.Stream(t.Context(), ledger.DefaultStream)
		if err != nil {
			t.Fatal(err)
		}
		m, err := stream.GetMsg(t.Context(), sequence)
		if err != nil {
			t.Fatal(err)
		}
		if ttl, err := time.ParseDuration(m.Header.Get("Nats-TTL")); err != nil || ttl < 2*time.Hour {
			t.Errorf("kept for %s, %v", ttl, err)
		}
	}
}

func TestOneAcknowledgmentOfTwoIsNotEnough(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	l := open(t, external(srv.URL()))
	publish(t, l, "before")
	js := client(t, srv.URL())
	one := put(t, js, ledger.KindEntry, `{"v":2}`)
	two := put(t, js, ledger.KindEntry, `{"v":2}`)
	s := newSink()
	f := l.Follow(s, ledger.Observer{})
	defer f.Stop()
	eventually(t, "in sync", func() bool { return f.State().InSync })
	for _, c := range []struct{ entry, at uint64 }{{one, two - 1}, {two, 0}} {
		seq, err := l.PublishAcknowledgment(t.Context(), c.entry, "", "operator")
		if err != nil {
			t.Fatal(err)
		}
		at := c.at
		if at == 0 {
			at = seq
		}
		eventually(t, fmt.Sprintf("position %d", at), func() bool {
			return f.State().Sequence >= seq && s.Position().Sequence >= at
		})
		if got := s.Position().Sequence; c.at != 0 && got != c.at {
			t.Errorf("position %d, want %d", got, c.at)
		}
	}
}

func TestAMessageThatTheServerForgetsTooEarlyIsAppliedAndTold(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	l, out := openLogged(t, external(srv.URL()))
	s := newSink()
	f := l.Follow(s, ledger.Observer{})
	defer f.Stop()
	eventually(t, "in sync", func() bool { return f.State().InSync })
	js := client(t, srv.URL())
	put(t, js, ledger.KindEntry, entry("fine"), jetstream.WithMsgTTL(2*time.Hour))
	put(t, js, ledger.KindEntry, entry("for ever"))
	put(t, js, ledger.KindEntry, entry("short"), jetstream.WithMsgTTL(time.Minute))
	put(t, js, ledger.KindEntry, entry("shorter"), jetstream.WithMsgTTL(time.Second))
	eventually(t, "all applied", func() bool { return s.count() == 4 })
	if st := f.Stats(); st.ShortLived != 2 || st.Poison != 0 {
		t.Errorf("%+v", st)
	}
	if n := strings.Count(out.String(), "too short a Nats-TTL"); n != 1 {
		t.Errorf("logged %d times", n)
	}
}

// One entry of a message that breaks the rules: none is in force, and the edge
// says that it is incomplete.
func TestAMessageIsNeverHalfApplied(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	e := newEdge(t, external(srv.URL())).synced(t)
	js := client(t, srv.URL())
	end := time.Now().Add(time.Hour).Unix()
	good := `{"issuer":"https://sso.example.com","criteria":{"jti":%q},"expires":%d}`
	put(t, js, ledger.KindEntry, fmt.Sprintf(`{"v":1,"entries":[`+good+`,`+good+`]}`, "a", end, "b", end))
	last := put(t, js, ledger.KindEntry, fmt.Sprintf(`{"v":1,"entries":[`+good+`,{"issuer":7}]}`, "c", end), jetstream.WithMsgTTL(time.Hour))
	eventually(t, "read", func() bool { return e.State().Sequence >= last })
	if !e.denies("a") || !e.denies("b") || e.denies("c") {
		t.Errorf("a %t, b %t, c %t", e.denies("a"), e.denies("b"), e.denies("c"))
	}
	if reason, _, incomplete := e.denylist.Incomplete(time.Now()); !incomplete || !strings.Contains(reason, fmt.Sprint(last)) {
		t.Errorf("incomplete %t: %s", incomplete, reason)
	}
}
