//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// natsServer is a nats-server process: a real one, so that it can be killed,
// stopped and continued. It keeps its ports and its store while it is down.
type natsServer struct {
	t       testing.TB
	name    string
	addr    string // of clients, host:port
	routes  string // of the cluster's other members
	monitor string
	dir     string // where the store is
	config  string // file
	sync    string // how often writes are forced to disk, "always" for each
	logs    *logs
	process *process
}

// natsProgram builds nats-server once per test run, at the version that go.mod
// names, into a directory that TestMain removes.
var natsProgram = sync.OnceValues(func() (string, error) {
	program := filepath.Join(programs, "nats-server")
	build := exec.Command("go", "build", "-o", program, "github.com/nats-io/nats-server/v2")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", build, err, out)
	}
	return program, nil
})

// newNATSServer prepares a server with JetStream and a store below dir, and
// starts nothing.
func newNATSServer(t testing.TB, name, dir string) *natsServer {
	t.Helper()
	s := &natsServer{
		t: t, name: name, dir: filepath.Join(dir, "jetstream"),
		addr:    fmt.Sprintf("127.0.0.1:%d", revocationtest.FreePort(t)),
		routes:  fmt.Sprintf("127.0.0.1:%d", revocationtest.FreePort(t)),
		monitor: fmt.Sprintf("127.0.0.1:%d", revocationtest.FreePort(t)),
		config:  filepath.Join(t.TempDir(), "nats.conf"),
		sync:    "2m", // the default: nothing here takes away the power
		logs:    newLogs(t, name),
	}
	s.configure("")
	return s
}

// configure writes the configuration. Settings are further lines of it.
func (s *natsServer) configure(settings string) {
	s.t.Helper()
	config := fmt.Sprintf("server_name: %s\nlisten: %s\nhttp: %s\n"+
		"jetstream { store_dir: %q, max_memory_store: 64MB, max_file_store: 4GB, sync_interval: %s }\n%s\n",
		s.name, s.addr, s.monitor, s.dir, s.sync, settings)
	if err := os.WriteFile(s.config, []byte(config), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// startNATSServer starts a single server and waits until it is ready.
func startNATSServer(t testing.TB) *natsServer {
	t.Helper()
	s := newNATSServer(t, "nats", t.TempDir())
	s.start()
	return s
}

// begin starts the server and waits for nothing.
func (s *natsServer) begin() {
	s.t.Helper()
	program, err := natsProgram()
	if err != nil {
		s.t.Fatal(err)
	}
	s.process = start(s.t, s.name, s.logs, filepath.Dir(s.config), nil, program, "--config", s.config)
	// A test that fails may leave it stopped, deaf to everything but this.
	s.t.Cleanup(func() { s.process.signal(syscall.SIGCONT) })
}

func (s *natsServer) start() {
	s.t.Helper()
	s.begin()
	s.waitReady()
}

// waitReady waits until the server says that it is healthy: its streams are
// recovered, and in a cluster caught up.
func (s *natsServer) waitReady() {
	s.t.Helper()
	eventually(s.t, startDeadline, s.name+" is healthy", func() (bool, string) {
		if s.process.ended() {
			s.t.Fatalf("%s ended: %s", s.name, s.process.cmd.ProcessState)
		}
		var health struct {
			Status string `json:"status"`
			Error  string `json:"error"`
		}
		err := s.ask("/healthz", &health)
		return err == nil && health.Status == "ok", fmt.Sprint(health, err)
	})
}

// ask reads a page of the server's monitoring port.
func (s *natsServer) ask(path string, into any) error {
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Get("http://" + s.monitor + path)
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(into)
}

// connections returns how many clients are connected.
func (s *natsServer) connections() int {
	s.t.Helper()
	var page struct {
		Connections int `json:"num_connections"`
	}
	if err := s.ask("/connz", &page); err != nil {
		s.t.Fatalf("asking %s for its connections: %v", s.name, err)
	}
	return page.Connections
}

// jetStream connects to the server as a program of the operator's would.
func (s *natsServer) jetStream() jetstream.JetStream {
	s.t.Helper()
	nc, err := nats.Connect("nats://"+s.addr, nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond))
	if err != nil {
		s.t.Fatalf("connecting to %s: %v", s.name, err)
	}
	s.t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		s.t.Fatal(err)
	}
	return js
}

// cluster is a number of servers that keep one stream together.
type cluster []*natsServer

// startCluster starts n servers and waits until they have elected a leader.
func startCluster(t testing.TB, n int) cluster {
	t.Helper()
	c := make(cluster, n)
	for i := range c {
		c[i] = newNATSServer(t, fmt.Sprintf("nats-%d", i+1), t.TempDir())
	}
	routes := make([]string, n)
	for i, s := range c {
		routes[i] = "nats-route://" + s.routes
	}
	for _, s := range c {
		s.configure(fmt.Sprintf("cluster { name: fleet, listen: %q, routes: [%s] }", s.routes, strings.Join(routes, ", ")))
		s.begin()
	}
	for _, s := range c {
		s.waitReady()
	}
	return c
}

// urls returns the addresses of all members, as a config names them.
func (c cluster) urls() string {
	var urls []string
	for _, s := range c {
		urls = append(urls, "nats://"+s.addr)
	}
	return strings.Join(urls, " ")
}

// leader returns the member that leads the ledger's stream.
func (c cluster) leader() *natsServer {
	c[0].t.Helper()
	var leader *natsServer
	eventually(c[0].t, startDeadline, "the stream has a leader", func() (bool, string) {
		var seen []string
		for _, s := range c {
			if s.process.ended() {
				continue
			}
			var page struct {
				Accounts []struct {
					Streams []struct {
						Cluster struct {
							Leader string `json:"leader"`
						} `json:"cluster"`
					} `json:"stream_detail"`
				} `json:"account_details"`
			}
			if err := s.ask("/jsz?streams=true", &page); err != nil {
				seen = append(seen, err.Error())
				continue
			}
			for _, a := range page.Accounts {
				for _, stream := range a.Streams {
					seen = append(seen, s.name+": "+stream.Cluster.Leader)
					if stream.Cluster.Leader == s.name {
						leader = s
					}
				}
			}
		}
		return leader != nil, strings.Join(seen, "; ")
	})
	return leader
}
