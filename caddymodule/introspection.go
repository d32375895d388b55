package caddymodule

import (
	"fmt"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
)

func (a *App) newIssuer(config issuer.Config) (*issuer.Issuer, error) {
	return issuer.New(config, issuer.Options{
		Store:  keyStore{a.ctx.Storage},
		Logger: processLogger("issuer"),
	})
}

// provisionIntrospection takes what asks the issuer, whose digest this is, about
// its tokens. It outlives the config as long as neither the issuer nor the block
// changes. Another block, with a new secret perhaps, leaves the issuer alone, and
// with it its keys.
func (a *App) provisionIntrospection(repl *caddy.Replacer, i *issuer.Issuer, digest string, block *issuer.IntrospectionConfig) error {
	if block == nil {
		return nil
	}
	config, err := resolveIntrospection(repl, *block)
	if err != nil {
		return fmt.Errorf("introspection: %w", err)
	}
	digest = digestOf([]any{digest, config})
	n, err := takeIntrospector(digest, func() (*issuer.Introspector, error) {
		return issuer.NewIntrospector(i, config, nil)
	})
	if err != nil {
		return err
	}
	a.introspectors = append(a.introspectors, n)
	a.introspectorDigests = append(a.introspectorDigests, digest)
	return nil
}

// resolveIntrospection returns c with its placeholders resolved.
func resolveIntrospection(repl *caddy.Replacer, c issuer.IntrospectionConfig) (issuer.IntrospectionConfig, error) {
	if err := checkIntrospectionSecrets(c); err != nil {
		return c, err
	}
	err := replaceAll(repl, &c.Endpoint, &c.ClientID, &c.ClientSecret, &c.PrivateKey, &c.BearerToken)
	return c, err
}

// checkIntrospectionSecrets refuses secrets in clear: a config is backed up, shown
// and logged. Where they may come from is limited, because a JWK in clear looks
// like a placeholder, and would be quoted in the error that it is an unknown one.
func checkIntrospectionSecrets(c issuer.IntrospectionConfig) error {
	for _, s := range []struct{ option, value string }{
		{"client_secret", c.ClientSecret}, {"private_key", c.PrivateKey}, {"bearer_token", c.BearerToken},
	} {
		if s.value != "" && !isSecretPlaceholder(s.value) {
			return fmt.Errorf("%s is taken from a placeholder only, {env.NAME} or {file.<path>}: "+
				"a config with secrets in clear is backed up, shown and logged", s.option)
		}
	}
	return nil
}

func isSecretPlaceholder(text string) bool {
	inner, ok := strings.CutPrefix(text, "{")
	if !ok {
		return false
	}
	inner, ok = strings.CutSuffix(inner, "}")
	return ok && !strings.ContainsAny(inner, "{}\"\n") &&
		(strings.HasPrefix(inner, "env.") || strings.HasPrefix(inner, "file."))
}

// introspector returns what asks the issuer of that name, main spelling or alias,
// about its tokens; nil if it is not asked.
func (a *App) introspector(name string) *issuer.Introspector {
	i, found := a.trusted.Issuer(name)
	if !found {
		return nil
	}
	for _, n := range a.introspectors {
		if n.Issuer() == i {
			return n
		}
	}
	return nil
}

// onlyTokenCriteria tells whether nothing here can ever tell more of the tokens of
// the issuer of that name, main spelling or alias, than their hash: they are all
// opaque, and it is not asked about them.
func (a *App) onlyTokenCriteria(name string) bool {
	i, found := a.trusted.Issuer(name)
	return found && i.Config().Opaque && a.introspector(name) == nil
}
