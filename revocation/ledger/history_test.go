package ledger_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/ledger"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

func TestAStreamThatIsCreatedAgainRaisesTheAlarmAndLosesNothing(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	l := open(t, external(srv.URL()))
	s, seen := newSink(), &alarms{}
	f := l.Follow(s, seen.observer())
	defer f.Stop()
	for i := range 50 {
		publish(t, l, fmt.Sprint("old-", i))
	}
	eventually(t, "applied", func() bool { return s.count() == 50 })
	was := l.Status().LedgerID
	js := client(t, srv.URL())
	if err := js.DeleteStream(t.Context(), ledger.DefaultStream); err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		id := fmt.Sprint("new-", i)
		eventually(t, "published into the new stream", func() bool {
			_, err := l.PublishRevocation(t.Context(), revoke(id))
			return err == nil
		})
	}
	eventually(t, "nothing lost", func() bool { return s.count() == 100 && f.State().InSync })
	if l.Status().LedgerID == was {
		t.Error("the new stream has the old ledger's id")
	}
	if r := seen.raised(); len(r) != 1 {
		t.Errorf("alarms: %q", r)
	}
}

func TestAStreamThatOthersCreateAgainAtOnceIsNoticed(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	o := external(srv.URL())
	o.External.Create = false
	operator := open(t, external(srv.URL()))
	if _, err := operator.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	l := open(t, o)
	s, seen := newSink(), &alarms{}
	f := l.Follow(s, seen.observer())
	defer f.Stop()
	eventually(t, "in sync", func() bool { return f.State().InSync })
	for i := range 20 {
		publish(t, l, fmt.Sprint("old-", i))
	}
	eventually(t, "applied", func() bool { return s.count() == 20 })
	if err := operator.Close(); err != nil {
		t.Fatal(err)
	}
	// The new stream grows beyond the position before anybody looks.
	js := client(t, srv.URL())
	st, err := js.Stream(t.Context(), ledger.DefaultStream)
	if err != nil {
		t.Fatal(err)
	}
	config := st.CachedInfo().Config
	if err := js.DeleteStream(t.Context(), ledger.DefaultStream); err != nil {
		t.Fatal(err)
	}
	eventually(t, "created", func() bool {
		_, err := js.CreateStream(t.Context(), config)
		return err == nil
	})
	put(t, js, ledger.KindGenesis, `{"v":1,"ledger":"another"}`)
	for i := range 60 {
		put(t, js, ledger.KindEntry, entry(fmt.Sprint("new-", i)))
	}
	eventually(t, "nothing lost", func() bool { return s.count() == 80 })
	if r := seen.raised(); len(r) != 1 || !strings.Contains(r[0], "another ledger") {
		t.Errorf("alarms: %q", r)
	}
}

// copyTree copies a server's store, which must not be in use.
func copyTree(t testing.TB, from, to string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

func TestAStoreThatIsRolledBackRaisesTheAlarmAndLosesNothing(t *testing.T) {
	t.Parallel()
	for name, grows := range map[string]int{"behind the position": 5, "and grows beyond the position": 300} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := revocationtest.StartNATS(t)
			l := open(t, external(srv.URL()))
			s, seen := newSink(), &alarms{}
			f := l.Follow(s, seen.observer())
			defer f.Stop()
			for i := range 30 {
				publish(t, l, fmt.Sprint("kept-", i))
			}
			srv.Stop()
			backup := t.TempDir()
			copyTree(t, srv.StoreDir(), backup)
			srv.Start()
			for i := range 100 {
				publish(t, l, fmt.Sprint("undone-", i))
			}
			eventually(t, "applied", func() bool { return s.count() == 130 })

			srv.Stop()
			f.Stop()
			copyTree(t, backup, srv.StoreDir())
			srv.Start()
			eventually(t, "reconnected", func() bool { return l.Status().Usable })
			js := client(t, srv.URL())
			for i := range grows {
				put(t, js, ledger.KindEntry, entry(fmt.Sprint("new-", i)))
			}
			f = l.Follow(s, seen.observer())
			defer f.Stop()
			eventually(t, "nothing lost", func() bool { return s.count() == 130+grows && f.State().InSync })
			if r := seen.raised(); len(r) != 1 || !strings.Contains(r[0], "rolled back") {
				t.Errorf("alarms: %q", r)
			}
		})
	}
}

