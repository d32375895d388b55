package oauth

import (
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"
)

// defaultMethods returns the methods that what the client has was made for, none
// if it has nothing or things of several methods.
func (c *Client) defaultMethods() []AuthMethod {
	var methods []AuthMethod
	kinds := 0
	for _, kind := range []struct {
		has     bool
		methods []AuthMethod
	}{
		{len(c.Secrets) > 0, []AuthMethod{AuthSecretBasic, AuthSecretPost}},
		{c.Keys != nil && c.Keys.Shared(), []AuthMethod{AuthSecretJWT}},
		{c.Keys != nil && !c.Keys.Shared() && len(c.Certificates) == 0, []AuthMethod{AuthPrivateKeyJWT}},
		{c.Certificate != CertificateName{}, []AuthMethod{AuthTLS}},
		{len(c.Certificates) > 0, []AuthMethod{AuthSelfSignedTLS}},
	} {
		if kind.has {
			kinds++
			methods = kind.methods
		}
	}
	if kinds != 1 {
		return nil
	}
	return methods
}

// validate checks a client whose defaults are filled in.
func (c *Client) validate() error {
	switch {
	case c.ID == "":
		return errors.New("the id is missing")
	case len(c.ID) > maxClientID || !utf8.ValidString(c.ID) || hasControl(c.ID):
		return fmt.Errorf("the id is not UTF-8 of at most %d bytes without control characters", maxClientID)
	case c.Issuer == "":
		return errors.New("the issuer is missing")
	case len(c.Methods) == 0 && len(c.Secrets) == 0 && c.Keys == nil &&
		c.Certificate == CertificateName{} && len(c.Certificates) == 0:
		return errors.New("it has no secret; a client without one, and without keys or a certificate, has to be public")
	case len(c.Methods) == 0:
		return errors.New("secrets, keys and certificates belong to different authentication methods: keep those of one")
	case len(c.Secrets) > MaxSecrets:
		return fmt.Errorf("it has more than %d secrets", MaxSecrets)
	}
	if err := c.validateMethods(); err != nil {
		return err
	}
	if c.RevokeAny && c.Public() {
		return errors.New("a public client can't be allowed to revoke the tokens of others: anybody can use its id")
	}
	if err := c.validateIntrospection(); err != nil {
		return err
	}
	return c.validateMaterial()
}

// validateMethods sees to it that no client has a second, perhaps weaker way in
// (RFC 6749, sections 2.3 and 3.2.1).
func (c *Client) validateMethods() error {
	for i, m := range c.Methods {
		switch m {
		case AuthSecretBasic, AuthSecretPost, AuthSecretJWT, AuthPrivateKeyJWT, AuthTLS, AuthSelfSignedTLS, AuthNone:
		default:
			return fmt.Errorf("unknown authentication method %q", string(m))
		}
		if slices.Contains(c.Methods[:i], m) {
			return fmt.Errorf("the authentication method %q is listed twice", string(m))
		}
	}
	if len(c.Methods) == 1 {
		return nil
	}
	if c.Public() {
		return errors.New("a public client has no other authentication method")
	}
	for _, m := range c.Methods {
		if m != AuthSecretBasic && m != AuthSecretPost {
			return fmt.Errorf("%s has no other authentication method beside it", m)
		}
	}
	return nil
}

// validateMaterial checks that the client has what its method needs, and nothing
// else: what is configured and never used is a misunderstanding.
func (c *Client) validateMaterial() error {
	method := c.Methods[0]
	secret := method == AuthSecretBasic || method == AuthSecretPost
	asserts := method == AuthSecretJWT || method == AuthPrivateKeyJWT
	switch {
	case c.Public() && len(c.Secrets) > 0:
		return errors.New("a public client has no secret")
	case secret && len(c.Secrets) == 0:
		return errors.New("the secret is missing")
	case !secret && len(c.Secrets) > 0:
		return fmt.Errorf("%s takes no hashed secret", method)
	case asserts && c.Keys == nil:
		return fmt.Errorf("the keys for %s are missing", method)
	case c.Keys != nil && !asserts && method != AuthSelfSignedTLS:
		return fmt.Errorf("%s has no keys", method)
	case c.Keys != nil && c.Keys.Shared() != (method == AuthSecretJWT):
		// A public key must never become the secret of a MAC (RFC 8725, section
		// 2.1), nor a secret pass for a key pair.
		return fmt.Errorf("%s takes another kind of key", method)
	case method == AuthTLS && c.Certificate == CertificateName{}:
		return errors.New("the name in the certificate is missing: without one, every certificate of the authority would do")
	case method != AuthTLS && c.Certificate != CertificateName{}:
		return fmt.Errorf("%s takes no name of a certificate", method)
	case method == AuthSelfSignedTLS && c.Keys == nil && len(c.Certificates) == 0:
		return errors.New("the certificates, or their keys, are missing")
	case method != AuthSelfSignedTLS && len(c.Certificates) > 0:
		return fmt.Errorf("%s takes no digest of a certificate", method)
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
