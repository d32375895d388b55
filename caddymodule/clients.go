package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/caddyserver/caddy/v2"

	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
)

// ClientConfig is an OAuth client that may use the revocation endpoint and, if it
// is not public, the introspection endpoint. It can revoke its own tokens, those
// that its issuer issued to it, and ask about them and about those that are meant
// for it.
//
// A client has one way to authenticate. What it is follows from what the client
// has: public, secrets, the place of its keys, or what its TLS certificate says.
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
	//
	// For client_secret_jwt it has to be a placeholder for the secret itself, of
	// at least 32 bytes, since a hash can't verify a MAC.
	Secrets []string `json:"secrets,omitempty"`

	// How the client authenticates: client_secret_basic and client_secret_post,
	// which may be given together; or one of client_secret_jwt, private_key_jwt,
	// tls_client_auth and self_signed_tls_client_auth. Default for a client with
	// a secret: either of the first two; with keys: private_key_jwt; with the
	// name in a certificate: tls_client_auth; with the digest of a certificate:
	// self_signed_tls_client_auth.
	Methods []string `json:"methods,omitempty"`

	// The client's public keys, as a JWK set. With private_key_jwt it signs its
	// assertions with one of them; with self_signed_tls_client_auth its
	// certificate has one of them.
	JWKS json.RawMessage `json:"jwks,omitempty"`

	// The file with the client's JWK set. It is read again when it changes.
	JWKSFile string `json:"jwks_file,omitempty"`

	// The address of the client's JWK set. A key that is unknown is asked for
	// there, at most once in ten seconds.
	JWKSURI string `json:"jwks_uri,omitempty"`

	// Fetch jwks_uri over plain HTTP from another host: anyone on the way could
	// replace the keys.
	AllowHTTP bool `json:"allow_http,omitempty"`

	// The algorithms that the client's assertions may be signed with. Default:
	// all that its kind of key allows.
	Algorithms []string `json:"algorithms,omitempty"`

	// With tls_client_auth: the subject of the client's certificate, such as
	// CN=app,O=Example,C=DE. All of it is compared. The server has to verify
	// client certificates (client_auth in Caddy's tls directive).
	TLSSubjectDN string `json:"tls_subject_dn,omitempty"`

	// Instead of the subject: a DNS name that the certificate is for.
	TLSSANDNS string `json:"tls_san_dns,omitempty"`

	// Instead of the subject: a URI that the certificate is for.
	TLSSANURI string `json:"tls_san_uri,omitempty"`

	// Instead of the subject: an IP address that the certificate is for.
	TLSSANIP string `json:"tls_san_ip,omitempty"`

	// Instead of the subject: an e-mail address that the certificate is for.
	TLSSANEmail string `json:"tls_san_email,omitempty"`

	// With self_signed_tls_client_auth: the SHA-256 of the client's certificate
	// (DER) in hexadecimal or base64url, or of two while it is being changed.
	TLSCertificates []string `json:"tls_certificates,omitempty"`

	// Let the client revoke tokens of other clients of its issuer, at endpoints
	// that allow it as well.
	RevokeAny bool `json:"revoke_any,omitempty"`

	// Let the client ask token_introspection about every access token of its
	// issuer. Without it, it may ask about its own tokens, and about those whose
	// aud is its client_id or one of introspect_audiences. About refresh tokens,
	// only the client that they were issued to is told.
	IntrospectAny bool `json:"introspect_any,omitempty"`

	// Values of aud: the client may ask token_introspection about access tokens
	// of its issuer that are meant for one of these.
	IntrospectAudiences []string `json:"introspect_audiences,omitempty"`
}

