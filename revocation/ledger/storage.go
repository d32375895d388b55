package ledger

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	// storageProbe is how much must fit onto the disk before a store that broke
	// is tried again: a server that runs out of space while it starts is worse.
	storageProbe      = 4 << 20
	storageFirstRetry = time.Second
	storageLastRetry  = 15 * time.Second
	probeFile         = "token-revocation.probe"
	// leastUnstored is how many attempts in a row have to time out.
	leastUnstored = 3
)

// said hears what the embedded server reports as an error. After an error of
// writing, a server's stream takes nothing any more until it is started again,
// and tells nobody but its log: publishing only times out.
func (em *embedded) said(text string) {
	if !strings.Contains(strings.ToLower(text), "critical write error") {
		return
	}
	reason := text[strings.LastIndex(text, ":")+1:]
	em.mu.Lock()
	defer em.mu.Unlock()
	em.faults++
	em.broken = fmt.Errorf("%w to %s:%s; free space there, the rest happens by itself", ErrStorage, em.dir, reason)
	select {
	case em.failed <- struct{}{}:
	default:
	}
}

// storage returns why the store takes nothing, or nil.
func (em *embedded) storage() error {
	em.mu.Lock()
	defer em.mu.Unlock()
	return em.broken
}

// tendStore starts the embedded server again, in place, once a store that broke
// can be written. Edges that are connected to it reconnect; nothing that was
// acknowledged is lost.
func (l *Ledger) tendStore() {
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-l.embedded.failed:
		}
		problem := l.embedded.storage()
		if problem == nil {
			continue // it was started again since
		}
		l.log.Error("the embedded ledger takes no revocations", "error", problem)
		l.changed.fire()
		for wait := storageFirstRetry; l.ctx.Err() == nil; wait = min(2*wait, storageLastRetry) {
			select {
			case <-l.ctx.Done():
				return
			case <-time.After(wait):
			}
			if err := l.embedded.writable(); err != nil {
				l.log.Debug("the embedded ledger still can't write", "error", err)
				continue
			}
			if err := l.embedded.restart(); err != nil {
				l.log.Error("the embedded ledger could not be started again", "error", err)
				continue
			}
			break
		}
		if l.embedded.storage() == nil {
			l.log.Info("started the embedded ledger again: its disk can be written")
			l.suspect()
			l.changed.fire()
		}
	}
}

// writable tries whether the disk takes a few megabytes.
func (em *embedded) writable() (err error) {
	name := filepath.Join(em.dir, probeFile)
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("probing the ledger's disk: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(name)) }()
	block := make([]byte, 1<<20)
	for range storageProbe / len(block) {
		if _, err := f.Write(block); err != nil {
			return fmt.Errorf("probing the ledger's disk: %w", err)
		}
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("probing the ledger's disk: %w", err)
	}
	return nil
}

// restart starts a new server on the store of the present one.
func (em *embedded) restart() error {
	em.stop()
	em.mu.Lock()
	before := em.faults
	em.mu.Unlock()
	s, err := em.launch()
	if err != nil {
		return err
	}
	em.mu.Lock()
	defer em.mu.Unlock()
	em.server = s
	if em.faults != before {
		return em.broken // the disk was full again before it was ready
	}
	em.broken = nil
	return nil
}

// timedOut counts an attempt to publish that was not answered although the
// connection holds.
func (l *Ledger) timedOut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.unstored == 0 {
		l.unstoredSince = l.now()
	}
	l.unstored++
}

// storedOne takes that the server has acknowledged the message id.
func (l *Ledger) storedOne(sequence uint64, id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen != nil && (sequence > l.acked.sequence || !l.seen.created.Equal(l.acked.created)) {
		l.acked = acknowledged{created: l.seen.created, sequence: sequence, id: id}
	}
	if l.unstored > 0 && l.notStoringLogged {
		l.log.Info("the ledger's server stores again")
	}
	l.unstored, l.notStoringLogged = 0, false
}

// notStoring returns ErrNotStoring if the server has answered since attempts to
// publish began to time out. It is a hint for people: publishing goes on trying.
func (l *Ledger) notStoring() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.unstored < leastUnstored || l.problem != nil || l.seen == nil || l.seen.asked.Before(l.unstoredSince) {
		return nil
	}
	if !l.notStoringLogged {
		l.notStoringLogged = true
		l.log.Error("the revocation ledger takes no revocations", "error", ErrNotStoring)
	}
	return ErrNotStoring
}
