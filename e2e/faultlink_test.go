//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// How long outages last here, and the staleness bound of the edges that they
// happen to. An edge says so by itself from 15 s on, which only the long form
// lasts for.
func outage() time.Duration { return inForm(8*time.Second, 60*time.Second) }
func bound() time.Duration  { return inForm(3*time.Second, 20*time.Second) }

const visible = 15 * time.Second

// slack is for a status that was asked for before, and answered after, a moment
// that counts, on a busy machine.
const slack = time.Second

func staleAfter() string { return "stale " + bound().String() }

func TestFaultFrozenLinkIsNoticedInTimeAndHealsWithNothingMissing(t *testing.T) {
	t.Parallel()
	server := startNATSServer(t)
	proxy := revocationtest.StartProxy(t, server.addr)
	f := newFleet(t)
	cut := f.add(following("nats://"+proxy.Addr(), 1), beating(), staleAfter())
	whole := f.add(following("nats://"+server.addr, 1), beating(), staleAfter())
	f.run()
	before := f.revokeSome(whole, 20)
	f.waitKnowing()

	proxy.Freeze()
	w := watchOutage(f, cut, before[0])
	during := f.revokeSome(whole, 20)
	if n := tryThrough(f, cut); n > 0 {
		t.Errorf("%d revocations were acknowledged through a frozen link", n)
	}
	time.Sleep(time.Until(w.began.Add(outage())))
	w.mustHaveNoticed()
	proxy.Thaw()
	f.waitKnowing()
	w.end()
	f.wantAllRefused("after a frozen link", append(before, during...), f.edges...)
	f.wantNoAlarm()
}

func TestFaultStoppedAndContinuedServerIsNoticedInTimeAndLosesNothing(t *testing.T) {
	t.Parallel()
	server := startNATSServer(t)
	f := newFleet(t)
	for range 2 {
		f.add(following("nats://"+server.addr, 1), beating(), staleAfter())
	}
	f.run()
	before := f.revokeSome(f.edges[0], 20)
	f.waitKnowing()

	server.process.signal(syscall.SIGSTOP)
	var watches []*outageWatch
	for _, e := range f.edges {
		watches = append(watches, watchOutage(f, e, before[0]))
	}
	if n := tryThrough(f, f.edges...); n > 0 {
		t.Errorf("%d revocations were acknowledged by a server that was stopped", n)
	}
	time.Sleep(time.Until(watches[0].began.Add(outage())))
	for _, w := range watches {
		w.mustHaveNoticed()
	}
	server.process.signal(syscall.SIGCONT)
	f.waitKnowing()
	for _, w := range watches {
		w.end()
	}
	after := f.revokeSome(f.edges[1], 20)
	f.waitKnowing()
	f.wantAllRefused("after the server was stopped and continued", append(before, after...), f.edges...)
	f.wantNoAlarm()
}

// An edge that was stopped, as a virtual machine is that moves elsewhere, does
// not know that time has passed. Its first answers must not be from memory.
func TestFaultStoppedAndContinuedEdgeDoesNotServeFromBeforeTheBound(t *testing.T) {
	t.Parallel()
	server := startNATSServer(t)
	f := newFleet(t)
	for range 2 {
		f.add(following("nats://"+server.addr, 1), beating(), "stale 3s")
	}
	f.run()
	stopped, other := f.edges[0], f.edges[1]
	stopped.eventuallyPasses("a good token", f.good)
	stopped.process.signal(syscall.SIGSTOP)
	t.Cleanup(func() { stopped.process.signal(syscall.SIGCONT) })
	tokens := f.revokeSome(other, 20)
	time.Sleep(inForm(5*time.Second, 30*time.Second))
	// Sent while it is stopped: answered the moment it continues.
	var asking sync.WaitGroup
	passed, answered := make(chan string, len(tokens)), make(chan int, len(tokens))
	for _, token := range tokens {
		asking.Go(func() {
			a := stopped.get(token)
			answered <- a.status
			if a.status != http.StatusServiceUnavailable && !refused(a) {
				passed <- a.String()
			}
		})
	}
	time.Sleep(200 * time.Millisecond)
	stopped.process.signal(syscall.SIGCONT)
	asking.Wait()
	t.Logf("%d revoked tokens sent while the edge was stopped: %d let through", len(answered), len(passed))
	if len(passed) > 0 {
		t.Errorf("the edge let pass what was revoked while it was stopped: %s", <-passed)
	}
	f.waitKnowing()
	f.wantAllRefused("after the edge was stopped and continued", tokens, f.edges...)
	f.wantNoAlarm()
}

