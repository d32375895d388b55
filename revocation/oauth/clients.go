package oauth

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"unicode/utf8"
)

// AuthMethod is a way for a client to authenticate, named as in the registry of
// RFC 8414, section 2 (token_endpoint_auth_methods_supported).
type AuthMethod string

// Methods that the endpoint knows.
const (
	// AuthSecretBasic is the secret in the Authorization header (RFC 6749,
	// section 2.3.1).
	AuthSecretBasic AuthMethod = "client_secret_basic"
	// AuthSecretPost is the secret in the form.
	AuthSecretPost AuthMethod = "client_secret_post"
	// AuthNone is for public clients, which have no secret: the client_id says
	// who asks, and ownership of the token is all that protects it.
	AuthNone AuthMethod = "none"
)

// Bounds of clients. An id becomes part of a revocation's actor, which is
// limited to 256 bytes.
const (
	maxClientID = 240 // bytes
	// MaxSecrets bounds the secrets of one client: each one is compared on every
	// attempt.
	MaxSecrets = 4
)

// Client is one registered client. It belongs to exactly one issuer: a client of
// the same name elsewhere is another client.
type Client struct {
	// ID is the client_id, at most 240 bytes of UTF-8 without control
	// characters, compared byte by byte.
	ID string
	// Issuer is the iss of the tokens that the client may revoke.
	Issuer string
	// Methods are the ways in which the client may authenticate. Empty means
	// client_secret_basic and client_secret_post for a client with a secret. A
	// public client has the method none and no other.
	Methods []AuthMethod
	// Secrets are the secrets that are accepted: one, or during a rotation
	// several, at most [MaxSecrets].
	Secrets []Secret
}

// Public tells whether the client authenticates with its client_id alone.
func (c *Client) Public() bool { return slices.Contains(c.Methods, AuthNone) }

func (c *Client) allows(m AuthMethod) bool { return slices.Contains(c.Methods, m) }

// ErrUnknownClient is returned by a [ClientStore] for an id that is not
// registered.
var ErrUnknownClient = errors.New("unknown client")

// ClientStore finds clients. The returned client is not modified by anyone
// afterwards. The error wraps [ErrUnknownClient] if there is none; any other
// error is answered with 503. Implementations are safe for concurrent use.
type ClientStore interface {
	Client(ctx context.Context, id string) (*Client, error)
}

// DecoyStore is a [ClientStore] that says what to compare with when a client is
// unknown, so that the answer takes as long as for a known one.
type DecoyStore interface {
	ClientStore
	// Decoy returns some client with secrets, always the same one for the same
	// id, or nil if no client has any.
	Decoy(id string) *Client
}

// StaticClients is a [ClientStore] of clients that are known when it is made.
type StaticClients struct {
	byID map[string]*Client
	// confidential are the clients that have secrets.
	confidential []*Client
	seed         maphash.Seed
}

var _ DecoyStore = (*StaticClients)(nil)

// NewStaticClients checks the clients and returns a store of copies. The error
// names the client at fault, never its secret.
func NewStaticClients(clients ...Client) (*StaticClients, error) {
	s := &StaticClients{byID: make(map[string]*Client, len(clients)), seed: maphash.MakeSeed()}
	for i := range clients {
		c := clients[i]
		c.Methods = slices.Clone(c.Methods)
		c.Secrets = slices.Clone(c.Secrets)
		if len(c.Methods) == 0 && len(c.Secrets) > 0 {
			c.Methods = []AuthMethod{AuthSecretBasic, AuthSecretPost}
		}
		if err := c.validate(); err != nil {
			if c.ID == "" {
				return nil, fmt.Errorf("checking client %d: %w", i+1, err)
			}
			return nil, fmt.Errorf("checking client %q: %w", c.ID, err)
		}
		if _, ok := s.byID[c.ID]; ok {
			return nil, fmt.Errorf("checking client %q: the id is registered twice", c.ID)
		}
		s.byID[c.ID] = &c
		if len(c.Secrets) > 0 {
			s.confidential = append(s.confidential, &c)
		}
	}
	return s, nil
}

func (c *Client) validate() error {
	switch {
	case c.ID == "":
		return errors.New("the id is missing")
	case len(c.ID) > maxClientID || !utf8.ValidString(c.ID) || hasControl(c.ID):
		return fmt.Errorf("the id is not UTF-8 of at most %d bytes without control characters", maxClientID)
	case c.Issuer == "":
		return errors.New("the issuer is missing")
	case len(c.Methods) == 0:
		return errors.New("it has no secret; a client without one has to be public")
	case len(c.Secrets) > MaxSecrets:
		return fmt.Errorf("it has more than %d secrets", MaxSecrets)
	}
	secret := false
	for i, m := range c.Methods {
		switch m {
		case AuthSecretBasic, AuthSecretPost:
			secret = true
		case AuthNone:
		default:
			return fmt.Errorf("unknown authentication method %q", string(m))
		}
		if slices.Contains(c.Methods[:i], m) {
			return fmt.Errorf("the authentication method %q is listed twice", string(m))
		}
	}
	switch {
	// A client with a secret must never get by without it (RFC 6749, section
	// 3.2.1).
	case secret && c.Public():
		return errors.New("a public client has no other authentication method")
	case c.Public() && len(c.Secrets) > 0:
		return errors.New("a public client has no secret")
	case secret && len(c.Secrets) == 0:
		return errors.New("the secret is missing")
	}
	for _, s := range c.Secrets {
		switch {
		case s.verifier == nil:
			return errors.New("the secret is empty")
		case s.isDigestOf(c.ID):
			return errors.New("the secret is the client's own id")
		}
	}
	return nil
}

func hasControl(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return true
		}
	}
	return false
}

// Client returns the client with the given id, or [ErrUnknownClient].
func (s *StaticClients) Client(_ context.Context, id string) (*Client, error) {
	c, ok := s.byID[id]
	if !ok {
		return nil, ErrUnknownClient
	}
	return c, nil
}

// Decoy returns one of the clients with secrets, chosen by a keyed hash of id.
// Where some clients have fast secrets and others slow ones, unknown ids then
// take as long as known ones do: a single decoy would set them apart.
func (s *StaticClients) Decoy(id string) *Client {
	if len(s.confidential) == 0 {
		return nil
	}
	return s.confidential[maphash.String(s.seed, id)%uint64(len(s.confidential))]
}

// Len returns the number of clients.
func (s *StaticClients) Len() int { return len(s.byID) }
