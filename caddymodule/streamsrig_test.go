package caddymodule

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
)

func init() {
	caddy.RegisterModule(stubborn{})
	httpcaddyfile.RegisterHandlerDirective("stubborn", func(httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		return new(stubborn), nil
	})
	httpcaddyfile.RegisterDirectiveOrder("stubborn", httpcaddyfile.Before, "reverse_proxy")
}

// stubborn is a handler that does not care whether its request was cancelled.
type stubborn struct{}

// stubbornEnds lets the handlers that wait return.
var stubbornEnds = make(chan struct{})

// CaddyModule returns the Caddy module information.
func (stubborn) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.stubborn", New: func() caddy.Module { return new(stubborn) }}
}

// ServeHTTP does what the path says.
func (stubborn) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	switch {
	case strings.HasSuffix(r.URL.Path, "/silent"): // answers nothing for long
		select {
		case <-stubbornEnds:
		case <-time.After(30 * time.Second):
		}
		_, err := io.WriteString(w, "done")
		return err
	case strings.HasSuffix(r.URL.Path, "/begun"): // answers a part, and nothing for long
		_, _ = io.WriteString(w, "begun")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-stubbornEnds:
		case <-time.After(30 * time.Second):
		}
		return nil
	case strings.HasSuffix(r.URL.Path, "/flood"):
		for {
			if _, err := w.Write(make([]byte, 1<<14)); err != nil {
				return err
			}
		}
	case strings.HasSuffix(r.URL.Path, "/text"): // in time for the client to see it
		w.Header().Set("Content-Type", "text/plain")
		for noise := make([]byte, 1<<14); ; {
			_, _ = rand.Read(noise)
			if _, err := io.WriteString(w, hex.EncodeToString(noise)); err != nil {
				return err
			}
		}
	case strings.HasSuffix(r.URL.Path, "/copy"): // one call, which goes on for ever
		_, err := io.Copy(w, endless{})
		return err
	case strings.HasSuffix(r.URL.Path, "/hijack"):
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return err
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
		_, err = io.Copy(c, c)
		return err
	}
	return nil
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// liveUpstream is an application with requests that take long.
type liveUpstream struct {
	*httptest.Server
	open atomic.Int32 // handlers that run
}

func newLiveUpstream(t *testing.T) *liveUpstream {
	u := new(liveUpstream)
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.open.Add(1)
		defer u.open.Add(-1)
		u.serve(w, r)
	}))
	t.Cleanup(u.Close)
	return u
}

func (u *liveUpstream) serve(w http.ResponseWriter, r *http.Request) {
	flush := http.NewResponseController(w).Flush
	switch r.URL.Path {
	case "/live/ws":
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
		_, _ = io.Copy(c, rw)
	case "/live/sse":
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: hello\n\n")
		_ = flush()
		<-r.Context().Done()
	case "/live/poll":
		<-r.Context().Done()
	case "/live/upload":
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "stored")
	case "/live/download":
		w.Header().Set("Content-Length", fmt.Sprint(int64(1)<<40))
		for {
			if _, err := w.Write(make([]byte, 1<<14)); err != nil {
				return
			}
		}
	}
}

// liveSite is a site with cut_streams in front of a liveUpstream.
type liveSite struct {
	*site
	upstream *liveUpstream
	secure   bool
	files    string // a directory
}

func newLiveSite(t *testing.T, secure bool) *liveSite {
	s := &liveSite{site: newSite(t), upstream: newLiveUpstream(t), secure: secure, files: t.TempDir()}
	if err := errors.Join(os.WriteFile(s.files+"/large", nil, 0o600), os.Truncate(s.files+"/large", 1<<36)); err != nil {
		t.Fatal(err) // a sparse file
	}
	s.mustLoadLive("cut_streams")
	return s
}

func (s *liveSite) mustLoadLive(option string) {
	s.t.Helper()
	scheme, global := "http", "servers {\n protocols h1 h2c\n }"
	if s.secure {
		scheme, global = "https", "local_certs\n skip_install_trust\n auto_https disable_redirects"
	}
	if err := s.loadConfig(fmt.Sprintf(`{
	admin 127.0.0.1:%d
	persist_config off
	log {
		level ERROR
	}
	%s
	token_revocation {
		%s
	}
}
%s://127.0.0.1:%d {
	bind 127.0.0.1
	header X-Site kept
	handle /live/* {
		token_denylist {
			%s
		}
		reverse_proxy %s {
			stream_close_delay 5m
		}
	}
	encode
	handle /file/* {
		token_denylist {
			%s
		}
		uri strip_prefix /file
		file_server {
			root %s
		}
	}
	handle /own/* {
		token_denylist {
			%s
		}
		stubborn
	}
}
`, s.admin, global, liveOptions, scheme, s.port, option, strings.TrimPrefix(s.upstream.URL, "http://"), option, s.files, option)); err != nil {
		s.t.Fatalf("loading: %v", err)
	}
	s.eventually("the edge to be in sync", func() bool {
		status := currentApp().status()
		return status.State == "in_sync" && status.Ledger.Connected
	})
}

func (s *liveSite) tokenOf(subject string) string {
	return s.mint(issuer.MintRequest{Subject: subject, ClientID: "demo-app", SessionID: "of-" + subject})
}

func (s *liveSite) revokeUser(subject string) {
	s.t.Helper()
	if err := s.tryRevokeUser(subject); err != nil {
		s.t.Fatal(err)
	}
}

