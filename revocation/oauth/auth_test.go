package oauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// countingSecret stands for a slow hash: it counts comparisons, and takes its
// time by the fake clock of synctest.
type countingSecret struct {
	secret string
	takes  time.Duration
	count  *atomic.Int64
	atOnce *atomic.Int64
	most   *atomic.Int64
}

func (c countingSecret) verify(presented string) bool {
	c.count.Add(1)
	if c.atOnce != nil {
		n := c.atOnce.Add(1)
		for m := c.most.Load(); n > m && !c.most.CompareAndSwap(m, n); m = c.most.Load() {
		}
		defer c.atOnce.Add(-1)
	}
	time.Sleep(c.takes)
	return presented == c.secret
}
func (countingSecret) slow() bool   { return true }
func (countingSecret) kind() string { return "counting" }

func counting(secret string, count *atomic.Int64) Secret {
	return newSecret(countingSecret{secret: secret, count: count}, secret)
}

func TestEveryFailureCostsTheSameNumberOfHashes(t *testing.T) {
	var count atomic.Int64
	clients, err := NewStaticClients(
		Client{ID: "one", Issuer: issuerA, Secrets: []Secret{counting("right", &count)}},
		Client{ID: "basic", Issuer: issuerA, Methods: []AuthMethod{AuthSecretBasic}, Secrets: []Secret{counting("right", &count)}},
		Client{ID: "public", Issuer: issuerA, Methods: []AuthMethod{AuthNone}},
	)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		auth   string
		form   string
		hashes int64
	}{
		{"wrong secret", "", "client_id=one&client_secret=wrong", 1},
		{"unknown client", "", "client_id=nobody&client_secret=wrong", 1},
		{"unknown client with somebody's secret", "", "client_id=nobody&client_secret=right", 1},
		{"the right secret by a method that is not registered", "", "client_id=basic&client_secret=right", 1},
		{"a public client with a secret", "", "client_id=public&client_secret=right", 1},
		{"wrong secret in the header", basicAuth("one", "wrong"), "", 1},
		{"unknown client in the header", basicAuth("nobody", "wrong"), "", 1},
		{"wrong secret with two readings", basicAuth("one", "a+b"), "", 2},
		{"unknown client with two readings", basicAuth("nobody", "a+b"), "", 2},
		{"confidential client without a secret", "", "client_id=one", 0},
		{"unknown client without a secret", "", "client_id=nobody", 0},
		{"endless secret", "", "client_id=one&client_secret=" + strings.Repeat("x", maxSecret+1), 0},
		{"endless secret of an unknown client", "", "client_id=nobody&client_secret=" + strings.Repeat("x", maxSecret+1), 0},
	}
	var body string
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, func(o *EndpointOptions) { o.Clients = clients })
			count.Store(0)
			w := r.post("token="+tokenOwn+"&"+tt.form, func(req *http.Request) {
				if tt.auth != "" {
					req.Header.Set("Authorization", tt.auth)
				}
			})
			if w.Code != http.StatusUnauthorized {
				t.Errorf("status %d", w.Code)
			}
			if got := count.Load(); got != tt.hashes {
				t.Errorf("%d comparisons, want %d", got, tt.hashes)
			}
			if body == "" {
				body = w.Body.String()
			}
			if w.Body.String() != body {
				t.Errorf("the answer %s differs from %s", w.Body, body)
			}
		})
	}
}

func TestBothReadingsOfBasicAreComparedEvenIfTheFirstMatches(t *testing.T) {
	var count atomic.Int64
	clients, err := NewStaticClients(Client{ID: "one", Issuer: issuerA, Secrets: []Secret{counting("a b", &count), counting("a+b", &count)}})
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, func(o *EndpointOptions) { o.Clients = clients })
	if w := r.post("token=unknown.jwt.token", authorize(basicAuth("one", "a+b"))); w.Code != http.StatusOK {
		t.Fatalf("status %d", w.Code)
	}
	if got := count.Load(); got != 4 {
		t.Errorf("%d comparisons, want 2 readings times 2 secrets", got)
	}
}

func TestUnknownClientsOfAnyStoreAreCompared(t *testing.T) {
	decoy := DecoyOf(emptyStore{})("x")
	if decoy == nil || len(decoy.Secrets) != 1 || decoy.Secrets[0].String() != "bcrypt" {
		t.Fatalf("decoy %+v", decoy)
	}
	if err := checkBcrypt(string(decoy.Secrets[0].verifier.(bcryptSecret))); err != nil {
		t.Error(err)
	}
}

