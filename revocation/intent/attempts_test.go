package intent

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// Whoever has the token can be refused in the client's name. That says nothing of
// the client's own attempt, before or at the same time.
func TestARefusedAttemptEndsNoOther(t *testing.T) {
	r := new(recorder)
	dir := t.TempDir()
	j := open(t, dir, r)
	begin(t, j, "token").Leave("")
	begin(t, j, "token").Drop()
	for range 2 {
		e, err := j.Resume(background, iss, "app", "token")
		if err != nil || e == nil {
			t.Fatalf("it is gone: %v", err)
		}
		e.Drop()
	}
	first, second := begin(t, j, "both"), begin(t, j, "both")
	second.Drop()
	if len(files(t, dir)) != 2 {
		t.Errorf("files %v", files(t, dir))
	}
	first.Leave("")
	begin(t, j, "both").Drop()
	if s := j.Stats(); s.Unknown != 2 {
		t.Errorf("%+v", s)
	}
	for _, name := range []string{"token", "both"} {
		e, _ := j.Resume(background, iss, "app", name)
		_ = e.Accept()
		_ = e.Record(background, r.record)
	}
	if got := files(t, dir); len(got) != 0 || !slices.Equal(r.recorded(), []string{"both", "token"}) {
		t.Errorf("recorded %v, left %v", r.recorded(), got)
	}
}

// Whoever has one token must not take all places, or make everybody wait for the
// disk.
func TestAttemptsOnOneTokenShareAnIntent(t *testing.T) {
	r := new(recorder)
	dir := t.TempDir()
	j := open(t, dir, r, func(o *Options) { o.MaxOpen = 2 })
	var wg sync.WaitGroup
	entries := make([]*Entry, 50)
	i := someIntent("token")
	for n := range entries {
		wg.Go(func() {
			var err error
			if entries[n], err = j.Begin(background, i); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := files(t, dir); len(got) != 1 || j.Stats().Forwarded != 1 {
		t.Fatalf("files %v", got)
	}
	begin(t, j, "another").Drop()
	for _, e := range entries[1:] {
		e.Drop()
	}
	if len(files(t, dir)) != 1 {
		t.Fatal("the last one has lost its intent")
	}
	// Not by one of long ago, whose cutoff would be, nor by one that wants less.
	later, more := i, i
	later.Made = i.Made.Add(prompt)
	more.Requests = append(slices.Clone(i.Requests), withGrant().Requests[1])
	for _, other := range []Intent{later, more} {
		e, err := j.Begin(background, other)
		if err != nil || len(files(t, dir)) != 2 {
			t.Fatalf("files %v, %v", files(t, dir), err)
		}
		e.Drop()
	}
	_ = entries[0].Accept()
	_ = entries[0].Record(background, r.record)
	if len(files(t, dir)) != 0 || len(r.recorded()) != 1 {
		t.Errorf("files %v, recorded %v", files(t, dir), r.recorded())
	}
}

func TestOneClientCannotTakeAllPlaces(t *testing.T) {
	j := open(t, t.TempDir(), new(recorder), func(o *Options) { o.MaxOpen = minShare + 5 })
	var held []*Entry
	for n := range minShare {
		held = append(held, begin(t, j, fmt.Sprint(n)))
	}
	if _, err := j.Begin(background, someIntent("more")); !errors.Is(err, ErrUnavailable) || j.Stats().Refused != 1 {
		t.Errorf("more than its share: %v", err)
	}
	other := someIntent("another client's")
	other.Client = "other"
	e, err := j.Begin(background, other)
	if err != nil {
		t.Fatal(err)
	}
	e.Leave("")
	held[0].Leave("")
	begin(t, j, "more").Drop() // its own unknown one goes, and nobody else's
	if s := j.Stats(); s.Unknown != 1 || s.Evicted != 1 {
		t.Errorf("%+v", s)
	}
	if e, _ := j.Resume(background, iss, "other", "another client's"); e == nil {
		t.Error("the other client's is gone")
	}
}

// Tokens end by themselves, too: a refresh token when it is used, an access token
// with time. That says nothing of what else was issued with them.
func TestATokenThatDiedInTheDarkIsRecordedAlone(t *testing.T) {
	var recorded [][]revocation.Request
	var mu sync.Mutex
	record := func(_ context.Context, i *Intent) error {
		mu.Lock()
		defer mu.Unlock()
		recorded = append(recorded, i.Requests)
		return nil
	}
	j := open(t, t.TempDir(), new(recorder), func(o *Options) {
		o.Record = record
		o.Active = func(context.Context, string, string) (bool, error) { return false, nil }
	})
	i := withGrant()
	e, err := j.Begin(background, i)
	if err != nil {
		t.Fatal(err)
	}
	e.Leave("the token itself")
	eventually(t, "the token to be recorded", func() bool { return j.Stats().Late == 1 })
	mu.Lock()
	if len(recorded) != 1 || !reflect.DeepEqual(recorded[0], i.Requests[:1]) {
		t.Errorf("recorded %+v", recorded)
	}
	mu.Unlock()
	// The client's own 200 is still good for the rest.
	if e, err = j.Resume(background, iss, "app", "token"); err != nil || e == nil {
		t.Fatalf("the client's next attempt does not find it: %v", err)
	}
	_ = e.Accept()
	_ = e.Record(background, record)
	if !reflect.DeepEqual(recorded[1], i.Requests) || j.Stats().Unknown != 0 {
		t.Errorf("recorded %+v", recorded)
	}
}

// What was accepted does not wait for an authorization server that is slow to
// say what became of something else.
func TestAcceptedIntentsDoNotWaitForQuestions(t *testing.T) {
	r := &recorder{err: errDown}
	asked := make(chan struct{})
	j := open(t, t.TempDir(), r, func(o *Options) {
		o.Timeout = time.Hour
		o.Active = func(ctx context.Context, _, _ string) (bool, error) {
			close(asked)
			<-ctx.Done()
			return false, ctx.Err()
		}
	})
	begin(t, j, "unknown").Leave("the token itself")
	<-asked
	e := begin(t, j, "accepted")
	_ = e.Accept()
	_ = e.Record(background, r.record)
	r.set(nil)
	eventually(t, "the accepted one to be recorded", func() bool { return len(r.recorded()) == 1 })
}
