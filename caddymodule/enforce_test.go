package caddymodule

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

func TestQuickStart(t *testing.T) {
	s := newSite(t)
	s.mustLoad(demo, "token_denylist")
	token, other := aliceToken(s), aliceToken(s)
	s.wantStatus(token, http.StatusOK, "a fresh token")

	got := s.revoke(url.Values{"token": {token}, "client_id": {"demo-app"}})
	if got.status != http.StatusOK || got.body != "{}" || got.header.Get("Content-Type") != "application/json" {
		t.Errorf("revocation answered %d %q %q, want 200 application/json {}", got.status, got.header.Get("Content-Type"), got.body)
	}
	got = s.wantStatus(token, http.StatusUnauthorized, "the revoked token")
	challenge := got.header.Get("WWW-Authenticate")
	if !strings.HasPrefix(challenge, "Bearer ") || !strings.Contains(challenge, `error="invalid_token"`) {
		t.Errorf("challenge %q is not Bearer with invalid_token", challenge)
	}
	if got.header.Get("Cache-Control") != "no-store" {
		t.Error("a refusal may be cached")
	}
	s.wantStatus(other, http.StatusOK, "another token of the same user and client")
}

func TestConfidentialClientBySecretInFormAndBasic(t *testing.T) {
	s := newSite(t)
	s.mustLoad(demo, "token_denylist")
	const secret = "correct-horse-battery-staple"
	mint := func() string { return s.mint(issuer.MintRequest{Subject: "alice", ClientID: "demo-service"}) }

	inForm := mint()
	got := s.revoke(url.Values{"token": {inForm}, "client_id": {"demo-service"}, "client_secret": {secret}})
	if got.status != http.StatusOK {
		t.Fatalf("secret in the form: %d %s", got.status, got.body)
	}
	s.wantStatus(inForm, http.StatusUnauthorized, "revoked with the secret in the form")

	byBasic := mint()
	request, _ := http.NewRequest(http.MethodPost, s.url("/oauth/revoke"), strings.NewReader(url.Values{"token": {byBasic}}.Encode()))
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.SetBasicAuth("demo-service", secret)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Fatalf("Basic: %d", response.StatusCode)
	}
	s.wantStatus(byBasic, http.StatusUnauthorized, "revoked with Basic")

	for name, form := range map[string]url.Values{
		"wrong secret": {"client_id": {"demo-service"}, "client_secret": {"wrong"}},
		"no secret":    {"client_id": {"demo-service"}},
		"no client":    {},
	} {
		alive := mint()
		form.Set("token", alive)
		if got := s.revoke(form); got.status != http.StatusUnauthorized {
			t.Errorf("%s: %d, want 401", name, got.status)
		}
		s.wantStatus(alive, http.StatusOK, "token after a refused revocation: "+name)
	}
}

// Promise 6: nobody revokes what isn't theirs.
func TestForeignTokenStaysAlive(t *testing.T) {
	s := newSite(t)
	s.mustLoad(demo, "token_denylist")
	foreign := s.mint(issuer.MintRequest{Subject: "alice", ClientID: "demo-service"})
	got := s.revoke(url.Values{"token": {foreign}, "client_id": {"demo-app"}})
	if got.status != http.StatusBadRequest || !strings.Contains(got.body, "invalid_grant") {
		t.Errorf("foreign token: %d %s, want 400 invalid_grant", got.status, got.body)
	}
	s.wantStatus(foreign, http.StatusOK, "a token that a foreign client tried to revoke")
}

