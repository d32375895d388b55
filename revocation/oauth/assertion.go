package oauth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
)

// AssertionType is the client_assertion_type of a JWT (RFC 7523, section 2.2).
const AssertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// Bounds of client assertions.
const (
	// DefaultAssertionLifetime is how far the exp of an assertion may be ahead.
	DefaultAssertionLifetime = 10 * time.Minute
	// MaxAssertionLifetime bounds that setting: for so long each assertion has
	// to be remembered.
	MaxAssertionLifetime = time.Hour

	// assertionLeeway is how far a client's clock may be off. It is small, since
	// assertions are made for the moment.
	assertionLeeway = 30 * time.Second
	maxAssertion    = 8 << 10 // bytes
)

// AssertionStore remembers in the whole fleet which assertions were used: with a
// memory for each edge, an assertion that was seen at one would work at all
// others.
type AssertionStore interface {
	// UseOnce records the use of key, and tells whether it is the first one
	// within ttl. An error means that it is not known; the assertion is then
	// refused with 503.
	UseOnce(ctx context.Context, key string, ttl time.Duration) (first bool, err error)
}

// assertionRules are what an endpoint asks of client assertions.
type assertionRules struct {
	store     AssertionStore // nil: none are accepted
	audiences []string
	lifetime  time.Duration
	// decoy does the work of verifying with keys of nobody.
	decoy func(context.Context, *issuer.JWT)
}

func newAssertionRules(o EndpointOptions) assertionRules {
	return assertionRules{
		store:     o.Assertions,
		audiences: slices.Clone(o.AssertionAudiences),
		lifetime:  o.AssertionLifetime,
		decoy:     newDecoyKeys().verify,
	}
}

// assertion is a client assertion whose claims about itself are in order. Who
// wrote it is not proven.
type assertion struct {
	jwt      *issuer.JWT
	id       string
	audience string
	tokenID  string
	// until is when nobody accepts it any more.
	until time.Time
}

// readAssertionParams returns the attempt of a request with a client_assertion.
// The type is compared exactly: SAML assertions are not supported.
func readAssertionParams(text, kind, id string) (attempt, *answer) {
	if kind != AssertionType {
		return attempt{}, invalidClient(descBadClient)
	}
	return attempt{method: AuthPrivateKeyJWT, credentials: []credential{{id: id}}, assertion: text}, nil
}

// readAssertion checks everything that does not depend on the client, and writes
// method and client into a. It proves nothing; the signature is checked later.
// The error never quotes the assertion.
func (u *authenticator) readAssertion(a *attempt) (*assertion, error) {
	if len(a.assertion) > maxAssertion {
		return nil, errors.New("the assertion is too long")
	}
	jwt, err := issuer.ReadJWT(a.assertion)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(jwt.Algorithm(), "HS") {
		a.method = AuthSecretJWT
	}
	// The type for client assertions is not asked for, as few clients send it
	// (draft-ietf-oauth-rfc7523bis). A JWT that was signed for another purpose
	// must not pass for one (RFC 8725, section 3.11).
	switch jwt.Type() {
	case "jwt", "client-authentication+jwt":
	default:
		return nil, errors.New("the typ of the assertion is that of another kind of JWT")
	}
	iss, okIss := jwt.Text("iss")
	sub, okSub := jwt.Text("sub")
	switch {
	case !okIss || !okSub || iss == "" || iss != sub:
		return nil, errors.New("iss and sub of the assertion are not both the client_id")
	case a.credentials[0].id != "" && a.credentials[0].id != sub:
		return nil, errors.New("the client_id of the form differs from that of the assertion")
	}
	a.credentials[0].id = sub
	j := &assertion{jwt: jwt, id: sub}
	var ok bool
	if j.tokenID, ok = jwt.Text("jti"); !ok || j.tokenID == "" {
		return nil, errors.New("the assertion has no jti")
	}
	// The sole audience, whether as a text or as an array of one: whoever else
	// it was meant for could present it here.
	audiences, ok := jwt.Texts("aud")
	if !ok || len(audiences) != 1 {
		return nil, errors.New("the assertion has no aud, or more than one")
	}
	j.audience = audiences[0]
	return j, u.checkAssertionTimes(j)
}

