package ledger_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/denylist"
	"github.com/edge-revocation/caddy-token-revocation/revocation/ledger"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// told collects the issuers that a denylist's watchers are told to ask again.
type told struct {
	mu      sync.Mutex
	issuers []string
}

func (w *told) watch(t testing.TB, d *denylist.Denylist) *told {
	t.Helper()
	t.Cleanup(d.Watch(func(c denylist.Change) {
		if c.Recheck == "" {
			return
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.issuers = append(w.issuers, c.Recheck)
	}))
	return w
}

func (w *told) all() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.issuers)
}

func recheck(id string) *revocation.Recheck {
	return &revocation.Recheck{ID: id, Issuer: "https://as.example.com", Actor: "upstream", DecidedAt: time.Now().UnixMilli()}
}

// lifeOf returns the Nats-TTL that the message at a sequence was stored with.
func lifeOf(t testing.TB, js jetstream.JetStream, sequence uint64) time.Duration {
	t.Helper()
	stream, err := js.Stream(t.Context(), ledger.DefaultStream)
	if err != nil {
		t.Fatal(err)
	}
	m, err := stream.GetMsg(t.Context(), sequence)
	if err != nil {
		t.Fatalf("entry %d: %v", sequence, err)
	}
	life, err := time.ParseDuration(m.Header.Get("Nats-TTL"))
	if err != nil {
		t.Fatalf("entry %d: %v", sequence, err)
	}
	return life
}