// Revocations by token, user, client, session and combinations deny exactly
// what they name, as a cutoff and as a block.
func TestOperatorRevokesByCriteria(t *testing.T) {
	request := func(subject, client, session string) issuer.MintRequest {
		return issuer.MintRequest{Subject: subject, ClientID: client, SessionID: session}
	}
	cases := map[string]struct {
		claims map[string]string
		named  issuer.MintRequest
		spared issuer.MintRequest
	}{
		"user":    {map[string]string{"sub": "u1"}, request("u1", "c", "s"), request("u2", "c", "s")},
		"client":  {map[string]string{"client_id": "c3"}, request("u", "c3", "s"), request("u", "c4", "s")},
		"session": {map[string]string{"sid": "s5"}, request("u", "c", "s5"), request("u", "c", "s6")},
		"grant":   {map[string]string{"sub": "u7", "client_id": "c7"}, request("u7", "c7", "s"), request("u7", "c8", "s")},
	}
	for name, c := range cases {
		for _, mode := range []string{"block", "issued_before"} {
			t.Run(name+" "+mode, func(t *testing.T) {
				s := newSite(t)
				s.mustLoad(demo+"issuer_skew -1s\n", "token_denylist")
				named, spared := s.mint(c.named), s.mint(c.spared)
				s.wantStatus(named, http.StatusOK, "before")

				got, answer := s.adminPost("revocations", revocationRequest{Claims: c.claims, Mode: mode, Reason: "test"})
				if got.status != http.StatusOK {
					t.Fatalf("revoking: %d %s", got.status, got.body)
				}
				s.wantStatus(named, http.StatusUnauthorized, "a token that is named")
				s.wantStatus(spared, http.StatusOK, "a token that is not named")

				if answer.NewTokensPass != (mode != "block") {
					t.Errorf("the answer says new tokens pass: %v", answer.NewTokensPass)
				}
				s.eventually("the second of the cutoff to be over", func() bool { return time.Now().Unix() > answer.Cutoff })
				want := http.StatusOK
				if mode == "block" {
					want = http.StatusUnauthorized
				}
				s.wantStatus(s.mint(c.named), want, "a new token")

				if got, _ := s.adminPost("restorations", revocationRequest{Claims: c.claims}); got.status != http.StatusOK {
					t.Fatalf("restoring: %d %s", got.status, got.body)
				}
				s.wantStatus(named, http.StatusOK, "after the restoration")
			})
		}
	}
}

func TestOperatorRevokesOneTokenByItself(t *testing.T) {
	s := newSite(t)
	s.mustLoad(demo, "token_denylist")
	token, other := aliceToken(s), aliceToken(s)
	got, _ := s.adminPost("revocations", revocationRequest{Token: token})
	if got.status != http.StatusOK {
		t.Fatalf("%d %s", got.status, got.body)
	}
	s.wantStatus(token, http.StatusUnauthorized, "the revoked token")
	s.wantStatus(other, http.StatusOK, "another one")
}

func TestAdminRefusesWhatCouldBeAMistake(t *testing.T) {
	s := newSite(t)
	s.mustLoad(demo, "token_denylist")
	alive := aliceToken(s)
	cases := map[string]struct {
		body any
		want string
	}{
		"no claims at all":       {revocationRequest{}, "whole_issuer"},
		"unknown issuer":         {revocationRequest{Issuer: "https://x.example", Claims: map[string]string{"sub": "a"}}, "not configured"},
		"token and claims":       {revocationRequest{Token: alive, Claims: map[string]string{"sub": "a"}}, "not both"},
		"unknown mode":           {revocationRequest{Claims: map[string]string{"sub": "a"}, Mode: "forever"}, "unknown"},
		"block with a cutoff":    {revocationRequest{Claims: map[string]string{"sub": "a"}, Mode: "block", Cutoff: 1}, "cutoff"},
		"misspelt member":        {map[string]any{"clams": map[string]string{"sub": "a"}}, "clams"},
		"an empty value":         {revocationRequest{Claims: map[string]string{"sub": ""}}, "sub"},
		"a token that is forged": {revocationRequest{Token: alive[:len(alive)-10] + "AAAAAAAAAA"}, "can't be revoked"},
	}
	for name, c := range cases {
		got, _ := s.adminPost("revocations", c.body)
		if got.status != http.StatusBadRequest || !strings.Contains(got.body, c.want) {
			t.Errorf("%s: %d %s, want 400 with %q", name, got.status, got.body, c.want)
		}
	}
	if n := currentApp().status().Denylist.Entries; n != 0 {
		t.Errorf("%d entries were stored", n)
	}
	s.wantStatus(alive, http.StatusOK, "a token after refused requests")
}

