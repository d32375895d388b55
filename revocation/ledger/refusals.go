package ledger

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"
)

var refusedRe = regexp.MustCompile(`(?i)permissions violation for (publish|subscription) to "([^"]+)"`)

// refusedSubject reads the subject from the error that tells of a missing
// permission.
func refusedSubject(err error) (string, bool) {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return "", false
	}
	m := refusedRe.FindStringSubmatch(err.Error())
	if m == nil {
		return "", false
	}
	return m[2], true
}

// refusals remembers what the server did not permit. It says so out of band:
// the request itself only times out, or, where answers may not be received, is
// even carried out.
type refusals struct {
	mu       sync.Mutex
	logged   map[string]bool
	inbox    string // subscription to answers, refused until the next connection
	watchers map[*watcher]struct{}
}

type watcher struct {
	subject string
	cancel  context.CancelCauseFunc
}

// add records a refusal and tells whether it is new on this connection.
func (r *refusals) add(subject string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := fmt.Errorf("%w: %s", ErrNotPermitted, subject)
	inbox := strings.HasPrefix(subject, "_INBOX")
	if inbox {
		r.inbox = subject
	}
	for w := range r.watchers {
		// Consumer subjects end in a name that the client library chose.
		if inbox || w.subject == subject || strings.HasPrefix(subject, w.subject+".") {
			w.cancel(err)
		}
	}
	if r.logged == nil {
		r.logged = map[string]bool{}
	}
	if inbox {
		subject, _, _ = strings.Cut(subject, ".")
	}
	if strings.HasPrefix(subject, KindAssertion.Subject()+".") {
		subject = KindAssertion.Subject() + ".*" // one refusal, whatever assertion
	}
	if r.logged[subject] || len(r.logged) > 64 {
		return false
	}
	r.logged[subject] = true
	return true
}

// watch returns a context that ends when the server refuses the subject.
func (r *refusals) watch(ctx context.Context, subject string) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watcher{subject, cancel}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.inbox != "" {
		cancel(fmt.Errorf("%w: answers at %s (does the inbox prefix fit the user's permissions?)", ErrNotPermitted, r.inbox))
	}
	if r.watchers == nil {
		r.watchers = map[*watcher]struct{}{}
	}
	r.watchers[w] = struct{}{}
	return ctx, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.watchers, w)
		cancel(nil)
	}
}

// has tells whether the subject was refused on this connection.
func (r *refusals) has(subject string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.logged[subject]
}

// forget begins a new connection, whose permissions may differ.
func (r *refusals) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inbox, r.logged = "", nil
}
