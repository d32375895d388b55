package oauth

import (
	"fmt"
	"testing"
	"time"
)

func TestVerifiedForgetsInTimeAndKnowsOnlyWhatItWasTold(t *testing.T) {
	c := newClock()
	v := newVerified(time.Minute, 8, c.now)
	s := bcryptOf(t, "secret")
	v.add("app", s, "secret")
	tests := map[string]struct {
		id     string
		s      Secret
		secret string
		want   bool
	}{
		"what was verified":                 {"app", s, "secret", true},
		"another secret":                    {"app", s, "Secret", false},
		"another client":                    {"other", s, "secret", false},
		"id and secret are not joined":      {"apps", s, "ecret", false},
		"a changed hash of the same secret": {"app", bcryptOf(t, "secret"), "secret", false},
	}
	for name, tt := range tests {
		if got := v.has(tt.id, tt.s, tt.secret); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
	c.advance(time.Minute)
	if v.has("app", s, "secret") {
		t.Error("not forgotten after a minute")
	}
}

func TestVerifiedStaysBounded(t *testing.T) {
	c := newClock()
	v := newVerified(time.Minute, 8, c.now)
	s := bcryptOf(t, "secret")
	for i := range 100 {
		v.add(fmt.Sprint(i), s, "secret")
		if !v.has(fmt.Sprint(i), s, "secret") {
			t.Fatalf("the newest, %d, is not there", i)
		}
		c.advance(time.Second)
	}
	if n := len(v.until); n > 8 {
		t.Errorf("%d entries, want at most 8", n)
	}
}

func TestVerifiedIsOffForFastSecretsAndByChoice(t *testing.T) {
	c := newClock()
	v := newVerified(time.Minute, 8, c.now)
	v.add("app", clearSecret(t, "secret"), "secret")
	off := newVerified(-1, 8, c.now)
	off.add("app", bcryptOf(t, "secret"), "secret")
	if len(v.until) != 0 || len(off.until) != 0 {
		t.Error("something was remembered")
	}
}
