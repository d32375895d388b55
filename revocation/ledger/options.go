package ledger

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"time"
)

// Defaults of [Options].
const (
	DefaultStream            = "TOKEN_REVOCATIONS"
	DefaultHeartbeatInterval = 2 * time.Second
	DefaultStaleAfter        = 15 * time.Second
	DefaultPublishTimeout    = 2 * time.Second
	DefaultPublishDeadline   = 5 * time.Second
	DefaultMaxClockSkew      = 10 * time.Minute
	DefaultMaxBytes          = 1 << 30
	DefaultMaxPublishing     = 1024
	minMaxBytes              = 1 << 20
)

// Options say where the ledger is and how it is used. Exactly one of Embedded
// and External is set.
type Options struct {
	// Stream is the stream's name. Empty means [DefaultStream].
	Stream   string
	Embedded *EmbeddedOptions
	External *ExternalOptions
	// Edge is this process's name in its heartbeat entries, for people. Empty
	// means a random one.
	Edge string
	// HeartbeatInterval is after how long without any heartbeat entry this
	// edge publishes one. Zero means [DefaultHeartbeatInterval].
	HeartbeatInterval time.Duration
	// StaleAfter is the age from which on an edge does not call itself in sync
	// any more. Zero means [DefaultStaleAfter].
	StaleAfter time.Duration
	// PublishTimeout bounds one attempt to publish, PublishDeadline all
	// attempts together. Zero means [DefaultPublishTimeout] and
	// [DefaultPublishDeadline].
	PublishTimeout  time.Duration
	PublishDeadline time.Duration
	// MaxPublishing bounds how many decisions wait for their acknowledgment at
	// a time; more are refused at once. Zero means [DefaultMaxPublishing].
	MaxPublishing int
	// MaxClockSkew is how far clocks of edges and servers may be apart: entries
	// are stored that much longer than they stand. Zero means
	// [DefaultMaxClockSkew].
	MaxClockSkew time.Duration
	// MaxBytes bounds the stream's size where this process creates it. Zero
	// means [DefaultMaxBytes].
	MaxBytes int64
	// Published, if set, is called after each attempted decision with its kind,
	// how long it took, and its error. It must not block.
	Published func(kind Kind, took time.Duration, err error)
	// Logger is where the ledger logs. Nil means nowhere.
	Logger *slog.Logger
	// Now is the clock. Its readings must carry the monotonic clock, as those
	// of time.Now do. Nil means time.Now.
	Now func() time.Time
}

// EmbeddedOptions describe a NATS server inside this process.
type EmbeddedOptions struct {
	// StoreDir is the absolute path of the directory that holds the ledger. It
	// is created when missing, with access for this user only, and locked:
	// two servers on one directory lose what one of them acknowledged.
	StoreDir string
	// Listen is the address to accept other edges on, "127.0.0.1:4222". Port 0
	// chooses one, see [Status.Listen]. An address that is not loopback needs
	// TLS and Users. Empty: the server does not listen, and this edge stands
	// alone.
	Listen string
	// Users are who may connect. Empty: everybody who reaches the listener.
	Users []User
	// TLS is the listener's configuration. Certificates of clients are asked
	// for as its ClientAuth says.
	TLS *tls.Config
	// SyncInterval is how often writes are forced to disk. Zero: every write,
	// before it is acknowledged. Anything else lets a loss of power (not of
	// the process) take what was acknowledged during that time.
	SyncInterval time.Duration
}

// ExternalOptions describe a NATS server, or a cluster, somewhere else.
type ExternalOptions struct {
	// URLs are the servers: "nats://host:4222", "tls://host:4222". A user and
	// password in a URL count as User and Password.
	URLs []string
	// Create lets this process create the stream if it does not exist.
	Create bool
	// Replicas is how many servers keep the stream, where it is created. Zero
	// means 1.
	Replicas int
	// CredentialsFile is the path of a NATS credentials file (JWT and seed).
	CredentialsFile string
	// NKeySeedFile is the path of a file with an nkey's seed.
	NKeySeedFile string
	User         string
	Password     string
	Token        string
	// InboxPrefix is the prefix of the subjects that answers come to. Users of
	// one account can read each other's answers unless each has its own prefix
	// and may subscribe to nothing else. Empty means "_INBOX_" followed by the
	// user's name or public nkey, where there is one that fits into a subject,
	// else "_INBOX".
	InboxPrefix string
	TLS         *tls.Config
}

