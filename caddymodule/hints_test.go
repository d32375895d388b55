package caddymodule

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// post sends a form to a path as the client app.
func (r *conformanceRig) post(path, form string) answer {
	h := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	q := &http.Request{Header: h}
	q.SetBasicAuth("app", "app-secret")
	return r.do(http.MethodPost, r.url(path), h, form)
}

// wantRevoked revokes a token and then expects the rig's tokens of this name to be
// denied, or not.
func (r *conformanceRig) wantRevoked(t *testing.T, form, name string, denied bool) {
	t.Helper()
	got := r.post("/oauth/revoke", form)
	want := http.StatusOK
	if denied {
		want = http.StatusUnauthorized
	}
	if after := r.protected(r.tokens[name]).status; got.status != http.StatusOK || after != want {
		t.Errorf("status %d %s, then {%s} is answered with %d, want %d", got.status, got.body, name, after, want)
	}
}

// The rig's authorization server looks for a token only where the hint points to.
// The tables have a token of each kind with each hint; here is what they have not.
func TestAWrongHintHidesNoToken(t *testing.T) {
	r := newConformanceRig(t)
	r.start(t, &conformanceCase{Introspection: "all", Config: "}\n token_introspection /introspect {"})
	for name, hint := range map[string]string{"OAT": "refresh_token", "RT": "access_token"} {
		token := r.tokens[name] + r.others[name]
		if got := r.post("/introspect", "token="+token+"&token_type_hint="+hint); !strings.Contains(got.body, `"active":true`) {
			t.Errorf("introspecting {%s} with the hint %s: %d %s", name, hint, got.status, got.body)
		}
		if n := r.opaque.Asked(token); n != 2 {
			t.Errorf("asked %d times about {%s}", n, name)
		}
	}
	dead := "made-up-" + r.tokens["OAT"]
	if got := r.post("/oauth/revoke", "token="+dead+"&token_type_hint=access_token"); got.status != http.StatusOK || r.opaque.Asked(dead) != 2 {
		t.Errorf("status %d, asked %d times", got.status, r.opaque.Asked(dead))
	}
	// What the right hint has found is kept, and is found with a wrong one.
	before := r.opaque.Asked(r.others["OFFLINE_RT"])
	r.wantRevoked(t, "token="+r.others["OFFLINE_RT"]+"&token_type_hint=access_token", "OAT", true)
	if n := r.opaque.Asked(r.others["OFFLINE_RT"]) - before; n != 2 {
		t.Errorf("asked %d times", n)
	}
}

// Before an authorization server, too: after its 200 it is too late to ask.
func TestAWrongHintHidesNoTokenUpstream(t *testing.T) {
	s, as, opaque := opaqueSite(t, "")
	opaque.LimitByHint()
	token, other := opaque.Issue(nil), opaque.Issue(map[string]any{"sid": "another"})
	refresh := opaque.Issue(map[string]any{"token_type": nil, "token_use": "refresh_token"})
	id, otherID := s.mustAsk(opaque.URL, token), s.mustAsk(opaque.URL, other)
	as.set(write(200, "", ""))
	form := app(refresh)
	form.Set("token_type_hint", "access_token")
	if got := s.pass(form); got.status != 200 || !isDenied(id) || isDenied(otherID) {
		t.Errorf("status %d, its session denied %v, another %v", got.status, isDenied(id), isDenied(otherID))
	}
}

