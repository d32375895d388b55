package issuer

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// withClock returns a change that sets the clock, and the limits of the breaker.
func withClock(c *clock, failures int) func(*Config, *IntrospectionConfig, *Options) {
	return func(_ *Config, ic *IntrospectionConfig, o *Options) {
		o.Now = c.Now
		ic.BreakerFailures = failures
	}
}

func failing(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }

func TestTheBreakerOpensAndASingleQuestionClosesIt(t *testing.T) {
	now := newClock()
	s := newAsked(t, failing)
	var log logBuffer
	n := s.introspector(t, func(of *Config, c *IntrospectionConfig, o *Options) {
		withClock(now, 3)(of, c, o)
		o.Logger = log.logger()
	})
	ask := func(k int) {
		t.Helper()
		introspectError(t, n, fmt.Sprint("token-", k), IntrospectionRequest{}, ErrIntrospectionUnavailable)
	}
	state := func(want BreakerState, questions int) {
		t.Helper()
		eventually(t, "all have ended", func() bool { return n.Status().Running == 0 })
		if st := n.Status(); st.Breaker != want || s.count() != questions {
			t.Fatalf("%v after %d questions, want %v after %d", st.Breaker, s.count(), want, questions)
		}
	}
	ask(1)
	ask(2)
	state(BreakerClosed, 2)
	s.set(answers(`{"active":false}`)) // a success in between starts anew
	introspectError(t, n, testToken, IntrospectionRequest{}, ErrInactive)
	s.set(failing)
	ask(3)
	ask(4)
	state(BreakerClosed, 5)
	ask(5)
	state(BreakerOpen, 6)
	for k := range 10 {
		ask(k)
	}
	state(BreakerOpen, 6)
	if err := introspectError(t, n, "x", IntrospectionRequest{}, ErrIntrospectionUnavailable); !strings.Contains(err.Error(), "status 502") {
		t.Errorf("the reason is missing: %v", err)
	}

	now.add(2 * DefaultBreakerCooldown)
	ask(6) // the probe fails
	state(BreakerOpen, 7)
	ask(7)
	state(BreakerOpen, 7)

	// One probe at a time.
	now.add(2 * DefaultBreakerCooldown)
	g := newGate()
	s.set(g.serve)
	probe := inBackground(t.Context(), n, testToken, IntrospectionRequest{})
	h := g.next(t)
	if st := n.Status(); st.Breaker != BreakerHalfOpen {
		t.Fatal(st.Breaker)
	}
	ask(8)
	// Whoever asks about the same token waits for the probe.
	same := inBackground(t.Context(), n, testToken, IntrospectionRequest{})
	eventually(t, "the other has joined", func() bool { return n.Status().Shared == 1 })
	h.answer <- activeText(nil)
	for _, c := range []chan verdict{probe, same} {
		if v := await(t, c); v.err != nil {
			t.Fatal(v.err)
		}
	}
	state(BreakerClosed, 8)
	if st := n.Status(); st.Opened != 2 || st.Failures != 0 || st.Refused != 13 {
		t.Errorf("%+v", st)
	}
	if text := log.String(); strings.Count(text, "introspection fails") != 1 || strings.Count(text, "introspection works again") != 1 {
		t.Error(text)
	}
}

func TestKeptAnswersCountWhileTheBreakerIsOpen(t *testing.T) {
	s := newAsked(t, answers(activeText(nil)))
	n := s.introspector(t, withClock(newClock(), 1))
	introspect(t, n, testToken, IntrospectionRequest{})
	s.set(failing)
	introspectError(t, n, "other", IntrospectionRequest{}, ErrIntrospectionUnavailable)
	if n.Status().Breaker != BreakerOpen {
		t.Fatal("not open")
	}
	introspect(t, n, testToken, IntrospectionRequest{})
}

