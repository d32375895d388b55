package ledger

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
)

const (
	dialTimeout   = 2 * time.Second
	pingInterval  = 2 * time.Second
	pingsOut      = 2
	reconnectWait = 250 * time.Millisecond
	firstRetry    = 250 * time.Millisecond
	lastRetry     = 2 * time.Second
)

// link is the connection to the server, with what is known of it.
type link struct {
	l       *Ledger
	changed signal

	mu      sync.Mutex
	nc      *nats.Conn
	js      jetstream.JetStream
	up      context.Context // ends with this period of being connected; nil while down
	down    context.CancelFunc
	problem error    // why it is down
	told    []string // of what was logged as that, this time

	reconnects atomic.Uint64
	refused    refusals
}

// current returns the connection and the context of the present period of being
// connected, or the reason why there is none.
func (k *link) current() (*nats.Conn, jetstream.JetStream, context.Context, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.up == nil {
		if k.problem != nil {
			return nil, nil, nil, k.problem
		}
		return nil, nil, nil, ErrNotConnected
	}
	return k.nc, k.js, k.up, nil
}

// await is current, but waits for a connection until ctx ends.
func (k *link) await(ctx context.Context) (*nats.Conn, jetstream.JetStream, context.Context, error) {
	for {
		changed := k.changed.wait()
		nc, js, up, err := k.current()
		if err == nil {
			return nc, js, up, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, nil, nil, fmt.Errorf("%w: %w", err, context.Cause(ctx))
		}
	}
}

// connect tries for ever to connect for the first time. From then on, the
// client library reconnects by itself.
func (k *link) connect(ctx context.Context) {
	wait := firstRetry
	for ctx.Err() == nil {
		err := k.dial(ctx)
		if err == nil {
			return
		}
		k.lost(err)
		select {
		case <-ctx.Done():
		case <-time.After(jitter(wait)):
		}
		wait = min(2*wait, lastRetry)
	}
}

func (k *link) dial(ctx context.Context) error {
	opts, err := k.options(ctx)
	if err != nil {
		return err
	}
	nc, err := nats.Connect(strings.Join(k.urls(), ","), opts...)
	if err != nil {
		return k.classify(err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		nc.Close()
		return fmt.Errorf("preparing JetStream: %w", err)
	}
	k.mu.Lock()
	k.nc, k.js = nc, js
	k.mu.Unlock()
	if nc.IsConnected() {
		k.found()
	}
	return nil
}

func (k *link) urls() []string {
	if e := k.l.o.External; e != nil {
		return e.URLs
	}
	return nil
}

func (k *link) options(ctx context.Context) ([]nats.Option, error) {
	opts := []nats.Option{
		nats.Name("token-revocation " + k.l.o.Edge),
		nats.Timeout(dialTimeout),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(reconnectWait),
		nats.ReconnectJitter(reconnectWait, 2*reconnectWait),
		// A black hole looks connected until pings go unanswered.
		nats.PingInterval(pingInterval),
		nats.MaxPingsOutstanding(pingsOut),
		nats.FlusherTimeout(dialTimeout),
		// What is buffered while disconnected would be stored after the caller
		// was told that it is not.
		nats.ReconnectBufSize(-1),
		nats.IgnoreAuthErrorAbort(),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { k.lost(k.classify(err)) }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { k.lost(k.classify(err)) }),
		nats.ReconnectHandler(func(*nats.Conn) { k.reconnects.Add(1); k.found() }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { k.report(err) }),
	}
	if em := k.l.embedded; em != nil {
		opts = append(opts, nats.InProcessServer(em))
		if em.user != "" {
			opts = append(opts, nats.UserInfo(em.user, em.password))
		}
		return opts, nil
	}
	e := k.l.o.External
	opts = append(opts, nats.SetCustomDialer(dialer{ctx}))
	if e.TLS != nil {
		opts = append(opts, nats.Secure(e.TLS.Clone()))
	}
	prefix := e.InboxPrefix
	switch {
	case e.CredentialsFile != "":
		opts = append(opts, nats.UserCredentials(e.CredentialsFile))
	case e.NKeySeedFile != "":
		nkey, err := nats.NkeyOptionFromSeed(e.NKeySeedFile)
		if err != nil {
			return nil, fmt.Errorf("%w: the nkey seed file %s is not readable as one", ErrCredentials, e.NKeySeedFile)
		}
		o := nats.GetDefaultOptions()
		if err := nkey(&o); err != nil {
			return nil, fmt.Errorf("%w: the nkey seed file %s is not usable", ErrCredentials, e.NKeySeedFile)
		}
		if prefix == "" && nkeys.IsValidPublicUserKey(o.Nkey) {
			prefix = "_INBOX_" + o.Nkey
		}
		opts = append(opts, nkey)
	case e.User != "":
		if prefix == "" && isName(e.User) {
			prefix = "_INBOX_" + e.User
		}
		opts = append(opts, nats.UserInfo(e.User, e.Password))
	case e.Token != "":
		opts = append(opts, nats.Token(e.Token))
	}
	if prefix != "" {
		opts = append(opts, nats.CustomInboxPrefix(prefix))
	}
	return opts, nil
}