// tryRevokeUser is for any goroutine.
func (s *liveSite) tryRevokeUser(subject string) error {
	response, err := http.Post(fmt.Sprintf("http://127.0.0.1:%d%srevocations", s.admin, adminPrefix), "application/json",
		strings.NewReader(fmt.Sprintf(`{"claims": {"sub": %q}, "mode": "block", "reason": "test"}`, subject)))
	if err != nil {
		return fmt.Errorf("revoking: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("revoking: %s", response.Status)
	}
	return nil
}

func (s *liveSite) live() int { return currentApp().replica.streams.registry.Len() }

// client returns an HTTP client of one version.
func (s *liveSite) client(version int) *http.Client {
	trust := &tls.Config{InsecureSkipVerify: true}
	if version == 3 {
		transport := &http3.Transport{TLSClientConfig: trust}
		s.t.Cleanup(func() { _ = transport.Close() })
		return &http.Client{Transport: transport}
	}
	transport := &http.Transport{Protocols: new(http.Protocols), TLSClientConfig: trust}
	transport.Protocols.SetHTTP1(version == 1)
	transport.Protocols.SetHTTP2(version == 2)
	transport.Protocols.SetUnencryptedHTTP2(version == 2)
	s.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func (s *liveSite) liveURL(path string) string {
	if s.secure {
		return fmt.Sprintf("https://127.0.0.1:%d%s", s.port, path)
	}
	return s.url(path)
}

// exchange is a request that takes long.
type exchange struct {
	s      *liveSite
	cancel context.CancelFunc
	answer chan liveAnswer // when it has begun to be answered, or failed
	ended  chan error      // when there is no more: nil only after a clean end
	read   atomic.Int64
}

type liveAnswer struct {
	*http.Response
	err error
}

func (s *liveSite) begin(client *http.Client, method, path, token string, body io.Reader) *exchange {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s.t.Cleanup(cancel)
	request, err := http.NewRequestWithContext(ctx, method, s.liveURL(path), body)
	if err != nil {
		s.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Accept-Encoding", "gzip") // and no package to undo it
	x := &exchange{s: s, cancel: cancel, answer: make(chan liveAnswer, 1), ended: make(chan error, 1)}
	go func() {
		response, err := client.Do(request)
		x.answer <- liveAnswer{response, err}
		if err != nil {
			x.ended <- err
			return
		}
		defer response.Body.Close()
		buffer := make([]byte, 1<<15)
		for {
			n, err := response.Body.Read(buffer)
			x.read.Add(int64(n))
			if errors.Is(err, io.EOF) {
				x.ended <- nil
				return
			}
			if err != nil {
				x.ended <- err
				return
			}
		}
	}()
	return x
}

const patience = 20 * time.Second

// wantAborted waits for an end that nobody takes for a complete answer.
func (x *exchange) wantAborted() {
	x.s.t.Helper()
	select {
	case err := <-x.ended:
		if err == nil {
			x.s.t.Error("the answer ended as if it were complete")
		}
	case <-time.After(patience):
		x.s.t.Fatal("the request lives on")
	}
}

func (x *exchange) wantRefusedOrReset() {
	x.s.t.Helper()
	select {
	case got := <-x.answer:
		if got.err == nil && got.StatusCode != http.StatusUnauthorized {
			x.s.t.Errorf("answered %d", got.StatusCode)
		}
	case <-time.After(patience):
		x.s.t.Fatal("the request lives on")
	}
}

// wantRefused waits for a 401 with a challenge.
func (x *exchange) wantRefused() {
	x.s.t.Helper()
	select {
	case got := <-x.answer:
		switch {
		case got.err != nil:
			x.s.t.Errorf("no answer but %v", got.err)
		case got.StatusCode != http.StatusUnauthorized || !strings.Contains(got.Header.Get("WWW-Authenticate"), "invalid_token"):
			x.s.t.Errorf("answered %d, challenge %q", got.StatusCode, got.Header.Get("WWW-Authenticate"))
		case got.Header.Get("X-Site") != "kept":
			x.s.t.Error("what the site had set is gone")
		}
	case <-time.After(patience):
		x.s.t.Fatal("the request lives on")
	}
}

func (x *exchange) wantAlive() {
	x.s.t.Helper()
	select {
	case err := <-x.ended:
		x.s.t.Errorf("a request of another user ended: %v", err)
	default:
	}
}

// dialWebSocket opens a WebSocket by hand, under HTTP/1.1.
func (s *liveSite) dialWebSocket(path, token string) *bufio.ReadWriter {
	s.t.Helper()
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.port))
	if err != nil {
		s.t.Fatal(err)
	}
	if s.secure {
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	}
	s.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(2 * patience))
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer %s\r\n\r\n", path, s.port, token)
	rw := bufio.NewReadWriter(bufio.NewReader(c), bufio.NewWriter(c))
	response, err := http.ReadResponse(rw.Reader, nil)
	if err != nil {
		s.t.Fatalf("opening a WebSocket: %v", err)
	}
	defer response.Body.Close() // of a 101 there is none
	if response.StatusCode != http.StatusSwitchingProtocols {
		s.t.Fatalf("opening a WebSocket: %s", response.Status)
	}
	return rw
}

// echoes tells whether the other end still answers.
func echoes(rw *bufio.ReadWriter, what string) error {
	if _, err := rw.WriteString(what); err != nil {
		return err
	}
	if err := rw.Flush(); err != nil {
		return err
	}
	got := make([]byte, len(what))
	if _, err := io.ReadFull(rw, got); err != nil {
		return err
	}
	if string(got) != what {
		return fmt.Errorf("%q came back for %q", got, what)
	}
	return nil
}

func netDial(port int) (net.Conn, error) { return net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port)) }

const liveOptions = `
	embedded
	issuer development {
		leeway -1s
	}
	issuer_skew -1s
	client demo-app public
`
