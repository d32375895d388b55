package oauth

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// claimsIdentity is an identity of issuer A with these claims.
func claimsIdentity(claims map[string]string) *revocation.Identity {
	id := &revocation.Identity{Issuer: issuerA, Verified: true, Expiry: expiry, IssuedAt: 1899999000}
	for name, value := range claims {
		id.Claims = append(id.Claims, revocation.Claim{Name: name, Value: value})
	}
	revocation.SortClaims(id.Claims)
	return id
}

func cascadeGrant(o *EndpointOptions) { o.Cascade, o.GrantClaim = CascadeGrant, "grant" }

func TestCascadeNamesTheGrantOfOneClient(t *testing.T) {
	tests := []struct {
		name   string
		claims map[string]string
		want   map[string]string
		mode   revocation.Mode
	}{
		{"by the grant claim", map[string]string{"jti": "t", "client_id": "app", "grant": "g", "sid": "s", "sub": "u"},
			map[string]string{"grant": "g", "client_id": "app"}, revocation.Block},
		{"by the session", map[string]string{"jti": "t", "client_id": "app", "sid": "s", "sub": "u"},
			map[string]string{"sid": "s", "client_id": "app"}, revocation.Block},
		{"by the user, up to now", map[string]string{"jti": "t", "client_id": "app", "sub": "u"},
			map[string]string{"sub": "u", "client_id": "app"}, revocation.IssuedBefore},
		{"by the token alone", map[string]string{"jti": "t", "client_id": "app"}, nil, revocation.Block},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, hint := range []string{"", "access_token", "refresh_token", "x"} {
				r := newRig(t, cascadeGrant)
				r.tokens.known["a.b.c"] = claimsIdentity(tt.claims)
				if w := r.post("token=a.b.c&token_type_hint="+hint, asApp); w.Code != 200 {
					t.Fatalf("status %d", w.Code)
				}
				one := revocation.Request{
					Criteria: revocation.Criteria{Issuer: issuerA, Claims: map[string]string{"jti": "t"}}, Mode: revocation.Block,
					TokenExpiry: expiry, TokenIssuedAt: 1899999000, Reason: "client request", Actor: "client:app",
				}
				want := []revocation.Request{one}
				if tt.want != nil {
					want = append(want, revocation.Request{
						Criteria: revocation.Criteria{Issuer: issuerA, Claims: tt.want}, Mode: tt.mode,
						TokenIssuedAt: 1899999000, Reason: "client request for its grant", Actor: "client:app", Once: true,
					})
				}
				if !reflect.DeepEqual(r.revoker.requests, want) {
					t.Errorf("hint %q: recorded\n%+v, want\n%+v", hint, r.revoker.requests, want)
				}
				if o := r.lastOutcome(t); o.Result != ResultRevoked || len(o.Decisions) != len(want) || o.Cascade != CascadeGrant {
					t.Errorf("outcome %+v", o)
				}
			}
		})
	}
}

func TestTokenFromTheFutureDoesNotLockItsUserOut(t *testing.T) {
	r := newRig(t, cascadeGrant)
	id := claimsIdentity(map[string]string{"jti": "t", "client_id": "app", "sub": "u"})
	id.IssuedAt = r.clock.now().Add(time.Hour).Unix()
	r.tokens.known["a.b.c"] = id
	r.post("token=a.b.c", asApp)
	if q := r.revoker.requests; len(q) != 2 || q[1].TokenIssuedAt != 0 {
		t.Errorf("recorded %+v", q)
	}
}

// failingAfter is a revoker that refuses everything after the first n requests.
type failingAfter struct {
	fakeRevoker
	n   int
	err error
}

func (f *failingAfter) Revoke(ctx context.Context, req revocation.Request) (revocation.Receipt, error) {
	if len(f.requests) >= f.n {
		return revocation.Receipt{}, f.err
	}
	return f.fakeRevoker.Revoke(ctx, req)
}

