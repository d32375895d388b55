package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
)

func init() {
	caddy.RegisterModule(new(ClientFile))
}

// clientFilePoll is how often a clients file is looked at. The time, the size and
// the identity of the file are compared: a rename onto it, as Kubernetes and
// editors do, is seen as well.
const clientFilePoll = caddy.Duration(2 * time.Second)

// maxClientFile bounds a clients file, in bytes.
const maxClientFile = 64 << 20

// ClientFile reads clients from a JSON file and watches it: a client that is
// added, changed or removed counts a few seconds later, without a reload.
//
// The file is an object with the member clients, a list of clients as in the
// configuration:
//
//	{"clients": [
//		{"id": "app", "issuer": "https://sso.example.com", "public": true},
//		{"id": "service", "issuer": "https://sso.example.com", "secrets": ["{env.SERVICE_SECRET_HASH}"]}
//	]}
//
// Members that are not known, names that occur twice, and a client that is
// given elsewhere as well are errors. When the config is loaded, an error in the
// file is one of the config. Later, a file that is broken or missing changes
// nothing: the last good one stays in use, and log, status and metrics say so.
type ClientFile struct {
	// The path of the file.
	Path string `json:"path"`

	// How often the file is looked at. Default: 2s.
	PollInterval caddy.Duration `json:"poll_interval,omitempty"`

	app    *App
	logger *zap.Logger
	layer  *clientLayer

	// Of one goroutine: first of the one that provisions, then of the watcher.
	seen os.FileInfo // nil if there was no file
	keys *keyHolder

	mu      sync.Mutex
	loaded  time.Time
	problem error

	started bool
	stop    chan struct{}
	done    chan struct{}
}

