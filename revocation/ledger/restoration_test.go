package ledger_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/denylist"
	"github.com/edge-revocation/caddy-token-revocation/revocation/ledger"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// The margins after the end of what is undone: an hour by which an edge's clock
// may be behind its machine's, an hour to spare, and the skew of clocks.
const restoreMargins = 2*time.Hour + ledger.DefaultMaxClockSkew

// ofToken is the undo of a revocation of the token with the given jti.
func ofToken(id, jti string) *revocation.Restoration {
	return &revocation.Restoration{
		ID: id, Criteria: tokenRequest(jti, 0).Criteria, Actor: "operator", DecidedAt: time.Now().UnixMilli(),
		Expires: time.Now().Add(revocation.MaxRetention).Unix(),
	}
}

// goesWith checks that the ledger keeps the entry at the sequence until the given
// end and the margins.
func goesWith(t *testing.T, js jetstream.JetStream, sequence uint64, end int64) {
	t.Helper()
	want := time.Until(time.Unix(end, 0)) + restoreMargins
	if life := lifeOf(t, js, sequence); life < want-time.Minute || life > want+time.Minute {
		t.Errorf("entry %d is kept for %s, not %s", sequence, life, want)
	}
}

// staysForGood checks that the ledger keeps the entry at the sequence for as long
// as anything can stand.
func staysForGood(t *testing.T, js jetstream.JetStream, sequence uint64) {
	t.Helper()
	if life := lifeOf(t, js, sequence); life < revocation.MaxRetention-time.Hour {
		t.Errorf("entry %d is kept for %s only", sequence, life)
	}
}

func TestARestorationIsForgottenWithWhatItUndoes(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	a := newEdge(t, external(srv.URL())).synced(t)
	b := newEdge(t, external(srv.URL())).synced(t)
	js := client(t, srv.URL())
	ends := time.Now().Add(time.Minute).Unix()
	revoked := a.revoke(t, "x", ends)
	eventually(t, "denied", func() bool { return b.denies("x") })
	// On a machine that is slow at the moment, it may be kept for good. Not always.
	eventually(t, "kept briefly", func() bool {
		receipt := b.restore(t, "x")
		if lifeOf(t, js, receipt.Sequence) > 24*time.Hour {
			revoked = a.revoke(t, "x", ends)
			return false
		}
		goesWith(t, js, receipt.Sequence, revoked.Expires)
		if want := revoked.Expires + int64(2*time.Hour/time.Second); receipt.Expires != want {
			t.Errorf("the receipt says %d, not %d", receipt.Expires, want)
		}
		return true
	})
	eventually(t, "restored everywhere", func() bool { return !a.denies("x") && !b.denies("x") })
	if fresh := newEdge(t, external(srv.URL())).synced(t); fresh.denies("x") {
		t.Error("denied by an edge that starts now")
	}

	// Of several modes, the longest counts.
	c := tokenRequest("y", 0).Criteria
	a.revoke(t, "y", ends)
	cut, err := a.service.Revoke(t.Context(), revocation.Request{Criteria: c, Mode: revocation.IssuedBefore})
	if err != nil {
		t.Fatal(err)
	}
	held := func() (int64, bool) { return a.denylist.HeldUntil(c) }
	eventually(t, "kept as long as the cutoff", func() bool {
		r := ofToken(fmt.Sprint(time.Now().UnixNano()), "y")
		sequence, err := a.PublishRestorationOf(t.Context(), r, held)
		if err != nil {
			t.Fatal(err)
		}
		if lifeOf(t, js, sequence) > 30*24*time.Hour {
			return false
		}
		goesWith(t, js, sequence, cut.Expires)
		return true
	})
}

// Another edge revokes the same, for longer, when this one has looked already.
func TestARestorationOutlivesWhatCameInBetween(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	a := newEdge(t, external(srv.URL())).synced(t)
	b := newEdge(t, external(srv.URL())).synced(t)
	js := client(t, srv.URL())
	eventually(t, "with all that came in between", func() bool {
		jti := fmt.Sprint("x", time.Now().UnixNano())
		a.revoke(t, jti, time.Now().Add(time.Minute).Unix())
		var between revocation.Receipt
		looks := 0
		r := ofToken(jti, jti)
		sequence, err := a.PublishRestorationOf(t.Context(), r, func() (int64, bool) {
			until, ok := a.denylist.HeldUntil(r.Criteria)
			if looks++; looks == 1 {
				between = b.revoke(t, jti, time.Now().Add(9*time.Hour).Unix())
			}
			return until, ok
		})
		if err != nil {
			t.Fatal(err)
		}
		if sequence < between.Sequence {
			t.Fatalf("stored at %d, the other at %d", sequence, between.Sequence)
		}
		if life := lifeOf(t, js, sequence); life < 9*time.Hour {
			t.Fatalf("kept for %s, and undoes what stands for 9 hours", life)
		} else if life > 24*time.Hour {
			return false // slow
		}
		goesWith(t, js, sequence, between.Expires)
		return looks == 2
	})
}

