package oauth

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// Facts are what a policy decides by. Everything about the token is proven by its
// signature, or vouched for by its authorization server. They hold neither the token
// nor a secret: what the server answers with one of them in it is left out. As JSON they are what the
// webhook policy posts.
type Facts struct {
	Client  ClientFacts  `json:"client"`
	Token   TokenFacts   `json:"token"`
	Request RequestFacts `json:"request"`
	// Hint is the request's token_type_hint: whatever the client wrote, if it
	// looks like a hint at all, else "other". It proves nothing.
	Hint string `json:"token_type_hint,omitempty"`
	// Cascade is what would be revoked.
	Cascade Cascade `json:"cascade"`

	// HTTP is a copy of the request without body, query and credentials. Its
	// context is that of the request, with the variables of whoever serves it.
	HTTP *http.Request `json:"-"`
}

// ClientFacts describe the client that asks.
type ClientFacts struct {
	ID     string     `json:"id"`
	Issuer string     `json:"issuer"`
	Method AuthMethod `json:"auth_method"`
	Public bool       `json:"public"`
	// IP is where the request came from, empty if that is not known.
	IP string `json:"ip,omitempty"`
}

// TokenFacts describe the verified token. Times are in Unix seconds; what the
// token does not have is empty or zero.
type TokenFacts struct {
	Issuer    string `json:"issuer"`
	ID        string `json:"id,omitempty"`
	Subject   string `json:"subject,omitempty"`
	SessionID string `json:"session_id,omitempty"`
	// Owner is the client that the token was issued to, and Own whether that is
	// the client that asks.
	Owner         string `json:"owner,omitempty"`
	Own           bool   `json:"own"`
	IssuedAt      int64  `json:"issued_at,omitempty"`
	Authenticated int64  `json:"authenticated_at,omitempty"`
	Expiry        int64  `json:"expires_at,omitempty"`
	// Use is what the token is for: access, refresh, or unknown.
	Use string `json:"use"`
	// Claims are all claims of the token, under the issuer's own names; of one
	// that only its authorization server understands, what that answers. Numbers
	// are of type [json.Number].
	Claims map[string]any `json:"claims"`
}

// RequestFacts describe the request.
type RequestFacts struct {
	Host      string `json:"host"`
	Path      string `json:"path"`
	PlainHTTP bool   `json:"plain_http"`
	UserAgent string `json:"user_agent,omitempty"`
}

// makeFacts collects the facts about a token that was verified.
func (e *Endpoint) makeFacts(client *Client, token Resolved, f form, x *exchange) *Facts {
	id := token.Identity
	value := func(name string) string { v, _ := id.Value(name); return v }
	secrets := x.secrets
	facts := &Facts{
		Client: ClientFacts{ID: client.ID, Issuer: client.Issuer, Method: x.outcome.Method, Public: client.Public()},
		Token: TokenFacts{
			Issuer: id.Issuer, ID: value(revocation.ClaimTokenID), Subject: value(revocation.ClaimSubject),
			SessionID: value(revocation.ClaimSessionID), Owner: value(revocation.ClaimClientID), Own: owns(client, id),
			IssuedAt: id.IssuedAt, Authenticated: id.AuthTime, Expiry: id.Expiry,
			Use: token.Use.String(), Claims: token.Claims,
		},
		Request: RequestFacts{
			Host: x.request.Host, Path: x.request.URL.Path, PlainHTTP: x.outcome.PlainHTTP,
		},
		Hint:    cleanHint(f.get(paramTokenTypeHint), secrets),
		Cascade: x.outcome.Cascade,
		HTTP:    withoutCredentials(x.request, secrets),
	}
	if token.Asked {
		facts.Token.withhold(x.claimSecrets())
	}
	if x.outcome.ClientIP.IsValid() {
		facts.Client.IP = x.outcome.ClientIP.String()
	}
	// Compared before it is cut: half a token is no token, but too much of one.
	if agent := x.request.UserAgent(); !containsAny(agent, secrets) {
		facts.Request.UserAgent = cut(agent, maxUserAgent)
	}
	return facts
}

// withhold leaves out what has a secret in it.
func (t *TokenFacts) withhold(secrets []string) {
	for _, text := range []*string{&t.ID, &t.Subject, &t.SessionID, &t.Owner} {
		if containsAny(*text, secrets) {
			*text = ""
		}
	}
	t.Claims = withoutSecrets(t.Claims, secrets)
}

// maxUserAgent is how much of the User-Agent policies see, in bytes.
const maxUserAgent = 256

// secretsOf returns what a request was authenticated with, in every spelling that
// it was sent in or can be read as, and the token. Whatever has one of them in it
// is kept from policies.
func secretsOf(h http.Header, f form) []string {
	secrets := []string{f.get(paramToken), f.get(paramClientSecret), f.get(paramClientAssertion)}
	if tokens := strings.Fields(f.get(paramToken)); len(tokens) > 1 {
		secrets = append(secrets, tokens...)
	}
	for _, field := range h["Authorization"] {
		readings, _ := parseBasic(field)
		for _, c := range readings {
			secrets = append(secrets, c.secret)
		}
		if _, credentials := cutScheme(trimSpace(field)); credentials != "" {
			secrets = append(secrets, trimSpace(credentials))
		}
	}
	return secrets
}

// cleanHint keeps what can be a hint: the registered ones are words, private ones
// may be URIs (RFC 7009, section 2.1). A client that mixes up its parameters must
// not have its token posted to a webhook.
func cleanHint(hint string, secrets []string) string {
	if hint == "" {
		return ""
	}
	if len(hint) > 64 || containsAny(hint, secrets) {
		return "other"
	}
	for i := range len(hint) {
		if c := hint[i]; !isAlphaNum(c) && strings.IndexByte("_-.:/", c) < 0 {
			return "other"
		}
	}
	return hint
}

// credentialFields are those that carry credentials, whoever defined them.
var credentialFields = []string{"Authorization", "Proxy-Authorization", "Cookie", "Dpop"}

// withoutCredentials copies what policies may see of a request.
func withoutCredentials(r *http.Request, secrets []string) *http.Request {
	header := make(http.Header, len(r.Header))
	for name, values := range r.Header {
		secret := slices.Contains(credentialFields, http.CanonicalHeaderKey(name)) ||
			slices.ContainsFunc(values, func(v string) bool { return containsAny(v, secrets) })
		if !secret {
			header[name] = slices.Clone(values)
		}
	}
	c := &http.Request{
		Method: r.Method, URL: &url.URL{Scheme: r.URL.Scheme, Host: r.URL.Host, Path: r.URL.Path, RawPath: r.URL.RawPath},
		Proto: r.Proto, ProtoMajor: r.ProtoMajor, ProtoMinor: r.ProtoMinor,
		Header: header, Body: http.NoBody, Host: r.Host, RemoteAddr: r.RemoteAddr, TLS: r.TLS,
	}
	c.RequestURI = c.URL.EscapedPath()
	return c.WithContext(r.Context())
}

func containsAny(s string, secrets []string) bool {
	return slices.ContainsFunc(secrets, func(secret string) bool { return secret != "" && strings.Contains(s, secret) })
}
