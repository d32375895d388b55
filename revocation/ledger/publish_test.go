package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/ledger"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

func TestADecisionIsStoredOnceHoweverOftenItIsTried(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	l := open(t, external(srv.URL()))
	r := revoke("same")
	first, err := l.PublishRevocation(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	again, err := l.PublishRevocation(t.Context(), r)
	if err != nil || again != first {
		t.Errorf("the second attempt: sequence %d, %v; the first was %d", again, err, first)
	}
	if st := l.Status(); st.Published != 2 || st.Duplicates != 1 {
		t.Errorf("%+v", st)
	}
	// A restore and another revocation of the same token are other decisions.
	undo := &revocation.Restoration{ID: "undo", Criteria: r.Criteria, Expires: r.Expires}
	second, err := l.PublishRestoration(t.Context(), undo)
	if err != nil || second <= first {
		t.Errorf("the restore: sequence %d, %v", second, err)
	}
	r.ID = "later"
	if third, err := l.PublishRevocation(t.Context(), r); err != nil || third <= second {
		t.Errorf("revoked again: sequence %d, %v", third, err)
	}
}

func TestAFullLedgerRefusesLoudlyAndRecovers(t *testing.T) {
	t.Parallel()
	o := embedded(t.TempDir())
	o.MaxBytes = 1 << 20
	o.MaxClockSkew = time.Second
	var mu sync.Mutex
	var observed []error
	o.Published = func(_ ledger.Kind, _ time.Duration, err error) {
		mu.Lock()
		defer mu.Unlock()
		observed = append(observed, err)
	}
	l := open(t, o)
	s := newSink()
	f := l.Follow(s, ledger.Observer{})
	defer f.Stop()
	big := func(i int) *revocation.Revocation {
		r := revoke(fmt.Sprint("big-", i))
		r.Expires = time.Now().Add(4 * time.Second).Unix()
		for j := range 7 {
			r.Criteria.Claims[fmt.Sprint("claim", j)] = strings.Repeat("x", revocation.MaxClaimValue)
		}
		return r
	}
	acknowledged := 0
	var err error
	for err == nil && acknowledged < 1000 {
		if _, err = l.PublishRevocation(t.Context(), big(acknowledged)); err == nil {
			acknowledged++
		}
	}
	if !errors.Is(err, revocation.ErrFull) || errors.Is(err, revocation.ErrUnavailable) {
		t.Fatalf("after %d: %v", acknowledged, err)
	}
	eventually(t, "known as nearly full", l.NearlyFull)
	eventually(t, "all that was acknowledged is applied", func() bool { return s.count() == acknowledged })
	// What has ended makes room.
	eventually(t, "accepts again", func() bool {
		_, err := l.PublishRevocation(t.Context(), revoke("after"))
		return err == nil
	})
	eventually(t, "not nearly full any more", func() bool { return !l.NearlyFull() })
	if l.Status().Full == 0 {
		t.Error("not counted")
	}
	mu.Lock()
	defer mu.Unlock()
	if len(observed) < acknowledged+2 || observed[0] != nil || !errors.Is(observed[acknowledged], revocation.ErrFull) {
		t.Errorf("observed %d publishes", len(observed))
	}
}

func TestInvalidDecisionsNeverReachTheServer(t *testing.T) {
	t.Parallel()
	l := open(t, embedded(t.TempDir()))
	r := revoke("x")
	r.Expires = 0
	if _, err := l.PublishRevocation(t.Context(), r); !errors.Is(err, revocation.ErrInvalidRevocation) || errors.Is(err, revocation.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

func TestPublishingInAnOutageFailsInTimeAndStoresNothing(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	proxy := revocationtest.StartProxy(t, srv.Addr())
	o := external("nats://" + proxy.Addr())
	o.PublishTimeout, o.PublishDeadline = 200*time.Millisecond, 600*time.Millisecond
	l := open(t, o)
	publish(t, l, "before")
	for _, fault := range []struct {
		name        string
		begin, heal func()
	}{{"refused", proxy.Refuse, proxy.Allow}, {"frozen", proxy.Freeze, proxy.Thaw}} {
		fault.begin()
		begin := time.Now()
		if _, err := l.PublishRevocation(t.Context(), revoke("lost-"+fault.name)); !errors.Is(err, revocation.ErrUnavailable) {
			t.Errorf("%s: %v", fault.name, err)
		}
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("%s: took %s", fault.name, took)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := l.PublishRevocation(ctx, revoke("gone-"+fault.name)); !errors.Is(err, revocation.ErrUnavailable) {
			t.Errorf("%s, with a caller that went away: %v", fault.name, err)
		}
		fault.heal()
		eventually(t, "accepts again", func() bool {
			_, err := l.PublishRevocation(t.Context(), revoke("after-"+fault.name))
			return err == nil
		})
	}
	s := newSink()
	f := l.Follow(s, ledger.Observer{})
	defer f.Stop()
	eventually(t, "in sync", func() bool { return f.State().InSync })
	if s.has("lost-refused") || s.has("gone-refused") || !s.has("after-refused") || !s.has("after-frozen") {
		t.Errorf("stored: %v", s.ids())
	}
	if l.Status().Failed == 0 || l.Status().Reconnects == 0 {
		t.Errorf("%+v", l.Status())
	}
}

func TestWaitingDecisionsAreBounded(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	proxy := revocationtest.StartProxy(t, srv.Addr())
	o := external("nats://" + proxy.Addr())
	o.PublishTimeout, o.PublishDeadline, o.MaxPublishing = time.Second, 2*time.Second, 3
	l := open(t, o)
	publish(t, l, "before")
	proxy.Freeze()
	var wg sync.WaitGroup
	var mu sync.Mutex
	quick := 0
	for i := range 20 {
		wg.Go(func() {
			begin := time.Now()
			_, err := l.PublishRevocation(t.Context(), revoke(fmt.Sprint("x-", i)))
			if !errors.Is(err, revocation.ErrUnavailable) {
				t.Errorf("got %v", err)
			}
			mu.Lock()
			defer mu.Unlock()
			if time.Since(begin) < 500*time.Millisecond {
				quick++
			}
		})
	}
	wg.Wait()
	if refused := l.Status().Refused; refused < 10 || quick < 10 {
		t.Errorf("%d refused, %d quickly", refused, quick)
	}
}

func TestManyPublishersLoseNothing(t *testing.T) {
	t.Parallel()
	l := open(t, embedded(t.TempDir()))
	s := newSink()
	f := l.Follow(s, ledger.Observer{})
	defer f.Stop()
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			for j := range 20 {
				if _, err := l.PublishRevocation(t.Context(), revoke(fmt.Sprintf("%d-%d", i, j))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	eventually(t, "all applied", func() bool { return s.count() == 640 })
}

func TestAServerWithoutJetStreamSaysSo(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t, func(o *server.Options) { o.JetStream = false })
	o := external(srv.URL())
	o.PublishDeadline = 500 * time.Millisecond
	l := open(t, o)
	eventually(t, "noticed", func() bool { return errors.Is(l.Status().Problem, ledger.ErrNoJetStream) })
	if _, err := l.PublishRevocation(t.Context(), revoke("x")); !errors.Is(err, ledger.ErrNoJetStream) || !errors.Is(err, revocation.ErrUnavailable) {
		t.Errorf("publishing: %v", err)
	}
}
