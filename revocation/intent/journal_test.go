package intent

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

var background = context.Background()

// Promise 1: what was accepted is recorded, at whatever moment the process ends;
// promise 6: what was not, is not.
func TestACrashAtEachPointLosesNothingAndInventsNothing(t *testing.T) {
	dir := t.TempDir()
	down := &recorder{err: errDown}
	j := open(t, dir, down)
	type point struct {
		name, image       string
		recorded, unknown bool
	}
	var points []point
	at := func(name string, recorded, unknown bool) {
		points = append(points, point{name, image(t, dir), recorded, unknown})
	}
	at("before", false, false)
	e := begin(t, j, "token")
	at("forwarded", false, true)
	if err := e.Accept(); err != nil {
		t.Fatal(err)
	}
	at("accepted", true, false)
	err := e.Record(background, func(ctx context.Context, i *Intent) error {
		at("while it is being recorded", true, false)
		return down.record(ctx, i)
	})
	if !errors.Is(err, revocation.ErrUnavailable) {
		t.Fatal(err)
	}
	at("the ledger was down", true, false)
	down.set(nil)
	eventually(t, "the worker", func() bool { return len(down.recorded()) == 1 && j.Stats().Accepted == 0 })
	at("recorded", false, false)

	for _, p := range points {
		t.Run(p.name, func(t *testing.T) {
			r := new(recorder)
			next := open(t, p.image, r)
			if p.recorded {
				eventually(t, "the intent to be recorded", func() bool { return slices.Equal(r.recorded(), []string{"token"}) })
				eventually(t, "its file to be gone", func() bool { return len(files(t, p.image)) == 0 })
			}
			if got := next.Stats().Unknown; got != 0 != p.unknown {
				t.Errorf("%d intents of unknown outcome, want some: %v", got, p.unknown)
			}
			if err := next.Close(); err != nil { // after the worker's first look
				t.Fatal(err)
			}
			if !p.recorded && len(r.recorded()) != 0 {
				t.Error("something was recorded that nobody has accepted")
			}
		})
	}
}

