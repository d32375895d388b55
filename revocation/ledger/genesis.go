package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// stored is a message read by direct get.
type stored struct {
	subject  string
	sequence uint64
	at       time.Time
	header   nats.Header
	data     []byte
}

var errNoMessage = errors.New("no such message")

// genesis returns the ledger's id, from the genesis entry at the lowest
// sequence. Of two creators that raced, the first one's id counts. It returns
// an empty id if there is none.
func (l *Ledger) genesis(ctx context.Context, nc *nats.Conn) (string, error) {
	next := uint64(1)
	for {
		msgs, err := l.directGet(ctx, nc, directRequest{Sequence: next, Next: KindGenesis.Subject()})
		if errors.Is(err, errNoMessage) {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		id, err := decodeGenesis(msgs[0].data)
		if err == nil {
			return id, nil
		}
		if newer := (*VersionError)(nil); errors.As(err, &newer) {
			return "", fmt.Errorf("reading the genesis entry: %w", err)
		}
		next = msgs[0].sequence + 1 // not one: whoever wrote it, it pins nothing
	}
}

// writeGenesis pins a new random id, unless another process was first.
func (l *Ledger) writeGenesis(ctx context.Context, js jetstream.JetStream) error {
	data, err := encode(wireGenesis{Version: PayloadVersion, Ledger: randomID(), At: l.now().UnixMilli()})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	ctx, done := l.link.refused.watch(ctx, KindGenesis.Subject())
	defer done()
	_, err = js.Publish(ctx, KindGenesis.Subject(), data,
		jetstream.WithExpectStream(l.o.Stream),
		jetstream.WithExpectLastSequencePerSubject(0))
	var api *jetstream.APIError
	if errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence ||
		api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant) {
		return nil
	}
	if err != nil {
		return l.apiError(ctx, "writing the genesis entry", err)
	}
	l.log.Info("initialised the ledger", "stream", l.o.Stream)
	return nil
}

// directRequest is the request of JetStream's direct get, of which edges may use
// only the form with a body.
type directRequest struct {
	Sequence  uint64   `json:"seq,omitempty"`
	Next      string   `json:"next_by_subj,omitempty"`
	Last      string   `json:"last_by_subj,omitempty"`
	MultiLast []string `json:"multi_last,omitempty"`
	UpTo      uint64   `json:"up_to_seq,omitempty"`
}

// directGet reads one message, or for a request with MultiLast several. The
// error is errNoMessage if there is none. Answers may come from any replica, so
// that a missing message proves nothing.
func (l *Ledger) directGet(ctx context.Context, nc *nats.Conn, req directRequest) ([]stored, error) {
	subject := "$JS.API.DIRECT.GET." + l.o.Stream
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	ctx, done := l.link.refused.watch(ctx, subject)
	defer done()
	body, err := json.Marshal(req)
	if err != nil {
		return nil, fmt.Errorf("encoding a request: %w", err)
	}
	inbox := nc.NewInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		return nil, l.apiError(ctx, "reading from the stream", err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := nc.PublishRequest(subject, inbox, body); err != nil {
		return nil, l.apiError(ctx, "reading from the stream", err)
	}
	var msgs []stored
	for {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return nil, l.apiError(ctx, "reading from the stream", err)
		}
		switch status := m.Header.Get("Status"); status {
		case "":
		case "204": // end of several
			return msgs, nil
		case "404":
			return nil, errNoMessage
		case "503":
			return nil, fmt.Errorf("reading from the stream: %w", ErrNoJetStream)
		default:
			return nil, fmt.Errorf("reading from the stream: status %s %s", status, m.Header.Get("Description"))
		}
		msg, err := parseStored(m)
		if err != nil {
			return nil, err
		}
		msgs = append(msgs, msg)
		if len(req.MultiLast) == 0 {
			return msgs, nil
		}
	}
}

func parseStored(m *nats.Msg) (stored, error) {
	sequence, err := strconv.ParseUint(m.Header.Get("Nats-Sequence"), 10, 64)
	if err != nil {
		return stored{}, errors.New("reading from the stream: an answer without sequence")
	}
	at, err := time.Parse(time.RFC3339Nano, m.Header.Get("Nats-Time-Stamp"))
	if err != nil {
		return stored{}, errors.New("reading from the stream: an answer without time stamp")
	}
	return stored{subject: m.Header.Get("Nats-Subject"), sequence: sequence, at: at, header: m.Header, data: m.Data}, nil
}