// Refresh tokens that are JWTs which the issuer's keys verify are known by the same
// facts as those that are asked about.
func TestRefreshTokensThatKeysVerify(t *testing.T) {
	r := newConformanceRig(t)
	month := time.Now().Add(30 * 24 * time.Hour).Unix()
	for name, c := range map[string]struct {
		typ     string
		claims  map[string]any
		hint    string
		refresh bool
		edge    int // how the token itself is answered at an edge
	}{
		"token_use":                     {"JWT", map[string]any{"token_use": "refresh"}, "", true, 401},
		"token_use and a header":        {"at+jwt", map[string]any{"token_use": "refresh_token"}, "", true, 401},
		"token_type":                    {"JWT", map[string]any{"token_type": "Refresh"}, "access_token", true, 401},
		"a long life":                   {"JWT", map[string]any{"exp": month}, "", true, 401},
		"a long life, and Bearer":       {"JWT", map[string]any{"exp": month, "token_type": "Bearer"}, "access_token", true, 401},
		"no end":                        {"JWT", map[string]any{"exp": nil}, "", true, 401},
		"the hint alone":                {"JWT", nil, "refresh_token", true, 200},
		"nothing":                       {"JWT", nil, "", false, 200},
		"an access token, wrong hint":   {"at+jwt", nil, "refresh_token", false, 200},
		"by its claim, wrong hint":      {"JWT", map[string]any{"token_use": "access"}, "refresh_token", false, 200},
		"Keycloak's, wrong hint":        {"JWT", map[string]any{"typ": "Bearer"}, "refresh_token", false, 200},
		"an access token, a long life":  {"at+jwt", map[string]any{"exp": month}, "", false, 401},
		"Django's, wrong hint":          {"JWT", map[string]any{"token_type": "access"}, "refresh_token", false, 200},
		"token_type Bearer and no hint": {"JWT", map[string]any{"token_type": "Bearer"}, "", false, 200},
	} {
		t.Run(name, func(t *testing.T) {
			r.start(t, new(conformanceCase))
			claims := map[string]any{"sub": fmt.Sprint("user-", r.cases), "sid": fmt.Sprint("session-", r.cases)}
			maps.Copy(claims, c.claims)
			token := revocationtest.SignWith(t, r.as.Key("ES256"), map[string]any{"typ": c.typ}, r.as.Claims(claims))
			if got := r.protected(token).status; got != c.edge {
				t.Errorf("at an edge: %d, want %d", got, c.edge)
			}
			r.wantRevoked(t, "token="+token+"&token_type_hint="+c.hint, "AT", c.refresh)
			if got := r.protected(token).status; got != http.StatusUnauthorized {
				t.Errorf("the token itself is answered with %d", got)
			}
			r.t = t
		})
	}
}

// A JWT without iss is nobody's access token. It may be a refresh token that only
// its server understands.
func TestAJWTWithoutIssuerIsAskedAbout(t *testing.T) {
	r := newConformanceRig(t)
	r.start(t, &conformanceCase{Introspection: "all"})
	sign := func(more map[string]any) (string, map[string]any) {
		claims := r.as.Claims(map[string]any{"sub": fmt.Sprint("user-", r.cases), "sid": fmt.Sprint("session-", r.cases), "iss": nil})
		maps.Copy(claims, more)
		key := revocationtest.NewKey(t, "ES256", "its own")
		return revocationtest.SignWith(t, key, map[string]any{"typ": "JWT"}, claims), claims
	}
	dead, _ := sign(nil)
	r.wantRevoked(t, "token="+dead, "AT", false)
	if r.opaque.Asked(dead) != 1 {
		t.Errorf("asked %d times", r.opaque.Asked(dead))
	}
	access, claims := sign(nil)
	r.opaque.Know(access, claims)
	r.wantRevoked(t, "token="+access, "AT", false)
	if r.protected(access).status == http.StatusOK {
		t.Error("an edge has accepted it")
	}
	// It says itself what it is for, and its server, which vouches for it, does not.
	refresh, claims := sign(map[string]any{"typ": "Refresh"})
	delete(claims, "typ")
	r.opaque.Know(refresh, claims)
	r.wantRevoked(t, "token="+refresh, "AT", true)

	r.start(t, new(conformanceCase))
	if got := r.post("/oauth/revoke", "token="+refresh); got.status != http.StatusBadRequest || !strings.Contains(got.body, "unsupported_token_type") {
		t.Errorf("nobody can be asked: %d %s", got.status, got.body)
	}
}

