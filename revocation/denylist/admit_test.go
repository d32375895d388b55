package denylist

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

func TestAdmission(t *testing.T) {
	fill := func(d *Denylist, n int) {
		for i := range n {
			r := block(epoch0+1000, "jti", jti(i))
			r.Actor = fmt.Sprint("client:", i%50)
			d.Revoke(uint64(i+1), r)
		}
	}
	single := block(epoch0+1000, "jti", "new")
	user := cutoff(revocation.IssuedBefore, epoch0, epoch0+1000, "sub", "new")
	known := block(epoch0+5000, "jti", jti(0))
	full := func(t *testing.T, what string, err error, want bool) {
		t.Helper()
		if errors.Is(err, revocation.ErrFull) != want || err != nil != want {
			t.Errorf("%s: %v", what, err)
		}
	}
	t.Run("below 90 percent", func(t *testing.T) {
		d, _ := newTest(t, Options{MaxEntries: 1000})
		fill(d, 899)
		full(t, "single token", d.Admit(single, false), false)
		if d.Room() != 1 {
			t.Errorf("room for %d", d.Room())
		}
		if d.Stats().Entries != 899 {
			t.Error("Admit stores")
		}
	})
	t.Run("at 90 percent", func(t *testing.T) {
		d, _ := newTest(t, Options{MaxEntries: 1000})
		fill(d, 900)
		full(t, "single token", d.Admit(single, false), true)
		full(t, "single token, operator", d.Admit(single, true), false)
		full(t, "cutoff", d.Admit(user, false), false)
		full(t, "user block", d.Admit(block(epoch0+10, "sub", "x"), false), false)
		full(t, "known", d.Admit(known, false), false)
	})
	t.Run("single tokens leave room for what names many", func(t *testing.T) {
		d, clock := newTest(t, Options{MaxEntries: 1000})
		fill(d, 1000)
		if d.Room() != 0 {
			t.Errorf("room for %d", d.Room())
		}
		if s := d.Stats(); s.Entries != 950 || s.Missing != 50 {
			t.Errorf("%+v", s)
		}
		full(t, "single token, operator", d.Admit(single, true), true)
		full(t, "cutoff", d.Admit(user, false), false)
		d.Revoke(2000, user)
		if !d.Check(identity("sub", "new")).Denied {
			t.Error("a cutoff found no room")
		}
		if _, until, incomplete := d.Incomplete(clock.Now()); !incomplete || until != epoch0+1000 {
			t.Errorf("incomplete %v until %d, although tokens are missing", incomplete, until)
		}
	})
	t.Run("at the cap", func(t *testing.T) {
		d, clock := newTest(t, Options{MaxEntries: 1000})
		fill(d, 950)
		for i := range 50 {
			d.Revoke(uint64(2000+i), cutoff(revocation.IssuedBefore, epoch0, epoch0+1000, "sub", jti(i)))
		}
		full(t, "cutoff", d.Admit(user, false), true)
		full(t, "operator", d.Admit(user, true), true)
		full(t, "known", d.Admit(known, false), false)
		clock.pass(1001 * time.Second)
		full(t, "single token after all ended", d.Admit(single, false), false)
	})
	t.Run("quota", func(t *testing.T) {
		d, _ := newTest(t, Options{MaxEntries: 1000, ActorQuota: 10})
		for i := range 10 {
			r := block(epoch0+1000, "jti", jti(i))
			r.Actor = "client:greedy"
			full(t, "within", d.Admit(r, false), false)
			d.Revoke(uint64(i+1), r)
		}
		more := block(epoch0+1000, "jti", "more")
		more.Actor = "client:greedy"
		full(t, "beyond", d.Admit(more, false), true)
		full(t, "beyond, operator", d.Admit(more, true), false)
		more.Actor = "client:other"
		full(t, "another actor", d.Admit(more, false), false)
		d.Restore(11, restoration("jti", jti(3)))
		more.Actor = "client:greedy"
		full(t, "after one was undone", d.Admit(more, false), false)
	})
	t.Run("shapes", func(t *testing.T) {
		d, _ := newTest(t, Options{})
		for i := range clientShapes {
			d.Revoke(uint64(i+1), block(epoch0+10, fmt.Sprint("claim", i), "x"))
		}
		full(t, "client", d.Admit(block(epoch0+10, "new", "x"), false), true)
		full(t, "operator", d.Admit(block(epoch0+10, "new", "x"), true), false)
		full(t, "client, shape in use", d.Admit(block(epoch0+10, "claim0", "y"), false), false)
	})
}

func TestAlarmOncePerCrossing(t *testing.T) {
	var alarms []int
	var log bytes.Buffer
	d, clock := newTest(t, Options{
		MaxEntries: 100, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		OnAlarm: func(entries, most int) { alarms = append(alarms, entries*1000+most) },
	})
	for round := range 2 {
		for i := range 90 {
			d.Revoke(uint64(round*1000+i+1), block(clock.unix()+10, "jti", jti(i)))
		}
		clock.pass(2 * time.Hour)
		sweepAll(d)
	}
	if len(alarms) != 2 || alarms[0] != 80*1000+100 {
		t.Errorf("alarms: %v", alarms)
	}
	if n := strings.Count(log.String(), "filling up"); n != 2 {
		t.Errorf("logged %d times", n)
	}
}

