//go:build e2e

package e2e

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// asFault is what goes wrong between an edge and an authorization server.
type asFault int

const (
	asWell      asFault = iota
	asDown              // connections are closed
	asSilent            // no answer
	asGarbage           // 200 with a page that is none of the server's
	asRefusal           // 200 with an error in it
	asFailing           // 500
	asLost              // the server gets the request, and its answer is lost
	asSwallowed         // likewise, and the edge keeps waiting for it
)

func (f asFault) String() string {
	return [...]string{"well", "down", "silent", "answering garbage", "answering 200 with an error", "failing", "cut off after the request", "silent after the request"}[f]
}

// asFront is a proxy between edges and an authorization server that can go wrong,
// on one path or on all.
type asFront struct {
	*httptest.Server
	target *url.URL
	gone   chan struct{} // closed at the end, for those who wait for an answer

	mu    sync.Mutex
	fault asFault
	path  string
	seen  map[string]int // path → requests
}

func startFront(t testing.TB, issuer string) *asFront {
	t.Helper()
	target, err := url.Parse(issuer)
	if err != nil {
		t.Fatal(err)
	}
	target.Path = "" // requests have the whole path
	f := &asFront{target: target, gone: make(chan struct{}), seen: map[string]int{}}
	transport := &http.Transport{MaxIdleConnsPerHost: 8}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host
		},
		Transport:    transport,
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f.serve(proxy, w, r) }))
	t.Cleanup(func() {
		close(f.gone)
		f.CloseClientConnections()
		f.Close()
		transport.CloseIdleConnections()
	})
	return f
}

// set makes requests for paths that end so go wrong; an empty path is every one.
func (f *asFront) set(fault asFault, path string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault, f.path = fault, path
}

// requests returns how often paths were asked for that end so.
func (f *asFront) requests(path string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen[path]
}

func (f *asFront) serve(proxy http.Handler, w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.seen[r.URL.Path]++
	fault := f.fault
	if !strings.HasSuffix(r.URL.Path, f.path) {
		fault = asWell
	}
	f.mu.Unlock()
	switch fault {
	case asDown:
		panic(http.ErrAbortHandler)
	case asSilent:
		_, _ = io.Copy(io.Discard, r.Body)
		f.wait(r)
	case asGarbage:
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<!doctype html><title>Welcome</title><p>It works!")
	case asRefusal:
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"error": "invalid_token"}`)
	case asFailing:
		w.WriteHeader(http.StatusInternalServerError)
	case asLost:
		proxy.ServeHTTP(&deafWriter{header: http.Header{}}, r)
		panic(http.ErrAbortHandler)
	case asSwallowed:
		proxy.ServeHTTP(&deafWriter{header: http.Header{}}, r)
		f.wait(r)
	default:
		proxy.ServeHTTP(w, r)
	}
}

// wait gives no answer for as long as somebody waits for one.
func (f *asFront) wait(r *http.Request) {
	select {
	case <-f.gone:
	case <-r.Context().Done():
	}
	panic(http.ErrAbortHandler)
}

// deafWriter forgets an answer.
type deafWriter struct{ header http.Header }

func (w *deafWriter) Header() http.Header         { return w.header }
func (w *deafWriter) WriteHeader(int)             {}
func (w *deafWriter) Write(p []byte) (int, error) { return len(p), nil }

// fronted are two edges before one authorization server, with one ledger. On each
// there is
//
//   - the server's own revocation endpoint, by way of token_revocation upstream;
//   - an endpoint of the edge's, which knows the server's clients;
//   - an introspection endpoint, at which asBatch may ask about everything;
//   - an API that refuses what was revoked.
type fronted struct {
	t             testing.TB
	as            *authServer
	front         *asFront
	nats          *natsServer
	first, second *edge
}

// asHost is the name of the site that stands before the authorization server. The
// port is the edge's.
const asHost = "as.localhost"

// The answers of the authorization server are kept for longer than a test takes:
// what is refused within that time is refused because it was revoked.
const frontedCaddyfile = `{
	token_revocation {
		nats nats://NATS {
			create
		}
		heartbeat 500ms
		issuer ISSUER PRESET {
			KEYS
			introspection FRONT/INTROSPECT {
				client_id e2e-edge
				client_secret {env.E2E_EDGE}
				timeout 8s
				cache_ttl 5m
				breaker_failures off
			}
		}
		client e2e-service {env.E2E_SERVICE}
		client e2e-other {env.E2E_OTHER}
		client e2e-batch {env.E2E_BATCH} {
			introspect any
		}
	}
}

http://as.localhost:8080 {
	bind 127.0.0.1
	token_revocation REVOKE upstream {
		timeout 9s
	}
	@metadata path */.well-known/openid-configuration
	token_revocation_metadata @metadata upstream {
		revocation_endpoint https://edge.example.com/revoke upstream
		introspection_endpoint https://edge.example.com/introspect
	}
	reverse_proxy FRONTHOST
}