func (u *authenticator) checkAssertionTimes(j *assertion) error {
	exp, nbf, iat, err := j.jwt.Times()
	if err != nil {
		return err
	}
	if exp == 0 {
		return errors.New("the assertion has no exp")
	}
	now := u.now()
	lifetime := u.assertions.lifetime
	j.until = time.Unix(exp, 0).Add(assertionLeeway)
	switch {
	case !now.Before(j.until):
		return errors.New("the assertion has expired")
	case time.Unix(exp, 0).After(now.Add(lifetime + assertionLeeway)):
		return fmt.Errorf("the assertion lives for longer than %s", lifetime)
	case nbf != 0 && time.Unix(nbf, 0).After(now.Add(assertionLeeway)), iat != 0 && time.Unix(iat, 0).After(now.Add(assertionLeeway)):
		return errors.New("the assertion is not valid yet")
	case iat != 0 && time.Unix(iat, 0).Before(now.Add(-lifetime-assertionLeeway)):
		return fmt.Errorf("the assertion was issued more than %s ago", lifetime)
	}
	return nil
}

// byAssertion returns the client if it has signed j and j was not used before.
func (u *authenticator) byAssertion(ctx context.Context, a *attempt, j *assertion, client *Client) (*Client, error) {
	if client == nil || !client.allows(a.method) {
		// As much work as for a client that may.
		u.assertions.decoy(ctx, j.jwt)
		return nil, errNotRegistered
	}
	tried, err := client.Keys.Try(ctx, j.jwt)
	if !tried {
		// Nor must a client stand out because it has no key of that name or kind.
		u.assertions.decoy(ctx, j.jwt)
	}
	switch {
	case errors.Is(err, issuer.ErrKeysUnavailable):
		u.log.LogAttrs(ctx, slog.LevelWarn, "the keys of a client are unavailable",
			slog.String("client_id", client.ID), slog.Any("error", err))
		return nil, unavailable(descNoKeys, u.retryAfter)
	case err != nil:
		return nil, err
	case j.audience != client.Issuer && !slices.Contains(u.assertions.audiences, j.audience):
		return nil, errors.New("the assertion is meant for another audience")
	case u.assertions.store == nil:
		return nil, errors.New("this endpoint accepts no assertions, since it can't remember them")
	}
	// An assertion is recorded for the whole fleet, and later read by every edge
	// that starts: not for a request that would be refused anyway, and not more
	// often than clients have tokens to revoke.
	if refusal := refuseToken(a.token, u.maxToken); refusal != nil {
		return nil, refusal
	}
	if u.spending != nil {
		if wait := u.spending.take(paceKeyOf(client)); wait > 0 {
			return nil, tooMany("too many requests of this client", wait)
		}
	}
	// From here on the assertion is spent, whatever becomes of the request.
	first, err := u.assertions.store.UseOnce(ctx, j.key(client), max(j.until.Sub(u.now()), time.Second))
	if err != nil {
		u.log.LogAttrs(ctx, slog.LevelWarn, "use of a client assertion not recorded", slog.Any("error", err))
		return nil, unavailable("the client cannot be authenticated now", u.retryAfter)
	}
	if !first {
		return nil, errors.New("the assertion was used before")
	}
	return client, nil
}

// refuseToken returns the answer to a request without a token that could be
// revoked, nil if there is one. It is the same for clients of every method, only
// that an assertion is not spent on it: that the assertion was used before is
// then not found out, and does not matter.
func refuseToken(token string, limit int) *answer {
	switch {
	case trimSpace(token) == "":
		return refuse(http.StatusBadRequest, "the token is missing")
	case len(token) > limit:
		return refuse(http.StatusBadRequest, "the token is too long")
	case strings.TrimRight(token, "\r\n") != token:
		return refuse(http.StatusBadRequest, "the token ends in a line break")
	default:
		return nil
	}
}

// key is what the assertion is remembered by. Lengths keep two triples from
// having the same text.
func (j *assertion) key(c *Client) string {
	return fmt.Sprintf("client assertion %d:%s %d:%s %s", len(c.Issuer), c.Issuer, len(c.ID), c.ID, j.tokenID)
}