// Promise 1, with a real process that is killed; and while it lives, its intents
// are its own.
func TestAnotherProcessTakesOverWhatAKilledOneLeft(t *testing.T) {
	dir := t.TempDir()
	c := startChild(t, dir)
	r := new(recorder)
	j := open(t, dir, r)
	j.look()
	if s := j.Stats(); s.Unknown+s.Accepted != 0 {
		t.Fatalf("the intents of a living process were taken: %+v", s)
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait()
	j.look()
	j.recording.rouse()
	eventually(t, "both accepted intents", func() bool { return slices.Equal(r.recorded(), []string{"a", "b"}) })
	if s := j.Stats(); s.Unknown != 1 {
		t.Errorf("want one of unknown outcome: %+v", s)
	}
	e, err := j.Resume(background, iss, "app", "c")
	if err != nil || e == nil {
		t.Fatalf("the client's next attempt does not find it: %v", err)
	}
	_ = e.Accept()
	_ = e.Record(background, r.record)
	eventually(t, "no files", func() bool { return len(files(t, dir)) == 0 })
}

func TestBrokenFilesAreQuarantinedLoudlyAndNeverRecorded(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, new(recorder))
	e := begin(t, j, "token")
	if err := e.Accept(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(j.folder.file(e.name, extAccepted))
	if err != nil {
		t.Fatal(err)
	}
	e.Drop() // is accepted: stays until it is recorded
	if strings.Contains(string(content), "secret") {
		t.Error("the test is broken")
	}
	for name, broken := range map[string][]byte{
		"empty":          nil,
		"half":           content[:len(content)/2],
		"without end":    content[:len(content)-1],
		"a byte changed": bytes.Replace(content, []byte(`"app"`), []byte(`"apq"`), 1),
		"too long":       append(slices.Clone(content), make([]byte, maxFile)...),
		"other format":   bytes.Replace(content, []byte("intent 1"), []byte("intent 9"), 1),
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			dead := filepath.Join(root, "dead")
			if err := os.Mkdir(dead, 0o700); err != nil {
				t.Fatal(err)
			}
			for _, file := range []string{"1" + extAccepted, "2" + extForwarded, "3" + extNew, "4.other"} {
				if err := os.WriteFile(filepath.Join(dead, file), broken, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			// The good one beside them is not lost.
			if err := os.WriteFile(filepath.Join(dead, "5"+extAccepted), content, 0o600); err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			r := new(recorder)
			next := open(t, root, r, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
			eventually(t, "the good one", func() bool { return slices.Equal(r.recorded(), []string{"token"}) })
			eventually(t, "its file to be gone", func() bool { return next.Stats().Accepted == 0 })
			if s := next.Stats(); s.Quarantined != 3 || s.Unknown != 0 {
				t.Errorf("want three in quarantine: %+v", s)
			}
			if err := next.Close(); err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(log.String(), "level=ERROR"); n != 3 {
				t.Errorf("%d errors in the log, want 3: %s", n, log.String())
			}
			if _, err := os.Stat(dead); !errors.Is(err, os.ErrNotExist) {
				t.Error("the directory of the dead process is still there")
			}
		})
	}
}

func TestNoIntentNoForwarding(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	j := open(t, filepath.Join(file, "sub"), new(recorder))
	if _, err := j.Begin(background, someIntent("a")); !errors.Is(err, ErrUnavailable) {
		t.Errorf("without a directory: %v", err)
	}
	if j.Stats().Usable {
		t.Error("a journal without a directory calls itself usable")
	}
	if err := os.Remove(file); err != nil { // repaired
		t.Fatal(err)
	}
	begin(t, j, "a").Drop()

	if err := os.RemoveAll(j.folder.path); err != nil { // as a full disk: nothing can be written
		t.Fatal(err)
	}
	if _, err := j.Begin(background, someIntent("b")); !errors.Is(err, ErrUnavailable) {
		t.Errorf("when nothing can be written: %v", err)
	}
	if s := j.Stats(); s.Forwarded+s.Unknown+s.Accepted != 0 || s.Usable || s.Refused != 2 {
		t.Errorf("what could not be written is remembered: %+v", s)
	}
	begin(t, j, "c").Drop() // in a new directory
	if !j.Stats().Usable {
		t.Error("not usable after all is well")
	}
	for _, name := range []string{j.options.Dir, j.folder.path} { // without a request, too
		if err := os.RemoveAll(name); err != nil {
			t.Fatal(err)
		}
		j.look()
		if !j.Stats().Usable || !exists(j.folder.path) {
			t.Errorf("%s was removed: %+v", name, j.Stats())
		}
	}
}

// A full disk comes back by itself, and is seen until then.
func TestADiskThatCannotBeWrittenToIsNotUsable(t *testing.T) {
	j := open(t, t.TempDir(), new(recorder))
	j.mu.Lock()
	j.wrote(j.folder, syscall.ENOSPC)
	j.mu.Unlock()
	if j.Stats().Usable {
		t.Error("usable")
	}
	j.look()
	if !j.Stats().Usable {
		t.Error("not usable after all is well")
	}
}

func TestOpenIntentsAreBounded(t *testing.T) {
	r := &recorder{err: errDown}
	j := open(t, t.TempDir(), r, func(o *Options) { o.MaxOpen = 3 })
	held := begin(t, j, "held")
	begin(t, j, "unknown").Leave("")
	accepted := begin(t, j, "accepted")
	if err := accepted.Accept(); err != nil {
		t.Fatal(err)
	}
	_ = accepted.Record(background, r.record)

	another := begin(t, j, "another") // for which the unknown one goes
	if s := j.Stats(); s.Unknown != 0 || s.Evicted != 1 || s.Accepted != 1 || s.Forwarded != 2 {
		t.Errorf("%+v", s)
	}
	if _, err := j.Begin(background, someIntent("more")); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a fourth one: %v", err)
	}
	another.Drop()
	begin(t, j, "more").Drop()
	held.Drop()
}

// A client's next attempt finds what the earlier one has left, of its own token
// and nobody else's.
func TestResumeFindsTheClientsOwnEarlierAttempt(t *testing.T) {
	j := open(t, t.TempDir(), new(recorder))
	begin(t, j, "token").Leave("")
	for _, other := range [][3]string{{iss, "other", "token"}, {"https://b.example", "app", "token"}, {iss, "app", "other"}} {
		if e, err := j.Resume(background, other[0], other[1], other[2]); e != nil || err != nil {
			t.Errorf("%v finds one: %v", other, err)
		}
	}
	e, err := j.Resume(background, iss, "app", "token")
	if err != nil || e == nil {
		t.Fatalf("not found: %v", err)
	}
	again, err := j.Resume(background, iss, "app", "token")
	if err != nil || again != e {
		t.Errorf("while another attempt has it: %v", err)
	}
	e.Drop()
	_ = again.Accept()
	if err := again.Record(background, new(recorder).record); err != nil {
		t.Fatal(err)
	}
	if e, _ := j.Resume(background, iss, "app", "token"); e != nil {
		t.Error("a recorded one is found")
	}
}

func TestALaterAttemptTakesThePlaceOfAnUnknownOne(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, new(recorder))
	for range 10 {
		begin(t, j, "token").Leave("")
	}
	if s := j.Stats(); s.Unknown != 1 || len(files(t, dir)) != 1 {
		t.Errorf("%+v, files %v", s, files(t, dir))
	}
}

