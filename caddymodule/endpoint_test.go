package caddymodule

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
)

func init() {
	caddy.RegisterModule(testPolicy{})
	caddy.RegisterModule(testEvents{})
	caddy.RegisterModule(notAPolicy{})
}

// testPolicy is a guest module: it answers by the subject of the token.
type testPolicy struct{}

func (testPolicy) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: policyNamespace + ".test", New: func() caddy.Module { return new(testPolicy) }}
}

func (*testPolicy) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() {
		return d.ArgErr()
	}
	return nil
}

func (*testPolicy) Decide(_ context.Context, f *oauth.Facts) (oauth.PolicyDecision, error) {
	custom := http.Header{"X-Custom": {"from the hook"}}
	switch f.Token.Subject {
	case "held":
		return oauth.PolicyDecision{
			Verdict: oauth.Answer, Status: http.StatusConflict, Header: custom, Body: []byte(`{"error":"held"}`), Reason: "on hold",
		}, nil
	case "panic":
		panic("oh")
	default:
		return oauth.PolicyDecision{Verdict: oauth.Allow, Header: custom}, nil
	}
}

type notAPolicy struct{}

func (notAPolicy) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: policyNamespace + ".not_one", New: func() caddy.Module { return new(notAPolicy) }}
}
func (*notAPolicy) UnmarshalCaddyfile(*caddyfile.Dispenser) error { return nil }

// testEvents collects events, and aborts revocations of the subject "keep".
type testEvents struct{}

var seenEvents struct {
	sync.Mutex
	list []caddy.Event
}

func (testEvents) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.test", New: func() caddy.Module { return new(testEvents) }}
}
func (*testEvents) UnmarshalCaddyfile(d *caddyfile.Dispenser) error { d.Next(); return nil }

func (*testEvents) Handle(_ context.Context, e caddy.Event) error {
	seenEvents.Lock()
	defer seenEvents.Unlock()
	seenEvents.list = append(seenEvents.list, e)
	if e.Name() == revokingEvent && e.Data["subject"] == "keep" {
		return fmt.Errorf("kept by a test: %w", caddy.ErrEventAborted)
	}
	return nil
}

// takeEvents returns the events of a name that were seen since the last call, for
// clients of an issuer: those of the test before may still come, with another one.
func takeEvents(issuer, name string) []map[string]any {
	seenEvents.Lock()
	defer seenEvents.Unlock()
	var found []map[string]any
	seenEvents.list = slices.DeleteFunc(seenEvents.list, func(e caddy.Event) bool {
		if e.Name() != name || e.Data["issuer"] != issuer {
			return false
		}
		found = append(found, e.Data)
		return true
	})
	return found
}

const onEvents = `
		events {
			on * test
		}`

// loadFull runs a config with more in it: global options, and lines of the
// endpoint's block. The log goes to a file, whose name it returns.
func (r *conformanceRig) loadFull(t *testing.T, global, config, site string) (logFile string) {
	t.Helper()
	logFile = filepath.Join(t.TempDir(), "caddy.log")
	text := r.config(&conformanceCase{Config: config})
	text = strings.Replace(text, "	log {\n\t\tlevel FATAL\n	}\n", fmt.Sprintf("	log {\n\t\toutput file %s\n\t\tlevel DEBUG\n\t\tformat json\n	}\n%s\n", logFile, global), 1)
	text = strings.Replace(text, "	respond 404\n", site+"\n	respond 404\n", 1)
	if err := r.loadConfig(text); err != nil {
		t.Fatal(err)
	}
	r.eventually("the edge to be in sync", func() bool {
		status := currentApp().status()
		return status.State == "in_sync" && status.Issuers[0].Ready
	})
	return logFile
}

// auditLines returns the lines of the audit trail, once there are n of them.
func (r *conformanceRig) auditLines(t *testing.T, file string, n int) []map[string]any {
	t.Helper()
	var lines []map[string]any
	r.eventually("the audit trail", func() bool {
		raw, err := os.ReadFile(file)
		if err != nil {
			return false
		}
		lines = nil
		for text := range strings.Lines(string(raw)) {
			var line map[string]any
			if json.Unmarshal([]byte(text), &line) == nil && line["msg"] == "token revocation request" {
				lines = append(lines, line)
			}
		}
		return len(lines) >= n
	})
	return lines
}