// lateDenylist takes what it is given only after a while.
type lateDenylist struct {
	*denylist.Denylist
	late time.Duration
}

func (d lateDenylist) Revoke(sequence uint64, r *revocation.Revocation) {
	time.Sleep(d.late)
	d.Denylist.Revoke(sequence, r)
}

// What came in between counts when it is applied, not when it is seen in the
// ledger.
func TestARestorationWaitsForWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	b := newEdge(t, external(srv.URL())).synced(t)
	d, err := denylist.New(denylist.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	l := open(t, external(srv.URL()))
	f := l.Follow(lateDenylist{d, 100 * time.Millisecond}, ledger.Observer{})
	eventually(t, "in sync", func() bool { return f.State().InSync })
	js := client(t, srv.URL())
	eventually(t, "with all that came in between", func() bool {
		jti := fmt.Sprint("x", time.Now().UnixNano())
		b.revoke(t, jti, time.Now().Add(time.Minute).Unix())
		r := ofToken(jti, jti)
		eventually(t, "held", func() bool { _, ok := d.HeldUntil(r.Criteria); return ok })
		var between revocation.Receipt
		looks := 0
		sequence, err := f.PublishRestorationOf(t.Context(), r, func() (int64, bool) {
			until, ok := d.HeldUntil(r.Criteria)
			if looks++; looks == 1 {
				between = b.revoke(t, jti, time.Now().Add(9*time.Hour).Unix())
			}
			return until, ok
		})
		if err != nil {
			t.Fatal(err)
		}
		if life := lifeOf(t, js, sequence); life < 9*time.Hour {
			t.Fatalf("entry %d is kept for %s, and undoes %d, which stands for 9 hours", sequence, life, between.Sequence)
		} else if life > 24*time.Hour {
			return false // slow
		}
		return looks == 2
	})
}

// The stream is another one than the edge knows, and the follower has not noticed:
// what the new one has for these criteria is not held here.
func TestARestorationInAnotherHistoryIsKeptForGood(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	js := client(t, srv.URL())
	e := newEdge(t, external(srv.URL())).synced(t)
	for i := range 10 {
		e.revoke(t, fmt.Sprint("y", i), time.Now().Add(time.Minute).Unix())
	}
	e.revoke(t, "x", time.Now().Add(time.Minute).Unix())
	eventually(t, "applied", func() bool { return e.State().Sequence > 10 })
	c := streamConfig(t, js)
	if err := js.DeleteStream(t.Context(), ledger.DefaultStream); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	put(t, js, ledger.KindGenesis, `{"v":1,"ledger":"another"}`)
	put(t, js, ledger.KindEntry, fmt.Sprintf(`{"v":1,"issuer":"https://sso.example.com","criteria":{"jti":"x"},"expires":%d}`, time.Now().Add(9*time.Hour).Unix()))
	staysForGood(t, js, e.restore(t, "x").Sequence)
}

