package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/ledger"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// recreate deletes the stream and waits until the edge follows the new one.
func recreate(t testing.TB, js jetstream.JetStream, e *edge) {
	t.Helper()
	was := e.Status().LedgerID
	if err := js.DeleteStream(t.Context(), ledger.DefaultStream); err != nil {
		t.Fatal(err)
	}
	eventually(t, "created again and followed", func() bool {
		st := e.Status()
		return st.Usable && st.LedgerID != was && e.denylist.Position().Ledger == st.LedgerID && e.State().InSync
	})
}

func TestAnEmptiedLedgerIsReseededFromAnEdgeThatHoldsIt(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	js := client(t, srv.URL())
	e := newEdge(t, external(srv.URL())).synced(t)
	expires := time.Now().Add(time.Hour).Unix()
	const n = 3000 // more than fit into one message
	for i := range n / 100 {
		var requests []revocation.Request
		for j := range 100 {
			requests = append(requests, tokenRequest(fmt.Sprint("x", 100*i+j), expires))
		}
		for _, r := range e.service.Import(t.Context(), requests) {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
		}
	}
	alice := revocation.Criteria{Issuer: "https://sso.example.com", Claims: map[string]string{"sub": "alice"}}
	for _, mode := range []revocation.Mode{revocation.IssuedBefore, revocation.AuthenticatedBefore} {
		if _, err := e.service.Revoke(t.Context(), revocation.Request{Criteria: alice, Mode: mode}); err != nil {
			t.Fatal(err)
		}
	}
	if done, err := e.Reseed(t.Context(), e.denylist); err != nil || done.Entries != 0 {
		t.Errorf("nothing is missing, written: %+v, %v", done, err)
	}
	recreate(t, js, e)
	e.revoke(t, "after", expires) // the new history has this one

	done, err := e.Reseed(t.Context(), e.denylist)
	if err != nil || done.Entries != n+2 || done.Messages < 2 || done.Messages > n/100 {
		t.Fatalf("%+v, %v", done, err)
	}
	if in := entries(t, js); in != uint64(done.Messages)+1 {
		t.Errorf("%d messages in the stream", in)
	}
	fresh := newEdge(t, external(srv.URL())).synced(t)
	for i := range n {
		if !fresh.denies(fmt.Sprint("x", i)) {
			t.Fatalf("x%d is not denied by an edge that starts now", i)
		}
	}
	id := &revocation.Identity{Issuer: alice.Issuer, Claims: []revocation.Claim{{Name: "sub", Value: "alice"}}, IssuedAt: time.Now().Add(-time.Hour).Unix()}
	if !fresh.denylist.Check(id).Denied {
		t.Error("alice's old tokens are not denied")
	}
	later := *id
	later.IssuedAt, later.AuthTime = time.Now().Add(time.Hour).Unix(), time.Now().Add(time.Hour).Unix()
	if fresh.denylist.Check(&later).Denied {
		t.Error("alice's new tokens are denied")
	}
	if fresh.denies("never") {
		t.Error("a token that nobody revoked is denied")
	}
	eventually(t, "nothing is missing any more", func() bool {
		done, err := e.Reseed(t.Context(), e.denylist)
		return err == nil && done.Entries == 0
	})
	// What was reseeded is undone like anything else.
	fresh.restore(t, "x7")
	if _, err := fresh.service.Restore(t.Context(), revocation.RestoreRequest{Criteria: alice}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "restored everywhere", func() bool {
		return !fresh.denies("x7") && !e.denies("x7") && !fresh.denylist.Check(id).Denied && !e.denylist.Check(id).Denied
	})
	if !fresh.denies("x8") || !e.denies("x8") {
		t.Error("more than asked for was restored")
	}
	if again := newEdge(t, external(srv.URL())).synced(t); again.denies("x7") || !again.denies("x8") {
		t.Error("an edge that starts after the restoration")
	}
}

// While an edge writes what it holds, others restore some of it. None of that may
// come back.
func TestReseedingHeedsRestorations(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	js := client(t, srv.URL())
	e := newEdge(t, external(srv.URL())).synced(t)
	other := newEdge(t, external(srv.URL())).synced(t)
	expires := time.Now().Add(time.Hour).Unix()
	const n = 4000
	var requests []revocation.Request
	for i := range n {
		requests = append(requests, tokenRequest(fmt.Sprint("x", i), expires))
	}
	for _, r := range e.service.Import(t.Context(), requests) {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	recreate(t, js, e)
	other.synced(t)
	var wg sync.WaitGroup
	restored := make(chan int, n)
	wg.Go(func() {
		defer close(restored)
		for i := 0; i < n; i += n / 40 {
			if _, err := other.service.Restore(t.Context(), revocation.RestoreRequest{Criteria: tokenRequest(fmt.Sprint("x", i), 0).Criteria}); err == nil {
				restored <- i
			}
		}
	})
	done, err := e.Reseed(t.Context(), e.denylist)
	wg.Wait()
	if err != nil {
		t.Fatal(err)
	}
	fresh := newEdge(t, external(srv.URL())).synced(t)
	undone := map[int]bool{}
	for i := range restored {
		undone[i] = true
	}
	for i := range n {
		jti := fmt.Sprint("x", i)
		if got := fresh.denies(jti); got == undone[i] {
			t.Errorf("%s: restored %t, denied %t", jti, undone[i], got)
		}
	}
	t.Logf("%+v, %d restored meanwhile", done, len(undone))
}

// between is a sink whose entries are undone by somebody else after it gave them
// away, and before they are written.
type between struct {
	ledger.Holder
	once sync.Once
	do   func()
}

func (b *between) HeldEntries() iter.Seq2[uint64, revocation.HeldEntry] {
	return func(yield func(uint64, revocation.HeldEntry) bool) {
		for sequence, e := range b.Holder.HeldEntries() {
			if !yield(sequence, e) {
				return
			}
		}
		b.once.Do(b.do)
	}
}

func TestARestorationBetweenTakingAndWritingIsHeeded(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	js := client(t, srv.URL())
	e := newEdge(t, external(srv.URL())).synced(t)
	other := newEdge(t, external(srv.URL())).synced(t)
	expires := time.Now().Add(time.Hour).Unix()
	for i := range 5 {
		e.revoke(t, fmt.Sprint("x", i), expires)
	}
	recreate(t, js, e)
	other.synced(t)
	done, err := e.Reseed(t.Context(), &between{Holder: e.denylist, do: func() { other.restore(t, "x3") }})
	if err != nil || done.Entries != 4 {
		t.Errorf("%+v, %v", done, err)
	}
	fresh := newEdge(t, external(srv.URL())).synced(t)
	for i := range 5 {
		if got := fresh.denies(fmt.Sprint("x", i)); got != (i != 3) {
			t.Errorf("x%d: denied %t", i, got)
		}
	}
}

func TestAnEdgeThatDoesNotKnowTheLedgerDoesNotReseedIt(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	proxy := revocationtest.StartProxy(t, srv.Addr())
	e := newEdge(t, external("nats://"+proxy.Addr())).synced(t)
	proxy.Freeze()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := e.Reseed(ctx, e.denylist); !errors.Is(err, ledger.ErrNotReplayed) {
		t.Errorf("on a frozen link: %v", err)
	}
	proxy.Thaw()
	proxy.Refuse()
	eventually(t, "refused without a connection", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := e.Reseed(ctx, e.denylist)
		return errors.Is(err, ledger.ErrNotReplayed)
	})
}
