package caddymodule

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/edge-revocation/caddy-token-revocation/revocation/ledger"
)

// LedgerConfig says where revocations are kept. By default that is a NATS
// server embedded in this process, which stores them in Caddy's data directory
// and listens nowhere.
type LedgerConfig struct {
	// The name of the JetStream stream. Default: TOKEN_REVOCATIONS.
	Stream string `json:"stream,omitempty"`

	// The NATS server inside this process. This is the default; it can't be
	// combined with nats.
	Embedded *EmbeddedConfig `json:"embedded,omitempty"`

	// A NATS server or cluster elsewhere, shared by the fleet.
	NATS *NATSConfig `json:"nats,omitempty"`

	// What this edge calls itself in heartbeats. Default: a random name per
	// process.
	Edge string `json:"edge,omitempty"`

	// The largest size of the ledger, in bytes. At 90 % of it, revocations by
	// clients are refused; the rest is for operators. Default: 1 GiB.
	MaxBytes int64 `json:"max_bytes,omitempty"`

	// How often the fleet proves to itself that the ledger is reachable. Every
	// edge must use the same value. Default: 2s.
	Heartbeat caddy.Duration `json:"heartbeat,omitempty"`

	// How far the clocks of edges and NATS servers may be apart: entries stay
	// in the ledger for this much longer. Default: 10m.
	MaxClockSkew caddy.Duration `json:"max_clock_skew,omitempty"`
}

// EmbeddedConfig is a NATS server inside this process. The settings of a running
// store can't be changed by a config reload: restart Caddy for that.
type EmbeddedConfig struct {
	// The directory that holds the ledger; one process at a time may use it.
	// Default: token_revocation/ledger in Caddy's data directory.
	StoreDir string `json:"store_dir,omitempty"`

	// The address on which other edges reach this server, for example
	// 127.0.0.1:4222. Beyond loopback, tls_certificate and users are required.
	// Default: none; this edge is then standalone, and no other edge sees its
	// revocations.
	Listen string `json:"listen,omitempty"`

	// Who may connect, and as what. Without users, everyone who reaches a
	// loopback listener may do everything.
	Users []UserConfig `json:"users,omitempty"`

	// PEM files of the listener's certificate chain and key.
	TLSCertificate string `json:"tls_certificate,omitempty"`
	TLSKey         string `json:"tls_key,omitempty"`

	// PEM file of the CAs whose client certificates are demanded. Default: no
	// client certificate is asked for.
	TLSClientCA string `json:"tls_client_ca,omitempty"`

	// How often the store is synced to disk. 0, the default, syncs every write
	// before it is acknowledged, so that an acknowledged revocation survives
	// power loss. A longer interval is faster and gives that up; a killed
	// process loses nothing either way.
	SyncInterval caddy.Duration `json:"sync_interval,omitempty"`
}

// UserConfig is someone who may connect to the embedded server.
type UserConfig struct {
	// Letters, digits, - and _.
	Name string `json:"name,omitempty"`

	// The password, in clear, as a bcrypt hash, or as a placeholder such as
	// {env.EDGE_PASSWORD} or {file./run/secrets/edge}.
	Password string `json:"password,omitempty"`

	// The public nkey (U…), instead of a password.
	NKey string `json:"nkey,omitempty"`

	// What the user may do. edge: follow the ledger, and write nothing.
	// producer: write revocations, and read nothing. publisher: both, as an
	// edge does that serves a revocation endpoint. operator: also initialise
	// the ledger and change its settings. Default: publisher.
	Role string `json:"role,omitempty"`
}

// NATSConfig is a connection to a NATS server or cluster. Every string may be
// a placeholder.
type NATSConfig struct {
	// The servers' URLs: nats://host:port or tls://host:port.
	URLs []string `json:"urls,omitempty"`

	// Create the stream if there is none. Without it, a missing stream is an
	// error: an edge must not start an empty ledger of its own by mistake.
	Create bool `json:"create,omitempty"`

	// The number of replicas of a stream that is created. Default: 1; use 3 on
	// a cluster.
	Replicas int `json:"replicas,omitempty"`

	// A NATS credentials file (JWT and nkey seed).
	Credentials string `json:"credentials,omitempty"`

	// A file that holds an nkey seed.
	NKey string `json:"nkey,omitempty"`

	User     string `json:"user,omitempty"`
	Password string `json:"password,omitempty"`
	Token    string `json:"token,omitempty"`

	// PEM file of the CAs that the servers' certificates are checked with.
	// Default: the system's.
	TLSCA string `json:"tls_ca,omitempty"`

	// PEM files of this edge's client certificate and key.
	TLSCertificate string `json:"tls_certificate,omitempty"`
	TLSKey         string `json:"tls_key,omitempty"`

	// The name that the servers' certificates must have. Default: the host of
	// the URL.
	TLSServerName string `json:"tls_server_name,omitempty"`

	// The prefix of reply subjects, if the user's permissions limit them.
	InboxPrefix string `json:"inbox_prefix,omitempty"`
}

