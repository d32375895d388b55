package ledger_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
	"golang.org/x/crypto/bcrypt"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/ledger"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

const secret = "hunter2hunter2hunter2"

// certificates returns a server's and a client's TLS configuration.
func certificates(t testing.TB) (serverSide, clientSide *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	pair := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	serverSide = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
	clientSide = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, RootCAs: pool}
	return serverSide, clientSide
}

// nkey returns a new user's public key and a file with its seed.
func nkey(t testing.TB) (public, file string) {
	t.Helper()
	kp, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, err = kp.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := kp.Seed()
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "seed")
	if err := os.WriteFile(file, seed, 0o600); err != nil {
		t.Fatal(err)
	}
	return public, file
}

func TestEveryKindOfCredentialsConnects(t *testing.T) {
	t.Parallel()
	serverTLS, clientTLS := certificates(t)
	hash, err := bcrypt.GenerateFromPassword([]byte(secret), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	public, seed := nkey(t)
	o := embedded(t.TempDir())
	o.Embedded.Listen = "127.0.0.1:0"
	o.Embedded.TLS = serverTLS
	o.Embedded.Users = []ledger.User{
		{Name: "clear", Password: secret, Role: ledger.RolePublisher},
		{Name: "hashed", Password: string(hash), Role: ledger.RolePublisher},
		{Name: "nkey", NKey: public, Role: ledger.RolePublisher},
	}
	own := open(t, o)
	f := own.Follow(newSink(), ledger.Observer{})
	t.Cleanup(f.Stop)
	eventually(t, "the process itself in sync", func() bool { return f.State().InSync })
	addr := own.Status().Listen
	token := revocationtest.StartNATS(t, func(o *server.Options) { o.Authorization = secret })

	for name, e := range map[string]ledger.ExternalOptions{
		"password":        {URLs: []string{"tls://" + addr}, TLS: clientTLS, User: "clear", Password: secret},
		"hashed password": {URLs: []string{"nats://" + addr}, TLS: clientTLS, User: "hashed", Password: secret},
		"password in URL": {URLs: []string{"tls://clear:" + secret + "@" + addr}, TLS: clientTLS},
		"nkey":            {URLs: []string{"tls://" + addr}, TLS: clientTLS, NKeySeedFile: seed},
		"token":           {URLs: []string{token.URL()}, Token: secret, Create: true},
		"token in URL":    {URLs: []string{"nats://" + secret + "@" + token.Addr()}, Create: true},
		"second server":   {URLs: []string{"nats://127.0.0.1:1", token.URL()}, Token: secret, Create: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, out := openLogged(t, ledger.Options{External: &e})
			s := newSink()
			f := l.Follow(s, ledger.Observer{})
			defer f.Stop()
			eventually(t, "in sync", func() bool { return f.State().InSync })
			publish(t, l, "x-"+name)
			eventually(t, "applied", func() bool { return s.has("x-" + name) })
			if strings.Contains(out.String(), secret) || strings.Contains(l.Status().URL, secret) {
				t.Errorf("a secret in the log or the status %+v:\n%s", l.Status(), out)
			}
		})
	}
}