// Dropping is for what was not accepted: a refused retry does not undo the 200 of
// the attempt before.
func TestARefusedRetryDoesNotUndoAnAcceptedIntent(t *testing.T) {
	r := &recorder{err: errDown}
	j := open(t, t.TempDir(), r)
	e := begin(t, j, "token")
	if err := e.Accept(); err != nil {
		t.Fatal(err)
	}
	_ = e.Record(background, r.record)
	again, err := j.Resume(background, iss, "app", "token")
	if err != nil || again == nil {
		t.Fatal("not found", err)
	}
	again.Drop()
	r.set(nil)
	eventually(t, "it to be recorded", func() bool { return slices.Equal(r.recorded(), []string{"token"}) })
}

func TestUnknownOutcomesAreAskedAbout(t *testing.T) {
	var verdict atomic.Value // "active", "dead" or "down"
	verdict.Store("down")
	var asked atomic.Int64
	r := new(recorder)
	dir := t.TempDir()
	j := open(t, dir, r, func(o *Options) {
		o.Active = func(_ context.Context, issuer, token string) (bool, error) {
			asked.Add(1)
			if issuer != iss || token != "the token itself" {
				t.Errorf("asked about %q at %q", token, issuer)
			}
			switch verdict.Load() {
			case "active":
				return true, nil
			case "dead":
				return false, nil
			default:
				return false, errors.New("down")
			}
		}
	})
	begin(t, j, "token").Leave("the token itself")
	begin(t, j, "nothing to ask").Leave("")
	for _, v := range []string{"down", "active"} {
		verdict.Store(v)
		before := asked.Load()
		eventually(t, "two more questions", func() bool { return asked.Load() > before+1 })
		if len(r.recorded()) != 0 {
			t.Fatalf("recorded while the server is %s", v)
		}
	}
	if err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if bytes.Contains(content, []byte("the token itself")) {
			t.Errorf("%s has the token in it", path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	verdict.Store("dead")
	eventually(t, "the dead one to be recorded", func() bool { return slices.Equal(r.recorded(), []string{"token"}) })
}

func TestWhatCanNeverBeRecordedIsPutAside(t *testing.T) {
	r := &recorder{err: revocation.ErrInvalidCriteria}
	dir := t.TempDir()
	j := open(t, dir, r)
	e := begin(t, j, "token")
	_ = e.Accept()
	if err := e.Record(background, r.record); err == nil {
		t.Fatal("no error")
	}
	if s := j.Stats(); s.Quarantined != 1 || s.Accepted != 0 {
		t.Errorf("%+v", s)
	}
	if got := files(t, dir); !slices.Equal(got, []string{".accepted in quarantine"}) {
		t.Errorf("files %v", got)
	}
}

func TestIntentsEndWithTheirTokens(t *testing.T) {
	var now atomic.Int64
	now.Store(time.Now().UnixNano())
	clock := func() time.Time { return time.Unix(0, now.Load()) }
	r := &recorder{err: errDown}
	dir := t.TempDir()
	j := open(t, dir, r, func(o *Options) { o.Now = clock })
	accepted := begin(t, j, "accepted")
	_ = accepted.Accept()
	_ = accepted.Record(background, r.record)
	begin(t, j, "unknown").Leave("")
	now.Add(int64(2 * time.Hour))
	eventually(t, "both to end", func() bool { s := j.Stats(); return s.Accepted+s.Unknown == 0 })
	if s := j.Stats(); s.Ended != 1 {
		t.Errorf("%+v", s)
	}
	if got := files(t, dir); len(got) != 0 {
		t.Errorf("files %v", got)
	}
}

// The worker keeps trying under a steady stream of requests, and pauses longer and
// longer while the ledger is down.
func TestTheWorkerNeitherStarvesNorHammers(t *testing.T) {
	r := &recorder{err: errDown}
	j := open(t, t.TempDir(), r, func(o *Options) { o.MaxRetry = time.Minute })
	for _, name := range []string{"a", "b", "c"} {
		e := begin(t, j, name)
		_ = e.Accept()
		_ = e.Record(background, r.record)
	}
	before := r.tried()
	eventually(t, "some attempts", func() bool {
		begin(t, j, "stream").Leave("")
		return r.tried() >= before+3
	})
	if got := r.tried() - before; got > 3+1 {
		t.Errorf("%d attempts: each pass is to end with the first failure", got)
	}
}
