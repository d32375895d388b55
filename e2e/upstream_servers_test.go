//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestAuthorizationServersBehindEdges has clients of servers that are not ours
// revoke at edges in both ways: at the server's own endpoint behind
// token_revocation upstream, and at an endpoint of the edge's, which asks the
// server about what it can't verify.
func TestAuthorizationServersBehindEdges(t *testing.T) {
	t.Parallel()
	for _, rig := range rigs {
		t.Run(rig.name, func(t *testing.T) {
			t.Parallel()
			f := startFronted(t, rig.start(t))
			for _, w := range ways {
				t.Run(w.name, func(t *testing.T) {
					f.t, f.as.t = t, t
					f.revokesAccessTokens(w)
					f.revokesRefreshTokens(w)
					f.leavesOthersAlone(w)
				})
			}
			f.t, f.as.t = t, t
			f.patchesMetadata()
		})
	}
}

// unrevocable tells whether the server refuses to revoke its access tokens.
func (f *fronted) unrevocable(w way) bool {
	return w.upstream && f.as.name == "node-oidc-provider" && f.as.jwt
}

func (f *fronted) revokesAccessTokens(w way) {
	f.t.Helper()
	mine, another := f.as.signIn(asService, asAlice), f.as.signIn(asService, asAlice)
	batch, own := f.as.ownToken()
	f.wantPass("a fresh token", mine.Access, another.Access, own)
	if f.unrevocable(w) {
		f.wantNothingRecorded("a refusal by the server", func() {
			if a := f.revoke(w, f.first, asService, f.as.secrets[asService], mine.Access); a.status != http.StatusBadRequest ||
				!strings.Contains(a.body, "unsupported_token_type") {
				f.t.Errorf("a server that refuses to revoke a JWT: %s", a)
			}
		})
		f.wantPass("a token that the server did not revoke", mine.Access)
		return
	}
	for _, c := range []struct {
		client, token string
		at            *edge
	}{{asService, mine.Access, f.first}, {batch, own, f.second}} {
		if a := f.revoke(w, c.at, c.client, f.as.secrets[c.client], c.token); a.status != http.StatusOK {
			f.t.Fatalf("revoking at the %s: %s", c.at.name, a)
		}
		f.wantRefused("a token revoked at the "+c.at.name, c.at, c.token)
	}
	if w.upstream && f.as.active(mine.Access) {
		f.t.Error("the server does not know of the revocation")
	}
	f.wantPass("a token of another session", another.Access)
	f.wantIntrospected("a token of another session", true, another.Access)
	f.wantIntrospected("a revoked token", false, mine.Access)
	// Once more: the server does not know the token any more.
	if a := f.revoke(w, f.second, asService, f.as.secrets[asService], mine.Access); a.status != http.StatusOK {
		f.t.Errorf("revoking again: %s", a)
	}
}

func (f *fronted) revokesRefreshTokens(w way) {
	f.t.Helper()
	mine, another, bob := f.as.signIn(asService, asAlice), f.as.signIn(asService, asAlice), f.as.signIn(asService, asBob)
	mine = f.as.refresh(asService, mine.Refresh)
	f.wantPass("a fresh token", mine.Access, another.Access, bob.Access)
	if !w.upstream && f.as.name == "django-oauth-toolkit" {
		// Nobody can tell what it is: never a 200 for that.
		f.wantNothingRecorded("a refresh token that nobody can tell from garbage", func() {
			if a := f.revoke(w, f.first, asService, f.as.secrets[asService], mine.Refresh); a.status != http.StatusBadRequest ||
				!strings.Contains(a.body, "unsupported_token_type") {
				f.t.Errorf("a refresh token that the server does not introspect: %s", a)
			}
		})
		f.wantPass("a token of a grant that was not revoked", mine.Access)
		return
	}
	if a := f.revoke(w, f.second, asService, f.as.secrets[asService], mine.Refresh); a.status != http.StatusOK {
		f.t.Fatalf("revoking a refresh token: %s", a)
	}
	f.wantRefused("an access token of a revoked refresh token", f.second, mine.Access)
	f.wantIntrospected("an access token of a revoked refresh token", false, mine.Access)
	f.wantPass("a token of another session", another.Access, bob.Access)
	if f.as.name != "node-oidc-provider" {
		return
	}
	// What names no session is told apart by user, client and time.
	one, two, bob := f.as.signIn(asOther, asAlice), f.as.signIn(asOther, asAlice), f.as.signIn(asOther, asBob)
	f.wantPass("a fresh token", one.Access, two.Access, bob.Access)
	if a := f.revoke(w, f.first, asOther, f.as.secrets[asOther], one.Refresh); a.status != http.StatusOK {
		f.t.Fatalf("revoking a refresh token without a session: %s", a)
	}
	f.wantRefused("an access token of a revoked refresh token", f.first, one.Access)
	f.wantRefused("another access token of that user and client", f.first, two.Access)
	f.wantPass("a token of another user, or for another client", bob.Access, another.Access)
	eventually(f.t, startDeadline, "a new login is good", func() (bool, string) {
		a := f.first.get(f.as.signIn(asOther, asAlice).Access)
		return a.status == http.StatusOK, a.String()
	})
}

