package ledger_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/edge-revocation/caddy-token-revocation/revocation/ledger"
)

// TestNoRoleCanDoMoreThanItShould tries each thing with a plain NATS client.
func TestNoRoleCanDoMoreThanItShould(t *testing.T) {
	t.Parallel()
	o := embedded(t.TempDir())
	o.Embedded.Listen = "127.0.0.1:0"
	roles := []ledger.Role{ledger.RoleEdge, ledger.RoleProducer, ledger.RolePublisher, ledger.RoleOperator}
	for _, r := range roles {
		o.Embedded.Users = append(o.Embedded.Users, ledger.User{Name: string(r), Password: secret, Role: r})
	}
	own := open(t, o)
	publish(t, own, "first")
	const stream = ledger.DefaultStream
	url := "nats://" + own.Status().Listen

	for what, c := range map[string]struct {
		may []ledger.Role
		try func(ctx context.Context, nc *nats.Conn, js jetstream.JetStream) error
	}{
		"publish an entry": {[]ledger.Role{ledger.RoleProducer, ledger.RolePublisher, ledger.RoleOperator}, func(ctx context.Context, _ *nats.Conn, js jetstream.JetStream) error {
			_, err := js.Publish(ctx, ledger.KindEntry.Subject(), []byte(entry("x")))
			return err
		}},
		"publish a restore": {[]ledger.Role{ledger.RoleProducer, ledger.RolePublisher, ledger.RoleOperator}, func(ctx context.Context, _ *nats.Conn, js jetstream.JetStream) error {
			_, err := js.Publish(ctx, ledger.KindRestore.Subject(), []byte(entry("x")))
			return err
		}},
		"publish a recheck": {[]ledger.Role{ledger.RoleProducer, ledger.RolePublisher, ledger.RoleOperator}, func(ctx context.Context, _ *nats.Conn, js jetstream.JetStream) error {
			_, err := js.Publish(ctx, ledger.KindRecheck.Subject(), []byte(`{"v":1,"issuer":"x"}`))
			return err
		}},
		"publish a heartbeat": {[]ledger.Role{ledger.RoleProducer, ledger.RolePublisher, ledger.RoleOperator}, func(ctx context.Context, _ *nats.Conn, js jetstream.JetStream) error {
			_, err := js.Publish(ctx, ledger.KindHeartbeat.Subject(), []byte(`{"v":1}`))
			return err
		}},
		"record a used assertion": {[]ledger.Role{ledger.RolePublisher, ledger.RoleOperator}, func(ctx context.Context, _ *nats.Conn, js jetstream.JetStream) error {
			_, err := js.Publish(ctx, ledger.KindAssertion.Subject()+"."+strings.ReplaceAll(nats.NewInbox(), ".", "-"), []byte(`{"v":1}`))
			return err
		}},
		"publish a genesis": {[]ledger.Role{ledger.RoleOperator}, func(ctx context.Context, _ *nats.Conn, js jetstream.JetStream) error {
			_, err := js.Publish(ctx, ledger.KindGenesis.Subject(), []byte(`{"v":1,"ledger":"usurper"}`))
			return err
		}},
		"read the stream": {[]ledger.Role{ledger.RoleEdge, ledger.RolePublisher, ledger.RoleOperator}, func(ctx context.Context, _ *nats.Conn, js jetstream.JetStream) error {
			c, err := js.CreateConsumer(ctx, stream, jetstream.ConsumerConfig{AckPolicy: jetstream.AckNonePolicy})
			if err != nil {
				return err
			}
			b, err := c.Fetch(1, jetstream.FetchMaxWait(time.Second))
			if err != nil {
				return err
			}
			for range b.Messages() {
				return nil
			}
			return errors.New("nothing came")
		}},
		"read with a durable consumer": {nil, func(ctx context.Context, nc *nats.Conn, _ jetstream.JetStream) error {
			_, err := nc.RequestWithContext(ctx, "$JS.API.CONSUMER.DURABLE.CREATE."+stream+".d",
				[]byte(`{"stream_name":"`+stream+`","config":{"durable_name":"d","ack_policy":"none"}}`))
			return err
		}},
		"change the stream": {[]ledger.Role{ledger.RoleOperator}, func(ctx context.Context, nc *nats.Conn, _ jetstream.JetStream) error {
			_, err := nc.RequestWithContext(ctx, "$JS.API.STREAM.UPDATE."+stream, []byte(`{}`))
			return err
		}},
		"delete the stream": {nil, func(ctx context.Context, _ *nats.Conn, js jetstream.JetStream) error {
			return js.DeleteStream(ctx, stream)
		}},
		"purge the stream": {nil, func(ctx context.Context, nc *nats.Conn, _ jetstream.JetStream) error {
			_, err := nc.RequestWithContext(ctx, "$JS.API.STREAM.PURGE."+stream, nil)
			return err
		}},
		"delete an entry": {nil, func(ctx context.Context, nc *nats.Conn, _ jetstream.JetStream) error {
			_, err := nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.DELETE."+stream, []byte(`{"seq":1}`))
			return err
		}},
		"create another stream": {nil, func(ctx context.Context, _ *nats.Conn, js jetstream.JetStream) error {
			_, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "OTHER", Subjects: []string{"other"}})
			return err
		}},
		"listen to entries": {nil, func(_ context.Context, nc *nats.Conn, _ jetstream.JetStream) error {
			return subscribe(nc, "token_revocation.>")
		}},
		"listen to other users' answers": {nil, func(_ context.Context, nc *nats.Conn, _ jetstream.JetStream) error {
			return errors.Join(subscribe(nc, "_INBOX.>"), subscribe(nc, "_INBOX_other.>"))
		}},
		"listen to everything": {nil, func(_ context.Context, nc *nats.Conn, _ jetstream.JetStream) error {
			return subscribe(nc, ">")
		}},
	} {
		for _, role := range roles {
			t.Run(what+"/"+string(role), func(t *testing.T) {
				t.Parallel()
				// A refused request is never answered: the error comes beside it.
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				var refused atomic.Bool
				nc, err := nats.Connect(url, nats.UserInfo(string(role), secret), nats.CustomInboxPrefix("_INBOX_"+string(role)),
					nats.PermissionErrOnSubscribe(true), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
						if errors.Is(err, nats.ErrPermissionViolation) {
							refused.Store(true)
							cancel()
						}
					}))
				if err != nil {
					t.Fatal(err)
				}
				defer nc.Close()
				js, err := jetstream.New(nc)
				if err != nil {
					t.Fatal(err)
				}
				may := false
				for _, r := range c.may {
					may = may || r == role
				}
				err = c.try(ctx, nc, js)
				if may && err != nil {
					t.Errorf("refused: %v", err)
				}
				if !may && (err == nil || !refused.Load() && !errors.Is(err, nats.ErrPermissionViolation)) {
					t.Errorf("not refused: %v", err)
				}
			})
		}
	}
}

