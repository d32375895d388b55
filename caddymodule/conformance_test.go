package caddymodule

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

const conformanceData = "../revocation/oauth/testdata/"

// conformanceCase is one request to a whole Caddy, and what has to become of it.
type conformanceCase = revocationtest.ConformanceCase

func readConformance[T any](t *testing.T, file string) T {
	t.Helper()
	return revocationtest.ReadJSON[T](t, conformanceData+file)
}

// casesOfTheirOwn are the cases that are no single request; the functions below
// run them.
var casesOfTheirOwn = map[string]func(*conformanceRig, *testing.T){
	"OK-16":   (*conformanceRig).endpointsOfTwoIssuers,
	"META-01": (*conformanceRig).metadata,
	"META-03": (*conformanceRig).metadata,
	"EDGE-01": (*conformanceRig).protectedRoute,
	"EDGE-04": (*conformanceRig).revokedTwice,
	"EDGE-05": (*conformanceRig).revokedTwice,
	"EDGE-08": (*conformanceRig).refreshWithRevoked,
	"RESP-09": (*conformanceRig).auditRecord,
	"HOOK-06": (*conformanceRig).hookAddsHeader,
}

// Every known case is run, or listed with a reason, and no case is both.
func TestEveryConformanceCaseIsRunOrListed(t *testing.T) {
	known := readConformance[map[string]string](t, "all_cases.json")
	place := make(map[string]string)
	put := func(id, where string) {
		if _, ok := known[id]; !ok && !strings.HasPrefix(id, "OURS-") {
			t.Errorf("%s: %s is no known case", where, id)
		}
		if other, twice := place[id]; twice {
			t.Errorf("%s is in %s and in %s", id, other, where)
		}
		place[id] = where
	}
	for _, c := range readConformance[[]conformanceCase](t, "revocation_cases.json") {
		put(c.ID, "the table")
		if level, ok := known[c.ID]; ok && level != c.Level {
			t.Errorf("%s has the level %s, not %s", c.ID, level, c.Level)
		}
	}
	for id := range casesOfTheirOwn {
		put(id, "the functions")
	}
	for _, group := range readConformance[[]struct {
		Reason string   `json:"reason"`
		IDs    []string `json:"ids"`
	}](t, "not_run.json") {
		if len(group.Reason) < 20 {
			t.Errorf("%q is no reason not to run %v", group.Reason, group.IDs)
		}
		for _, id := range group.IDs {
			put(id, "not_run.json")
		}
	}
	for id, level := range known {
		if place[id] == "" {
			t.Errorf("%s (%s) is neither run nor listed", id, level)
		}
	}
}

// conformanceRig is a Caddy with an embedded ledger, in front of which the cases
// are run, and the issuer of their tokens.
type conformanceRig struct {
	*site
	as     *revocationtest.AuthServer
	signer jose.JSONWebKey // of the client that signs assertions
	mac    jose.JSONWebKey // of the one that shares a secret
	rsa    jose.JSONWebKey // a key of the first, of an algorithm that it may not use
	opaque *revocationtest.OpaqueServer
	tokens map[string]string // that the protected route is asked with
	others map[string]string // refresh tokens and such
	cases  int
}

const macSecret = "a-secret-that-is-long-enough-for-a-mac"

func newConformanceRig(t *testing.T) *conformanceRig {
	r := &conformanceRig{site: newSite(t), as: revocationtest.NewAuthServer(t)}
	r.signer = revocationtest.NewKey(t, "ES256", "signer-1")
	r.rsa = revocationtest.NewKey(t, "RS256", "signer-rsa")
	r.opaque = revocationtest.NewOpaqueServer(t, "edge-secret")
	r.opaque.LimitByHint() // which is what makes a wrong hint one
	r.mac = jose.JSONWebKey{Key: []byte(macSecret), Algorithm: "HS256"}
	for name, value := range map[string]string{
		"APP": "app-secret", "OLD_APP": "old-app-secret", "OTHER": "other-secret", "ADMIN": "admin-secret", "EDGE": "edge-secret",
		"ODD": "some secure & non-standard secret", "MAC": macSecret,
	} {
		t.Setenv("CONFORMANCE_"+name, value)
	}
	return r
}

