package caddymodule

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/net/http2"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
)

func TestARevocationEndsRequestsInFlight(t *testing.T) {
	for version := 1; version <= 3; version++ {
		t.Run(fmt.Sprintf("HTTP/%d", version), func(t *testing.T) {
			s := newLiveSite(t, version == 3)
			client := s.client(version)
			alice, bob := s.tokenOf("alice"), s.tokenOf("bob")
			s.eventually("the server to answer", func() bool { return (<-s.begin(client, "GET", "/own/", bob, nil).answer).err == nil })
			s.eventually("the answer to be over", func() bool { return s.live() == 0 })
			body, feed := io.Pipe()
			go func() {
				for {
					if _, err := feed.Write(make([]byte, 1024)); err != nil {
						return
					}
				}
			}()
			defer feed.Close()

			aborted := map[string]*exchange{
				"server-sent events":            s.begin(client, "GET", "/live/sse", alice, nil),
				"a download":                    s.begin(client, "GET", "/live/download", alice, nil),
				"a handler that writes":         s.begin(client, "GET", "/own/flood", alice, nil),
				"a handler that copies":         s.begin(client, "GET", "/own/copy", alice, nil),
				"a handler that says no more":   s.begin(client, "GET", "/own/begun", alice, nil),
				"a response that is compressed": s.begin(client, "GET", "/own/text", alice, nil),
				"a file":                        s.begin(client, "GET", "/file/large", alice, nil),
			}
			refused := map[string]*exchange{
				"a long poll": s.begin(client, "GET", "/live/poll", alice, nil),
				"an upload":   s.begin(client, "POST", "/live/upload", alice, body),
			}
			others := []*exchange{
				s.begin(client, "GET", "/live/sse", bob, nil),
				s.begin(client, "GET", "/live/poll", bob, nil),
			}
			s.eventually("all to be open", func() bool { return s.live() == len(aborted)+len(refused)+len(others) })
			for what, x := range aborted {
				s.eventually(what+" to begin", func() bool { return x.read.Load() > 0 })
			}
			s.revokeUser("alice")
			ends := stubbornEnds
			if version == 3 {
				// A handler that neither writes nor returns is reset when it returns.
				defer func() { stubbornEnds = make(chan struct{}) }()
				close(ends)
			}
			for what, x := range aborted {
				t.Run(what, func(t *testing.T) { x.s = &liveSite{site: &site{t: t}}; x.wantAborted() })
			}
			for what, x := range refused {
				t.Run(what, func(t *testing.T) {
					x.s = &liveSite{site: &site{t: t}}
					if version == 1 && what == "an upload" {
						// The server closes a connection on which more is coming, and
						// the reset may overtake its answer.
						x.wantRefusedOrReset()
						return
					}
					x.wantRefused()
				})
			}
			for _, x := range others {
				x.wantAlive()
			}
			s.eventually("the upstream to be left alone", func() bool { return s.upstream.open.Load() == 2 })
			for _, x := range others {
				x.cancel()
			}
			if version != 3 {
				close(ends)
				defer func() { stubbornEnds = make(chan struct{}) }()
			}
			s.eventually("nothing to be left", func() bool { return s.live() == 0 })
		})
	}
}

func TestARevocationEndsWebSockets(t *testing.T) {
	for name, secure := range map[string]bool{"plain": false, "TLS": true} {
		for what, path := range map[string]string{"proxied": "/live/ws", "hijacked by a handler": "/own/hijack"} {
			t.Run(name+" "+what, func(t *testing.T) {
				s := newLiveSite(t, secure)
				alice, bob := s.dialWebSocket(path, s.tokenOf("alice")), s.dialWebSocket(path, s.tokenOf("bob"))
				for range 3 {
					if err := errors.Join(echoes(alice, "hello"), echoes(bob, "hello")); err != nil {
						t.Fatal(err)
					}
				}
				s.revokeUser("alice")
				if _, err := alice.ReadByte(); err == nil || strings.Contains(err.Error(), "timeout") {
					t.Errorf("the WebSocket ended with %v", err)
				}
				if err := echoes(bob, "still here"); err != nil {
					t.Errorf("another user's WebSocket: %v", err)
				}
				s.eventually("the stream to be gone", func() bool { return s.live() == 1 })
			})
		}
	}
}