func TestWhatATokenCanBringAboutDoesNotOpenTheBreaker(t *testing.T) {
	json := func(text string) http.HandlerFunc { return answers(text) }
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		opens  bool
	}{
		"inactive":           {json(`{"active":false}`), false},
		"status 400":         {status(400), false},
		"a claim too long":   {json(activeText(map[string]any{"sub": strings.Repeat("x", 1025)})), false},
		"an answer too long": {json(activeText(map[string]any{"x": strings.Repeat("x", maxAnswer)})), false},
		"another iss":        {json(activeText(map[string]any{"iss": "https://x.example.com"})), false},
		"status 413":         {status(413), false},
		"status 414":         {status(414), false},
		"status 422":         {status(422), false},
		"status 431":         {status(431), false},
		"status 401":         {status(401), true},
		"status 403":         {status(403), true},
		"status 404":         {status(404), true},
		"status 429":         {status(429), true},
		"status 500":         {status(500), true},
		"a page":             {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }, true},
		"a broken connection": {func(http.ResponseWriter, *http.Request) {
			panic(http.ErrAbortHandler)
		}, true},
		"silence": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, true},
	} {
		t.Run(name, func(t *testing.T) {
			n := newAsked(t, c.answer).introspector(t, func(of *Config, ic *IntrospectionConfig, o *Options) {
				withClock(newClock(), 2)(of, ic, o)
				if name == "silence" {
					ic.Timeout = Duration(500 * time.Millisecond)
				}
			})
			for range 2 {
				_, err := n.Introspect(t.Context(), testToken, IntrospectionRequest{})
				if err == nil {
					t.Fatal("active")
				}
			}
			if open := n.Status().Breaker == BreakerOpen; open != c.opens {
				t.Errorf("%+v", n.Status())
			}
		})
	}
}

func TestTheBreakerCanBeSwitchedOff(t *testing.T) {
	s := newAsked(t, failing)
	n := s.introspector(t, withClock(newClock(), -1))
	for range 20 {
		introspectError(t, n, testToken, IntrospectionRequest{}, ErrIntrospectionUnavailable)
	}
	if s.count() != 20 || n.Status().Breaker != BreakerClosed {
		t.Errorf("%d questions, %+v", s.count(), n.Status())
	}
}

func TestQuestionsInLineAreNotSentOnceTheBreakerIsOpen(t *testing.T) {
	g := newGate()
	s := newAsked(t, func(w http.ResponseWriter, r *http.Request) {
		h := &held{answer: make(chan string, 1)}
		g.arrived <- h
		select {
		case <-h.answer:
			failing(w, r)
		case <-r.Context().Done():
		}
	})
	n := s.introspector(t, func(of *Config, c *IntrospectionConfig, o *Options) {
		slow(of, c, o)
		c.MaxConcurrent, c.BreakerFailures = 1, 1
	})
	first := inBackground(t.Context(), n, "first", IntrospectionRequest{})
	h := g.next(t)
	second := inBackground(t.Context(), n, "second", IntrospectionRequest{})
	eventually(t, "the second waits", func() bool { return n.Status().Running == 2 })
	h.answer <- ""
	await(t, first)
	if v := await(t, second); v.err == nil || s.count() != 1 {
		t.Errorf("%v, %d questions", v.err, s.count())
	}
}

func TestBreakerStates(t *testing.T) {
	now := newClock()
	b := breaker{limit: 1, cooldown: time.Second, now: now.Now}
	admit := func(want bool) uint64 {
		t.Helper()
		ticket, ok := b.admit()
		if ok != want {
			t.Fatalf("admitted: %v", ok)
		}
		return ticket
	}
	state := func(want BreakerState) {
		t.Helper()
		if got, _ := b.status(); got != want {
			t.Fatalf("%v, want %v", got, want)
		}
	}
	late := admit(true)
	b.report(admit(true), outcomeFailed)
	state(BreakerOpen)
	b.report(late, outcomeAnswered) // of before: old news
	state(BreakerOpen)
	admit(false)
	now.add(2 * time.Second)
	probe := admit(true)
	state(BreakerHalfOpen)
	admit(false)
	b.report(late, outcomeFailed)
	state(BreakerHalfOpen)
	b.report(probe, outcomeVoid) // taken back: the next one is the probe
	state(BreakerOpen)
	probe = admit(true)
	b.report(probe, outcomeAnswered)
	state(BreakerClosed)
	if s := fmt.Sprint(BreakerClosed, BreakerOpen, BreakerHalfOpen, BreakerState(7)); s != "closed open half_open BreakerState(7)" {
		t.Error(s)
	}
}
