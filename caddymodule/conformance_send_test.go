package caddymodule

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// replacer fills in what the cases leave open.
func (r *conformanceRig) replacer() *strings.Replacer {
	stranger := revocationtest.NewKey(r.t, "ES256", "key-es256")
	claims := r.as.Claims(map[string]any{"iss": "https://stranger.example"})
	elsewhere := revocationtest.SignWith(r.t, stranger, map[string]any{"typ": "at+jwt"}, claims)
	encode := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	unsigned, _ := json.Marshal(r.as.Claims(nil))
	pairs := []string{
		"{CODE}", "SplxlOBeZQQYbYS6WxSbIA", "{UNKNOWN}", "unknown",
		"{JWT_OTHER_ISS}", elsewhere,
		"{JWT_ALG_NONE}", encode(`{"alg":"none","typ":"at+jwt"}`) + "." + encode(string(unsigned)) + ".",
		"{ID_TOKEN}", revocationtest.SignWith(r.t, r.as.Key("ES256"), map[string]any{"typ": "JWT"},
			r.as.Claims(map[string]any{"nonce": "n", "at_hash": "h", "client_id": nil, "aud": "app"})),
		"{JWT_SLASH}", r.as.Token(map[string]any{"iss": r.as.Issuer() + "/"}),
		"{LONG_GRANT_AT}", r.as.Token(map[string]any{
			"sub": fmt.Sprint("user-", r.cases), "sid": fmt.Sprint("session-", r.cases), "grant": strings.Repeat("g", 2000),
		}),
		"{LONG}", strings.Repeat("A", 100000),
		"{CID}", "app", "{SECRET}", "app-secret", "{OTHER}", "other", "{PUB}", "spa", "{PUB_DISABLED}", "gone",
		"{BASIC}", "{BASIC:CID:SECRET}",
	}
	pairs = append(pairs, "{MASS}", fmt.Sprint("mass-", r.cases))
	for name, token := range r.tokens {
		pairs = append(pairs, "{"+name+"}", token)
	}
	for name, token := range r.others {
		pairs = append(pairs, "{"+name+"}", token)
	}
	return strings.NewReplacer(pairs...)
}

var (
	basicOf      = regexp.MustCompile(`Basic \{BASIC:(.*)\}`)
	basicNames   = strings.NewReplacer("CID", "app", "OLD_SECRET", "old-app-secret", "SECRET", "app-secret", "PUB", "spa", `\xff`, "\xff")
	assertionOf  = regexp.MustCompile(`\{ASSERTION(?::([a-z0-9_]+))?\}`)
	formEncoding = "application/x-www-form-urlencoded"
)

// assertion returns a client assertion with one thing about it that is special.
func (r *conformanceRig) assertion(variant string) string {
	now := time.Now().Unix()
	claims := map[string]any{
		"iss": "signer", "sub": "signer", "aud": r.as.Issuer(), "jti": fmt.Sprint("a-", r.cases),
		"iat": now, "exp": now + 60,
	}
	key := r.signer
	switch variant {
	case "":
	case "other_alg":
		key = r.rsa
	case "garbage":
		return "garbage"
	case "no_iss":
		delete(claims, "iss")
	case "no_sub":
		delete(claims, "sub")
	case "expired":
		claims["iat"], claims["exp"] = now-300, now-240
	case "ahead":
		claims["iat"] = now + 5
	case "aud_list":
		claims["aud"] = []any{r.as.Issuer()}
	case "aud_two":
		claims["aud"] = []any{r.as.Issuer(), "https://elsewhere.example"}
	case "aud_number":
		claims["aud"] = []any{r.as.Issuer(), 5}
	case "aud_endpoint":
		claims["aud"] = "https://id.example/oauth/revoke"
	case "spa":
		claims["iss"], claims["sub"] = "spa", "spa"
	case "unknown_key":
		key = revocationtest.NewKey(r.t, "ES256", "nobody-knows")
	case "null_header":
		signed := revocationtest.SignWith(r.t, key, nil, claims)
		return base64.RawURLEncoding.EncodeToString([]byte("null")) + signed[strings.Index(signed, "."):]
	case "mac":
		claims["iss"], claims["sub"] = "mac", "mac"
		key = r.mac
	default:
		r.t.Fatalf("unknown assertion %q", variant)
	}
	return revocationtest.SignWith(r.t, key, nil, claims)
}

// send sends the request as it is, also where Go's client would not.
func (r *conformanceRig) send(c *conformanceCase, fill *strings.Replacer, body string) answer {
	r.t.Helper()
	method, path := c.Method, c.Path
	if method == "" {
		method = http.MethodPost
	}
	if path == "" {
		path = "/oauth/revoke"
	}
	if c.Query != "" {
		path += "?" + fill.Replace(c.Query)
	}
	header := http.Header{"Content-Type": {formEncoding}}
	if c.ContentType != nil {
		header["Content-Type"] = []string{*c.ContentType}
		if *c.ContentType == "" {
			header.Del("Content-Type")
		}
	}
	if c.Authorization != "" {
		value := fill.Replace(c.Authorization)
		if m := basicOf.FindStringSubmatch(value); m != nil {
			value = "Basic " + base64.StdEncoding.EncodeToString([]byte(basicNames.Replace(m[1])))
		}
		header.Set("Authorization", value)
	}
	for name, value := range c.Headers {
		header.Set(name, value)
	}
	if header.Get("Content-Length") == "" {
		header.Set("Content-Length", fmt.Sprint(len(body)))
	}
	return r.raw(method, path, header, body)
}

// raw writes a request byte for byte, and closes its half of the connection. It
// tries again if the connection ends without an answer: as in site.do, that is
// one which a reload has closed before a request was read from it.
func (r *conformanceRig) raw(method, path string, header http.Header, body string) answer {
	r.t.Helper()
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n", method, path, r.port)
	for name, values := range header {
		for _, v := range values {
			fmt.Fprintf(&b, "%s: %s\r\n", name, v)
		}
	}
	fmt.Fprintf(&b, "\r\n%s", body)
	for attempt := 0; ; attempt++ {
		got, err := r.rawOnce(method, b.Bytes())
		if err == nil {
			return got
		}
		if attempt == 5 {
			r.t.Fatalf("%s %s: %v", method, path, err)
		}
	}
}

func (r *conformanceRig) rawOnce(method string, request []byte) (answer, error) {
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", r.port))
	if err != nil {
		return answer{}, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	// A server that has seen enough may close before it has read everything.
	_, _ = conn.Write(request)
	_ = conn.(*net.TCPConn).CloseWrite()
	response, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, string(content)}, err
}

// revokeAs posts a token as one of the clients.
func (r *conformanceRig) revokeAs(path, id, secret, token string) answer {
	r.t.Helper()
	body := "token=" + token
	return r.raw(http.MethodPost, path, http.Header{
		"Content-Type":   {formEncoding},
		"Content-Length": {fmt.Sprint(len(body))},
		"Authorization":  {"Basic " + base64.StdEncoding.EncodeToString([]byte(id+":"+secret))},
	}, body)
}

func (r *conformanceRig) protected(token string) answer {
	return r.do(http.MethodGet, r.url("/protected"), http.Header{"Authorization": {"Bearer " + token}}, "")
}