func TestRequestsWithoutOrWithStrangeTokens(t *testing.T) {
	s := newSite(t)
	s.mustLoad(demo, `token_denylist {
		realm orders
	}`)
	good := aliceToken(s)
	cases := map[string]struct {
		path   string
		header http.Header
		want   int
	}{
		"no token":                     {"/", nil, 200},
		"another scheme":               {"/", http.Header{"Authorization": {"Basic Zm9vOmJhcg=="}}, 200},
		"scheme in any case":           {"/", http.Header{"Authorization": {"bEaReR " + good}}, 200},
		"several spaces":               {"/", http.Header{"Authorization": {"Bearer   " + good}}, 200},
		"a list":                       {"/", http.Header{"Authorization": {"Bearer " + good + ",x"}}, 400},
		"two fields":                   {"/", http.Header{"Authorization": {"Bearer " + good, "Bearer " + good}}, 400},
		"token in the query":           {"/?a=1&access_token=" + good, nil, 400},
		"encoded name in the query":    {"/?access%5Ftoken=" + good, nil, 400},
		"after a semicolon":            {"/?a=1;access_token=" + good, nil, 400},
		"opaque":                       {"/", http.Header{"Authorization": {"Bearer opaque-token"}}, 401},
		"unsecured":                    {"/", http.Header{"Authorization": {"Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0."}}, 401},
		"signature cut":                {"/", http.Header{"Authorization": {"Bearer " + good[:len(good)-4]}}, 401},
		"good, with an ordinary query": {"/?q=access", http.Header{"Authorization": {"Bearer " + good}}, 200},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s.t = t
			got := s.do(http.MethodGet, s.url(c.path), c.header, "")
			if got.status != c.want {
				t.Fatalf("status %d, want %d", got.status, c.want)
			}
			challenge := got.header.Get("WWW-Authenticate")
			if (challenge != "") != (c.want != 200) {
				t.Errorf("challenge %q with status %d", challenge, c.want)
			}
			if challenge != "" && !strings.Contains(challenge, `realm="orders"`) {
				t.Errorf("challenge %q lacks the realm", challenge)
			}
		})
	}
}

func TestRequireToken(t *testing.T) {
	s := newSite(t)
	s.mustLoad(demo, `token_denylist {
		require_token
	}`)
	got := s.wantStatus("", http.StatusUnauthorized, "no token")
	// RFC 6750, section 3.1: no error code if the request lacked any token
	challenge := got.header.Get("WWW-Authenticate")
	if !strings.HasPrefix(challenge, "Bearer ") || strings.Contains(challenge, "error") {
		t.Errorf("challenge %q, want Bearer without an error", challenge)
	}
	preflight := s.do(http.MethodOptions, s.url("/"), http.Header{
		"Origin": {"https://app.example"}, "Access-Control-Request-Method": {"GET"},
	}, "")
	if preflight.status != http.StatusOK {
		t.Errorf("CORS preflight: %d, want 200: it never carries a token", preflight.status)
	}
	s.wantStatus(aliceToken(s), http.StatusOK, "a token")
}

// With verify off the upstream verifies; a revoked token is refused all the same.
func TestVerifyOffStillRefusesRevokedTokens(t *testing.T) {
	s := newSite(t)
	s.mustLoad(demo, `token_denylist {
		verify off
	}`)
	token := aliceToken(s)
	forged := token[:len(token)-10] + "AAAAAAAAAA"
	s.wantStatus(forged, http.StatusOK, "a forged token is the upstream's to refuse")
	s.mustRevoke(token, "demo-app")
	s.wantStatus(token, http.StatusUnauthorized, "the revoked token")
	s.wantStatus(forged, http.StatusUnauthorized, "another signature on the revoked token")
}

