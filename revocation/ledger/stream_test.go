package ledger_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/ledger"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

func good() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: ledger.DefaultStream, Subjects: []string{"token_revocation.v1.>"}, Discard: jetstream.DiscardNew,
		AllowMsgTTL: true, AllowDirect: true, DenyDelete: true, DenyPurge: true, MaxBytes: 64 << 20,
	}
}

func TestAStreamThatCouldLoseRevocationsIsRefused(t *testing.T) {
	srv := revocationtest.StartNATS(t)
	js := client(t, srv.URL())
	for setting, change := range map[string]func(*jetstream.StreamConfig){
		"retention":            func(c *jetstream.StreamConfig) { c.Retention = jetstream.InterestPolicy },
		"storage":              func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage },
		"discard":              func(c *jetstream.StreamConfig) { c.Discard = jetstream.DiscardOld },
		"max_age":              func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour },
		"max_msgs_per_subject": func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 1 },
		"max_msg_size":         func(c *jetstream.StreamConfig) { c.MaxMsgSize = 1024 },
		"allow_msg_ttl":        func(c *jetstream.StreamConfig) { c.AllowMsgTTL = false },
		"allow_direct":         func(c *jetstream.StreamConfig) { c.AllowDirect = false },
		"allow_rollup_hdrs":    func(c *jetstream.StreamConfig) { c.AllowRollup = true; c.DenyPurge = false },
		"deny_delete":          func(c *jetstream.StreamConfig) { c.DenyDelete = false },
		"deny_purge":           func(c *jetstream.StreamConfig) { c.DenyPurge = false },
		"no_ack":               func(c *jetstream.StreamConfig) { c.NoAck = true },
		"persist_mode":         func(c *jetstream.StreamConfig) { c.PersistMode = jetstream.AsyncPersistMode },
		"duplicate_window":     func(c *jetstream.StreamConfig) { c.Duplicates = time.Second },
		"subjects":             func(c *jetstream.StreamConfig) { c.Subjects = []string{"token_revocation.v1.entry"} },
		"subject_transform": func(c *jetstream.StreamConfig) {
			c.SubjectTransform = &jetstream.SubjectTransformConfig{Source: "token_revocation.v1.>", Destination: "token_revocation.v1.x.>"}
		},
	} {
		t.Run(setting, func(t *testing.T) {
			c := good()
			c.Name = "WITH_" + setting
			change(&c)
			// The server may still be removing the files of the stream before.
			eventually(t, "created", func() bool {
				_, err := js.CreateStream(t.Context(), c)
				return err == nil
			})
			defer func() {
				if err := js.DeleteStream(t.Context(), c.Name); err != nil {
					t.Error(err)
				}
			}()
			o := external(srv.URL())
			o.Stream = c.Name
			l := open(t, o)
			defer func() { _ = l.Close() }()
			_, err := l.PublishRevocation(t.Context(), revoke("x"))
			var problem *ledger.SettingError
			if !errors.As(err, &problem) || !errors.Is(err, revocation.ErrUnavailable) || !errors.Is(err, ledger.ErrStreamSettings) {
				t.Fatalf("publishing: %v", err)
			}
			if problem.Setting != setting && (setting != "allow_rollup_hdrs" || problem.Setting != "deny_purge") {
				t.Errorf("named %s: %v", problem.Setting, err)
			}
			if _, err := l.Init(t.Context()); !errors.Is(err, ledger.ErrStreamSettings) {
				t.Errorf("initialising: %v", err)
			}
		})
	}
}

func TestAStreamWithOtherHarmlessSettingsIsAccepted(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	c := good()
	c.Subjects = []string{"token_revocation.v1.*"}
	c.MaxBytes, c.MaxMsgs, c.Description = -1, 1000, "mine"
	if _, err := client(t, srv.URL()).CreateStream(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	l := open(t, external(srv.URL()))
	publish(t, l, "x")
}

func TestSettingsThatSomeoneChangesLaterStopTheLedger(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	o := external(srv.URL())
	o.HeartbeatInterval, o.StaleAfter = 100*time.Millisecond, 2*time.Second
	l := open(t, o)
	s, seen := newSink(), &alarms{}
	f := l.Follow(s, seen.observer())
	defer f.Stop()
	eventually(t, "in sync", func() bool { return f.State().InSync })
	js := client(t, srv.URL())
	st, err := js.Stream(t.Context(), ledger.DefaultStream)
	if err != nil {
		t.Fatal(err)
	}
	c := st.CachedInfo().Config
	c.MaxAge = time.Hour
	if _, err := js.UpdateStream(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	eventually(t, "noticed", func() bool { return errors.Is(l.Status().Problem, ledger.ErrStreamSettings) })
	if _, err := l.PublishRevocation(t.Context(), revoke("x")); !errors.Is(err, ledger.ErrStreamSettings) {
		t.Errorf("publishing: %v", err)
	}
	// Heartbeats of others prove nothing now.
	eventually(t, "stale", func() bool {
		put(t, js, ledger.KindHeartbeat, `{"v":1}`)
		return !f.State().InSync
	})
	if r := seen.raised(); len(r) != 1 || !strings.Contains(r[0], "max_age 1h0m0s") {
		t.Errorf("alarms: %q", r)
	}
	// What others write is applied all the same.
	put(t, js, ledger.KindEntry, entry("other"))
	eventually(t, "applied", func() bool { return s.has("other") })
	c.MaxAge = 0
	if _, err := js.UpdateStream(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	eventually(t, "in sync again", func() bool { return f.State().InSync })
	publish(t, l, "y")
}

func TestAMissingStreamIsNeverCreatedSilently(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	o := external(srv.URL())
	o.External.Create = false
	o.PublishDeadline = 500 * time.Millisecond
	l := open(t, o)
	eventually(t, "noticed", func() bool { return errors.Is(l.Status().Problem, ledger.ErrStreamMissing) })
	if _, err := l.PublishRevocation(t.Context(), revoke("x")); !errors.Is(err, revocation.ErrUnavailable) || !errors.Is(err, ledger.ErrStreamMissing) {
		t.Errorf("publishing: %v", err)
	}
	id, err := l.Init(t.Context())
	if err != nil || id == "" {
		t.Fatalf("initialising: %q, %v", id, err)
	}
	eventually(t, "usable", func() bool { return l.Status().Usable })
	publish(t, l, "y")
	if again, err := l.Init(t.Context()); err != nil || again != id {
		t.Errorf("initialising again: %q, %v", again, err)
	}
}

func TestAStreamWithoutGenesisIsNoLedger(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	if _, err := client(t, srv.URL()).CreateStream(t.Context(), good()); err != nil {
		t.Fatal(err)
	}
	o := external(srv.URL())
	o.External.Create = false
	l := open(t, o)
	eventually(t, "noticed", func() bool { return errors.Is(l.Status().Problem, ledger.ErrNoGenesis) })
}