func (r *conformanceRig) endpointsOfTwoIssuers(t *testing.T) {
	r.start(t, new(conformanceCase)) // tokens
	text := r.config(&conformanceCase{
		Options: "issuer https://b.example {\n jwks_uri " + r.as.URL + "/jwks\n allow_http\n}\n" +
			"client b-app {env.CONFORMANCE_APP} {\n issuer https://b.example\n}\n",
		Config: "issuer " + r.as.URL,
	})
	for _, id := range []string{"app", "other", "an:identifier", "admin", "mac"} {
		text = issuerOfClient(text, id, r.as.URL)
	}
	text = strings.ReplaceAll(text, "client spa public", "client spa public {\n issuer "+r.as.URL+"\n}")
	text = strings.Replace(text, "client signer {", "client signer {\n issuer "+r.as.URL, 1)
	text = strings.Replace(text, "	respond 404\n", "	token_revocation /b/revoke {\n		issuer https://b.example\n	}\n	respond 404\n", 1)
	if err := r.loadConfig(text); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	r.eventually("keys", func() bool {
		s := currentApp().status()
		return len(s.Issuers) == 2 && s.Issuers[0].Ready && s.Issuers[1].Ready
	})
	ofB := r.as.Token(map[string]any{"iss": "https://b.example", "client_id": "b-app"})
	for _, step := range []struct {
		path, id, token string
		want            int
	}{
		{"/b/revoke", "app", r.tokens["AT"], http.StatusUnauthorized},
		{"/oauth/revoke", "b-app", ofB, http.StatusUnauthorized},
		{"/b/revoke", "b-app", r.tokens["AT"], http.StatusBadRequest},
	} {
		if got := r.revokeAs(step.path, step.id, "app-secret", step.token); got.status != step.want {
			t.Errorf("%+v: status %d, %s", step, got.status, got.body)
		}
	}
	for _, token := range []string{r.tokens["AT"], ofB} {
		if got := r.protected(token); got.status != http.StatusOK {
			t.Errorf("before: status %d", got.status)
		}
	}
	if got := r.revokeAs("/b/revoke", "b-app", "app-secret", ofB); got.status != http.StatusOK {
		t.Errorf("at B: status %d", got.status)
	}
	if a, b := r.protected(r.tokens["AT"]), r.protected(ofB); a.status != http.StatusOK || b.status != http.StatusUnauthorized {
		t.Errorf("after: %d and %d", a.status, b.status)
	}
}

// issuerOfClient gives a client with a secret, or a block, its issuer.
func issuerOfClient(text, id, iss string) string {
	line := "\t\tclient " + id + " "
	start := strings.Index(text, line)
	end := start + strings.IndexByte(text[start:], '\n')
	if strings.HasSuffix(text[start:end], "{") {
		return text[:end] + "\n\t\t\tissuer " + iss + text[end:]
	}
	return text[:end] + " {\n\t\t\tissuer " + iss + "\n\t\t}" + text[end:]
}