// defaultDataDir is where everything is kept that has no place of its own.
func defaultDataDir() string {
	return filepath.Join(caddy.AppDataDir(), "token_revocation")
}

// resolvedLedger is a ledger config with defaults filled in and placeholders
// replaced: it holds secrets, and is never encoded but to be hashed.
type resolvedLedger struct {
	LedgerConfig
	// key identifies the running ledger that is asked for: an embedded one by
	// its directory, a connection by all that it is made of.
	key string
	// digest tells two configs of one key apart.
	digest string
}

func (c *LedgerConfig) resolve(repl *caddy.Replacer) (*resolvedLedger, error) {
	r := &resolvedLedger{}
	if c != nil {
		r.LedgerConfig = *c
	}
	if r.Embedded != nil && r.NATS != nil {
		return nil, errors.New("a ledger is either embedded or reached by nats, not both: remove one of them")
	}
	if r.NATS != nil {
		if err := r.resolveNATS(repl); err != nil {
			return nil, err
		}
		r.digest = r.hash()
		r.key = "nats " + r.digest
		return r, nil
	}
	if err := r.resolveEmbedded(repl); err != nil {
		return nil, err
	}
	r.digest = r.hash()
	r.key = "embedded " + r.Embedded.StoreDir
	return r, nil
}

func (c *LedgerConfig) resolveEmbedded(repl *caddy.Replacer) error {
	var e EmbeddedConfig
	if c.Embedded != nil {
		e = *c.Embedded
	}
	err := replaceAll(repl, &e.StoreDir, &e.Listen, &e.TLSCertificate, &e.TLSKey, &e.TLSClientCA)
	if err != nil {
		return err
	}
	if e.StoreDir == "" {
		e.StoreDir = filepath.Join(defaultDataDir(), "ledger")
	}
	if e.StoreDir, err = filepath.Abs(e.StoreDir); err != nil {
		return fmt.Errorf("resolving the ledger's directory: %w", err)
	}
	e.Users = slices.Clone(e.Users)
	for i := range e.Users {
		u := &e.Users[i]
		if err := replaceAll(repl, &u.Name, &u.Password, &u.NKey); err != nil {
			return err
		}
		if u.Role == "" {
			u.Role = string(ledger.RolePublisher)
		}
	}
	c.Embedded = &e
	return nil
}

func (c *LedgerConfig) resolveNATS(repl *caddy.Replacer) error {
	n := *c.NATS
	n.URLs = slices.Clone(n.URLs)
	for i := range n.URLs {
		if err := replaceAll(repl, &n.URLs[i]); err != nil {
			return err
		}
	}
	c.NATS = &n
	if len(n.URLs) == 0 {
		return errors.New("nats needs at least one server URL, for example nats://nats.internal:4222")
	}
	return replaceAll(repl, &n.Credentials, &n.NKey, &n.User, &n.Password, &n.Token,
		&n.TLSCA, &n.TLSCertificate, &n.TLSKey, &n.TLSServerName, &n.InboxPrefix)
}

// replaceAll resolves placeholders in place. A placeholder that is unknown or
// empty is an error: an empty password must not come from a misspelt variable.
func replaceAll(repl *caddy.Replacer, fields ...*string) error {
	for _, field := range fields {
		if *field == "" {
			continue
		}
		value, err := repl.ReplaceOrErr(*field, true, true)
		if err != nil {
			return fmt.Errorf("resolving a placeholder: %w", err)
		}
		*field = value
	}
	return nil
}

