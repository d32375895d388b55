package oauth

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

func TestPaceAllowsABurstThenItsRate(t *testing.T) {
	c := newClock()
	p := newPace(50, 100, c.now)
	a, b := paceKeyOf(&Client{ID: "a", Issuer: issuerA}), paceKeyOf(&Client{ID: "b", Issuer: issuerA})
	taken := func(key paceKey) (n int) {
		for p.take(key) == 0 {
			n++
		}
		return n
	}
	if n := taken(a); n != 100 {
		t.Errorf("a burst of %d", n)
	}
	if wait := p.take(a); wait != 20*time.Millisecond {
		t.Errorf("has to wait %v", wait)
	}
	if n := taken(b); n != 100 {
		t.Errorf("another client: a burst of %d", n)
	}
	c.advance(time.Second)
	if n := taken(a); n != 50 {
		t.Errorf("%d after a second", n)
	}
	c.advance(time.Hour)
	if n := taken(a); n != 100 {
		t.Errorf("%d after an hour", n)
	}
	c.advance(-time.Hour)
	if wait := p.take(a); wait != 0 {
		t.Errorf("the clock was set back: has to wait %v", wait)
	}
	if paceKeyOf(&Client{ID: "a", Issuer: issuerB}) == a {
		t.Error("the same name at another issuer is another client")
	}
}

func TestPaceStaysBounded(t *testing.T) {
	c := newClock()
	p := newPace(1, 2, c.now)
	for i := range maxPaced + 100 {
		p.take(paceKeyOf(&Client{ID: fmt.Sprint(i)}))
	}
	if n := len(p.entries); n != maxPaced || p.byUse.Len() != n {
		t.Errorf("%d entries, %d in order", n, p.byUse.Len())
	}
	c.advance(time.Minute)
	p.take(paceKeyOf(&Client{ID: "x"}))
	if n := len(p.entries); n != 1 || p.byUse.Len() != n {
		t.Errorf("%d entries a minute later", n)
	}
}

func TestOneClientSpendsOnlySoManyAssertions(t *testing.T) {
	clock := newClock()
	guard := NewGuard(GuardOptions{Now: clock.now})
	share := func(o *EndpointOptions) { o.Guard, o.Now = guard, clock.now }
	r, a := assertingRig(t, share)
	r.clock = clock
	n := 0
	next := func(client string) string {
		n++
		return revocationtest.SignWith(t, a.es, nil, r.claims(client, map[string]any{"jti": fmt.Sprint(n)}))
	}
	for range 2 * DefaultAssertionsPerSecond {
		if w := r.assert(next("signer"), nil); w.Code != http.StatusOK {
			t.Fatalf("status %d of number %d", w.Code, n)
		}
	}
	text := next("signer")
	w := r.assert(text, nil)
	if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "1" || errorCode(t, w.Code, w.Body) != ErrorTemporarilyUnavailable {
		t.Fatalf("status %d, %v", w.Code, w.Header())
	}
	if len(a.store.used) != 2*DefaultAssertionsPerSecond {
		t.Errorf("%d assertions were spent", len(a.store.used))
	}
	if w := r.assert(next("es-only"), nil); w.Code != http.StatusOK {
		t.Errorf("another client: status %d", w.Code)
	}
	// A reload makes new endpoints; the count goes on.
	after, err := NewEndpoint(r.endpoint.options)
	if err != nil {
		t.Fatal(err)
	}
	r.endpoint = after
	if w := r.assert(text, nil); w.Code != http.StatusTooManyRequests {
		t.Errorf("after a reload: status %d", w.Code)
	}
	clock.advance(time.Second)
	if w := r.assert(text, nil); w.Code != http.StatusOK {
		t.Errorf("a second later: status %d", w.Code)
	}
}

// What is refused for its token anyway costs no message in the ledger.
func TestAssertionIsSpentOnRequestsWithATokenOnly(t *testing.T) {
	for name, token := range map[string]string{
		"none": "", "blank": " \t", "too long": strings.Repeat("x", DefaultMaxToken+1), "with a line break": "x.y.z\n",
	} {
		r, a := assertingRig(t, nil)
		form := url.Values{paramToken: {token}}
		text := revocationtest.SignWith(t, a.es, nil, r.claims("signer", nil))
		for range 30 {
			w := r.assert(text, form)
			same := r.post(form.Encode(), asApp)
			if w.Code != http.StatusBadRequest || w.Code != same.Code || w.Body.String() != same.Body.String() {
				t.Fatalf("%s: %d %s, a client with a secret gets %d %s", name, w.Code, w.Body, same.Code, same.Body)
			}
		}
		if len(a.store.used) != 0 {
			t.Errorf("%s: the assertion was spent", name)
		}
		if w := r.assert(text, nil); w.Code != http.StatusOK {
			t.Errorf("%s, then a token: status %d", name, w.Code)
		}
		if w := r.assert(text, nil); w.Code != http.StatusUnauthorized {
			t.Errorf("%s, and again: status %d", name, w.Code)
		}
		// Who the client is comes first.
		forged := revocationtest.SignWith(t, a.other, nil, r.claims("signer", map[string]any{"jti": "x"}))
		if w := r.assert(forged, form); w.Code != http.StatusUnauthorized {
			t.Errorf("%s, forged: status %d", name, w.Code)
		}
	}
	r, a := assertingRig(t, nil)
	a.store.down = errors.New("must not be asked")
	if w := r.assert(revocationtest.SignWith(t, a.es, nil, r.claims("signer", nil)), url.Values{paramToken: {""}}); w.Code != http.StatusBadRequest {
		t.Errorf("without a ledger: status %d", w.Code)
	}
}
