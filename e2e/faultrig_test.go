//go:build e2e

package e2e

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// faultsVariable chooses the long form of the fault tests: FAULTS=long.
const faultsVariable = "FAULTS"

// longFaults tells whether the long forms were asked for.
func longFaults() bool { return os.Getenv(faultsVariable) == "long" }

// inForm returns the value for the form of the fault tests that runs.
func inForm[T any](short, long T) T {
	if longFaults() {
		return long
	}
	return short
}

// faultIssuer signs the tokens of the fault tests. It is in this process, so
// that tokens can be made while edges are down.
const faultIssuer = "https://issuer.example"

// fleet is a number of edges that follow one ledger, each with a data directory
// of its own.
type fleet struct {
	t     testing.TB
	key   jose.JSONWebKey
	jwks  string // file
	edges []*edge
	good  string // a token that nobody revokes
}

func newFleet(t testing.TB) *fleet {
	t.Helper()
	f := &fleet{t: t, key: revocationtest.NewKey(t, "EdDSA", "faults"), jwks: filepath.Join(t.TempDir(), "jwks.json")}
	keys, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{f.key.Public()}})
	if err == nil {
		err = os.WriteFile(f.jwks, keys, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	f.good = f.token("bystander")
	return f
}

// token returns a new token of the public client that lives for an hour.
func (f *fleet) token(subject string) string {
	now := time.Now()
	return revocationtest.SignWith(f.t, f.key, map[string]any{"typ": "at+jwt"}, map[string]any{
		"iss": faultIssuer, "sub": subject, "client_id": publicClient, "jti": rand.Text(),
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	})
}

// add prepares an edge, and starts nothing. Ledger and settings are lines of the
// global option token_revocation.
func (f *fleet) add(ledger string, settings ...string) *edge {
	f.t.Helper()
	e := newEdge(f.t, fmt.Sprintf("edge %d", len(f.edges)+1), fmt.Sprintf(`{
	admin localhost:2019
	token_revocation {
		%s
		%s
		issuer %s {
			jwks_file %s
		}
		client %s public
	}
}
http://localhost:8080 {
	bind 127.0.0.1
	token_revocation /oauth/revoke
	token_denylist
	respond ok
}
`, ledger, strings.Join(settings, "\n\t\t"), faultIssuer, f.jwks, publicClient))
	f.edges = append(f.edges, e)
	return e
}

// following returns the line for edges of a server or cluster that may create
// the stream, with the given number of replicas.
func following(urls string, replicas int) string {
	return fmt.Sprintf("nats %s {\n\t\t\tcreate %d\n\t\t}", urls, replicas)
}

// run starts all edges and waits until they are in sync.
func (f *fleet) run() {
	f.t.Helper()
	for _, e := range f.edges {
		e.start()
	}
	for _, e := range f.edges {
		e.waitInSync()
	}
}

// waitKnowing waits until each edge has a proof, from now on, that it knows the
// whole ledger: what it calls in sync may be some seconds old.
func (f *fleet) waitKnowing() {
	f.t.Helper()
	waitKnowing(f.t, f.edges...)
}

func waitKnowing(t testing.TB, edges ...*edge) {
	t.Helper()
	since := time.Now()
	for _, e := range edges {
		eventually(t, startDeadline, e.name+" knows the ledger as of now", func() (bool, string) {
			asked := time.Now()
			s, err := e.tryStatus()
			return err == nil && s.State == "in_sync" && s.Serving && s.knows(asked, since), fmt.Sprintf("%+v %v", s, err)
		})
	}
}

// knows tells whether a status that was asked for at a moment proves knowledge
// of everything up to another one.
func (s status) knows(asked, moment time.Time) bool {
	return asked.Add(-s.age()).After(moment)
}

// age returns how old an edge says that its knowledge is.
func (s status) age() time.Duration {
	age, err := s.AgeSeconds.Float64()
	if err != nil {
		return math.MaxInt64 // there is none: it knows nothing
	}
	return time.Duration(age * float64(time.Second))
}

// revokeSome revokes new tokens at an edge and returns those acknowledged: all,
// or the test fails.
func (f *fleet) revokeSome(at *edge, n int) []string {
	f.t.Helper()
	tokens := make([]string, n)
	for i := range tokens {
		tokens[i] = f.token("user")
		at.revoke(tokens[i])
	}
	return tokens
}

// tryRevoke sends one revocation and returns the answer.
func (e *edge) tryRevoke(token string) answer {
	return e.post(url.Values{"token": {token}, "client_id": {publicClient}}, "", "")
}

// wantAllRefused asks the edges for every token and counts: none may be missing,
// and the token that nobody revoked must pass.
func (f *fleet) wantAllRefused(when string, tokens []string, edges ...*edge) {
	f.t.Helper()
	if len(tokens) == 0 {
		f.t.Errorf("%s: no revocation was acknowledged, so that nothing is tested", when)
	}
	for _, e := range edges {
		missing, unclear := e.count(tokens)
		f.t.Logf("%s, %s: %d revocations acknowledged, %d checked, %d missing", when, e.name, len(tokens), len(tokens)-unclear, missing)
		if missing > 0 || unclear > 0 {
			f.t.Errorf("%s, %s: of %d revoked tokens %d pass, and %d are neither let through nor refused", when, e.name, len(tokens), missing, unclear)
		}
		e.eventuallyPasses("the token that nobody revoked, "+when, f.good)
	}
}

// eventuallyPasses bears with an edge that is late to know its ledger, on a busy
// machine, but not with one that denies the token.
func (e *edge) eventuallyPasses(what, token string) {
	e.t.Helper()
	eventually(e.t, startDeadline, e.name+" lets pass: "+what, func() (bool, string) {
		a := e.get(token)
		if a.status != http.StatusServiceUnavailable && a.status != http.StatusOK {
			e.t.Fatalf("%s: %s should pass: %s", e.name, what, a)
		}
		return a.status == http.StatusOK, a.String()
	})
}

// count asks an edge for tokens, and returns how many of them it lets through,
// and for how many there is no telling.
func (e *edge) count(tokens []string) (missing, unclear int) {
	const workers = 8
	var passed, other atomic.Int64
	var wg sync.WaitGroup
	for worker := range workers {
		wg.Go(func() {
			for i := worker; i < len(tokens); i += workers {
				switch a := e.get(tokens[i]); {
				case a.status == http.StatusOK:
					passed.Add(1)
				case !refused(a):
					other.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return int(passed.Load()), int(other.Load())
}

// crowd is a number of clients that revoke one token after the other until they
// are told to stop.
type crowd struct {
	stop    chan struct{}
	clients sync.WaitGroup

	mu           sync.Mutex
	acknowledged []string
	unavailable  int            // 503 with Retry-After
	unanswered   int            // the edge was down, or went down
	other        map[string]int // what must not be
}

// crowdSize is how many clients revoke at the same time.
func crowdSize() int { return inForm(8, 64) }

// startCrowd lets clients revoke at the given edges in turn.
func (f *fleet) startCrowd(edges ...*edge) *crowd {
	c := &crowd{stop: make(chan struct{}), other: map[string]int{}}
	for i := range crowdSize() {
		c.clients.Go(func() {
			// Few enough in the short form that checking them takes no longer.
			pause := time.NewTicker(inForm(40*time.Millisecond, time.Millisecond))
			defer pause.Stop()
			for n := i; ; n++ {
				select {
				case <-c.stop:
					return
				case <-pause.C:
				}
				token := f.token("user")
				c.note(token, edges[n%len(edges)].tryRevoke(token))
			}
		})
	}
	return c
}

func (c *crowd) note(token string, a answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case a.status == http.StatusOK:
		c.acknowledged = append(c.acknowledged, token)
	case a.status == http.StatusServiceUnavailable && a.header.Get("Retry-After") != "":
		c.unavailable++
	case a.status == 0:
		c.unanswered++
	default:
		c.other[a.String()]++
	}
}

// count returns how many were acknowledged so far.
func (c *crowd) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.acknowledged)
}

// waitFor waits until n more were acknowledged.
func (c *crowd) waitFor(t testing.TB, n int) time.Duration {
	t.Helper()
	before := c.count()
	return eventually(t, startDeadline, fmt.Sprintf("%d more revocations are acknowledged", n), func() (bool, string) {
		now := c.count()
		return now >= before+n, fmt.Sprint(now - before)
	})
}

// end stops the clients and returns what was acknowledged. Every other answer
// must have been 503; none at all is right only where an edge was killed.
func (c *crowd) end(t testing.TB, edgesKilled bool) []string {
	t.Helper()
	close(c.stop)
	c.clients.Wait()
	t.Logf("%d clients: %d revocations acknowledged, %d answered with 503, %d not answered",
		crowdSize(), len(c.acknowledged), c.unavailable, c.unanswered)
	if len(c.other) > 0 {
		t.Errorf("neither 200 nor 503 with Retry-After: %q", slices.Sorted(maps.Keys(c.other)))
	}
	if !edgesKilled && c.unanswered > 0 {
		t.Errorf("%d revocations were not answered at all", c.unanswered)
	}
	return c.acknowledged
}

// wantHeldByTheLedger starts one more edge, which has nothing but the ledger to
// know from, and wants it to refuse all tokens.
func (f *fleet) wantHeldByTheLedger(tokens []string, ledger string, settings ...string) {
	f.t.Helper()
	e := f.add(ledger, settings...)
	f.edges = f.edges[:len(f.edges)-1]
	e.name = "a new edge"
	e.run()
	f.wantAllRefused("read from the ledger", tokens, e)
	e.process.stop()
}

// alarms returns an edge's metric of that name.
func (e *edge) alarms() float64 { return e.metric("caddy_token_revocation_ledger_alarms_total") }

// metric returns the value of a metric without labels.
func (e *edge) metric(name string) float64 {
	e.t.Helper()
	a := e.api(http.MethodGet, "/metrics", nil)
	for line := range strings.Lines(a.body) {
		var value float64
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			if _, err := fmt.Sscan(rest, &value); err != nil {
				e.t.Fatalf("%s: %s: %v", e.name, line, err)
			}
			return value
		}
	}
	e.t.Fatalf("%s has no metric %s: %d", e.name, name, a.status)
	return 0
}