// hash covers the contents of the files too: a credentials file that was
// replaced makes a new connection.
func (c *LedgerConfig) hash() string {
	h := sha256.New()
	_ = json.NewEncoder(h).Encode(c)
	if n := c.NATS; n != nil {
		for _, name := range []string{n.Credentials, n.NKey, n.TLSCA, n.TLSCertificate, n.TLSKey} {
			content, _ := os.ReadFile(name) // a missing file is reported when it is used
			sum := sha256.Sum256(content)
			h.Write(sum[:])
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// place says which ledger this is: the stream, and its servers or its directory.
// It is logged and written to files: passwords in URLs are left out, so that
// changing them does not make another place either.
func (c *LedgerConfig) place() string {
	if c.Embedded != nil {
		return fmt.Sprintf("embedded %s %q", c.stream(), c.Embedded.StoreDir)
	}
	return fmt.Sprintf("nats %s %q", c.stream(), slices.Sorted(slices.Values(c.servers())))
}

// withoutUser removes name and password, or a token, from a server's URL.
func withoutUser(server string) string {
	scheme, rest, found := strings.Cut(server, "://")
	if !found {
		scheme, rest = "", server
	} else {
		scheme += "://"
	}
	return scheme + rest[strings.LastIndexByte(rest, '@')+1:]
}

// checkpointFile is where a denylist that follows this ledger is kept across
// restarts: one file per ledger, so that edges of different ledgers can share a
// data directory.
func (c *LedgerConfig) checkpointFile() string {
	sum := sha256.Sum256([]byte(c.place()))
	return filepath.Join(defaultDataDir(), "checkpoints", hex.EncodeToString(sum[:8])+".checkpoint")
}

// servers are the addresses that the ledger is reached at, without names and
// passwords, or its directory.
func (c *LedgerConfig) servers() []string {
	if c.Embedded != nil {
		return []string{c.Embedded.StoreDir}
	}
	var servers []string
	for _, list := range c.NATS.URLs {
		for server := range strings.SplitSeq(list, ",") { // as the client reads it
			servers = append(servers, withoutUser(strings.TrimSpace(server)))
		}
	}
	return servers
}

func (c *LedgerConfig) stream() string {
	if c.Stream == "" {
		return ledger.DefaultStream
	}
	return c.Stream
}

// options translates a resolved config.
func (c *LedgerConfig) options() (ledger.Options, error) {
	o := ledger.Options{
		Stream:            c.stream(),
		Edge:              c.Edge,
		MaxBytes:          c.MaxBytes,
		HeartbeatInterval: time.Duration(c.Heartbeat),
		MaxClockSkew:      time.Duration(c.MaxClockSkew),
		Logger:            processLogger("ledger"),
	}
	if e := c.Embedded; e != nil {
		tlsConfig, err := serverTLS(e)
		if err != nil {
			return o, err
		}
		o.Embedded = &ledger.EmbeddedOptions{
			StoreDir:     e.StoreDir,
			Listen:       e.Listen,
			TLS:          tlsConfig,
			SyncInterval: time.Duration(e.SyncInterval),
		}
		for _, u := range e.Users {
			o.Embedded.Users = append(o.Embedded.Users, ledger.User{
				Name: u.Name, Password: u.Password, NKey: u.NKey, Role: ledger.Role(u.Role),
			})
		}
		return o, nil
	}
	n := c.NATS
	tlsConfig, err := clientTLS(n)
	if err != nil {
		return o, err
	}
	o.External = &ledger.ExternalOptions{
		URLs:            n.URLs,
		Create:          n.Create,
		Replicas:        n.Replicas,
		CredentialsFile: n.Credentials,
		NKeySeedFile:    n.NKey,
		User:            n.User,
		Password:        n.Password,
		Token:           n.Token,
		InboxPrefix:     n.InboxPrefix,
		TLS:             tlsConfig,
	}
	return o, nil
}

func serverTLS(e *EmbeddedConfig) (*tls.Config, error) {
	if e.TLSCertificate == "" && e.TLSKey == "" {
		if e.TLSClientCA != "" {
			return nil, errors.New("tls_client_ca needs a certificate of the listener too: add tls <certificate> <key>")
		}
		return nil, nil
	}
	load := func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		cert, err := tls.LoadX509KeyPair(e.TLSCertificate, e.TLSKey)
		if err != nil {
			return nil, fmt.Errorf("loading the ledger listener's certificate: %w", err)
		}
		return &cert, nil
	}
	if _, err := load(nil); err != nil {
		return nil, err
	}
	// Read for each connection, of which there are few: a renewed certificate
	// needs no restart.
	config := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: load}
	if e.TLSClientCA != "" {
		pool, err := loadPool(e.TLSClientCA)
		if err != nil {
			return nil, err
		}
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, pool
	}
	return config, nil
}

func clientTLS(n *NATSConfig) (*tls.Config, error) {
	if n.TLSCA == "" && n.TLSCertificate == "" && n.TLSKey == "" && n.TLSServerName == "" {
		return nil, nil // tls:// URLs use the system's CAs
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: n.TLSServerName}
	if n.TLSCertificate != "" || n.TLSKey != "" {
		cert, err := tls.LoadX509KeyPair(n.TLSCertificate, n.TLSKey)
		if err != nil {
			return nil, fmt.Errorf("loading the client certificate for nats: %w", err)
		}
		config.Certificates = []tls.Certificate{cert}
	}
	if n.TLSCA != "" {
		pool, err := loadPool(n.TLSCA)
		if err != nil {
			return nil, err
		}
		config.RootCAs = pool
	}
	return config, nil
}

func loadPool(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("loading certificate authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("loading certificate authorities: %s holds no PEM certificate", file)
	}
	return pool, nil
}

// standalone tells whether no other edge can see this ledger.
func (c *LedgerConfig) standalone() bool {
	return c.Embedded != nil && c.Embedded.Listen == ""
}

// onLoopback tells whether address ("host:port") is reachable from this machine
// only.
func onLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
