package issuer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

func TestKeyServerDownIsUnavailableNeverInvalid(t *testing.T) {
	as := revocationtest.NewAuthServer(t)
	token := as.Token(nil)
	forged := token[:len(token)-4] + "AAAA"
	as.Fail(http.StatusBadGateway)
	i := newIssuer(t, Config{Issuer: as.Issuer(), JWKSURI: as.URL + revocationtest.JWKSPath}, Options{Client: clientOf(t, as)})
	set := newSet(t, i)
	refuse(t, set, token, Request{}, ErrKeysUnavailable)
	refuse(t, set, token, Request{Wait: true}, ErrKeysUnavailable) // not started
	i.Start()
	for range 20 {
		refuse(t, set, token, Request{}, ErrKeysUnavailable)
		refuse(t, set, token, Request{Wait: true}, ErrKeysUnavailable)
		refuse(t, set, forged, Request{Wait: true}, ErrKeysUnavailable)
	}
	as.Fail(0)
	eventually(t, "the keys are loaded", i.Ready)
	accept(t, set, token, Request{})
	if err := i.KeyStatus().Err; err != nil {
		t.Errorf("still an error: %v", err)
	}

	// Down again, and the issuer has rotated meanwhile: known keys go on, the
	// new one cannot be judged.
	as.Rotate("ES256", "rotated")
	rotated := as.Token(nil)
	as.Fail(http.StatusInternalServerError)
	for range 20 {
		accept(t, set, token, Request{})
		refuse(t, set, rotated, Request{}, ErrKeysUnavailable)
		refuse(t, set, rotated, Request{Wait: true}, ErrKeysUnavailable)
	}
}

func TestWaitingFindsAKeyThatWasJustPublished(t *testing.T) {
	as := revocationtest.NewAuthServer(t)
	set, i := trustServer(t, as, nil)
	before := i.Generation()
	old := as.Rotate("ES256", "rotated")
	token := as.Token(nil)
	accept(t, set, token, Request{Wait: true})
	if i.Generation() == before {
		t.Error("the generation is the same with other keys")
	}
	// Tokens that the retired key has signed go on for as long as they live.
	retired := revocationtest.SignWith(t, old, map[string]any{"typ": "at+jwt"}, as.Claims(nil))
	accept(t, set, retired, Request{})
	if s := i.KeyStatus(); s.Published != len(revocationtest.Algorithms) || s.Retired != 1 {
		t.Errorf("%+v", s)
	}
}

func TestUnknownKeyIsFoundInTheBackgroundWithoutWaiting(t *testing.T) {
	as := revocationtest.NewAuthServer(t)
	set, _ := trustServer(t, as, nil)
	as.Rotate("RS256", "rotated")
	token := as.Sign(as.Claims(nil), "RS256")
	refuse(t, set, token, Request{}, ErrKeysUnavailable)
	eventually(t, "the new key is known", func() bool {
		_, _, err := set.Identify(context.Background(), token, Request{})
		if err != nil && !errors.Is(err, ErrKeysUnavailable) {
			t.Fatal(err)
		}
		return err == nil
	})
}

func TestKeyThatTheIssuerProvedNotToHaveIsInvalid(t *testing.T) {
	as := revocationtest.NewAuthServer(t)
	set, _ := trustServer(t, as, nil)
	token := revocationtest.SignWith(t, revocationtest.NewKey(t, "ES256", "nobody's"), nil, as.Claims(nil))
	refuse(t, set, token, Request{}, ErrKeysUnavailable)
	eventually(t, "the issuer was asked", func() bool {
		_, _, err := set.Identify(context.Background(), token, Request{})
		return errors.Is(err, ErrInvalid)
	})
	refuse(t, set, token, Request{Wait: true}, ErrInvalid)
	// Of another kid nothing is known, until it is asked for.
	other := revocationtest.SignWith(t, revocationtest.NewKey(t, "ES256", "nobody's either"), nil, as.Claims(nil))
	refuse(t, set, other, Request{}, ErrKeysUnavailable)
}

func TestFloodOfUnknownKeysCausesFewFetches(t *testing.T) {
	as := revocationtest.NewAuthServer(t)
	set, _ := trustServer(t, as, nil)
	key := revocationtest.NewKey(t, "ES256", "")
	tokens := make([]string, 1000)
	for n := range tokens {
		key.KeyID = fmt.Sprintf("random-%d", n)
		tokens[n] = revocationtest.SignWith(t, key, nil, as.Claims(nil))
	}
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for n := worker; n < len(tokens); n += 4 {
				_, _, err := set.Identify(context.Background(), tokens[n], Request{Wait: worker%2 == 0})
				if !errors.Is(err, ErrKeysUnavailable) && !errors.Is(err, ErrInvalid) {
					t.Errorf("got %v", err)
				}
			}
		})
	}
	wg.Wait()
	if n := as.Requests(revocationtest.JWKSPath); n > 1+onDemandBurst+1 {
		t.Errorf("%d fetches", n)
	}
	accept(t, set, as.Token(nil), Request{})
}

// loadLog is a source of keys that notes when it is asked.
type loadLog struct {
	mu    sync.Mutex
	begin time.Time
	at    []time.Duration
	err   error
}

func (l *loadLog) load(context.Context, bool) (found, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at = append(l.at, time.Since(l.begin))
	return found{keys: []*key{{id: "a", public: secret("x")}}, maxAge: time.Second}, l.err
}

// set sets the next answer and forgets what was noted.
func (l *loadLog) set(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at, l.err = nil, err
}

func (l *loadLog) loads() []time.Duration {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.at
}

