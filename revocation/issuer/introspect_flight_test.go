package issuer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// gate holds every question back until it is let through, and answers with what
// the test wants.
type gate struct {
	arrived chan *held
}

type held struct{ answer chan string }

func newGate() *gate { return &gate{arrived: make(chan *held, 4096)} }

func (g *gate) serve(w http.ResponseWriter, r *http.Request) {
	// The body was read by the server around this handler.
	h := &held{answer: make(chan string, 1)}
	g.arrived <- h
	select {
	case text := <-h.answer:
		answers(text)(w, r)
	case <-r.Context().Done():
	case <-time.After(20 * time.Second):
	}
}

// next returns the next question that has arrived.
func (g *gate) next(t testing.TB) *held {
	t.Helper()
	select {
	case h := <-g.arrived:
		return h
	case <-time.After(10 * time.Second):
		t.Fatal("no question has arrived")
		return nil
	}
}

type verdict struct {
	result Introspection
	err    error
}

// inBackground asks, and returns where the verdict will be.
func inBackground(ctx context.Context, n *Introspector, token string, req IntrospectionRequest) chan verdict {
	c := make(chan verdict, 1)
	go func() {
		result, err := n.Introspect(ctx, token, req)
		c <- verdict{result, err}
	}()
	return c
}

func await(t testing.TB, c chan verdict) verdict {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(10 * time.Second):
		t.Fatal("no verdict")
		return verdict{}
	}
}

func slow(_ *Config, c *IntrospectionConfig, _ *Options) { c.Timeout = Duration(20 * time.Second) }

func TestOneQuestionForAllWhoAskAtTheSameTime(t *testing.T) {
	g := newGate()
	s := newAsked(t, g.serve)
	n := s.introspector(t, slow)
	const callers = 50
	var waiting []chan verdict
	for range callers {
		waiting = append(waiting, inBackground(t.Context(), n, testToken, IntrospectionRequest{}))
	}
	h := g.next(t)
	eventually(t, "all have joined", func() bool { return n.Status().Shared == callers-1 })
	// Another token and another hint are other questions.
	other := inBackground(t.Context(), n, testToken+"x", IntrospectionRequest{})
	g.next(t).answer <- `{"active":false}`
	if v := await(t, other); !errors.Is(v.err, ErrInactive) {
		t.Error(v.err)
	}
	other = inBackground(t.Context(), n, testToken, IntrospectionRequest{Hint: "refresh_token"})
	g.next(t).answer <- `{"active":false}`
	if v := await(t, other); !errors.Is(v.err, ErrInactive) {
		t.Error(v.err)
	}
	h.answer <- activeText(nil)
	for _, c := range waiting {
		if v := await(t, c); v.err != nil || v.result.Identity == nil {
			t.Error(v.err)
		}
	}
	if s.count() != 3 {
		t.Errorf("%d questions", s.count())
	}
}

func TestWhoeverLeavesTakesNobodyAlong(t *testing.T) {
	g := newGate()
	s := newAsked(t, g.serve)
	n := s.introspector(t, slow)
	ctx, cancel := context.WithCancelCause(t.Context())
	first := inBackground(ctx, n, testToken, IntrospectionRequest{})
	h := g.next(t)
	second := inBackground(t.Context(), n, testToken, IntrospectionRequest{})
	eventually(t, "the second has joined", func() bool { return n.Status().Shared == 1 })
	gone := errors.New("gone home")
	cancel(gone)
	if v := await(t, first); !errors.Is(v.err, ErrIntrospectionUnavailable) || !errors.Is(v.err, gone) {
		t.Errorf("%v", v.err)
	}
	h.answer <- activeText(nil)
	if v := await(t, second); v.err != nil {
		t.Error(v.err)
	}
	if s.count() != 1 {
		t.Errorf("%d questions", s.count())
	}
	if b := n.Status(); b.Failures != 0 || b.Failed != 0 {
		t.Errorf("%+v", b)
	}
}

func TestAQuestionThatWasSentGoesOnWithoutCallers(t *testing.T) {
	g := newGate()
	s := newAsked(t, g.serve)
	n := s.introspector(t, slow)
	ctx, cancel := context.WithCancel(t.Context())
	first := inBackground(ctx, n, testToken, IntrospectionRequest{})
	h := g.next(t)
	cancel()
	await(t, first)
	h.answer <- activeText(nil)
	eventually(t, "the answer is kept", func() bool { return n.Status().Answers == 1 })
}