// A WebSocket under HTTP/2 (RFC 8441) needs a setting that a process reads when it
// starts.
func TestARevocationEndsWebSocketsUnderHTTP2(t *testing.T) {
	if !strings.Contains(os.Getenv("GODEBUG"), "http2xconnect=1") {
		again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		again.Env = append(os.Environ(), "GODEBUG=http2xconnect=1")
		out, err := again.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	s := newLiveSite(t, false)
	dial := func(ctx context.Context, network, address string, _ *tls.Config) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	// net/http's own client takes no pseudo-header.
	transport := &http2.Transport{AllowHTTP: true, DialTLSContext: dial} //nolint:staticcheck // see above
	t.Cleanup(transport.CloseIdleConnections)                            //nolint:staticcheck // see above
	open := func(user string) (*io.PipeWriter, io.Reader) {
		body, feed := io.Pipe()
		t.Cleanup(func() { _ = feed.Close() })
		request, err := http.NewRequestWithContext(t.Context(), http.MethodConnect, s.liveURL("/live/ws"), body)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set(":protocol", "websocket")
		request.Header.Set("Sec-WebSocket-Version", "13")
		request.Header.Set("Authorization", "Bearer "+s.tokenOf(user))
		response, err := transport.RoundTrip(request) //nolint:staticcheck // see above
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = response.Body.Close() })
		if response.StatusCode != http.StatusOK {
			t.Fatalf("status %d", response.StatusCode)
		}
		return feed, response.Body
	}
	echo := func(w io.Writer, r io.Reader) error {
		if _, err := io.WriteString(w, "hello"); err != nil {
			return err
		}
		_, err := io.ReadFull(r, make([]byte, 5))
		return err
	}
	aliceIn, aliceOut := open("alice")
	bobIn, bobOut := open("bob")
	if err := errors.Join(echo(aliceIn, aliceOut), echo(bobIn, bobOut)); err != nil {
		t.Fatal(err)
	}
	s.revokeUser("alice")
	if _, err := aliceOut.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("the WebSocket ended with %v", err)
	}
	if err := echo(bobIn, bobOut); err != nil {
		t.Errorf("another user's WebSocket on the same connection: %v", err)
	}
}

// A handler that does not notice is not waited for.
func TestAHandlerThatNeverAnswersIsCutOff(t *testing.T) {
	for version := 1; version <= 2; version++ {
		t.Run(fmt.Sprintf("HTTP/%d", version), func(t *testing.T) {
			s := newLiveSite(t, false)
			x := s.begin(s.client(version), "GET", "/own/silent", s.tokenOf("alice"), nil)
			s.eventually("it to be open", func() bool { return s.live() == 1 })
			s.revokeUser("alice")
			x.wantAborted()
			close(stubbornEnds)
			s.eventually("it to be gone", func() bool { return s.live() == 0 })
			stubbornEnds = make(chan struct{})
		})
	}
}

// HTTP/1.0 answers end with the connection: only a reset tells that one is not
// complete.
func TestAResponseWithoutLengthDoesNotLookComplete(t *testing.T) {
	s := newLiveSite(t, false)
	conn, err := netDial(s.port)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(conn, "GET /own/begun HTTP/1.0\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer %s\r\n\r\n", s.port, s.tokenOf("alice"))
	got := ""
	for buffer := make([]byte, 1024); !strings.HasSuffix(got, "begun"); {
		n, err := conn.Read(buffer)
		if err != nil {
			t.Fatalf("after %q: %v", got, err)
		}
		got += string(buffer[:n])
	}
	s.revokeUser("alice")
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) || os.IsTimeout(err) {
		t.Errorf("it ended with %v", err)
	}
	close(stubbornEnds)
	s.eventually("it to be gone", func() bool { return s.live() == 0 })
	stubbornEnds = make(chan struct{})
}