// startKeyring returns a keyring that loads from l.
func startKeyring(l *loadLog) *keyring {
	k := newKeyring()
	k.logger, k.now, k.load = slogDiscard(), time.Now, l.load
	k.every, k.bounded = 10*time.Minute, true
	l.begin = time.Now()
	k.start()
	return k
}

func TestThrottledRefreshIsMadeUpForLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l loadLog
		k := startKeyring(&l)
		defer k.stop()
		synctest.Wait()
		for n := range 10 {
			if f, proof := k.ask([]byte(fmt.Sprint(n))); f == nil || !proof {
				t.Fatal("nothing was asked for")
			}
			synctest.Wait()
		}
		if n := len(l.loads()); n != 1+onDemandBurst {
			t.Fatalf("%d loads at once", n)
		}
		time.Sleep(onDemandInterval + time.Second)
		if n := len(l.loads()); n != 2+onDemandBurst {
			t.Fatalf("%d loads after the interval", n)
		}
		if !k.isAbsent([]byte("9")) || k.isAbsent([]byte("a")) {
			t.Error("the last kid asked for is not known to be absent")
		}
		time.Sleep(absentFor)
		if k.isAbsent([]byte("9")) {
			t.Error("absent for ever")
		}
	})
}

func TestFailedLoadsAreRetriedLessAndLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := loadLog{err: errors.New("down")}
		k := startKeyring(&l)
		defer k.stop()
		time.Sleep(5 * time.Minute)
		if at := l.loads(); len(at) < 9 || len(at) > 13 || at[1] > time.Second || at[2] > 3*time.Second {
			t.Errorf("loads at %v", at)
		}
		l.set(nil)
		time.Sleep(lastRetry + time.Second)
		l.set(nil)
		time.Sleep(10 * time.Minute)
		if at := l.loads(); len(at) < 9 || len(at) > 12 {
			t.Errorf("with max-age=1, %d loads in ten minutes, not about one a minute", len(at))
		}
	})
}

func TestWaitEndsWithTheContextAndWithStop(t *testing.T) {
	hold := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hold }))
	defer server.Close()
	defer close(hold)
	as := revocationtest.NewAuthServer(t)
	i := newIssuer(t, Config{Issuer: as.Issuer(), JWKSURI: server.URL}, Options{Client: server.Client()})
	set := newSet(t, i)
	i.Start()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, _, err := set.Identify(ctx, as.Token(nil), Request{Wait: true}); !errors.Is(err, ErrKeysUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	done := make(chan error)
	go func() {
		_, _, err := set.Identify(context.Background(), as.Token(nil), Request{Wait: true})
		done <- err
	}()
	i.Stop()
	if err := <-done; !errors.Is(err, ErrKeysUnavailable) {
		t.Errorf("got %v", err)
	}
	i.Stop() // once more does no harm
	i.Start()
}

func TestReusedKidHealsByItself(t *testing.T) {
	as := revocationtest.NewAuthServer(t)
	set, _ := trustServer(t, as, nil)
	as.Rotate("ES256", "key-es256")
	accept(t, set, as.Token(nil), Request{Wait: true})
}

func TestKeysWithoutIDsAreTriedWithinBounds(t *testing.T) {
	as := revocationtest.NewAuthServer(t)
	var keys []jose.JSONWebKey
	for range maxCandidates + 2 {
		keys = append(keys, revocationtest.NewKey(t, "ES256", ""))
	}
	as.SetKeys(keys...)
	set, _ := trustServer(t, as, nil)
	for n, k := range keys {
		named := k
		named.KeyID = "a name that the set does not give"
		for _, k := range []jose.JSONWebKey{k, named} {
			token := revocationtest.SignWith(t, k, nil, as.Claims(nil))
			if n < maxCandidates {
				accept(t, set, token, Request{})
			} else if _, _, err := set.Identify(context.Background(), token, Request{}); err == nil {
				t.Errorf("key %d was tried", n)
			}
		}
	}
	// A named key is found by a token that does not name it.
	key := revocationtest.NewKey(t, "ES256", "named")
	as.SetKeys(key)
	set, _ = trustServer(t, as, nil)
	key.KeyID = ""
	accept(t, set, revocationtest.SignWith(t, key, nil, as.Claims(nil)), Request{})
	garbage := revocationtest.SignWith(t, revocationtest.NewKey(t, "ES256", ""), nil, as.Claims(nil))
	refuse(t, set, garbage, Request{Wait: true}, ErrInvalid)
	refuse(t, set, garbage, Request{}, ErrInvalid)
}

func TestEmptyAnswerKeepsTheLastKeys(t *testing.T) {
	as := revocationtest.NewAuthServer(t)
	set, i := trustServer(t, as, nil)
	token := as.Token(nil)
	as.SetKeys()
	refuse(t, set, revocationtest.SignWith(t, revocationtest.NewKey(t, "ES256", "new"), nil, as.Claims(nil)), Request{Wait: true}, ErrKeysUnavailable)
	accept(t, set, token, Request{})
	if err := i.KeyStatus().Err; err == nil || !strings.Contains(err.Error(), "no usable key") {
		t.Errorf("got %v", err)
	}
}

func TestDistrustedKeysNeverCount(t *testing.T) {
	as := revocationtest.NewAuthServer(t)
	set, i := trustServer(t, as, nil)
	id := accept(t, set, as.Token(nil), Request{})
	thumbprint, _ := id.Value(revocation.ClaimKeyID)
	set, j := trustServer(t, as, func(c *Config) { c.DistrustedKeys = []string{thumbprint} })
	refuse(t, set, as.Token(nil), Request{Wait: true}, ErrInvalid)
	accept(t, set, as.Sign(as.Claims(nil), "EdDSA"), Request{})
	if i.Generation() == j.Generation() {
		t.Error("the generation does not show the distrust")
	}
}