// clientFileStatus is what operators see of a clients file.
type clientFileStatus struct {
	File    string    `json:"file"`
	Clients int       `json:"clients"`
	Loaded  time.Time `json:"loaded"`
	// Error is why the newest version of the file is not in use.
	Error string `json:"error,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (*ClientFile) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  clientSources + ".file",
		New: func() caddy.Module { return new(ClientFile) },
	}
}

// Provision resolves the path.
func (f *ClientFile) Provision(ctx caddy.Context) error {
	f.logger = ctx.Logger()
	if f.PollInterval < 0 {
		return errors.New("clients file: the poll interval must not be negative")
	}
	if f.PollInterval == 0 {
		f.PollInterval = clientFilePoll
	}
	f.keys = new(keyHolder)
	if err := replaceAll(caddy.NewReplacer(), &f.Path); err != nil {
		return fmt.Errorf("clients file: %w", err)
	}
	if f.Path == "" {
		return errors.New("clients file: the path is missing")
	}
	path, err := filepath.Abs(f.Path)
	if err != nil {
		return fmt.Errorf("clients file: %w", err)
	}
	f.Path = path
	return nil
}

// bind reads the file for the first time.
func (f *ClientFile) bind(a *App) error {
	f.app = a
	f.layer = &clientLayer{name: f.Path}
	if err := f.read(); err != nil {
		return fmt.Errorf("clients file %s: %w", f.Path, err)
	}
	if currentApp() != nil {
		f.keys.start()
	}
	return nil
}

// Start begins to watch the file.
func (f *ClientFile) Start() error {
	f.keys.start()
	f.stop, f.done = make(chan struct{}), make(chan struct{})
	f.started = true
	go f.watch()
	return nil
}

// Cleanup ends the watching.
func (f *ClientFile) Cleanup() error {
	if f.started {
		close(f.stop)
		<-f.done
		f.started = false
	}
	if f.keys == nil {
		return nil
	}
	return f.keys.release()
}

func (f *ClientFile) watch() {
	defer close(f.done)
	ticker := time.NewTicker(time.Duration(f.PollInterval))
	defer ticker.Stop()
	for {
		select {
		case <-f.stop:
			return
		case <-ticker.C:
			f.check()
		}
	}
}

// check reads the file again if it has changed since it was read last, whether
// that succeeded or not: one message for each version of it.
func (f *ClientFile) check() {
	info, err := os.Stat(f.Path)
	switch {
	case err != nil && f.seen == nil:
		return // still missing
	case err == nil && f.seen != nil && os.SameFile(f.seen, info) &&
		f.seen.ModTime().Equal(info.ModTime()) && f.seen.Size() == info.Size():
		return
	}
	if err := f.read(); err != nil {
		f.logger.Error("clients file refused; the last good one stays in use", zap.String("file", f.Path), zap.Error(err))
		return
	}
	f.keys.start()
	f.logger.Info("clients file loaded", zap.String("file", f.Path), zap.Int("clients", f.status().Clients))
}

// read puts the clients of the file in the place of those before. On an error
// these stay.
func (f *ClientFile) read() error {
	keys := new(keyHolder)
	err := f.readInto(keys)
	f.mu.Lock()
	f.problem = err
	if err == nil {
		f.loaded = time.Now()
	}
	f.mu.Unlock()
	if err != nil {
		return errors.Join(err, keys.release())
	}
	// The new references were taken first: keys that are in both stay loaded.
	before := f.keys
	f.keys = keys
	return before.release()
}

func (f *ClientFile) readInto(keys *keyHolder) error {
	text, err := f.contents()
	if err != nil {
		return err
	}
	entries, err := parseClientFile(text)
	if err != nil {
		return err
	}
	repl := caddy.NewReplacer()
	clients := make([]*oauth.Client, 0, len(entries))
	for i := range entries {
		client, err := f.app.client(&entries[i].ClientConfig, repl, keys)
		if err != nil {
			return fmt.Errorf("%s: client %q: %w", entries[i].at, entries[i].ID, err)
		}
		clients = append(clients, client)
	}
	return f.app.registry.replace(f.layer, clients)
}

// contents reads the file, and notes which version of it that was.
func (f *ClientFile) contents() ([]byte, error) {
	f.seen = nil
	file, err := os.Open(f.Path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	// Before it is read: a change meanwhile is then seen by the next check.
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	f.seen = info
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	text, err := io.ReadAll(io.LimitReader(file, maxClientFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxClientFile {
		return nil, fmt.Errorf("it is longer than %d bytes", maxClientFile)
	}
	return text, nil
}

func (f *ClientFile) status() clientFileStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := clientFileStatus{File: f.Path, Clients: f.app.registry.count(f.layer), Loaded: f.loaded}
	if f.problem != nil {
		s.Error = f.problem.Error()
	}
	return s
}

// Client implements [ClientSource], although the registry does not ask: it has
// the clients of the file in its list.
func (f *ClientFile) Client(ctx context.Context, id string) (*oauth.Client, error) {
	return f.app.registry.listed.Load().Client(ctx, id)
}

// UnmarshalCaddyfile parses the source. Syntax:
//
//	clients file <path> [<poll_interval>]
func (f *ClientFile) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the name of the source
	args := d.RemainingArgs()
	if len(args) < 1 || len(args) > 2 || args[0] == "" {
		return d.ArgErr()
	}
	f.Path = args[0]
	if len(args) == 2 {
		interval, err := caddy.ParseDuration(args[1])
		if err != nil || interval <= 0 {
			return d.Errf("clients file: %q is no positive duration such as 10s", args[1])
		}
		f.PollInterval = caddy.Duration(interval)
	}
	if d.NextBlock(d.Nesting()) {
		return d.Err("clients file: it has no block")
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner     = (*ClientFile)(nil)
	_ caddy.CleanerUpper    = (*ClientFile)(nil)
	_ caddyfile.Unmarshaler = (*ClientFile)(nil)
	_ ClientSourceStarter   = (*ClientFile)(nil)
	_ listedSource          = (*ClientFile)(nil)
)