func TestARecheckReachesEveryEdge(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	a := newEdge(t, external(srv.URL())).synced(t)
	b := newEdge(t, external(srv.URL())).synced(t)
	js := client(t, srv.URL())
	atA, atB := new(told).watch(t, a.denylist), new(told).watch(t, b.denylist)
	receipt, err := a.service.Recheck(t.Context(), revocation.RecheckRequest{Issuer: "https://as.example.com", Reason: "opaque", Actor: "upstream"})
	if err != nil {
		t.Fatal(err)
	}
	if got := atA.all(); len(got) == 0 || got[0] != "https://as.example.com" {
		t.Errorf("not told here before the call returned: %q", got)
	}
	eventually(t, "told there", func() bool { return len(atB.all()) == 1 })
	if life := lifeOf(t, js, receipt.Sequence); life != revocation.MaxIntrospectionAge+ledger.DefaultMaxClockSkew {
		t.Errorf("kept for %s", life)
	}
	// Retries of one decision are one entry.
	r := recheck("0123456789abcdef0123456789abcdef")
	first, err := a.PublishRecheck(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := a.PublishRecheck(t.Context(), r); err != nil || again != first {
		t.Errorf("the retry is entry %d, %v; the first is %d", again, err, first)
	}
	if n := messages(t, js, ledger.KindRecheck.Subject()); n != 2 {
		t.Errorf("%d messages", n)
	}
	eventually(t, "applied", func() bool { return a.State().Sequence >= first && b.State().Sequence >= first })
	for _, e := range []*edge{a, b} {
		if reason, _, incomplete := e.denylist.Incomplete(time.Now()); incomplete {
			t.Errorf("incomplete: %s", reason)
		}
		if st := e.Stats(); st.Newer+st.Poison+st.ShortLived != 0 || e.denylist.Position().Sequence < first {
			t.Errorf("%+v, position %d", st, e.denylist.Position().Sequence)
		}
	}
}

func TestARecheckOfAnyProducerIsCarriedOut(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	e := newEdge(t, external(srv.URL())).synced(t)
	js := client(t, srv.URL())
	seen := new(told).watch(t, e.denylist)
	put(t, js, ledger.KindRecheck, `{"v":1,"issuer":"https://as.example.com"}`)
	put(t, js, ledger.KindRecheck, `{"v":1,"issuer":"https://b.example","reason":null,"x":[1]}`, jetstream.WithMsgTTL(time.Minute))
	eventually(t, "told", func() bool { return slices.Equal(seen.all(), []string{"https://as.example.com", "https://b.example"}) })
	if st := e.Stats(); st.Poison != 0 || st.ShortLived != 1 {
		t.Errorf("%+v", st)
	}
}

// It may have been about a token that is revoked: the edge is incomplete for as
// long as it can matter, but no longer, however long the server keeps it.
func TestARecheckThatCannotBeReadMakesTheEdgeIncomplete(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	e := newEdge(t, external(srv.URL())).synced(t)
	js := client(t, srv.URL())
	seen := new(told).watch(t, e.denylist)
	long := time.Now().Add(revocation.MaxIntrospectionAge + time.Minute).Unix()
	for name, payload := range map[string]string{
		"no issuer":          `{"v":1}`,
		"an empty issuer":    `{"v":1,"issuer":""}`,
		"narrower":           `{"v":1,"issuer":"x","criteria":{"sub":"alice"}}`,
		"an entry":           entry("x"),
		"an acknowledgment":  `{"v":1,"issuer":"x","entry":1}`,
		"issuer twice":       `{"v":1,"issuer":"x","issuer":"y"}`,
		"too large":          `{"v":1,"issuer":"x","z":"` + strings.Repeat("z", ledger.MaxPayload) + `"}`,
		"a reason too long":  `{"v":1,"issuer":"x","reason":"` + strings.Repeat("z", revocation.MaxReason+1) + `"}`,
		"an issuer too long": `{"v":1,"issuer":"` + strings.Repeat("z", revocation.MaxIssuer+1) + `"}`,
	} {
		sequence := put(t, js, ledger.KindRecheck, payload)
		eventually(t, "applied", func() bool { return e.State().Sequence >= sequence })
		reason, until, incomplete := e.denylist.Incomplete(time.Now())
		if !incomplete || !strings.Contains(reason, fmt.Sprint("entry ", sequence)) || until > long {
			t.Errorf("%s: incomplete %t until %d: %s", name, incomplete, until, reason)
		}
		if _, err := e.PublishAcknowledgment(t.Context(), sequence, "", "operator"); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		eventually(t, "acknowledged", func() bool { _, _, incomplete := e.denylist.Incomplete(time.Now()); return !incomplete })
	}
	if got := seen.all(); len(got) != 0 {
		t.Errorf("carried out for %q", got)
	}
}

// A stream that lists the subjects of earlier versions goes on working; only
// rechecks are refused, with the setting that is in the way.
func TestAStreamOfAnEarlierVersionTakesNoRechecks(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	e := newEdge(t, external(srv.URL())).synced(t)
	js := client(t, srv.URL())
	if _, err := e.PublishRecheck(t.Context(), recheck("a")); err != nil {
		t.Fatalf("on the stream as it is created: %v", err)
	}
	c := streamConfig(t, js)
	old := []string{
		ledger.KindEntry.Subject(), ledger.KindRestore.Subject(), ledger.KindHeartbeat.Subject(),
		ledger.KindGenesis.Subject(), ledger.KindAssertion.Subject() + ".*",
	}
	c.Subjects = old
	if _, err := js.UpdateStream(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	eventually(t, "refused for the subjects", func() bool {
		_, err := e.PublishRecheck(t.Context(), recheck("b"))
		setting := (*ledger.SettingError)(nil)
		return errors.As(err, &setting) && setting.Setting == "subjects" && errors.Is(err, revocation.ErrUnavailable)
	})
	publish(t, e.Ledger, "x")
	eventually(t, "revocations go on", func() bool { return e.denies("x") })
	if st := e.Status(); st.Problem != nil {
		t.Errorf("not usable: %v", st.Problem)
	}
	for _, subjects := range [][]string{append(slices.Clone(old), ledger.KindRecheck.Subject()), {ledger.SubjectPrefix + "*"}} {
		c.Subjects = subjects
		if _, err := js.UpdateStream(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		eventually(t, fmt.Sprint("taken with ", subjects), func() bool {
			_, err := e.PublishRecheck(t.Context(), recheck("c"+fmt.Sprint(len(subjects))))
			return err == nil
		})
	}
}

func TestARecheckNeedsPermission(t *testing.T) {
	t.Parallel()
	// That of an earlier version's publisher.
	srv := revocationtest.StartNATS(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "u", Password: secret, Permissions: &server.Permissions{
			Publish:   &server.SubjectPermission{Deny: []string{ledger.KindRecheck.Subject()}},
			Subscribe: &server.SubjectPermission{Allow: []string{">"}},
		}}}
	})
	o := external(srv.URL())
	o.External.User, o.External.Password = "u", secret
	l := open(t, o)
	publish(t, l, "x")
	if _, err := l.PublishRecheck(t.Context(), recheck("a")); !errors.Is(err, ledger.ErrNotPermitted) || !errors.Is(err, revocation.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

func TestANearlyFullLedgerTakesNoRechecks(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	o := external(srv.URL())
	o.MaxBytes = 1 << 20
	l := open(t, o)
	if _, err := l.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	js := client(t, srv.URL())
	for !l.NearlyFull() {
		if _, err := js.Publish(t.Context(), ledger.KindHeartbeat.Subject(), []byte(`{"v":1,"x":"`+strings.Repeat("x", 1<<15)+`"}`), jetstream.WithMsgTTL(time.Hour)); err != nil {
			eventually(t, "known as nearly full", l.NearlyFull)
		}
	}
	if _, err := l.PublishRecheck(t.Context(), recheck("a")); !errors.Is(err, revocation.ErrFull) {
		t.Errorf("got %v", err)
	}
	publish(t, l, "an operator's")
}