func TestNoMoreQuestionsAtOnceThanAllowed(t *testing.T) {
	g := newGate()
	s := newAsked(t, g.serve)
	n := s.introspector(t, func(of *Config, c *IntrospectionConfig, o *Options) {
		slow(of, c, o)
		c.MaxConcurrent = 3
	})
	var now, most atomic.Int64
	count := g.serve
	s.set(func(w http.ResponseWriter, r *http.Request) {
		for m := now.Add(1); m > most.Load(); {
			most.Store(m)
		}
		defer now.Add(-1)
		count(w, r)
	})
	var waiting []chan verdict
	const all = 12
	for c := range all {
		waiting = append(waiting, inBackground(t.Context(), n, fmt.Sprint("token-", c), IntrospectionRequest{}))
	}
	eventually(t, "all wait", func() bool { return n.Status().Running == all && s.count() == 3 })
	for range all {
		g.next(t).answer <- `{"active":false}`
	}
	for _, c := range waiting {
		if v := await(t, c); !errors.Is(v.err, ErrInactive) {
			t.Error(v.err)
		}
	}
	if most.Load() != 3 {
		t.Errorf("%d at once", most.Load())
	}
}

func TestAQuestionThatWaitsForItsTurnIsTakenBack(t *testing.T) {
	g := newGate()
	s := newAsked(t, g.serve)
	n := s.introspector(t, func(of *Config, c *IntrospectionConfig, o *Options) {
		slow(of, c, o)
		c.MaxConcurrent = 1
	})
	first := inBackground(t.Context(), n, "first", IntrospectionRequest{})
	h := g.next(t)
	ctx, cancel := context.WithCancel(t.Context())
	second := inBackground(ctx, n, "second", IntrospectionRequest{})
	eventually(t, "the second waits", func() bool { return n.Status().Running == 2 })
	cancel()
	await(t, second)
	eventually(t, "the second has left", func() bool { return n.Status().Running == 1 })
	h.answer <- activeText(nil)
	await(t, first)
	if s.count() != 1 {
		t.Errorf("%d questions", s.count())
	}
}

func TestAQuestionThatWaitsForItsTurnStaysWhileSomebodyWantsIt(t *testing.T) {
	g := newGate()
	s := newAsked(t, g.serve)
	n := s.introspector(t, func(of *Config, c *IntrospectionConfig, o *Options) {
		slow(of, c, o)
		c.MaxConcurrent = 1
	})
	first := inBackground(t.Context(), n, "first", IntrospectionRequest{})
	h := g.next(t)
	ctx, cancel := context.WithCancel(t.Context())
	gone := inBackground(ctx, n, "second", IntrospectionRequest{})
	eventually(t, "the second waits", func() bool { return n.Status().Running == 2 })
	stays := inBackground(t.Context(), n, "second", IntrospectionRequest{})
	eventually(t, "the third has joined", func() bool { return n.Status().Shared == 1 })
	cancel()
	await(t, gone)
	h.answer <- activeText(nil)
	await(t, first)
	g.next(t).answer <- activeText(nil)
	if v := await(t, stays); v.err != nil {
		t.Error(v.err)
	}
}

func TestTheTimeoutIsThatOfTheWholeQuestion(t *testing.T) {
	g := newGate()
	s := newAsked(t, g.serve)
	n := s.introspector(t, func(_ *Config, c *IntrospectionConfig, _ *Options) {
		c.Timeout, c.MaxConcurrent = Duration(time.Second), 1
	})
	began := time.Now()
	first := inBackground(t.Context(), n, "first", IntrospectionRequest{})
	g.next(t)
	second := inBackground(t.Context(), n, "second", IntrospectionRequest{})
	for _, c := range []chan verdict{first, second} {
		if v := await(t, c); !errors.Is(v.err, ErrIntrospectionUnavailable) {
			t.Error(v.err)
		}
	}
	if took := time.Since(began); took > 9*time.Second {
		t.Errorf("took %s", took)
	}
	// Only the one that was sent counts against the server.
	eventually(t, "both have ended", func() bool { return n.Status().Running == 0 })
	if st := n.Status(); st.Failures != int(st.Asked) {
		t.Errorf("%+v", st)
	}
}

