package issuer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// timed is an authorization server by the fake clock of synctest, which real
// connections would not let advance: how long it takes for each token, and what
// it answers then, an active answer without a status.
type timed func(token string) (takes time.Duration, status int)

func (s timed) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, err
	}
	takes, status := s(form.Get("token"))
	select {
	case <-time.After(takes):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	text := `{"active":false}`
	if status == 0 {
		text, status = activeText(nil), http.StatusOK
	}
	return &http.Response{
		StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(strings.NewReader(text)), Request: r,
	}, nil
}

func (s timed) introspector(t *testing.T, change func(*IntrospectionConfig)) *Introspector {
	t.Helper()
	c := IntrospectionConfig{Endpoint: "https://as.example.com/introspect", ClientID: "edge", ClientSecret: "geheim"}
	if change != nil {
		change(&c)
	}
	i := newIssuer(t, Config{Issuer: testIssuer, JWKSURI: testIssuer + "/keys"}, Options{})
	n, err := NewIntrospector(i, c, &http.Client{Transport: s})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return n
}

// Whoever makes up tokens, and asks for more than the server may be asked at
// once, neither has the breaker open nor keeps the tokens of others waiting.
func TestAFloodOfMadeUpTokensHoldsUpNobodyElse(t *testing.T) {
	for name, c := range map[string]struct {
		attackers int
		from      func(attacker int) netip.Addr
	}{
		"of one address":         {600, func(int) netip.Addr { return netip.MustParseAddr("192.0.2.1") }},
		"that fills the queue":   {2000, func(int) netip.Addr { return netip.MustParseAddr("192.0.2.1") }},
		"of one IPv6 network":    {2000, func(i int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i)) }},
		"of ten addresses":       {2000, func(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(i % 10)}) }},
		"whose source is hidden": {2000, func(int) netip.Addr { return netip.Addr{} }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := timed(func(token string) (time.Duration, int) {
					if strings.HasPrefix(token, "live") {
						return 100 * time.Millisecond, 0
					}
					return 100 * time.Millisecond, http.StatusOK
				}).introspector(t, nil)
				ctx, cancel := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				for attacker := range c.attackers {
					wg.Go(func() {
						req := IntrospectionRequest{Source: c.from(attacker)}
						for i := 0; ctx.Err() == nil; i++ {
							_, err := n.Introspect(ctx, fmt.Sprint("made-up-", attacker, "-", i), req)
							if !errors.Is(err, ErrInactive) && !errors.Is(err, ErrIntrospectionUnavailable) {
								t.Error(err)
							}
							time.Sleep(250 * time.Millisecond)
						}
					})
				}
				time.Sleep(3 * time.Second)
				for i := range 5 {
					began := time.Now()
					_, err := n.Introspect(t.Context(), fmt.Sprint("live-", i), IntrospectionRequest{Source: netip.MustParseAddr("198.51.100.1")})
					// One that is being asked, one for each of the other
					// networks at most, of sixteen at a time, and its own.
					if took := time.Since(began); err != nil || took > 300*time.Millisecond {
						t.Errorf("a live token of another network: %v after %s", err, took)
					}
					time.Sleep(700 * time.Millisecond)
				}
				synctest.Wait()
				if st := n.Status(); st.Failed != 0 || st.Failures != 0 || st.Opened != 0 || st.Refused == 0 || st.Running > maxWaiting+DefaultIntrospectionConcurrency {
					t.Errorf("%+v", st)
				}
				cancel()
				wg.Wait()
				synctest.Wait()
				if st := n.Status(); st.Running != 0 {
					t.Errorf("%+v", st)
				}
			})
		})
	}
}

func TestTooManyQuestionsAreRefusedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := timed(func(string) (time.Duration, int) { return time.Hour, 0 }).introspector(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		var callers sync.WaitGroup
		const all = maxWaiting + DefaultIntrospectionConcurrency
		for c := range all {
			callers.Go(func() { _, _ = n.Introspect(ctx, fmt.Sprint("token-", c), IntrospectionRequest{}) })
		}
		synctest.Wait()
		began := time.Now()
		introspectError(t, n, testToken, IntrospectionRequest{}, ErrIntrospectionUnavailable)
		if st := n.Status(); st.Running != all || st.Refused != 1 || time.Since(began) != 0 {
			t.Errorf("after %s: %+v", time.Since(began), st)
		}
		cancel()
		callers.Wait()
	})
}

func TestWhatHadToWaitForItsTurnIsNoFailureOfTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		takes := map[string]time.Duration{
			"first": 1400 * time.Millisecond, "second": 2 * time.Second, "third": time.Millisecond, "silent": time.Hour, "later": 0,
		}
		n := timed(func(token string) (time.Duration, int) { return takes[token], 0 }).introspector(t, func(c *IntrospectionConfig) {
			c.MaxConcurrent, c.BreakerFailures = 1, 1
		})
		began := time.Now()
		at := func(want time.Duration) {
			t.Helper()
			if took := time.Since(began); took != want {
				t.Errorf("after %s, want %s", took, want)
			}
		}
		ask := func(token string) chan verdict {
			c := inBackground(t.Context(), n, token, IntrospectionRequest{})
			synctest.Wait()
			return c
		}
		unavailable := func(c chan verdict) {
			t.Helper()
			if v := <-c; !errors.Is(v.err, ErrIntrospectionUnavailable) {
				t.Errorf("%+v", v)
			}
		}
		first, second, third := ask("first"), ask("second"), ask("third")
		if v := <-first; v.err != nil {
			t.Error(v.err)
		}
		at(1400 * time.Millisecond)
		// The second is asked now. The third has no turn in half of the timeout.
		unavailable(third)
		at(DefaultIntrospectionTimeout / 2)
		// The second has no answer within the timeout, but the server has not
		// had it for so long, and answers.
		unavailable(second)
		at(DefaultIntrospectionTimeout)
		eventually(t, "the second is answered", func() bool { return n.Status().Answers == 2 })
		if st := n.Status(); st.Failed != 0 || st.Breaker != BreakerClosed || st.Refused != 1 || st.Asked != 2 {
			t.Errorf("%+v", st)
		}
		// One that does not answer at all has failed, whether the question had
		// to wait or not.
		takes["first"] = time.Second
		n.PurgeAll()
		first, silent := ask("first"), ask("silent")
		began = time.Now()
		if v := <-first; v.err != nil {
			t.Error(v.err)
		}
		unavailable(silent)
		at(DefaultIntrospectionTimeout)
		if st := n.Status(); st.Breaker != BreakerClosed {
			t.Errorf("%+v", st)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if st := n.Status(); st.Breaker != BreakerOpen || st.Failed != 1 {
			t.Errorf("%+v", st)
		}
	})
}

func TestOpeningsOfTheBreakerAreCountedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := timed(func(token string) (time.Duration, int) {
			takes := 100 * time.Millisecond
			if token == "late" {
				takes = 2 * time.Second
			}
			return takes, http.StatusBadGateway
		}).introspector(t, func(c *IntrospectionConfig) { c.BreakerCooldown = Duration(time.Second) })
		opened := func(want uint64) {
			t.Helper()
			synctest.Wait()
			if st := n.Status(); st.Breaker != BreakerOpen || st.Opened != want {
				t.Errorf("%+v", st)
			}
		}
		late := inBackground(t.Context(), n, "late", IntrospectionRequest{})
		var all []chan verdict
		for i := range DefaultIntrospectionConcurrency - 1 {
			all = append(all, inBackground(t.Context(), n, fmt.Sprint("token-", i), IntrospectionRequest{}))
		}
		for _, c := range all {
			<-c
		}
		opened(1)
		time.Sleep(1500 * time.Millisecond)
		<-inBackground(t.Context(), n, "probe", IntrospectionRequest{})
		opened(2)
		<-late // from before
		opened(2)
	})
}
