package ledger_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/ledger"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

func impatient(url string) ledger.Options {
	o := external(url)
	o.HeartbeatInterval, o.StaleAfter = 100*time.Millisecond, 2*time.Second
	o.PublishTimeout, o.PublishDeadline = time.Second, 3*time.Second
	return o
}

func TestEachSettingThatSomeoneChangesLaterIsRefusedLoudly(t *testing.T) {
	t.Parallel()
	for setting, change := range map[string]func(c *jetstream.StreamConfig){
		"max_age":              func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour },
		"discard":              func(c *jetstream.StreamConfig) { c.Discard = jetstream.DiscardOld },
		"max_msgs_per_subject": func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 5 },
		"max_msg_size":         func(c *jetstream.StreamConfig) { c.MaxMsgSize = 512 },
		"allow_direct":         func(c *jetstream.StreamConfig) { c.AllowDirect = false },
		"duplicate_window":     func(c *jetstream.StreamConfig) { c.Duplicates = time.Second },
	} {
		t.Run(setting, func(t *testing.T) {
			t.Parallel()
			srv := revocationtest.StartNATS(t)
			e := newEdge(t, impatient(srv.URL())).synced(t)
			js := client(t, srv.URL())
			was := streamConfig(t, js)
			c := was
			change(&c)
			if _, err := js.UpdateStream(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the status names it", func() bool {
				p := (*ledger.SettingError)(nil)
				return errors.As(e.Status().Problem, &p) && p.Setting == setting
			})
			if _, err := e.service.Revoke(t.Context(), tokenRequest("x", time.Now().Add(time.Hour).Unix())); !errors.Is(err, revocation.ErrUnavailable) || !errors.Is(err, ledger.ErrStreamSettings) {
				t.Errorf("revoking: %v", err)
			}
			eventually(t, "not in sync", func() bool { return !e.State().InSync })
			if r := e.seen.raised(); len(r) != 1 || !strings.Contains(r[0], setting) {
				t.Errorf("alarms: %q", r)
			}
			if _, err := js.UpdateStream(t.Context(), was); err != nil {
				t.Fatal(err)
			}
			e.synced(t)
			e.revoke(t, "y", time.Now().Add(time.Hour).Unix())
		})
	}
}

// The genesis entry is the oldest and never expires: whatever drops old entries
// drops it first, which shows even if the setting is put back at once.
func TestWhatSomeoneDropsIsNoticedAndReseeded(t *testing.T) {
	t.Parallel()
	for name, create := range map[string]bool{"by an edge that may create": true, "by one that may not": false} {
		t.Run(name, func(t *testing.T) { t.Parallel(); testDropped(t, create) })
	}
}

