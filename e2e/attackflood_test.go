//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
)

// A key id is the presenter's choice: it must not be a way to make this edge ask
// the key server, nor to keep others out (RFC 8725, section 3.10).
func TestFloodOfKeyIDsCausesFewFetches(t *testing.T) {
	r := newAttackRig(t)
	claims := func(jti string) string { return toJSON(payload(map[string]any{"iss": floodIssuer, "jti": jti})) }
	live := sign("ES256", r.keys.p256, headerFor("ES256", "p256", nil), claims("live"))
	var next atomic.Int64
	ask := func(c *connection, token string) (reply, []arrival) {
		s := shot{host: "default.test", id: fmt.Sprintf("k1x%dx", next.Add(1)), token: token}
		return c.ask(get("Authorization: Bearer $T")(s), 1), r.echo.of(s.id)
	}
	before := r.keys.flooded.Load()
	var wg sync.WaitGroup
	var refused [600]atomic.Int64
	for worker := range 4 {
		wg.Go(func() {
			c, err := dial(r.edge.address)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for i := range 250 {
				header := headerFor("ES256", fmt.Sprintf("kid-%d-%d", worker, i), map[string]any{"jku": r.keys.server.URL + "/jku", "x5u": r.keys.server.URL + "/x5u"})
				got, arrived := ask(c, sign("ES256", r.keys.attacker, header, claims("made up")))
				if len(arrived) > 0 || got.status != http.StatusUnauthorized && got.status != http.StatusServiceUnavailable {
					t.Errorf("a token with a key nobody knows: %d, %v; arrived: %s", got.status, got.err, show(arrived))
					return
				}
				refused[got.status].Add(1)
				if i%25 == 0 {
					if got, arrived := ask(c, live); got.status != http.StatusOK || len(arrived) != 1 {
						t.Errorf("a good token in the flood: %d, %v", got.status, got.err)
					}
				}
			}
		})
	}
	wg.Wait()
	// Three at once, then one in ten seconds.
	fetches := r.keys.flooded.Load() - before
	t.Logf("1000 key ids: %d fetches; %d times 401, %d times 503", fetches, refused[401].Load(), refused[503].Load())
	if fetches > 8 {
		t.Errorf("%d fetches for 1000 key ids", fetches)
	}
	if n := r.keys.strange.Load(); n != 0 {
		t.Errorf("%d fetches of addresses that only tokens name", n)
	}
}
