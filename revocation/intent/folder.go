package intent

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

// File names. An intent's state is the extension of its file, so that a change of
// state is one rename, which a crash can't leave half done.
const (
	extNew       = ".new"       // being written; nothing was forwarded
	extForwarded = ".forwarded" // the authorization server may have it
	extAccepted  = ".accepted"  // it has said 200

	lockFile      = "lock"
	quarantineDir = "quarantine"
)

// folder is where one process keeps its intents: a directory of its own in a
// common one, locked for as long as the process lives. Others take over what a
// dead process has left.
type folder struct {
	root string // the common directory
	path string // this process's own
	lock *flock.Flock
}

// openFolder makes a directory of our own in root.
func openFolder(root string) (*folder, error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, err
	}
	unlock, err := lockRoot(root)
	if err != nil {
		return nil, err
	}
	defer unlock()
	f := &folder{root: root, path: filepath.Join(root, randomName())}
	if err := os.Mkdir(f.path, 0o700); err != nil {
		return nil, err
	}
	f.lock = flock.New(filepath.Join(f.path, lockFile), flock.SetPermissions(0o600))
	if ok, err := f.lock.TryLock(); err != nil || !ok {
		return nil, fmt.Errorf("locking %s: %w", f.path, errors.Join(err, errors.New("it is in use")))
	}
	return f, syncDir(root)
}

// lockRoot keeps other processes from making and removing directories in root
// meanwhile.
func lockRoot(root string) (unlock func(), err error) {
	l := flock.New(filepath.Join(root, lockFile), flock.SetPermissions(0o600))
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if ok, err := l.TryLockContext(ctx, 10*time.Millisecond); err != nil || !ok {
		_ = l.Close()
		return nil, fmt.Errorf("locking %s: %w", root, err)
	}
	return func() { _ = l.Close() }, nil
}

// close gives the directory up. What is in it, others may take over now; an empty
// one is removed.
func (f *folder) close() error {
	unlock, err := lockRoot(f.root)
	if err != nil {
		return errors.Join(err, f.lock.Close())
	}
	defer unlock()
	if entries, err := os.ReadDir(f.path); err == nil && len(entries) == 1 { // the lock
		_ = os.Remove(filepath.Join(f.path, lockFile))
		_ = os.Remove(f.path)
	}
	return f.lock.Close()
}

// write makes the content durable under the name, without extension, and leaves
// nothing if it fails.
func (f *folder) write(name string, content []byte) error {
	fresh := f.file(name, extNew)
	err := func() error {
		file, err := os.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		if _, err := file.Write(content); err != nil {
			return errors.Join(err, file.Close())
		}
		if err := file.Sync(); err != nil {
			return errors.Join(err, file.Close())
		}
		if err := file.Close(); err != nil {
			return err
		}
		return os.Rename(fresh, f.file(name, extForwarded))
	}()
	if err != nil {
		_ = os.Remove(fresh)
		return err
	}
	if err := syncDir(f.path); err != nil {
		_ = os.Remove(f.file(name, extForwarded))
		return err
	}
	return nil
}

// probe tells whether something can be written.
func (f *folder) probe() error {
	path := f.file(randomName(), extNew)
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(make([]byte, 4096))
	return errors.Join(err, file.Sync(), file.Close(), os.Remove(path))
}

// accept marks an intent as accepted, durably.
func (f *folder) accept(name string) error {
	err := os.Rename(f.file(name, extForwarded), f.file(name, extAccepted))
	if errors.Is(err, fs.ErrNotExist) {
		// Our directory was taken away, by hand perhaps.
		return err
	}
	return errors.Join(err, syncDir(f.path))
}