func (r *conformanceRig) metadata(t *testing.T) {
	merge := filepath.Join(t.TempDir(), "as.json")
	if err := os.WriteFile(merge, []byte(`{"token_endpoint":"https://id.example/token"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	const path = "/.well-known/oauth-authorization-server"
	r.loadFull(t, "", "", "token_revocation_metadata "+path+" {\nrevocation_endpoint https://id.example/oauth/revoke\nmerge "+merge+"\n}")
	got := r.do(http.MethodGet, r.url(path), nil, "")
	var doc struct {
		Issuer     string   `json:"issuer"`
		Endpoint   string   `json:"revocation_endpoint"`
		Wrong      string   `json:"token_revocation_endpoint"`
		Token      string   `json:"token_endpoint"`
		Methods    []string `json:"revocation_endpoint_auth_methods_supported"`
		Algorithms []string `json:"revocation_endpoint_auth_signing_alg_values_supported"`
	}
	if err := json.Unmarshal([]byte(got.body), &doc); err != nil || got.status != 200 || got.header.Get("Content-Type") != "application/json" {
		t.Fatalf("status %d, %v: %s", got.status, err, got.body)
	}
	if doc.Issuer != r.as.Issuer() || doc.Endpoint != "https://id.example/oauth/revoke" || doc.Wrong != "" || doc.Token == "" {
		t.Errorf("document %+v", doc)
	}
	want := []string{"client_secret_basic", "client_secret_jwt", "client_secret_post", "none", "private_key_jwt"}
	if !slices.Equal(doc.Methods, want) {
		t.Errorf("methods %q, want %q", doc.Methods, want)
	}
	if !slices.Contains(doc.Algorithms, "ES256") || !slices.Contains(doc.Algorithms, "HS256") || slices.Contains(doc.Algorithms, "none") || slices.Contains(doc.Algorithms, "RS256") {
		t.Errorf("algorithms %q", doc.Algorithms)
	}
}

func (r *conformanceRig) hookAddsHeader(t *testing.T) {
	r.start(t, &conformanceCase{Config: "policy test"})
	got := r.revokeAs("/oauth/revoke", "app", "app-secret", r.tokens["AT"])
	if got.status != 200 || got.header.Get("X-Custom") != "from the hook" || r.protected(r.tokens["AT"]).status != 401 {
		t.Errorf("status %d, %v", got.status, got.header)
	}
	held := r.as.Token(map[string]any{"sub": "held"})
	got = r.revokeAs("/oauth/revoke", "app", "app-secret", held)
	if got.status != http.StatusConflict || got.body != `{"error":"held"}` || r.protected(held).status != 200 {
		t.Errorf("held: status %d, %s", got.status, got.body)
	}
	if got = r.revokeAs("/oauth/revoke", "app", "app-secret", r.as.Token(map[string]any{"sub": "panic"})); got.status != 503 {
		t.Errorf("a policy that panics: status %d", got.status)
	}
}

// auditRecord: one line for each request, with where it came from, and nothing
// secret in it.
func (r *conformanceRig) auditRecord(t *testing.T) {
	r.start(t, new(conformanceCase)) // tokens
	log := r.loadFull(t, onEvents, "cascade grant\npolicy test", "")
	takeEvents(r.as.URL, "token_revoked")
	takeEvents(r.as.URL, "token_revocation_refused")
	r.revokeAs("/oauth/revoke", "app", "app-secret", r.tokens["AT"])
	r.revokeAs("/oauth/revoke", "app", "app-secret", r.as.Token(map[string]any{"iss": "https://stranger.example"}))
	r.revokeAs("/oauth/revoke", "app", "wrong-secret", r.tokens["AT2"])
	r.revokeAs("/oauth/revoke", "app", "app-secret", r.tokens["FOREIGN_AT"])
	r.revokeAs("/oauth/revoke", "app", "app-secret", r.as.Token(map[string]any{"sub": "held"}))
	lines := r.auditLines(t, log, 5)
	for i, want := range []map[string]any{
		{"level": "info", "result": "revoked", "status": 200.0, "client_id": "app", "cascade": "grant", "auth_method": "client_secret_basic"},
		{"level": "debug", "result": "token_invalid", "status": 200.0, "client_id": "app"},
		{"level": "debug", "result": "invalid_client", "status": 401.0},
		{"level": "info", "result": "not_owner", "status": 400.0, "owner": "other"},
		{"level": "info", "result": "policy_refused", "status": 409.0, "policy": "test", "reason": "on hold"},
	} {
		want["client_ip"] = "127.0.0.1"
		for name, value := range want {
			if lines[i][name] != value {
				t.Errorf("line %d: %s is %v, want %v", i, name, lines[i][name], value)
			}
		}
		for _, name := range []string{"duration", "client_duration", "token_duration", "policy_duration", "ledger_duration", "apply_duration"} {
			if _, ok := lines[i][name].(float64); !ok {
				t.Errorf("line %d has no %s", i, name)
			}
		}
	}
	if text := fmt.Sprint(lines[0]["criteria"], lines[0]["decisions"]); !strings.Contains(text, "jti=") || !strings.Contains(text, "sid=") {
		t.Errorf("the line does not say what was revoked: %s", text)
	}
	if lines[2]["client_id"] != nil {
		t.Errorf("a client that did not authenticate is named: %v", lines[2])
	}
	raw, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{r.tokens["AT"], "app-secret", "wrong-secret"} {
		if strings.Contains(string(raw), secret) || strings.Contains(string(raw), secret[strings.LastIndexByte(secret, '.')+1:]) {
			t.Errorf("the log has %q in it", secret)
		}
	}
	var revoked, refused []map[string]any
	r.eventually("the events", func() bool {
		revoked = append(revoked, takeEvents(r.as.URL, "token_revoked")...)
		refused = append(refused, takeEvents(r.as.URL, "token_revocation_refused")...)
		return len(revoked) >= 2 && len(refused) >= 2
	})
	if len(revoked) != 2 || len(refused) != 2 || revoked[0]["client_id"] != "app" || revoked[0]["criteria"] == "" ||
		revoked[0]["result"] != "revoked" || refused[0]["result"] != "not_owner" || refused[0]["owner"] != "other" ||
		refused[1]["result"] != "policy_refused" || refused[1]["reason"] != "on hold" {
		t.Errorf("events %v, %v", revoked, refused)
	}
	for _, e := range append(revoked, refused...) {
		took, ok := e["duration"].(float64)
		if _, reason := e["reason"].(string); !ok || took <= 0 || took > 60 || !reason {
			t.Errorf("event %v", e)
		}
	}
}

func TestEventHandlerMayAbortARevocation(t *testing.T) {
	r := newConformanceRig(t)
	r.start(t, new(conformanceCase))
	r.loadFull(t, onEvents, "", "")
	takeEvents(r.as.URL, revokingEvent)
	keep := r.as.Token(map[string]any{"sub": "keep"})
	got := r.revokeAs("/oauth/revoke", "app", "app-secret", keep)
	if got.status != http.StatusForbidden || !strings.Contains(got.body, "access_denied") || r.protected(keep).status != http.StatusOK {
		t.Errorf("aborted: status %d, %s", got.status, got.body)
	}
	if got := r.revokeAs("/oauth/revoke", "app", "app-secret", r.tokens["AT"]); got.status != http.StatusOK {
		t.Errorf("not aborted: status %d", got.status)
	}
	r.revokeAs("/oauth/revoke", "app", "app-secret", r.tokens["FOREIGN_AT"])
	events := takeEvents(r.as.URL, revokingEvent)
	if len(events) != 2 || events[0]["client_id"] != "app" || events[0]["subject"] != "keep" || events[1]["cascade"] != "token" {
		t.Errorf("events %v", events)
	}
}

func TestAuditAllRaisesTheLevelOfEveryLine(t *testing.T) {
	r := newConformanceRig(t)
	r.start(t, new(conformanceCase))
	log := r.loadFull(t, "", "audit all", "")
	r.revokeAs("/oauth/revoke", "app", "wrong-secret", "x")
	r.revokeAs("/oauth/revoke", "app", "app-secret", r.tokens["FOREIGN_AT"])
	for _, line := range r.auditLines(t, log, 2) {
		if line["level"] != "info" {
			t.Errorf("line %v", line)
		}
	}
}

// Counters belong to the process: a reload keeps them.
func TestEndpointMetricsSurviveReloads(t *testing.T) {
	r := newConformanceRig(t)
	r.start(t, new(conformanceCase))
	r.loadFull(t, "", "", "handle /metrics {\nmetrics\n}")
	r.revokeAs("/oauth/revoke", "app", "app-secret", r.tokens["AT"])
	r.loadFull(t, "", "cascade grant", "handle /metrics {\nmetrics\n}")
	r.revokeAs("/oauth/revoke", "app", "app-secret", r.tokens["AT2"])
	body := r.do(http.MethodGet, r.url("/metrics"), nil, "").body
	for _, want := range []string{
		metricsPrefix + "endpoint_plain_http_requests_total 2",
		metricsPrefix + `endpoint_seconds_count{part="client"} 2`,
		metricsPrefix + `endpoint_seconds_count{part="ledger"} 2`,
	} {
		if !strings.Contains(body, want+"\n") {
			t.Errorf("the metrics have no line %q:\n%s", want, body)
		}
	}
}

func TestEndpointConfigErrors(t *testing.T) {
	r := newConformanceRig(t)
	for _, tt := range []struct{ config, site, says string }{
		{"issuer https://unknown.example", "", "issuer https://unknown.example is not configured"},
		{"policy not_one", "", "does not implement oauth.Policy"},
		{"policy expression `{http.token_revocation.clientid} == \"x\"`", "", "there is no placeholder {http.token_revocation.clientid}"},
		{"policy expression `{http.request.header.Authorization} == \"x\"`", "", "can't see {http.request.header.Authorization}"},
		{"policy expression `ph(req, \"http.token\" + {http.token_revocation.client.id}) == \"x\"`", "", "has to be written out"},
		{"policy expression `\"no\" + \"bool\"`", "", "bool"},
		{"policy expression `{http.token_revocation.client.id} ==`", "", "compiling"},
		{"policy webhook http://hooks.example/", "", "is another machine"},
		{"policy webhook https://user:pw@hooks.example/", "", "password"},
		{"policy webhook ftp://hooks.example/", "", "not of the form"},
		{"policy webhook https://hooks.example/ {\ntimeout 20s\n}", "", "timeout is not between"},
		{"policy webhook https://hooks.example/ {\nheader Authorization {env.NOT_THERE_AT_ALL}\n}", "", "resolving a placeholder"},
		{"policy webhook https://hooks.example/ {\ntls_ca /does/not/exist\n}", "", "tls_ca"},
		{"cascade grant\ngrant_claim sub", "", "does not identify a grant"},
		{"", "token_revocation_metadata /m {\nrevocation_endpoint https://id.example/r\nissuer https://unknown.example\n}", "is not configured"},
		{"", "token_revocation_metadata /m {\nrevocation_endpoint https://id.example/r\nmerge /does/not/exist\n}", "merge"},
	} {
		text := r.config(&conformanceCase{Config: tt.config})
		text = strings.Replace(text, "	respond 404\n", tt.site+"\n	respond 404\n", 1)
		if err := r.loadConfig(text); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s%s: error %v, want one with %q", tt.config, tt.site, err, tt.says)
		}
	}
	endpointStatsPool.Range(func(key, _ any) bool {
		t.Errorf("%v is still held after failed loads", key)
		return true
	})
}