func TestCloseReleasesWhoWaits(t *testing.T) {
	g := newGate()
	s := newAsked(t, g.serve)
	n := s.introspector(t, slow)
	waiting := inBackground(t.Context(), n, testToken, IntrospectionRequest{})
	g.next(t)
	n.Close()
	if v := await(t, waiting); !errors.Is(v.err, ErrIntrospectionUnavailable) {
		t.Error(v.err)
	}
	introspectError(t, n, testToken, IntrospectionRequest{}, ErrIntrospectionUnavailable)
	n.Close()
	if st := n.Status(); st.Failures != 0 || s.count() != 1 {
		t.Errorf("%+v", st)
	}
}

// whose returns a match for a purge by subject.
func whose(sub string) func(*revocation.Identity) bool {
	return func(id *revocation.Identity) bool {
		v, _ := id.Value(revocation.ClaimSubject)
		return v == sub
	}
}

func TestNoAnswerFromBeforeAPurgeIsHandedToThoseWhoComeAfterIt(t *testing.T) {
	hash, err := OpaqueTokenHash(testToken)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		purge  func(*Introspector)
		keeps  bool // the answer that was on its way
		shares bool // the question that was on its way
	}{
		"by user":          {func(n *Introspector) { n.Purge(whose("alice")) }, false, false},
		"by another user":  {func(n *Introspector) { n.Purge(whose("bob")) }, true, false},
		"by another claim": {func(n *Introspector) { n.Purge(hasGroup, "groups") }, false, false},
		"by token":         {func(n *Introspector) { n.PurgeToken(hash) }, false, false},
		"by another token": {func(n *Introspector) { n.PurgeToken("x") }, true, true},
		"two purges": {func(n *Introspector) {
			n.Purge(whose("bob"))
			n.Purge(whose("alice"))
			n.Purge(whose("bob"))
		}, false, false},
		"more purges than are remembered": {func(n *Introspector) {
			for range maxPurges + 1 {
				n.Purge(whose("bob"))
			}
		}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGate()
			s := newAsked(t, g.serve)
			n := s.introspector(t, slow)
			before := inBackground(t.Context(), n, testToken, IntrospectionRequest{})
			old := g.next(t)
			c.purge(n)
			after := inBackground(t.Context(), n, testToken, IntrospectionRequest{})
			if c.shares {
				eventually(t, "the second has joined", func() bool { return n.Status().Shared == 1 })
			} else {
				g.next(t).answer <- `{"active":false}`
				if v := await(t, after); !errors.Is(v.err, ErrInactive) {
					t.Fatalf("%v", v.err)
				}
			}
			old.answer <- activeText(map[string]any{"groups": []string{"a", "b"}})
			if v := await(t, before); v.err != nil {
				t.Fatal(v.err)
			}
			if c.shares {
				if v := await(t, after); v.err != nil {
					t.Fatal(v.err)
				}
			}
			// The later question has found the token dead: the older answer is
			// not kept, whatever the purge was about.
			eventually(t, "all have ended", func() bool { return n.Status().Running == 0 })
			if kept := n.Status().Answers; (kept == 1) != c.shares {
				t.Errorf("%d answers are kept", kept)
			}
		})
		t.Run(name+", alone", func(t *testing.T) {
			g := newGate()
			n := newAsked(t, g.serve).introspector(t, slow)
			before := inBackground(t.Context(), n, testToken, IntrospectionRequest{})
			old := g.next(t)
			c.purge(n)
			old.answer <- activeText(map[string]any{"groups": []string{"a", "b"}})
			await(t, before)
			eventually(t, "it has ended", func() bool { return n.Status().Running == 0 })
			if kept := n.Status().Answers; (kept == 1) != c.keeps {
				t.Errorf("%d answers are kept", kept)
			}
		})
	}
}

func hasGroup(id *revocation.Identity) bool {
	for _, c := range id.Values("groups") {
		if c.Value == "b" {
			return true
		}
	}
	return false
}

