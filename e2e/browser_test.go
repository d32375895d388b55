//go:build e2e

package e2e

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// streamingUpstream has a page, an API, server-sent events and a WebSocket.
type streamingUpstream struct {
	address string
	reports chan report
}

// report is what the script of the page tells the test.
type report struct {
	What   string `json:"what"`
	Detail string `json:"detail"`
}

func startStreamingUpstream(t *testing.T) *streamingUpstream {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := &streamingUpstream{address: listener.Addr().String(), reports: make(chan report, 100)}
	mux := http.NewServeMux()
	mux.HandleFunc("/page", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, browserPage)
	})
	mux.HandleFunc("/report", func(_ http.ResponseWriter, r *http.Request) {
		var got report
		if json.NewDecoder(r.Body).Decode(&got) == nil {
			u.reports <- got
		}
	})
	mux.HandleFunc("/events", serveEvents)
	mux.HandleFunc("/socket", serveSocket)
	mux.HandleFunc("/api", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "data") })
	server := &http.Server{Handler: mux}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	return u
}

// serveEvents sends an event every 50 ms, until nobody reads any more.
func serveEvents(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	for n := 0; ; n++ {
		if _, err := fmt.Fprintf(w, "data: %d\n\n", n); err != nil {
			return
		}
		_ = http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// serveSocket accepts a WebSocket (RFC 6455) and sends short texts over it.
func serveSocket(w http.ResponseWriter, r *http.Request) {
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer conn.Close()
	_, _ = fmt.Fprintf(buffered, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
	for {
		if _, err := buffered.WriteString("\x81\x02hi"); err != nil {
			return
		}
		if buffered.Flush() != nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// expect waits until the page has reported all of that, and nothing else.
func (u *streamingUpstream) expect(t *testing.T, check func(report), whats ...string) {
	t.Helper()
	for missing := whats; len(missing) > 0; {
		select {
		case got := <-u.reports:
			if !slices.Contains(whats, got.What) {
				t.Fatalf("the page reports %s (%s), and %q are still missing", got.What, got.Detail, missing)
			}
			if check != nil {
				check(got)
			}
			missing = slices.DeleteFunc(slices.Clone(missing), func(what string) bool { return what == got.What })
		case <-time.After(60 * time.Second):
			t.Fatalf("the page did not report %q", missing)
		}
	}
}

// browserPage opens what stays open with the token in a cookie, and then calls an
// API of another origin with the token in a header, as often as it is told to.
const browserPage = `<!doctype html><script>
const parameters = new URLSearchParams(location.hash.slice(1))
const report = (what, detail = "") => fetch("/report", {method: "POST", body: JSON.stringify({what, detail: String(detail)})})
window.onerror = message => report("failure", message)
document.cookie = "access_token=" + parameters.get("token") + "; path=/"
const events = new EventSource("/events")
let heard = false
events.onmessage = () => { if (!heard) { heard = true; report("events open") } }
events.onerror = () => { events.close(); report("events closed") }
const socket = new WebSocket("ws://" + location.host + "/socket")
socket.onmessage = () => { socket.onmessage = null; report("socket open") }
socket.onclose = event => report("socket closed", event.code)
let told = false
const call = async () => {
	try {
		const answer = await fetch(parameters.get("api"), {headers: {Authorization: "Bearer " + parameters.get("token")}})
		if (answer.status != 200 || !told) report("answer " + answer.status, answer.headers.get("WWW-Authenticate") ?? "no challenge")
		told = true
		if (answer.status == 200) setTimeout(call, 50)
	} catch (e) {
		report("failure", e)
	}
}
call()
</script>`

// chromium starts a headless browser on a page.
func chromium(t *testing.T, page string) {
	t.Helper()
	program := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			program = path
			break
		}
	}
	if program == "" {
		skipUnlessCI(t, "no Chromium is installed")
	}
	start(t, "chromium", newLogs(t, "chromium"), t.TempDir(), []string{"HOME=" + t.TempDir()}, program,
		"--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
		"--user-data-dir="+t.TempDir(), "--remote-debugging-port=0", page)
}

// TestBrowserSeesARevocation lets a real browser keep a WebSocket and an
// EventSource open, and call an API of another origin, which needs a preflight
// request without a token; then the token is revoked.
func TestBrowserSeesARevocation(t *testing.T) {
	upstream := startStreamingUpstream(t)
	e := newFirstEdge(t, func(config string) string {
		site := `
	@api path /api
	header @api {
		Access-Control-Allow-Origin  {header.Origin}
		Access-Control-Allow-Headers Authorization
		Access-Control-Expose-Headers WWW-Authenticate
	}
	handle /page {
		reverse_proxy UPSTREAM
	}
	handle /report {
		reverse_proxy UPSTREAM
	}
	handle /oauth/revoke {
		token_revocation
	}
	@preflight {
		path /api
		method OPTIONS
	}
	handle /api {
		token_denylist {
			require_token
		}
		respond @preflight 204
		reverse_proxy UPSTREAM
	}
	handle {
		token_denylist {
			inspect cookie access_token
			require_token
			cut_streams
		}
		reverse_proxy UPSTREAM
	}
}
`
		head, _, found := strings.Cut(config, "\n\t# The revocation endpoint (RFC 7009).\n")
		if !found {
			t.Fatal("Caddyfile.example is not what it was")
		}
		// The page and the API have two origins.
		head = strings.Replace(head, "http://localhost:8080 {", "http://localhost:8080, http://127.0.0.1:8080 {", 1)
		return head + strings.ReplaceAll(site, "UPSTREAM", upstream.address)
	}).run()
	token := e.mintFor("alice")
	_, port, _ := net.SplitHostPort(e.address)
	chromium(t, fmt.Sprintf("http://%s/page#%s", e.address, url.Values{
		"token": {token}, "api": {"http://localhost:" + port + "/api"}, // another origin than 127.0.0.1
	}.Encode()))

	upstream.expect(t, nil, "events open", "socket open", "answer 200")
	e.revoke(token)
	upstream.expect(t, func(got report) {
		switch {
		case got.What == "answer 401" && !strings.Contains(got.Detail, `error="invalid_token"`):
			t.Errorf("the page reads the challenge %q", got.Detail)
		case got.What == "socket closed" && got.Detail != "1006":
			t.Errorf("the WebSocket ended with %s, not as an abnormal closure (1006)", got.Detail)
		}
	}, "events closed", "socket closed", "answer 401")
}
