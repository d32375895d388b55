package oauth

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation/intent"
	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
)

// upstreamRig is an Upstream with everything around it faked except the intents.
type upstreamRig struct {
	tokens   *fakeResolver
	revoker  *fakeRevoker
	upstream *Upstream
	journal  *intent.Journal

	mu       sync.Mutex
	outcomes []Outcome
	forms    []string
	answer   func(http.ResponseWriter) error
}

func newUpstreamRig(t testing.TB, change func(*UpstreamOptions)) *upstreamRig {
	t.Helper()
	r := &upstreamRig{revoker: new(fakeRevoker), answer: func(w http.ResponseWriter) error {
		w.WriteHeader(http.StatusOK)
		return nil
	}}
	r.tokens = newRig(t, nil).tokens
	record := func(ctx context.Context, i *intent.Intent) error {
		_, err := intent.RecordAll(ctx, r.revoker, i, time.Now(), 0)
		return err
	}
	var err error
	if r.journal, err = intent.Open(intent.Options{Dir: t.TempDir(), Record: record}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.journal.Close() })
	o := UpstreamOptions{
		Issuer: issuerA, Tokens: r.tokens, Revoker: r.revoker, Intents: r.journal,
		Now: newClock().now,
		Observe: func(o Outcome) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.outcomes = append(r.outcomes, o)
		},
	}
	if change != nil {
		change(&o)
	}
	if r.upstream, err = NewUpstream(o); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *upstreamRig) post(body string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	request := httptest.NewRequest(http.MethodPost, "https://edge.example/revoke", strings.NewReader(body))
	request.Header.Set("Content-Type", formMediaType)
	for _, c := range change {
		c(request)
	}
	w := httptest.NewRecorder()
	_ = r.upstream.ServeHTTP(w, request, func(w http.ResponseWriter, forwarded *http.Request) error {
		got, err := io.ReadAll(forwarded.Body)
		if err != nil {
			return err
		}
		r.mu.Lock()
		r.forms = append(r.forms, string(got))
		answer := r.answer
		r.mu.Unlock()
		return answer(w)
	})
	return w
}

func (r *upstreamRig) last() Outcome {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.outcomes[len(r.outcomes)-1]
}

// The client of a Basic header whose id can be read in two ways is not guessed.
func TestUpstreamRecordsNothingForAnIDThatCanBeReadInTwoWays(t *testing.T) {
	basic := func(id string) func(*http.Request) {
		return func(r *http.Request) { r.SetBasicAuth(id, "secret") }
	}
	for _, tt := range []struct {
		name, id, body string
		strict         bool
		status         int
		result         Result
	}{
		{"plain", "app", "token=" + tokenOwn, false, 200, ResultRevoked},
		{"two readings, one owns it", "%61pp", "token=" + tokenOwn, false, 400, ResultAmbiguousClient},
		{"and the form says which", "%61pp", "client_id=app&token=" + tokenOwn, false, 200, ResultRevoked},
		{"and the server is strict", "%61pp", "token=" + tokenOwn, true, 200, ResultRevoked},
		{"two readings, none owns it", "%61pp", "token=" + tokenForeign, false, 200, ResultNotOwner},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newUpstreamRig(t, func(o *UpstreamOptions) { o.StrictBasic = tt.strict })
			if w := r.post(tt.body, basic(tt.id)); w.Code != tt.status || r.last().Result != tt.result {
				t.Errorf("status %d, result %s", w.Code, r.last().Result)
			}
			if recorded := len(r.revoker.revoked()) > 0; recorded != (tt.result == ResultRevoked) {
				t.Errorf("recorded: %v", recorded)
			}
			if forwarded := len(r.forms) > 0; forwarded != (tt.status == 200) {
				t.Errorf("forwarded: %v", forwarded)
			}
		})
	}
}

// A token that can't be judged is not forwarded: after the 200 it would be too late.
func TestUpstreamForwardsNothingThatItCouldNotRecord(t *testing.T) {
	r := newUpstreamRig(t, nil)
	for _, token := range []string{"keyless.access.token", "surprising.access.token"} {
		if w := r.post("client_id=app&token=" + token); w.Code != 503 || w.Header().Get("Retry-After") == "" || len(r.forms) != 0 {
			t.Errorf("%s: status %d, forwarded %q", token, w.Code, r.forms)
		}
	}
	broken := newUpstreamRig(t, func(o *UpstreamOptions) { o.Intents = noIntents{} })
	if w := broken.post("client_id=app&token=" + tokenOwn); w.Code != 503 || len(broken.forms) != 0 || broken.last().Result != ResultIntentFailed {
		t.Errorf("without intents: status %d, forwarded %q, %s", w.Code, broken.forms, broken.last().Result)
	}
}

type noIntents struct{}

