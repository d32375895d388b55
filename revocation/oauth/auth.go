package oauth

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"time"
)

// attempt is what a request presents to authenticate its client.
type attempt struct {
	method AuthMethod
	// credentials are the readings of what was sent: two if HTTP Basic can be
	// read in two ways, otherwise one.
	credentials []credential
}

const (
	descNoClient  = "the client is not authenticated"
	descBadClient = "the client could not be authenticated"
)

// readAttempt finds the one authentication method that the request uses (RFC
// 6749, section 2.3). strict takes HTTP Basic in its form-encoded reading only.
func readAttempt(h http.Header, f form, strict bool) (attempt, *answer) {
	fields := h["Authorization"]
	if len(fields) > 1 {
		return attempt{}, refuse(http.StatusBadRequest, "more than one authorization header")
	}
	header := ""
	if len(fields) == 1 {
		header = trimSpace(fields[0])
	}
	id, secret := f.get(paramClientID), f.get(paramClientSecret)
	assertion, assertionType := f.get(paramClientAssertion), f.get(paramClientAssertionType)

	methods := 0
	for _, used := range []bool{header != "", secret != "", assertion != "" || assertionType != ""} {
		if used {
			methods++
		}
	}
	switch {
	case methods > 1:
		return attempt{}, refuse(http.StatusBadRequest, "more than one client authentication method")
	case header != "":
		return readBasic(header, id, strict)
	case (assertion == "") != (assertionType == ""):
		return attempt{}, refuse(http.StatusBadRequest, "client_assertion and client_assertion_type belong together")
	case assertion != "":
		return attempt{}, invalidClient("client assertions are not supported")
	case id == "":
		return attempt{}, invalidClient(descNoClient)
	case secret != "":
		return attempt{AuthSecretPost, []credential{{id, secret}}}, nil
	default:
		return attempt{AuthNone, []credential{{id: id}}}, nil
	}
}

// readBasic reads an Authorization header. A client_id next to it in the form is
// not a second method but has to name the same client; another one would let two
// readers of this request see two clients.
func readBasic(header, bodyID string, strict bool) (attempt, *answer) {
	credentials, err := parseBasic(header)
	if err != nil {
		return attempt{}, invalidClient(descBadClient)
	}
	if strict {
		credentials = credentials[:1]
	}
	if bodyID != "" {
		credentials = slices.DeleteFunc(credentials, func(c credential) bool { return c.id != bodyID })
		if len(credentials) == 0 {
			return attempt{}, refuse(http.StatusBadRequest, "client_id differs from the authorization header")
		}
	}
	if credentials[0].id == "" {
		return attempt{}, invalidClient(descNoClient)
	}
	if credentials[0].secret == "" {
		// Mobile libraries send Basic with an empty password for public clients.
		// It says no more than client_id alone, and counts as that.
		return attempt{AuthNone, credentials}, nil
	}
	return attempt{AuthSecretBasic, credentials}, nil
}

// authenticator decides whether an attempt succeeds.
type authenticator struct {
	clients    ClientStore
	decoy      func(id string) *Client
	throttle   *throttle // nil: off
	hashes     *limiter
	verified   *verified
	retryAfter time.Duration
}

// check is one reading of the credentials with what it is compared with.
type check struct {
	credential
	client *Client // nil: unknown
	target *Client // the client, or a decoy; nil: nothing to compare with
}

// authenticate returns the client of a, or the answer that refuses it. An unknown
// client, a wrong secret and a method that the client may not use get the same
// answer after the same work.
func (u *authenticator) authenticate(ctx context.Context, a attempt, from netip.Addr) (*Client, *answer) {
	keys := u.throttleKeys(a, from)
	if wait := u.blocked(keys); wait > 0 {
		return nil, throttled(wait)
	}
	checks := make([]check, 0, 2)
	for _, c := range a.credentials {
		client, err := u.clients.Client(ctx, c.id)
		if err != nil && !errors.Is(err, ErrUnknownClient) {
			return nil, unavailable("the clients cannot be looked up now", u.retryAfter)
		}
		if err != nil {
			client = nil
		}
		checks = append(checks, check{credential: c, client: client})
	}
	client, refusal := u.decide(ctx, a.method, checks, keys)
	if client == nil && refusal == nil {
		for _, k := range keys {
			u.throttle.failed(k)
		}
		return nil, invalidClient(descBadClient)
	}
	return client, refusal
}