func TestAReloadCutsNothingAndTheNewConfigStillCuts(t *testing.T) {
	s := newLiveSite(t, false)
	alice, bob := s.dialWebSocket("/live/ws", s.tokenOf("alice")), s.dialWebSocket("/live/ws", s.tokenOf("bob"))
	for _, option := range []string{"cut_streams expired", "", "cut_streams"} {
		s.mustLoadLive(option)
		if err := errors.Join(echoes(alice, "hello"), echoes(bob, "hello")); err != nil {
			t.Fatalf("after a reload with %q: %v", option, err)
		}
	}
	if n := s.live(); n != 2 {
		t.Errorf("%d streams are open", n)
	}
	s.revokeUser("alice")
	if _, err := alice.ReadByte(); err == nil || os.IsTimeout(err) {
		t.Errorf("the WebSocket ended with %v", err)
	}
	if err := echoes(bob, "hello"); err != nil {
		t.Errorf("another user's WebSocket: %v", err)
	}
}

func TestWithoutTheOptionNothingIsCut(t *testing.T) {
	s := newLiveSite(t, false)
	s.mustLoadLive("")
	alice := s.dialWebSocket("/live/ws", s.tokenOf("alice"))
	s.revokeUser("alice")
	if err := echoes(alice, "hello"); err != nil {
		t.Error(err)
	}
	if n := s.live(); n != 0 {
		t.Errorf("%d are registered", n)
	}
}

// A connection goes on to serve its next request, which may be another user's.
func TestAConnectionOutlivesTheRequestsOnIt(t *testing.T) {
	s := newLiveSite(t, false)
	client := s.client(1)
	alice, bob := s.tokenOf("alice"), s.tokenOf("bob")
	for i := range 5 {
		for _, token := range []string{alice, bob} {
			x := s.begin(client, "POST", "/live/upload", token, strings.NewReader("data"))
			if got := <-x.answer; got.err != nil || got.StatusCode != http.StatusOK {
				t.Fatalf("round %d: %v", i, got)
			}
			if err := <-x.ended; err != nil {
				t.Fatal(err)
			}
		}
	}
	x := s.begin(client, "GET", "/live/sse", bob, nil)
	s.eventually("events", func() bool { return x.read.Load() > 0 })
	s.revokeUser("alice")
	y := s.begin(client, "GET", "/live/sse", alice, nil)
	y.wantRefused()
	x.wantAlive()
}

func TestAStreamEndsWithItsToken(t *testing.T) {
	s := newLiveSite(t, false)
	s.mustLoadLive("cut_streams expired")
	short := s.mint(issuer.MintRequest{Subject: "alice", Lifetime: 3 * time.Second})
	end := time.Now().Add(3 * time.Second) // exp is not later, nor more than a second earlier
	client := s.client(1)
	x, other := s.begin(client, "GET", "/live/sse", short, nil), s.begin(client, "GET", "/live/sse", s.tokenOf("bob"), nil)
	s.eventually("both to be open", func() bool { return s.live() == 2 })
	x.wantAborted()
	if early := time.Until(end); early > time.Second {
		t.Errorf("ended %s before the token", early)
	}
	other.wantAlive()
	s.eventually("the token to be refused", func() bool {
		got := <-s.begin(client, "GET", "/live/sse", short, nil).answer
		return got.err == nil && got.StatusCode == http.StatusUnauthorized
	})
}

// The identity of an open stream lacks a claim that nobody had named.
func TestAStreamIsFoundByAClaimThatIsNamedForTheFirstTime(t *testing.T) {
	s := newLiveSite(t, false)
	client := s.client(1)
	var open []*exchange
	for _, team := range []string{"red", "blue"} {
		token := s.mint(issuer.MintRequest{Subject: "alice", Extra: map[string]any{"team": []string{"all", team}}})
		open = append(open, s.begin(client, "GET", "/live/sse", token, nil))
	}
	s.eventually("both to be open", func() bool { return s.live() == 2 })
	for _, x := range open {
		s.eventually("events", func() bool { return x.read.Load() > 0 })
	}
	got, _ := s.adminPost("revocations", revocationRequest{Claims: map[string]string{"team": "red"}, Mode: "block", Reason: "test"})
	if got.status != http.StatusOK {
		t.Fatalf("revoking: %d %s", got.status, got.body)
	}
	open[0].wantAborted()
	open[1].wantAlive()
}