func (r *conformanceRig) config(c *conformanceCase) string {
	ledger := "embedded"
	if c.Ledger == "down" {
		ledger = "nats nats://127.0.0.1:1"
	}
	jwks, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{r.signer.Public(), r.rsa.Public()}})
	if err != nil {
		r.t.Fatal(err)
	}
	endpoint := c.Endpoint
	if endpoint == "" {
		endpoint = "/oauth/revoke"
	}
	return fmt.Sprintf(`{
	admin 127.0.0.1:%d
	persist_config off
	log {
		level FATAL
	}
	servers {
		%s
	}
	token_revocation {
		%s
		issuer %s {
			jwks_uri %s
			claim client_id %s
			claim gid grant
			%s
		}
		client app {env.CONFORMANCE_APP} {env.CONFORMANCE_OLD_APP}
		client other {env.CONFORMANCE_OTHER}
		client an:identifier {env.CONFORMANCE_ODD}
		client spa public
		client admin {env.CONFORMANCE_ADMIN} {
			revoke_any
		}
		client signer {
			jwks %s
			algorithms ES256
		}
		client mac {env.CONFORMANCE_MAC} {
			method client_secret_jwt
		}
		client mass-%d {env.CONFORMANCE_APP} {
			issuer %s
		}
		%s
	}
}
http://127.0.0.1:%d {
	bind 127.0.0.1
	token_revocation %s {
		%s
	}
	token_denylist /protected {
		%s
	}
	respond /protected "upstream reached"
	respond 404
}
`, r.admin, c.Servers, ledger, r.as.URL, r.as.URL+revocationtest.JWKSPath, "client_id azp", r.introspection(c), "`"+string(jwks)+"`", r.cases, r.as.URL, c.Options,
		r.port, endpoint, c.Config, r.introspect(c))
}

// start runs the case's config with fresh tokens.
func (r *conformanceRig) start(t *testing.T, c *conformanceCase) {
	t.Helper()
	r.t = t
	r.cases++
	r.as.Fail(0)
	if err := r.loadConfig(r.config(c)); err != nil {
		t.Fatal(err)
	}
	if c.Ledger != "down" {
		r.eventually("the edge to be in sync", func() bool {
			status := currentApp().status()
			return status.State == "in_sync" && status.Issuers[0].Ready
		})
	}
	user, session := fmt.Sprint("user-", r.cases), fmt.Sprint("session-", r.cases)
	token := func(claims map[string]any) string {
		full := map[string]any{"sub": user, "sid": session}
		maps.Copy(full, claims)
		return r.as.Token(full)
	}
	grant := fmt.Sprint("grant-", r.cases)
	r.tokens = map[string]string{
		"AT":           token(nil),
		"AT2":          token(map[string]any{"grant": grant}),
		"PUB_AT":       token(map[string]any{"client_id": "spa"}),
		"CC_AT":        token(map[string]any{"sub": "app", "sid": nil, "grant": "another"}),
		"ODD_AT":       token(map[string]any{"client_id": "an:identifier"}),
		"AZP_AT":       token(map[string]any{"client_id": nil, "azp": "app", "sid": nil, "grant": grant}),
		"NO_CLIENT_AT": token(map[string]any{"client_id": nil}),
		"FOREIGN_AT":   token(map[string]any{"client_id": "other"}),
		"SIGNER_AT":    token(map[string]any{"client_id": "signer"}),
		"MAC_AT":       token(map[string]any{"client_id": "mac"}),
		"MASS_AT":      token(map[string]any{"client_id": fmt.Sprint("mass-", r.cases)}),
	}
	r.others = map[string]string{"RT": "8xLOxBtZp8"}
	if c.Introspection != "" {
		r.issueOpaque(c, user, session)
		r.tokens["SESSION2_AT"] = token(map[string]any{"sid": session + "-other"})
	}
	if c.Keys == "down" {
		// A key that nobody has seen yet, of an issuer that does not answer.
		r.as.Fail(http.StatusInternalServerError)
		fresh := revocationtest.NewKey(t, "ES256", fmt.Sprint("unseen-", r.cases))
		r.tokens["AT"] = revocationtest.SignWith(t, fresh, map[string]any{"typ": "at+jwt"}, r.as.Claims(nil))
	}
}

func TestConformance(t *testing.T) {
	r := newConformanceRig(t)
	for _, c := range readConformance[[]conformanceCase](t, "revocation_cases.json") {
		t.Run(c.ID, func(t *testing.T) { r.run(t, &c) })
	}
	for id, run := range casesOfTheirOwn {
		t.Run(id, func(t *testing.T) {
			r.t = t
			run(r, t)
		})
	}
	r.t = t
}