func TestInDoubtARestorationIsKeptForGood(t *testing.T) {
	t.Parallel()
	soon := func() int64 { return time.Now().Add(time.Minute).Unix() }
	for name, doubt := range map[string]struct {
		options func(*ledger.Options)
		spoil   func(t *testing.T, js jetstream.JetStream, e *edge, jti string)
	}{
		"nothing is held": {nil, func(t *testing.T, _ jetstream.JetStream, e *edge, jti string) { e.restore(t, jti) }},
		"it never ends": {nil, func(t *testing.T, js jetstream.JetStream, _ *edge, jti string) {
			put(t, js, ledger.KindEntry, fmt.Sprintf(`{"v":1,"issuer":"https://sso.example.com","criteria":{"jti":%q},"expires":%d}`, jti, uint64(1)<<33))
		}},
		"incomplete": {nil, func(_ *testing.T, _ jetstream.JetStream, e *edge, _ string) {
			e.denylist.MarkIncomplete("test", soon())
		}},
		"held from before this history": {nil, func(_ *testing.T, _ jetstream.JetStream, e *edge, _ string) {
			p := e.denylist.Position()
			e.denylist.NewHistory(p, p.Sequence)
		}},
		"the clock is ahead": {func(o *ledger.Options) {
			o.Now = func() time.Time { return time.Now().Add(20 * time.Minute) }
		}, nil},
		"the clock is behind": {func(o *ledger.Options) {
			o.Now = func() time.Time { return time.Now().Add(-20 * time.Minute) }
		}, nil},
		"an entry of a newer version, acknowledged": {nil, func(t *testing.T, js jetstream.JetStream, e *edge, _ string) {
			newer := put(t, js, ledger.KindEntry, `{"v":2}`, jetstream.WithMsgTTL(time.Hour))
			eventually(t, "incomplete", func() bool { _, _, ok := e.denylist.Incomplete(time.Now()); return ok })
			if _, err := e.PublishAcknowledgment(t.Context(), newer, "", "operator"); err != nil {
				t.Fatal(err)
			}
			eventually(t, "complete", func() bool { _, _, ok := e.denylist.Incomplete(time.Now()); return !ok })
		}},
		"not following": {nil, func(_ *testing.T, _ jetstream.JetStream, e *edge, _ string) { e.Follower.Stop() }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := revocationtest.StartNATS(t)
			js := client(t, srv.URL())
			o := external(srv.URL())
			if doubt.options != nil {
				doubt.options(&o)
			}
			e := newEdge(t, o).synced(t)
			receipt := e.revoke(t, name, soon())
			eventually(t, "applied", func() bool { return e.State().Sequence >= receipt.Sequence })
			if doubt.spoil != nil {
				doubt.spoil(t, js, e, name)
			}
			last, err := js.Stream(t.Context(), ledger.DefaultStream)
			if err != nil {
				t.Fatal(err)
			}
			if st := e.State(); st.Following {
				eventually(t, "applied", func() bool { return e.State().Sequence >= last.CachedInfo().State.LastSeq })
			}
			receipt = e.restore(t, name)
			staysForGood(t, js, receipt.Sequence)
			if e.denies(name) && name != "held from before this history" {
				t.Error("still denied")
			}
		})
	}
}

func TestARestorationThatNobodyFollowsIsKeptForGood(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	e := newEdge(t, external(srv.URL())).synced(t)
	e.revoke(t, "x", time.Now().Add(time.Minute).Unix())
	looks := 0
	sequence, err := e.PublishRestorationOf(t.Context(), ofToken("r", "x"), func() (int64, bool) {
		looks++
		e.Stop() // as a config reload does
		return time.Now().Unix(), true
	})
	if err != nil || looks > 1 {
		t.Fatalf("%d looks, %v", looks, err)
	}
	staysForGood(t, client(t, srv.URL()), sequence)
}

func TestARestorationThroughAFrozenLinkIsKeptForGood(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	js := client(t, srv.URL())
	proxy := revocationtest.StartProxy(t, srv.Addr())
	o := external("nats://" + proxy.Addr())
	o.PublishDeadline = 20 * time.Second
	e := newEdge(t, o).synced(t)
	e.revoke(t, "x", time.Now().Add(time.Minute).Unix())
	proxy.Freeze()
	thaw := time.AfterFunc(3*time.Second, proxy.Thaw)
	defer thaw.Stop()
	receipt := e.restore(t, "x")
	staysForGood(t, js, receipt.Sequence)
	if n := messages(t, js, ledger.KindRestore.Subject()); n != 1 {
		t.Errorf("stored %d times", n)
	}
}

func TestARestorationWithoutHeartbeatsIsKeptForGood(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t, func(o *server.Options) {
		o.Users = []*server.User{
			{Username: "u", Password: secret, Permissions: &server.Permissions{
				Publish:   &server.SubjectPermission{Deny: []string{ledger.KindHeartbeat.Subject()}},
				Subscribe: &server.SubjectPermission{Allow: []string{">"}},
			}},
			{Username: "all", Password: secret},
		}
	})
	beats := external(srv.URL())
	beats.External.User, beats.External.Password = "all", secret
	newEdge(t, beats).synced(t)
	o := external(srv.URL())
	o.External.User, o.External.Password = "u", secret
	e := newEdge(t, o).synced(t)
	e.revoke(t, "x", time.Now().Add(time.Minute).Unix())
	js := client(t, fmt.Sprintf("nats://all:%s@%s", secret, srv.Addr()))
	staysForGood(t, js, e.restore(t, "x").Sequence)
}

