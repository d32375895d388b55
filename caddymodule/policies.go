package caddymodule

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
)

// policyNamespace is where policies are registered. A guest module implements
// oauth.Policy, whose documentation says what it may and must do.
const policyNamespace = "token_revocation.policies"

// revokingEvent is the event before a revocation, and the name of the policy that
// it is.
const revokingEvent = "token_revoking"

// loadPolicies loads the endpoint's guest modules.
func (e *Endpoint) loadPolicies(ctx caddy.Context) ([]oauth.NamedPolicy, error) {
	if len(e.PoliciesRaw) == 0 {
		return nil, nil
	}
	loaded, err := ctx.LoadModule(e, "PoliciesRaw")
	if err != nil {
		return nil, fmt.Errorf("loading policies: %w", err)
	}
	var policies []oauth.NamedPolicy
	for _, module := range loaded.([]any) {
		name := strings.TrimPrefix(string(module.(caddy.Module).CaddyModule().ID), policyNamespace+".")
		policy, ok := module.(oauth.Policy)
		if !ok {
			return nil, fmt.Errorf("the policy %s does not implement oauth.Policy", name)
		}
		policies = append(policies, oauth.NamedPolicy{Name: name, Policy: policy})
	}
	return policies, nil
}

// eventPolicy lets handlers of the event token_revoking abort a revocation. It is
// asked last, when nothing else stands in the way.
type eventPolicy struct{ app *App }

// Decide implements oauth.Policy. Only an abort counts: other errors of handlers
// are logged by Caddy, which does not hand them on.
func (p eventPolicy) Decide(_ context.Context, f *oauth.Facts) (oauth.PolicyDecision, error) {
	events := p.app.events
	if events == nil || !events.ShouldEmit(revokingEvent) {
		return oauth.PolicyDecision{Verdict: oauth.Allow}, nil
	}
	event := events.Emit(p.app.ctx, revokingEvent, map[string]any{
		"client_id":  f.Client.ID,
		"issuer":     f.Token.Issuer,
		"owner":      f.Token.Owner,
		"token_id":   f.Token.ID,
		"subject":    f.Token.Subject,
		"session_id": f.Token.SessionID,
		"use":        f.Token.Use,
		"cascade":    string(f.Cascade),
	})
	if err := p.app.ctx.Err(); err != nil {
		// This config is over, and Caddy may not have called every handler.
		return oauth.PolicyDecision{}, err
	}
	return verdictOf(event), nil
}

func verdictOf(e caddy.Event) oauth.PolicyDecision {
	if e.Aborted == nil {
		return oauth.PolicyDecision{Verdict: oauth.Allow}
	}
	return oauth.PolicyDecision{Verdict: oauth.Deny, Reason: e.Aborted.Error()}
}

// otherwiseVerdict is what deny and skip stand for in the configuration.
func otherwiseVerdict(word string) oauth.Verdict {
	if word == "skip" {
		return oauth.Skip
	}
	return oauth.Deny
}

// credentialPlaceholders begin with these. A policy decides by facts; what a
// client proves itself with is none, and would end up in logs and errors.
var credentialPlaceholders = []string{
	"http.request.body", "http.request.cookie",
	"http.request.header.authorization", "http.request.header.proxy-authorization",
	"http.request.header.cookie", "http.request.header.dpop",
}

func isCredentialPlaceholder(key string) bool {
	key = strings.ToLower(key)
	for _, prefix := range credentialPlaceholders {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}

// factsPrefix begins the placeholders that policies have.
const factsPrefix = "http.token_revocation."

// factPlaceholders are the placeholders of the facts, besides those of the claims.
var factPlaceholders = map[string]func(*oauth.Facts) any{
	"client.id":          func(f *oauth.Facts) any { return f.Client.ID },
	"client.issuer":      func(f *oauth.Facts) any { return f.Client.Issuer },
	"client.auth_method": func(f *oauth.Facts) any { return string(f.Client.Method) },
	"client.public":      func(f *oauth.Facts) any { return f.Client.Public },
	"client.ip":          func(f *oauth.Facts) any { return f.Client.IP },

	"token.use":              func(f *oauth.Facts) any { return f.Token.Use },
	"token.issuer":           func(f *oauth.Facts) any { return f.Token.Issuer },
	"token.id":               func(f *oauth.Facts) any { return f.Token.ID },
	"token.subject":          func(f *oauth.Facts) any { return f.Token.Subject },
	"token.session_id":       func(f *oauth.Facts) any { return f.Token.SessionID },
	"token.owner":            func(f *oauth.Facts) any { return f.Token.Owner },
	"token.own":              func(f *oauth.Facts) any { return f.Token.Own },
	"token.issued_at":        func(f *oauth.Facts) any { return f.Token.IssuedAt },
	"token.authenticated_at": func(f *oauth.Facts) any { return f.Token.Authenticated },
	"token.expires_at":       func(f *oauth.Facts) any { return f.Token.Expiry },

	"token_type_hint":    func(f *oauth.Facts) any { return f.Hint },
	"cascade":            func(f *oauth.Facts) any { return string(f.Cascade) },
	"request.host":       func(f *oauth.Facts) any { return f.Request.Host },
	"request.path":       func(f *oauth.Facts) any { return f.Request.Path },
	"request.plain_http": func(f *oauth.Facts) any { return f.Request.PlainHTTP },
	"request.user_agent": func(f *oauth.Facts) any { return f.Request.UserAgent },
}

const claimsPrefix = "claims."

// knownFact tells whether a placeholder below factsPrefix exists.
func knownFact(name string) bool {
	_, ok := factPlaceholders[name]
	return ok || len(name) > len(claimsPrefix) && strings.HasPrefix(name, claimsPrefix)
}

// claimAt returns the claim of that name, or what a path of names separated by
// dots leads to inside of one: realm_access.roles. A name that has dots itself
// comes first.
func claimAt(claims map[string]any, path string) (any, bool) {
	if value, ok := claims[path]; ok {
		return value, true
	}
	for i := range len(path) {
		if path[i] != '.' {
			continue
		}
		inner, ok := claims[path[:i]].(map[string]any)
		if !ok {
			continue
		}
		if value, ok := claimAt(inner, path[i+1:]); ok {
			return value, true
		}
	}
	return nil, false
}

// factsRequest returns the request that an expression sees: with the facts as
// placeholders, beside those that the request has already, without credentials.
func factsRequest(f *oauth.Facts) *http.Request {
	original, _ := f.HTTP.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	repl := caddy.NewEmptyReplacer()
	repl.Map(func(key string) (any, bool) {
		if name, ok := strings.CutPrefix(key, factsPrefix); ok {
			if claim, ok := strings.CutPrefix(name, claimsPrefix); ok {
				value, found := claimAt(f.Token.Claims, claim)
				return plain(value), found
			}
			fact, found := factPlaceholders[name]
			if !found {
				return nil, false
			}
			return fact(f), true
		}
		if original == nil || isCredentialPlaceholder(key) {
			return nil, false
		}
		return original.Get(key)
	})
	return f.HTTP.WithContext(context.WithValue(f.HTTP.Context(), caddy.ReplacerCtxKey, repl))
}
