package oauth

import (
	"context"
	"maps"
	"net/http"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// memoryLedger is a ledger and a denylist that never doubts. The publications
// whose number is in fail are lost.
type memoryLedger struct {
	entries []*revocation.Revocation
	calls   int
	fail    int
}

func (m *memoryLedger) PublishRevocation(_ context.Context, r *revocation.Revocation) (uint64, error) {
	if m.calls++; m.calls == m.fail {
		return 0, revocation.ErrUnavailable
	}
	m.entries = append(m.entries, r)
	return uint64(len(m.entries)), nil
}

func (m *memoryLedger) PublishRevocations(context.Context, []*revocation.Revocation) (int, uint64, error) {
	return 0, 0, revocation.ErrUnavailable
}

func (m *memoryLedger) PublishRestoration(context.Context, *revocation.Restoration) (uint64, error) {
	return 0, revocation.ErrUnavailable
}

func (m *memoryLedger) PublishRecheck(context.Context, *revocation.Recheck) (uint64, error) {
	return 0, revocation.ErrUnavailable
}

func (m *memoryLedger) Stands(context.Context, uint64, ...*revocation.Revocation) (bool, error) {
	return true, nil
}
func (m *memoryLedger) Admit(*revocation.Revocation, bool) error { return nil }
func (m *memoryLedger) Revoke(uint64, *revocation.Revocation)    {}
func (m *memoryLedger) Restore(uint64, *revocation.Restoration)  {}
func (m *memoryLedger) Recheck(uint64, string)                   {}
func (m *memoryLedger) cutoff() (latest int64) {
	for _, e := range m.entries {
		latest = max(latest, e.Cutoff)
	}
	return latest
}

func (m *memoryLedger) Standing(r *revocation.Revocation) (uint64, bool) {
	for i, e := range m.entries {
		if e.Mode == r.Mode && e.Criteria.String() == r.Criteria.String() && e.Cutoff >= r.Cutoff && e.Expires >= r.Expires {
			return uint64(i + 1), true
		}
	}
	return 0, false
}

// replayRig is an endpoint that cascades, with the service that it has in real
// life, an hour after a token of alice was issued.
func replayRig(t *testing.T) (*rig, *memoryLedger, *revocation.Service) {
	t.Helper()
	ledger := new(memoryLedger)
	var service *revocation.Service
	r := newRig(t, func(o *EndpointOptions) {
		cascadeGrant(o)
		service = revocation.NewService(ledger, ledger, revocation.Policy{}, o.Now)
		o.Revoker = service
	})
	r.issue("a.b.c", -time.Hour, nil)
	return r, ledger, service
}

// issue makes a token known that was issued at this distance from now, and lives
// for a day.
func (r *rig) issue(token string, at time.Duration, claims map[string]string) {
	all := map[string]string{"jti": token, "client_id": "app", "sub": "alice"}
	maps.Copy(all, claims)
	id := claimsIdentity(all)
	id.IssuedAt = r.clock.now().Add(at).Unix()
	id.Expiry = id.IssuedAt + 86400
	r.tokens.known[token] = id
}

func (r *rig) mustRevoke(t *testing.T, token string, recorded, stood int) {
	t.Helper()
	w := r.post("token="+token, asApp)
	o := r.lastOutcome(t)
	if w.Code != http.StatusOK || o.Result != ResultRevoked || len(o.Decisions) != recorded || len(o.Stood) != stood {
		t.Errorf("%s: status %d, outcome %+v; want %d recorded, %d that stood", token, w.Code, o, recorded, stood)
	}
	for _, d := range o.Decisions {
		if d.ID == "" {
			t.Errorf("%s: a decision without an id: %+v", token, d)
		}
	}
}

// Whoever kept a dead token must not cut off a login that came after it.
func TestReplayedTokenDoesNotCutOffNewLogins(t *testing.T) {
	r, ledger, _ := replayRig(t)
	r.issue("older.b.c", -2*time.Hour, nil)
	r.mustRevoke(t, "a.b.c", 2, 0)
	cutoff := ledger.cutoff()
	if cutoff != r.clock.now().Unix()+2 {
		t.Fatalf("the cutoff is %d", cutoff)
	}
	for range 3 {
		r.clock.advance(time.Hour)
		r.mustRevoke(t, "a.b.c", 0, 2)
	}
	// Another one, dead of the same cutoff, gets its own entry and moves nothing.
	r.mustRevoke(t, "older.b.c", 1, 1)
	r.mustRevoke(t, "older.b.c", 0, 2)
	if ledger.cutoff() != cutoff || len(ledger.entries) != 3 {
		t.Errorf("the cutoff moved by %d s, %d entries", ledger.cutoff()-cutoff, len(ledger.entries))
	}
	// A token of the new login does.
	r.issue("new.b.c", 0, nil)
	r.mustRevoke(t, "new.b.c", 2, 0)
	if ledger.cutoff() != r.clock.now().Unix()+2 {
		t.Errorf("the cutoff is %d", ledger.cutoff())
	}
}

func TestReplayedTokenDoesNotProlongABlock(t *testing.T) {
	r, ledger, _ := replayRig(t)
	r.issue("a.b.c", -time.Hour, map[string]string{"sid": "s"})
	r.mustRevoke(t, "a.b.c", 2, 0)
	r.clock.advance(time.Hour)
	r.mustRevoke(t, "a.b.c", 0, 2)
	if len(ledger.entries) != 2 {
		t.Errorf("%d entries", len(ledger.entries))
	}
}

// The retry after half a success takes all with it that was issued until then.
func TestRetryAfterHalfAGrantRevokesAllOfIt(t *testing.T) {
	r, ledger, _ := replayRig(t)
	ledger.fail = 2
	if w := r.post("token=a.b.c", asApp); w.Code != http.StatusServiceUnavailable || len(ledger.entries) != 1 {
		t.Fatalf("status %d, %d entries", w.Code, len(ledger.entries))
	}
	r.clock.advance(10 * time.Minute)
	r.mustRevoke(t, "a.b.c", 1, 1)
	if want := r.clock.now().Unix() + 2; ledger.cutoff() != want {
		t.Errorf("the cutoff is %d s before the retry", want-ledger.cutoff())
	}
	r.clock.advance(time.Hour)
	r.mustRevoke(t, "a.b.c", 0, 2)
}

// A token that was revoked alone takes its grant with it later, once.
func TestTokenRevokedAloneStillTakesItsGrantWithIt(t *testing.T) {
	r, ledger, service := replayRig(t)
	if _, err := service.Revoke(t.Context(), revocation.Request{
		Criteria:    revocation.Criteria{Issuer: issuerA, Claims: map[string]string{"jti": "a.b.c"}},
		TokenExpiry: r.tokens.known["a.b.c"].Expiry, Actor: "operator",
	}); err != nil {
		t.Fatal(err)
	}
	r.mustRevoke(t, "a.b.c", 1, 1)
	cutoff := ledger.cutoff()
	if cutoff < r.clock.now().Unix() {
		t.Errorf("the cutoff is %d", cutoff)
	}
	r.clock.advance(time.Hour)
	r.mustRevoke(t, "a.b.c", 0, 2)
	if ledger.cutoff() != cutoff {
		t.Errorf("the cutoff moved by %d s", ledger.cutoff()-cutoff)
	}
}

// No cutoff reaches a token with an iat that is far ahead, which must not mean
// that it can move one for ever.
func TestReplayedTokenFromTheFutureMovesNothing(t *testing.T) {
	r, ledger, _ := replayRig(t)
	r.issue("a.b.c", 24*time.Hour, nil)
	r.mustRevoke(t, "a.b.c", 2, 0)
	cutoff := ledger.cutoff()
	r.clock.advance(time.Hour)
	r.mustRevoke(t, "a.b.c", 0, 2)
	if ledger.cutoff() != cutoff {
		t.Errorf("the cutoff moved by %d s", ledger.cutoff()-cutoff)
	}
}

// A token that has ended is nobody's business any more, and nobody's question.
func TestExpiredTokenIsGoneBeforeAnyoneIsAsked(t *testing.T) {
	r := newRig(t, func(o *EndpointOptions) {
		o.Leeway = time.Minute
		o.Policies = []NamedPolicy{{"never", policyFunc(func(_ context.Context, f *Facts) (PolicyDecision, error) {
			t.Errorf("asked about %+v", f)
			return PolicyDecision{Verdict: Deny}, nil
		})}}
	})
	for _, token := range []string{tokenOwn, tokenForeign, tokenNoClient} {
		r.tokens.known[token].Expiry = r.clock.now().Add(-time.Minute).Unix()
		if w := r.post("token="+token, asApp); w.Code != http.StatusOK || r.lastOutcome(t).Result != ResultTokenExpired {
			t.Errorf("%s: status %d, %+v", token, w.Code, r.lastOutcome(t))
		}
	}
	r.tokens.known[tokenForeign].Expiry++
	if w := r.post("token="+tokenForeign, asApp); w.Code != http.StatusBadRequest {
		t.Errorf("within the leeway: status %d", w.Code)
	}
	if got := r.revoker.revoked(); len(got) != 0 {
		t.Errorf("recorded %q", got)
	}
}
