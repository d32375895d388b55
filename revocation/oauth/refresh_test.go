package oauth

import (
	"net/http"
	"reflect"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// A refresh token is never presented to an edge: to revoke it is to revoke what was
// issued with it, whatever the endpoint does with access tokens.
func TestARefreshTokenTakesItsGrantWithIt(t *testing.T) {
	const iat = int64(1899999000)
	token := revocation.Request{
		Criteria: revocation.Criteria{Issuer: issuerA, Claims: map[string]string{"jti": "t"}}, Mode: revocation.Block,
		TokenExpiry: expiry, TokenIssuedAt: iat, Reason: "client request", Actor: "client:app",
	}
	block := revocation.Request{Mode: revocation.Block, Once: true, IssuedUntil: expiry, TokenIssuedAt: iat}
	for _, tt := range []struct {
		name   string
		claims map[string]string
		asked  bool
		want   map[string]string
		grant  revocation.Request
	}{
		{"by the grant claim", map[string]string{"jti": "t", "client_id": "app", "grant": "g", "sid": "s", "sub": "u"}, false,
			map[string]string{"grant": "g", "client_id": "app"}, block},
		{"by the session", map[string]string{"jti": "t", "client_id": "app", "sid": "s", "sub": "u"}, true,
			map[string]string{"sid": "s", "client_id": "app"}, block},
		{"by the user, up to now", map[string]string{"jti": "t", "client_id": "app", "sub": "u"}, false,
			map[string]string{"sub": "u", "client_id": "app"}, revocation.Request{Mode: revocation.IssuedBefore, Once: false}},
		{"by the user, and it is alive", map[string]string{"jti": "t", "client_id": "app", "sub": "u"}, true,
			map[string]string{"sub": "u", "client_id": "app"}, revocation.Request{Mode: revocation.IssuedBefore}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, cascade := range []Cascade{CascadeToken, CascadeGrant} {
				for _, hint := range []string{"", "access_token", "refresh_token", "x"} {
					r := newRig(t, func(o *EndpointOptions) { o.Cascade, o.GrantClaim = cascade, "grant" })
					r.tokens.known["a.b.c"] = claimsIdentity(tt.claims)
					r.tokens.uses = map[string]TokenUse{"a.b.c": UseRefresh}
					r.tokens.alive = tt.asked
					if w := r.post("token=a.b.c&token_type_hint="+hint, asApp); w.Code != 200 {
						t.Fatalf("status %d", w.Code)
					}
					grant := tt.grant
					grant.Criteria = revocation.Criteria{Issuer: issuerA, Claims: tt.want}
					grant.Reason, grant.Actor = "client request for the grant of a refresh token", "client:app"
					if want := []revocation.Request{token, grant}; !reflect.DeepEqual(r.revoker.requests, want) {
						t.Errorf("%s, hint %q: recorded\n%+v, want\n%+v", cascade, hint, r.revoker.requests, want)
					}
					if o := r.lastOutcome(t); o.Result != ResultRevoked || o.Cascade != CascadeGrant || o.Use != UseRefresh {
						t.Errorf("outcome %+v", o)
					}
				}
			}
		})
	}
}

// Of some tokens their authorization server does not say what they are for. Then
// the client's own word counts, and its own grant is all that it can lose by it.
func TestAnUnknownUseIsWhatItsClientSays(t *testing.T) {
	for hint, recorded := range map[string]int{
		"": 1, "access_token": 1, "x": 1, "REFRESH_TOKEN": 1, "refresh_token": 2,
		"urn:ietf:params:oauth:token-type:refresh_token": 2, "urn:ietf:params:oauth:token-type:access_token": 1,
	} {
		for use, want := range map[TokenUse]int{UseUnknown: recorded, UseAccess: 1, UseRefresh: 2} {
			r := newRig(t, nil)
			r.tokens.known["opaque"] = claimsIdentity(map[string]string{"token": "h", "client_id": "app", "sub": "u"})
			r.tokens.uses = map[string]TokenUse{"opaque": use}
			r.tokens.alive = true
			if w := r.post("token=opaque&token_type_hint="+hint, asApp); w.Code != 200 || len(r.revoker.requests) != want {
				t.Errorf("%v, hint %q: status %d, recorded %+v", use, hint, w.Code, r.revoker.requests)
			}
		}
	}
	r := newRig(t, nil)
	r.tokens.known["opaque"] = claimsIdentity(map[string]string{"token": "h", "client_id": "app"})
	r.post("token=opaque&token_type_hint=urn:ietf:params:oauth:token-type:refresh_token", asApp)
	if r.tokens.asked != (ResolveFor{Issuer: issuerA, Hint: "refresh_token"}) {
		t.Errorf("asked as %+v", r.tokens.asked)
	}
}

