package issuer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// metadataURLs returns where an issuer's metadata can be, in the order to try.
// For an issuer with a path the standards differ: OpenID Connect Discovery
// appends the well-known path, RFC 8414 puts it between host and path.
func metadataURLs(base *url.URL) []*url.URL {
	if strings.Contains(base.Path, "/.well-known/") {
		return []*url.URL{base}
	}
	at := func(before, after string) *url.URL {
		u := *base
		u.Path = before + strings.TrimSuffix(base.Path, "/") + after
		u.RawPath = before + strings.TrimSuffix(base.EscapedPath(), "/") + after
		return &u
	}
	return []*url.URL{
		at("", "/.well-known/openid-configuration"),
		at("/.well-known/oauth-authorization-server", ""),
	}
}

// discover fetches the issuer's metadata and returns the address of its keys.
func (c Config) discover(ctx context.Context, client *http.Client) (*url.URL, error) {
	address := c.Issuer
	if c.Discovery != "" {
		address = c.Discovery
	}
	base, err := parseKeyURL(address, c.Discovery != "" || c.AllowHTTP)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, u := range metadataURLs(base) {
		body, _, err := get(ctx, client, u, false)
		if err == nil {
			var address *url.URL
			if address, err = c.keysAddress(body, u); err == nil {
				return address, nil
			}
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("discovering the keys: %w", errors.Join(errs...))
}

// keysAddress reads the metadata document that was found at u.
func (c Config) keysAddress(body []byte, u *url.URL) (*url.URL, error) {
	// A map, since decoding into a struct would ignore the case of names.
	var document map[string]json.RawMessage
	var issuer, keys string
	if err := json.Unmarshal(body, &document); err != nil {
		return nil, fmt.Errorf("reading the metadata at %s: it is not a JSON object", u)
	}
	_ = json.Unmarshal(document["issuer"], &issuer)
	_ = json.Unmarshal(document["jwks_uri"], &keys)
	if issuer != c.Issuer {
		// RFC 8414, section 3.3: such metadata must not be used.
		return nil, fmt.Errorf("reading the metadata at %s: its issuer is %q, not the configured %q; "+
			"write the issuer exactly so, or correct the discovery address", u, issuer, c.Issuer)
	}
	if keys == "" {
		return nil, fmt.Errorf("reading the metadata at %s: it has no jwks_uri; set jwks_uri or jwks_file", u)
	}
	address, err := parseKeyURL(keys, true)
	if err != nil {
		return nil, fmt.Errorf("reading the metadata at %s: jwks_uri: %w", u, err)
	}
	// Metadata that came over TLS, or from the issuer's own host, must not send
	// us elsewhere without it.
	sameHost := u.Scheme == "http" && strings.EqualFold(address.Host, u.Host)
	thisHost := isLoopback(u.Hostname()) && isLoopback(address.Hostname())
	if address.Scheme == "http" && !c.AllowHTTP && !sameHost && !thisHost {
		return nil, fmt.Errorf("reading the metadata at %s: jwks_uri %q is not https; set allow_http if that is meant", u, keys)
	}
	return address, nil
}