// decide returns nil, nil if the attempt fails.
func (u *authenticator) decide(ctx context.Context, method AuthMethod, checks []check, keys []throttleKey) (*Client, *answer) {
	if method == AuthNone {
		for _, c := range checks {
			if c.client != nil && c.client.allows(AuthNone) {
				return c.client, nil
			}
		}
		return nil, nil
	}
	if len(checks[0].secret) > maxSecret {
		return nil, nil // before any hash, whoever it is
	}
	slow := false
	for i := range checks {
		c := &checks[i]
		if c.client != nil && c.client.allows(method) && u.remembered(c) {
			return c.client, nil
		}
		c.target = u.target(c)
		slow = slow || c.target != nil && slices.ContainsFunc(c.target.Secrets, Secret.slow)
	}
	if slow {
		if err := u.hashes.acquire(ctx); err != nil {
			return nil, unavailable("too many clients authenticate at once", u.retryAfter)
		}
		defer u.hashes.release()
		// Others may have failed while this one waited: without a second look,
		// a burst of guesses would all pass the first.
		if wait := u.blocked(keys); wait > 0 {
			return nil, throttled(wait)
		}
	}
	var found *Client
	for i := range checks {
		// No reading is skipped because another one matched: how long the
		// answer takes must not tell which.
		if u.compare(method, &checks[i]) && found == nil {
			found = checks[i].client
		}
	}
	return found, nil
}

// target returns the client whose secrets the presented one is compared with. For
// an unknown client, or a public one that has nothing to compare with, it is a
// decoy, whose verdict is thrown away.
func (u *authenticator) target(c *check) *Client {
	if c.client != nil && len(c.client.Secrets) > 0 {
		return c.client
	}
	return u.decoy(c.id)
}

// decoyOf returns where the decoys for unknown clients of a store come from. One
// without decoys of its own gets bcrypt at its usual cost, of a secret that
// nobody knows.
func decoyOf(clients ClientStore) func(id string) *Client {
	if s, ok := clients.(DecoyStore); ok {
		return s.Decoy
	}
	const hash = "$2a$10$rBfBzofu1oW/p3ssfNEXXe.r05P6L0ykKSWt7SvjtcHq2Iir0Ahiq"
	decoy := &Client{Secrets: []Secret{newSecret(bcryptSecret(hash), hash)}}
	return func(string) *Client { return decoy }
}

// compare runs every comparison, whatever the first ones say, and also those
// whose verdict cannot count.
func (u *authenticator) compare(method AuthMethod, c *check) bool {
	if c.target == nil {
		return false
	}
	eligible := c.target == c.client && c.client.allows(method)
	matches := false
	for _, s := range c.target.Secrets {
		if s.verify(c.secret) && eligible {
			matches = true
			u.verified.add(c.id, s, c.secret)
		}
	}
	return matches
}

func (u *authenticator) remembered(c *check) bool {
	return slices.ContainsFunc(c.client.Secrets, func(s Secret) bool {
		return u.verified.has(c.id, s, c.secret)
	})
}

func (u *authenticator) throttleKeys(a attempt, from netip.Addr) []throttleKey {
	if u.throttle == nil {
		return nil
	}
	keys := make([]throttleKey, 0, 2)
	for _, c := range a.credentials {
		if k, ok := throttleKeyOf(c.id, from); ok && !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	return keys
}

func (u *authenticator) blocked(keys []throttleKey) time.Duration {
	var wait time.Duration
	for _, k := range keys {
		wait = max(wait, u.throttle.blocked(k))
	}
	return wait
}
