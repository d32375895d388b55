//go:build e2e

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// shot is what is put into a request of the table before it is sent.
type shot struct {
	host, id    string
	token, live string // the token of the row, and another one that nobody revokes
}

// fill replaces $HOST, $ID, $T, $L and, with every byte percent-encoded, $P.
func (s shot) fill(template string) string {
	percent := ""
	if strings.Contains(template, "$P") {
		percent = fmt.Sprintf("% X", s.token)
		percent = "%" + strings.ReplaceAll(percent, " ", "%")
	}
	return strings.NewReplacer("$HOST", s.host, "$ID", s.id, "$T", s.token, "$L", s.live, "$P", percent).Replace(template)
}

// wire makes the bytes of a request of HTTP/1.
type wire func(s shot) string

// text is a request as it stands.
func text(template string) wire {
	return func(s shot) string { return s.fill(template) }
}

// get is a GET request with these header lines.
func get(lines ...string) wire { return target("GET", "/api/$ID", lines...) }

// query is a GET request with this query.
func query(q string, lines ...string) wire { return target("GET", "/api/$ID?"+q, lines...) }

func target(method, path string, lines ...string) wire {
	return text(method + " " + path + " HTTP/1.1\r\n" + head(lines))
}

func head(lines []string) string {
	b := "Host: $HOST\r\n"
	for _, line := range lines {
		b += line + "\r\n"
	}
	return b + "\r\n"
}

const urlencoded = "Content-Type: application/x-www-form-urlencoded"

// form is a POST of a form; body is one with other lines.
func form(content string, lines ...string) wire { return body(content, append(lines, urlencoded)...) }

func body(content string, lines ...string) wire { return send("POST", content, lines...) }

func send(method, content string, lines ...string) wire {
	return func(s shot) string {
		content := s.fill(content)
		lines := append(slices.Clip(lines), fmt.Sprintf("Content-Length: %d", len(content)))
		return s.fill(method+" /api/$ID HTTP/1.1\r\n"+head(lines)) + content
	}
}

// chunked is a form in chunks of so many bytes, each size followed by extension.
func chunked(size int, extension, trailer, content string, lines ...string) wire {
	return func(s shot) string {
		b := s.fill("POST /api/$ID HTTP/1.1\r\n" + head(append(slices.Clip(lines), urlencoded, "Transfer-Encoding: chunked")))
		for rest := s.fill(content); rest != ""; {
			n := min(size, len(rest))
			b += fmt.Sprintf("%x%s\r\n%s\r\n", n, extension, rest[:n])
			rest = rest[n:]
		}
		return b + "0\r\n" + s.fill(trailer) + "\r\n"
	}
}

// reply is what a client sees of the answer.
type reply struct {
	status    int // zero if there is none
	challenge string
	err       error
}

// connection is a client's, of HTTP/1.
type connection struct {
	net.Conn
	r *bufio.Reader
}

func dial(address string) (*connection, error) {
	conn, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		return nil, err
	}
	return &connection{conn, bufio.NewReader(conn)}, nil
}

// ask sends bytes and reads so many answers; the last one counts.
func (c *connection) ask(bytes string, answers int) (last reply) {
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	method, _, _ := strings.Cut(bytes, " ")
	sent := make(chan struct{})
	go func() { // a refusal may come before the end of what is sent
		defer close(sent)
		_, _ = io.WriteString(c, bytes)
	}()
	for range answers {
		resp, err := http.ReadResponse(c.r, &http.Request{Method: method})
		for err == nil && resp.StatusCode == http.StatusContinue {
			resp, err = http.ReadResponse(c.r, &http.Request{Method: method})
		}
		if err != nil {
			last = reply{err: err}
			break
		}
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		last = reply{resp.StatusCode, strings.Join(resp.Header["Www-Authenticate"], " "), err}
	}
	if last.err != nil || last.status >= 400 {
		_ = c.SetDeadline(time.Now().Add(time.Second)) // what it does not want, it need not read
	}
	<-sent
	return last
}

// once is ask on a connection of its own.
func once(address, bytes string, answers int) reply {
	c, err := dial(address)
	if err != nil {
		return reply{err: err}
	}
	defer c.Close()
	return c.ask(bytes, answers)
}