func TestAskingNowIsAQuestionOfItsOwn(t *testing.T) {
	g := newGate()
	s := newAsked(t, g.serve)
	n := s.introspector(t, slow)
	earlier := inBackground(t.Context(), n, testToken, IntrospectionRequest{})
	old := g.next(t)
	now := inBackground(t.Context(), n, testToken, IntrospectionRequest{MaxAge: -1})
	fresh := g.next(t)
	// Those who come later may share the newer one.
	later := inBackground(t.Context(), n, testToken, IntrospectionRequest{})
	eventually(t, "the third has joined", func() bool { return n.Status().Shared == 1 })
	fresh.answer <- `{"active":false}`
	for _, c := range []chan verdict{now, later} {
		if v := await(t, c); !errors.Is(v.err, ErrInactive) {
			t.Error(v.err)
		}
	}
	old.answer <- activeText(nil)
	if v := await(t, earlier); v.err != nil {
		t.Error(v.err)
	}
	eventually(t, "all have ended", func() bool { return n.Status().Running == 0 })
	if n.Status().Answers != 0 {
		t.Error("an older answer outlived a newer one")
	}
	// A kept answer is not used, and goes when the newer one says otherwise.
	s.set(answers(activeText(nil)))
	introspect(t, n, testToken, IntrospectionRequest{})
	s.set(answers(`{"active":false}`))
	introspect(t, n, testToken, IntrospectionRequest{})
	introspectError(t, n, testToken, IntrospectionRequest{MaxAge: -1}, ErrInactive)
	introspectError(t, n, testToken, IntrospectionRequest{}, ErrInactive)
}

func TestAnOlderAnswerDoesNotReplaceANewerOne(t *testing.T) {
	g := newGate()
	n := newAsked(t, g.serve).introspector(t, slow)
	earlier := inBackground(t.Context(), n, testToken, IntrospectionRequest{})
	old := g.next(t)
	now := inBackground(t.Context(), n, testToken, IntrospectionRequest{MaxAge: -1})
	g.next(t).answer <- activeText(map[string]any{"sid": "new"})
	await(t, now)
	old.answer <- activeText(map[string]any{"sid": "old"})
	await(t, earlier)
	if v, _ := introspect(t, n, testToken, IntrospectionRequest{}).Identity.Value("sid"); v != "new" {
		t.Errorf("sid %q", v)
	}
}

// TestPurgesAndQuestionsAtOnce lets everything run at the same time, for the race
// detector, and checks the promise of Purge from outside: the server numbers its
// answers, and after a purge none is seen that was given before it.
func TestPurgesAndQuestionsAtOnce(t *testing.T) {
	var epoch atomic.Int64
	s := newAsked(t, func(w http.ResponseWriter, r *http.Request) {
		answers(activeText(map[string]any{"sid": epoch.Load()}))(w, r)
	})
	n := s.introspector(t, func(of *Config, c *IntrospectionConfig, o *Options) {
		slow(of, c, o)
		c.CacheTTL = Duration(MaxIntrospectionTTL)
	})
	ctx, cancel := context.WithCancel(t.Context())
	var purged atomic.Int64
	var work sync.WaitGroup
	for c := range 4 {
		work.Go(func() {
			for q := 0; ctx.Err() == nil; q++ {
				least := purged.Load()
				req := IntrospectionRequest{}
				if q%7 == c {
					req.ClaimNames = []string{"scope"}
				}
				result, err := n.Introspect(ctx, fmt.Sprint("token-", q%3), req)
				if err != nil {
					if ctx.Err() == nil {
						t.Error(err)
					}
					return
				}
				var got int64
				v, _ := result.Identity.Value("sid")
				if _, err := fmt.Sscan(v, &got); err != nil || got < least {
					t.Errorf("an answer of epoch %s, after the purge of epoch %d", v, least)
					return
				}
			}
		})
	}
	hash, err := OpaqueTokenHash("token-1")
	if err != nil {
		t.Fatal(err)
	}
	for e := range 100 {
		epoch.Store(int64(e))
		if e%5 == 0 {
			n.PurgeToken(hash)
		}
		n.Purge(func(*revocation.Identity) bool { return true })
		purged.Store(int64(e))
		introspect(t, n, "token-0", IntrospectionRequest{})
	}
	cancel()
	work.Wait()
}