// Of a refresh token that names neither user nor session, nothing could be denied:
// a 200 would be false.
func TestARefreshTokenWithoutAGrantIsRefused(t *testing.T) {
	for _, cascade := range []Cascade{CascadeToken, CascadeGrant} {
		r := newRig(t, func(o *EndpointOptions) { o.Cascade = cascade })
		r.tokens.known["opaque"] = claimsIdentity(map[string]string{"token": "h", "client_id": "app"})
		r.tokens.uses = map[string]TokenUse{"opaque": UseRefresh}
		w := r.post("token=opaque", asApp)
		if code := errorCode(t, w.Code, w.Body); w.Code != http.StatusBadRequest || code != ErrorUnsupportedTokenType || len(r.revoker.requests) != 0 {
			t.Errorf("status %d %s, recorded %+v", w.Code, code, r.revoker.requests)
		}
	}
}

func TestAForeignRefreshTokenIsRefused(t *testing.T) {
	r := newRig(t, nil)
	r.tokens.known["opaque"] = claimsIdentity(map[string]string{"token": "h", "client_id": "other", "sub": "u"})
	r.tokens.known["nobody's"] = claimsIdentity(map[string]string{"token": "h", "sub": "u"})
	r.tokens.uses = map[string]TokenUse{"opaque": UseRefresh, "nobody's": UseRefresh}
	for _, token := range []string{"opaque", "nobody's"} {
		w := r.post("token="+token, asApp)
		if code := errorCode(t, w.Code, w.Body); code != ErrorInvalidGrant || len(r.revoker.requests) != 0 {
			t.Errorf("%s: %d %s, recorded %+v", token, w.Code, code, r.revoker.requests)
		}
	}
}

// A cutoff that stands does not reach the access tokens that were issued since
// then with an older refresh token.
func TestAStandingCutoffDoesNotSaveNewerTokensOfARefreshToken(t *testing.T) {
	for _, alive := range []bool{false, true} {
		r, ledger, _ := replayRig(t)
		r.tokens.uses = map[string]TokenUse{"r.f.1": UseRefresh, "r.f.2": UseRefresh}
		r.tokens.alive = alive
		r.issue("r.f.1", -time.Hour, nil)
		r.issue("r.f.2", -time.Hour, nil) // of another session
		r.mustRevoke(t, "r.f.1", 2, 0)
		first := ledger.cutoff()
		r.clock.advance(10 * time.Minute) // in which r.f.2 is used
		r.mustRevoke(t, "r.f.2", 2, 0)
		if ledger.cutoff() < first+600 {
			t.Errorf("alive %v: the cutoff did not move", alive)
		}
		// Presented again, it moves the cutoff only if somebody says that it is
		// alive: else, whoever keeps it could cut off each new login.
		second := ledger.cutoff()
		r.clock.advance(10 * time.Minute)
		recorded := 0
		if alive {
			recorded = 1
		}
		r.mustRevoke(t, "r.f.2", recorded, 2-recorded)
		if moved := ledger.cutoff() > second; moved != alive {
			t.Errorf("alive %v: the cutoff moved: %v", alive, moved)
		}
	}
}

