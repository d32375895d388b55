//go:build e2e

package e2e

import (
	"net/http"
	"net/url"
	"testing"
	"time"
)

// edgesTrusting starts two edges that know the keys of p by its discovery
// document.
func edgesTrusting(t *testing.T, p *oidcProvider, changes ...func(string) string) (first, second *edge) {
	t.Helper()
	changes = append([]func(string) string{p.configure}, changes...)
	first = newFirstEdge(t, changes...)
	first.env = append(first.env, p.env()...)
	first.run()
	second = newSecondEdge(t, first, changes...)
	second.env = append(second.env, p.env()...)
	second.run()
	for _, e := range []*edge{first, second} {
		for _, secret := range p.secrets {
			e.logs.forbid(secret)
		}
	}
	return first, second
}

func TestTokensOfAnAuthorizationServerThatIsNotOurs(t *testing.T) {
	p := startOIDCProvider(t)
	first, second := edgesTrusting(t, p)
	both := []*edge{first, second}

	for _, resource := range p.Resources {
		t.Run(resource, func(t *testing.T) {
			byForm, byBasic, another := p.clientToken(providerService, resource),
				p.clientToken(providerService, resource), p.clientToken(providerService, resource)
			for _, e := range both {
				for _, token := range []string{byForm, byBasic, another} {
					e.wantPass("the authorization server's token", token)
				}
			}
			secret := p.secrets[providerService]
			if a := first.post(url.Values{"token": {byForm}, "client_id": {providerService}, "client_secret": {secret}}, "", ""); a.status != http.StatusOK {
				t.Fatalf("revoking by the first edge: %s", a)
			}
			if a := second.post(url.Values{"token": {byBasic}, "token_type_hint": {"access_token"}}, providerService, secret); a.status != http.StatusOK {
				t.Fatalf("revoking by the second edge: %s", a)
			}
			for _, e := range both {
				e.eventuallyRefused("the token revoked on the first edge", byForm)
				e.eventuallyRefused("the token revoked on the second edge", byBasic)
				e.wantPass("another token of the same client", another)
				for kind, spellings := range respellings(t, byForm) {
					for _, spelling := range spellings {
						if a := e.get(spelling); a.status == http.StatusOK {
							t.Errorf("%s passes", kind)
						}
					}
				}
			}
			// Not its own.
			entries := first.status().Denylist.Entries
			if a := first.post(url.Values{"token": {another}}, providerOther, p.secrets[providerOther]); a.status >= http.StatusInternalServerError {
				t.Errorf("another client's token: %s", a)
			}
			first.wantPass("a token that another client wanted revoked", another)
			if now := first.status().Denylist.Entries; now != entries {
				t.Errorf("another client's token: %d entries stored", now-entries)
			}
		})
	}

	// The client as a whole, by the operator.
	token, others := p.clientToken(providerService, p.Resources[0]), p.clientToken(providerOther, p.Resources[0])
	revokeByCommand(t, first, p.Issuer, "--client-id", providerService, "issued_before")
	for _, e := range both {
		e.eventuallyRefused("a token of the revoked client", token)
		e.wantPass("a token of another client", others)
	}
	eventually(t, 15*time.Second, "the client's new tokens pass", func() (bool, string) {
		a := second.get(p.clientToken(providerService, p.Resources[0]))
		return a.status == http.StatusOK, a.String()
	})
}

func TestUsersAndSessionsOfAnAuthorizationServerThatIsNotOurs(t *testing.T) {
	p := startOIDCProvider(t)
	first, second := edgesTrusting(t, p)
	both := []*edge{first, second}

	laptop, phone := p.login("alice"), p.login("alice")
	bobs := p.userToken(p.login("bob"), "bob")
	onLaptop, againOnLaptop, onPhone := p.userToken(laptop, "alice"), p.userToken(laptop, "alice"), p.userToken(phone, "alice")
	if claim(t, onLaptop, "sid") != claim(t, againOnLaptop, "sid") || claim(t, onLaptop, "sid") == claim(t, onPhone, "sid") {
		t.Fatal("the sessions are not what this test takes them for")
	}
	for _, e := range both {
		for _, token := range []string{onLaptop, againOnLaptop, onPhone, bobs} {
			e.wantPass("a user's token", token)
		}
	}

	// One token, by the public client that it was issued to.
	if a := second.post(url.Values{"token": {onLaptop}, "client_id": {providerApp}}, "", ""); a.status != http.StatusOK {
		t.Fatalf("revoking: %s", a)
	}
	for _, e := range both {
		e.eventuallyRefused("the revoked token", onLaptop)
		e.wantPass("another token of the same session", againOnLaptop)
	}
	// The session, as a block: logging in again makes another one.
	revokeByAPI(t, first, p.Issuer, "sid", claim(t, onLaptop, "sid"), "block")
	for _, e := range both {
		e.eventuallyRefused("another token of the revoked session", againOnLaptop)
		e.wantPass("a token of the same user's other session", onPhone)
	}
	first.wantRefused("a new token of the revoked session", p.userToken(laptop, "alice"))
	// The user.
	revokeByCommand(t, second, p.Issuer, "--subject", "alice", "block")
	for _, e := range both {
		e.eventuallyRefused("the user's other session", onPhone)
		e.wantPass("another user's token", bobs)
	}
	first.wantRefused("a token of a new login", p.userToken(p.login("alice"), "alice"))
}
