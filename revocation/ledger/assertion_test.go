package ledger_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/ledger"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

func TestAnAssertionIsUsedOnceInTheWholeFleet(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	edges := make([]*ledger.Ledger, 3)
	for i := range edges {
		edges[i] = open(t, external(srv.URL()))
		if _, err := edges[i].Init(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for round := range 5 {
		key := fmt.Sprintf("client\x00jti-%d", round)
		var firsts atomic.Int64
		var wg sync.WaitGroup
		for i := range 24 {
			wg.Go(func() {
				first, err := edges[i%len(edges)].UseOnce(t.Context(), key, time.Minute)
				if err != nil {
					t.Errorf("using %q: %v", key, err)
				}
				if first {
					firsts.Add(1)
				}
			})
		}
		wg.Wait()
		if n := firsts.Load(); n != 1 {
			t.Errorf("round %d: %d times the first", round, n)
		}
	}
	// The key is in the ledger as a hash only, and what it revokes is nothing.
	s := newSink()
	f := edges[0].Follow(s, ledger.Observer{})
	defer f.Stop()
	eventually(t, "in sync", func() bool { return f.State().InSync })
	if st := f.Stats(); st.Poison+st.Newer != 0 || s.count() != 0 || len(s.incompletes()) != 0 {
		t.Errorf("%+v, %d revoked, incomplete: %v", st, s.count(), s.incompletes())
	}
}

func TestAnAssertionIsForgottenAfterItsTime(t *testing.T) {
	t.Parallel()
	o := embedded(t.TempDir())
	o.MaxClockSkew = time.Second
	l := open(t, o)
	if first, err := l.UseOnce(t.Context(), "k", time.Millisecond); err != nil || !first {
		t.Fatalf("the first use: %t, %v", first, err)
	}
	if first, err := l.UseOnce(t.Context(), "k", time.Millisecond); err != nil || first {
		t.Errorf("the second use: %t, %v", first, err)
	}
	eventually(t, "usable again", func() bool {
		first, err := l.UseOnce(t.Context(), "k", time.Millisecond)
		return err == nil && first
	})
	for _, ttl := range []time.Duration{0, -time.Second, ledger.MaxAssertionTTL + 1} {
		if _, err := l.UseOnce(t.Context(), "k", ttl); !errors.Is(err, revocation.ErrInvalidRequest) {
			t.Errorf("%s: %v", ttl, err)
		}
	}
}

// A caller whose first attempt was stored, and whose acknowledgment was lost,
// must not hear that somebody else used its assertion.
func TestALostAcknowledgmentIsNoSecondUse(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	proxy := revocationtest.StartProxy(t, srv.Addr())
	o := external("nats://" + proxy.Addr())
	o.PublishTimeout, o.PublishDeadline = 300*time.Millisecond, 20*time.Second
	l := open(t, o)
	if _, err := l.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	proxy.Freeze()
	thaw := time.AfterFunc(time.Second, proxy.Thaw) // after several attempts
	defer thaw.Stop()
	first, err := l.UseOnce(t.Context(), "k", time.Minute)
	if err != nil || !first {
		t.Errorf("got %t, %v", first, err)
	}
	if first, err := l.UseOnce(t.Context(), "k", time.Minute); err != nil || first {
		t.Errorf("the second use: %t, %v", first, err)
	}
}

func TestAnAssertionThatCannotBeRecordedIsRefused(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	proxy := revocationtest.StartProxy(t, srv.Addr())
	o := external("nats://" + proxy.Addr())
	o.PublishTimeout, o.PublishDeadline = 200*time.Millisecond, 600*time.Millisecond
	l := open(t, o)
	if _, err := l.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	proxy.Refuse()
	if first, err := l.UseOnce(t.Context(), "k", time.Minute); first || !errors.Is(err, revocation.ErrUnavailable) {
		t.Errorf("in an outage: %t, %v", first, err)
	}
	proxy.Allow()
	eventually(t, "usable", func() bool { return l.Status().Usable })

	// A stream made by hand, which stores everything but assertions.
	js := client(t, srv.URL())
	c := streamConfig(t, js)
	c.Subjects = nil
	for _, k := range []ledger.Kind{ledger.KindEntry, ledger.KindRestore, ledger.KindHeartbeat, ledger.KindGenesis} {
		c.Subjects = append(c.Subjects, k.Subject())
	}
	if _, err := js.UpdateStream(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	eventually(t, "refused for the stream's subjects", func() bool {
		_, err := l.UseOnce(t.Context(), "k", time.Minute)
		setting := (*ledger.SettingError)(nil)
		return errors.As(err, &setting) && setting.Setting == "subjects" && errors.Is(err, revocation.ErrUnavailable)
	})
}

func streamConfig(t testing.TB, js jetstream.JetStream) jetstream.StreamConfig {
	t.Helper()
	stream, err := js.Stream(t.Context(), ledger.DefaultStream)
	if err != nil {
		t.Fatal(err)
	}
	return stream.CachedInfo().Config
}
