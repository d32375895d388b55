package caddymodule

import (
	"errors"
	"fmt"

	"github.com/caddyserver/caddy/v2"

	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
)

// ClientConfig is an OAuth client that may use the revocation endpoint. It can
// revoke its own tokens, those that its issuer issued to it.
type ClientConfig struct {
	// The client_id.
	ID string `json:"id"`

	// The issuer that the client is registered at. A client name at one issuer
	// says nothing at another. Default: the only issuer configured.
	Issuer string `json:"issuer,omitempty"`

	// A public client: it has no secret and is identified by its client_id.
	Public bool `json:"public,omitempty"`

	// The secret, or two while it is being changed: a bcrypt or argon2id hash,
	// sha256:<hex> of a generated secret of at least 128 bits, or a placeholder
	// for one of these or for the secret itself, such as {env.DEMO_SECRET} or
	// {file./run/secrets/demo}. A secret in clear is not accepted here.
	Secrets []string `json:"secrets,omitempty"`

	// How the client may authenticate: client_secret_basic, client_secret_post.
	// Default for a client with a secret: either.
	Methods []string `json:"methods,omitempty"`
}

func (a *App) provisionClients(repl *caddy.Replacer) (oauth.ClientStore, error) {
	clients := make([]oauth.Client, 0, len(a.Clients))
	for i := range a.Clients {
		client, err := a.client(&a.Clients[i], repl)
		if err != nil {
			return nil, fmt.Errorf("client %s: %w", a.Clients[i].ID, err)
		}
		clients = append(clients, client)
	}
	return oauth.NewStaticClients(clients...)
}

func (a *App) client(c *ClientConfig, repl *caddy.Replacer) (oauth.Client, error) {
	client := oauth.Client{ID: c.ID, Issuer: c.Issuer}
	if c.Issuer == "" {
		if len(a.issuers) != 1 {
			return client, fmt.Errorf("there are %d issuers: say which one the client belongs to "+
				"with an issuer line", len(a.issuers))
		}
		client.Issuer = a.issuers[0].Name()
	} else if !a.knowsIssuer(c.Issuer) {
		return client, fmt.Errorf("issuer %s is not configured: add an issuer line for it, spelled exactly so", c.Issuer)
	}
	for _, text := range c.Secrets {
		value, err := repl.ReplaceOrErr(text, true, true)
		if err != nil {
			return client, fmt.Errorf("resolving its secret: %w", err)
		}
		secret, err := oauth.ParseSecret(value)
		if errors.Is(err, oauth.ErrNotHashed) && value != text {
			// A secret in clear belongs into a file or the environment, not
			// into a config that is backed up, shown and logged.
			secret, err = oauth.ClearSecret(value)
		}
		if err != nil {
			return client, err
		}
		client.Secrets = append(client.Secrets, secret)
	}
	for _, method := range c.Methods {
		client.Methods = append(client.Methods, oauth.AuthMethod(method))
	}
	if c.Public {
		client.Methods = append(client.Methods, oauth.AuthNone)
	}
	return client, nil
}

func (a *App) knowsIssuer(iss string) bool { return a.issuer(iss) != nil }

// issuer returns the configured issuer of that exact name, or nil.
func (a *App) issuer(name string) *issuer.Issuer {
	for _, i := range a.issuers {
		if i.Name() == name {
			return i
		}
	}
	return nil
}
