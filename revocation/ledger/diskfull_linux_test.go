package ledger_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/ledger"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// smallDisk mounts a file system of its own, which needs root.
func smallDisk(t *testing.T, bytes int) string {
	t.Helper()
	dir := t.TempDir()
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes))
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("mounting a small disk: %v", err)
		}
		t.Skipf("mounting a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmounting: %v", err)
		}
	})
	return dir
}

// fill writes a file that leaves room for the given number of bytes.
func fill(t *testing.T, disk string, leave int64) (free func()) {
	t.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(disk, &st); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(disk, "filler")
	if err := os.WriteFile(filler, make([]byte, int64(st.Bavail)*st.Bsize-leave), 0o600); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(filler); err != nil {
			t.Error(err)
		}
	}
}

// untilRefused publishes until the ledger takes no more, and returns what it
// acknowledged and how it refused the rest.
func untilRefused(t *testing.T, l *ledger.Ledger, prefix string) (acknowledged []string, err error) {
	t.Helper()
	for len(acknowledged) < 100000 {
		id := fmt.Sprint(prefix, len(acknowledged))
		r := revoke(id)
		r.Reason = strings.Repeat("x", revocation.MaxReason)
		if _, err = l.PublishRevocation(t.Context(), r); err != nil {
			return acknowledged, err
		}
		acknowledged = append(acknowledged, id)
	}
	t.Fatal("it took everything")
	return nil, nil
}

func mustHold(t *testing.T, s *sink, ids []string) {
	t.Helper()
	missing := 0
	for _, id := range ids {
		if !s.has(id) {
			missing++
		}
	}
	t.Logf("%d acknowledged, %d missing", len(ids), missing)
	if missing > 0 {
		t.Errorf("%d of %d acknowledged revocations are missing", missing, len(ids))
	}
}

// A full disk: refused loudly, nothing acknowledged is lost, and it recovers by
// itself, also for other edges.
func TestTheEmbeddedLedgerSurvivesAFullDisk(t *testing.T) {
	disk := smallDisk(t, 24<<20)
	o := embedded(filepath.Join(disk, "store"))
	o.Embedded.SyncInterval = 0
	o.Embedded.Listen = "127.0.0.1:0"
	o.PublishTimeout, o.PublishDeadline = time.Second, 3*time.Second
	l, out := openLogged(t, o)
	other := open(t, ledger.Options{External: &ledger.ExternalOptions{URLs: []string{"nats://" + l.Status().Listen}}})
	s, far := newSink(), newSink()
	seen := &alarms{}
	f, g := l.Follow(s, seen.observer()), other.Follow(far, seen.observer())
	defer f.Stop()
	defer g.Stop()
	eventually(t, "in sync", func() bool { return f.State().InSync && g.State().InSync })
	listen := l.Status().Listen

	free := fill(t, disk, 2<<20)
	acknowledged, err := untilRefused(t, l, "before-")
	if !errors.Is(err, revocation.ErrUnavailable) {
		t.Errorf("refused with %v", err)
	}
	eventually(t, "the status says why", func() bool {
		st := l.Status()
		return !st.Usable && errors.Is(st.Problem, ledger.ErrStorage) && strings.Contains(st.Problem.Error(), "no space left on device; free space")
	})
	begin := time.Now()
	if _, err := l.PublishRevocation(t.Context(), revoke("meanwhile")); !errors.Is(err, ledger.ErrStorage) || !errors.Is(err, revocation.ErrUnavailable) {
		t.Errorf("meanwhile: %v", err)
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("refused after %s", took)
	}
	if n := strings.Count(out.String(), "takes no revocations"); n == 0 {
		t.Error("the log does not say it")
	}

	free()
	eventually(t, "it recovers by itself", func() bool {
		_, err := l.PublishRevocation(t.Context(), revoke("after"))
		return err == nil
	})
	eventually(t, "from another edge too", func() bool {
		_, err := other.PublishRevocation(t.Context(), revoke("after-elsewhere"))
		return err == nil
	})
	acknowledged = append(acknowledged, "after", "after-elsewhere")
	eventually(t, "in sync again", func() bool {
		return s.has("after-elsewhere") && far.has("after-elsewhere") && f.State().InSync && g.State().InSync
	})
	if at := l.Status().Listen; at != listen {
		t.Errorf("it listens on %s, was %s", at, listen)
	}
	mustHold(t, s, acknowledged)
	mustHold(t, far, acknowledged)
	fresh := newSink()
	h := other.Follow(fresh, ledger.Observer{})
	defer h.Stop()
	eventually(t, "replayed", func() bool { return h.State().InSync })
	mustHold(t, fresh, acknowledged)
	if r := seen.raised(); len(r) > 0 {
		t.Errorf("alarms: %q", r)
	}
	if fresh.has("meanwhile") {
		t.Error("what was refused was stored")
	}
}

// An external server with a full disk can't be helped from here: the ledger says
// what is to be done, and that works.
func TestAnExternalServerWithAFullDiskIsNamed(t *testing.T) {
	disk := smallDisk(t, 24<<20)
	srv := revocationtest.StartNATS(t, func(o *server.Options) {
		o.StoreDir = filepath.Join(disk, "store")
		o.SyncAlways = true
	})
	o := external(srv.URL())
	o.PublishTimeout, o.PublishDeadline = 500*time.Millisecond, 2*time.Second
	l, out := openLogged(t, o)
	if _, err := l.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	free := fill(t, disk, 2<<20)
	acknowledged, err := untilRefused(t, l, "before-")
	if !errors.Is(err, revocation.ErrUnavailable) {
		t.Errorf("refused with %v", err)
	}
	eventually(t, "the status and the error say what to do", func() bool {
		_, err := l.PublishRevocation(t.Context(), revoke("meanwhile"))
		return errors.Is(err, ledger.ErrNotStoring) && errors.Is(err, revocation.ErrUnavailable) && errors.Is(l.Status().Problem, ledger.ErrNotStoring) &&
			strings.Contains(out.String(), ledger.ErrNotStoring.Error())
	})
	free()
	srv.Stop()
	srv.Start()
	eventually(t, "stores again", func() bool {
		_, err := l.PublishRevocation(t.Context(), revoke("after"))
		return err == nil && l.Status().Usable
	})
	s := newSink()
	f := l.Follow(s, ledger.Observer{})
	defer f.Stop()
	eventually(t, "replayed", func() bool { return f.State().InSync && s.has("after") })
	mustHold(t, s, append(acknowledged, "after"))
}
