//go:build e2e

package e2e

import (
	"crypto/hmac"
	"crypto/sha256"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

var signatureAlgorithms = []string{"RS256", "ES256", "EdDSA"}

func TestNoSpellingOfARevokedTokenEscapes(t *testing.T) {
	e := newFirstEdge(t).run()
	for _, alg := range signatureAlgorithms {
		t.Run(alg, func(t *testing.T) {
			token, err := e.command("mint", "--subject", "alice", "--client-id", publicClient, "--alg", alg)
			if err != nil {
				t.Fatalf("minting: %v", err)
			}
			if got := headerOf(t, token, "alg"); got != alg {
				t.Fatalf("the token is signed by %s", got)
			}
			e.wantPass("the token", token)
			spellings := respellings(t, token)
			if n := len(spellings["spare bits of the signature"]); n != map[string]int{"RS256": 15, "ES256": 15, "EdDSA": 15}[alg] {
				t.Fatalf("%d other spellings of the signature", n)
			}
			if alg == "ES256" {
				spellings["the twin (r, n-s)"] = []string{twin(t, token)}
				for _, spelling := range tailSpellings(parts(t, twin(t, token))[2]) {
					p := parts(t, token)
					spellings["a spelling of the twin"] = append(spellings["a spelling of the twin"], p[0]+"."+p[1]+"."+spelling)
				}
			}

			e.revoke(token)
			e.wantRefused("the token", token)
			for kind, list := range spellings {
				for _, spelling := range list {
					a := e.get(spelling)
					// What RFC 6750, section 2.1, has no spelling for is no token at all.
					other := a.status == http.StatusBadRequest && strings.ContainsAny(spelling, "%\t =+/")
					if !refused(a) && !other {
						t.Errorf("%s: want 401: %s", kind, a)
					}
				}
			}
			e.wantRefusedHowever("the token", token)
		})
	}
}

// wantRefusedHowever sends a revoked token in every way in which an upstream
// might look for it.
func (e *edge) wantRefusedHowever(what, token string) {
	e.t.Helper()
	for name, change := range map[string]func(*http.Request){
		"scheme in lower case": func(r *http.Request) { r.Header.Set("Authorization", "bearer "+token) },
		"scheme in upper case": func(r *http.Request) { r.Header.Set("Authorization", "BEARER "+token) },
		"several spaces":       func(r *http.Request) { r.Header.Set("Authorization", "Bearer   "+token) },
		"DPoP":                 func(r *http.Request) { r.Header.Set("Authorization", "DPoP "+token) },
		"after another header": func(r *http.Request) {
			r.Header["Authorization"] = []string{"Bearer " + e.mintFor("bob"), "Bearer " + token}
		},
		"before another header": func(r *http.Request) {
			r.Header["Authorization"] = []string{"Bearer " + token, "Basic Ym9iOmJvYg=="}
		},
		"name in lower case": func(r *http.Request) { r.Header["authorization"] = []string{"Bearer " + token} },
		"in the query":       func(r *http.Request) { r.URL.RawQuery = "access_token=" + token },
	} {
		req := e.request(http.MethodGet, e.address, "/", nil)
		req.Host = "localhost" + e.address[strings.LastIndex(e.address, ":"):]
		change(req)
		if a := e.do(req); a.status != http.StatusUnauthorized && a.status != http.StatusBadRequest {
			e.t.Errorf("%s, %s: want 401 or 400: %s", what, name, a)
		}
	}
}

func TestTwinRevokesTheTokenItIsATwinOf(t *testing.T) {
	e := newFirstEdge(t).run()
	token := e.mint(map[string]any{"subject": "alice", "client_id": publicClient, "algorithm": "ES256"})
	e.wantPass("the token", token)
	e.revoke(twin(t, token))
	e.wantRefused("the token whose twin was revoked", token)
}

func TestForgedTokenStoresNothing(t *testing.T) {
	e := newFirstEdge(t).run()
	victim := e.mint(map[string]any{"subject": "victim", "client_id": publicClient, "session_id": "s1"})
	attacker := e.mintFor("attacker")
	service := e.mint(map[string]any{"subject": "service", "client_id": secretClient})
	e.wantPass("the victim's token", victim)

	stolen := map[string]any{"jti": claim(t, victim, "jti"), "sub": "victim", "sid": "s1"}
	victims := parts(t, victim)
	hmacSignature := func(key string) string {
		token := reheaded(t, victim, map[string]any{"alg": "HS256"}, "")
		mac := hmac.New(sha256.New, []byte(key))
		mac.Write([]byte(strings.TrimSuffix(token, ".")))
		return encode(mac.Sum(nil))
	}
	forged := map[string]string{
		"the victim's jti under the attacker's signature": forge(t, attacker, stolen),
		"the victim's jti, issued to another client":      forge(t, victim, map[string]any{"client_id": publicClient, "scope": "x"}),
		"no algorithm":                 reheaded(t, victim, map[string]any{"alg": "none"}, ""),
		"no algorithm, signature kept": reheaded(t, victim, map[string]any{"alg": "none"}, victims[2]),
		"no signature":                 victims[0] + "." + victims[1] + ".",
		"HS256 with an empty key":      reheaded(t, victim, map[string]any{"alg": "HS256"}, hmacSignature("")),
		"HS256 with a guess":           reheaded(t, victim, map[string]any{"alg": "HS256"}, hmacSignature("secret")),
		"a key of its own":             reheaded(t, victim, map[string]any{"jku": "http://127.0.0.1:1/", "jwk": map[string]any{"kty": "oct", "k": "AA"}}, victims[2]),
		"another issuer's":             forge(t, victim, map[string]any{"iss": "https://nobody.example"}),
		"no JWT":                       "victim",
		"expired":                      forge(t, victim, map[string]any{"exp": 1}),
		"no JWT, nothing but dots":     "..",
	}
	before := e.status().Denylist.Entries
	for name, token := range forged {
		a := e.post(url.Values{"token": {token}, "client_id": {publicClient}}, "", "")
		// RFC 7009, section 2.2: invalid tokens do not cause an error; kinds of
		// tokens that nobody here can tell to be invalid do. One with an HMAC may
		// be a refresh token, which some issuers sign so.
		want := http.StatusOK
		if strings.HasPrefix(name, "no JWT") || strings.HasPrefix(name, "HS256") {
			want = http.StatusBadRequest
		}
		if a.status != want || want != http.StatusOK && !strings.Contains(a.body, "unsupported_token_type") {
			t.Errorf("%s: want %d: %s", name, want, a)
		}
		if a := e.get(token); a.status != http.StatusUnauthorized {
			t.Errorf("%s: want 401 from a protected route: %s", name, a)
		}
	}
	// A genuine token, of a client that did not authenticate here.
	if a := e.post(url.Values{"token": {service}, "client_id": {publicClient}}, "", ""); a.status >= http.StatusInternalServerError {
		t.Errorf("another client's token: %s", a)
	}
	// The endpoint reads the form, not the query (RFC 7009, section 2.1).
	req := e.request(http.MethodPost, e.address, "/oauth/revoke?"+url.Values{"token": {victim}, "client_id": {publicClient}}.Encode(), nil)
	req.Host = "localhost" + e.address[strings.LastIndex(e.address, ":"):]
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if a := e.do(req); a.status == http.StatusOK {
		t.Errorf("a token in the query: %s", a)
	}

	if now := e.status().Denylist.Entries; now != before {
		t.Errorf("%d entries were stored", now-before)
	}
	e.wantPass("the victim's token", victim)
	e.wantPass("the other client's token", service)
	e.process.kill()
	e.run()
	if now := e.status().Denylist.Entries; now != before {
		t.Errorf("%d entries were in the ledger", now-before)
	}
	e.wantPass("the victim's token after a restart", victim)
}
