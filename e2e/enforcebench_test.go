//go:build e2e

package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/denylist"
)

// What token_denylist costs in front of an upstream, next to Caddy without this
// module doing the same. With -short, of little, to see that it works.

// enforceSize is how much is measured.
type enforceSize struct {
	tokens, small, large, huge int // numbers
	pairs                      int
	during                     time.Duration // of one half of a pair
	connections                int
}

func newEnforceSize() enforceSize {
	if testing.Short() {
		return enforceSize{tokens: 200, small: 100, large: 1000, huge: 2000, pairs: 3, during: 100 * time.Millisecond, connections: 4}
	}
	return enforceSize{tokens: 10_000, small: 10_000, large: 1_000_000, huge: 10_000_000, pairs: 21, during: time.Second, connections: 16}
}

// protected is the Caddyfile of one side: a reverse proxy before the upstream.
func protected(upstream, directive string) string {
	return fmt.Sprintf("http://localhost:8080 {\n\tbind 127.0.0.1\n\t%s\n\treverse_proxy %s\n}\n", directive, upstream)
}

// newProtected is an edge that holds a number of revocations, of which none names
// any of the tokens that are sent to it: one in two of them a token, the others
// users, sessions, clients and the client's users. All tokens that are sent find
// room in its cache, which those of 10,000 users would not in the default one.
func newProtected(b *testing.B, name string, s *tokenSigner, upstream, directive string, entries int) *edge {
	b.Helper()
	e := newEdge(b, name, fmt.Sprintf("{\n\tadmin localhost:2019\n\ttoken_revocation {\n\t\tissuer %s {\n\t\t\tjwks_file %s\n\t\t\taudience orders\n\t\t}\n\t\tmax_entries %d\n\t\tcache 64MiB\n\t}\n}\n",
		s.issuer, s.jwksFile(b), max(2*entries, 1000))+protected(upstream, directive)).sameMemory().run()
	e.process.stop()
	e.hold(b, s.issuer, entries)
	e.run()
	if got := e.status().Denylist.Entries; got < entries {
		b.Fatalf("%s holds %d revocations, not %d", name, got, entries)
	}
	return e
}

// sameMemory makes an edge collect garbage when it has used so much, and not by
// what it holds: else the one that holds more would collect less often, and be the
// faster one for that alone.
func (e *edge) sameMemory() *edge {
	e.env = append(e.env, "GOGC=off", "GOMEMLIMIT=2GiB")
	return e
}

// hold adds revocations to the checkpoint of an edge that is stopped: ten million
// of them would take the ledger half an hour.
func (e *edge) hold(b *testing.B, iss string, entries int) {
	b.Helper()
	files, err := filepath.Glob(filepath.Join(e.data(), "caddy", "token_revocation", "checkpoints", "*.checkpoint"))
	if err != nil || len(files) != 1 {
		b.Fatalf("checkpoints %v: %v", files, err)
	}
	place := fmt.Sprintf("embedded TOKEN_REVOCATIONS %q", filepath.Join(e.data(), "caddy", "token_revocation", "ledger"))
	d, err := denylist.New(denylist.Options{MaxEntries: 2*entries + 1000})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	position, proven, err := d.LoadCheckpoint(files[0], place)
	if err != nil {
		b.Fatalf("loading the checkpoint: %v", err)
	}
	expires := time.Now().Add(24 * time.Hour).Unix()
	for i := range entries {
		r := revocation.Revocation{
			ID: fmt.Sprintf("%032x", i), Mode: revocation.Block, Expires: expires,
			Criteria: revocation.Criteria{Issuer: iss, Claims: map[string]string{}},
		}
		value := fmt.Sprintf("nobody-%d", i)
		switch i % 8 {
		default:
			r.Criteria.Claims[revocation.ClaimTokenID] = value
		case 4:
			r.Criteria.Claims[revocation.ClaimSubject] = value
			r.Mode, r.Cutoff = revocation.IssuedBefore, time.Now().Unix()
		case 5:
			r.Criteria.Claims[revocation.ClaimSessionID] = value
		case 6:
			r.Criteria.Claims[revocation.ClaimClientID] = value
		case 7:
			r.Criteria.Claims[revocation.ClaimClientID], r.Criteria.Claims[revocation.ClaimSubject] = "app", value
		}
		d.Revoke(position.Sequence, &r)
	}
	if err := d.WriteCheckpoint(files[0], place, proven); err != nil {
		b.Fatalf("writing the checkpoint: %v", err)
	}
}

