//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// A store that can't grow any more must refuse, and keep what it acknowledged. A
// NATS server whose disk was full takes no more writes until it is restarted,
// even when there is space again; the embedded one restarts itself.
func TestFaultFullDiskRefusesAndLosesNothingAcknowledged(t *testing.T) {
	t.Parallel()
	t.Run("nats-server", func(t *testing.T) {
		t.Parallel()
		disk := smallDisk(t)
		server := newNATSServer(t, "nats", disk)
		server.start()
		ledger := following("nats://"+server.addr, 1)
		f := newFleet(t)
		f.add(ledger, beating())
		f.add(ledger, beating())
		fillDiskAndRecover(f, disk, ledger, func() {
			server.process.stop()
			server.start()
		})
	})
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		disk := smallDisk(t)
		f := newFleet(t)
		first := f.add(fmt.Sprintf("embedded %s {\n\t\t\tlisten 127.0.0.1:4222\n\t\t}", filepath.Join(disk, "ledger")), beating())
		ledger := "nats nats://" + first.nats
		f.add(ledger, beating())
		fillDiskAndRecover(f, disk, ledger, func() {})
	})
}

func fillDiskAndRecover(f *fleet, disk, ledger string, restart func()) {
	t := f.t
	t.Helper()
	f.run()
	tokens := f.revokeSome(f.edges[0], 20)

	filler := fillDisk(t, disk)
	refusals := 0
	for attempts := 0; refusals < inForm(8, 64); attempts++ {
		if attempts > 20 {
			t.Fatalf("a full disk takes revocations: %d", len(tokens))
		}
		// Each takes as long as an edge tries: several at a time.
		answers := make(chan string, 8) // the token if acknowledged
		for n := range cap(answers) {
			token := f.token("user")
			go func() {
				a := f.edges[n%len(f.edges)].tryRevoke(token)
				switch a.status {
				case 200:
				case 503:
					token = ""
				default:
					t.Errorf("revoking on a full disk: want 503: %s", a)
					token = ""
				}
				answers <- token
			}()
		}
		for range cap(answers) {
			// What fits into the last page of the file is still acknowledged.
			if token := <-answers; token != "" {
				tokens = append(tokens, token)
			} else {
				refusals++
			}
		}
	}
	t.Logf("the disk full: %d revocations acknowledged so far, %d refused with 503", len(tokens), refusals)
	f.wantAllRefused("while the disk is full", tokens, f.edges...)

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	restart()
	took := eventually(t, startDeadline, "revocations are taken again", func() (bool, string) {
		token := f.token("user")
		a := f.edges[0].tryRevoke(token)
		if a.status == 200 {
			tokens = append(tokens, token)
		}
		return a.status == 200, a.String()
	})
	t.Logf("space is back: revocations are taken again after %s", took.Round(time.Millisecond))
	for _, e := range f.edges {
		e.waitInSync()
	}
	f.waitKnowing()
	for _, e := range f.edges {
		tokens = append(tokens, f.revokeSome(e, 10)...)
	}
	f.waitKnowing()
	f.wantAllRefused("with space again", tokens, f.edges...)
	f.wantHeldByTheLedger(tokens, ledger, beating())
	f.wantNoAlarm()
}

// smallDisk mounts a file system of a few megabytes, for which this must be root.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=16m"); err != nil {
		// A privilege, which no package brings: so this may be skipped in CI too.
		t.Skipf("mounting a small disk: %v", err)
	}
	t.Cleanup(func() {
		// Whatever uses it was stopped by the cleanups before this one.
		eventually(t, 10*time.Second, "the small disk is unmounted", func() (bool, string) {
			err := syscall.Unmount(dir, 0)
			return err == nil, fmt.Sprint(err)
		})
	})
	return dir
}

// fillDisk writes a file until there is no space left, and returns its name.
func fillDisk(t testing.TB, dir string) string {
	t.Helper()
	name := filepath.Join(dir, "filler")
	file, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for size := 64 << 10; size > 0; {
		_, err := file.Write(make([]byte, size))
		switch {
		case errors.Is(err, syscall.ENOSPC):
			size /= 2
		case err != nil:
			t.Fatal(err)
		}
	}
	return name
}