// A revoked key is an entry that a route without verification can't apply: it
// says so instead of letting the key's tokens through.
func TestVerifyOffIsIncompleteWhileAKeyIsRevoked(t *testing.T) {
	s := newSite(t)
	s.mustLoad(demo, `
	handle /lax {
		token_denylist {
			verify off
		}
		respond "upstream reached"
	}
	handle {
		token_denylist
		respond "upstream reached"
	}`)
	token := aliceToken(s)
	lax := func(want int, when string) {
		t.Helper()
		if got := s.do(http.MethodGet, s.url("/lax"), http.Header{"Authorization": {"Bearer " + token}}, ""); got.status != want {
			t.Errorf("%s: %d, want %d", when, got.status, want)
		}
	}
	lax(http.StatusOK, "no key is revoked")
	key := map[string]any{"issuer": issuer.DevelopmentIssuer, "claims": map[string]string{"kid": "another-key"}}
	if got, _ := s.adminPost("revocations", key); got.status != http.StatusOK {
		t.Fatal(got)
	}
	lax(http.StatusServiceUnavailable, "a key is revoked")
	s.wantStatus(token, http.StatusOK, "where signatures are verified, the key is known to be another one")
	if got, _ := s.adminPost("restorations", key); got.status != http.StatusOK {
		t.Fatal(got)
	}
	lax(http.StatusOK, "restored")
}

// What one route read without verifying must not count as verified on another.
func TestUnverifiedIdentityIsNotTakenForVerified(t *testing.T) {
	s := newSite(t)
	s.mustLoad(demo, `
	handle /lax {
		token_denylist {
			verify off
		}
		respond "upstream reached"
	}
	handle {
		token_denylist
		respond "upstream reached"
	}`)
	token := aliceToken(s)
	forged := http.Header{"Authorization": {"Bearer " + token[:len(token)-10] + "AAAAAAAAAA"}}
	for range 50 { // until it is surely cached
		if got := s.do(http.MethodGet, s.url("/lax"), forged, ""); got.status != http.StatusOK {
			t.Fatalf("lax route: %d", got.status)
		}
	}
	if got := s.do(http.MethodGet, s.url("/"), forged, ""); got.status != http.StatusUnauthorized {
		t.Errorf("strict route: %d for a forged token that a lax route had seen", got.status)
	}
}

// A token of an issuer that is not configured goes to the upstream if so chosen,
// unless a revocation in the ledger names it.
func TestUnknownIssuerPassesUnlessRevoked(t *testing.T) {
	s := newSite(t)
	foreign := revocationtest.NewAuthServer(t)
	token := foreign.Token(map[string]any{"sub": "alice"})
	s.mustLoad(demo, "token_denylist")
	s.wantStatus(token, http.StatusUnauthorized, "by default")

	s.mustLoad(demo, "token_denylist {\nunknown_issuer pass\n}")
	s.wantStatus(token, http.StatusOK, "with unknown_issuer pass")
	currentApp().replica.denylist.Revoke(1000, &revocation.Revocation{
		ID:       "test",
		Criteria: revocation.Criteria{Issuer: foreign.Issuer(), Claims: map[string]string{"sub": "alice"}},
		Mode:     revocation.Block,
		Expires:  time.Now().Add(time.Hour).Unix(),
	})
	s.wantStatus(token, http.StatusUnauthorized, "revoked by another edge that knows the issuer")

	other := foreign.Token(map[string]any{"sub": "bob"})
	s.wantStatus(other, http.StatusOK, "another user's")
	currentApp().replica.denylist.Revoke(1001, &revocation.Revocation{
		ID:       "test",
		Criteria: revocation.Criteria{Issuer: foreign.Issuer(), Claims: map[string]string{"kid": "perhaps-the-one"}},
		Mode:     revocation.Block,
		Expires:  time.Now().Add(time.Hour).Unix(),
	})
	s.wantStatus(other, http.StatusServiceUnavailable, "a key is revoked, and nobody knows which one signed this")
}