func (noIntents) Begin(context.Context, intent.Intent) (*intent.Entry, error) {
	return nil, intent.ErrUnavailable
}
func (noIntents) Resume(context.Context, string, string, string) (*intent.Entry, error) {
	return nil, intent.ErrUnavailable
}

func TestUpstreamTakesSilenceForNo200(t *testing.T) {
	r := newUpstreamRig(t, nil)
	for name, answer := range map[string]func(http.ResponseWriter) error{
		"nothing written": func(http.ResponseWriter) error { return nil },
		"an error":        func(http.ResponseWriter) error { return errors.New("no route to host") },
		"an error after a 200": func(w http.ResponseWriter) error {
			w.WriteHeader(200)
			return errors.New("broken")
		},
		"an abort":    func(http.ResponseWriter) error { panic(http.ErrAbortHandler) },
		"gave it up":  func(w http.ResponseWriter) error { w.WriteHeader(499); return nil },
		"only a hint": func(w http.ResponseWriter) error { w.WriteHeader(http.StatusEarlyHints); return nil },
	} {
		r.answer = answer
		w := r.post("client_id=app&token=" + tokenOwn)
		if w.Code != 503 && name != "only a hint" || len(r.revoker.revoked()) != 0 || r.last().Result != ResultServerFailed {
			t.Errorf("%s: status %d, %s", name, w.Code, r.last().Result)
		}
	}
}

func TestUpstreamPassesPanicsOn(t *testing.T) {
	r := newUpstreamRig(t, nil)
	r.answer = func(http.ResponseWriter) error { panic("oh") }
	defer func() {
		if p := recover(); p != "oh" {
			t.Errorf("panic %v", p)
		}
	}()
	r.post("client_id=app&token=" + tokenOwn)
}

// Whatever the form looks like, what is forwarded has at most the one token that
// was read, for any server that parses forms as net/http does, or ignores case.
func FuzzUpstreamReadsWhatTheServerReads(f *testing.F) {
	for _, s := range []string{
		"token=a&client_id=b", "token=a&token=b", "Token=a&token=b&client_id=c", "token=a&client_id=b&Client_ID=c", "+token=a&client_id=b", "token=%61&client_id=b", "token=a;token=b", "token",
		"a=%zz&token=b", "token[]=a", "+token=a", "token=a+b", "token%00=a", "&&token=a&", "client_id=a&client%5Fid=b", "token=\xff",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, body string) {
		request := httptest.NewRequest(http.MethodPost, "/revoke", strings.NewReader(body))
		request.Header.Set("Content-Type", formMediaType)
		q, refusal := readPassed(httptest.NewRecorder(), request, 1<<20, DefaultMaxToken, false)
		if refusal != nil {
			if refusal.status < 400 || refusal.status > 499 {
				t.Fatalf("status %d", refusal.status)
			}
			return
		}
		if string(q.body) != body {
			t.Fatalf("the body is %q, was %q", q.body, body)
		}
		forwarded := httptest.NewRequest(http.MethodPost, "/revoke", strings.NewReader(string(q.body)))
		forwarded.Header.Set("Content-Type", formMediaType)
		if err := forwarded.ParseForm(); err != nil {
			t.Fatalf("%q: the server can't read it: %v", body, err)
		}
		var tokens, clients []string
		for name, values := range forwarded.PostForm {
			switch strings.ToLower(strings.TrimSpace(name)) {
			case paramToken:
				tokens = append(tokens, values...)
			case paramClientID:
				clients = append(clients, values...)
			}
		}
		if len(tokens) > 1 || len(tokens) == 1 && tokens[0] != q.token || len(tokens) == 0 && q.token != "" {
			t.Fatalf("%q: the server reads the tokens %q, we read %q", body, tokens, q.token)
		}
		if len(q.clients) != 1 || len(clients) != 1 || clients[0] != q.clients[0] {
			t.Fatalf("%q: the server reads the clients %q, we read %q", body, clients, q.clients)
		}
	})
}

// No answer with an error at its top counts, and nothing crashes the reader.
func FuzzAnswersOfServers(f *testing.F) {
	for _, s := range []string{
		"", "{}", `{"error":"x"}`, `{"error":null,"error":"x"}`, `{"Error":1}`, "[]", "false", "OK", "<p>", "error=x", "{]", `{"a":{"error":1}}`, "{} {}", "\ufeff{}",
	} {
		f.Add([]byte(s), "")
		f.Add([]byte(s), "gzip, zstd")
	}
	f.Fuzz(func(t *testing.T, body []byte, coding string) {
		h := http.Header{"Content-Encoding": {coding}}
		v := judge(h, body)
		if coding != "" || v != verdictAccepted {
			return
		}
		members := ObjectMembers(body)
		for name, value := range members {
			if strings.EqualFold(name, "error") && value != nil && value != false && value != "" {
				t.Fatalf("%q is accepted", body)
			}
		}
	})
}

