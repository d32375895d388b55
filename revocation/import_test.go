package revocation_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

func oneToken(jti string) revocation.Request {
	return revocation.Request{Criteria: criteria("jti", jti), TokenExpiry: decided.Unix() + 600}
}

func at(sequence uint64) func(*revocation.Revocation) (uint64, bool) {
	return func(*revocation.Revocation) (uint64, bool) { return sequence, true }
}

func TestWhatStandsIsNotRecordedAgain(t *testing.T) {
	asked := 0
	for name, c := range map[string]struct {
		r    recorder
		want string
	}{
		"it stands":             {recorder{standing: at(7)}, "stands(7, 1)"},
		"not in the ledger":     {recorder{standing: at(7), stands: func() bool { return false }}, "stands(7, 1) admit publish revoke"},
		"in doubt":              {recorder{standing: at(7), unsure: errors.New("unsure")}, "stands(7, 1) admit publish revoke"},
		"it does not":           {recorder{}, "admit publish revoke"},
		"undone while we asked": {recorder{standing: func(*revocation.Revocation) (uint64, bool) { asked++; return 7, asked == 1 }}, "stands(7, 1) admit publish revoke"},
		"another one by then": {recorder{standing: func() func(*revocation.Revocation) (uint64, bool) {
			n := uint64(6)
			return func(*revocation.Revocation) (uint64, bool) { n++; return n, true }
		}()}, "stands(7, 1) admit publish revoke"},
	} {
		receipt, err := newService(&c.r, revocation.Policy{}).Revoke(context.Background(), oneToken("x"))
		if got := strings.Join(c.r.events, " "); got != c.want || err != nil {
			t.Errorf("%s: %s, %v", name, got, err)
		}
		stood := !strings.Contains(c.want, "publish")
		if receipt.Stood != stood || (receipt.ID == "") != stood || stood != (receipt.Sequence == 7) {
			t.Errorf("%s: %+v", name, receipt)
		}
		if receipt.Expires == 0 {
			t.Errorf("%s: no end: %+v", name, receipt)
		}
	}
}

// ledgerOf is a ledger and denylist for many goroutines that remembers what was
// recorded where.
type ledgerOf struct {
	recorder
	mu       sync.Mutex
	entries  [][]string // by sequence, from 1
	applied  map[string]uint64
	most     int // of one entry
	room     int
	fail     func(jtis []string) error
	admitted int

	asking, mostAsking atomic.Int64
}

func (l *ledgerOf) PublishRevocations(_ context.Context, ds []*revocation.Revocation) (int, uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var jtis []string
	for _, d := range ds[:min(len(ds), l.most)] {
		jtis = append(jtis, d.Criteria.Claims["jti"])
	}
	if l.fail != nil {
		if err := l.fail(jtis); err != nil {
			return len(jtis), 0, err
		}
	}
	l.entries = append(l.entries, jtis)
	return len(jtis), uint64(len(l.entries)), nil
}

func (l *ledgerOf) Revoke(sequence uint64, d *revocation.Revocation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.applied[d.Criteria.Claims["jti"]] = sequence
}

func (l *ledgerOf) Admit(*revocation.Revocation, bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.admitted++; l.admitted-len(l.applied) > l.room+3 {
		return revocation.ErrFull
	}
	return nil
}

func (l *ledgerOf) Room() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.room
}

func (l *ledgerOf) Standing(d *revocation.Revocation) (uint64, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	sequence, ok := l.applied[d.Criteria.Claims["jti"]]
	return sequence, ok
}

func (l *ledgerOf) Stands(_ context.Context, sequence uint64, ds ...*revocation.Revocation) (bool, error) {
	n := l.asking.Add(1)
	defer l.asking.Add(-1)
	for most := l.mostAsking.Load(); n > most && !l.mostAsking.CompareAndSwap(most, n); most = l.mostAsking.Load() {
	}
	time.Sleep(time.Millisecond) // as the real one takes its time
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range ds {
		if !slices.Contains(l.entries[sequence-1], d.Criteria.Claims["jti"]) {
			return false, nil
		}
	}
	return true, nil
}

