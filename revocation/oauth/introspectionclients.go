package oauth

import (
	"context"
	"errors"
	"slices"
)

// maxIntrospectAudiences bounds what one client may ask about: each is compared
// with each aud of each token.
const maxIntrospectAudiences = 64

// validateIntrospection checks what the client may ask about.
func (c *Client) validateIntrospection() error {
	switch {
	case (c.IntrospectAny || len(c.IntrospectAudiences) > 0) && c.Public():
		return errors.New("a public client can't be allowed to ask about tokens: anybody can use its id")
	case c.IntrospectAny && len(c.IntrospectAudiences) > 0:
		return errors.New("it may ask about any token of its issuer, and has audiences: keep one of them")
	case len(c.IntrospectAudiences) > maxIntrospectAudiences:
		return errors.New("it has more than 64 audiences to ask about")
	case slices.Contains(c.IntrospectAudiences, ""):
		return errors.New("an audience to ask about is empty")
	}
	return nil
}

// mayIntrospect tells whether client may be told about a token. A token that is
// not for it is as unknown to it as one that does not exist (RFC 7662, sections
// 2.2 and 4).
//
// Only the client itself needs to know about its refresh tokens: a resource that
// was handed one is told nothing of it, whatever it may ask about.
func mayIntrospect(client *Client, t *ActiveToken, audiences []string) bool {
	id := t.Identity
	switch {
	case client.Public() || id.Issuer != client.Issuer:
		return false
	case owns(client, id):
		return true
	case t.Refresh:
		return false
	case client.IntrospectAny:
		return true
	}
	return slices.ContainsFunc(audiences, func(aud string) bool {
		return aud == client.ID || slices.Contains(client.IntrospectAudiences, aud)
	})
}

// confidentialClients are those of a store that authenticate: to an endpoint that
// tells something about tokens, public clients do not exist (RFC 7662, section
// 2.1), in how long it takes as well.
type confidentialClients struct {
	clients ClientStore
	decoy   func(id string) *Client
}

// Client implements [ClientStore].
func (s confidentialClients) Client(ctx context.Context, id string) (*Client, error) {
	c, err := s.clients.Client(ctx, id)
	if err == nil && c != nil && c.Public() {
		return nil, ErrUnknownClient
	}
	return c, err
}

// Decoy implements [DecoyStore].
func (s confidentialClients) Decoy(id string) *Client { return s.decoy(id) }

// Interface guard
var _ DecoyStore = confidentialClients{}