// Where the authorization server does not say when a token was issued, a cutoff
// would lock its user out for as long as it is kept.
func TestNoCutoffWhereNobodySaysWhenTokensWereIssued(t *testing.T) {
	r := newConformanceRig(t)
	r.start(t, &conformanceCase{Introspection: "all", Config: "cascade grant"})
	issue := func(more map[string]any) string {
		members := map[string]any{"iss": r.as.Issuer(), "sub": fmt.Sprint("user-", r.cases), "sid": nil, "iat": nil}
		maps.Copy(members, more)
		return r.opaque.Issue(members)
	}
	token, other := issue(nil), issue(nil)
	if got := r.post("/oauth/revoke", "token="+token); got.status != http.StatusOK || r.protected(token).status != http.StatusUnauthorized {
		t.Errorf("status %d, then %d", got.status, r.protected(token).status)
	}
	if got := r.protected(other).status; got != http.StatusOK {
		t.Errorf("another login: %d", got)
	}
	// Nothing would be denied with what its client calls a refresh token: no 200.
	if got := r.post("/oauth/revoke", "token="+other+"&token_type_hint=refresh_token"); got.status != http.StatusBadRequest || r.protected(other).status != http.StatusOK {
		t.Errorf("status %d %s", got.status, got.body)
	}
	// JWTs need no iat either.
	jwt := func() string {
		return r.as.Token(map[string]any{"sub": fmt.Sprint("user-", r.cases), "sid": nil, "iat": nil})
	}
	token, other = jwt(), jwt()
	if got := r.post("/oauth/revoke", "token="+token); got.status != http.StatusOK || r.protected(token).status != http.StatusUnauthorized || r.protected(other).status != http.StatusOK {
		t.Errorf("JWT: status %d, then %d, another login: %d", got.status, r.protected(token).status, r.protected(other).status)
	}
	// A session is one for its tokens, whenever they were issued.
	first, second := issue(map[string]any{"sid": "s"}), issue(map[string]any{"sid": "s"})
	if got := r.post("/oauth/revoke", "token="+first); got.status != http.StatusOK || r.protected(second).status != http.StatusUnauthorized {
		t.Errorf("status %d, the session: %d", got.status, r.protected(second).status)
	}
	// The keys' issuer says when its access tokens were issued, whatever its server
	// says of a refresh token.
	refresh := issue(map[string]any{"token_type": nil, "token_use": "refresh_token"})
	r.wantRevoked(t, "token="+refresh, "SESSION2_AT", true)
}

// refreshWithRevoked shows a revoked refresh token at the token endpoint, behind
// the example in the documentation.
func (r *conformanceRig) refreshWithRevoked(t *testing.T) {
	example := documentedExample(t, "handle /token")
	example = strings.NewReplacer("https://sso.example.com", r.as.URL, "reverse_proxy localhost:8080", `respond "refreshed"`).Replace(example)
	for _, name := range []string{"RT", "MAC_RT", "JWT_RT"} {
		r.start(t, &conformanceCase{Introspection: "all", Config: "}\n" + example + "\ntoken_denylist /nothing {"})
		refresh := func() answer { return r.post("/token", "grant_type=refresh_token&refresh_token="+r.others[name]) }
		if got := refresh(); got.body != "refreshed" {
			t.Errorf("{%s} is alive: %d %s", name, got.status, got.body)
		}
		if got := r.post("/oauth/revoke", "token="+r.others[name]); got.status != http.StatusOK {
			t.Errorf("{%s}: status %d", name, got.status)
		}
		got := refresh()
		if got.status != http.StatusBadRequest || got.body != `{"error":"invalid_grant"}` || got.header.Get("Content-Type") != "application/json" {
			t.Errorf("{%s} is revoked: %d %s", name, got.status, got.body)
		}
		if got := r.post("/token", "grant_type=authorization_code&code=x"); got.body != "refreshed" {
			t.Errorf("another grant: %d %s", got.status, got.body)
		}
	}
}

// documentedExample returns what is inside the site of the documented Caddyfile that
// has this text.
func documentedExample(t *testing.T, text string) string {
	t.Helper()
	docs, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, match := range regexp.MustCompile("(?s)```caddyfile\n[a-z.]+ \\{\n(.*?)\n\\}\n```").FindAllStringSubmatch(string(docs), -1) {
		if strings.Contains(match[1], text) {
			return match[1]
		}
	}
	t.Fatalf("no example has %s", text)
	return ""
}

// The documentation of clients_file names every member.
func TestEveryMemberOfAClientIsDocumented(t *testing.T) {
	docs, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(docs), "The members are those of a client")
	text, _, _ = strings.Cut(text, "Secrets are")
	for field := range reflect.TypeFor[ClientConfig]().Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name != "" && name != "-" && !strings.Contains(text, "`"+name+"`") {
			t.Errorf("%s is missing", name)
		}
	}
}