func TestAnImportIsRecordedInFewEntriesAndCanBeRepeated(t *testing.T) {
	l := &ledgerOf{applied: map[string]uint64{}, most: 50, room: 100000}
	s := newServiceAt(l)
	var requests []revocation.Request
	for i := range 1000 {
		requests = append(requests, oneToken(fmt.Sprint("x", i)))
	}
	requests[17] = revocation.Request{Criteria: criteria("jti", "bad"), Cutoff: 5}
	requests[18].TokenExpiry = decided.Unix() - 3600
	check := func(stood bool) {
		t.Helper()
		results := s.Import(context.Background(), requests)
		if len(results) != len(requests) {
			t.Fatalf("%d results", len(results))
		}
		for i, r := range results {
			switch i {
			case 17:
				if !errors.Is(r.Err, revocation.ErrInvalidRequest) {
					t.Errorf("request %d: %v", i, r.Err)
				}
			case 18:
				if !errors.Is(r.Err, revocation.ErrExpired) {
					t.Errorf("request %d: %v", i, r.Err)
				}
			default:
				jti := fmt.Sprint("x", i)
				if r.Err != nil || r.Receipt.Stood != stood || l.applied[jti] != r.Receipt.Sequence || !slices.Contains(l.entries[r.Receipt.Sequence-1], jti) {
					t.Fatalf("request %d: %+v", i, r)
				}
			}
		}
	}
	check(false)
	if n := len(l.entries); n > 24 {
		t.Errorf("%d entries for 998 decisions, 50 fit into one", n)
	}
	was := len(l.entries)
	check(true)
	if n := len(l.entries); n != was {
		t.Errorf("repeating it added %d entries", n-was)
	}
}

// Each was recorded by itself: looking at the entries one after the other would
// take longer than recording them again.
func TestAnImportLooksAtManyEntriesAtATime(t *testing.T) {
	l := &ledgerOf{applied: map[string]uint64{}, most: 1, room: 100000}
	s := newServiceAt(l)
	var requests []revocation.Request
	for i := range 500 {
		requests = append(requests, oneToken(fmt.Sprint("x", i)))
	}
	s.Import(context.Background(), requests)
	if len(l.entries) != 500 {
		t.Fatalf("%d entries", len(l.entries))
	}
	for i, r := range s.Import(context.Background(), requests) {
		if r.Err != nil || !r.Receipt.Stood || l.entries[r.Receipt.Sequence-1][0] != fmt.Sprint("x", i) {
			t.Fatalf("request %d: %+v", i, r)
		}
	}
	if most := l.mostAsking.Load(); most < 2 || most > 64 {
		t.Errorf("%d at a time", most)
	}
}

func newServiceAt(l *ledgerOf) *revocation.Service {
	return revocation.NewService(l, l, revocation.Policy{}, func() time.Time { return decided })
}

// Promise 1 holds for each of many: what failed is said to have failed, and is
// recorded by the next attempt.
func TestAnImportThatFailsHalfwaySaysWhat(t *testing.T) {
	l := &ledgerOf{applied: map[string]uint64{}, most: 10, room: 100000}
	lost := errors.Join(revocation.ErrUnavailable, errors.New("lost"))
	attempts := 0
	l.fail = func([]string) error {
		if attempts++; attempts%3 == 0 {
			return lost
		}
		return nil
	}
	s := newServiceAt(l)
	left := make([]revocation.Request, 200)
	for i := range left {
		left[i] = oneToken(fmt.Sprint("x", i))
	}
	for round := 0; len(left) > 0; round++ {
		if round > 20 {
			t.Fatal("no end")
		}
		var failed []revocation.Request
		for i, r := range s.Import(context.Background(), left) {
			_, applied := l.applied[left[i].Criteria.Claims["jti"]]
			if applied != (r.Err == nil) {
				t.Fatalf("applied %t, %v", applied, r.Err)
			}
			if r.Err != nil {
				failed = append(failed, left[i])
			}
		}
		left = failed
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if r := s.Import(ended, []revocation.Request{oneToken("never")}); !errors.Is(r[0].Err, revocation.ErrUnavailable) || !errors.Is(r[0].Err, context.Canceled) {
		t.Errorf("after the end: %v", r[0].Err)
	}
}

// Beyond what a denylist can hold, an edge serves nothing: an import must not
// take it there.
func TestAnImportNeverTakesMoreThanThereIsRoomFor(t *testing.T) {
	l := &ledgerOf{applied: map[string]uint64{}, most: 50, room: 4}
	var requests []revocation.Request
	for i := range 40 {
		requests = append(requests, oneToken(fmt.Sprint("x", i)))
	}
	for i, r := range newServiceAt(l).Import(context.Background(), requests) {
		if r.Err != nil {
			t.Errorf("request %d: %v", i, r.Err)
		}
	}
	for _, e := range l.entries {
		if len(e) > 4 {
			t.Errorf("%d at once", len(e))
		}
	}
	l.room = -1000
	results := newServiceAt(l).Import(context.Background(), []revocation.Request{oneToken("y"), oneToken("z")})
	for i, r := range results {
		if !errors.Is(r.Err, revocation.ErrFull) {
			t.Errorf("request %d: %v", i, r.Err)
		}
	}
}