// olderServer forwards to a server, and has it say that it is NATS 2.11.
func olderServer(t *testing.T, addr string) (url string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	closed := false
	keep := func(c net.Conn) {
		mu.Lock()
		defer mu.Unlock()
		if conns = append(conns, c); closed {
			_ = c.Close()
		}
	}
	t.Cleanup(func() {
		_ = listener.Close()
		mu.Lock()
		closed = true
		for _, c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	said, lies := fmt.Appendf(nil, `"version":%q`, server.VERSION), []byte(`"version":"2.11.9"`)
	pump := func(to, from net.Conn, change bool) {
		defer func() { _ = to.Close() }()
		if !change {
			_, _ = io.Copy(to, from)
			return
		}
		for r := bufio.NewReader(from); ; {
			line, err := r.ReadBytes('\n')
			if err != nil {
				return
			}
			if bytes.HasPrefix(line, []byte("INFO ")) { // which comes more than once
				line = bytes.Replace(line, said, lies, 1)
			}
			if _, err := to.Write(line); err != nil {
				return
			}
		}
	}
	wg.Go(func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			keep(in)
			out, err := net.Dial("tcp", addr)
			if err != nil {
				_ = in.Close()
				continue
			}
			keep(out)
			wg.Go(func() { pump(out, in, false) })
			wg.Go(func() { pump(in, out, true) })
		}
	})
	return "nats://" + listener.Addr().String()
}

func TestARestorationOnAnOlderServerIsKeptForGood(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	e := newEdge(t, external(olderServer(t, srv.Addr()))).synced(t)
	if v := e.Status().ServerVersion; v != "2.11.9" {
		t.Fatalf("the server says %s", v)
	}
	e.revoke(t, "x", time.Now().Add(time.Minute).Unix())
	staysForGood(t, client(t, srv.URL()), e.restore(t, "x").Sequence)
}

// A first attempt that was stored, and its acknowledgment lost, is good for what
// came before it; what comes after it is another matter.
func TestARestorationOfWhichTheAcknowledgmentWasLostIsStoredOnce(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	e := newEdge(t, external(srv.URL())).synced(t)
	js := client(t, srv.URL())
	revoked := e.revoke(t, "x", time.Now().Add(time.Minute).Unix())
	r := ofToken("same", "x")
	held := func() (int64, bool) { return e.denylist.HeldUntil(r.Criteria) }
	first, err := e.PublishRestorationOf(t.Context(), r, held)
	if err != nil {
		t.Fatal(err)
	}
	goesWith(t, js, first, revoked.Expires)
	again := e.revoke(t, "x", time.Now().Add(9*time.Hour).Unix())
	second, err := e.PublishRestorationOf(t.Context(), ofToken("same", "x"), held)
	if err != nil || second != first {
		t.Errorf("stored at %d and %d: %v", first, second, err)
	}
	e.denylist.Restore(second, r)
	for _, at := range []*edge{e, newEdge(t, external(srv.URL())).synced(t)} {
		eventually(t, "applied", func() bool { return at.State().Sequence >= again.Sequence })
		if !at.denies("x") {
			t.Error("what was revoked later is not denied")
		}
	}
}