type emptyStore struct{ err error }

func (s emptyStore) Client(context.Context, string) (*Client, error) {
	if s.err != nil {
		return nil, s.err
	}
	return nil, ErrUnknownClient
}

// secretlessStore has one client that may use secrets and has none, and a decoy
// whose secret is known.
type secretlessStore struct{ decoy *Client }

func (secretlessStore) Client(_ context.Context, id string) (*Client, error) {
	return &Client{ID: id, Issuer: issuerA, Methods: []AuthMethod{AuthSecretBasic}}, nil
}
func (s secretlessStore) Decoy(string) *Client { return s.decoy }

func TestSecretOfADecoyAuthenticatesNobody(t *testing.T) {
	decoy := &Client{ID: "d", Issuer: issuerA, Methods: []AuthMethod{AuthSecretBasic}, Secrets: []Secret{clearSecret(t, "decoy")}}
	r := newRig(t, func(o *EndpointOptions) { o.Clients = secretlessStore{decoy} })
	if w := r.post("token="+tokenOwn, authorize(basicAuth("app", "decoy"))); w.Code != http.StatusUnauthorized {
		t.Errorf("status %d", w.Code)
	}
}

func TestClientStoreOutOfOrderIs503AndNoFailure(t *testing.T) {
	r := newRig(t, func(o *EndpointOptions) { o.Clients = emptyStore{errors.New("no connection")} })
	for range 20 {
		if w := r.post("token=x.y.z", asApp); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
			t.Fatalf("status %d, %v", w.Code, w.Header())
		}
	}
}

func TestClientsAuthenticateInTheirWaysOnly(t *testing.T) {
	tests := []struct {
		name   string
		auth   string
		form   string
		client string // empty: 401
		method AuthMethod
	}{
		{"basic", basicAuth("app", "app-secret"), "", "app", AuthSecretBasic},
		{"post", "", "client_id=app&client_secret=app-secret", "app", AuthSecretPost},
		{"the older secret", "", "client_id=app&client_secret=old-app-secret", "app", AuthSecretPost},
		{"bcrypt", basicAuth("bcrypt", "bcrypt-secret"), "", "bcrypt", AuthSecretBasic},
		{"digest", basicAuth("digest", "Zk9wTXlHcW1vU2VjcmV0"), "", "digest", AuthSecretBasic},
		{"basic only, basic", basicAuth("basic-only", "basic-secret"), "", "basic-only", AuthSecretBasic},
		{"basic only, post", "", "client_id=basic-only&client_secret=basic-secret", "", ""},
		{"post only, post", "", "client_id=post-only&client_secret=post-secret", "post-only", AuthSecretPost},
		{"post only, basic", basicAuth("post-only", "post-secret"), "", "", ""},
		{"public", "", "client_id=spa", "spa", AuthNone},
		{"public, in the header", basicAuth("spa", ""), "", "spa", AuthNone},
		{"public, with a secret in the header", basicAuth("spa", "x"), "", "", ""},
		{"an empty client_secret is none", "", "client_id=spa&client_secret=", "spa", AuthNone},
		{"an empty client_secret next to the header", basicAuth("app", "app-secret"), "client_secret=&client_id=", "app", AuthSecretBasic},
		{"an empty header next to the form", " ", "client_id=app&client_secret=app-secret", "app", AuthSecretPost},
		{"a confidential client never passes as public", "", "client_id=app", "", ""},
		{"nor with an empty secret", "", "client_id=app&client_secret=", "", ""},
		{"nor with an empty secret in the header", basicAuth("app", ""), "", "", ""},
		{"a secret without an id", "", "client_secret=app-secret", "", ""},
		{"an id that is empty", basicAuth("", "app-secret"), "", "", ""},
		{"encoded", basicAuth("https%3A%2F%2Fc.example", "p%25a%2Bs+s%3A%C3%BC"), "", "https://c.example", AuthSecretBasic},
		{"the escapes in small letters", basicAuth("https%3a%2f%2fc.example", "p%25a%2bs%20s%3a%c3%bc"), "", "https://c.example", AuthSecretBasic},
		{"raw plus", basicAuth("plus", "a+b"), "", "plus", AuthSecretBasic},
		{"encoded plus", basicAuth("plus", "a%2Bb"), "", "plus", AuthSecretBasic},
		{"encoded twice", basicAuth("plus", "a%252Bb"), "", "", ""},
		{"a form-decoded form secret is not decoded again", "", "client_id=plus&client_secret=a%252Bb", "", ""},
		{"another scheme", "Bearer abc", "client_id=spa", "", ""},
		{"the client of the header again in the form, encoded", basicAuth("an%3Aidentifier", "some+secure+%26+non-standard+secret"), "client_id=an%3Aidentifier", "an:identifier", AuthSecretBasic},
		{"ids are case-sensitive", basicAuth("App", "app-secret"), "", "", ""},
		{"another client's secret", basicAuth("app", "other-secret"), "", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, nil)
			w := r.post("token=unknown.jwt.token&"+tt.form, func(req *http.Request) {
				if tt.auth != "" {
					req.Header.Set("Authorization", tt.auth)
				}
			})
			want := http.StatusOK
			if tt.client == "" {
				want = http.StatusUnauthorized
			}
			o := r.lastOutcome(t)
			if w.Code != want || o.ClientID != tt.client || o.Method != tt.method {
				t.Errorf("status %d, outcome %+v", w.Code, o)
			}
			if tt.client == "" && len(r.tokens.calls) != 0 {
				t.Error("the token was looked at before the client was authenticated")
			}
		})
	}
}

