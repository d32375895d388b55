package intent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

type revoker struct {
	err      map[int]error
	stood    bool
	requests []revocation.Request
}

func (r *revoker) Revoke(_ context.Context, req revocation.Request) (revocation.Receipt, error) {
	r.requests = append(r.requests, req)
	return revocation.Receipt{ID: "id", Sequence: uint64(len(r.requests)), Stood: r.stood}, r.err[len(r.requests)-1]
}

func withGrant() Intent {
	i := someIntent("token")
	i.Requests = append(i.Requests, revocation.Request{
		Criteria: revocation.Criteria{Issuer: iss, Claims: map[string]string{revocation.ClaimSubject: "alice", revocation.ClaimClientID: "app"}},
		Mode:     revocation.IssuedBefore, Once: true,
	})
	return i
}

// Promise 7: who logs in while the ledger is down is not cut off when it is back.
func TestALateCutoffStaysAtTheRequest(t *testing.T) {
	i := withGrant()
	for _, tt := range []struct {
		name   string
		after  time.Duration
		cutoff int64
		once   bool
	}{
		{"at once", time.Second, 0, false},
		{"late", time.Hour, i.Made.Unix() + 2, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := new(revoker)
			if _, err := RecordAll(background, r, &i, i.Made.Add(tt.after), 2*time.Second); err != nil {
				t.Fatal(err)
			}
			if got := r.requests[1]; got.Cutoff != tt.cutoff || got.Once != tt.once {
				t.Errorf("cutoff %d, once %v", got.Cutoff, got.Once)
			}
			if i.Requests[1].Cutoff != 0 {
				t.Error("the intent itself was changed")
			}
		})
	}
}

func TestRecordAllStopsAtTheFirstFailure(t *testing.T) {
	i := withGrant()
	r := &revoker{err: map[int]error{1: errDown}}
	done, err := RecordAll(background, r, &i, i.Made, 0)
	if !errors.Is(err, revocation.ErrUnavailable) || len(done) != 1 {
		t.Errorf("%d done, %v", len(done), err)
	}
	r = &revoker{err: map[int]error{0: revocation.ErrExpired}}
	if done, err = RecordAll(background, r, &i, i.Made, 0); err != nil || len(done) != 1 || len(r.requests) != 2 {
		t.Errorf("what has ended is no failure: %d done, %v", len(done), err)
	}
	r = &revoker{stood: true}
	if _, err = RecordAll(background, r, &i, i.Made, 0); err != nil || !r.requests[1].Once {
		t.Errorf("a token that was presented before must not move a cutoff: %v", err)
	}
}

// Each field of a request has to come back from the disk; a new one must not be
// forgotten.
func TestRequestsComeBackWhole(t *testing.T) {
	// Not of clients' requests.
	never := []string{"Lifetime", "Expires", "Operator"}
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[a-z <>"\\é]{1,9}`)
		number := rapid.Int64Range(0, 1<<40)
		i := Intent{
			Issuer: "https://" + text.Draw(t, "issuer"), Client: text.Draw(t, "client"), Token: text.Draw(t, "token"),
			Made: time.UnixMilli(number.Draw(t, "made")), Ends: time.Unix(number.Draw(t, "ends"), 0),
			Recheck: rapid.Bool().Draw(t, "recheck"),
		}
		for range rapid.IntRange(1, 3).Draw(t, "requests") {
			i.Requests = append(i.Requests, revocation.Request{
				Criteria: revocation.Criteria{Issuer: i.Issuer, Claims: rapid.MapOfN(text, text, 1, 4).Draw(t, "claims")},
				Mode:     rapid.SampledFrom([]revocation.Mode{revocation.Block, revocation.IssuedBefore, revocation.AuthenticatedBefore}).Draw(t, "mode"),
				Cutoff:   number.Draw(t, "cutoff"), TokenExpiry: number.Draw(t, "expiry"), TokenIssuedAt: number.Draw(t, "iat"),
				IssuedUntil: number.Draw(t, "until"), Once: rapid.Bool().Draw(t, "once"),
				Reason: text.Draw(t, "reason"), Actor: text.Draw(t, "actor"),
			})
		}
		content, err := encode(&i)
		if err != nil {
			t.Fatal(err)
		}
		back, err := decode(content)
		if err != nil {
			t.Fatal(err)
		}
		if !back.Made.Equal(i.Made) || !back.Ends.Equal(i.Ends) {
			t.Fatalf("times %v %v", back.Made, back.Ends)
		}
		back.Made, back.Ends = i.Made, i.Ends
		if !reflect.DeepEqual(*back, i) {
			t.Fatalf("%+v came back as %+v", i, *back)
		}
	})
	// All fields are drawn above, or are in the list.
	fields := reflect.TypeFor[revocation.Request]()
	known := append([]string{
		"Criteria", "Mode", "Cutoff", "TokenExpiry", "TokenIssuedAt", "IssuedUntil", "Once", "Reason", "Actor",
	}, never...)
	for field := range fields.Fields() {
		if name := field.Name; !slices.Contains(known, name) {
			t.Errorf("revocation.Request has a new field %s: is it kept on disk?", name)
		}
	}
}

func FuzzDecode(f *testing.F) {
	i := withGrant()
	content, err := encode(&i)
	if err != nil {
		f.Fatal(err)
	}
	_, body, _ := bytes.Cut(content, []byte("\n"))
	f.Add(body, true)
	f.Add(content, false)
	f.Add(content[:len(content)/2], false)
	f.Fuzz(func(t *testing.T, content []byte, sum bool) {
		if sum { // as if it had been written so
			s := sha256.Sum256(content)
			content = append([]byte(header+hex.EncodeToString(s[:])+"\n"), content...)
		}
		i, err := decode(content)
		if err != nil {
			if !errors.Is(err, errBroken) {
				t.Fatalf("unexpected error: %v", err)
			}
			return
		}
		again, err := encode(i)
		if err != nil {
			t.Fatalf("what was read can't be written: %v", err)
		}
		back, err := decode(again)
		if err != nil || !reflect.DeepEqual(back, i) {
			t.Fatalf("%+v came back as %+v: %v", i, back, err)
		}
		for _, r := range i.Requests {
			if len(r.Criteria.Claims) == 0 || r.Criteria.Issuer != i.Issuer {
				t.Fatalf("a request that no client may have: %+v", r)
			}
		}
	})
}

// Whatever single byte of a file is damaged, it is not recorded.
func TestEveryDamagedByteIsNoticed(t *testing.T) {
	i := withGrant()
	content, err := encode(&i)
	if err != nil {
		t.Fatal(err)
	}
	for n := range content {
		damaged := bytes.Clone(content)
		damaged[n] ^= 1 << (n % 8)
		if _, err := decode(damaged); !errors.Is(err, errBroken) {
			t.Fatalf("byte %d: %v", n, err)
		}
		if _, err := decode(content[:n]); !errors.Is(err, errBroken) {
			t.Fatalf("cut off at %d: %v", n, err)
		}
	}
}