func TestARestorationIsRefusedWhenTheLedgerIsFull(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	o := external(srv.URL())
	o.MaxBytes = 1 << 20
	e := newEdge(t, o).synced(t)
	js := client(t, srv.URL())
	e.revoke(t, "x", time.Now().Add(time.Minute).Unix())
	for size := 1 << 15; size > 1<<6; {
		if _, err := js.Publish(t.Context(), ledger.KindAssertion.Subject()+".x", bytes.Repeat([]byte("x"), size), jetstream.WithMsgTTL(time.Hour)); err != nil {
			size /= 2
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := e.service.Restore(ctx, revocation.RestoreRequest{Criteria: tokenRequest("x", 0).Criteria}); !errors.Is(err, revocation.ErrFull) {
		t.Errorf("got %v", err)
	}
}

// What the ledger keeps, at any time until all of it has ended, never makes an
// edge deny again: one that starts then, one that was away since before the
// restoration, and those whose clocks are wrong within bounds.
func TestNothingIsDeniedAgainWhenARestorationIsForgotten(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	e := newEdge(t, external(srv.URL())).synced(t)
	js := client(t, srv.URL())
	path := filepath.Join(t.TempDir(), "checkpoint")
	var undone uint64
	eventually(t, "kept briefly", func() bool {
		e.revoke(t, "x", time.Now().Add(time.Minute).Unix())
		if _, err := e.service.Revoke(t.Context(), revocation.Request{
			Criteria: tokenRequest("x", 0).Criteria, Mode: revocation.IssuedBefore, Cutoff: time.Now().Add(time.Hour).Unix(),
		}); err != nil {
			t.Fatal(err)
		}
		if err := e.denylist.WriteCheckpoint(path, "test", time.Now()); err != nil {
			t.Fatal(err)
		}
		undone = e.restore(t, "x").Sequence
		return lifeOf(t, js, undone) < 30*24*time.Hour
	})
	stream, err := js.Stream(t.Context(), ledger.DefaultStream)
	if err != nil {
		t.Fatal(err)
	}
	type kept struct {
		sequence uint64
		until    time.Time
		subject  string
	}
	var all []kept
	var moments []time.Time
	for sequence := uint64(1); sequence <= undone; sequence++ {
		m, err := stream.GetMsg(t.Context(), sequence)
		if err != nil || m.Subject != ledger.KindEntry.Subject() && m.Subject != ledger.KindRestore.Subject() {
			continue
		}
		k := kept{sequence, m.Time.Add(lifeOf(t, js, sequence)), m.Subject}
		all = append(all, k)
		moments = append(moments, k.until.Add(-2*time.Second), k.until.Add(2*time.Second))
	}
	if len(all) < 3 {
		t.Fatalf("only %v", all)
	}
	end := moments[len(moments)-1]
	for at := time.Now(); at.Before(end); at = at.Add(6 * time.Hour) {
		moments = append(moments, at)
	}
	token := &revocation.Identity{
		Issuer: "https://sso.example.com", Claims: []revocation.Claim{{Name: "jti", Value: "x"}}, IssuedAt: time.Now().Unix(),
	}
	cut := revocation.Revocation{
		ID: "cut", Criteria: tokenRequest("x", 0).Criteria, Mode: revocation.IssuedBefore,
		Cutoff: time.Now().Add(time.Hour).Unix(),
	}
	denied := 0
	for _, at := range moments {
		for _, wrong := range []time.Duration{0, ledger.DefaultMaxClockSkew, -ledger.DefaultMaxClockSkew} {
			now := at.Add(wrong)
			for _, name := range []string{"starts", "was away"} {
				var clock atomic.Int64
				clock.Store(now.UnixNano())
				d, err := denylist.New(denylist.Options{Now: func() time.Time { return time.Unix(0, clock.Load()) }})
				if err != nil {
					t.Fatal(err)
				}
				if name == "was away" {
					if _, _, err := d.LoadCheckpoint(path, "test"); err != nil {
						t.Fatal(err)
					}
				}
				if d.Check(token).Denied {
					denied++
				}
				for _, k := range all {
					if !at.Before(k.until) {
						continue // forgotten
					}
					if k.subject == ledger.KindRestore.Subject() {
						d.Restore(k.sequence, ofToken("r", "x"))
					} else if name == "starts" {
						r := cut
						r.Expires = k.until.Add(-ledger.DefaultMaxClockSkew).Unix()
						d.Revoke(k.sequence, &r)
					}
				}
				if d.Check(token).Denied {
					t.Errorf("at %s, with a clock that is %s wrong, by an edge that %s", at.Sub(end), wrong, name)
				}
				d.Close()
			}
		}
	}
	if denied == 0 {
		t.Error("the checkpoint denies nothing, the test proves nothing")
	}
}

// Another follower, of new credentials for instance, never saw an entry of a newer
// version that was acknowledged: it begins behind it.
func TestARestorationOutlivesWhatWasAcknowledgedBeforeThisFollower(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	js := client(t, srv.URL())
	e := newEdge(t, external(srv.URL())).synced(t)
	e.revoke(t, "x", time.Now().Add(time.Minute).Unix())
	const life = 300 * 24 * time.Hour
	ends := time.Now().Add(life).Unix()
	newer := put(t, js, ledger.KindEntry, fmt.Sprintf(`{"v":2,"issuer":"https://sso.example.com","criteria":{"jti":"x"},"expires":%d}`, ends),
		jetstream.WithMsgTTL(life))
	eventually(t, "incomplete", func() bool { _, _, ok := e.denylist.Incomplete(time.Now()); return ok })
	if _, err := e.PublishAcknowledgment(t.Context(), newer, "", "operator"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "complete, and beyond it", func() bool {
		_, _, incomplete := e.denylist.Incomplete(time.Now())
		return !incomplete && e.denylist.Position().Sequence > newer
	})
	e.Follower.Stop()
	e.Follower = e.Ledger.Follow(e.denylist, ledger.Observer{})
	e.synced(t)
	r := ofToken("r", "x")
	sequence, err := e.PublishRestorationOf(t.Context(), r, func() (int64, bool) { return e.denylist.HeldUntil(r.Criteria) })
	if err != nil {
		t.Fatal(err)
	}
	if n := e.Stats().Newer; n == 0 {
		goesWith(t, js, sequence, ends)
	} else {
		t.Errorf("the new follower read %d entries of a newer version", n)
	}
}