func TestHalfAGrantIsNoSuccess(t *testing.T) {
	for _, err := range []error{revocation.ErrUnavailable, revocation.ErrFull, revocation.ErrExpired, revocation.ErrInvalidRequest} {
		revoker := &failingAfter{n: 1, err: fmt.Errorf("publishing: %w", err)}
		r := newRig(t, func(o *EndpointOptions) { cascadeGrant(o); o.Revoker = revoker })
		w := r.post("token="+tokenOwn, asApp)
		o := r.lastOutcome(t)
		if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" || o.Result != ResultUnavailable {
			t.Errorf("%v: status %d, outcome %+v", err, w.Code, o)
		}
		if len(o.Decisions) != 1 || !o.Decisions[0].Criteria.NamesOneToken() {
			t.Errorf("%v: the token itself is not revoked: %+v", err, o.Decisions)
		}
		revoker.n = 10 // the client tries again
		if w := r.post("token="+tokenOwn, asApp); w.Code != 200 || len(revoker.requests) != 3 {
			t.Errorf("%v: the retry: status %d, recorded %+v", err, w.Code, revoker.requests)
		}
	}
}

func TestExpiredTokenTakesNothingWithIt(t *testing.T) {
	revoker := &failingAfter{err: revocation.ErrExpired}
	r := newRig(t, func(o *EndpointOptions) { cascadeGrant(o); o.Revoker = revoker })
	if w := r.post("token="+tokenOwn, asApp); w.Code != 200 || r.lastOutcome(t).Result != ResultTokenExpired || len(revoker.requests) != 0 {
		t.Errorf("status %d, recorded %+v", w.Code, revoker.requests)
	}
}

func TestAnyTokenOfItsIssuerOnlyWhereClientAndEndpointAllowIt(t *testing.T) {
	clients, err := NewStaticClients(
		Client{ID: "app", Issuer: issuerA, Secrets: []Secret{clearSecret(t, "app-secret")}},
		Client{ID: "admin", Issuer: issuerA, Secrets: []Secret{clearSecret(t, "admin-secret")}, RevokeAny: true},
	)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		client string
		token  string
		allow  bool
		status int
		owner  string
	}{
		{"admin", tokenForeign, true, 200, "other"},
		{"admin", tokenNoClient, true, 200, ""},
		{"admin", tokenIssuerB, true, 400, "app"},
		{"admin", tokenForeign, false, 400, "other"},
		{"app", tokenForeign, true, 400, "other"},
	} {
		r := newRig(t, func(o *EndpointOptions) {
			o.Clients, o.AllowRevokeAny, o.Cascade = clients, tt.allow, CascadeGrant
		})
		w := r.post("token="+tt.token, authorize(basicAuth(tt.client, tt.client+"-secret")))
		if o := r.lastOutcome(t); w.Code != tt.status || o.Owner != tt.owner || (len(o.Decisions) > 0) != (tt.status == 200) {
			t.Errorf("%+v: status %d, outcome %+v", tt, w.Code, o)
		}
		for _, q := range r.revoker.requests {
			// The grant is that of the token's client, not of the one that asks.
			if id := q.Criteria.Claims["client_id"]; id != "" && id != tt.owner || q.Actor != "client:admin" {
				t.Errorf("%+v: recorded %+v", tt, q)
			}
		}
	}
}

func TestForeignTokenMayBeIgnoredForPublicClientsOnly(t *testing.T) {
	r := newRig(t, func(o *EndpointOptions) { o.Foreign = ForeignSilent })
	if w := r.post("token="+tokenForeign+"&client_id=spa", nil); w.Code != 200 || r.lastOutcome(t).Result != ResultForeignIgnored {
		t.Errorf("a public client: status %d", w.Code)
	}
	if w := r.post("token="+tokenForeign, asApp); w.Code != 400 || r.lastOutcome(t).Result != ResultNotOwner {
		t.Errorf("a confidential client: status %d", w.Code)
	}
	if got := r.revoker.revoked(); len(got) != 0 {
		t.Errorf("revoked %q", got)
	}
}

