package oauth

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
)

// A server whose 200 has to be confirmed may say it to anybody, and inactive is
// what it calls any token that has ended. Only of one that was active when the
// request came, the end tells anything about the rest of its grant.
func TestUpstreamConfirmsOnlyWhatWasActiveBefore(t *testing.T) {
	for _, tt := range []struct {
		name          string
		asked         bool // the token is opaque
		before, after any  // whether it is active, or an error
		status, want  int  // recorded requests
		forwarded     bool
	}{
		{"dead before", false, false, false, 200, 1, true},
		{"alive before", false, true, false, 200, 2, true},
		{"alive after", false, true, true, 200, 0, true},
		{"nobody knows before", false, errors.New("down"), false, 503, 0, false},
		{"opaque", true, nil, false, 200, 2, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			answers := []any{tt.before, tt.after}
			if tt.asked {
				answers = answers[1:]
			}
			r := newUpstreamRig(t, func(o *UpstreamOptions) {
				o.Cascade = CascadeGrant
				o.Confirm = func(context.Context, string, string) (bool, error) {
					a := answers[0]
					answers = answers[1:]
					if err, ok := a.(error); ok {
						return false, err
					}
					return a.(bool), nil
				}
			})
			r.tokens.alive = tt.asked
			w := r.post("client_id=app&client_secret=wrong&token=" + tokenOwn)
			if got := len(r.revoker.revoked()); w.Code != tt.status || got != tt.want {
				t.Errorf("status %d, %d recorded: %s", w.Code, got, r.last().Result)
			}
			if forwarded := len(r.forms) > 0; forwarded != tt.forwarded {
				t.Errorf("forwarded: %v", forwarded)
			}
		})
	}
}

// The same goes for a retry that finds the token dead.
func TestUpstreamDoesNotBelieveARetryThatNeedsToBeConfirmed(t *testing.T) {
	for _, confirm := range []bool{false, true} {
		r := newUpstreamRig(t, func(o *UpstreamOptions) {
			o.Cascade = CascadeGrant
			if confirm {
				o.Confirm = func(context.Context, string, string) (bool, error) { return false, nil }
			}
		})
		r.tokens.alive = true
		r.answer = func(w http.ResponseWriter) error { w.WriteHeader(500); return nil }
		r.post("client_id=app&token=" + tokenOwn)
		r.tokens.errs = maps.Clone(r.tokens.errs)
		r.tokens.errs[tokenOwn] = errors.Join(ErrTokenInvalid, issuer.ErrInactive)
		r.answer = func(w http.ResponseWriter) error { w.WriteHeader(200); return nil }
		w := r.post("client_id=app&token=" + tokenOwn)
		want := 2
		if confirm {
			want = 1
		}
		if got := len(r.revoker.revoked()); w.Code != 200 || got != want || r.last().Result != ResultRevoked {
			t.Errorf("confirm %v: status %d, %d recorded, %s", confirm, w.Code, got, r.last().Result)
		}
	}
}

// The tokens of an intent are asked about again in the end, whoever records it.
func TestUpstreamRechecksUntilItHasSucceeded(t *testing.T) {
	var err error
	rechecked := 0
	r := newUpstreamRig(t, func(o *UpstreamOptions) {
		o.Recheck = func(context.Context, string) error { rechecked++; return err }
	})
	r.tokens.uses = map[string]TokenUse{tokenOwn: UseUnknown}
	err = errors.New("down")
	if w := r.post("client_id=app&token=" + tokenOwn); w.Code != 503 || rechecked != 1 {
		t.Errorf("status %d, %d rechecks", w.Code, rechecked)
	}
	r.tokens.errs = maps.Clone(r.tokens.errs)
	r.tokens.errs[tokenOwn] = ErrTokenExpired
	err = nil
	if w := r.post("client_id=app&token=" + tokenOwn); w.Code != 200 || rechecked != 2 && r.journal.Stats().Late == 0 {
		t.Errorf("status %d, %d rechecks", w.Code, rechecked)
	}
}

// A handler that panics keeps no place.
func TestUpstreamHoldsNothingAfterAPanic(t *testing.T) {
	r := newUpstreamRig(t, nil)
	r.answer = func(http.ResponseWriter) error { panic("oh") }
	func() {
		defer func() { _ = recover() }()
		r.post("client_id=app&token=" + tokenOwn)
	}()
	if s := r.journal.Stats(); s.Forwarded != 0 || s.Unknown != 1 {
		t.Errorf("%+v", s)
	}
}

