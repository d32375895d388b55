package caddymodule

import (
	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
)

// newIssuer makes an issuer and, if it is asked about its tokens, what asks it.
func (a *App) newIssuer(config issuer.Config) (*pooledIssuer, error) {
	i, err := issuer.New(config, issuer.Options{
		Store:  keyStore{a.ctx.Storage},
		Logger: processLogger("issuer"),
	})
	if err != nil || config.Introspection == nil {
		return &pooledIssuer{Issuer: i}, err
	}
	n, err := issuer.NewIntrospector(i, *config.Introspection, nil)
	return &pooledIssuer{Issuer: i, introspector: n}, err
}

// introspector returns what asks the issuer of that name, main spelling or alias,
// about its tokens; nil if it is not asked.
func (a *App) introspector(name string) *issuer.Introspector {
	i := a.issuer(name)
	for _, n := range a.introspectors {
		if n.Issuer() == i {
			return n
		}
	}
	return nil
}
