//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// echo is an upstream that keeps the bytes of every request as they arrive. It is
// a TCP server of its own, so that nothing is lost or corrected by a library
// before it is written down.
type echo struct {
	address string

	mu       sync.Mutex
	arrivals map[string][]*arrival // by the id in the request
}

// arrival is one request as the upstream got it.
type arrival struct {
	head    string // up to and with the empty line
	body    string // without the framing of chunks
	trailer string
	rest    string // what came on the connection after it
}

// attackID is in the target of every request of the table.
var attackID = regexp.MustCompile(`k1x\d+x`)

// otherID is in requests that go before the one in question.
const otherID = "k1x0x"

func startEcho(t testing.TB) *echo {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &echo{address: listener.Addr().String(), arrivals: map[string][]*arrival{}}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { e.serve(conn) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		serving.Wait()
	})
	return e
}

// serve answers one request, and writes down whatever else the connection brings
// until it is closed from the other side.
func (e *echo) serve(conn net.Conn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(60 * time.Second))
	r := bufio.NewReader(conn)
	var a arrival
	for !strings.HasSuffix(a.head, "\r\n\r\n") {
		line, err := r.ReadString('\n')
		if a.head += line; err != nil {
			if a.head != "" {
				e.add(a)
			}
			return
		}
	}
	fields := a.fields()
	if strings.EqualFold(fields.Get("Expect"), "100-continue") {
		_, _ = io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\n")
	}
	complete := a.readBody(r, fields)
	kept := e.add(a)
	if !complete {
		return
	}
	_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\necho")
	_ = conn.(*net.TCPConn).CloseWrite()
	if rest, _ := io.ReadAll(r); len(rest) > 0 {
		e.mu.Lock()
		defer e.mu.Unlock()
		kept.rest = string(rest)
	}
}

func (a *arrival) fields() http.Header {
	_, text, _ := strings.Cut(a.head, "\r\n")
	fields, _ := textproto.NewReader(bufio.NewReader(strings.NewReader(text))).ReadMIMEHeader()
	return http.Header(fields)
}

// readBody tells whether the body came to its end. With both ways of framing, it
// keeps whatever there is.
func (a *arrival) readBody(r *bufio.Reader, fields http.Header) bool {
	var body bytes.Buffer
	defer func() { a.body += body.String() }()
	if fields.Get("Transfer-Encoding") == "" {
		length, _ := strconv.Atoi(fields.Get("Content-Length"))
		_, err := io.CopyN(&body, r, int64(length))
		return err == nil
	}
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return false
		}
		size, err := strconv.ParseInt(strings.TrimSpace(line), 16, 64)
		if err != nil {
			body.WriteString(line)
			return false
		}
		if size == 0 {
			for { // the trailer
				line, err := r.ReadString('\n')
				a.trailer += line
				if err != nil || line == "\r\n" {
					return err == nil
				}
			}
		}
		if _, err := io.CopyN(&body, r, size); err != nil {
			return false
		}
		if _, err := r.Discard(2); err != nil {
			return false
		}
	}
}

func (e *echo) add(a arrival) *arrival {
	id := attackID.FindString(a.head)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.arrivals[id] = append(e.arrivals[id], &a)
	return &a
}

// of returns what has arrived so far with this id.
func (e *echo) of(id string) (arrived []arrival) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, a := range e.arrivals[id] {
		arrived = append(arrived, *a)
	}
	return arrived
}

// holds tells whether the token is anywhere in the bytes that arrived: as it is,
// or percent-encoded, padded, broken by white space or in the other alphabet. Of
// a JWT, the claims are what is looked for: a new signature, or the old one in
// another spelling, makes no other token of it.
func (a *arrival) holds(token string) bool {
	want := token
	if p := strings.Split(token, "."); len(p) > 2 && len(p[1]) > 40 {
		want = p[1]
	}
	if want = squash(want); len(want) < 16 {
		return strings.Contains(a.head, token) || strings.Contains(a.body, token)
	}
	want = want[:len(want)-1] // the spare bits
	for _, text := range []string{a.head, a.body, a.trailer, a.rest} {
		for range 2 {
			if strings.Contains(squash(text), want) {
				return true
			}
			text = unescapePercents(text)
		}
	}
	return false
}

// squash drops what lenient decoders of base64 drop.
func squash(text string) string {
	b := make([]byte, 0, len(text))
	for i := range len(text) {
		switch c := text[i]; {
		case c == '+':
			b = append(b, '-')
		case c == '/':
			b = append(b, '_')
		case strings.IndexByte(base64url, c) >= 0:
			b = append(b, c)
		}
	}
	return string(b)
}

var percents = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)

func unescapePercents(text string) string {
	return percents.ReplaceAllStringFunc(text, func(escape string) string {
		c, _ := strconv.ParseUint(escape[1:], 16, 8)
		return string([]byte{byte(c)})
	})
}

// parsed returns the tokens that a receiver finds with net/http in the places of
// the table's routes.
func (a *arrival) parsed() (tokens []string) {
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(a.head)))
	if err != nil {
		return []string{fmt.Sprintf("not a request: %v", err)}
	}
	for _, name := range []string{"Authorization", "X-Access-Token"} {
		for _, value := range r.Header[name] {
			if scheme, token, ok := strings.Cut(value, " "); ok && (strings.EqualFold(scheme, "Bearer") || strings.EqualFold(scheme, "DPoP")) {
				value = strings.TrimSpace(token)
			}
			tokens = append(tokens, value)
		}
	}
	for _, c := range r.Cookies() {
		if c.Name == "session" {
			tokens = append(tokens, c.Value)
		}
	}
	tokens = append(tokens, r.URL.Query()["access_token"]...)
	if strings.Contains(strings.ToLower(r.Header.Get("Content-Type")), "form") || r.Header.Get("Content-Type") == "" {
		form, _ := url.ParseQuery(a.body)
		tokens = append(tokens, form["access_token"]...)
	}
	return tokens
}
