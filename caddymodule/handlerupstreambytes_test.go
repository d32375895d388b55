package caddymodule

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// PRX-01: with the handler, the authorization server gets byte for byte what it
// gets without it, and so does the client.
func TestBytesPassThroughUnchanged(t *testing.T) {
	s := newSite(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	requests := make(chan string, 10)
	var reply string
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			var got []byte
			buffer := make([]byte, 64<<10)
			for !complete(got) {
				n, err := conn.Read(buffer)
				if got = append(got, buffer[:n]...); err != nil {
					break
				}
			}
			requests <- string(got)
			_, _ = io.WriteString(conn, reply)
			_ = conn.Close()
		}
	}()
	s.mustLoad(demo, fmt.Sprintf(`
	route /ours/* {
		uri strip_prefix /ours
		token_revocation upstream
		reverse_proxy %[1]s {
			transport http {
				keepalive off
			}
		}
	}
	route /bare/* {
		uri strip_prefix /bare
		reverse_proxy %[1]s {
			transport http {
				keepalive off
			}
		}
	}
	token_denylist /
`, l.Addr()))
	body := func() string { return "token=" + aliceToken(s) + "&client_id=demo%2Dapp&&x=%20+%c3%A9&y" }
	fields := "Host: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded; charset=UTF-8\r\nx-oDD: 1\r\nX-Odd: 2\r\n" +
		"Cookie: a=b\r\nAccept-Encoding: gzip, br\r\nConnection: close\r\n"
	basic := "Authorization: Basic ZGVtby1hcHA6c2VjcmV0\r\n"
	for name, request := range map[string]func(path, body string) string{
		"with a length": func(path, body string) string {
			return fmt.Sprintf("POST %s?tenant=a%%20b HTTP/1.1\r\n%s%sContent-Length: %d\r\n\r\n%s", path, fields, basic, len(body), body)
		},
		"in chunks, with a trailer": func(path, body string) string {
			return fmt.Sprintf("POST %s HTTP/1.1\r\n%sTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n%x\r\n%s\r\n0\r\nX-Sum: 7\r\n\r\n",
				path, fields, 5, body[:5], len(body)-5, body[5:])
		},
		"expecting 100": func(path, body string) string {
			return fmt.Sprintf("POST %s HTTP/1.1\r\n%sExpect: 100-continue\r\nContent-Length: %d\r\n\r\n%s", path, fields, len(body), body)
		},
		"preflight": func(path, _ string) string {
			return fmt.Sprintf("OPTIONS %s HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: https://app.example\r\nConnection: close\r\n\r\n", path)
		},
	} {
		for replyName, r := range map[string]string{
			"200":      "HTTP/1.1 200 OK\r\nDate: Sat, 01 Jan 2028 00:00:00 GMT\r\nServer: as\r\nX-Twice: 1\r\nX-Twice: 2\r\nSet-Cookie: a=b\r\nContent-Length: 2\r\n\r\n{}",
			"empty":    "HTTP/1.1 200 OK\r\nDate: Sat, 01 Jan 2028 00:00:00 GMT\r\nContent-Length: 0\r\n\r\n",
			"chunked":  "HTTP/1.1 200 OK\r\nDate: Sat, 01 Jan 2028 00:00:00 GMT\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
			"trailers": "HTTP/1.1 200 OK\r\nDate: Sat, 01 Jan 2028 00:00:00 GMT\r\nContent-Type: application/json\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX-Sum: 7\r\n\r\n",
			"hints":    "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nDate: Sat, 01 Jan 2028 00:00:00 GMT\r\nContent-Length: 2\r\n\r\n{}",
			"401":      "HTTP/1.1 401 Unauthorized\r\nDate: Sat, 01 Jan 2028 00:00:00 GMT\r\nWWW-Authenticate: Basic realm=\"as\"\r\nContent-Length: 2\r\n\r\n{}",
			"500":      "HTTP/1.1 500 Oh\r\nDate: Sat, 01 Jan 2028 00:00:00 GMT\r\nContent-Length: 2\r\n\r\noh",
		} {
			t.Run(name+", "+replyName, func(t *testing.T) {
				reply = r
				b := body()
				bare := s.exchange(t, request("/bare/revoke", b))
				bareSeen := await(t, requests, bare)
				ours := s.exchange(t, request("/ours/revoke", b))
				oursSeen := await(t, requests, ours)
				if oursSeen != bareSeen {
					t.Errorf("the server gets\n%q\nand without the handler\n%q", oursSeen, bareSeen)
				}
				if ours != bare {
					t.Errorf("the client gets\n%q\nand without the handler\n%q", ours, bare)
				}
				if !strings.Contains(oursSeen, "revoke") || !strings.HasPrefix(ours, "HTTP/1.1 ") {
					t.Errorf("the test is broken: %q, %q", oursSeen, ours)
				}
			})
		}
	}
}

func await(t *testing.T, requests chan string, answer string) string {
	t.Helper()
	select {
	case r := <-requests:
		return r
	case <-time.After(10 * time.Second):
		t.Fatalf("the server has seen nothing; the client got %q", answer)
		return ""
	}
}

// complete tells whether a request has come as a whole.
func complete(b []byte) bool {
	head, body, ok := bytes.Cut(b, []byte("\r\n\r\n"))
	var length int
	for line := range strings.SplitSeq(string(head), "\r\n") {
		_, _ = fmt.Sscanf(line, "Content-Length: %d", &length)
	}
	if strings.Contains(string(head), "chunked") {
		return ok && bytes.HasSuffix(body, []byte("\r\n\r\n")) && bytes.Contains(body, []byte("0\r\n"))
	}
	return ok && len(body) >= length
}

// exchange sends bytes and returns those that come back until the end.
func (s *site) exchange(t *testing.T, request string) string {
	t.Helper()
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}