http://localhost:8080 {
	bind 127.0.0.1
	token_revocation /oauth/revoke
	token_introspection /oauth/introspect
	token_denylist {
		introspect 5m
	}
	respond "API"
}
`

// startFronted starts everything that is before s. Changes are of the Caddyfile.
func startFronted(t testing.TB, s *authServer, changes ...func(string) string) *fronted {
	t.Helper()
	f := &fronted{t: t, as: s, front: startFront(t, s.Issuer), nats: startNATSServer(t)}
	f.first, f.second = f.newEdge("first edge", changes...), f.newEdge("second edge", changes...)
	f.first.run()
	f.second.run()
	return f
}

func (f *fronted) newEdge(name string, changes ...func(string) string) *edge {
	f.t.Helper()
	preset, keys := "", "opaque"
	if f.as.jwt {
		keys = ""
	}
	if f.as.name == "django-oauth-toolkit" {
		preset = "django"
	}
	issuer, err := url.Parse(f.as.Issuer)
	if err != nil {
		f.t.Fatal(err)
	}
	config := strings.NewReplacer(
		"NATS", f.nats.addr, "ISSUER", f.as.Issuer, "PRESET", preset, "KEYS", keys,
		"FRONT/INTROSPECT", f.front.URL+issuer.Path+f.as.introspectPath, "FRONTHOST", strings.TrimPrefix(f.front.URL, "http://"),
		"REVOKE", issuer.Path+f.as.revokePath,
	).Replace(frontedCaddyfile)
	e := newEdge(f.t, name, apply(config, changes))
	e.env = append(e.env, "E2E_EDGE="+f.as.secrets[asEdge])
	for variable, client := range map[string]string{"E2E_SERVICE": asService, "E2E_OTHER": asOther, "E2E_BATCH": asBatch} {
		e.env = append(e.env, fmt.Sprintf("%s=sha256:%x", variable, sha256.Sum256([]byte(f.as.secrets[client]))))
	}
	for _, secret := range f.as.secrets {
		e.logs.forbid(secret)
	}
	return e
}

func (f *fronted) edges() []*edge { return []*edge{f.first, f.second} }

// way is one of the two ways to revoke at an edge.
type way struct {
	name     string
	upstream bool
}

var ways = []way{{"upstream", true}, {"endpoint", false}}

// revoke sends a revocation to an edge. A client without a secret sends its id in
// the form.
func (f *fronted) revoke(w way, e *edge, client, secret, token string) answer {
	f.t.Helper()
	form := url.Values{"token": {token}}
	if f.as.name == "fosite" && !f.as.saysUse && strings.HasPrefix(token, "ory_rt_") {
		// Nobody but the client can tell what it is for.
		form.Set("token_type_hint", "refresh_token")
	}
	if !w.upstream {
		return e.post(form, client, secret)
	}
	issuer, err := url.Parse(f.as.Issuer)
	if err != nil {
		f.t.Fatal(err)
	}
	e.logs.forbid(token)
	if secret == "" {
		form.Set("client_id", client)
	}
	req := e.request(http.MethodPost, e.address, issuer.Path+f.as.revokePath, strings.NewReader(form.Encode()))
	req.Host = asHost + e.address[strings.LastIndex(e.address, ":"):]
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header["Idempotency-Key"] = nil
	if secret != "" {
		req.SetBasicAuth(url.QueryEscape(client), url.QueryEscape(secret))
	}
	return e.do(req)
}

// wantPass expects that both edges let tokens pass, and with that makes both of
// them know what the authorization server says of them.
func (f *fronted) wantPass(what string, tokens ...string) {
	f.t.Helper()
	for _, token := range tokens {
		for _, e := range f.edges() {
			e.wantPass(what, token)
		}
	}
}

// wantRefused expects the same of both edges, of the other one than at a moment
// later.
func (f *fronted) wantRefused(what string, at *edge, token string) {
	f.t.Helper()
	at.wantRefused(what, token)
	for _, e := range f.edges() {
		e.eventuallyRefused(what, token)
	}
}

// wantIntrospected expects that both edges say this of a token to a service that
// asks them instead of the server.
func (f *fronted) wantIntrospected(what string, active bool, token string) {
	f.t.Helper()
	for _, e := range f.edges() {
		e.logs.forbid(token)
		req := e.request(http.MethodPost, e.address, "/oauth/introspect", strings.NewReader(url.Values{"token": {token}}.Encode()))
		req.Host = "localhost" + e.address[strings.LastIndex(e.address, ":"):]
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.SetBasicAuth(asBatch, f.as.secrets[asBatch])
		a := e.do(req)
		var members map[string]any
		err := json.Unmarshal([]byte(a.body), &members)
		switch {
		case err != nil, a.status != http.StatusOK, members["active"] != active:
			f.t.Errorf("%s: introspecting %s: want active: %t: %v %s", e.name, what, active, err, a)
		case !active && a.body != `{"active":false}`:
			f.t.Errorf("%s: introspecting %s: more than that it is not active: %s", e.name, what, a)
		case active && members["client_id"] != asService:
			f.t.Errorf("%s: introspecting %s: not the client's: %s", e.name, what, a)
		}
	}
}

// entries counts what the edges hold, after both know the same.
func (f *fronted) entries() (n int) {
	f.t.Helper()
	eventually(f.t, 15*time.Second, "the edges know the same", func() (bool, string) {
		a, b := f.first.status(), f.second.status()
		n = a.Denylist.Entries
		return a.State == "in_sync" && a.Denylist.Entries == b.Denylist.Entries && a.Ledger.Sequence == b.Ledger.Sequence,
			fmt.Sprintf("%+v %+v", a, b)
	})
	return n
}

// wantNothingRecorded runs do and expects that it changes nothing that the edges
// hold.
func (f *fronted) wantNothingRecorded(what string, do func()) {
	f.t.Helper()
	before := f.entries()
	do()
	if now := f.entries(); now != before {
		f.t.Errorf("%s: %d entries recorded", what, now-before)
	}
}
