package issuer

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// Verdicts of the tables.
var (
	errNone     error // active
	errInactive = ErrInactive
	errNotKnown = ErrIntrospectionUnavailable
)

// judgeAnswer asks once, and compares the verdict. Whatever the server says,
// neither error nor log may hold the token or the secret.
func judgeAnswer(t *testing.T, s *asked, want error, change func(*Config, *IntrospectionConfig, *Options)) {
	t.Helper()
	var log logBuffer
	n := s.introspector(t, func(of *Config, c *IntrospectionConfig, o *Options) {
		o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		c.BreakerFailures = 1
		if change != nil {
			change(of, c, o)
		}
	})
	var said string
	if want == nil {
		introspect(t, n, testToken, IntrospectionRequest{})
	} else {
		said = introspectError(t, n, testToken, IntrospectionRequest{}, want).Error()
	}
	if s := n.Status(); (s.Answers == 1) != (want == nil) {
		t.Errorf("%d answers are kept", s.Answers)
	}
	said += log.String() + n.Status().LastError
	for _, secret := range []string{testToken, "gu5QnhRWzxu7", "geheim"} {
		if strings.Contains(said, secret) {
			t.Errorf("a secret is in %q", said)
		}
	}
}

func TestHostileAnswers(t *testing.T) {
	now := time.Now().Unix()
	withMember := func(text string) string { return `{"active":true,"exp":` + fmt.Sprint(now+300) + `,` + text + `}` }
	for _, c := range []struct {
		name string
		body string
		want error
	}{
		{"as it should be", activeText(nil), errNone},
		{"nothing but active", withMember(`"x":1`), errNone},
		{"white space around", " \t\r\n" + activeText(nil) + "\n", errNone},
		{"escaped name", withMember(`"x":1`)[:1] + `"\u0061ctive":true,` + strings.TrimPrefix(withMember(`"x":1`), `{"active":true,`), errNone},
		{"iss null", withMember(`"iss":null`), errNone},
		{"unknown members", withMember(`"Active":false,"ACTIVE":"x","active ":null`), errNone},

		{"inactive", `{"active":false}`, errInactive},
		{"inactive with white space", " { \"active\" :\tfalse } \n", errInactive},
		{"inactive with more", `{"active":false,"exp":"x","iss":5,"sub":[]}`, errInactive},
		{"exp over", activeText(map[string]any{"exp": now - 3600}), errInactive},
		{"exp over, fraction", activeText(map[string]any{"exp": 1.5}), errInactive},
		{"exp one", activeText(map[string]any{"exp": 1}), errInactive},

		{"active text", activeText(map[string]any{"active": "true"}), errNotKnown},
		{"active text false", `{"active":"false"}`, errNotKnown},
		{"active one", activeText(map[string]any{"active": 1}), errNotKnown},
		{"active zero", `{"active":0}`, errNotKnown},
		{"active null", `{"active":null}`, errNotKnown},
		{"active array", activeText(map[string]any{"active": []bool{true}}), errNotKnown},
		{"active object", `{"active":{"active":true}}`, errNotKnown},
		{"active capital literal", `{"active":True}`, errNotKnown},
		{"active misspelled literal", `{"active":truee}`, errNotKnown},
		{"active capital name", `{"Active":true,"exp":9999999999}`, errNotKnown},
		{"active missing", activeText(map[string]any{"active": nil}), errNotKnown},
		{"active twice, same", `{"active":true,"active":true}`, errNotKnown},
		{"active twice, false last", `{"active":true,"active":false}`, errNotKnown},
		{"active twice, false first", `{"active":false,"active":true}`, errNotKnown},
		{"active twice, escaped", `{"active":false,"\u0061ctive":true}`, errNotKnown},
		{"active deeper", `{"data":{"active":true}}`, errNotKnown},
		{"sub twice", withMember(`"sub":"alice","sub":"bob"`), errNotKnown},
		{"nested twice", withMember(`"x":{"a":1,"a":2}`), errNotKnown},

		{"empty", ``, errNotKnown},
		{"empty object", `{}`, errNotKnown},
		{"null", `null`, errNotKnown},
		{"true", `true`, errNotKnown},
		{"array", `[{"active":true}]`, errNotKnown},
		{"text", `"{\"active\":true}"`, errNotKnown},
		{"html", `<html>{"active":true}</html>`, errNotKnown},
		{"trailing object", activeText(nil) + `{"active":false}`, errNotKnown},
		{"trailing text", `{"active":false}x`, errNotKnown},
		{"trailing zero byte", activeText(nil) + "\x00", errNotKnown},
		{"byte order mark", "\ufeff" + activeText(nil), errNotKnown},
		{"cut off", activeText(nil)[:40], errNotKnown},
		{"trailing comma", `{"active":false,}`, errNotKnown},
		{"comment", `{"active":true/*x*/}`, errNotKnown},
		{"not UTF-8", withMember("\"sub\":\"\xff\""), errNotKnown},
		{"half a surrogate pair", withMember(`"sub":"\ud800"`), errNotKnown},
		{"deep", withMember(`"x":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000)), errNotKnown},
		{"oversize", withMember(`"x":"` + strings.Repeat("x", maxAnswer) + `"`), errNotKnown},
		{"oversize and inactive", `{"active":false}` + strings.Repeat(" ", maxAnswer), errNotKnown},
		{"quotes the token", `{"active":"` + testToken + `"}`, errNotKnown},

		{"other iss", activeText(map[string]any{"iss": "https://evil.example.com"}), errNotKnown},
		{"iss with slash", activeText(map[string]any{"iss": testIssuer + "/"}), errNotKnown},
		{"iss in capitals", activeText(map[string]any{"iss": strings.ToUpper(testIssuer)}), errNotKnown},
		{"iss empty", activeText(map[string]any{"iss": ""}), errNotKnown},
		{"iss array", activeText(map[string]any{"iss": []string{testIssuer}}), errNotKnown},
		{"iss number", activeText(map[string]any{"iss": 5}), errNotKnown},
		{"iss is the token", activeText(map[string]any{"iss": testToken}), errNotKnown},

		{"exp text", activeText(map[string]any{"exp": fmt.Sprint(now + 300)}), errNotKnown},
		{"exp negative", activeText(map[string]any{"exp": -1}), errNotKnown},
		{"exp in milliseconds", activeText(map[string]any{"exp": (now + 300) * 1000}), errNotKnown},
		{"exp out of range", withMember(`"iat":1e999`), errNotKnown},
		{"iat text", activeText(map[string]any{"iat": "yesterday"}), errNotKnown},
		{"auth_time array", activeText(map[string]any{"auth_time": []int{1}}), errNotKnown},
		{"client_id array", activeText(map[string]any{"client_id": []string{"app"}}), errNotKnown},
		{"client_id true", activeText(map[string]any{"client_id": true}), errNotKnown},
		{"client_id long", activeText(map[string]any{"client_id": strings.Repeat("x", 1025)}), errNotKnown},
		{"sub object", activeText(map[string]any{"sub": map[string]any{"x": 1}}), errNotKnown},
		{"sub long", activeText(map[string]any{"sub": strings.Repeat("x", 1025)}), errNotKnown},
		{"sub as long as allowed", activeText(map[string]any{"sub": strings.Repeat("x", 1024)}), errNone},
	} {
		t.Run(c.name, func(t *testing.T) { judgeAnswer(t, newAsked(t, answers(c.body)), c.want, nil) })
	}
}

func TestHostileHTTP(t *testing.T) {
	yes, no := activeText(nil), `{"active":false}`
	typed := func(contentType ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Type"] = contentType
			_, _ = io.WriteString(w, yes)
		}
	}
	status := func(code int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(code)
			_, _ = io.WriteString(w, body)
		}
	}
	cases := map[string]struct {
		answer http.HandlerFunc
		want   error
	}{
		"charset":                {typed("application/json; charset=UTF-8"), errNone},
		"capitals":               {typed("Application/JSON;Charset=utf-8"), errNone},
		"other charset":          {typed("application/json; charset=utf-16"), errNotKnown},
		"no content type":        {typed(), errNotKnown},
		"two content types":      {typed("application/json", "application/json"), errNotKnown},
		"text":                   {typed("text/plain"), errNotKnown},
		"html":                   {typed("text/html; charset=utf-8"), errNotKnown},
		"jwt where json is":      {typed("application/token-introspection+jwt"), errNotKnown},
		"json of another kind":   {typed("application/problem+json"), errNotKnown},
		"broken content type":    {typed("application/json; x"), errNotKnown},
		"201":                    {status(201, yes), errNotKnown},
		"203":                    {status(203, yes), errNotKnown},
		"204":                    {status(204, ""), errNotKnown},
		"206":                    {status(206, yes), errNotKnown},
		"302 without a location": {status(302, yes), errNotKnown},
		"400 inactive":           {status(400, no), errNotKnown},
		"401 active":             {status(401, yes), errNotKnown},
		"401 inactive":           {status(401, no), errNotKnown},
		"403 inactive":           {status(403, no), errNotKnown},
		"404 inactive":           {status(404, no), errNotKnown},
		"429":                    {status(429, `{"error":"slow_down"}`), errNotKnown},
		"500 inactive":           {status(500, no), errNotKnown},
		"503":                    {status(503, `{"error":"`+testToken+`"}`), errNotKnown},
		"less than announced": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, no)
		}, errNotKnown},
		"endless": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			for r.Context().Err() == nil {
				if _, err := w.Write(bytes.Repeat([]byte(" "), 64<<10)); err != nil {
					return
				}
			}
		}, errNotKnown},
		"compressed": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = io.WriteString(z, yes)
			_ = z.Close()
		}, errNotKnown},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) { judgeAnswer(t, newAsked(t, c.answer), c.want, nil) })
	}
	for _, code := range []int{301, 302, 303, 307, 308} {
		t.Run(fmt.Sprint("redirect ", code), func(t *testing.T) {
			elsewhere := newAsked(t, answers(yes))
			s := newAsked(t, func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, elsewhere.URL+"/?token="+testToken, code)
			})
			judgeAnswer(t, s, errNotKnown, nil)
			if elsewhere.count() != 0 {
				t.Error("token and credentials were sent on")
			}
		})
	}
}

func TestServersThatDoNotSpeakHTTPAreNotQuoted(t *testing.T) {
	for name, reply := range map[string]string{
		"status line":  testToken + "\r\n\r\n",
		"version":      "HTTP/" + testToken + " 200 OK\r\n\r\n",
		"status":       "HTTP/1.1 " + testToken + " OK\r\n\r\n",
		"header":       "HTTP/1.1 200 OK\r\n" + testToken + "\r\n\r\n",
		"length":       "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: " + testToken + "\r\n\r\n{}",
		"chunks":       "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + testToken + "\r\n",
		"encoding":     "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: " + testToken + "\r\n\r\n",
		"long header":  "HTTP/1.1 200 OK\r\nX: " + strings.Repeat(testToken, 10000) + "\r\n\r\n",
		"no answer":    "",
		"type":         "HTTP/1.1 200 OK\r\nContent-Type: " + testToken + "\r\nContent-Length: 0\r\n\r\n",
		"reason":       "HTTP/1.1 503 " + testToken + "\r\nContent-Length: 0\r\n\r\n",
		"two lengths":  "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
		"informations": strings.Repeat("HTTP/1.1 103 "+testToken+"\r\n\r\n", 20),
	} {
		t.Run(name, func(t *testing.T) {
			s := newAsked(t, answers(""))
			address := rawServer(t, func(int) string { return reply })
			judgeAnswer(t, s, errNotKnown, func(_ *Config, c *IntrospectionConfig, _ *Options) { c.Endpoint = "http://" + address + "/" })
		})
	}
}

// rawServer reads requests and replies with what reply returns for the number of
// the request, then closes the connection unless the reply is a whole answer that
// keeps it.
func rawServer(t *testing.T, reply func(n int) string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		_ = listener.Close()
		<-done
	})
	go func() {
		defer close(done)
		for n := 1; ; {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			// One at a time: the tests ask one question after the other.
			r := bufio.NewReader(conn)
			for {
				_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
				req, err := http.ReadRequest(r)
				if err != nil {
					break
				}
				_, _ = io.Copy(io.Discard, req.Body)
				text := reply(n)
				n++
				if _, err := io.WriteString(conn, text); err != nil || !strings.Contains(text, "keep-alive") {
					break
				}
			}
			_ = conn.Close()
		}
	}()
	return listener.Addr().String()
}

func TestAConnectionThatTheServerHasClosedIsNoFailure(t *testing.T) {
	no := `{"active":false}`
	whole := fmt.Sprintf("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(no), no)
	address := rawServer(t, func(n int) string {
		if n == 2 {
			return "" // closes the idle connection just when it is used
		}
		return whole
	})
	s := newAsked(t, answers(""))
	n := s.introspector(t, func(_ *Config, c *IntrospectionConfig, _ *Options) { c.Endpoint = "http://" + address + "/" })
	for range 2 {
		introspectError(t, n, testToken, IntrospectionRequest{}, ErrInactive)
	}
	n.Close() // before the server, which waits for connections to end
}

func TestSignedAnswers(t *testing.T) {
	as := revocationtest.NewAuthServer(t)
	as.SetIssuer(testIssuer)
	now := time.Now().Unix()
	foreign := revocationtest.NewKey(t, "ES256", "key-es256")
	typed := map[string]any{"typ": "token-introspection+jwt"}
	claims := func(overrides map[string]any) map[string]any {
		m := map[string]any{"iss": testIssuer, "aud": "edge", "iat": now, "token_introspection": members(nil)}
		maps.Copy(m, overrides)
		maps.DeleteFunc(m, func(_ string, v any) bool { return v == nil })
		return m
	}
	sign := func(header map[string]any, claims any) string {
		full := maps.Clone(typed)
		maps.Copy(full, header)
		return revocationtest.SignWith(t, as.Key("ES256"), full, claims)
	}
	good := sign(nil, claims(nil))
	encrypted := func(payload []byte) string {
		e, err := jose.NewEncrypter(jose.A128GCM, jose.Recipient{Algorithm: jose.DIRECT, Key: make([]byte, 16)},
			(&jose.EncrypterOptions{}).WithType("token-introspection+jwt").WithContentType("JWT"))
		if err != nil {
			t.Fatal(err)
		}
		jwe, err := e.Encrypt(payload)
		if err != nil {
			t.Fatal(err)
		}
		text, err := jwe.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	const signedType = "application/token-introspection+jwt"
	for _, c := range []struct {
		name, contentType, body string
		want                    error
		says                    string
	}{
		{"as it should be", signedType, good, errNone, ""},
		{"RS256", signedType, revocationtest.SignWith(t, as.Key("RS256"), typed, claims(nil)), errNone, ""},
		{"type in full", signedType, sign(map[string]any{"typ": "Application/Token-Introspection+JWT"}, claims(nil)), errNone, ""},
		{"several audiences", signedType, sign(nil, claims(map[string]any{"aud": []string{"x", "edge"}})), errNone, ""},
		{"alias", signedType, sign(nil, claims(map[string]any{"iss": "https://old.example.com"})), errNone, ""},
		{"inactive", signedType, sign(nil, claims(map[string]any{"token_introspection": map[string]any{"active": false}})), errInactive, ""},
		{"exp over inside", signedType, sign(nil, claims(map[string]any{"token_introspection": members(map[string]any{"exp": now - 3600})})), errInactive, ""},

		{"plain", "application/json", activeText(nil), errNotKnown, "content type"},
		{"plain, inactive", "application/json", `{"active":false}`, errNotKnown, "content type"},
		{"plain under the type", signedType, activeText(nil), errNotKnown, ""},
		{"signed under another type", "application/jwt", good, errNotKnown, "content type"},
		{"signed under json", "application/json", good, errNotKnown, "content type"},
		{"typ of an access token", signedType, sign(map[string]any{"typ": "at+jwt"}, claims(nil)), errNotKnown, "typ"},
		{"no typ", signedType, sign(map[string]any{"typ": nil}, claims(nil)), errNotKnown, "typ"},
		{"typ JWT", signedType, sign(map[string]any{"typ": "JWT"}, claims(nil)), errNotKnown, "typ"},
		{"another key", signedType, revocationtest.SignWith(t, foreign, typed, claims(nil)), errNotKnown, "signature"},
		{"not signed", signedType, compact(`{"alg":"none","typ":"token-introspection+jwt"}`, `{}`), errNotKnown, "algorithm"},
		{"HMAC with the public key", signedType, revocationtest.SignWith(t,
			jose.JSONWebKey{Key: as.KeySet(), Algorithm: "HS256", KeyID: "key-es256"}, typed, claims(nil)), errNotKnown, "algorithm"},
		{"changed", signedType, good[:len(good)-10] + "AAAAAAAAAA", errNotKnown, "signature"},
		{"embedded key", signedType, revocationtest.SignWith(t, foreign, map[string]any{"typ": signedAnswerType, "jwk": foreign.Public()}, claims(nil)),
			errNotKnown, "embeds a key"},
		{"other iss", signedType, sign(nil, claims(map[string]any{"iss": "https://evil.example.com"})), errNotKnown, "iss"},
		{"no iss", signedType, sign(nil, claims(map[string]any{"iss": nil})), errNotKnown, "iss"},
		{"other iss inside", signedType, sign(nil, claims(map[string]any{"token_introspection": members(map[string]any{"iss": "https://x"})})), errNotKnown, "iss"},
		{"other aud", signedType, sign(nil, claims(map[string]any{"aud": "other"})), errNotKnown, "not meant for us"},
		{"no aud", signedType, sign(nil, claims(map[string]any{"aud": nil})), errNotKnown, "not meant for us"},
		{"aud of another kind", signedType, sign(nil, claims(map[string]any{"aud": []any{"edge", 5}})), errNotKnown, "not meant for us"},
		{"no iat", signedType, sign(nil, claims(map[string]any{"iat": nil})), errNotKnown, "no iat"},
		{"old", signedType, sign(nil, claims(map[string]any{"iat": now - 600})), errNotKnown, "older than the question"},
		{"from the future", signedType, sign(nil, claims(map[string]any{"iat": now + 600})), errNotKnown, "future"},
		{"iat text", signedType, sign(nil, claims(map[string]any{"iat": "now"})), errNotKnown, "time claim"},
		{"expired", signedType, sign(nil, claims(map[string]any{"exp": now - 600})), errNotKnown, "expired"},
		{"not valid yet", signedType, sign(nil, claims(map[string]any{"nbf": now + 600})), errNotKnown, "future"},
		{"active outside", signedType, sign(nil, claims(map[string]any{"active": true, "token_introspection": nil})), errNotKnown, "token_introspection"},
		{"member is a text", signedType, sign(nil, claims(map[string]any{"token_introspection": activeText(nil)})), errNotKnown, "token_introspection"},
		{"member is an array", signedType, sign(nil, claims(map[string]any{"token_introspection": []any{members(nil)}})), errNotKnown, "token_introspection"},
		{"active outside, missing inside", signedType, sign(nil, claims(map[string]any{"active": true, "token_introspection": map[string]any{}})), errNotKnown, "no active"},
		{"active is a text inside", signedType, sign(nil, claims(map[string]any{"token_introspection": map[string]any{"active": "true"}})), errNotKnown, "neither true nor false"},
		{"member twice", signedType, sign(nil, []byte(fmt.Sprintf(
			`{"iss":%q,"aud":"edge","iat":%d,"token_introspection":{"active":false},"token_introspection":{"active":true}}`, testIssuer, now))),
			errNotKnown, "twice"},
		{"active twice", signedType, sign(nil, []byte(fmt.Sprintf(
			`{"iss":%q,"aud":"edge","iat":%d,"token_introspection":{"active":false,"active":true}}`, testIssuer, now))), errNotKnown, "twice"},
		{"nested", signedType, sign(map[string]any{"cty": "JWT"}, []byte(good)), errNotKnown, "nested"},
		{"nested, not said", signedType, sign(nil, []byte(good)), errNotKnown, "not a JSON object"},
		{"encrypted", signedType, encrypted([]byte(good)), errNotKnown, "encrypted"},
		{"line end", signedType, good + "\n", errNotKnown, ""},
		{"as JSON", signedType, `{"payload":"e30","signatures":[]}`, errNotKnown, ""},
		{"too long", signedType, sign(nil, claims(map[string]any{"x": strings.Repeat("x", maxToken)})), errNotKnown, "16 KiB"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newAsked(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", c.contentType)
				_, _ = io.WriteString(w, c.body)
			})
			judgeSigned(t, s, as, c.want, c.says)
			if got := s.last(t).header.Values("Accept"); len(got) != 1 || got[0] != signedType {
				t.Errorf("Accept: %q", got)
			}
		})
	}
	t.Run("never an access token", func(t *testing.T) {
		i := startIssuer(t, Config{Issuer: testIssuer, JWKSURI: as.URL + revocationtest.JWKSPath}, Options{Client: clientOf(t, as)})
		for _, extra := range []map[string]any{nil, {"sub": "alice", "exp": now + 300, "client_id": "app"}} {
			refuse(t, newSet(t, i), sign(nil, claims(extra)), Request{}, ErrInvalid)
		}
	})
	t.Run("keys unavailable", func(t *testing.T) {
		s := newAsked(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", signedType)
			_, _ = io.WriteString(w, good)
		})
		n := s.introspector(t, func(_ *Config, c *IntrospectionConfig, _ *Options) { c.SignedResponse = true })
		introspectError(t, n, testToken, IntrospectionRequest{}, ErrIntrospectionUnavailable)
	})
}

// judgeSigned is [judgeAnswer] with an issuer that has keys.
func judgeSigned(t *testing.T, s *asked, as *revocationtest.AuthServer, want error, says string) {
	t.Helper()
	i := startIssuer(t, Config{
		Issuer: testIssuer, JWKSURI: as.URL + revocationtest.JWKSPath, Aliases: []string{"https://old.example.com"},
	}, Options{Client: clientOf(t, as)})
	n, err := NewIntrospector(i, IntrospectionConfig{
		Endpoint: s.URL, ClientID: "edge", ClientSecret: "geheim", SignedResponse: true,
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if want == nil {
		result := introspect(t, n, testToken, IntrospectionRequest{})
		if v, _ := result.Identity.Value("sub"); v != "alice" || !json.Valid(result.Response) {
			t.Errorf("%+v", result)
		}
		return
	}
	err = introspectError(t, n, testToken, IntrospectionRequest{}, want)
	if !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "token-1") {
		t.Error(err)
	}
}