// normalize fills in the defaults and reports the first option that makes no
// sense. It does not touch the network.
func (o Options) normalize() (Options, error) {
	setDefault(&o.Stream, DefaultStream)
	setDefault(&o.HeartbeatInterval, DefaultHeartbeatInterval)
	setDefault(&o.StaleAfter, DefaultStaleAfter)
	setDefault(&o.PublishTimeout, DefaultPublishTimeout)
	setDefault(&o.PublishDeadline, DefaultPublishDeadline)
	setDefault(&o.MaxPublishing, DefaultMaxPublishing)
	setDefault(&o.MaxClockSkew, DefaultMaxClockSkew)
	setDefault(&o.MaxBytes, DefaultMaxBytes)
	if o.Edge == "" {
		o.Edge = randomID()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	switch {
	case (o.Embedded == nil) == (o.External == nil):
		return o, fmt.Errorf("%w: either an embedded or an external server", ErrOptions)
	case !isName(o.Stream):
		return o, fmt.Errorf("%w: the stream's name %q has other characters than letters, digits, - and _", ErrOptions, o.Stream)
	case o.HeartbeatInterval < 0 || o.StaleAfter < 0 || o.PublishTimeout < 0 || o.PublishDeadline < 0 || o.MaxClockSkew < 0 || o.MaxPublishing < 0:
		return o, fmt.Errorf("%w: a negative duration or count", ErrOptions)
	case o.HeartbeatInterval > heartbeatTTL/4:
		return o, fmt.Errorf("%w: the heartbeat interval is above %s", ErrOptions, heartbeatTTL/4)
	case o.StaleAfter < 2*o.HeartbeatInterval:
		return o, fmt.Errorf("%w: stale after %s, that is less than two heartbeat intervals", ErrOptions, o.StaleAfter)
	case o.MaxBytes < minMaxBytes:
		return o, fmt.Errorf("%w: the maximum size is below %d bytes", ErrOptions, minMaxBytes)
	case len(o.Edge) > maxEdge:
		return o, fmt.Errorf("%w: the edge's name is longer than %d bytes", ErrOptions, maxEdge)
	}
	if o.Embedded != nil {
		e := *o.Embedded
		o.Embedded = &e
		return o, e.validate()
	}
	e := *o.External
	o.External = &e
	return o, e.normalize()
}

func (e *ExternalOptions) normalize() error {
	if len(e.URLs) == 0 {
		return fmt.Errorf("%w: no server URL", ErrOptions)
	}
	urls := make([]string, len(e.URLs))
	for i, raw := range e.URLs {
		if !strings.Contains(raw, "://") {
			raw = "nats://" + raw
		}
		u, err := url.Parse(raw)
		// The parser's own error quotes the URL, and with it a password.
		if err != nil || u.Host == "" || (u.Path != "" && u.Path != "/") || u.RawQuery != "" {
			return fmt.Errorf("%w: server URL %d is not of the form nats://host:port", ErrOptions, i+1)
		}
		switch u.Scheme {
		case "nats", "tls", "ws", "wss":
		default:
			return fmt.Errorf("%w: server URL %d has the scheme %q, not nats, tls, ws or wss", ErrOptions, i+1, u.Scheme)
		}
		if u.User != nil {
			if err := e.takeUser(u.User); err != nil {
				return fmt.Errorf("%w: server URL %d: %w", ErrOptions, i+1, err)
			}
			u.User = nil
		}
		urls[i] = u.String()
	}
	e.URLs = urls
	methods := 0
	for _, set := range []bool{e.CredentialsFile != "", e.NKeySeedFile != "", e.User != "", e.Token != ""} {
		if set {
			methods++
		}
	}
	switch {
	case methods > 1:
		return fmt.Errorf("%w: more than one of credentials file, nkey, user and token", ErrOptions)
	case e.Password != "" && e.User == "":
		return fmt.Errorf("%w: a password without a user", ErrOptions)
	case e.Replicas < 0 || e.Replicas > 5:
		return fmt.Errorf("%w: %d replicas, not 1 to 5", ErrOptions, e.Replicas)
	case e.InboxPrefix != "" && !isSubject(e.InboxPrefix):
		return fmt.Errorf("%w: the inbox prefix %q is not a subject without wildcards", ErrOptions, e.InboxPrefix)
	}
	setDefault(&e.Replicas, 1)
	for _, file := range []string{e.CredentialsFile, e.NKeySeedFile} {
		if file == "" {
			continue
		}
		f, err := os.Open(file)
		if err != nil {
			return fmt.Errorf("%w: opening the credentials: %w", ErrOptions, err)
		}
		if err := f.Close(); err != nil {
			return fmt.Errorf("%w: closing the credentials: %w", ErrOptions, err)
		}
	}
	return nil
}

// takeUser moves what a URL says about the user to where secrets are expected.
func (e *ExternalOptions) takeUser(u *url.Userinfo) error {
	password, hasPassword := u.Password()
	if !hasPassword {
		if e.Token != "" && e.Token != u.Username() {
			return errors.New("another token than before")
		}
		e.Token = u.Username() // nats://token@host, as the NATS clients read it
		return nil
	}
	if (e.User != "" && e.User != u.Username()) || (e.Password != "" && e.Password != password) {
		return errors.New("another user than before")
	}
	e.User, e.Password = u.Username(), password
	return nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// isName tells whether s can be a stream's or a user's name inside subjects.
func isName(s string) bool {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
	return s != "" && len(s) <= 128 && strings.Trim(s, allowed) == ""
}

func isSubject(s string) bool {
	for token := range strings.SplitSeq(s, ".") {
		if !isName(token) {
			return false
		}
	}
	return true
}

// randomID returns 16 random bytes in hexadecimal.
func randomID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}