func TestAPositionOfAnotherHistoryIsRecognised(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	l := open(t, external(srv.URL()))
	if _, err := l.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	js := client(t, srv.URL())
	for i := range 8 {
		put(t, js, ledger.KindEntry, entry(fmt.Sprint("a-", i)))
	}
	gone := put(t, js, ledger.KindRestore, entry("short"), jetstream.WithMsgTTL(time.Second))
	last := put(t, js, ledger.KindEntry, entry("last"))
	st, err := js.Stream(t.Context(), ledger.DefaultStream)
	if err != nil {
		t.Fatal(err)
	}
	at := func(sequence uint64) time.Time {
		m, err := st.GetMsg(t.Context(), sequence)
		if err != nil {
			return time.Time{}
		}
		return m.Time
	}
	expired := at(gone)
	eventually(t, "expired", func() bool { return at(gone).IsZero() })
	created, id := st.CachedInfo().Created, l.Status().LedgerID

	witnessed := func(stored time.Time, witness uint64, at, ends time.Time) revocation.Position {
		return revocation.Position{
			Ledger: id, Created: created, Sequence: last, Stored: stored,
			Witness: witness, WitnessStored: at, WitnessEnds: ends,
		}
	}

	for name, c := range map[string]struct {
		p     revocation.Position
		alarm string
	}{
		"the same":                        {revocation.Position{Ledger: id, Created: created, Sequence: last, Stored: at(last)}, ""},
		"the same, expired since":         {revocation.Position{Ledger: id, Created: created, Sequence: gone, Stored: expired}, ""},
		"no position":                     {revocation.Position{}, ""},
		"another ledger":                  {revocation.Position{Ledger: "other", Created: created, Sequence: last, Stored: at(last)}, "another ledger"},
		"created at another time":         {revocation.Position{Ledger: id, Created: created.Add(time.Second), Sequence: last, Stored: at(last)}, "created again"},
		"beyond the end":                  {revocation.Position{Ledger: id, Created: created, Sequence: last + 1000, Stored: at(last)}, "rolled back"},
		"another entry in its place":      {revocation.Position{Ledger: id, Created: created, Sequence: last, Stored: at(last).Add(time.Second)}, "grown again"},
		"expired, and newer ones before":  {revocation.Position{Ledger: id, Created: created, Sequence: gone, Stored: at(3)}, "grown again"},
		"the clock was set back before":   {revocation.Position{Ledger: id, Created: created, Sequence: gone, Stored: at(3), Latest: expired}, ""},
		"with its witness":                {witnessed(at(last), last, at(last), time.Time{}), ""},
		"with an older witness":           {witnessed(at(last), 4, at(4), time.Now().Add(time.Hour)), ""},
		"another witness in its place":    {witnessed(at(last), 4, at(5), time.Now().Add(time.Hour)), "grown again"},
		"without its witness":             {witnessed(at(last), gone, expired, time.Now().Add(time.Hour)), "is gone"},
		"without one that was for ever":   {witnessed(at(last), gone, expired, time.Time{}), "is gone"},
		"with one that has ended":         {witnessed(at(last), gone, expired, time.Now()), ""},
		"with one that has nearly ended":  {witnessed(at(last), gone, expired, time.Now().Add(time.Minute)), ""},
		"replaced, and newer ones before": {revocation.Position{Ledger: id, Created: created, Sequence: last, Stored: at(3)}, "grown again"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, seen := newSink(), &alarms{}
			s.position = c.p
			f := l.Follow(s, seen.observer())
			defer f.Stop()
			eventually(t, "in sync", func() bool { return f.State().InSync })
			r := seen.raised()
			switch {
			case c.alarm == "" && len(r) > 0:
				t.Errorf("alarms: %q", r)
			case c.alarm != "" && (len(r) != 1 || !strings.Contains(r[0], c.alarm)):
				t.Errorf("alarms: %q, want %q", r, c.alarm)
			case c.alarm != "" && s.count() != 9:
				t.Errorf("%d of 9 after the alarm", s.count())
			}
		})
	}
}

func TestTheGenesisAtTheLowestSequenceCounts(t *testing.T) {
	t.Parallel()
	srv := revocationtest.StartNATS(t)
	const creators = 8
	var wg sync.WaitGroup
	ids := make([]string, creators)
	ledgers := make([]*ledger.Ledger, creators)
	for i := range creators {
		ledgers[i] = open(t, external(srv.URL()))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for i := range creators {
		wg.Go(func() {
			id, err := ledgers[i].Init(ctx)
			if err != nil {
				t.Error(err)
			}
			ids[i] = id
		})
	}
	wg.Wait()
	js := client(t, srv.URL())
	put(t, js, ledger.KindGenesis, `{"v":1,"ledger":"usurper"}`)
	st, err := js.Stream(ctx, ledger.DefaultStream)
	if err != nil {
		t.Fatal(err)
	}
	first, err := st.GetMsg(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	var genesis struct{ Ledger string }
	if err := json.Unmarshal(first.Data, &genesis); err != nil || first.Subject != ledger.KindGenesis.Subject() {
		t.Fatalf("the first message is %s on %s", first.Data, first.Subject)
	}
	for _, id := range ids {
		if id != genesis.Ledger || id == "" {
			t.Errorf("ids %q, the first message says %q", ids, genesis.Ledger)
		}
	}
	if n := st.CachedInfo().State.LastSeq; n != 2 {
		t.Errorf("%d entries, want one genesis and one usurper", n)
	}
}
