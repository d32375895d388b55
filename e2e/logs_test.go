//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"
)

// logs collect the output of a program over all its starts.
type logs struct {
	mu        sync.Mutex
	buf       bytes.Buffer
	forbidden map[string]bool
}

// maxForbidden bounds how much is searched for at the end of a test.
const maxForbidden = 500

// newLogs returns logs that are printed if the test fails. A data race, a panic
// or a secret in them fails it.
func newLogs(t testing.TB, name string) *logs {
	l := &logs{forbidden: map[string]bool{}}
	t.Cleanup(func() {
		text := l.String()
		for _, sign := range []string{"WARNING: DATA RACE", "\npanic: ", "http: panic serving", "fatal error: "} {
			if strings.Contains(text, sign) {
				t.Errorf("%s wrote %q", name, strings.TrimSpace(sign))
			}
		}
		for _, secret := range l.secrets() {
			if at := strings.Index(text, secret); at >= 0 {
				t.Errorf("%s wrote a secret: …%s…", name, text[max(0, at-200):min(len(text), at+len(secret))])
			}
		}
		if t.Failed() {
			t.Logf("what %s wrote:\n%s", name, tail(text, 150))
		}
	})
	return l
}

// forbid makes the test fail if the secret is written to l. Of a token, the
// signature is what makes it one: without it, it opens nothing.
func (l *logs) forbid(secret string) {
	if at := strings.LastIndexByte(secret, '.'); at >= 0 && strings.Count(secret, ".") == 2 {
		secret = secret[at+1:]
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(secret) >= 8 && len(l.forbidden) < maxForbidden {
		l.forbidden[secret] = true
	}
}

func (l *logs) secrets() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	secrets := make([]string, 0, len(l.forbidden))
	for secret := range l.forbidden {
		secrets = append(secrets, secret)
	}
	return secrets
}

// Write implements io.Writer.
func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func tail(text string, lines int) string {
	all := strings.SplitAfter(text, "\n")
	if len(all) <= lines {
		return text
	}
	return fmt.Sprintf("(%d lines before)\n%s", len(all)-lines, strings.Join(all[len(all)-lines:], ""))
}