func TestACutoffSparesNewerTokens(t *testing.T) {
	s := newLiveSite(t, false)
	client := s.client(1)
	now := time.Now()
	old := s.mint(issuer.MintRequest{Subject: "alice", Extra: map[string]any{"iat": now.Add(-30 * time.Second).Unix()}})
	x, y := s.begin(client, "GET", "/live/sse", old, nil), s.begin(client, "GET", "/live/sse", s.tokenOf("alice"), nil)
	s.eventually("both to be open", func() bool { return s.live() == 2 && x.read.Load() > 0 })
	r := currentApp().replica
	r.Revoke(9000, &revocation.Revocation{
		ID: "test", Mode: revocation.IssuedBefore, Cutoff: now.Add(-10 * time.Second).Unix(), Expires: now.Add(time.Hour).Unix(),
		Criteria: revocation.Criteria{Issuer: currentApp().development.Name(), Claims: map[string]string{"sub": "alice"}},
	})
	x.wantAborted()
	y.wantAlive()
}

// Promise 2: whoever opens a stream while its user is revoked is refused or cut.
func TestNoRequestEscapesARevocationThatComesMeanwhile(t *testing.T) {
	s := newLiveSite(t, false)
	client := s.client(2)
	alice := s.tokenOf("alice")
	var open []*exchange
	revoked := make(chan error, 1)
	for i := range 200 {
		open = append(open, s.begin(client, "GET", "/live/sse", alice, nil))
		if i == 100 {
			go func() { revoked <- s.tryRevokeUser("alice") }()
		}
	}
	for _, x := range open {
		select {
		case got := <-x.answer:
			if got.err == nil && got.StatusCode == http.StatusUnauthorized {
				continue
			}
			x.wantAborted()
		case <-time.After(patience):
			t.Fatal("no answer")
		}
	}
	if err := <-revoked; err != nil {
		t.Fatal(err)
	}
	s.eventually("nothing to be left", func() bool { return s.live() == 0 && s.upstream.open.Load() == 0 })
}

func TestCutsAreCountedAndOpenStreamsAreGauged(t *testing.T) {
	s := newLiveSite(t, false)
	alice := s.tokenOf("alice")
	sockets := []*bufio.ReadWriter{s.dialWebSocket("/live/ws", alice), s.dialWebSocket("/live/ws", alice)}
	const opened, cut = "caddy_token_revocation_streams_open", `caddy_token_revocation_streams_cut_total{reason="revoked"}`
	scrape := func(name string) string {
		got := s.do(http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/metrics", s.admin), nil, "")
		for line := range strings.Lines(got.body) {
			if value, ok := strings.CutPrefix(line, name+" "); ok {
				return strings.TrimSpace(value)
			}
		}
		return "none"
	}
	if got := scrape(opened); got != "2" {
		t.Errorf("%s streams are open", got)
	}
	s.revokeUser("alice")
	for _, rw := range sockets {
		_, _ = rw.ReadByte()
	}
	s.eventually("the counts", func() bool { return scrape(opened) == "0" && scrape(cut) == "2" })
}

// Register, then check: what was revoked between the judgment and the registration
// is found by asking again.
func TestARequestIsAskedAboutAgainAfterItIsRegistered(t *testing.T) {
	r, err := newReplica(newDenylistLimits(0, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Destruct() })
	d := &Denylist{app: &App{replica: r}, CutStreams: new(CutStreams), logger: zap.NewNop(), told: new(logLimit)}
	reached := 0
	next := caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { reached++; return nil })
	for user, v := range map[string]verdict{
		"alice": {identity: benchIdentity("alice")},
		"bob":   {identity: benchIdentity("bob"), self: benchIdentity("b")},
		"a":     {identity: benchIdentity("a"), self: benchIdentity("alice")}, // the token itself says so
	} {
		v.changes = r.streams.registry.Changes()
		r.denylist.Revoke(1, &revocation.Revocation{
			ID: "test", Expires: time.Now().Add(time.Hour).Unix(),
			Criteria: revocation.Criteria{Issuer: "https://issuer.example", Claims: map[string]string{"sub": "alice"}},
		})
		err = d.serve(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil), next, v)
		var refused caddyhttp.HandlerError
		if got := errors.As(err, &refused) && refused.StatusCode == http.StatusUnauthorized; got != (user != "bob") {
			t.Errorf("%s: %v", user, err)
		}
	}
	if reached != 1 {
		t.Errorf("%d requests were handed on", reached)
	}
	if n := r.streams.registry.Len(); n != 0 {
		t.Errorf("%d are still registered", n)
	}
}