// found begins a period of being connected.
func (k *link) found() {
	k.mu.Lock()
	if k.l.ctx.Err() != nil || k.nc == nil || !k.nc.IsConnected() {
		k.mu.Unlock()
		return
	}
	if k.down != nil {
		k.down()
	}
	k.up, k.down = context.WithCancel(k.l.ctx)
	k.problem, k.told = nil, nil
	url, name := k.nc.ConnectedUrlRedacted(), k.nc.ConnectedServerName()
	k.mu.Unlock()
	k.refused.forget()
	if k.l.embedded == nil {
		k.l.log.Info("connected to the revocation ledger", "url", url, "server", name)
	}
	k.changed.fire()
}

// lost ends it.
func (k *link) lost(err error) {
	k.mu.Lock()
	if k.l.ctx.Err() != nil {
		k.mu.Unlock()
		return
	}
	if err == nil {
		err = ErrNotConnected
	}
	if k.down != nil {
		k.down()
		k.up, k.down = nil, nil
	}
	// While reconnecting fails in the same ways, perhaps at several servers in
	// turn, they are told once.
	news := !slices.Contains(k.told, err.Error()) && len(k.told) < 16
	if news {
		k.told = append(k.told, err.Error())
	}
	k.problem = err
	k.mu.Unlock()
	if news {
		k.l.log.Warn("not connected to the revocation ledger", "error", err)
	}
	k.changed.fire()
}

// report takes what the client library has to say besides the above.
func (k *link) report(err error) {
	if k.l.ctx.Err() != nil {
		return
	}
	if subject, ok := refusedSubject(err); ok {
		// The request that caused it only times out.
		if k.refused.add(subject) {
			k.l.log.Error("permission refused by the ledger's server", "subject", subject)
		}
		return
	}
	if errors.Is(err, nats.ErrSlowConsumer) {
		k.l.log.Debug("the ledger's entries arrive faster than they are applied")
		return
	}
	err = k.classify(err)
	k.mu.Lock()
	down := k.up == nil
	k.mu.Unlock()
	if down && errors.Is(err, ErrCredentials) {
		k.lost(err) // refused while reconnecting, which is told here only
		return
	}
	k.l.log.Warn("error on the ledger's connection", "error", err)
}

func (k *link) close() {
	k.mu.Lock()
	nc := k.nc
	if k.down != nil {
		k.down()
	}
	k.mu.Unlock()
	if nc != nil {
		nc.Close()
	}
}

// classify turns what the client library says into what an operator can act
// upon. None of the texts holds a secret: URLs were freed of theirs.
func (k *link) classify(err error) error {
	var (
		authority x509.UnknownAuthorityError
		host      x509.HostnameError
		invalid   x509.CertificateInvalidError
		alert     tls.AlertError
	)
	switch {
	case err == nil:
		return ErrNotConnected
	case errors.Is(err, ErrCredentials), errors.Is(err, ErrNotConnected):
		return err
	case errors.Is(err, nats.ErrAuthorization), strings.Contains(strings.ToLower(err.Error()), "authorization violation"):
		return fmt.Errorf("%w%s: wrong user, password, token, nkey or credentials file", ErrCredentials, k.who())
	case errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAccountAuthExpired):
		return fmt.Errorf("%w%s: they have expired", ErrCredentials, k.who())
	case errors.Is(err, nats.ErrAuthRevoked):
		return fmt.Errorf("%w%s: they were revoked", ErrCredentials, k.who())
	case errors.Is(err, nats.ErrNkeysNotSupported):
		return fmt.Errorf("%w%s: the server has no nkeys", ErrCredentials, k.who())
	case errors.Is(err, nats.ErrSecureConnRequired):
		return fmt.Errorf("%w: the server requires TLS", ErrNotConnected)
	case errors.Is(err, nats.ErrSecureConnWanted):
		return fmt.Errorf("%w: the server offers no TLS", ErrNotConnected)
	case errors.As(err, &authority), errors.As(err, &host), errors.As(err, &invalid), errors.As(err, &alert):
		return fmt.Errorf("%w: the TLS handshake: %w", ErrNotConnected, err)
	case errors.Is(err, nats.ErrStaleConnection):
		return fmt.Errorf("%w: the server stopped answering", ErrNotConnected)
	case errors.Is(err, nats.ErrNoServers):
		return fmt.Errorf("%w: no server accepts a connection", ErrNotConnected)
	default:
		return fmt.Errorf("%w: %w", ErrNotConnected, err)
	}
}

func (k *link) who() string {
	e := k.l.o.External
	switch {
	case e == nil:
		return ""
	case e.User != "":
		return fmt.Sprintf(" of user %q", e.User)
	case e.CredentialsFile != "":
		return fmt.Sprintf(" in %s", e.CredentialsFile)
	case e.NKeySeedFile != "":
		return fmt.Sprintf(" in %s", e.NKeySeedFile)
	default:
		return ""
	}
}

// dialer ends its connections with a context. Closing a ledger must not wait
// for a server that does not answer.
type dialer struct{ ctx context.Context }

// Dial implements nats.CustomDialer.
func (d dialer) Dial(network, address string) (net.Conn, error) {
	nd := net.Dialer{Timeout: dialTimeout}
	conn, err := nd.DialContext(d.ctx, network, address)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(d.ctx, func() { _ = conn.Close() })
	return &dialed{Conn: conn, stop: stop}, nil
}

type dialed struct {
	net.Conn
	stop func() bool
}

// Close implements net.Conn.
func (c *dialed) Close() error {
	c.stop()
	return c.Conn.Close()
}
