//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// receivers are servers behind an edge that say which tokens they see, each behind
// a route of every kind.
type receivers struct {
	Names  []string
	Direct []string   // their addresses
	Routes [][]string // addresses at the edge, by kind of route and receiver
	Tokens map[receivedKind]string
}

// receivedKind is what a token in a request is.
type receivedKind string

const (
	liveToken    receivedKind = "L" // allowed
	revokedToken receivedKind = "R"
	forgedToken  receivedKind = "G" // a JWT with a signature that is none
	opaqueToken  receivedKind = "O" // of nobody's
)

// routeKind is a configuration of token_denylist, and the places in which no
// receiver behind it may see another token than the live one.
type routeKind struct {
	name, options string
	places        []string
	// passesUnknown says that what is no JWT passes.
	passesUnknown bool
}

var allPlaces = []string{"authorization", "header", "cookie", "query", "form", "either"}

func everyPlace(action string, more ...string) string {
	var options strings.Builder
	for _, place := range append(more, "header X-Access-Token", "cookie access_token", "query access_token", "form access_token") {
		fmt.Fprintf(&options, "\t\t%s %s\n", action, place)
	}
	return options.String()
}

var routeKinds = []routeKind{
	{"default", "", []string{"authorization", "query"}, false},
	{"inspect", everyPlace("inspect"), allPlaces, false},
	{"strip", everyPlace("strip", "header Authorization"), allPlaces, false},
	{"reject", everyPlace("reject", "header Authorization"), allPlaces, false},
	{"pass_unknown", "\t\tpass_unknown\n", []string{"authorization", "query"}, true},
}

func startReceivers(t testing.TB) *receivers {
	t.Helper()
	r := &receivers{Names: []string{"Go", "Node", "nginx", "nginx that drops no field"}}
	r.Direct = append([]string{startGoReceiver(t), startNodeReceiver(t)}, startNginxReceivers(t)...)
	var sites strings.Builder
	for _, kind := range routeKinds {
		var addresses []string
		for _, upstream := range r.Direct {
			port := revocationtest.FreePort(t)
			addresses = append(addresses, fmt.Sprintf("127.0.0.1:%d", port))
			fmt.Fprintf(&sites, "\nhttp://:%d {\n\tbind 127.0.0.1\n\ttoken_denylist {\n%s\t}\n\treverse_proxy %s\n}\n", port, kind.options, upstream)
		}
		r.Routes = append(r.Routes, addresses)
	}
	e := newFirstEdge(t, func(config string) string { return config + sites.String() }).run()
	forged := e.mintFor("mallory")
	r.Tokens = map[receivedKind]string{
		liveToken: e.mintFor("alice"), revokedToken: e.mintFor("bob"), opaqueToken: "opaque-0123456789abcdefghijklmnop",
		forgedToken: forged[:strings.LastIndexByte(forged, '.')+1] + strings.Repeat("A", len(forged)-strings.LastIndexByte(forged, '.')-1),
	}
	e.revoke(r.Tokens[revokedToken])
	return r
}

func startNodeReceiver(t testing.TB) (address string) {
	t.Helper()
	if _, err := exec.LookPath("node"); err != nil {
		skipUnlessCI(t, "%v", err)
	}
	var started struct{ Port int }
	announced(t, newLogs(t, "Node"), &started, filepath.Join(root, "e2e", "receivers"), nil, "node", "node.mjs")
	return fmt.Sprintf("127.0.0.1:%d", started.Port)
}

func startNginxReceivers(t testing.TB) (addresses []string) {
	t.Helper()
	program, err := exec.LookPath("nginx")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/nginx"); err != nil { // where users other than root don't look
			skipUnlessCI(t, "%v", err)
		}
	}
	dir := t.TempDir()
	config := strings.ReplaceAll(readFile(t, "e2e", "receivers", "nginx.conf"), "DIR", dir)
	for _, placeholder := range []string{"STRICT", "LENIENT"} {
		port := fmt.Sprint(revocationtest.FreePort(t))
		config = strings.ReplaceAll(config, placeholder, port)
		addresses = append(addresses, "127.0.0.1:"+port)
	}
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, "nginx", newLogs(t, "nginx"), dir, nil, program, "-p", dir, "-c", file, "-e", "stderr")
	for _, address := range addresses {
		eventually(t, startDeadline, "nginx listens", func() (bool, string) {
			if p.ended() {
				t.Fatalf("nginx ended: %s", p.cmd.ProcessState)
			}
			conn, err := net.Dial("tcp", address)
			if err != nil {
				return false, err.Error()
			}
			_ = conn.Close()
			return true, ""
		})
	}
	return addresses
}

