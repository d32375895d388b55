package ledger

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"github.com/nats-io/nats-server/v2/server"
	"golang.org/x/crypto/bcrypt"
)

const (
	lockFile        = "token-revocation.lock"
	embeddedMemory  = 64 << 20 // consumers live there
	embeddedReserve = 64 << 20 // room on disk beyond the stream itself
	startTimeout    = 30 * time.Second
	maxUsers        = 10000
)

// embedded is a NATS server in this process, and the lock on its store.
type embedded struct {
	dir            string
	lock           *flock.Flock
	log            *slog.Logger
	user, password string // of this process itself, if the server has users
	listen         string // bound address, empty if it doesn't listen

	mu      sync.Mutex
	server  *server.Server // nil if it could not be started again
	options *server.Options
	broken  error         // why the store takes nothing any more
	faults  int           // how often it broke
	failed  chan struct{} // gets a value when it breaks
}

func (e *EmbeddedOptions) validate() error {
	if !filepath.IsAbs(e.StoreDir) {
		return fmt.Errorf("%w: the store directory %q is not an absolute path", ErrOptions, e.StoreDir)
	}
	if e.SyncInterval < 0 {
		return fmt.Errorf("%w: a negative sync interval", ErrOptions)
	}
	if len(e.Users) > maxUsers {
		return fmt.Errorf("%w: more than %d users", ErrOptions, maxUsers)
	}
	names := map[string]bool{}
	for _, u := range e.Users {
		if err := u.validate(); err != nil {
			return err
		}
		for _, key := range []string{u.Name, u.NKey} {
			if key != "" && names[key] {
				return fmt.Errorf("%w: user %s occurs twice", ErrOptions, u.Name)
			}
			names[key] = true
		}
	}
	if e.Listen == "" {
		if len(e.Users) > 0 || e.TLS != nil {
			return fmt.Errorf("%w: users or TLS for a server that does not listen", ErrOptions)
		}
		return nil
	}
	host, _, err := e.address()
	if err != nil {
		return err
	}
	// A user's password and every revocation pass in clear without TLS, and
	// without users everybody can log anyone out.
	if !isLoopback(host) && (e.TLS == nil || len(e.Users) == 0) {
		return fmt.Errorf("%w: listening on %s, which is not loopback, needs TLS and users", ErrOptions, e.Listen)
	}
	return nil
}

func (e *EmbeddedOptions) address() (host string, port int, err error) {
	host, service, err := net.SplitHostPort(e.Listen)
	if err != nil {
		return "", 0, fmt.Errorf("%w: the address to listen on: %w", ErrOptions, err)
	}
	port, err = strconv.Atoi(service)
	if err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("%w: the port %q is not between 0 and 65535", ErrOptions, service)
	}
	if host == "" {
		host = "0.0.0.0"
	}
	return host, port, nil
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// startEmbedded locks the store directory and starts the server on it.
func startEmbedded(o Options) (_ *embedded, err error) {
	e := o.Embedded
	if err := os.MkdirAll(e.StoreDir, 0o700); err != nil {
		return nil, fmt.Errorf("creating the ledger's store directory: %w", err)
	}
	// The server itself has no lock: two of them on one directory both
	// acknowledge, and after a restart what the later one took is gone.
	lock := flock.New(filepath.Join(e.StoreDir, lockFile), flock.SetPermissions(0o600))
	locked, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("locking the ledger's store directory: %w", err)
	}
	if !locked {
		return nil, fmt.Errorf("%w: another process, or another ledger of this process, holds %s", ErrLocked, lock.Path())
	}
	em := &embedded{dir: e.StoreDir, lock: lock, log: o.Logger, failed: make(chan struct{}, 1)}
	defer func() {
		if err != nil {
			err = errors.Join(err, em.close())
		}
	}()
	so, err := em.serverOptions(o)
	if err != nil {
		return nil, err
	}
	em.options = so
	if em.server, err = em.launch(); err != nil {
		return nil, err
	}
	if addr := em.server.Addr(); addr != nil && e.Listen != "" {
		em.listen = addr.String()
		if tcp, ok := addr.(*net.TCPAddr); ok {
			em.options.Port = tcp.Port // where others will look for it
		}
	}
	return em, nil
}

// launch starts a server on the store.
func (em *embedded) launch() (*server.Server, error) {
	s, err := server.NewServer(em.options.Clone())
	if err != nil {
		return nil, fmt.Errorf("configuring the embedded server: %w", err)
	}
	s.SetLoggerV2(serverLog{em.log, em.said}, false, false, false)
	s.Start()
	if !s.ReadyForConnections(startTimeout) || !s.JetStreamEnabled() {
		s.Shutdown()
		s.WaitForShutdown()
		return nil, fmt.Errorf("starting the embedded server on %s: it is not ready, see the log", em.dir)
	}
	return s, nil
}

// InProcessConn implements nats.InProcessConnProvider, with whatever server runs
// at the moment.
func (em *embedded) InProcessConn() (net.Conn, error) {
	em.mu.Lock()
	s := em.server
	em.mu.Unlock()
	if s == nil {
		return nil, ErrStorage
	}
	return s.InProcessConn()
}

func (em *embedded) serverOptions(o Options) (*server.Options, error) {
	e := o.Embedded
	so := &server.Options{
		ServerName:             "token-revocation-" + o.Edge,
		DontListen:             e.Listen == "",
		NoSigs:                 true,
		NoLog:                  true,
		DisableJetStreamBanner: true,
		JetStream:              true,
		StoreDir:               e.StoreDir,
		JetStreamMaxMemory:     embeddedMemory,
		JetStreamMaxStore:      o.MaxBytes + embeddedReserve,
		SyncAlways:             e.SyncInterval == 0,
		SyncInterval:           e.SyncInterval,
		MaxPayload:             MaxPayload + maxHeaders,
	}
	if e.Listen == "" {
		return so, nil
	}
	host, port, err := e.address()
	if err != nil {
		return nil, err
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	so.Host, so.Port = host, port
	if e.TLS != nil {
		so.TLS = true
		so.TLSConfig = e.TLS.Clone()
		so.TLSTimeout = 5
		so.AuthTimeout = 6
	}
	if len(e.Users) == 0 {
		return so, nil
	}
	em.user, em.password = "self-"+randomID(), randomID()+randomID()
	// Hashed, or the server would warn of a password in clear that nobody wrote.
	// The cheapest cost will do for 256 random bits.
	hash, err := bcrypt.GenerateFromPassword([]byte(em.password), bcrypt.MinCost)
	if err != nil {
		return nil, fmt.Errorf("hashing this process's own password: %w", err)
	}
	so.Users = []*server.User{{Username: em.user, Password: string(hash)}}
	for _, u := range e.Users {
		if u.NKey != "" {
			so.Nkeys = append(so.Nkeys, &server.NkeyUser{Nkey: u.NKey, Permissions: u.permissions(o.Stream)})
		} else {
			so.Users = append(so.Users, &server.User{Username: u.Name, Password: u.Password, Permissions: u.permissions(o.Stream)})
		}
	}
	return so, nil
}

// stop stops the server, which may log, and em with it hear, meanwhile.
func (em *embedded) stop() {
	em.mu.Lock()
	s := em.server
	em.server = nil
	em.mu.Unlock()
	if s != nil {
		s.Shutdown()
		s.WaitForShutdown()
	}
}

// close stops the server and releases the lock.
func (em *embedded) close() error {
	em.stop()
	if err := em.lock.Close(); err != nil {
		return fmt.Errorf("unlocking the ledger's store directory: %w", err)
	}
	return nil
}