// TestManyActorsAreBounded has more actors than can be told apart: those beyond
// share one quota, and numbers become free again.
func TestManyActorsAreBounded(t *testing.T) {
	d, _ := newTest(t, Options{ActorQuota: 50})
	const n = 1<<actorBits + 100
	of := func(actor int) *revocation.Revocation {
		r := block(epoch0+10, "jti", jti(actor))
		r.Actor = fmt.Sprint("client:", actor)
		return r
	}
	for i := range n {
		d.Revoke(uint64(i+1), of(i))
	}
	if len(d.actors.byName) >= 1<<actorBits {
		t.Errorf("%d actors are known", len(d.actors.byName))
	}
	if err := d.Admit(of(n), false); !errors.Is(err, revocation.ErrFull) {
		t.Errorf("an actor that can't be counted: %v", err)
	}
	if err := d.Admit(of(n), true); err != nil {
		t.Errorf("an operator that can't be counted: %v", err)
	}
	known := of(5)
	known.Criteria = criteria("jti", "another")
	if err := d.Admit(known, false); err != nil {
		t.Errorf("an actor that is counted: %v", err)
	}
	var b bytes.Buffer
	if err := d.writeCheckpoint(&b, testPlace, time.Now()); err != nil {
		t.Fatal(err)
	}
	c, err := parseCheckpoint(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	e, _ := newTest(t, Options{ActorQuota: 50})
	if e.join(c); e.actors.slots[others].count != d.actors.slots[others].count {
		t.Error("a restart forgets who shares a quota")
	}
	for i := range n {
		d.Restore(uint64(n+i), restoration("jti", jti(i)))
	}
	for i := range d.actors.slots {
		if c := d.actors.slots[i].count; c != 0 {
			t.Fatalf("actor %d has %d entries of none", i, c)
		}
	}
	r := of(n)
	d.Revoke(2*n, r)
	if d.actors.count(actorKey(r.Actor, testIssuer)) != 1 || d.actors.slots[others].count != 0 {
		t.Error("numbers of idle actors are not used again")
	}
}

// TestQuotaIsOneClientsOfOneIssuer has two issuers with a client of one name.
func TestQuotaIsOneClientsOfOneIssuer(t *testing.T) {
	d, _ := newTest(t, Options{ActorQuota: 2})
	of := func(issuer, id string) *revocation.Revocation {
		r := block(epoch0+10, "jti", id)
		r.Criteria.Issuer, r.Actor = issuer, "client:app"
		return r
	}
	for i := range 2 {
		d.Revoke(uint64(i+1), of(testIssuer, jti(i)))
	}
	if err := d.Admit(of(testIssuer, "more"), false); !errors.Is(err, revocation.ErrFull) {
		t.Errorf("beyond the quota: %v", err)
	}
	if err := d.Admit(of(otherIssuer, "more"), false); err != nil {
		t.Errorf("the other issuer's client: %v", err)
	}
}

// TestRoomIsMadeWithoutHoldingOthersUp fills a denylist and lets everything end.
func TestRoomIsMadeWithoutHoldingOthersUp(t *testing.T) {
	const n = 50_000
	d, clock := newTest(t, Options{MaxEntries: n, ActorQuota: -1})
	for i := range n {
		d.Revoke(uint64(i+1), block(epoch0+100, "sub", jti(i)))
	}
	clock.pass(200 * time.Second)
	d.Revoke(n+1, block(clock.unix()+100, "sub", "new"))
	if s := d.Stats(); !d.Check(identity("sub", "new")).Denied || s.CapHits != 0 || s.Entries > n*9/10 {
		t.Errorf("not held at once: %+v", s)
	}
	within(t, 30*time.Second, "somebody else has the lock while room is made", func() bool {
		var meanwhile cursor
		var other sync.WaitGroup
		d.mu.Lock()
		other.Go(func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			meanwhile = d.cursor
		})
		time.Sleep(5 * time.Millisecond) // so that it waits; if it does not, again
		d.cursor.full = 0
		d.makeRoom(d.clock.seconds())
		end := d.cursor
		d.mu.Unlock()
		other.Wait()
		return meanwhile != end
	})
}

// TestQuotaKnowsEntriesRecordedAgain counts those of which only the fingerprint is
// known for the actor that has them.
func TestQuotaKnowsEntriesRecordedAgain(t *testing.T) {
	d, _ := newTest(t, Options{MaxEntries: 1000, ActorQuota: 10})
	mine := func(i int) *revocation.Revocation {
		r := block(epoch0+3600, "jti", jti(i))
		r.Actor = "client:a"
		return r
	}
	for i := range 9 {
		r := mine(i)
		d.RevokeHeld(uint64(i+1), &revocation.HeldEntry{Fingerprint: r.Criteria.Fingerprint(r.Mode), Names: r.Criteria.Names(), Expires: r.Expires, Actor: r.Actor})
	}
	if err := d.Admit(mine(9), false); err != nil {
		t.Errorf("below the quota: %v", err)
	}
	d.Revoke(10, mine(9))
	if err := d.Admit(mine(10), false); !errors.Is(err, revocation.ErrFull) {
		t.Errorf("beyond the quota: %v", err)
	}
	other := mine(10)
	other.Actor = "client:b"
	if err := d.Admit(other, false); err != nil {
		t.Errorf("another client: %v", err)
	}
}