// tryThrough sends a few revocations at the same time through edges whose ledger
// does not answer, and returns how many were acknowledged. All others must be
// answered with 503.
func tryThrough(f *fleet, edges ...*edge) (acknowledged int) {
	f.t.Helper()
	const each = 4
	answers := make(chan answer, each*len(edges))
	for _, e := range edges {
		for range each {
			token := f.token("user")
			go func() { answers <- e.tryRevoke(token) }()
		}
	}
	for range cap(answers) {
		switch a := <-answers; {
		case a.status == http.StatusOK:
			acknowledged++
		case a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "":
			f.t.Errorf("revoking without a ledger: want 503 with Retry-After: %s", a)
		}
	}
	return acknowledged
}

// outageWatch asks an edge again and again what it knows while its ledger is out
// of reach, and adds up for how long it claimed too much.
type outageWatch struct {
	f       *fleet
	e       *edge
	revoked string // before the outage
	began   time.Time
	stop    chan struct{}
	done    chan struct{}

	mu         sync.Mutex
	samples    int
	staleSince time.Duration // when it was first seen to refuse
	falseKnow  time.Duration // claimed to know of after the outage began
	falseSync  time.Duration // in_sync beyond the time from which staleness is visible
	falseServe time.Duration // let good tokens pass beyond the bound
	worst      string
}

func watchOutage(f *fleet, e *edge, revoked string) *outageWatch {
	w := &outageWatch{f: f, e: e, revoked: revoked, began: time.Now(), stop: make(chan struct{}), done: make(chan struct{})}
	go w.run()
	f.t.Cleanup(w.finish)
	return w
}

func (w *outageWatch) finish() {
	w.mu.Lock()
	select {
	case <-w.stop:
	default:
		close(w.stop)
	}
	w.mu.Unlock()
	<-w.done
}

func (w *outageWatch) run() {
	defer close(w.done)
	previous := w.began
	for {
		select {
		case <-w.stop:
			return
		case <-time.After(20 * time.Millisecond):
		}
		asked := time.Now()
		s, err := w.e.tryStatus()
		good, bad := w.e.get(w.f.good), w.e.get(w.revoked)
		select {
		case <-w.stop: // it healed while we were asking
			return
		default:
		}
		w.note(asked, asked.Sub(previous), s, err, good, bad)
		previous = asked
	}
}

func (w *outageWatch) note(asked time.Time, since time.Duration, s status, err error, good, bad answer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.samples++
	out := asked.Sub(w.began)
	// A proof that was on its way when the outage began arrives a moment later.
	if err == nil && s.knows(asked, w.began.Add(slack)) {
		w.falseKnow += since
		w.worst = fmt.Sprintf("%+v", s)
	}
	if err == nil && s.State == "in_sync" && out > min(visible, bound())+slack {
		w.falseSync += since
	}
	switch {
	case good.status == http.StatusOK:
		if out > bound()+slack {
			w.falseServe += since
		}
	case good.status == http.StatusServiceUnavailable && good.header.Get("Retry-After") != "":
		if w.staleSince == 0 {
			w.staleSince = out
		}
		// Its newest proof may have been a while old when the outage began.
		if out < bound()/2 {
			w.f.t.Errorf("%s refuses to serve %s after the outage began, which is well within the bound: %s", w.e.name, out, good)
		}
	default:
		w.f.t.Errorf("%s: a good token in an outage: %s", w.e.name, good)
	}
	if !refused(bad) {
		w.f.t.Errorf("%s: a token that was revoked before the outage: %s", w.e.name, bad)
	}
}

// mustHaveNoticed ends the watch, at the end of the outage.
func (w *outageWatch) mustHaveNoticed() {
	w.f.t.Helper()
	s := w.e.status()
	w.finish()
	if s.State != "stale" {
		w.f.t.Errorf("%s: %s after %s without its ledger", w.e.name, s.State, time.Since(w.began))
	}
	if s.Serving {
		w.f.t.Errorf("%s: serving after %s without its ledger: %+v", w.e.name, time.Since(w.began), s)
	}
	if s.age() < time.Since(w.began)-slack {
		w.f.t.Errorf("%s: wrong about its age after %s without its ledger: %+v", w.e.name, time.Since(w.began), s)
	}
}

// end prints and judges what was seen.
func (w *outageWatch) end() {
	w.f.t.Helper()
	w.finish()
	w.f.t.Logf("%s, outage of %s, asked %d times: refused from %s on (bound %s); false in sync %s, false knowledge %s, served beyond the bound %s",
		w.e.name, outage(), w.samples, w.staleSince.Round(time.Millisecond), bound(), w.falseSync, w.falseKnow, w.falseServe)
	if w.falseSync > 0 || w.falseKnow > 0 || w.falseServe > 0 {
		w.f.t.Errorf("%s claimed to know what it could not know: %s", w.e.name, w.worst)
	}
	if w.samples < 20 || w.staleSince == 0 {
		w.f.t.Errorf("%s was asked %d times and refused from %s on: nothing was measured", w.e.name, w.samples, w.staleSince)
	}
}
