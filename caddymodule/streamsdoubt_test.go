package caddymodule

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/proxyprotocol"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/denylist"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// What a JWT says of itself counts for its streams as it does for new requests,
// although its issuer was asked about it and said no more than that it is active.
func TestAStreamEndsByWhatItsJWTSaysOfItself(t *testing.T) {
	s := newSite(t)
	u := newLiveUpstream(t)
	as := revocationtest.NewOpaqueServer(t, edgeSecret)
	options := strings.Replace(opaqueOptions(t, as), "\t\topaque\n", "\t\tjwks_file "+emptyKeys(t)+"\n\t\talgorithms ES256\n", 1)
	s.mustLoad(options, "handle {\ntoken_denylist {\nintrospect\ncut_streams\n}\nreverse_proxy "+strings.TrimPrefix(u.URL, "http://")+"\n}")
	s.eventually("the edge to be in sync", func() bool { return currentApp().status().State == "in_sync" })
	live := &liveSite{site: s, upstream: u}
	now := time.Now()
	key := revocationtest.NewKey(t, "RS256", "k")
	open := make(map[string]*exchange)
	for _, session := range []string{"one", "two"} {
		token := revocationtest.SignWith(t, key, map[string]any{"typ": "at+jwt"}, map[string]any{
			"iss": as.URL, "sub": "alice", "client_id": "app", "sid": session, "iat": now.Unix(), "exp": now.Add(time.Minute).Unix(),
		})
		as.Know(token, map[string]any{"exp": now.Add(time.Minute).Unix()})
		open[session] = live.begin(live.client(1), http.MethodGet, "/live/sse", token, nil)
	}
	s.eventually("both to be open", func() bool { return open["one"].read.Load() > 0 && open["two"].read.Load() > 0 && live.live() == 2 })
	if got, _ := s.adminPost("revocations", revocationRequest{Issuer: as.URL, Claims: map[string]string{"sid": "one"}, Mode: "block"}); got.status != http.StatusOK {
		t.Fatal(got)
	}
	open["one"].wantAborted()
	open["two"].wantAlive()
}

// A wrapper of the connection must not turn a reset into a clean end.
func TestAResponseBehindTheProxyProtocolDoesNotLookComplete(t *testing.T) {
	s := newLiveSite(t, false)
	if err := s.loadConfig(fmt.Sprintf(`{
	admin 127.0.0.1:%d
	persist_config off
	log {
		level ERROR
	}
	servers {
		listener_wrappers {
			proxy_protocol {
				timeout 5s
				allow 127.0.0.1/32
			}
		}
	}
	token_revocation {
		%s
	}
}
http://127.0.0.1:%d {
	bind 127.0.0.1
	handle /own/* {
		token_denylist {
			cut_streams
		}
		stubborn
	}
}
`, s.admin, liveOptions, s.port)); err != nil {
		t.Fatal(err)
	}
	s.eventually("the edge to be in sync", func() bool {
		status := currentApp().status()
		return status.State == "in_sync" && status.Ledger.Connected
	})
	conn, err := netDial(s.port)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(conn, "PROXY TCP4 192.0.2.1 127.0.0.1 4000 %d\r\nGET /own/begun HTTP/1.0\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer %s\r\n\r\n",
		s.port, s.port, s.tokenOf("alice"))
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

// Which key signed a token that was not verified is not known.
func TestARevokedKeyEndsStreamsOfTokensThatWereNotVerified(t *testing.T) {
	s := newLiveSite(t, false)
	s.mustLoadLive("cut_streams\n verify off")
	x := s.begin(s.client(1), http.MethodGet, "/live/sse", s.tokenOf("alice"), nil)
	s.eventually("it to be open", func() bool { return x.read.Load() > 0 })
	if got, _ := s.adminPost("revocations", revocationRequest{Claims: map[string]string{"kid": "leaked"}, Mode: "block", Reason: "test"}); got.status != http.StatusOK {
		t.Fatal(got)
	}
	x.wantAborted()
}

// deadlined is the response writer of a connection: cut is closed when its reads
// are stopped.
type deadlined struct {
	http.ResponseWriter
	cut chan struct{}
}

func (w *deadlined) SetReadDeadline(time.Time) error {
	close(w.cut)
	return nil
}

// A request that is cut while it is asked about again leaves a connection on which
// reading has been stopped. The next request there may be another's.
func TestTheConnectionEndsWithARequestThatIsCutWhileItIsAskedAboutAgain(t *testing.T) {
	w := &deadlined{httptest.NewRecorder(), make(chan struct{})}
	alice := &revocation.Revocation{
		ID: "test", Expires: time.Now().Add(time.Hour).Unix(),
		Criteria: revocation.Criteria{Issuer: "https://issuer.example", Claims: map[string]string{"sub": "alice"}},
	}
	var list *denylist.Denylist
	var asked atomic.Bool
	list, err := denylist.New(denylist.Options{Now: func() time.Time {
		// The clock is read when the denylist has found an entry.
		if bytes.Contains(debug.Stack(), []byte("stillAllowed")) && asked.CompareAndSwap(false, true) {
			list.Revoke(2, alice)
			select {
			case <-w.cut:
			case <-time.After(patience):
				t.Error("not cut")
			}
		}
		return time.Now()
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(list.Close)
	r := &replica{denylist: list, logger: slog.New(slog.DiscardHandler)}
	r.streams = newLiveStreams(r)
	t.Cleanup(r.streams.stop)
	d := &Denylist{app: &App{replica: r}, CutStreams: new(CutStreams), logger: zap.NewNop(), told: new(logLimit)}
	v := verdict{identity: benchIdentity("alice"), changes: r.streams.registry.Changes()}
	list.Revoke(1, alice)
	next := caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { t.Error("handed on"); return nil })
	err = d.serve(w, httptest.NewRequest(http.MethodGet, "/", nil), next, v)
	var refused caddyhttp.HandlerError
	if !errors.As(err, &refused) || refused.StatusCode != http.StatusUnauthorized {
		t.Errorf("answered %v", err)
	}
	if !asked.Load() || w.Header().Get("Connection") != "close" {
		t.Errorf("asked again: %t; the answer has %v", asked.Load(), w.Header())
	}
}

func TestStreamsThatNoRevocationWillEndAreLogged(t *testing.T) {
	for _, open := range []bool{false, true} {
		list, err := denylist.New(denylist.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(list.Close)
		var log bytes.Buffer
		r := &replica{denylist: list, logger: slog.New(slog.NewTextHandler(&log, nil))}
		r.streams = newLiveStreams(r)
		l := new(liveRequest)
		if open {
			r.streams.registry.Open(&l.stream, l, benchIdentity("alice"), 0, 0)
		}
		r.streams.stop()
		if got := strings.Contains(log.String(), "level=WARN") && strings.Contains(log.String(), "streams=1"); got != open {
			t.Errorf("open: %t; logged %q", open, log.String())
		}
	}
}
