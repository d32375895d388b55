package issuer

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"
)

// sourceKind says where an issuer's keys come from.
type sourceKind uint8

const (
	fromDiscovery sourceKind = iota
	fromURI
	fromFile
	fromSecret
	fromDevelopment
	fromNowhere
)

func (c Config) source() sourceKind {
	switch {
	case c.Development:
		return fromDevelopment
	case c.Opaque:
		return fromNowhere
	case c.HMACSecret != "":
		return fromSecret
	case c.JWKSFile != "":
		return fromFile
	case c.JWKSURI != "":
		return fromURI
	default:
		return fromDiscovery
	}
}

func (c Config) validateSources() error {
	var given []string
	for _, s := range []struct{ name, value string }{
		{"discovery", c.Discovery}, {"jwks_uri", c.JWKSURI}, {"jwks_file", c.JWKSFile}, {"hmac_secret", c.HMACSecret},
	} {
		if s.value != "" {
			given = append(given, s.name)
		}
	}
	if c.Development {
		given = append(given, "development")
	}
	if c.Opaque && len(given) > 0 {
		return fmt.Errorf("opaque is for an issuer without keys: remove it, or remove %s", strings.Join(given, " and "))
	}
	if len(given) > 1 {
		return fmt.Errorf("%s exclude each other: keep the one where the keys are", strings.Join(given, " and "))
	}
	switch c.source() {
	case fromDiscovery:
		if c.Discovery != "" {
			// Written by the operator, as an internal address: http is a choice.
			_, err := parseKeyURL(c.Discovery, true)
			return wrap("discovery", err)
		}
		_, err := parseKeyURL(c.Issuer, c.AllowHTTP)
		if err != nil {
			return fmt.Errorf("keys cannot be discovered at the issuer: %w; or set jwks_uri or jwks_file", err)
		}
	case fromURI:
		_, err := parseKeyURL(c.JWKSURI, c.AllowHTTP)
		return wrap("jwks_uri", err)
	case fromFile:
		if !filepath.IsAbs(c.JWKSFile) {
			return fmt.Errorf("jwks_file: %q is not an absolute path", c.JWKSFile)
		}
	}
	return nil
}

func wrap(field string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", field, err)
	}
	return nil
}

// parseKeyURL checks an address from which keys, or the address of keys, are
// fetched. Whoever can answer in its place decides what is a valid token, so it
// has to be https, but on this host or where the operator allowed otherwise.
func parseKeyURL(text string, allowHTTP bool) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errors.New("not a URL")
	case u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
		return nil, fmt.Errorf("%q is not an absolute https URL", text)
	case u.User != nil:
		return nil, errors.New("the URL must not hold a user name or password")
	case u.Fragment != "":
		return nil, fmt.Errorf("%q has a fragment", text)
	case u.Scheme == "http" && !allowHTTP && !isLoopback(u.Hostname()):
		return nil, fmt.Errorf("%q is not https: anyone on the way could replace the keys; use https, or set allow_http in a closed network", text)
	}
	return u, nil
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
