package oauth

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"slices"

	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
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
	// AuthSecretJWT is an assertion with a MAC under the secret (OpenID Connect
	// Core, section 9).
	AuthSecretJWT AuthMethod = "client_secret_jwt"
	// AuthPrivateKeyJWT is an assertion that the client signed (RFC 7523).
	AuthPrivateKeyJWT AuthMethod = "private_key_jwt"
	// AuthTLS is a certificate of a trusted authority in the TLS handshake (RFC
	// 8705, section 2.1).
	AuthTLS AuthMethod = "tls_client_auth"
	// AuthSelfSignedTLS is a certificate that is itself registered (RFC 8705,
	// section 2.2).
	AuthSelfSignedTLS AuthMethod = "self_signed_tls_client_auth"
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
// the same name elsewhere is another client. [NewClient] checks one.
type Client struct {
	// ID is the client_id, at most 240 bytes of UTF-8 without control
	// characters, compared byte by byte.
	ID string
	// Issuer is the iss of the tokens that the client may revoke.
	Issuer string
	// Methods are the ways in which the client may authenticate: exactly one,
	// except that client_secret_basic and client_secret_post go together, since
	// both send the same secret. Empty means those two for a client with
	// secrets, private_key_jwt or client_secret_jwt for one with keys,
	// tls_client_auth for one with a certificate's name and
	// self_signed_tls_client_auth for one with a certificate's digest. A public
	// client has the method none.
	Methods []AuthMethod
	// Secrets are the secrets that are accepted: one, or during a rotation
	// several, at most [MaxSecrets].
	Secrets []Secret
	// Keys are those that the client signs its assertions with: public keys for
	// private_key_jwt, the shared secrets for client_secret_jwt. With
	// self_signed_tls_client_auth they are the keys of its certificates. The
	// owner of the client starts and stops them.
	Keys *issuer.KeySource
	// Certificate is the name that the certificate of a client with
	// tls_client_auth has.
	Certificate CertificateName
	// Certificates are the SHA-256 digests of the certificates (DER) that a
	// client with self_signed_tls_client_auth may present, besides those with
	// one of its Keys.
	Certificates [][sha256.Size]byte
	// RevokeAny lets the client revoke tokens of other clients of its issuer,
	// where the endpoint allows that too. A public client can't have it.
	RevokeAny bool
	// IntrospectAny lets the client ask an [IntrospectionEndpoint] about every
	// access token of its issuer, and IntrospectAudiences about those that are
	// meant for one of these (aud). Without them it may ask about its own tokens,
	// and about those whose aud is its ID. A public client can't have either.
	IntrospectAny       bool
	IntrospectAudiences []string

	// checked is set by NewClient, and with it matches.
	checked bool
	matches func(*x509.Certificate) bool
}

// NewClient fills in defaults and checks a client. It returns a copy. The error
// names neither the client nor any secret.
func NewClient(c Client) (*Client, error) {
	c.Methods = slices.Clone(c.Methods)
	c.Secrets = slices.Clone(c.Secrets)
	c.Certificates = slices.Clone(c.Certificates)
	c.IntrospectAudiences = slices.Clone(c.IntrospectAudiences)
	if len(c.Methods) == 0 {
		c.Methods = c.defaultMethods()
	}
	if err := c.validate(); err != nil {
		return nil, err
	}
	if c.allows(AuthTLS) {
		var err error
		if c.matches, err = c.Certificate.matcher(); err != nil {
			return nil, err
		}
	}
	c.checked = true
	return &c, nil
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

// IssuerStore is a [ClientStore] in which one id may be registered at several
// issuers. Client then does not know it: Of tells which one is meant.
type IssuerStore interface {
	ClientStore
	// Of returns a store of the clients of these issuers.
	Of(issuers ...string) ClientStore
}

// StaticClients is a [ClientStore] of clients that are known when it is made.
type StaticClients struct {
	byID map[string][]*Client // of different issuers
	// confidential are the clients that have secrets.
	confidential []*Client
	seed         maphash.Seed
	count        int
}

var (
	_ DecoyStore  = (*StaticClients)(nil)
	_ IssuerStore = (*StaticClients)(nil)
)

// NewStaticClients checks the clients and returns a store of copies. The error
// names the client at fault, never its secret.
func NewStaticClients(clients ...Client) (*StaticClients, error) {
	s := newStaticClients()
	for i := range clients {
		c, err := NewClient(clients[i])
		if err != nil {
			if clients[i].ID == "" {
				return nil, fmt.Errorf("checking client %d: %w", i+1, err)
			}
			return nil, fmt.Errorf("checking client %q: %w", clients[i].ID, err)
		}
		if !s.add(c) {
			return nil, fmt.Errorf("checking client %q: the id is registered twice at %s", c.ID, c.Issuer)
		}
	}
	return s, nil
}

func newStaticClients() *StaticClients {
	return &StaticClients{byID: make(map[string][]*Client), seed: maphash.MakeSeed()}
}

// add returns false if the client is there already.
func (s *StaticClients) add(c *Client) bool {
	if s.find(c.Issuer, c.ID) != nil {
		return false
	}
	s.byID[c.ID] = append(s.byID[c.ID], c)
	if len(c.Secrets) > 0 {
		s.confidential = append(s.confidential, c)
	}
	s.count++
	return true
}

func (s *StaticClients) find(issuer, id string) *Client {
	for _, c := range s.byID[id] {
		if c.Issuer == issuer {
			return c
		}
	}
	return nil
}

// Of returns a store of the clients of these issuers.
func (s *StaticClients) Of(issuers ...string) ClientStore {
	of := newStaticClients()
	for c := range s.All() {
		if slices.Contains(issuers, c.Issuer) {
			of.add(c)
		}
	}
	return of
}

// All returns the clients in no particular order. They are not to be modified.
func (s *StaticClients) All() iter.Seq[*Client] {
	return func(yield func(*Client) bool) {
		for _, clients := range s.byID {
			for _, c := range clients {
				if !yield(c) {
					return
				}
			}
		}
	}
}

// Has tells whether there is a client of this id at this issuer.
func (s *StaticClients) Has(issuer, id string) bool { return s.find(issuer, id) != nil }

// Client returns the client with the given id, or [ErrUnknownClient]. An id that
// is registered at several issuers is unknown here, since nothing in a request
// tells which one is meant: use [StaticClients.Of].
func (s *StaticClients) Client(_ context.Context, id string) (*Client, error) {
	clients := s.byID[id]
	if len(clients) != 1 {
		return nil, ErrUnknownClient
	}
	return clients[0], nil
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
func (s *StaticClients) Len() int { return s.count }
