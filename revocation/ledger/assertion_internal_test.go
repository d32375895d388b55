package ledger

import (
	"testing"
	"time"
)

// The server knows a repetition by its message id only for a while. Beyond it,
// the message itself tells whose it is.
func TestTheMessageItselfTellsWhoUsedAnAssertion(t *testing.T) {
	t.Parallel()
	l, err := Open(Options{Embedded: &EmbeddedOptions{StoreDir: t.TempDir(), SyncInterval: time.Minute}, MaxBytes: 16 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	data, err := encode(wireHeartbeat{Version: PayloadVersion, ID: "mine"})
	if err != nil {
		t.Fatal(err)
	}
	subject := KindAssertion.Subject() + ".00"
	m := message{kind: KindAssertion, subject: subject, id: "m1", data: data, ttl: time.Minute, after: subject}
	if _, err := l.publish(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]bool{"mine": true, "another": false} {
		if got, err := l.isOurs(t.Context(), m.subject, id); err != nil || got != want {
			t.Errorf("%s: %t, %v", id, got, err)
		}
	}
	if _, err := l.isOurs(t.Context(), KindAssertion.Subject()+".01", "mine"); err == nil {
		t.Error("a message that is not there is nobody's")
	}
}