func TestWhatIsWrongWithAConnectionIsSaidWithoutSecrets(t *testing.T) {
	t.Parallel()
	serverTLS, clientTLS := certificates(t)
	o := embedded(t.TempDir())
	o.Embedded.Listen = "127.0.0.1:0"
	o.Embedded.TLS = serverTLS
	public, _ := nkey(t)
	_, otherSeed := nkey(t)
	o.Embedded.Users = []ledger.User{
		{Name: "edge", Password: secret, Role: ledger.RoleEdge},
		{Name: "producer", Password: secret, Role: ledger.RoleProducer},
		{Name: "nkey", NKey: public, Role: ledger.RoleEdge},
	}
	addr := open(t, o).Status().Listen
	creds := filepath.Join(t.TempDir(), "creds")
	if err := os.WriteFile(creds, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := nobody.Close(); err != nil {
		t.Fatal(err)
	}
	const wrong = "wrong" + secret
	for name, c := range map[string]struct {
		e    ledger.ExternalOptions
		want error
		says string
	}{
		"wrong password":   {ledger.ExternalOptions{URLs: []string{"tls://" + addr}, TLS: clientTLS, User: "edge", Password: wrong}, ledger.ErrCredentials, `"edge"`},
		"unknown user":     {ledger.ExternalOptions{URLs: []string{"tls://" + addr}, TLS: clientTLS, User: "nobody", Password: wrong}, ledger.ErrCredentials, `"nobody"`},
		"wrong token":      {ledger.ExternalOptions{URLs: []string{"tls://" + addr}, TLS: clientTLS, Token: wrong}, ledger.ErrCredentials, ""},
		"unknown nkey":     {ledger.ExternalOptions{URLs: []string{"tls://" + addr}, TLS: clientTLS, NKeySeedFile: otherSeed}, ledger.ErrCredentials, "seed"},
		"broken creds":     {ledger.ExternalOptions{URLs: []string{"tls://" + addr}, TLS: clientTLS, CredentialsFile: creds}, ledger.ErrNotConnected, ""},
		"broken nkey":      {ledger.ExternalOptions{URLs: []string{"tls://" + addr}, TLS: clientTLS, NKeySeedFile: creds}, ledger.ErrCredentials, "creds"},
		"no credentials":   {ledger.ExternalOptions{URLs: []string{"tls://" + addr}, TLS: clientTLS}, ledger.ErrCredentials, ""},
		"no TLS":           {ledger.ExternalOptions{URLs: []string{"nats://" + addr}, User: "edge", Password: secret}, ledger.ErrNotConnected, "TLS"},
		"unknown CA":       {ledger.ExternalOptions{URLs: []string{"tls://" + addr}, TLS: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: clientTLS.Certificates}, User: "edge", Password: secret}, ledger.ErrNotConnected, "TLS"},
		"nobody listens":   {ledger.ExternalOptions{URLs: []string{"nats://edge:" + secret + "@" + nobody.Addr().String()}}, ledger.ErrNotConnected, "no server"},
		"not permitted":    {ledger.ExternalOptions{URLs: []string{"tls://" + addr}, TLS: clientTLS, User: "producer", Password: secret}, ledger.ErrNotPermitted, "$JS.API"},
		"inbox not mine":   {ledger.ExternalOptions{URLs: []string{"tls://" + addr}, TLS: clientTLS, User: "edge", Password: secret, InboxPrefix: "_INBOX"}, ledger.ErrNotPermitted, "_INBOX"},
		"edge can't write": {ledger.ExternalOptions{URLs: []string{"tls://" + addr}, TLS: clientTLS, User: "edge", Password: secret}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, out := openLogged(t, ledger.Options{External: &c.e, PublishDeadline: 400 * time.Millisecond})
			defer func() { _ = l.Close() }()
			if c.want != nil {
				eventually(t, "said "+c.says, func() bool {
					p := l.Status().Problem
					return errors.Is(p, c.want) && strings.Contains(p.Error(), c.says)
				})
			} else {
				eventually(t, "usable", func() bool { return l.Status().Usable })
			}
			_, err := l.PublishRevocation(t.Context(), revoke("x"))
			if !errors.Is(err, revocation.ErrUnavailable) {
				t.Errorf("publishing: %v", err)
			}
			if c.want == nil && (!errors.Is(err, ledger.ErrNotPermitted) || !strings.Contains(err.Error(), "token_revocation.v1.entry")) {
				t.Errorf("publishing: %v", err)
			}
			all := out.String() + err.Error()
			if p := l.Status().Problem; p != nil {
				all += p.Error()
			}
			if strings.Contains(all, secret) {
				t.Errorf("a secret was told:\n%s", all)
			}
		})
	}
}