func TestStrictBasicTakesTheEncodedReadingOnly(t *testing.T) {
	r := newRig(t, func(o *EndpointOptions) { o.StrictBasic = true })
	for secret, want := range map[string]int{"a+b": http.StatusUnauthorized, "a%2Bb": http.StatusOK} {
		if w := r.post("token=unknown.jwt.token", authorize(basicAuth("plus", secret))); w.Code != want {
			t.Errorf("%s: status %d, want %d", secret, w.Code, want)
		}
	}
}

func TestVerifiedSecretIsNotHashedAgainUntilItExpires(t *testing.T) {
	var count atomic.Int64
	clients, err := NewStaticClients(Client{ID: "one", Issuer: issuerA, Secrets: []Secret{counting("right", &count)}})
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, func(o *EndpointOptions) { o.Clients = clients })
	try := func(secret string, status int, hashes int64) {
		t.Helper()
		count.Store(0)
		w := r.post("token=unknown.jwt.token", authorize(basicAuth("one", secret)))
		if w.Code != status || count.Load() != hashes {
			t.Errorf("%s: status %d after %d hashes, want %d after %d", secret, w.Code, count.Load(), status, hashes)
		}
	}
	try("right", http.StatusOK, 1)
	try("right", http.StatusOK, 0)
	try("wrong", http.StatusUnauthorized, 1)
	try("wrong", http.StatusUnauthorized, 1)
	try("right", http.StatusOK, 0)
	r.clock.advance(DefaultVerifiedFor)
	try("right", http.StatusOK, 1)
}

// slowRig has one client whose secret takes a second to compare, by the clock of
// the synctest bubble.
func slowRig(t *testing.T, slots int, wait time.Duration) (r *rig, count, most *atomic.Int64) {
	t.Helper()
	count, most = new(atomic.Int64), new(atomic.Int64)
	secret := newSecret(countingSecret{"right", time.Second, count, new(atomic.Int64), most}, "right")
	clients, err := NewStaticClients(Client{ID: "one", Issuer: issuerA, Secrets: []Secret{secret}})
	if err != nil {
		t.Fatal(err)
	}
	return newRig(t, func(o *EndpointOptions) {
		o.Clients, o.HashConcurrency, o.HashWait, o.Timeout, o.VerifiedFor = clients, slots, wait, time.Hour, -1
		o.Now = time.Now
	}), count, most
}

// all sends n requests at once and counts the statuses.
func (r *rig) all(n int, auth string, change func(i int, req *http.Request)) map[int]int {
	statuses := make(map[int]int)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			w := r.post("token=unknown.jwt.token", func(req *http.Request) {
				req.Header.Set("Authorization", auth)
				if change != nil {
					change(i, req)
				}
			})
			mu.Lock()
			defer mu.Unlock()
			statuses[w.Code]++
			if w.Code != http.StatusOK && w.Code != http.StatusUnauthorized && w.Header().Get("Retry-After") == "" {
				statuses[-1]++ // no Retry-After
			}
		})
	}
	wg.Wait()
	return statuses
}