func testDropped(t *testing.T, create bool) {
	srv := revocationtest.StartNATS(t)
	operator := open(t, external(srv.URL()))
	if _, err := operator.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := operator.Close(); err != nil {
		t.Fatal(err)
	}
	o := impatient(srv.URL())
	o.External.Create = create
	e := newEdge(t, o).synced(t)
	js := client(t, srv.URL())
	expires := time.Now().Add(time.Hour).Unix()
	for i := range 30 {
		e.revoke(t, fmt.Sprint("x", i), expires)
	}
	was := streamConfig(t, js)
	c := was
	c.Discard, c.MaxMsgs = jetstream.DiscardOld, 3
	for _, config := range []jetstream.StreamConfig{c, was} {
		if _, err := js.UpdateStream(t.Context(), config); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the alarm", func() bool { return len(e.seen.raised()) > 0 })
	if !create {
		eventually(t, "not in sync with what has no beginning", func() bool {
			return !e.State().InSync && errors.Is(e.Status().Problem, ledger.ErrNoGenesis)
		})
		if _, err := e.Init(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	e.synced(t)
	for i := range 30 {
		if !e.denies(fmt.Sprint("x", i)) {
			t.Errorf("x%d is not denied any more", i)
		}
	}
	eventually(t, "reseeded", func() bool {
		done, err := e.Reseed(t.Context(), e.denylist)
		return err == nil && done.Entries > 0
	})
	fresh := newEdge(t, impatient(srv.URL())).synced(t)
	for i := range 30 {
		if !fresh.denies(fmt.Sprint("x", i)) {
			t.Errorf("x%d is not denied by an edge that starts now", i)
		}
	}
}

func TestAStreamThatIsMadeTooSmallRefusesAndRecovers(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(c *jetstream.StreamConfig){
		"in bytes":    func(c *jetstream.StreamConfig) { c.MaxBytes = 2 << 10 },
		"in messages": func(c *jetstream.StreamConfig) { c.MaxMsgs = 5 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := revocationtest.StartNATS(t)
			e := newEdge(t, impatient(srv.URL())).synced(t)
			js := client(t, srv.URL())
			expires := time.Now().Add(time.Hour).Unix()
			for i := range 30 {
				e.revoke(t, fmt.Sprint("x", i), expires)
			}
			was := streamConfig(t, js)
			c := was
			change(&c)
			if _, err := js.UpdateStream(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			eventually(t, "full", func() bool {
				_, err := e.service.Revoke(t.Context(), tokenRequest("refused", expires))
				return errors.Is(err, revocation.ErrFull) && e.NearlyFull()
			})
			if _, err := e.UseOnce(t.Context(), "k", time.Minute); !errors.Is(err, revocation.ErrFull) {
				t.Errorf("using an assertion: %v", err)
			}
			if _, err := js.UpdateStream(t.Context(), was); err != nil {
				t.Fatal(err)
			}
			eventually(t, "accepts again", func() bool {
				_, err := e.service.Revoke(t.Context(), tokenRequest("after", expires))
				return err == nil && !e.NearlyFull()
			})
			fresh := newEdge(t, impatient(srv.URL())).synced(t)
			missing := 0
			for i := range 30 {
				if !fresh.denies(fmt.Sprint("x", i)) {
					missing++
				}
			}
			t.Logf("30 acknowledged, %d missing", missing)
			if missing > 0 || !fresh.denies("after") || fresh.denies("refused") {
				t.Errorf("%d missing, after %t, refused %t", missing, fresh.denies("after"), fresh.denies("refused"))
			}
		})
	}
}

func TestARevocationIsStoredAgainAfterARollBack(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	e := newEdge(t, impatient(srv.URL())).synced(t)
	expires := time.Now().Add(time.Hour).Unix()
	kept := e.revoke(t, "kept", expires)
	srv.Stop()
	backup := t.TempDir()
	copyTree(t, srv.StoreDir(), backup)
	srv.Start()
	e.synced(t)
	var r revocation.Receipt
	eventually(t, "revoked", func() (ok bool) {
		var err error
		r, err = e.service.Revoke(t.Context(), tokenRequest("undone", expires))
		return err == nil
	})
	srv.Stop()
	copyTree(t, backup, srv.StoreDir())
	srv.Start()
	eventually(t, "noticed", func() bool { return len(e.seen.raised()) > 0 })
	e.synced(t)
	again := e.revoke(t, "undone", expires)
	if again.Stood {
		t.Errorf("it was at %d in a history that is gone: %+v", r.Sequence, again)
	}
	eventually(t, "what the backup has stands", func() bool {
		r := e.revoke(t, "kept", expires)
		return r.Stood && r.Sequence >= kept.Sequence
	})
	fresh := newEdge(t, impatient(srv.URL())).synced(t)
	if !fresh.denies("undone") || !fresh.denies("kept") {
		t.Error("not denied by an edge that starts now")
	}
}

// What a stream forgot while it was set to is not in the history that follows,
// although no sequence and no id tells of it.
func TestWhatAStreamForgotIsReseededOnceItKeepsEverythingAgain(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	e := newEdge(t, impatient(srv.URL())).synced(t)
	js := client(t, srv.URL())
	expires := time.Now().Add(time.Hour).Unix()
	for i := range 50 {
		e.revoke(t, fmt.Sprint("x", i), expires)
	}
	was := streamConfig(t, js)
	c := was
	c.MaxMsgsPerSubject = 1
	if _, err := js.UpdateStream(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the alarm", func() bool { return len(e.seen.raised()) > 0 })
	eventually(t, "forgotten", func() bool { return entries(t, js) == 1 })
	if _, err := js.UpdateStream(t.Context(), was); err != nil {
		t.Fatal(err)
	}
	eventually(t, "reseeded", func() bool {
		done, err := e.Reseed(t.Context(), e.denylist)
		return err == nil && done.Entries == 49
	})
	e.synced(t)
	fresh := newEdge(t, impatient(srv.URL())).synced(t)
	for i := range 50 {
		if id := fmt.Sprint("x", i); !e.denies(id) || !fresh.denies(id) {
			t.Errorf("%s is denied here: %t, by an edge that starts now: %t", id, e.denies(id), fresh.denies(id))
		}
	}
	if r := e.seen.raised(); len(r) != 1 {
		t.Errorf("alarms: %q", r)
	}
}

func TestAStreamWithoutRoomForHeartbeatsIsAProblemThatHeals(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	e := newEdge(t, impatient(srv.URL())).synced(t)
	js := client(t, srv.URL())
	expires := time.Now().Add(time.Hour).Unix()
	for i := range 30 {
		e.revoke(t, fmt.Sprint("x", i), expires)
	}
	was := streamConfig(t, js)
	c := was
	c.MaxBytes = 2 << 10
	if _, err := js.UpdateStream(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	eventually(t, "stale, and the status says why", func() bool {
		st := e.Status()
		return !e.State().InSync && !st.Usable && errors.Is(st.Problem, ledger.ErrNoRoom) && errors.Is(st.Problem, revocation.ErrFull)
	})
	if _, err := js.UpdateStream(t.Context(), was); err != nil {
		t.Fatal(err)
	}
	e.synced(t)
	eventually(t, "usable", func() bool { return e.Status().Usable })
	e.revoke(t, "after", expires)
}
