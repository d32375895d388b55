package issuer

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

func TestAnAnswerIsNeverKeptBeyondExp(t *testing.T) {
	now := newClock()
	s := newAsked(t, answers(activeText(map[string]any{"exp": now.Now().Unix() + 2})))
	n := s.introspector(t, func(of *Config, c *IntrospectionConfig, o *Options) {
		c.CacheTTL = Duration(time.Minute)
		o.Now = now.Now
	})
	for range 3 {
		introspect(t, n, testToken, IntrospectionRequest{})
	}
	if s.count() != 1 {
		t.Fatalf("%d questions", s.count())
	}
	now.add(2 * time.Second)
	s.set(answers(`{"active":false}`))
	introspectError(t, n, testToken, IntrospectionRequest{}, ErrInactive)
	if s.count() != 2 || n.Status().Answers != 0 {
		t.Errorf("%d questions, %+v", s.count(), n.Status())
	}
}

func TestAnAnswerIsKeptForAsLongAsAllowed(t *testing.T) {
	now := newClock()
	s := newAsked(t, answers(activeText(nil)))
	n := s.introspector(t, func(_ *Config, _ *IntrospectionConfig, o *Options) { o.Now = now.Now })
	ask := func(maxAge time.Duration, questions int) {
		t.Helper()
		introspect(t, n, testToken, IntrospectionRequest{MaxAge: maxAge})
		if s.count() != questions {
			t.Fatalf("%d questions, want %d", s.count(), questions)
		}
	}
	ask(0, 1)
	now.add(DefaultIntrospectionTTL - time.Second)
	ask(0, 1)
	ask(time.Hour, 1)
	ask(5*time.Second, 2) // the kept one is nine seconds old
	now.add(4 * time.Second)
	ask(5*time.Second, 2)
	ask(-1, 3)
	now.add(DefaultIntrospectionTTL)
	ask(time.Hour, 4)
	now.add(-time.Second) // an answer from the future is none
	ask(0, 5)
}

func TestNothingIsKeptWithoutATTLNorWhenInactive(t *testing.T) {
	s := newAsked(t, answers(activeText(nil)))
	n := s.introspector(t, func(_ *Config, c *IntrospectionConfig, _ *Options) { c.CacheTTL = -1 })
	for range 3 {
		introspect(t, n, testToken, IntrospectionRequest{})
	}
	inactive := newAsked(t, answers(`{"active":false}`))
	m := inactive.introspector(t, nil)
	for range 3 {
		introspectError(t, m, testToken, IntrospectionRequest{}, ErrInactive)
	}
	if s.count() != 3 || inactive.count() != 3 {
		t.Errorf("%d and %d questions", s.count(), inactive.count())
	}
	inactive.set(answers(activeText(nil)))
	introspect(t, m, testToken, IntrospectionRequest{})
}

func TestPurgeForgetsWhatARevocationNames(t *testing.T) {
	s := newAsked(t, answers(""))
	n := s.introspector(t, nil)
	keep := func(token, sub string, groups ...string) {
		t.Helper()
		s.set(answers(activeText(map[string]any{"sub": sub, "groups": groups})))
		introspect(t, n, token, IntrospectionRequest{})
	}
	kept := func(want ...string) {
		t.Helper()
		s.set(failing)
		var got []string
		for _, token := range []string{"token-a", "token-b", "token-c", "token-d"} {
			if _, err := n.Introspect(t.Context(), token, IntrospectionRequest{}); err == nil {
				got = append(got, token)
			}
		}
		if !slices.Equal(got, want) || n.Status().Answers != len(want) {
			t.Errorf("%v are kept, %+v", got, n.Status())
		}
	}
	n.breaker.limit = -1
	keep("token-a", "alice")
	keep("token-b", "bob", "x")
	keep("token-c", "alice", "x", "b")
	keep("token-d", "carol")
	kept("token-a", "token-b", "token-c", "token-d")
	if c := n.Purge(hasGroup); c != 0 { // nobody extracted that claim
		t.Error(c)
	}
	if c := n.Purge(hasGroup, "groups"); c != 1 {
		t.Error(c)
	}
	kept("token-a", "token-b", "token-d")
	if c := n.Purge(whose("alice")); c != 1 {
		t.Error(c)
	}
	kept("token-b", "token-d")
	hash, err := OpaqueTokenHash("token-d")
	if err != nil {
		t.Fatal(err)
	}
	if c := n.PurgeToken(hash); c != 1 {
		t.Error(c)
	}
	kept("token-b")
	if c := n.Purge(func(*revocation.Identity) bool { return true }); c != 1 {
		t.Error(c)
	}
	kept()
	if st := n.Status(); st.Purged != 4 || st.Bytes != 0 {
		t.Errorf("%+v", st)
	}
}