func TestOpaqueTokens(t *testing.T) {
	s := newSite(t)
	s.mustLoad(demo, `token_denylist {
		opaque_issuer `+issuer.DevelopmentIssuer+`
	}`)
	s.wantStatus("an-opaque-token", http.StatusOK, "an opaque token")
	hash, err := issuer.OpaqueTokenHash("an-opaque-token")
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := s.adminPost("revocations", revocationRequest{Claims: map[string]string{"token": hash}}); got.status != http.StatusOK {
		t.Fatalf("%d %s", got.status, got.body)
	}
	s.wantStatus("an-opaque-token", http.StatusUnauthorized, "the revoked opaque token")
	s.wantStatus("another-opaque-token", http.StatusOK, "another one")
}

// Promise 3: no serving before knowing.
func TestEdgeThatNeverSyncedAnswers503(t *testing.T) {
	s := newSite(t)
	options := strings.Replace(demo, "embedded", "nats nats://127.0.0.1:1", 1)
	const message = "handle_errors {\nrespond \"{http.error.message}\"\n}"
	if err := s.load(options, "token_denylist\n"+message); err != nil {
		t.Fatal(err)
	}
	s.eventually("the signing keys", func() bool { return currentApp().development.Ready() })
	token := aliceToken(s)
	got := s.wantStatus(token, http.StatusServiceUnavailable, "never synced")
	if got.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	if got.body != "the token can't be checked at the moment" {
		t.Errorf("strangers are told %q", got.body)
	}
	if got := s.revoke(url.Values{"token": {token}, "client_id": {"demo-app"}}); got.status != http.StatusServiceUnavailable {
		t.Errorf("revocation without a ledger: %d, want 503", got.status)
	}
	if state := currentApp().status(); state.State != "syncing" || state.Serving {
		t.Errorf("status %+v, want syncing and not serving", state)
	}

	if err := s.load(options, "token_denylist {\nstale fail_open\n}"); err != nil {
		t.Fatal(err)
	}
	s.eventually("the signing keys", func() bool { return currentApp().development.Ready() })
	s.wantStatus(token, http.StatusOK, "never synced, with fail_open")
}

// A client can't fill the denylist; operators still revoke when it is nearly full.
func TestClientsAreRefusedBeforeOperatorsAre(t *testing.T) {
	for name, options := range map[string]string{
		"quota of the client":    "max_entries 1000\nclient_quota 5",
		"nine tenths are in use": "max_entries 10\nclient_quota 10",
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.mustLoad(demo+options, "token_denylist")
			var refused string
			for i := 0; i < 10 && refused == ""; i++ {
				token := aliceToken(s)
				got := s.revoke(url.Values{"token": {token}, "client_id": {"demo-app"}})
				switch got.status {
				case http.StatusOK:
					s.wantStatus(token, http.StatusUnauthorized, "a token whose revocation was answered with 200")
				case http.StatusServiceUnavailable:
					refused = token
					if got.header.Get("Retry-After") == "" {
						t.Error("503 without Retry-After")
					}
				default:
					t.Fatalf("status %d, %s", got.status, got.body)
				}
			}
			if refused == "" {
				t.Fatal("ten revocations by one client were all recorded")
			}
			s.wantStatus(refused, http.StatusOK, "a token whose revocation was refused")
			if got, _ := s.adminPost("revocations", revocationRequest{Token: refused}); got.status != http.StatusOK {
				t.Fatalf("operator: %d %s", got.status, got.body)
			}
			s.wantStatus(refused, http.StatusUnauthorized, "a token that the operator revoked")
		})
	}
}

// The development issuer signs for whoever is on this machine, nobody else.
func TestMintRefusesRemoteRequests(t *testing.T) {
	s := newSite(t)
	s.mustLoad(demo, "token_denylist")
	for address, want := range map[string]bool{
		"127.0.0.1:5000": true, "[::1]:5000": true, "192.0.2.1:5000": false, "[2001:db8::1]:5000": false, "": false,
	} {
		request, _ := http.NewRequest(http.MethodPost, "/token_revocation/mint", nil)
		request.RemoteAddr = address
		if got := fromThisMachine(request); got != want {
			t.Errorf("from %q: %v, want %v", address, got, want)
		}
	}
}