func TestAnswersOfServers(t *testing.T) {
	for body, want := range map[string]verdict{
		"": verdictAccepted, " \n": verdictAccepted, "{}": verdictAccepted, "true": verdictAccepted, "null": verdictAccepted,
		"OK": verdictAccepted, `{"a":{"error":1}}`: verdictAccepted, `{"error":null}`: verdictAccepted, "\ufeff{}": verdictAccepted,
		`{"error":"x"}`: verdictError, `{"ERROR":{}}`: verdictError, `{"error":null,"error":1}`: verdictError, "Error": verdictError,
		"error=x": verdictError, "<html>": verdictUnclear, "{": verdictUnclear, "{} {}": verdictUnclear, "[]": verdictUnclear,
		"false": verdictUnclear, "\xff\xfe": verdictUnclear, strings.Repeat("a", maxWords+1): verdictUnclear,
	} {
		if got := judge(http.Header{}, []byte(body)); got != want {
			t.Errorf("%.20q: %d, want %d", body, got, want)
		}
	}
}

func TestLikeParamFindsWhatServersTakeForAParameter(t *testing.T) {
	for _, name := range []string{"token", "Token", " token", "token\x00x", "token[]", "token[0]", "token\t", "TOKEN "} {
		if got := likeParam(name); got != paramToken {
			t.Errorf("%q: %q", name, got)
		}
	}
	for _, name := range []string{"client.id", "client id", "client-id", "CLIENT_ID", "client[id", "client_id[x]"} {
		if got := likeParam(name); got != paramClientID {
			t.Errorf("%q: %q", name, got)
		}
	}
	for _, name := range []string{"", "tokens", "x_token", "[]", "a[token]"} {
		if got := likeParam(name); slices.Contains(upstreamParams, got) {
			t.Errorf("%q: %q", name, got)
		}
	}
}

func TestRechecksAreCoalescedAndPaced(t *testing.T) {
	var calls atomic.Int64
	release := make(chan struct{})
	r := Rechecks{Interval: 50 * time.Millisecond, Timeout: time.Second, Do: func(_ context.Context, iss string) error {
		calls.Add(1)
		<-release
		if iss == issuerB {
			return errors.New("down")
		}
		return nil
	}}
	var wg sync.WaitGroup
	start := func(iss string) {
		wg.Go(func() {
			if err := r.Recheck(t.Context(), iss); (err != nil) != (iss == issuerB) {
				t.Errorf("%s: %v", iss, err)
			}
		})
	}
	start(issuerA)
	start(issuerB)
	for calls.Load() < 2 {
		time.Sleep(time.Millisecond)
	}
	begun := time.Now()
	for range 20 { // these came after both began: they wait for the next one
		start(issuerA)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	if err := r.Recheck(ctx, issuerA); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("who stops waiting: %v", err)
	}
	close(release)
	wg.Wait()
	if got := calls.Load(); got < 3 || got > 4 || time.Since(begun) < 30*time.Millisecond {
		t.Errorf("%d calls after %s", got, time.Since(begun))
	}
}

// What is introspected as inactive may be a refresh token that the server does not
// introspect.
func TestUpstreamRechecksAfterA200OnlyForWhatMayBeAlive(t *testing.T) {
	var rechecked atomic.Int64
	failing := errors.New("down")
	var err error
	r := newUpstreamRig(t, func(o *UpstreamOptions) {
		o.Recheck = func(context.Context, string) error { rechecked.Add(1); return err }
	})
	r.tokens.errs = maps.Clone(r.tokens.errs)
	r.tokens.errs["inactive"] = errors.Join(ErrTokenInvalid, issuer.ErrInactive)
	for _, tt := range []struct {
		token  string
		status int
		want   int64
	}{
		{tokenOpaque, 200, 1}, {"inactive", 200, 1}, {"some.bad.jwt", 200, 0}, {"expired.access.token", 200, 0},
		{tokenOpaque, 401, 0}, {tokenForeign, 200, 0},
	} {
		rechecked.Store(0)
		r.answer = func(w http.ResponseWriter) error { w.WriteHeader(tt.status); return nil }
		if w := r.post(url.Values{"client_id": {"app"}, "token": {tt.token}}.Encode()); w.Code != tt.status || rechecked.Load() != tt.want {
			t.Errorf("%s after %d: status %d, %d rechecks", tt.token, tt.status, w.Code, rechecked.Load())
		}
	}
	err = failing
	r.answer = func(w http.ResponseWriter) error { w.WriteHeader(200); return nil }
	if w := r.post("client_id=app&token=" + tokenOpaque); w.Code != 503 {
		t.Errorf("a recheck that failed: status %d", w.Code)
	}
}