// client makes a client of c. Keys that have to be loaded are taken from what
// other configs use, and noted in holder. No error holds a secret.
func (a *App) client(c *ClientConfig, repl *caddy.Replacer, holder *keyHolder) (*oauth.Client, error) {
	client := oauth.Client{ID: c.ID, Issuer: c.Issuer, RevokeAny: c.RevokeAny, Certificate: oauth.CertificateName{
		SubjectDN: c.TLSSubjectDN, DNS: c.TLSSANDNS, URI: c.TLSSANURI, IP: c.TLSSANIP, Email: c.TLSSANEmail,
	}, IntrospectAny: c.IntrospectAny, IntrospectAudiences: c.IntrospectAudiences}
	if c.Issuer == "" {
		if len(a.issuers) != 1 {
			return nil, fmt.Errorf("there are %d issuers: say which one the client belongs to "+
				"with an issuer line", len(a.issuers))
		}
		client.Issuer = a.issuers[0].Name()
	} else if !a.knowsIssuer(c.Issuer) {
		return nil, fmt.Errorf("issuer %s is not configured: add an issuer line for it, spelled exactly so", c.Issuer)
	}
	for _, method := range c.Methods {
		client.Methods = append(client.Methods, oauth.AuthMethod(method))
	}
	if c.Public {
		client.Methods = append(client.Methods, oauth.AuthNone)
	}
	for _, text := range c.TLSCertificates {
		digest, err := oauth.ParseDigest(text)
		if err != nil {
			return nil, fmt.Errorf("the digest of its certificate: %w", err)
		}
		client.Certificates = append(client.Certificates, digest)
	}
	keys := issuer.KeySourceConfig{
		JWKS: c.JWKS, JWKSFile: c.JWKSFile, JWKSURI: c.JWKSURI, AllowHTTP: c.AllowHTTP, Algorithms: c.Algorithms,
	}
	if err := replaceAll(repl, &keys.JWKSFile, &keys.JWKSURI); err != nil {
		return nil, err
	}
	var err error
	if slices.Contains(client.Methods, oauth.AuthSecretJWT) {
		keys.Secrets, err = clearSecrets(c.Secrets, repl)
	} else {
		client.Secrets, err = hashedSecrets(c.Secrets, repl)
	}
	if err != nil {
		return nil, err
	}
	switch {
	case len(keys.JWKS) > 0 || keys.JWKSFile != "" || keys.JWKSURI != "" || len(keys.Secrets) > 0:
		if client.Keys, err = holder.take(keys, c.ID); err != nil {
			return nil, err
		}
	case len(keys.Algorithms) > 0 || keys.AllowHTTP:
		return nil, errors.New("algorithms and allow_http are for clients with keys")
	}
	return oauth.NewClient(client)
}

// hashedSecrets reads secrets that are compared.
func hashedSecrets(texts []string, repl *caddy.Replacer) ([]oauth.Secret, error) {
	var secrets []oauth.Secret
	for _, text := range texts {
		value, err := repl.ReplaceOrErr(text, true, true)
		if err != nil {
			return nil, fmt.Errorf("resolving its secret: %w", err)
		}
		secret, err := oauth.ParseSecret(value)
		if errors.Is(err, oauth.ErrNotHashed) && value != text {
			// A secret in clear belongs into a file or the environment, not
			// into a config that is backed up, shown and logged.
			secret, err = oauth.ClearSecret(value)
		}
		if err != nil {
			return nil, err
		}
		secrets = append(secrets, secret)
	}
	return secrets, nil
}

// clearSecrets reads secrets that a MAC is made with.
func clearSecrets(texts []string, repl *caddy.Replacer) ([]string, error) {
	if len(texts) == 0 {
		return nil, errors.New("the secret is missing")
	}
	if len(texts) > oauth.MaxSecrets {
		return nil, fmt.Errorf("it has more than %d secrets", oauth.MaxSecrets)
	}
	var secrets []string
	for _, text := range texts {
		value, err := repl.ReplaceOrErr(text, true, true)
		if err != nil {
			return nil, fmt.Errorf("resolving its secret: %w", err)
		}
		switch {
		case oauth.IsHashed(value):
			return nil, errors.New("client_secret_jwt needs the secret itself, not its hash: a hash can't verify a MAC")
		case value == text:
			return nil, errors.New("client_secret_jwt takes its secret from a placeholder such as {env.NAME} or {file.<path>} only")
		}
		secrets = append(secrets, value)
	}
	return secrets, nil
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
