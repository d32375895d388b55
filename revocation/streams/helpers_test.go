package streams

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/denylist"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const iss = "https://issuer.example"

func newDenylist(t testing.TB) *denylist.Denylist {
	t.Helper()
	d, err := denylist.New(denylist.Options{MaxEntries: 100_000, CacheBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// byHand returns a registry that works only when its turn method is called.
func byHand(t testing.TB, d *denylist.Denylist, o Options) *Registry {
	t.Helper()
	r := watching(t, d, o)
	r.started = true
	return r
}

func watching(t testing.TB, d *denylist.Denylist, o Options) *Registry {
	t.Helper()
	o.Denylist = d
	r := New(o)
	t.Cleanup(r.Stop)
	t.Cleanup(d.Watch(r.Applied))
	return r
}

// token is a request with its token.
type token struct {
	Stream
	whole revocation.Identity // with every claim
	lost  bool                // can't be read again

	mu       sync.Mutex
	causes   []CutError
	readings atomic.Int32
}

func (o *token) Cut(cause *CutError) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.causes = append(o.causes, *cause)
	return true
}

func (o *token) Identify(names []string) (*revocation.Identity, error) {
	o.readings.Add(1)
	if o.lost {
		return nil, errors.New("can't be read again")
	}
	return o.extract(names), nil
}

// extract makes an identity with the claims that would have been asked for.
func (o *token) extract(names []string) *revocation.Identity {
	id := o.whole
	id.Claims = slices.DeleteFunc(slices.Clone(id.Claims), func(c revocation.Claim) bool {
		return !slices.Contains(wellKnown[:], c.Name) && !slices.Contains(names, c.Name)
	})
	return &id
}

func (o *token) cuts() []CutError {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.causes)
}

// newToken makes a token from name, value, name, value.
func newToken(pairs ...string) *token {
	o := &token{whole: revocation.Identity{Issuer: iss, IssuedAt: 1000, Verified: true}}
	for i := 0; i < len(pairs); i += 2 {
		o.whole.Claims = append(o.whole.Claims, revocation.Claim{Name: pairs[i], Value: pairs[i+1]})
	}
	revocation.SortClaims(o.whole.Claims)
	return o
}

func (o *token) open(r *Registry, d *denylist.Denylist, expires int64) *token {
	names, epoch := d.ClaimNames()
	r.Open(&o.Stream, o, o.extract(names), epoch, expires)
	return o
}

func criteria(pairs ...string) revocation.Criteria {
	c := revocation.Criteria{Issuer: iss, Claims: make(map[string]string)}
	for i := 0; i < len(pairs); i += 2 {
		c.Claims[pairs[i]] = pairs[i+1]
	}
	return c
}

func block(c revocation.Criteria) *revocation.Revocation {
	return &revocation.Revocation{ID: "test", Criteria: c, Mode: revocation.Block, Expires: time.Now().Add(time.Hour).Unix()}
}

func cutoff(c revocation.Criteria, at int64) *revocation.Revocation {
	r := block(c)
	r.Mode, r.Cutoff = revocation.IssuedBefore, at
	return r
}

func wantCut(t *testing.T, what string, o *token, want ...Reason) {
	t.Helper()
	var got []Reason
	for _, c := range o.cuts() {
		got = append(got, c.Reason)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s: cut for %v, want %v", what, got, want)
	}
}
