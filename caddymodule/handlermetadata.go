package caddymodule

import (
	"errors"
	"fmt"
	"net/http"
	"os"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
)

func init() {
	caddy.RegisterModule(Metadata{})
	httpcaddyfile.RegisterHandlerDirective("token_revocation_metadata", parseMetadata)
	httpcaddyfile.RegisterDirectiveOrder("token_revocation_metadata", httpcaddyfile.Before, "basic_auth")
}

// Metadata is an HTTP handler that serves an authorization server's metadata (RFC
// 8414) with the revocation endpoint in it: its address, how clients authenticate
// there, and with which algorithms, as the configured clients do at the moment.
//
// It makes nothing up. RFC 8414 also requires response_types_supported and, in
// most cases, the addresses of the authorization and the token endpoint, which
// only the authorization server knows: give it the server's own document with
// merge. Without one, the document has the issuer and the revocation endpoint
// only, which a warning at start says.
type Metadata struct {
	// The issuer that the document describes. Default: the only issuer
	// configured.
	Issuer string `json:"issuer,omitempty"`

	// The public address of the revocation endpoint, with https. Required: a
	// handler can't know under which addresses another one is reached.
	RevocationEndpoint string `json:"revocation_endpoint,omitempty"`

	// A file with the authorization server's own metadata, a JSON object. Its
	// members are served beside the ones written here; revocation_endpoint and
	// what belongs to it are replaced, signed_metadata is left out. It is read
	// when the config is loaded.
	Merge string `json:"merge,omitempty"`

	metadata *oauth.Metadata
}

// CaddyModule returns the Caddy module information.
func (Metadata) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.token_revocation_metadata",
		New: func() caddy.Module { return new(Metadata) },
	}
}

// Provision builds the document.
func (m *Metadata) Provision(ctx caddy.Context) error {
	app, err := configuredApp(ctx)
	if err != nil {
		return err
	}
	iss := m.Issuer
	switch {
	case iss == "" && len(app.issuers) != 1:
		return fmt.Errorf("there are %d issuers: say with an issuer line which one the metadata is of", len(app.issuers))
	case iss == "":
		iss = app.issuers[0].Name()
	case !app.knowsIssuer(iss):
		return fmt.Errorf("issuer %s is not configured: add an issuer line for it to the global option, spelled exactly so", iss)
	}
	if m.RevocationEndpoint == "" {
		return errors.New("revocation_endpoint is missing: say under which public address the endpoint is reached")
	}
	options := oauth.MetadataOptions{Issuer: iss, Endpoint: m.RevocationEndpoint, Clients: app.registry}
	if m.Merge != "" {
		if options.Base, err = os.ReadFile(m.Merge); err != nil {
			return fmt.Errorf("merge: %w", err)
		}
	}
	if m.metadata, err = oauth.NewMetadata(options); err != nil {
		return err
	}
	if missing := m.metadata.Missing(); len(missing) > 0 {
		ctx.Logger().Warn("the metadata lacks what RFC 8414 requires of an authorization server: "+
			"strict clients may refuse it; add the server's own document with merge",
			zap.String("issuer", iss), zap.Strings("missing", missing))
	}
	return nil
}

// ServeHTTP answers every request itself.
func (m *Metadata) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	m.metadata.ServeHTTP(w, r)
	return nil
}

func parseMetadata(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	m := new(Metadata)
	return m, m.UnmarshalCaddyfile(h.Dispenser)
}

// UnmarshalCaddyfile parses the handler. Syntax:
//
//	token_revocation_metadata [<matcher>] {
//		issuer              <issuer>
//		revocation_endpoint <url>
//		merge               <file>
//	}
func (m *Metadata) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the directive's name
	if d.NextArg() {
		return d.ArgErr()
	}
	for d.NextBlock(0) {
		var err error
		switch d.Val() {
		case "issuer":
			err = stringOption(d, &m.Issuer)
		case "revocation_endpoint":
			err = stringOption(d, &m.RevocationEndpoint)
			if invalid := oauth.ValidateEndpointURL(m.RevocationEndpoint); err == nil && invalid != nil {
				err = d.Err(invalid.Error())
			}
		case "merge":
			err = stringOption(d, &m.Merge)
		default:
			err = unknownOption(d, "issuer, revocation_endpoint, merge")
		}
		if err != nil {
			return err
		}
	}
	if m.RevocationEndpoint == "" {
		return d.Err("revocation_endpoint is missing: say under which public address the endpoint is reached")
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Metadata)(nil)
	_ caddyhttp.MiddlewareHandler = (*Metadata)(nil)
	_ caddyfile.Unmarshaler       = (*Metadata)(nil)
)
