package revocationtest

import (
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// NATS is a real NATS server in this process that listens on a loopback port,
// for tests that need the ledger's server to be another one than the embedded.
// It keeps its port and its store while it is stopped.
type NATS struct {
	tb        testing.TB
	configure func(*server.Options)

	mu     sync.Mutex
	server *server.Server
	dir    string
	port   int
}

// StartNATS starts a server with JetStream on a store below tb.TempDir, and
// stops it when the test ends. Each configure function may change its options.
func StartNATS(tb testing.TB, configure ...func(*server.Options)) *NATS {
	tb.Helper()
	n := &NATS{
		tb:  tb,
		dir: tb.TempDir(),
		configure: func(o *server.Options) {
			for _, c := range configure {
				c(o)
			}
		},
	}
	n.port = server.RANDOM_PORT
	n.Start()
	tb.Cleanup(n.Stop)
	return n
}

// Start starts the server again, on the same port and store.
func (n *NATS) Start() {
	n.tb.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	o := &server.Options{
		ServerName:             "revocationtest",
		Host:                   "127.0.0.1",
		Port:                   n.port,
		NoSigs:                 true,
		NoLog:                  true,
		DisableJetStreamBanner: true,
		JetStream:              true,
		StoreDir:               n.dir,
		JetStreamMaxMemory:     64 << 20,
		JetStreamMaxStore:      4 << 30,
	}
	n.configure(o)
	s, err := server.NewServer(o)
	if err != nil {
		n.tb.Fatalf("configuring the NATS server: %v", err)
	}
	s.Start()
	if !s.ReadyForConnections(20 * time.Second) {
		n.tb.Fatal("the NATS server is not ready")
	}
	if addr, ok := s.Addr().(*net.TCPAddr); ok {
		n.port = addr.Port
	}
	n.server = s
}

// Stop stops the server. Its clients lose their connections.
func (n *NATS) Stop() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.server == nil {
		return
	}
	n.server.Shutdown()
	n.server.WaitForShutdown()
	n.server = nil
}

// Addr returns "127.0.0.1:port".
func (n *NATS) Addr() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(n.port))
}

// URL returns "nats://127.0.0.1:port".
func (n *NATS) URL() string { return "nats://" + n.Addr() }

// StoreDir returns the directory of the server's store.
func (n *NATS) StoreDir() string { return n.dir }