func TestPurgeCriteriaForgetsWhatTheyName(t *testing.T) {
	const alias = "https://old.example.com"
	hash, err := OpaqueTokenHash(testToken)
	if err != nil {
		t.Fatal(err)
	}
	type claims = map[string]string
	for name, c := range map[string]struct {
		c     revocation.Criteria
		named bool
	}{
		"user":                      {revocation.Criteria{Issuer: testIssuer, Claims: claims{"sub": "alice"}}, true},
		"user under the alias":      {revocation.Criteria{Issuer: alias, Claims: claims{"sub": "alice"}}, true},
		"user of another issuer":    {revocation.Criteria{Issuer: testIssuer + "/", Claims: claims{"sub": "alice"}}, false},
		"another user":              {revocation.Criteria{Issuer: testIssuer, Claims: claims{"sub": "bob"}}, false},
		"grant":                     {revocation.Criteria{Issuer: testIssuer, Claims: claims{"sub": "alice", "client_id": "app"}}, true},
		"grant of another client":   {revocation.Criteria{Issuer: testIssuer, Claims: claims{"sub": "alice", "client_id": "x"}}, false},
		"element of an array":       {revocation.Criteria{Issuer: testIssuer, Claims: claims{"groups": "b", "sub": "alice"}}, true},
		"no element of an array":    {revocation.Criteria{Issuer: testIssuer, Claims: claims{"groups": "c"}}, false},
		"a claim that is not there": {revocation.Criteria{Issuer: testIssuer, Claims: claims{"team": "b"}}, false},
		"token":                     {revocation.Criteria{Issuer: testIssuer, Claims: claims{"token": hash}}, true},
		"another token":             {revocation.Criteria{Issuer: testIssuer, Claims: claims{"token": "x"}}, false},
		"token and user":            {revocation.Criteria{Issuer: testIssuer, Claims: claims{"token": hash, "sub": "alice"}}, true},
		"token and another user":    {revocation.Criteria{Issuer: testIssuer, Claims: claims{"token": hash, "sub": "bob"}}, false},
		"key":                       {revocation.Criteria{Issuer: testIssuer, Claims: claims{"kid": "x"}}, true},
		"key and another user":      {revocation.Criteria{Issuer: testIssuer, Claims: claims{"kid": "x", "sub": "bob"}}, false},
		"issuer":                    {revocation.Criteria{Issuer: testIssuer}, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newAsked(t, answers(activeText(map[string]any{"groups": []string{"a", "b"}})))
			n := s.introspector(t, func(of *Config, _ *IntrospectionConfig, _ *Options) { of.Aliases = []string{alias} })
			introspect(t, n, testToken, IntrospectionRequest{})
			if got := n.PurgeCriteria(c.c); (got == 1) != c.named || n.Status().Answers != 1-got {
				t.Errorf("%d were forgotten, %+v", got, n.Status())
			}
		})
	}
}

func TestPurgeTokenForgetsEverySpelling(t *testing.T) {
	s := newAsked(t, answers(activeText(nil)))
	n := s.introspector(t, nil)
	const token = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
	spellings := append(revocationtest.Respellings(token), token+"=")
	for _, spelling := range spellings {
		introspect(t, n, spelling, IntrospectionRequest{})
	}
	if s.count() != len(spellings) {
		t.Errorf("%d questions: an answer about one spelling was used for another", s.count())
	}
	id := introspect(t, n, token, IntrospectionRequest{}).Identity
	hash, _ := id.Value(revocation.ClaimToken)
	if c := n.PurgeToken(hash); c != len(spellings) || n.Status().Answers != 0 || len(n.cache.byToken) != 0 {
		t.Errorf("%d were forgotten, %+v", c, n.Status())
	}
}

// TestTheCacheKeepsItsBounds does everything at random and compares with what
// must hold after each step.
func TestTheCacheKeepsItsBounds(t *testing.T) {
	now := time.Now()
	const limit = 20_000
	c := newAnswerCache(time.Minute, limit)
	for step := range 20_000 {
		sum := tokenSum{byte(rand.N(60))}
		switch rand.N(6) {
		case 0, 1, 2:
			a := &activeAnswer{
				text: make([]byte, rand.N(1500)), token: fmt.Sprint(sum[0] / 2), asked: now, seq: uint64(step),
				expiry: now.Unix() + rand.N[int64](90),
			}
			c.put(sum, a, now)
		case 3:
			if a := c.get(sum, time.Minute, now); a != nil && (now.Sub(a.asked) >= time.Minute || now.Unix() >= a.expiry) {
				t.Fatal("an answer that is over")
			}
		case 4:
			c.dropOlder(sum, uint64(rand.N(step+1)))
		case 5:
			now = now.Add(rand.N(time.Second))
		}
		spellings := 0
		for token, sums := range c.byToken {
			for _, sum := range sums {
				if e := c.bySum[sum]; e == nil || e.Value.(*keptAnswer).answer.token != token {
					t.Fatal("a spelling of nothing")
				}
				spellings++
			}
		}
		var size int64
		for e := c.recent.Front(); e != nil; e = e.Next() {
			size += e.Value.(*keptAnswer).cost
		}
		if size != c.size || c.size > limit || len(c.bySum) != c.recent.Len() || spellings != len(c.bySum) {
			t.Fatalf("step %d: %d bytes, counted %d; %d, %d, %d answers", step, c.size, size, len(c.bySum), c.recent.Len(), spellings)
		}
	}
	if len(c.bySum) == 0 {
		t.Error("nothing is kept")
	}
}

func TestTheLeastRecentlyUsedAnswerGoesFirst(t *testing.T) {
	s := newAsked(t, answers(activeText(map[string]any{"pad": strings.Repeat("x", 1000)})))
	var one int64
	n := s.introspector(t, nil)
	introspect(t, n, "token-0", IntrospectionRequest{})
	one = n.Status().Bytes
	n = s.introspector(t, func(_ *Config, c *IntrospectionConfig, _ *Options) { c.CacheSize = 3*one + one/2 })
	for _, k := range []int{0, 1, 2, 0, 3} {
		introspect(t, n, fmt.Sprint("token-", k), IntrospectionRequest{})
	}
	before := s.count()
	for _, k := range []int{0, 2, 3} {
		introspect(t, n, fmt.Sprint("token-", k), IntrospectionRequest{})
	}
	if s.count() != before || n.Status().Answers != 3 {
		t.Errorf("%d questions more, %+v", s.count()-before, n.Status())
	}
	n = s.introspector(t, func(_ *Config, c *IntrospectionConfig, _ *Options) { c.CacheSize = one - 1 })
	introspect(t, n, "token-0", IntrospectionRequest{})
	if n.Status().Answers != 0 {
		t.Error("an answer that does not fit is kept")
	}
}