// Only who has nothing to revoke is slowed down, where it is.
func TestUpstreamThrottlesFailuresOnly(t *testing.T) {
	from := func(addr string) func(*http.Request) {
		return func(r *http.Request) { r.RemoteAddr = netip.AddrPortFrom(netip.MustParseAddr(addr), 1).String() }
	}
	status := func(s int) func(http.ResponseWriter) error {
		return func(w http.ResponseWriter) error { w.WriteHeader(s); return nil }
	}
	for _, tt := range []struct {
		name, token string
		answer, max int
	}{
		{"garbage", "some.bad.jwt", 200, upstreamFailures},
		{"wrong secret", tokenOwn, 401, upstreamFailures},
		{"dead", "inactive", 200, upstreamDeadTokens},
		{"of nobody here", tokenOpaque, 400, upstreamDeadTokens},
		{"another's", tokenForeign, 200, upstreamDeadTokens},
		{"live", tokenOwn, 200, 0},
		{"the server is down", tokenOwn, 500, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			clock := newClock()
			r := newUpstreamRig(t, func(o *UpstreamOptions) { o.Now = clock.now })
			r.tokens.errs = maps.Clone(r.tokens.errs)
			r.tokens.errs["inactive"] = errors.Join(ErrTokenInvalid, issuer.ErrInactive)
			r.answer = status(tt.answer)
			body := url.Values{"client_id": {"app"}, "token": {tt.token}}.Encode()
			most := tt.max
			if most == 0 {
				most = 2 * upstreamFailures
			}
			for n := range most {
				if w := r.post(body, from("192.0.2.1")); w.Code != tt.answer {
					t.Fatalf("request %d: status %d", n, w.Code)
				}
			}
			if by := r.upstream.guard.passing; tt.max == 0 && len(by.failures.entries)+len(by.dead.entries) > 0 {
				t.Error("counted as failures")
			}
			forwarded := len(r.forms)
			w := r.post(body, from("192.0.2.1"))
			if throttled := w.Code == 429; throttled != (tt.max > 0) || throttled && (len(r.forms) != forwarded ||
				w.Header().Get("Retry-After") == "" || r.last().Result != ResultThrottled) {
				t.Errorf("the next one: status %d, %s", w.Code, r.last().Result)
			}
			r.answer = status(200)
			if w := r.post("client_id=app&token="+tokenOwn, from("192.0.2.2")); w.Code != 200 {
				t.Errorf("from another network: status %d", w.Code)
			}
			clock.advance(throttleWindow)
			if w := r.post("client_id=app&token="+tokenOwn, from("192.0.2.1")); w.Code != 200 {
				t.Errorf("later: status %d", w.Code)
			}
		})
	}
}

// crowded counts how many tokens are resolved at once.
type crowded struct {
	TokenResolver
	now, most atomic.Int64
}

func (c *crowded) Resolve(ctx context.Context, token string, as ResolveFor) (Resolved, error) {
	n := c.now.Add(1)
	defer c.now.Add(-1)
	for most := c.most.Load(); n > most && !c.most.CompareAndSwap(most, n); most = c.most.Load() {
	}
	time.Sleep(time.Millisecond)
	return c.TokenResolver.Resolve(ctx, token, as)
}

// The enforcement has to ask, too: there is room for it, and nobody is refused for
// having much to revoke.
func TestUpstreamAsksAboutFewTokensAtOnce(t *testing.T) {
	var c *crowded
	r := newUpstreamRig(t, func(o *UpstreamOptions) {
		c = &crowded{TokenResolver: o.Tokens}
		o.Tokens = c
	})
	var wg sync.WaitGroup
	codes := make([]int, 20*upstreamQuestions)
	for n := range codes {
		wg.Go(func() { codes[n] = r.post(fmt.Sprintf("client_id=app&x=%d&token=%s", n, tokenOwn)).Code })
	}
	wg.Wait()
	if slices.ContainsFunc(codes, func(c int) bool { return c != 200 }) {
		t.Errorf("statuses %v", codes)
	}
	if most := c.most.Load(); most > upstreamQuestions || most < 2 {
		t.Errorf("%d at once", most)
	}
}
