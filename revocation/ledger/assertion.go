package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// MaxAssertionTTL bounds how long [Ledger.UseOnce] remembers a key. Whoever
// accepts assertions that live longer would fill the ledger with them.
const MaxAssertionTTL = 24 * time.Hour

// errOvertaken says that the newest message on a subject is another one than was
// expected.
var errOvertaken = errors.New("overtaken by another message")

// UseOnce records that the thing which key names, a client's assertion, was used
// now, and tells whether this is the first time in the whole fleet (RFC 7523,
// section 3, item 7). The server decides, atomically: of any number of edges that
// ask at once, one is the first. The key goes into the ledger as a hash only.
//
// It is remembered for ttl, rounded up to seconds and with room for clocks that
// disagree; after that it could be used again, so that ttl must reach to where
// nobody accepts it any more. A ledger that lost its history has forgotten it.
//
// An error means that nothing is known: the assertion must be refused. It wraps
// [revocation.ErrFull], [revocation.ErrUnavailable], or
// [revocation.ErrInvalidRequest] for a ttl that is not between 0 and
// [MaxAssertionTTL].
func (l *Ledger) UseOnce(ctx context.Context, key string, ttl time.Duration) (first bool, err error) {
	if ttl <= 0 || ttl > MaxAssertionTTL {
		return false, fmt.Errorf("%w: an assertion can be remembered for up to %s, not %s", revocation.ErrInvalidRequest, MaxAssertionTTL, ttl)
	}
	if l.NearlyFull() {
		return false, fmt.Errorf("%w: the rest of it is for operators", revocation.ErrFull)
	}
	if err := l.covers(KindAssertion.Subject()+".*", KindAssertion.Subject()+".>"); err != nil {
		return false, fmt.Errorf("%w: %w", revocation.ErrUnavailable, err)
	}
	sum := sha256.Sum256([]byte(key))
	subject := KindAssertion.Subject() + "." + hex.EncodeToString(sum[:16])
	m := message{
		kind:    KindAssertion,
		subject: subject,
		id:      randomID(),
		ttl:     (ttl + l.o.MaxClockSkew + time.Second - 1).Truncate(time.Second),
		after:   subject, // and there must be none
	}
	if m.data, err = encode(wireHeartbeat{Version: PayloadVersion, ID: m.id, Edge: l.o.Edge, At: l.now().UnixMilli()}); err != nil {
		return false, err
	}
	sequence, err := l.publish(ctx, m)
	if !errors.Is(err, errOvertaken) {
		return err == nil && sequence > 0, err
	}
	// An attempt whose acknowledgment was lost may be what is in the way. The
	// server tells a repetition by its message id, but only on one connection to
	// one leader for as long as it remembers.
	return l.isOurs(ctx, m.subject, m.id)
}

// covers returns why the stream can't store what only later versions have: one
// that was made by hand may list the first kinds' subjects only. Any of the given
// ones does.
func (l *Ledger) covers(any ...string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen == nil {
		return nil
	}
	subjects := l.seen.config.Subjects
	for _, s := range subjects {
		if s == SubjectPrefix+">" || slices.Contains(any, s) {
			return nil
		}
	}
	return &SettingError{Stream: l.o.Stream, Setting: "subjects", Value: strings.Join(subjects, ","), Want: SubjectPrefix + ">"}
}

// isOurs tells whether the message on the subject is the one with the given id.
func (l *Ledger) isOurs(ctx context.Context, subject, id string) (bool, error) {
	nc, _, _, err := l.link.current()
	if err != nil {
		return false, fmt.Errorf("%w: %w", revocation.ErrUnavailable, err)
	}
	msgs, err := l.directGet(ctx, nc, directRequest{Last: subject})
	if errors.Is(err, errNoMessage) {
		// A replica that lags behind, or it has ended just now.
		return false, fmt.Errorf("%w: it is not known who used it", revocation.ErrUnavailable)
	}
	if err != nil {
		return false, fmt.Errorf("%w: %w", revocation.ErrUnavailable, err)
	}
	rec, err := decode(msgs[0].data)
	return err == nil && rec.id == id, nil
}
