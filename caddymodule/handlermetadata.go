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
	// Before token_denylist, which stands right before basic_auth: the documents
	// are public, and whoever asks for them has no token yet.
	httpcaddyfile.RegisterDirectiveOrder("token_revocation_metadata", httpcaddyfile.After, "try_files")
}

// Metadata is an HTTP handler for an authorization server's metadata (RFC 8414)
// with the revocation endpoint in it, and the introspection endpoint if there is
// one: their addresses, how clients authenticate there, and with which
// algorithms, as the configured clients do at the moment.
//
// By default it serves the document itself, and makes nothing up. RFC 8414 also
// requires response_types_supported and, in most cases, the addresses of the
// authorization and the token endpoint, which only the authorization server
// knows: give it the server's own document with merge. Without one, the document
// has the issuer and our endpoints only, which a warning at start says.
//
// With upstream, it changes the documents that the authorization server behind it
// serves (both /.well-known/oauth-authorization-server and
// /.well-known/openid-configuration) on their way out. Our endpoints stand in the
// place of the server's own; signed_metadata is left out, since it would take
// precedence; everything else stays as it is, to the byte. Documents of issuers
// that are not configured, and whatever is not 200 and JSON of at most 1 MiB,
// pass unchanged.
type Metadata struct {
	// The issuer that the document describes. Default: the only issuer
	// configured; with upstream, all that are.
	Issuer string `json:"issuer,omitempty"`

	// Change the documents of the authorization server behind this handler
	// instead of serving one.
	Upstream bool `json:"upstream,omitempty"`

	// The public address of the revocation endpoint, with https. Required,
	// unless upstream is given with an introspection_endpoint: a handler can't
	// know under which addresses another one is reached.
	RevocationEndpoint string `json:"revocation_endpoint,omitempty"`

	// With upstream: the authorization server authenticates the clients of the
	// revocation endpoint, since it is token_revocation with upstream. What the
	// server says of the methods then stays.
	RevocationUpstream bool `json:"revocation_upstream,omitempty"`

	// The public address of the introspection endpoint, with https. Default: none
	// is written.
	IntrospectionEndpoint string `json:"introspection_endpoint,omitempty"`

	// A file with the authorization server's own metadata, a JSON object. Its
	// members are served beside the ones written here; revocation_endpoint and
	// what belongs to it are replaced, likewise for introspection_endpoint if
	// there is one, and signed_metadata is left out. It is read when the config
	// is loaded.
	Merge string `json:"merge,omitempty"`

	metadata *oauth.Metadata
	patch    *oauth.MetadataPatch
}

// CaddyModule returns the Caddy module information.
func (Metadata) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.token_revocation_metadata",
		New: func() caddy.Module { return new(Metadata) },
	}
}