// newPlain is Caddy without this module before the same upstream.
func newPlain(b *testing.B, upstream string) *edge {
	b.Helper()
	e := newEdge(b, "plain Caddy", "{\n\tadmin localhost:2019\n}\n"+protected(upstream, "")).sameMemory()
	e.program = buildStripped(b, "./e2e/plaincaddy")
	e.start()
	eventually(b, startDeadline, "plain Caddy answers", func() (bool, string) {
		a := e.get("no-token")
		return a.status == http.StatusOK, a.String()
	})
	return e
}

// startUpstream answers every request with 200 and a short body, as cheaply as it
// can be done.
func startUpstream(b *testing.B) string {
	b.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Date"] = nil
		_, _ = w.Write([]byte("ok"))
	})}
	go func() { _ = server.Serve(listener) }()
	b.Cleanup(func() { _ = server.Close() })
	return listener.Addr().String()
}

// compare measures both edges in turn, and reports the second one's part of the
// first.
func compare(b *testing.B, s enforceSize, with, without *edge, tokens []string, name string) {
	b.Helper()
	hammer(b, with, tokens, s.connections, 2*s.during, http.StatusOK) // every token is seen
	hammer(b, without, tokens, s.connections, s.during, http.StatusOK)
	var rate, cpu, tail paired
	for pair := range s.pairs {
		sides := []*edge{with, without}
		if pair%2 == 1 {
			sides[0], sides[1] = sides[1], sides[0]
		}
		loads, p99 := map[*edge]load{}, map[*edge]time.Duration{}
		for _, e := range sides {
			loads[e] = hammer(b, e, tokens, s.connections, s.during, http.StatusOK)
		}
		for _, e := range sides {
			// With few connections, so that it is not the queue that is measured.
			p99[e] = quantile(delays(b, e, tokens, 2, s.during), 0.99)
		}
		rate.add(loads[with].perSecond() / loads[without].perSecond())
		cpu.add(loads[with].cpuPerRequest() - loads[without].cpuPerRequest())
		tail.add(float64(p99[with]) / float64(p99[without]))
	}
	rate.report(b, name+"-req/s-ratio")
	cpu.report(b, name+"-cpu-µs-added")
	tail.report(b, name+"-p99-ratio")
}