// Whoever keeps a dead access token of which nobody says what it is for, and calls
// it a refresh token, cuts off no more than one new login.
func TestADeadTokenThatIsCalledARefreshTokenMovesNoCutoff(t *testing.T) {
	r, ledger, _ := replayRig(t)
	r.tokens.uses = map[string]TokenUse{"r.f.1": UseUnknown}
	r.tokens.alive = true // its server was not told
	r.issue("r.f.1", -time.Hour, nil)
	revoke := func(hint string) {
		t.Helper()
		if w := r.post("token=r.f.1&token_type_hint="+hint, asApp); w.Code != 200 {
			t.Fatalf("status %d", w.Code)
		}
	}
	revoke("access_token")
	r.clock.advance(10 * time.Minute)
	revoke("refresh_token")
	first := ledger.cutoff()
	for range 3 {
		r.clock.advance(10 * time.Minute)
		revoke("refresh_token")
		if ledger.cutoff() != first {
			t.Error("the cutoff has moved")
		}
	}
}

// Nobody says when the tokens were issued: a cutoff would deny the next ones, too.
func TestUndatedTokensGetNoCutoff(t *testing.T) {
	for _, c := range []struct {
		use      TokenUse
		sid      string
		status   int
		recorded int
	}{
		{UseAccess, "", 200, 1}, {UseAccess, "s", 200, 2}, {UseRefresh, "", 400, 0}, {UseRefresh, "s", 200, 2},
	} {
		r := newRig(t, func(o *EndpointOptions) { o.Cascade = CascadeGrant })
		claims := map[string]string{"token": "h", "client_id": "app", "sub": "u"}
		if c.sid != "" {
			claims["sid"] = c.sid
		}
		r.tokens.known["opaque"] = claimsIdentity(claims)
		r.tokens.uses = map[string]TokenUse{"opaque": c.use}
		r.tokens.alive, r.tokens.undated = true, true
		if w := r.post("token=opaque", asApp); w.Code != c.status || len(r.revoker.requests) != c.recorded {
			t.Errorf("%v, sid %q: status %d, recorded %+v", c.use, c.sid, w.Code, r.revoker.requests)
		}
	}
}

// The block on a grant outlives the refresh token by the life of an access token,
// and is not recorded again.
func TestTheBlockOnAGrantOutlivesItsRefreshToken(t *testing.T) {
	r, ledger, _ := replayRig(t)
	r.tokens.uses = map[string]TokenUse{"r.f.1": UseRefresh}
	r.issue("r.f.1", -time.Hour, map[string]string{"sid": "s"})
	r.tokens.known["r.f.1"].Expiry = r.clock.now().Add(30 * 24 * time.Hour).Unix()
	r.issue("a.c.s", -time.Minute, map[string]string{"sid": "s"})
	r.mustRevoke(t, "a.c.s", 2, 0) // a block for a week
	r.mustRevoke(t, "r.f.1", 2, 0)
	last := ledger.entries[len(ledger.entries)-1]
	if end := r.tokens.known["r.f.1"].Expiry + 7*86400; last.Mode != revocation.Block || last.Expires < end || last.Expires > end+3600 {
		t.Errorf("recorded %+v, the refresh token ends at %d", last, r.tokens.known["r.f.1"].Expiry)
	}
	r.clock.advance(time.Hour)
	r.mustRevoke(t, "r.f.1", 0, 2)
}

// Routes that do not ask know an opaque token by its hash only.
func TestATokenThatIsAskedAboutIsNamedByItsHash(t *testing.T) {
	for asked, want := range map[bool]map[string]string{true: {"token": "h"}, false: {"jti": "t"}} {
		r := newRig(t, nil)
		r.tokens.known["opaque"] = claimsIdentity(map[string]string{"token": "h", "jti": "t", "client_id": "app"})
		r.tokens.alive = asked
		r.post("token=opaque", asApp)
		if q := r.revoker.requests; len(q) != 1 || !reflect.DeepEqual(q[0].Criteria.Claims, want) {
			t.Errorf("asked %v: recorded %+v", asked, q)
		}
		if o := r.lastOutcome(t); !reflect.DeepEqual(o.Token.Claims, want) {
			t.Errorf("asked %v: outcome %+v", asked, o)
		}
	}
}
