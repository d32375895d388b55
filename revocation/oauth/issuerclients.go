package oauth

import (
	"context"
	"slices"
)

// clientsOf returns the clients of some issuers. Those of others are as unknown as
// those that do not exist, in how long it takes as well.
func clientsOf(clients ClientStore, issuers []string) ClientStore {
	if s, ok := clients.(IssuerStore); ok {
		return s.Of(issuers...)
	}
	return &issuerClients{clients: clients, decoy: DecoyOf(clients), issuers: issuers}
}

// issuerClients are the clients of some issuers in a store that does not know of
// such a thing.
type issuerClients struct {
	clients ClientStore
	decoy   func(id string) *Client
	issuers []string
}

// Client implements [ClientStore].
func (s *issuerClients) Client(ctx context.Context, id string) (*Client, error) {
	c, err := s.clients.Client(ctx, id)
	if err != nil {
		return nil, err
	}
	if c != nil && !slices.Contains(s.issuers, c.Issuer) {
		return nil, ErrUnknownClient
	}
	return c, nil
}

// Decoy implements [DecoyStore].
func (s *issuerClients) Decoy(id string) *Client { return s.decoy(id) }

var _ DecoyStore = (*issuerClients)(nil)