// remove forgets an intent. That this is not synced is harmless: one that comes
// back after a power failure was forwarded without a known outcome, or is
// recorded once more.
func (f *folder) remove(name string) error {
	err := os.Remove(f.file(name, extForwarded))
	if errors.Is(err, fs.ErrNotExist) {
		err = os.Remove(f.file(name, extAccepted))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (f *folder) file(name, ext string) string { return filepath.Join(f.path, name+ext) }

// found is an intent that another process has left.
type found struct {
	name     string
	accepted bool
	intent   *Intent
}

// takeOver moves what dead processes have left into our directory. Broken files
// are put aside and reported to broken. Errors are reported as well, and end
// nothing: the rest is taken all the same.
func (f *folder) takeOver(broken func(file string, err error)) []found {
	dirs, err := os.ReadDir(f.root)
	if err != nil {
		broken(f.root, err)
		return nil
	}
	others := 0
	for _, d := range dirs {
		if f.isOther(d) {
			others++
		}
	}
	if others == 0 {
		return nil
	}
	unlock, err := lockRoot(f.root)
	if err != nil {
		broken(f.root, err)
		return nil
	}
	defer unlock()
	var all []found
	for _, d := range dirs {
		if f.isOther(d) {
			all = append(all, f.take(filepath.Join(f.root, d.Name()), broken)...)
		}
	}
	return all
}

func (f *folder) isOther(d fs.DirEntry) bool {
	return d.IsDir() && d.Name() != quarantineDir && d.Name() != filepath.Base(f.path)
}

// take takes over one directory, unless its process lives.
func (f *folder) take(dir string, broken func(string, error)) []found {
	l := flock.New(filepath.Join(dir, lockFile), flock.SetPermissions(0o600))
	if ok, err := l.TryLock(); err != nil || !ok {
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // else it was just removed
			broken(dir, err)
		}
		_ = l.Close()
		return nil
	}
	defer func() { _ = l.Close() }()
	entries, err := os.ReadDir(dir)
	if err != nil {
		broken(dir, err)
		return nil
	}
	var all []found
	for _, e := range entries {
		if e.Name() == lockFile {
			continue
		}
		path := filepath.Join(dir, e.Name())
		item, err := f.takeFile(path, e)
		switch {
		case err != nil && errors.Is(err, errBroken):
			broken(path, err)
			if err := f.quarantine(path); err != nil {
				broken(path, err)
			}
		case err != nil:
			broken(path, err)
		case item != nil:
			all = append(all, *item)
		}
	}
	if err := errors.Join(syncDir(f.path), syncDir(dir)); err != nil {
		broken(dir, err)
	}
	// Only an empty one can be removed.
	_ = os.Remove(filepath.Join(dir, lockFile))
	_ = os.Remove(dir)
	return all
}

// takeFile moves one file into our directory. It returns nil for one that was
// still being written: nothing was forwarded then.
func (f *folder) takeFile(path string, e fs.DirEntry) (*found, error) {
	ext := filepath.Ext(path)
	switch {
	case !e.Type().IsRegular():
		return nil, fmt.Errorf("%w: it is no file", errBroken)
	case ext == extNew:
		return nil, os.Remove(path)
	case ext != extForwarded && ext != extAccepted:
		return nil, fmt.Errorf("%w: it has an unknown extension", errBroken)
	}
	content, err := readFile(path)
	if err != nil {
		return nil, err
	}
	i, err := decode(content)
	if err != nil {
		return nil, err
	}
	item := &found{name: strings.TrimSuffix(filepath.Base(path), ext), accepted: ext == extAccepted, intent: i}
	if _, err := os.Lstat(f.file(item.name, ext)); err == nil {
		item.name = randomName()
	}
	return item, os.Rename(path, f.file(item.name, ext))
}

// quarantine puts a file aside for people to look at.
func (f *folder) quarantine(path string) error {
	dir := filepath.Join(f.root, quarantineDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.Rename(path, filepath.Join(dir, randomName()+"-"+filepath.Base(path)))
}

// setAside quarantines one of our own intents.
func (f *folder) setAside(name string) error {
	for _, ext := range []string{extAccepted, extForwarded} {
		if path := f.file(name, ext); exists(path) {
			return f.quarantine(path)
		}
	}
	return nil
}

// quarantined counts the files that were put aside and are still there.
func (f *folder) quarantined() int {
	entries, _ := os.ReadDir(filepath.Join(f.root, quarantineDir))
	return len(entries)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func readFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	return content, errors.Join(err, file.Close())
}

// syncDir makes renames in a directory durable.
func syncDir(path string) error {
	if runtime.GOOS == "windows" {
		return nil // directories can't be synced there
	}
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func randomName() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}