func TestEndpointOfOneIssuerDoesNotKnowTheClientsOfOthers(t *testing.T) {
	clients, err := NewStaticClients(
		Client{ID: "app", Issuer: issuerA, Secrets: []Secret{clearSecret(t, "secret-a")}},
		Client{ID: "app", Issuer: issuerB, Secrets: []Secret{clearSecret(t, "secret-b")}},
		Client{ID: "only-a", Issuer: issuerA, Methods: []AuthMethod{AuthNone}},
	)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		issuers []string
		auth    string
		token   string
		status  int
	}{
		{[]string{issuerA}, basicAuth("app", "secret-a"), tokenOwn, 200},
		{[]string{issuerB}, basicAuth("app", "secret-b"), tokenIssuerB, 200},
		{[]string{issuerB}, basicAuth("app", "secret-a"), tokenOwn, 401},
		{[]string{issuerB}, basicAuth("app", "secret-b"), tokenOwn, 400},
		{[]string{issuerA, issuerB}, basicAuth("app", "secret-b"), tokenIssuerB, 401}, // which one is meant?
		{nil, basicAuth("app", "secret-b"), tokenIssuerB, 401},
	} {
		for _, store := range []ClientStore{clients, struct{ DecoyStore }{clients}} {
			r := newRig(t, func(o *EndpointOptions) { o.Clients, o.Issuers = store, tt.issuers })
			w := r.post("token="+tt.token, authorize(tt.auth))
			_, static := store.(*StaticClients)
			if static && w.Code != tt.status || !static && w.Code == 200 {
				t.Errorf("%+v: status %d", tt, w.Code)
			}
		}
		r := newRig(t, func(o *EndpointOptions) { o.Clients, o.Issuers = struct{ DecoyStore }{clients}, tt.issuers })
		want := 400 // not its token
		if len(tt.issuers) == 1 && tt.issuers[0] == issuerB {
			want = 401
		}
		if w := r.post("token="+tokenOwn+"&client_id=only-a", nil); w.Code != want {
			t.Errorf("%v: a client of A: status %d, want %d", tt.issuers, w.Code, want)
		}
	}
}

func TestTimeIsSplit(t *testing.T) {
	var r *rig
	spend := func(d time.Duration) { r.clock.advance(d) }
	slowLedger := slowRevoker{TimeLedger(nopLedger{}), func() { spend(4 * time.Second) }}
	r = newRig(t, func(o *EndpointOptions) {
		o.Revoker = slowLedger
		o.Policies = []NamedPolicy{{"slow", policyFunc(func(context.Context, *Facts) (PolicyDecision, error) {
			spend(2 * time.Second)
			return PolicyDecision{Verdict: Allow}, nil
		})}}
	})
	r.post("token="+tokenOwn, asApp)
	l := r.lastOutcome(t).Latency
	if l.Policy != 2*time.Second || l.Ledger <= 0 || l.Ledger+l.Apply != 4*time.Second || r.lastOutcome(t).Duration != 6*time.Second {
		t.Errorf("latency %+v", l)
	}
}

type nopLedger struct{ revocation.Ledger }

func (nopLedger) PublishRevocation(context.Context, *revocation.Revocation) (uint64, error) {
	time.Sleep(time.Millisecond) // by the real clock, which is what a ledger takes
	return 1, nil
}

type slowRevoker struct {
	ledger revocation.Ledger
	spend  func()
}

func (s slowRevoker) Revoke(ctx context.Context, _ revocation.Request) (revocation.Receipt, error) {
	seq, err := s.ledger.PublishRevocation(ctx, nil)
	s.spend()
	return revocation.Receipt{ID: "x", Sequence: seq}, err
}