// leavesOthersAlone: whoever is not the token's client changes nothing, whatever
// the server says.
func (f *fronted) leavesOthersAlone(w way) {
	f.t.Helper()
	secret := f.as.secrets[asService]
	for _, c := range []struct {
		what, client, secret string
		refused              int // by an edge's own endpoint
	}{
		{"another client", asOther, f.as.secrets[asOther], http.StatusBadRequest},
		{"a wrong secret", asService, "not-" + secret, http.StatusUnauthorized},
		{"a public client", providerApp, "", http.StatusUnauthorized},
	} {
		victim := f.as.signIn(asService, asAlice)
		f.wantPass("a fresh token", victim.Access)
		for _, k := range []struct{ kind, token string }{{"access", victim.Access}, {"refresh", victim.Refresh}} {
			kind, token := k.kind, k.token
			what := c.what + " with a foreign " + kind + " token"
			f.wantNothingRecorded(what, func() {
				a := f.revoke(w, f.first, c.client, c.secret, token)
				switch {
				case a.status >= http.StatusInternalServerError, a.status == 0:
					f.t.Errorf("%s: %s", what, a)
				case w.upstream && c.client == asService && a.status != http.StatusUnauthorized:
					f.t.Errorf("%s: not the server's answer: %s", what, a)
				case !w.upstream && a.status != c.refused:
					f.t.Errorf("%s: want %d: %s", what, c.refused, a)
				}
			})
			if f.as.name == "django-oauth-toolkit" && w.upstream && c.client == asOther {
				// It has revoked what was not that client's, so the token is
				// dead there; but not here, by a word of that client's.
				if f.as.active(victim.Access) {
					f.t.Errorf("%s: the server has not revoked it, as it did when this test was written", what)
				}
				if kind == "access" {
					f.wantPass("a token that another client has revoked", victim.Access)
				}
				continue
			}
			f.wantPass("a token after "+what, victim.Access)
			if f.as.name != "node-oidc-provider" || !f.as.jwt {
				if !f.as.active(victim.Access) {
					f.t.Errorf("%s: the token is dead at the server", what)
				}
			}
		}
	}
	for _, token := range []string{"", "garbage", strings.Repeat("x", 5000), "a.b.c", "\x00", "two tokens"} {
		f.wantNothingRecorded("garbage", func() {
			if a := f.revoke(w, f.first, asService, secret, token); a.status >= http.StatusInternalServerError || a.status == 0 {
				f.t.Errorf("%.20q: %s", token, a)
			}
		})
	}
}

// patchesMetadata compares the server's discovery document with what comes through
// an edge.
func (f *fronted) patchesMetadata() {
	f.t.Helper()
	if f.as.name == "django-oauth-toolkit" {
		return // it has none without OpenID Connect
	}
	e := f.first
	get := func(host string) map[string]any {
		f.t.Helper()
		address := e.address
		if host != asHost {
			address = strings.TrimPrefix(f.as.Issuer, "http://")
		}
		req := e.request(http.MethodGet, address, "/.well-known/openid-configuration", nil)
		// node-oidc-provider makes addresses of what it is asked as.
		req.Host = asHost + e.address[strings.LastIndex(e.address, ":"):]
		a := e.do(req)
		var document map[string]any
		if err := json.Unmarshal([]byte(a.body), &document); err != nil || a.status != http.StatusOK {
			f.t.Fatalf("metadata of %s: %v %s", host, err, a)
		}
		return document
	}
	want, got := get("the server"), get(asHost)
	want["revocation_endpoint"], want["introspection_endpoint"] = "https://edge.example.com/revoke", "https://edge.example.com/introspect"
	for name, value := range want {
		// How to authenticate at, and what to expect of, the edge's endpoint.
		if !strings.HasPrefix(name, "introspection_") && fmt.Sprint(got[name]) != fmt.Sprint(value) {
			f.t.Errorf("metadata: %s is %v instead of %v", name, got[name], value)
		}
	}
	if got["introspection_endpoint"] != want["introspection_endpoint"] {
		f.t.Errorf("metadata: introspection_endpoint is %v", got["introspection_endpoint"])
	}
	for name := range got {
		if _, known := want[name]; !known && !strings.HasPrefix(name, "introspection_") {
			f.t.Errorf("metadata: %s is new", name)
		}
	}
}

// TestStorageFailureBehindA200 has fosite answer 200 although it could not revoke.
// The client has every right to that revocation, so the edges carry it out; with
// "confirm introspect", they believe what the server says about the token.
func TestStorageFailureBehindA200(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		change  func(string) string
		refused bool
	}{
		{"the 200 is believed", func(config string) string { return config }, true},
		{"confirm introspect", func(config string) string {
			return strings.Replace(config, "upstream {", "upstream {\n\t\tconfirm introspect", 1)
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := startFronted(t, startFosite(t, false, false), c.change)
			w := ways[0]
			token := f.as.signIn(asService, asAlice).Access
			f.wantPass("a fresh token", token)
			before := f.entries()
			f.as.failStorage(true)
			a := f.revoke(w, f.first, asService, f.as.secrets[asService], token)
			f.as.failStorage(false)
			if a.status != http.StatusOK || !f.as.active(token) {
				t.Fatalf("fosite does not answer 200 to a failure of its store any more: %s", a)
			}
			if c.refused {
				f.wantRefused("a token that its client has revoked", f.first, token)
				return
			}
			if now := f.entries(); now != before {
				t.Errorf("%d entries recorded for a token that is still active", now-before)
			}
			f.wantPass("a token that is still active", token)
			if a := f.revoke(w, f.second, asService, f.as.secrets[asService], token); a.status != http.StatusOK {
				t.Fatalf("again, with a store that works: %s", a)
			}
			f.wantRefused("a token that is confirmed to be dead", f.second, token)
		})
	}
}