// Provision builds the document, or what changes documents.
func (m *Metadata) Provision(ctx caddy.Context) error {
	app, err := configuredApp(ctx)
	if err != nil {
		return err
	}
	if m.Issuer != "" && !app.knowsIssuer(m.Issuer) {
		return fmt.Errorf("issuer %s is not configured: add an issuer line for it to the global option, spelled exactly so", m.Issuer)
	}
	if m.Upstream {
		return m.provisionPatch(ctx, app)
	}
	iss := m.Issuer
	switch {
	case m.RevocationUpstream:
		return errors.New("revocation_upstream has no use without upstream")
	case iss == "" && len(app.issuers) != 1:
		return fmt.Errorf("there are %d issuers: say with an issuer line which one the metadata is of", len(app.issuers))
	case iss == "":
		iss = app.issuers[0].Name()
	}
	if m.RevocationEndpoint == "" {
		return errors.New("revocation_endpoint is missing: say under which public address the endpoint is reached")
	}
	options := oauth.MetadataOptions{
		Issuer: iss, Endpoint: m.RevocationEndpoint, Introspection: m.IntrospectionEndpoint, Clients: app.registry,
	}
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

func (m *Metadata) provisionPatch(ctx caddy.Context, app *App) (err error) {
	if m.Merge != "" {
		return errors.New("merge has no use with upstream: the document is the authorization server's own")
	}
	m.patch, err = oauth.NewMetadataPatch(oauth.MetadataPatchOptions{
		RevocationEndpoint:    m.RevocationEndpoint,
		RevocationUpstream:    m.RevocationUpstream,
		IntrospectionEndpoint: m.IntrospectionEndpoint,
		Clients:               app.registry,
		Logger:                ctx.Slogger(),
		Issuer: func(name string) (string, bool) {
			i, known := app.trusted.Issuer(name)
			if !known || m.Issuer != "" && i.Name() != m.Issuer {
				return "", false
			}
			return i.Name(), true
		},
	})
	return err
}

// ServeHTTP answers every request itself, or with upstream has the next handler
// answer it.
func (m *Metadata) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if m.patch != nil {
		return m.patch.ServePassing(w, r, next.ServeHTTP)
	}
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
//		issuer                 <issuer>
//		revocation_endpoint    <url>
//		introspection_endpoint <url>
//		merge                  <file>
//	}
//	token_revocation_metadata [<matcher>] upstream {
//		issuer                 <issuer>
//		revocation_endpoint    <url> [upstream]
//		introspection_endpoint <url>
//	}
func (m *Metadata) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the directive's name
	if d.NextArg() {
		if d.Val() != "upstream" {
			return d.Errf("%q is unknown: write upstream to change the documents of the authorization server behind, or nothing", d.Val())
		}
		m.Upstream = true
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	for d.NextBlock(0) {
		if err := m.unmarshalOption(d); err != nil {
			return err
		}
	}
	switch {
	case m.Upstream && m.RevocationEndpoint == "" && m.IntrospectionEndpoint == "":
		return d.Err("there is nothing to change: give a revocation_endpoint or an introspection_endpoint")
	case !m.Upstream && m.RevocationEndpoint == "":
		return d.Err("revocation_endpoint is missing: say under which public address the endpoint is reached")
	}
	return nil
}

func (m *Metadata) unmarshalOption(d *caddyfile.Dispenser) error {
	switch d.Val() {
	case "issuer":
		return stringOption(d, &m.Issuer)
	case "revocation_endpoint":
		return m.unmarshalRevocationEndpoint(d)
	case "introspection_endpoint":
		if err := stringOption(d, &m.IntrospectionEndpoint); err != nil {
			return err
		}
		if err := oauth.ValidateIntrospectionURL(m.IntrospectionEndpoint); err != nil {
			return d.Err(err.Error())
		}
		return nil
	case "merge":
		if m.Upstream {
			return d.Err("merge has no use with upstream: the document is the authorization server's own")
		}
		return stringOption(d, &m.Merge)
	default:
		if m.Upstream {
			return unknownOption(d, "issuer, revocation_endpoint, introspection_endpoint")
		}
		return unknownOption(d, "issuer, revocation_endpoint, introspection_endpoint, merge")
	}
}

func (m *Metadata) unmarshalRevocationEndpoint(d *caddyfile.Dispenser) error {
	if m.RevocationEndpoint != "" {
		return duplicate(d)
	}
	args := d.RemainingArgs()
	switch {
	case len(args) == 0 || len(args) > 2:
		return d.ArgErr()
	case len(args) == 2 && args[1] != "upstream":
		return d.Errf("revocation_endpoint: %q is unknown: write upstream if the authorization server authenticates its clients, or nothing", args[1])
	case len(args) == 2 && !m.Upstream:
		return d.Err("revocation_endpoint: upstream needs token_revocation_metadata upstream: only a document of the server says how its clients authenticate")
	}
	m.RevocationEndpoint, m.RevocationUpstream = args[0], len(args) == 2
	if err := oauth.ValidateEndpointURL(m.RevocationEndpoint); err != nil {
		return d.Err(err.Error())
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Metadata)(nil)
	_ caddyhttp.MiddlewareHandler = (*Metadata)(nil)
	_ caddyfile.Unmarshaler       = (*Metadata)(nil)
)
