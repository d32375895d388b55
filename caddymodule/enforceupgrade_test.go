package caddymodule

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

// upgrader is an upstream that accepts any offer to upgrade, as some do whatever
// the Connection field says, and then echoes what comes in the tunnel.
func upgrader(t *testing.T) *httptest.Server {
	t.Helper()
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		offers := r.Header["Upgrade"]
		if len(offers) == 0 {
			fmt.Fprintf(w, "ordinary %q", r.Header["Http2-Settings"])
			return
		}
		c, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+strings.Join(offers, ", ")+"\r\n\r\n")
		_, _ = io.Copy(c, buffered)
	}))
	t.Cleanup(up.Close)
	return up
}

// upgrade sends a request with further fields and returns the status and the body
// of an ordinary answer, or what was agreed on.
func (s *site) upgrade(fields string) (status int, body string) {
	s.t.Helper()
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.port))
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n%s\r\n", s.port, fields); err != nil {
		s.t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusSwitchingProtocols {
		return response.StatusCode, response.Header.Get("Upgrade")
	}
	text, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// Nobody gets a connection on which requests are not judged: HTTP/2 is not
// offered to the upstream. A WebSocket is, and monitor changes nothing.
func TestNoTunnelForOtherRequests(t *testing.T) {
	s := newSite(t)
	up := upgrader(t)
	behind := func(options string) string {
		return "handle {\ntoken_denylist " + options + "\nreverse_proxy " + strings.TrimPrefix(up.URL, "http://") + "\n}"
	}
	s.mustLoad(demo, behind(""))
	good, revoked := aliceToken(s), aliceToken(s)
	s.mustRevoke(revoked, "demo-app")
	const ordinary = "ordinary []"
	settings := "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
	for name, c := range map[string]struct {
		fields string
		status int
		body   string
	}{
		"h2c, without a token":      {"Connection: Upgrade\r\nUpgrade: h2c\r\n" + settings, 200, ordinary},
		"with a token":              {"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nAuthorization: Bearer " + good + "\r\n" + settings, 200, ordinary},
		"with a revoked one":        {"Connection: Upgrade\r\nUpgrade: h2c\r\nAuthorization: Bearer " + revoked + "\r\n" + settings, 401, ""},
		"in another case":           {"Connection: upgrade\r\nupgrade: H2C\r\n" + settings, 200, ordinary},
		"with a version":            {"Connection: Upgrade\r\nUpgrade: h2c/1\r\n" + settings, 200, ordinary},
		"in a list":                 {"Connection: Upgrade\r\nUpgrade: x,\th2c\r\n" + settings, 101, "x"},
		"on a second line":          {"Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n" + settings, 101, "websocket"},
		"a WebSocket":               {"Connection: Upgrade\r\nUpgrade: websocket\r\n", 101, "websocket"},
		"a protocol called alike":   {"Connection: Upgrade\r\nUpgrade: h2cx\r\n", 101, "h2cx"},
		"a WebSocket, with a token": {"Connection: Upgrade\r\nUpgrade: websocket\r\nAuthorization: Bearer " + good + "\r\n", 101, "websocket"},
	} {
		if status, body := s.upgrade(c.fields); status != c.status || body != c.body {
			t.Errorf("%s: %d %q, want %d %q", name, status, body, c.status, c.body)
		}
	}
	s.mustLoad(demo, behind("{\nmonitor\n}"))
	if status, body := s.upgrade("Connection: Upgrade\r\nUpgrade: h2c\r\n" + settings); status != 101 || body != "h2c" {
		t.Errorf("monitored: %d %q", status, body)
	}
}

func TestOtherOffersStayAsTheyAre(t *testing.T) {
	for _, fields := range [][]string{nil, {"websocket"}, {"websocket ,  x/1", ""}} {
		h := http.Header{"Upgrade": slices.Clone(fields), "Http2-Settings": {"AAMAAABk"}}
		if dropH2C(h); !slices.Equal(h["Upgrade"], fields) || h["Http2-Settings"] == nil {
			t.Errorf("%q became %q", fields, h)
		}
	}
}
