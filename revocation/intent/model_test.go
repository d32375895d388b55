package intent

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Whatever happens in whatever order, crashes included: what was accepted is
// recorded in the end, and nothing else.
func TestOnlyAndAllAcceptedIntentsAreRecorded(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir := t.TempDir()
		r := &recorder{err: errDown}
		j := open(t, dir, r)
		accepted := map[string]bool{}
		unknown := map[string]bool{}
		held := map[string]*Entry{}
		next := 0
		pick := func(from map[string]*Entry) string {
			return rapid.SampledFrom(slices.Sorted(maps.Keys(from))).Draw(rt, "which")
		}
		for range rapid.IntRange(1, 25).Draw(rt, "steps") {
			step := rapid.SampledFrom([]string{
				"begin", "begin", "accept", "drop", "leave", "record", "resume", "crash", "restart", "up", "down",
			}).Draw(rt, "step")
			if len(held) == 0 && slices.Contains([]string{"accept", "drop", "leave", "record"}, step) {
				step = "begin"
			}
			switch step {
			case "begin":
				name := fmt.Sprint(next)
				next++
				held[name] = begin(t, j, name)
			case "accept":
				name := pick(held)
				if err := held[name].Accept(); err != nil {
					rt.Fatal(err)
				}
				accepted[name] = true
			case "drop":
				name := pick(held)
				held[name].Drop()
				delete(held, name)
			case "leave":
				name := pick(held)
				held[name].Leave("")
				delete(held, name)
				if !accepted[name] {
					unknown[name] = true
				}
			case "record":
				name := pick(held)
				if err := held[name].Accept(); err != nil {
					rt.Fatal(err)
				}
				accepted[name] = true
				_ = held[name].Record(context.Background(), r.record)
				delete(held, name)
			case "resume":
				if len(unknown) == 0 {
					continue
				}
				name := rapid.SampledFrom(slices.Sorted(maps.Keys(unknown))).Draw(rt, "which")
				e, err := j.Resume(context.Background(), iss, "app", name)
				if err != nil || e == nil {
					rt.Fatalf("%s is not found: %v", name, err)
				}
				delete(unknown, name)
				held[name] = e
			case "crash", "restart":
				if step == "crash" {
					dir = image(t, dir)
				}
				if err := j.Close(); err != nil {
					rt.Fatal(err)
				}
				for name := range held {
					if !accepted[name] {
						unknown[name] = true
					}
				}
				clear(held)
				j = open(t, dir, r)
			case "up":
				r.set(nil)
			case "down":
				r.set(errDown)
			}
		}
		for _, e := range held {
			e.Leave("")
		}
		r.set(nil)
		want := slices.Sorted(maps.Keys(accepted))
		eventually(t, "all that was accepted", func() bool { return j.Stats().Accepted == 0 })
		if got := r.recorded(); !slices.Equal(got, want) {
			rt.Fatalf("recorded %v, want %v", got, want)
		}
		if err := j.Close(); err != nil {
			rt.Fatal(err)
		}
	})
}
