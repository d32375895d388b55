package streams

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/denylist"
)

// world compares the registry with a scan of all streams.
type world struct {
	list     *denylist.Denylist
	registry *Registry
	now      time.Time
	open     []*modelStream
	sequence uint64
	recorded []revocation.Criteria
}

type modelStream struct {
	*token
	expires int64
	cut     bool // by the model
}

// Promises 2 and 7: what is cut is what a scan would cut, whatever comes in
// between.
func TestTheRegistryCutsWhatAScanWouldCut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Now()
		d, err := denylist.New(denylist.Options{MaxEntries: 10_000, CacheBytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		w := &world{list: d, now: now}
		w.registry = New(Options{Denylist: d, Now: func() time.Time { return w.now }})
		w.registry.started = true
		defer d.Watch(w.registry.Applied)()
		t.Repeat(map[string]func(*rapid.T){
			"open":     w.openOne,
			"open two": func(t *rapid.T) { w.openOne(t); w.openOne(t) },
			"close":    w.closeOne,
			"revoke":   w.revoke,
			"restore":  w.restore,
			"turn":     func(t *rapid.T) { w.turn(t) },
			"wait": func(t *rapid.T) {
				w.now = w.now.Add(time.Duration(rapid.IntRange(1, 20).Draw(t, "seconds")) * time.Second)
			},
		})
		w.turn(t)
	})
}

var (
	issuers = rapid.SampledFrom([]string{iss, iss + "/", "https://other.example"})
	values  = rapid.SampledFrom([]string{"a", "b", "c"})
)

func (w *world) openOne(t *rapid.T) {
	o := &modelStream{token: &token{whole: revocation.Identity{
		Issuer:   issuers.Draw(t, "issuer"),
		IssuedAt: int64(rapid.IntRange(0, 5).Draw(t, "iat")),
		AuthTime: int64(rapid.IntRange(0, 5).Draw(t, "auth_time")),
	}}}
	if rapid.Bool().Draw(t, "aliased") {
		o.whole.Aliases = []string{issuers.Draw(t, "alias")}
	}
	for _, name := range []string{"sub", "client_id", "jti", "team"} {
		if rapid.IntRange(0, 3).Draw(t, name+" is there") > 0 {
			o.whole.Claims = append(o.whole.Claims, revocation.Claim{Name: name, Value: values.Draw(t, name)})
		}
	}
	for range rapid.IntRange(0, 4).Draw(t, "roles") {
		o.whole.Claims = append(o.whole.Claims, revocation.Claim{Name: "roles", Value: values.Draw(t, "role")})
	}
	revocation.SortClaims(o.whole.Claims)
	if rapid.Bool().Draw(t, "expires") {
		o.expires = w.now.Unix() + int64(rapid.IntRange(1, 60).Draw(t, "life"))
	}
	o.token.open(w.registry, w.list, o.expires)
	if w.denied(o) {
		w.registry.Close(&o.Stream) // refused
		return
	}
	w.open = append(w.open, o)
}

func (w *world) denied(o *modelStream) bool { return w.list.Check(&o.whole).Denied }

func (w *world) closeOne(t *rapid.T) {
	if len(w.open) == 0 {
		t.Skip("none is open")
	}
	i := rapid.IntRange(0, len(w.open)-1).Draw(t, "which")
	w.registry.Close(&w.open[i].Stream)
	w.open = slices.Delete(w.open, i, i+1)
}

func (w *world) revoke(t *rapid.T) {
	c := revocation.Criteria{Issuer: issuers.Draw(t, "issuer"), Claims: map[string]string{}}
	for _, name := range []string{"sub", "client_id", "jti", "team", "roles"} {
		if rapid.IntRange(0, 2).Draw(t, name+" is named") == 0 {
			c.Claims[name] = values.Draw(t, name)
		}
	}
	r := &revocation.Revocation{
		ID: "test", Criteria: c, Expires: time.Now().Add(time.Hour).Unix(),
		Mode: rapid.SampledFrom([]revocation.Mode{revocation.Block, revocation.IssuedBefore, revocation.AuthenticatedBefore}).Draw(t, "mode"),
	}
	if r.Mode != revocation.Block {
		r.Cutoff = int64(rapid.IntRange(1, 5).Draw(t, "cutoff"))
	}
	if rapid.IntRange(0, 4).Draw(t, "has ended") == 0 {
		r.Expires = time.Now().Add(-2 * time.Hour).Unix()
	}
	w.sequence++
	w.recorded = append(w.recorded, c)
	if rapid.IntRange(0, 4).Draw(t, "held") == 0 {
		w.list.RevokeHeld(w.sequence, &revocation.HeldEntry{
			Fingerprint: c.Fingerprint(r.Mode), Mode: r.Mode, Names: c.Names(), Cutoff: r.Cutoff, Expires: r.Expires,
		})
		return
	}
	w.list.Revoke(w.sequence, r)
}

func (w *world) restore(t *rapid.T) {
	if len(w.recorded) == 0 {
		t.Skip("nothing is revoked")
	}
	w.sequence++
	w.list.Restore(w.sequence, &revocation.Restoration{ID: "test", Criteria: rapid.SampledFrom(w.recorded).Draw(t, "which")})
}

type fataler interface {
	Fatalf(format string, args ...any)
}

func (w *world) turn(t fataler) {
	for _, o := range w.open {
		if w.denied(o) || o.expires != 0 && w.now.Unix() >= o.expires {
			o.cut = true
		}
	}
	w.registry.turn()
	for i, o := range w.open {
		if n := len(o.cuts()); n > 1 || (n == 1) != o.cut {
			t.Fatalf("stream %d %s was cut %d times, the model says %v", i, fmt.Sprint(o.whole), n, o.cut)
		}
	}
	if got := w.registry.Len(); got != len(w.open) {
		t.Fatalf("%d are open, not %d", got, len(w.open))
	}
}
