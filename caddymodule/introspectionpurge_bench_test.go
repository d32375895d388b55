package caddymodule

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/denylist"
	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// BenchmarkPurge compares what a revocation costs whoever applies it while 10,000
// answers are kept: with the purger, which looks through them once for many
// revocations and not while the ledger is followed, and with a look through all of
// them for each.
func BenchmarkPurge(b *testing.B) {
	as := revocationtest.NewOpaqueServer(b, edgeSecret)
	i, err := issuer.New(issuer.Config{Issuer: as.URL, Opaque: true}, issuer.Options{})
	if err != nil {
		b.Fatal(err)
	}
	n, err := issuer.NewIntrospector(i, issuer.IntrospectionConfig{
		Endpoint: as.URL + revocationtest.IntrospectPath, ClientID: "edge", ClientSecret: edgeSecret,
		CacheTTL: issuer.Duration(10 * time.Minute), CacheSize: 64 << 20,
	}, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(n.Close)
	for k := range 10_000 {
		_, err := n.Introspect(b.Context(), as.Issue(map[string]any{
			"sub": fmt.Sprintf("user-%d", k), "scope": strings.Repeat("read write ", 10),
		}), issuer.IntrospectionRequest{})
		if err != nil {
			b.Fatal(err)
		}
	}
	revoke := func(list *denylist.Denylist, k int) {
		list.Revoke(uint64(k+1), &revocation.Revocation{
			ID: "bench", Mode: revocation.Block, Expires: time.Now().Add(time.Hour).Unix(),
			Criteria: revocation.Criteria{Issuer: as.URL, Claims: map[string]string{"sub": fmt.Sprintf("nobody-%d", k)}},
		})
	}
	newList := func(b *testing.B) *denylist.Denylist {
		b.Helper()
		list, err := denylist.New(denylist.Options{MaxEntries: b.N + 1000})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(list.Close)
		return list
	}
	b.Run("purger", func(b *testing.B) {
		list := newList(b)
		p := newPurger(list, []*issuer.Introspector{n})
		defer p.close()
		for k := 0; b.Loop(); k++ {
			revoke(list, k)
		}
	})
	b.Run("each", func(b *testing.B) {
		list := newList(b)
		defer list.Watch(func(c denylist.Change) { n.PurgeCriteria(*c.Criteria) })()
		for k := 0; b.Loop(); k++ {
			revoke(list, k)
		}
	})
	b.Run("one look", func(b *testing.B) {
		list := newList(b)
		revoke(list, 0)
		names, _ := list.ClaimNames()
		for b.Loop() {
			n.Purge(func(id *revocation.Identity) bool { return list.Check(id).Denied }, names...)
		}
	})
	if n.Status().Answers != 10_000 {
		b.Fatalf("%d answers are left", n.Status().Answers)
	}
}
