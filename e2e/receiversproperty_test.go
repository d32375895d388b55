//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// What receivers behind an edge see of a token has to be what the edge judged. The
// tests of this file send requests in which parsers differ through edges to real
// servers, which read them in the ways that are usual there.
//
// receiversTime is how long requests are made up, unless the environment variable
// RECEIVERS has another time.
const receiversTime = 15 * time.Second

// controls are requests in which a receiver sees a token, or several ones.
var controls = []struct {
	place, template string
	receivers       []string // which ones, if not all
	// answer is that of the route that inspects all places, if the token is live; 0
	// for any.
	answer int
}{
	{"authorization", "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {X}\r\n\r\n", nil, 200},
	{"authorization", "GET / HTTP/1.1\r\nHost: a\r\nauthorization:  bEARER  {X}\t\r\n\r\n", nil, 200},
	{"authorization", "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: DPoP {X}\r\n\r\n", nil, 200},
	{"authorization", "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer\r\n {X}\r\n\r\n", []string{"Go"}, 200},
	{"authorization", "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {X}\r\nAuthorization: Bearer {X}\r\n\r\n", []string{"Go", "Node"}, 400},
	{"authorization", "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Token {X}\r\n\r\n", nil, 400},
	{"header", "GET / HTTP/1.1\r\nHost: a\r\nX-Access-Token: {X}\r\n\r\n", nil, 200},
	{"header", "GET / HTTP/1.1\r\nHost: a\r\nx-access-token: Bearer {X}\r\n\r\n", nil, 200},
	{"header", "GET / HTTP/1.1\r\nHost: a\r\nX_Access_Token: {X}\r\n\r\n", []string{"Go", "Node", "nginx that drops no field"}, 0}, // Caddy drops it
	{"cookie", "GET / HTTP/1.1\r\nHost: a\r\nCookie: access_token={X}\r\n\r\n", nil, 200},
	{"cookie", "GET / HTTP/1.1\r\nHost: a\r\nCookie: a=b\r\nCookie: c=d;access_token=\"{X}\";e=f\r\n\r\n", nil, 200},
	{"cookie", "GET / HTTP/1.1\r\nHost: a\r\nCookie: ACCESS_TOKEN={X}\r\n\r\n", []string{"nginx"}, 400},
	{"cookie", "GET / HTTP/1.1\r\nHost: a\r\nCookie: a=b,access_token={X}\r\n\r\n", []string{"Node", "nginx"}, 400},
	{"cookie", "GET / HTTP/1.1\r\nHost: a\r\nCookie: a=\"b; access_token={X}; c=\"\r\n\r\n", nil, 400},
	{"cookie", "GET / HTTP/1.1\r\nHost: a\r\nCookie: \xa0access_token={X}\r\n\r\n", []string{"Node"}, 400},
	{"cookie", "GET / HTTP/1.1\r\nHost: a\r\nCookie: a=b%3B%20access_token={X}\r\n\r\n", []string{"Node"}, 400},
	{"query", "GET /?access_token={X} HTTP/1.1\r\nHost: a\r\n\r\n", nil, 200},
	{"query", "GET http://a/b?c=d&access%5Ftoken={X}& HTTP/1.1\r\nHost: a\r\n\r\n", []string{"Go", "Node"}, 200},
	{"query", "GET /?Access_Token={X} HTTP/1.1\r\nHost: a\r\n\r\n", []string{"nginx"}, 400},
	{"query", "GET /?a;access_token={X} HTTP/1.1\r\nHost: a\r\n\r\n", []string{"Go", "Node"}, 400},
	{"query", "GET /?access_token[]={X} HTTP/1.1\r\nHost: a\r\n\r\n", []string{"Node"}, 400},
	{"query", "GET /?a=b?access_token={X} HTTP/1.1\r\nHost: a\r\n\r\n", []string{"Node"}, 400},
	{"form", "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {N}\r\n\r\naccess_token={X}", []string{"Go", "Node"}, 200},
	{"form", "PUT / HTTP/1.1\r\nHost: a\r\nContent-Type: Application/X-WWW-form-urlencoded;charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n{C}a=b&access_token={X}&", []string{"Go", "Node"}, 200},
	{"form", "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=frontier\r\nContent-Length: {N}\r\n\r\n--frontier\r\nContent-Disposition: form-data; name=\"access_token\"\r\n\r\n{X}\r\n--frontier--\r\n", []string{"Go", "Node"}, 415},
	{"form", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {N}\r\n\r\naccess_token={X}", []string{"Node"}, 200},
	{"form", "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nConnection: Content-Type\r\nContent-Length: {N}\r\n\r\naccess_token={X}", []string{}, 400},
	{"header", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Access-Token\r\n\r\n{C}a{T}X-Access-Token: {X}", []string{"Go", "Node"}, 400},
	{"header", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-A\r\n X-B: {X}\r\n\r\n{C}a", []string{}, 400}, // for the log
}

// TestReceiversSeeWhatWasJudged first has the receivers show that they find tokens
// where the tests look for them, and that the edge lets through what it should.
// Then it sends them requests that are made up by chance, the same ones each time.
func TestReceiversSeeWhatWasJudged(t *testing.T) {
	r := startReceivers(t)
	t.Run("controls", func(t *testing.T) { r.controls(t) })
	if t.Failed() {
		return
	}
	limit := receiversTime
	if text := os.Getenv("RECEIVERS"); text != "" {
		var err error
		if limit, err = time.ParseDuration(text); err != nil {
			t.Fatalf("RECEIVERS: %v", err)
		}
	}
	r.madeUp(t, limit)
}

func (r *receivers) controls(t *testing.T) {
	for _, c := range controls {
		revoked := strings.ReplaceAll(c.template, "X}", "R}")
		all, err := r.send(r.Direct, r.request(revoked), true)
		if err != nil {
			t.Fatalf("%q: %v", revoked, err)
		}
		for _, s := range all {
			if (c.receivers == nil || slices.Contains(c.receivers, s.receiver)) && !r.sees(s, c.place, revokedToken) {
				t.Errorf("%q: %s does not see the token in place %s: %+v", revoked, s.receiver, c.place, s)
			}
		}
		for kind, route := range routeKinds {
			r.check(t, kind, revoked, true)
			r.check(t, kind, strings.ReplaceAll(c.template, "X}", "G}"), true)
			live := strings.ReplaceAll(c.template, "X}", "L}")
			for _, s := range r.check(t, kind, live, true) {
				if route.name != "inspect" || c.answer == 0 {
					continue
				}
				if !slices.Equal(s.statuses, []int{c.answer}) {
					t.Errorf("%q: %s answers %d, want %d", live, s.receiver, s.statuses, c.answer)
				}
				if c.answer == 200 && slices.Contains(c.receivers, s.receiver) && !r.sees(s, c.place, liveToken) {
					t.Errorf("%q: %s does not see the token that was let through: %+v", live, s.receiver, s)
				}
			}
		}
	}
}

func (r *receivers) sees(s seen, place string, kind receivedKind) bool {
	return slices.ContainsFunc(s.sighted, func(found sighting) bool {
		return found.place == place && strings.Contains(found.value, r.Tokens[kind])
	})
}

func (r *receivers) madeUp(t *testing.T, limit time.Duration) {
	requests := 0
	var let, withToken [8]int // by kind of route
	for began := time.Now(); time.Since(began) < limit && !t.Failed(); requests++ {
		m := requestMaker{rand.New(rand.NewPCG(7009, uint64(requests)))}
		kind := m.IntN(len(routeKinds))
		for _, s := range r.check(t, kind, m.request(), true) {
			if !s.reached {
				continue
			}
			let[kind]++
			if slices.ContainsFunc(s.sighted, func(found sighting) bool { return strings.Contains(found.value, r.Tokens[liveToken]) }) {
				withToken[kind]++
			}
		}
	}
	for kind, route := range routeKinds {
		t.Logf("route %s: %d requests reached a receiver, %d with the live token", route.name, let[kind], withToken[kind])
		inspects := route.name != "strip" && route.name != "reject"
		if requests > 1000 && (let[kind] < 50 || inspects && withToken[kind] < 50) {
			t.Errorf("route %s: next to nothing of %d requests arrives, so that this test shows nothing", route.name, requests)
		}
	}
	t.Logf("%d requests, each to %d receivers", requests, len(r.Names))
}

// rigVariable is set by the process that coordinates fuzzing, for its workers: these
// are killed without a chance to end what they started.
const rigVariable = "E2E_RECEIVERS"

// sharedReceivers starts receivers, once for all workers.
func sharedReceivers(f *testing.F) (r *receivers) {
	f.Helper()
	if shared := os.Getenv(rigVariable); shared != "" {
		if err := json.Unmarshal([]byte(shared), &r); err != nil {
			f.Fatal(err)
		}
		return r
	}
	r = startReceivers(f)
	shared, err := json.Marshal(r)
	if err != nil {
		f.Fatal(err)
	}
	f.Setenv(rigVariable, string(shared))
	f.Setenv(binaryVariable, binary)
	return r
}

// FuzzReceivers is the same for bytes that are no request, half of one, or several.
func FuzzReceivers(f *testing.F) {
	for kind := range routeKinds {
		for _, c := range controls {
			f.Add(uint8(kind), strings.ReplaceAll(c.template, "X}", "R}"))
		}
		for i := range uint64(20) {
			f.Add(uint8(kind), requestMaker{rand.New(rand.NewPCG(uint64(kind), i))}.request())
		}
		for _, token := range []string{"{L}", "{R}"} {
			f.Add(uint8(kind), fmt.Sprintf("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\na=bcGET / HTTP/1.1\r\nHost: b\r\nAuthorization: Bearer %s\r\n\r\n", token))
		}
		f.Add(uint8(kind), "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\nAuthorization: Bearer {R}\r\nHost: b\r\n\r\n")
		f.Add(uint8(kind), "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: {R}\r\n\r\n")
		f.Add(uint8(kind), "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: {O}\r\n\r\n")
	}
	r := sharedReceivers(f)
	f.Fuzz(func(t *testing.T, kind uint8, template string) {
		if len(template) > 16<<10 {
			return
		}
		r.check(t, int(kind)%len(routeKinds), template, false)
	})
}
