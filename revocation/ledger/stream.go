package ledger

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	maxHeaders       = 8 << 10
	duplicates       = 2 * time.Minute
	maxConsumers     = 10000
	leastDuplicates  = 30 * time.Second
	apiTimeout       = 2 * time.Second
	leastMessageSize = MaxPayload + 1<<10
)

// streamConfig is what a ledger's stream is created with.
func streamConfig(o Options) jetstream.StreamConfig {
	replicas := 1
	if o.External != nil {
		replicas = o.External.Replicas
	}
	return jetstream.StreamConfig{
		Name:        o.Stream,
		Description: "Token revocations. Append-only: do not purge, edit or delete.",
		// Few subjects: one per revocation multiplies the server's memory by six.
		Subjects:     []string{SubjectPrefix + ">"},
		Retention:    jetstream.LimitsPolicy,
		Storage:      jetstream.FileStorage,
		Replicas:     replicas,
		MaxConsumers: maxConsumers,
		MaxMsgs:      -1,
		MaxBytes:     o.MaxBytes,
		MaxMsgSize:   MaxPayload + maxHeaders,
		// The other policy makes room by dropping revocations that are alive.
		Discard:     jetstream.DiscardNew,
		Duplicates:  duplicates,
		AllowDirect: true,
		AllowMsgTTL: true,
		DenyDelete:  true,
		DenyPurge:   true,
	}
}

// settingProblem reports the first setting with which the stream could drop,
// replace or refuse revocations that are alive, as a [SettingError].
func settingProblem(c jetstream.StreamConfig) error {
	no := "false"
	for _, s := range []struct {
		setting string
		wrong   bool
		value   any
		want    string
	}{
		{"retention", c.Retention != jetstream.LimitsPolicy, c.Retention, "limits"},
		{"storage", c.Storage != jetstream.FileStorage, c.Storage, "file"},
		{"discard", c.Discard != jetstream.DiscardNew, c.Discard, "new"},
		{"max_age", c.MaxAge != 0, c.MaxAge, "unlimited"},
		{"max_msgs_per_subject", c.MaxMsgsPerSubject > 0, c.MaxMsgsPerSubject, "unlimited"},
		{"max_msg_size", c.MaxMsgSize > 0 && c.MaxMsgSize < leastMessageSize, c.MaxMsgSize, "at least " + strconv.Itoa(leastMessageSize)},
		// Servers before 2.11 don't know it and answer without it.
		{"allow_msg_ttl", !c.AllowMsgTTL, no, "true (NATS server 2.11 or later)"},
		{"allow_direct", !c.AllowDirect, no, "true"},
		{"allow_rollup_hdrs", c.AllowRollup, true, no},
		{"subject_delete_marker_ttl", c.SubjectDeleteMarkerTTL != 0, c.SubjectDeleteMarkerTTL, "unset"},
		{"deny_delete", !c.DenyDelete, no, "true"},
		{"deny_purge", !c.DenyPurge, no, "true"},
		{"no_ack", c.NoAck, true, no},
		{"sealed", c.Sealed, true, no},
		{"allow_msg_counter", c.AllowMsgCounter, true, no},
		{"persist_mode", c.PersistMode != jetstream.DefaultPersistMode, c.PersistMode, "default"},
		{"mirror", c.Mirror != nil, "set", "unset"},
		{"sources", len(c.Sources) > 0, "set", "unset"},
		{"subject_transform", c.SubjectTransform != nil, "set", "unset"},
		{"duplicate_window", c.Duplicates < leastDuplicates, c.Duplicates, "at least " + leastDuplicates.String()},
		{"subjects", !coversKinds(c.Subjects), strings.Join(c.Subjects, ","), SubjectPrefix + ">"},
	} {
		if s.wrong {
			return &SettingError{Stream: c.Name, Setting: s.setting, Value: fmt.Sprint(s.value), Want: s.want}
		}
	}
	return nil
}

// coversKinds tells whether the stream stores every kind of entry, and nothing
// else.
func coversKinds(subjects []string) bool {
	covered := map[string]bool{}
	for _, s := range subjects {
		if !strings.HasPrefix(s, SubjectPrefix) {
			return false
		}
		// Used assertions and rechecks may be missing: whoever needs them says so.
		covered[s] = true
	}
	if covered[SubjectPrefix+">"] || covered[SubjectPrefix+"*"] {
		return true
	}
	for _, k := range []Kind{KindEntry, KindRestore, KindHeartbeat, KindGenesis} {
		if !covered[k.Subject()] {
			return false
		}
	}
	return true
}

// history says which stream it is that answers, and how far it reaches.
type history struct {
	ledger  string // id of the genesis entry
	created time.Time
	state   jetstream.StreamState
	config  jetstream.StreamConfig
	asked   time.Time // by our clock, before asking
	at      time.Time // by the server's clock, when it answered
	rtt     time.Duration
}

// look asks the server for the stream and its genesis entry, without judging
// them. A missing genesis entry leaves the id empty.
func (l *Ledger) look(ctx context.Context, nc *nats.Conn, js jetstream.JetStream) (*history, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	subject := "$JS.API.STREAM.INFO." + l.o.Stream
	wctx, done := l.link.refused.watch(ctx, subject)
	defer done()
	asked := l.now()
	stream, err := js.Stream(wctx, l.o.Stream)
	if err != nil {
		return nil, l.apiError(wctx, "looking at the stream", err)
	}
	info := stream.CachedInfo()
	h := &history{
		created: info.Created, state: info.State, config: info.Config,
		asked: asked, at: info.TimeStamp, rtt: l.now().Sub(asked),
	}
	if h.config.AllowDirect { // without it, settingProblem has a say
		h.ledger, err = l.genesis(ctx, nc)
	}
	return h, err
}

// apiError turns an error of the JetStream API into one that can be acted upon.
// A request without permission only times out, so the context's cause counts.
func (l *Ledger) apiError(ctx context.Context, doing string, err error) error {
	var api *jetstream.APIError
	if cause := context.Cause(ctx); cause != nil && errors.Is(cause, ErrNotPermitted) {
		return fmt.Errorf("%s: %w", doing, cause)
	}
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return fmt.Errorf("%s: %w", doing, ErrNoJetStream)
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return fmt.Errorf("%s: %w", doing, ErrNoJetStream)
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return fmt.Errorf("%s: %w: %s; set create, or run init once", doing, ErrStreamMissing, l.o.Stream)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		return fmt.Errorf("%s: %w: no answer in time", doing, ErrNotConnected)
	case errors.As(err, &api):
		return fmt.Errorf("%s: %w", doing, err)
	default:
		return fmt.Errorf("%s: %w: %w", doing, ErrNotConnected, err)
	}
}

// create makes the stream.
func (l *Ledger) create(ctx context.Context, js jetstream.JetStream) error {
	ctx, cancel := context.WithTimeout(ctx, 2*apiTimeout)
	defer cancel()
	ctx, done := l.link.refused.watch(ctx, "$JS.API.STREAM.CREATE."+l.o.Stream)
	defer done()
	if _, err := js.CreateStream(ctx, streamConfig(l.o)); err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return l.apiError(ctx, "creating the stream", err)
	}
	l.log.Info("created the ledger's stream", "stream", l.o.Stream)
	return nil
}