// BenchmarkDenylistBeforeAnUpstream compares token_denylist, verifying and not,
// with plain Caddy.
func BenchmarkDenylistBeforeAnUpstream(b *testing.B) {
	s, signer, upstream := newEnforceSize(), newTokenSigner(b), startUpstream(b)
	tokens := signer.tokens(b, s.tokens)
	plain := newPlain(b, upstream)
	for b.Loop() {
		for _, side := range []struct{ name, directive string }{
			{"verify", "token_denylist"},
			{"verify-off", "token_denylist {\n\t\tverify off\n\t}"},
		} {
			with := newProtected(b, side.name, signer, upstream, side.directive, s.large)
			compare(b, s, with, plain, tokens, side.name)
			with.process.stop()
		}
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkDenylistOfTenMillion compares ten million revocations with ten
// thousand.
func BenchmarkDenylistOfTenMillion(b *testing.B) {
	s, signer, upstream := newEnforceSize(), newTokenSigner(b), startUpstream(b)
	tokens := signer.tokens(b, s.tokens)
	few := newProtected(b, "few", signer, upstream, "token_denylist", s.small)
	many := newProtected(b, "many", signer, upstream, "token_denylist", s.huge)
	for b.Loop() {
		compare(b, s, many, few, tokens, "ten-million")
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkFloodOfGarbageTokens compares what is left for good clients while ten
// times as many requests have tokens of which no two are the same and all look
// right but for the signature.
func BenchmarkFloodOfGarbageTokens(b *testing.B) {
	s, signer, upstream := newEnforceSize(), newTokenSigner(b), startUpstream(b)
	tokens := signer.tokens(b, s.tokens)
	with, plain := newProtected(b, "flooded", signer, upstream, "token_denylist", s.large), newPlain(b, upstream)
	for b.Loop() {
		var ratio paired
		before := liveHeap(b, with)
		for pair := range s.pairs {
			sides := []*edge{with, plain}
			if pair%2 == 1 {
				sides[0], sides[1] = sides[1], sides[0]
			}
			rates := map[*edge]float64{}
			for _, e := range sides {
				rates[e] = flooded(b, e, tokens, s.connections, s.during)
			}
			ratio.add(rates[with] / rates[plain])
		}
		ratio.report(b, "good-req/s-ratio")
		b.ReportMetric((liveHeap(b, with)-before)/1e6, "MB-grown")
	}
	b.ReportMetric(0, "ns/op")
}

// liveHeap returns what a process holds after a collection, in bytes.
func liveHeap(b *testing.B, e *edge) float64 {
	b.Helper()
	for _, path := range []string{"/debug/pprof/heap?gc=1", "/metrics"} {
		a := e.do(e.request(http.MethodGet, e.admin, path, nil))
		if a.status != http.StatusOK {
			b.Fatalf("%s: %d", path, a.status)
		}
		if found := regexp.MustCompile(`(?m)^go_memstats_heap_alloc_bytes (\S+)$`).FindStringSubmatch(a.body); found != nil {
			bytes, err := strconv.ParseFloat(found[1], 64)
			if err != nil {
				b.Fatal(err)
			}
			return bytes
		}
	}
	b.Fatal("the heap's size is not among the metrics")
	return 0
}

// BenchmarkIntrospectingEachRequest is the usual alternative: before each request,
// somebody is asked. The one who is asked answers at once, without looking at
// anything: what is measured is the way there and back.
func BenchmarkIntrospectingEachRequest(b *testing.B) {
	s, signer, upstream := newEnforceSize(), newTokenSigner(b), startUpstream(b)
	tokens := signer.tokens(b, s.tokens)
	plain := newPlain(b, upstream)
	asking := newEdge(b, "forward_auth", "{\n\tadmin localhost:2019\n}\n"+
		protected(upstream, "forward_auth "+startUpstream(b)+" {\n\t\turi /introspect\n\t}")).sameMemory()
	asking.program = plain.program
	asking.start()
	eventually(b, startDeadline, "forward_auth answers", func() (bool, string) {
		a := asking.get("no-token")
		return a.status == http.StatusOK, a.String()
	})
	opaque := make([]string, len(tokens))
	for i := range opaque {
		opaque[i] = fmt.Sprintf("opaque-%06d-0123456789abcdefghijkl", i)
	}
	as := startIntrospection(b, signer.issuer)
	for b.Loop() {
		compare(b, s, asking, plain, tokens, "forward_auth")
		asking.process.stop()
		for _, side := range []struct{ name, ttl string }{{"introspect-cached", "10m"}, {"introspect-each", "off"}} {
			e := newEdge(b, side.name, fmt.Sprintf(
				"{\n\tadmin localhost:2019\n\ttoken_revocation {\n\t\tissuer %s {\n\t\t\tjwks_file %s\n\t\t\tintrospection http://%s/introspect {\n\t\t\t\tclient_id edge\n\t\t\t\tclient_secret {env.HOME}\n\t\t\t\tcache_ttl %s\n\t\t\t\tmax_concurrent 64\n\t\t\t}\n\t\t}\n\t}\n}\n",
				signer.issuer, signer.jwksFile(b), as, side.ttl)+
				protected(upstream, "token_denylist {\n\t\topaque_issuer "+signer.issuer+"\n\t\tintrospect\n\t}")).sameMemory().run()
			compare(b, s, e, plain, opaque, side.name)
			e.process.stop()
		}
	}
	b.ReportMetric(0, "ns/op")
}

// startIntrospection is an authorization server that calls every token active.
func startIntrospection(b *testing.B, iss string) string {
	b.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	body := fmt.Appendf(nil, `{"active":true,"iss":%q,"sub":"alice","client_id":"app","aud":"orders","iat":%d,"exp":%d}`,
		iss, time.Now().Unix(), time.Now().Add(time.Hour).Unix())
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body)
	})}
	go func() { _ = server.Serve(listener) }()
	b.Cleanup(func() { _ = server.Close() })
	return listener.Addr().String()
}

// jwksFile writes the signer's public key into a file.
func (s *tokenSigner) jwksFile(b *testing.B) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), "jwks.json")
	if err := os.WriteFile(path, []byte(s.jwks), 0o600); err != nil {
		b.Fatal(err)
	}
	return path
}

// garbage returns a request with a token that nobody has sent before.
func garbage(head, token string, n uint64) []byte {
	cut := strings.LastIndexByte(token, '.') + 1
	var spelled [11]byte // 66 bits
	for i := range spelled {
		spelled[i] = base64url[n&63]
		n >>= 6
	}
	return fmt.Appendf(nil, "%sAuthorization: Bearer %s%s%s\r\n\r\n", head, token[:cut], spelled[:], token[cut+len(spelled):])
}