// subscribe returns the error that the server answers with.
func subscribe(nc *nats.Conn, subject string) error {
	sub, err := nc.SubscribeSync(subject)
	if err != nil {
		return err
	}
	_, err = sub.NextMsg(20 * time.Second)
	return err
}

func TestAnEdgeThatMayOnlyFollowIsInSyncThroughTheHeartbeatsOfOthers(t *testing.T) {
	t.Parallel()
	o := embedded(t.TempDir())
	o.Embedded.Listen = "127.0.0.1:0"
	o.Embedded.Users = []ledger.User{
		{Name: "reader", Password: secret, Role: ledger.RoleEdge},
		{Name: "writer", Password: secret, Role: ledger.RoleProducer},
	}
	own := open(t, o)
	edge, out := openLogged(t, ledger.Options{External: &ledger.ExternalOptions{
		URLs: []string{"nats://" + own.Status().Listen}, User: "reader", Password: secret,
	}, HeartbeatInterval: 100 * time.Millisecond})
	s := newSink()
	f := edge.Follow(s, ledger.Observer{})
	defer f.Stop()
	// It tries once whether it may beat, not ten times a second.
	refusals := func() int { return strings.Count(out.String(), "permission refused") }
	eventually(t, "refused", func() bool { return refusals() == 1 })
	time.Sleep(500 * time.Millisecond)
	if b := f.Stats().Beats; b > 2 || refusals() != 1 {
		t.Errorf("tried %d times to send heartbeats, refused %d times", b, refusals())
	}
	if st := f.State(); st.EverSynced || st.InSync {
		t.Errorf("in sync without any heartbeat: %+v", st)
	}
	if _, err := own.PublishHeartbeat(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "in sync", func() bool { return f.State().InSync })

	// For another edge that same heartbeat is history, since there is an entry
	// behind it.
	publish(t, own, "x")
	later := newSink()
	fl := edge.Follow(later, ledger.Observer{})
	defer fl.Stop()
	eventually(t, "applied", func() bool { return s.has("x") && later.has("x") && fl.Stats().Heartbeats == 1 })
	if st := fl.State(); st.EverSynced || st.InSync {
		t.Errorf("in sync through a heartbeat of before: %+v", st)
	}
	if _, err := own.PublishHeartbeat(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "in sync", func() bool { return fl.State().InSync })
}