func TestOptionsThatMakeNoSenseAreRefusedWithoutSecrets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	serverTLS, _ := certificates(t)
	ext := func(e ledger.ExternalOptions) ledger.Options { return ledger.Options{External: &e} }
	emb := func(e ledger.EmbeddedOptions) ledger.Options {
		if e.StoreDir == "" {
			e.StoreDir = dir
		}
		return ledger.Options{Embedded: &e}
	}
	user := ledger.User{Name: "a", Password: secret, Role: ledger.RoleEdge}
	for name, o := range map[string]ledger.Options{
		"neither":               {},
		"both":                  {Embedded: &ledger.EmbeddedOptions{StoreDir: dir}, External: &ledger.ExternalOptions{URLs: []string{"nats://x:1"}}},
		"stream name":           {Stream: "a.b", Embedded: &ledger.EmbeddedOptions{StoreDir: dir}},
		"no URL":                ext(ledger.ExternalOptions{}),
		"URL with bad password": ext(ledger.ExternalOptions{URLs: []string{"nats://u:" + secret + "%zz@x:1"}}),
		"scheme":                ext(ledger.ExternalOptions{URLs: []string{"http://u:" + secret + "@x:1"}}),
		"two users":             ext(ledger.ExternalOptions{URLs: []string{"nats://u:" + secret + "@x:1", "nats://v:" + secret + "@x:2"}}),
		"two methods":           ext(ledger.ExternalOptions{URLs: []string{"nats://x:1"}, User: "u", Token: secret}),
		"password alone":        ext(ledger.ExternalOptions{URLs: []string{"nats://x:1"}, Password: secret}),
		"missing credentials":   ext(ledger.ExternalOptions{URLs: []string{"nats://x:1"}, CredentialsFile: filepath.Join(dir, "none")}),
		"inbox prefix":          ext(ledger.ExternalOptions{URLs: []string{"nats://x:1"}, InboxPrefix: "a.>"}),
		"relative store":        emb(ledger.EmbeddedOptions{StoreDir: "store"}),
		"open to the world":     emb(ledger.EmbeddedOptions{Listen: "0.0.0.0:0"}),
		"every interface":       emb(ledger.EmbeddedOptions{Listen: ":0", Users: []ledger.User{user}}),
		"without users":         emb(ledger.EmbeddedOptions{Listen: "0.0.0.0:0", TLS: serverTLS}),
		"users for nothing":     emb(ledger.EmbeddedOptions{Users: []ledger.User{user}}),
		"port":                  emb(ledger.EmbeddedOptions{Listen: "127.0.0.1:99999"}),
		"user twice":            emb(ledger.EmbeddedOptions{Listen: "127.0.0.1:0", Users: []ledger.User{user, user}}),
		"user name":             emb(ledger.EmbeddedOptions{Listen: "127.0.0.1:0", Users: []ledger.User{{Name: "a.>", Password: secret, Role: ledger.RoleEdge}}}),
		"role":                  emb(ledger.EmbeddedOptions{Listen: "127.0.0.1:0", Users: []ledger.User{{Name: "a", Password: secret, Role: "admin"}}}),
		"seed for nkey":         emb(ledger.EmbeddedOptions{Listen: "127.0.0.1:0", Users: []ledger.User{{Name: "a", NKey: "SU" + secret, Role: ledger.RoleEdge}}}),
		"no password":           emb(ledger.EmbeddedOptions{Listen: "127.0.0.1:0", Users: []ledger.User{{Name: "a", Role: ledger.RoleEdge}}}),
		"tiny":                  {MaxBytes: 1, Embedded: &ledger.EmbeddedOptions{StoreDir: dir}},
		"heartbeat too slow":    {HeartbeatInterval: time.Minute, Embedded: &ledger.EmbeddedOptions{StoreDir: dir}},
		"stale before the beat": {StaleAfter: time.Second, Embedded: &ledger.EmbeddedOptions{StoreDir: dir}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, err := ledger.Open(o)
			if err == nil {
				_ = l.Close()
			}
			if !errors.Is(err, ledger.ErrOptions) {
				t.Fatalf("got %v", err)
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("a secret was told: %v", err)
			}
		})
	}
}
