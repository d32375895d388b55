package issuer

import (
	"context"
	"testing"
)

// BenchmarkIntrospect compares a kept answer, by one caller and by several, with
// asking a server on this host.
func BenchmarkIntrospect(b *testing.B) {
	s := newAsked(b, answers(activeText(nil)))
	names := []string{"aud"}
	b.Run("kept", func(b *testing.B) {
		n := s.introspector(b, func(_ *Config, c *IntrospectionConfig, _ *Options) { c.CacheTTL = Duration(MaxIntrospectionTTL) })
		introspect(b, n, testToken, IntrospectionRequest{ClaimNames: names})
		b.ReportAllocs()
		for b.Loop() {
			if _, err := n.Introspect(context.Background(), testToken, IntrospectionRequest{ClaimNames: names}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("kept, in parallel", func(b *testing.B) {
		n := s.introspector(b, func(_ *Config, c *IntrospectionConfig, _ *Options) { c.CacheTTL = Duration(MaxIntrospectionTTL) })
		introspect(b, n, testToken, IntrospectionRequest{ClaimNames: names})
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := n.Introspect(context.Background(), testToken, IntrospectionRequest{ClaimNames: names}); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
	b.Run("asked", func(b *testing.B) {
		n := s.introspector(b, func(_ *Config, c *IntrospectionConfig, _ *Options) { c.CacheTTL = -1 })
		b.ReportAllocs()
		for b.Loop() {
			if _, err := n.Introspect(context.Background(), testToken, IntrospectionRequest{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func TestAKeptAnswerAllocatesLittle(t *testing.T) {
	s := newAsked(t, answers(activeText(nil)))
	n := s.introspector(t, func(_ *Config, c *IntrospectionConfig, _ *Options) { c.CacheTTL = Duration(MaxIntrospectionTTL) })
	introspect(t, n, testToken, IntrospectionRequest{})
	allocs := testing.AllocsPerRun(100, func() { introspect(t, n, testToken, IntrospectionRequest{}) })
	if raceEnabled {
		t.Skipf("%.0f allocations; not meaningful under the race detector", allocs)
	}
	if allocs > 1 {
		t.Errorf("%.0f allocations", allocs)
	}
}