// request makes a request of a template, in which
//
//   - {L}, {R}, {G} and {O} are tokens, {%L} and so on the same with a letter
//     percent-encoded;
//   - {N} is the length of what follows the empty line;
//   - {C} after the empty line says that the rest is sent in chunks, with what
//     follows {T} as the trailer.
func (r *receivers) request(template string) []byte {
	var replacements []string
	for kind, token := range r.Tokens {
		replacements = append(replacements,
			fmt.Sprintf("{%s}", kind), token,
			fmt.Sprintf("{%%%s}", kind), fmt.Sprintf("%%%02x%s", token[0], token[1:]))
	}
	text := strings.NewReplacer(replacements...).Replace(template)
	head, body, found := strings.Cut(text, "\r\n\r\n")
	if !found {
		return []byte(text)
	}
	if content, chunked := strings.CutPrefix(body, "{C}"); chunked {
		content, trailer, _ := strings.Cut(content, "{T}")
		var chunks strings.Builder
		for part := range slices.Chunk([]byte(content), max(1, len(content)/3)) {
			fmt.Fprintf(&chunks, "%x\r\n%s\r\n", len(part), part)
		}
		if trailer != "" {
			trailer += "\r\n"
		}
		body = chunks.String() + "0\r\n" + trailer + "\r\n"
	}
	return []byte(strings.Replace(head, "{N}", fmt.Sprint(len(body)), 1) + "\r\n\r\n" + body)
}

// seen is what came of one request at one receiver.
type seen struct {
	receiver string
	statuses []int
	reached  bool // the receiver answered
	sighted  []sighting
}

// farewell follows a request that may be several ones, or the beginning of one.
const farewell = "GET /farewell HTTP/1.1\r\nHost: farewell\r\nConnection: close\r\n\r\n"

// exchange sends bytes, and reads all answers, or only the first one if the bytes
// are known to be one request.
func (r *receivers) exchange(receiver, address string, raw []byte, one bool) (seen, error) {
	s := seen{receiver: receiver}
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return s, err
	}
	defer conn.Close()
	patience := 10 * time.Second
	if !one {
		patience, raw = 500*time.Millisecond, append(slices.Clip(raw), farewell...)
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	_, _ = conn.Write(raw) // it may be answered and closed before all is read
	for reader := bufio.NewReader(conn); ; {
		resp, err := http.ReadResponse(reader, nil)
		if err != nil {
			if !one || !errors.Is(err, os.ErrDeadlineExceeded) {
				err = nil // the last answer may be cut off, or never come
			}
			return s, err
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusContinue {
			continue
		}
		s.statuses = append(s.statuses, resp.StatusCode)
		if resp.Header.Get("X-Receiver") != "" {
			s.reached = true
			complete := body[:bytes.LastIndexByte(body, '\n')+1]
			found, err := readSightings(string(complete))
			if err != nil {
				return s, err
			}
			s.sighted = append(s.sighted, found...)
		}
		if one || err != nil {
			return s, nil
		}
	}
}

// send sends a request to all receivers at the same time.
func (r *receivers) send(addresses []string, raw []byte, one bool) ([]seen, error) {
	all := make([]seen, len(addresses))
	errs := make([]error, len(addresses))
	var sent sync.WaitGroup
	for i, address := range addresses {
		sent.Go(func() { all[i], errs[i] = r.exchange(r.Names[i], address, raw, one) })
	}
	sent.Wait()
	return all, errors.Join(errs...)
}

// unjudged tells which token a receiver behind such a route should not have seen,
// "" for none.
//
// A revoked or forged JWT must not be anywhere in what is read. An opaque token
// counts only if it is what was read, by a receiver that looks at the scheme: in
// a field of another scheme it can't be told from that scheme's credentials.
func (r *receivers) unjudged(kind routeKind, s sighting) receivedKind {
	if !slices.Contains(kind.places, s.place) {
		return ""
	}
	value := s.value
	if s.place != "authorization" && s.place != "header" {
		if decoded, err := url.PathUnescape(value); err == nil {
			value += "\n" + decoded
		}
	}
	for _, kindOf := range []receivedKind{revokedToken, forgedToken} {
		token := r.Tokens[kindOf]
		if kind.passesUnknown && slices.Contains(strings.FieldsFunc(value, func(c rune) bool { return strings.ContainsRune(" \t\n\",;=\\", c) }), token) ||
			!kind.passesUnknown && strings.Contains(value, token) {
			return kindOf
		}
	}
	known := s.way != "raw" && !strings.HasPrefix(s.way, "blind")
	if known && !kind.passesUnknown && strings.Trim(s.value, " \t\"\\") == r.Tokens[opaqueToken] {
		return opaqueToken
	}
	return ""
}

// check sends a request through all routes of a kind, and fails the test if a
// receiver sees a token that it should not. It returns what they saw.
func (r *receivers) check(t testing.TB, kind int, template string, one bool) []seen {
	t.Helper()
	all, err := r.send(r.Routes[kind], r.request(template), one)
	if err != nil {
		t.Fatalf("%q: %v", template, err)
	}
	var wrong strings.Builder
	for _, s := range all {
		for _, found := range s.sighted {
			if token := r.unjudged(routeKinds[kind], found); token != "" {
				fmt.Fprintf(&wrong, "\n%s sees {%s} in place %s, in the way %q: %s", s.receiver, token, found.place, found.way, found.value)
				break
			}
		}
	}
	if wrong.Len() > 0 {
		t.Errorf("route %s: %q%s", routeKinds[kind].name, template, &wrong)
	}
	return all
}