func TestSlowHashesRunAFewAtOnceAndTheRestWaitsOnlySoLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, count, most := slowRig(t, 2, 3500*time.Millisecond)
		each := func(i int, req *http.Request) { req.RemoteAddr = fmt.Sprintf("192.0.2.%d:1", i) }
		got := r.all(20, basicAuth("one", "right"), each)
		// Two at a time, each a second: after 3.5 s, eight have had their turn.
		if got[http.StatusOK] != 8 || got[http.StatusServiceUnavailable] != 12 || got[-1] != 0 {
			t.Errorf("statuses %v", got)
		}
		if count.Load() != 8 || most.Load() != 2 {
			t.Errorf("%d hashes, %d at once", count.Load(), most.Load())
		}
		// All slots are free again.
		if got := r.all(2, basicAuth("one", "right"), nil); got[http.StatusOK] != 2 {
			t.Errorf("statuses afterwards %v", got)
		}
	})
}

func TestBurstOfGuessesDoesNotGetPastTheThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, count, _ := slowRig(t, 1, time.Hour)
		// As many as may wait at the same time, all of which were let past the
		// throttle, and then some more.
		got := r.all(1+maxQueuedOfNetwork, basicAuth("one", "wrong"), nil)
		for status, n := range r.all(1+maxQueuedOfNetwork, basicAuth("one", "wrong"), nil) {
			got[status] += n
		}
		if got[http.StatusUnauthorized] != 10 || got[http.StatusTooManyRequests] != 2*maxQueuedOfNetwork-8 || got[-1] != 0 || count.Load() != 10 {
			t.Errorf("statuses %v after %d hashes", got, count.Load())
		}
	})
}

func TestThrottleAnswers429ToOneClientFromOneNetworkOnly(t *testing.T) {
	r := newRig(t, nil)
	wrong := authorize(basicAuth("app", "wrong"))
	for i := range 10 {
		if w := r.post("token=x.y.z", wrong); w.Code != http.StatusUnauthorized {
			t.Fatalf("failure %d: status %d", i, w.Code)
		}
	}
	from := func(addr string, next func(*http.Request)) func(*http.Request) {
		return func(req *http.Request) { req.RemoteAddr = addr; next(req) }
	}
	tests := []struct {
		name   string
		change func(*http.Request)
		status int
	}{
		{"another guess", wrong, http.StatusTooManyRequests},
		{"the right secret tells nothing either", asApp, http.StatusTooManyRequests},
		{"in the form", func(*http.Request) {}, http.StatusTooManyRequests},
		{"the same client from elsewhere", from("192.0.2.2:1", asApp), http.StatusOK},
		{"another client from the same address", authorize(basicAuth("other", "other-secret")), http.StatusOK},
		{"the id in another spelling", authorize(basicAuth("%61pp", "wrong")), http.StatusTooManyRequests},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			body := "token=x.y.z"
			if tt.name == "in the form" {
				body += "&client_id=app&client_secret=app-secret"
			}
			w := r.post(body, tt.change)
			if w.Code != tt.status {
				t.Fatalf("status %d, want %d", w.Code, tt.status)
			}
			if tt.status == http.StatusTooManyRequests {
				checkFields(t, w.Header(), w.Code)
				if w.Header().Get("Retry-After") != "60" || errorCode(t, w.Code, w.Body) != ErrorTemporarilyUnavailable {
					t.Errorf("Retry-After %q, body %s", w.Header().Get("Retry-After"), w.Body)
				}
			}
		})
	}
	r.clock.advance(time.Minute)
	if w := r.post("token=x.y.z", asApp); w.Code != http.StatusOK {
		t.Errorf("a minute later: status %d", w.Code)
	}
}

func TestThrottleNeverCountsSuccessOrWhatHasNoAddress(t *testing.T) {
	r := newRig(t, nil)
	for i := range 50 {
		if w := r.post("token="+tokenForeign, asApp); w.Code != http.StatusBadRequest {
			t.Fatalf("request %d of an authenticated client: status %d", i, w.Code)
		}
	}
	local := newRig(t, func(o *EndpointOptions) { o.ClientIP = func(*http.Request) netip.Addr { return netip.Addr{} } })
	off := newRig(t, func(o *EndpointOptions) { o.FailuresPerMinute = -1 })
	for range 50 {
		for _, r := range []*rig{local, off} {
			if w := r.post("token=x.y.z", authorize(basicAuth("app", "wrong"))); w.Code != http.StatusUnauthorized {
				t.Fatalf("status %d", w.Code)
			}
		}
	}
}