func (r *conformanceRig) run(t *testing.T, c *conformanceCase) {
	r.start(t, c)
	fill := r.replacer()
	body := fill.Replace(assertionOf.ReplaceAllStringFunc(c.Body, func(m string) string {
		return r.assertion(assertionOf.FindStringSubmatch(m)[1])
	}))
	for _, before := range c.Before {
		earlier := *c
		earlier.Body = before
		if got := r.send(&earlier, fill, fill.Replace(before)); got.status != http.StatusOK {
			t.Fatalf("%s: %s was answered with %d: %s", c.Says, before, got.status, got.body)
		}
	}
	var got answer
	for range max(1, c.Times) {
		got = r.send(c, fill, body)
	}
	if got.status != c.Want.Status {
		t.Errorf("%s: status %d, want %d: %s", c.Says, got.status, c.Want.Status, got.body)
	}
	if c.Method != http.MethodHead && got.status >= 400 && got.status != http.StatusNotFound {
		var members map[string]string
		if err := json.Unmarshal([]byte(got.body), &members); err != nil || members["error"] == "" || c.Want.Error != "" && members["error"] != c.Want.Error {
			t.Errorf("%s: the body %q (%v) has not the error %q", c.Says, got.body, err, c.Want.Error)
		}
	}
	if got.status == http.StatusOK && got.body != "{}" {
		t.Errorf("%s: the body of the 200 is %q", c.Says, got.body)
	}
	r.checkFields(t, c, got)
	if c.Ledger == "down" {
		if got.status == http.StatusOK {
			t.Errorf("%s: a 200 without a ledger", c.Says)
		}
		return // the protected route knows nothing either
	}
	r.as.Fail(0)
	r.opaque.Fail(0)
	for name, token := range r.tokens {
		if name == "AT" && c.Keys == "down" {
			continue // its key is still unknown to the protected route
		}
		want := http.StatusOK
		if slices.Contains(c.Want.Revokes, "{"+name+"}") {
			want = http.StatusUnauthorized
		}
		header := http.Header{"Authorization": {"Bearer " + token}}
		if after := r.do(http.MethodGet, r.url("/protected"), header, ""); after.status != want {
			t.Errorf("%s: afterwards {%s} is answered with %d, want %d", c.Says, name, after.status, want)
		}
	}
}

func (r *conformanceRig) checkFields(t *testing.T, c *conformanceCase, got answer) {
	t.Helper()
	for name, value := range c.Want.Headers {
		have := got.header.Get(name)
		if value == "" && have != "" || value != "*" && !strings.HasPrefix(have, value) || value == "*" && have == "" {
			t.Errorf("%s: %s is %q, want %q", c.Says, name, have, value)
		}
	}
	if got.status == http.StatusNotFound {
		return // not our answer
	}
	for name, want := range map[string]string{"Cache-Control": "no-store", "Pragma": "no-cache"} {
		if have := got.header.Get(name); have != want {
			t.Errorf("%s: %s is %q", c.Says, name, have)
		}
	}
	if have := got.header.Get("Content-Type"); have != "application/json" && got.status != http.StatusNoContent {
		t.Errorf("%s: Content-Type is %q", c.Says, have)
	}
	for name, statuses := range map[string][]int{"WWW-Authenticate": {401}, "Retry-After": {503, 429}} {
		if have := got.header.Get(name) != ""; have != slices.Contains(statuses, got.status) {
			t.Errorf("%s: a %d has %s: %v", c.Says, got.status, name, have)
		}
	}
}

func (r *conformanceRig) protectedRoute(t *testing.T) {
	r.start(t, new(conformanceCase))
	token := r.tokens["AT"]
	if got := r.revokeAs("/oauth/revoke", "app", "app-secret", token); got.status != http.StatusOK {
		t.Fatalf("status %d", got.status)
	}
	got := r.protected(token)
	if challenge := got.header.Get("WWW-Authenticate"); got.status != http.StatusUnauthorized || !strings.HasPrefix(challenge, `Bearer error="invalid_token"`) {
		t.Errorf("status %d, challenge %q", got.status, challenge)
	}
}

// A token that is about to end stays revoked for the leeway; a second revocation
// changes nothing about it.
func (r *conformanceRig) revokedTwice(t *testing.T) {
	r.start(t, new(conformanceCase))
	token := r.as.Token(map[string]any{"exp": time.Now().Add(2 * time.Second).Unix()})
	for range 2 {
		if got := r.revokeAs("/oauth/revoke", "app", "app-secret", token); got.status != http.StatusOK {
			t.Fatalf("status %d", got.status)
		}
	}
	for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		got := r.protected(token)
		if got.status != http.StatusUnauthorized || !strings.Contains(got.header.Get("WWW-Authenticate"), "revoked") {
			t.Fatalf("status %d, %q", got.status, got.header.Get("WWW-Authenticate"))
		}
	}
}
