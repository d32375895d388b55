//go:build e2e

package e2e

import (
	"bufio"
	"cmp"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// tokenSigner issues RS256 tokens with a key of its own.
type tokenSigner struct {
	issuer string
	jwks   string
	signer jose.Signer
}

func newTokenSigner(b *testing.B) *tokenSigner {
	b.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		b.Fatal(err)
	}
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "1", Algorithm: "RS256", Use: "sig"}}})
	if err != nil {
		b.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key, KeyID: "1"}},
		(&jose.SignerOptions{}).WithType("at+jwt"))
	if err != nil {
		b.Fatal(err)
	}
	return &tokenSigner{issuer: "https://id.bench.example", jwks: string(set), signer: signer}
}

// tokens signs as many tokens, each of another user and session.
func (s *tokenSigner) tokens(b *testing.B, n int) []string {
	b.Helper()
	all := make([]string, n)
	for i := range all {
		payload, err := json.Marshal(map[string]any{
			"iss": s.issuer, "sub": fmt.Sprintf("user-%d", i), "client_id": "app", "sid": fmt.Sprintf("session-%d", i),
			"jti": fmt.Sprintf("token-%d", i), "aud": []string{"orders", "billing"}, "scope": "openid profile email orders:read orders:write",
			"iat": time.Now().Unix(), "exp": time.Now().Add(12 * time.Hour).Unix(),
		})
		if err != nil {
			b.Fatal(err)
		}
		signed, err := s.signer.Sign(payload)
		if err != nil {
			b.Fatal(err)
		}
		if all[i], err = signed.CompactSerialize(); err != nil {
			b.Fatal(err)
		}
	}
	return all
}

// paired are figures of pairs that were measured one after the other.
type paired struct{ values []float64 }

func (p *paired) add(v float64) { p.values = append(p.values, v) }

// report gives the median and the ends of an interval that holds the median of
// all possible measurements with a probability of 95 % or more, whatever their
// distribution is.
func (p *paired) report(b *testing.B, name string) {
	b.Helper()
	sorted := slices.Sorted(slices.Values(p.values))
	low, high := medianInterval(len(sorted))
	b.ReportMetric(quantile(sorted, 0.5), name)
	b.ReportMetric(sorted[low], name+"-low")
	b.ReportMetric(sorted[high], name+"-high")
}

// medianInterval returns the indices, in sorted order, between which the true
// median is with a probability of at least 95 %: by the binomial distribution,
// how many of n values are below it.
func medianInterval(n int) (low, high int) {
	outside, term := 0.0, math.Pow(0.5, float64(n)) // of no value below it
	for k := range n / 2 {
		if 2*(outside+term) > 0.05 {
			break
		}
		outside += term
		term *= float64(n-k) / float64(k+1)
		low = k
	}
	return low, n - 1 - low
}

// delays measures single requests over a number of connections.
func delays(b *testing.B, e *edge, tokens []string, connections int, during time.Duration) []time.Duration {
	b.Helper()
	var (
		mu      sync.Mutex
		all     []time.Duration
		failure error
		workers sync.WaitGroup
	)
	until := time.Now().Add(during)
	head := requestHead(e)
	for worker := range connections {
		workers.Go(func() {
			var own []time.Duration
			err := talk(e.address, until, func(n int) []byte {
				return fmt.Appendf(nil, "%sAuthorization: Bearer %s\r\n\r\n", head, tokens[(n*connections+worker)%len(tokens)])
			}, func(d time.Duration) { own = append(own, d) })
			mu.Lock()
			defer mu.Unlock()
			all, failure = append(all, own...), cmp.Or(failure, err)
		})
	}
	workers.Wait()
	if failure != nil || len(all) == 0 {
		b.Fatalf("%s: %d answers, then %v", e.name, len(all), failure)
	}
	return all
}

// flooded sends ten requests with garbage for each one with a good token, over a
// number of connections, and returns how many good ones a second were served.
func flooded(b *testing.B, e *edge, tokens []string, connections int, during time.Duration) (good float64) {
	b.Helper()
	const bad = 10
	var (
		served  atomic.Int64
		failure atomic.Pointer[error]
		workers sync.WaitGroup
	)
	head, began := requestHead(e), time.Now()
	for worker := range connections {
		workers.Go(func() {
			err := talk(e.address, began.Add(during), func(n int) []byte {
				if n%(bad+1) != 0 {
					return garbage(head, tokens[0], floodNumber.Add(1))
				}
				served.Add(1)
				return fmt.Appendf(nil, "%sAuthorization: Bearer %s\r\n\r\n", head, tokens[(n/(bad+1)*connections+worker)%len(tokens)])
			}, nil)
			if err != nil {
				failure.Store(&err)
			}
		})
	}
	workers.Wait()
	if err := failure.Load(); err != nil {
		b.Fatalf("%s under a flood: %v", e.name, *err)
	}
	return float64(served.Load()) / time.Since(began).Seconds()
}

var floodNumber atomic.Uint64

func requestHead(e *edge) string {
	return "GET / HTTP/1.1\r\nHost: localhost" + e.address[strings.LastIndex(e.address, ":"):] + "\r\n"
}

// talk sends requests over one connection, one after the other.
func talk(address string, until time.Time, request func(n int) []byte, took func(time.Duration)) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(until.Add(10 * time.Second)); err != nil {
		return err
	}
	reader := bufio.NewReader(conn)
	for n := 0; ; n++ {
		text := request(n)
		began := time.Now()
		if began.After(until) {
			return nil
		}
		if _, err := conn.Write(text); err != nil {
			return err
		}
		if _, err := skipAnswer(reader); err != nil {
			return err
		}
		if took != nil {
			took(time.Since(began))
		}
	}
}
