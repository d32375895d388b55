package issuer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// parseEndpointURL checks the address of an introspection endpoint.
func parseEndpointURL(text string, allowHTTP bool) (*url.URL, error) {
	u, err := parseKeyURL(text, true)
	if err != nil {
		return nil, err
	}
	if u.Scheme == "http" && !allowHTTP && !isLoopback(u.Hostname()) {
		return nil, fmt.Errorf("%q is not https: anyone on the way could take the tokens and forge the answers; "+
			"use https, or set allow_http in a closed network", text)
	}
	return u, nil
}

// rediscoverAfterFailure is the pause after metadata could not be read again.
const rediscoverAfterFailure = time.Minute

// endpointSource knows the address of the introspection endpoint: the
// configured one, or the one in the issuer's metadata. That is read when it is
// first needed, and again from time to time, by one question while the others go
// on with what is known.
type endpointSource struct {
	issuer Config
	allow  bool // AllowHTTP
	client *http.Client
	now    func() time.Time
	turn   chan struct{} // holds one token: discovery is done by one at a time

	mu    sync.Mutex
	found *url.URL
	due   time.Time // when to look again; zero for a configured one
}

func newEndpointSource(c IntrospectionConfig, of *Issuer, client *http.Client) (*endpointSource, error) {
	e := &endpointSource{issuer: of.config, allow: c.AllowHTTP, client: client, now: of.now, turn: make(chan struct{}, 1)}
	e.turn <- struct{}{}
	if c.Endpoint == "" {
		return e, nil
	}
	var err error
	e.found, err = parseEndpointURL(c.Endpoint, c.AllowHTTP)
	return e, err
}

// known returns the address that is known, nil if there is none, and whether it
// is to be looked up (again).
func (e *endpointSource) known() (u *url.URL, stale bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.found, e.found == nil || !e.due.IsZero() && !e.now().Before(e.due)
}

// get returns the address, and finds it out first if need be.
func (e *endpointSource) get(ctx context.Context) (*url.URL, error) {
	u, stale := e.known()
	if !stale {
		return u, nil
	}
	if u != nil {
		select {
		case <-e.turn:
		default:
			return u, nil // somebody else is looking
		}
	} else {
		select {
		case <-e.turn:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	defer func() { e.turn <- struct{}{} }()
	if u, stale = e.known(); !stale {
		return u, nil // whoever had the turn before has found it
	}
	fresh, err := e.discover(ctx)
	e.mu.Lock()
	defer e.mu.Unlock()
	if err != nil {
		if e.found == nil {
			return nil, err
		}
		e.due = e.now().Add(rediscoverAfterFailure)
		return e.found, nil
	}
	e.found, e.due = fresh, e.now().Add(time.Duration(e.issuer.RefreshInterval))
	return fresh, nil
}

// discover reads the issuer's metadata (RFC 8414, OpenID Connect Discovery).
func (e *endpointSource) discover(ctx context.Context) (*url.URL, error) {
	c := e.issuer
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
		body, _, err := get(ctx, e.client, u, false)
		if err == nil {
			var found *url.URL
			if found, err = e.read(body, u); err == nil {
				return found, nil
			}
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("discovering the introspection endpoint: %w", errors.Join(errs...))
}

// read reads the metadata document that was found at u.
func (e *endpointSource) read(body []byte, u *url.URL) (*url.URL, error) {
	var s scanner
	if err := s.scan(body); err != nil {
		return nil, fmt.Errorf("reading the metadata at %s: it is not a JSON object without duplicate names", u)
	}
	issuer, _ := textMember(&s, "issuer")
	endpoint, _ := textMember(&s, "introspection_endpoint")
	if issuer != e.issuer.Issuer {
		// RFC 8414, section 3.3: such metadata must not be used. Our credentials
		// would go to whoever wrote it.
		return nil, fmt.Errorf("reading the metadata at %s: its issuer is %q, not the configured %q", u, issuer, e.issuer.Issuer)
	}
	if endpoint == "" {
		return nil, fmt.Errorf("reading the metadata at %s: it has no introspection_endpoint; set endpoint", u)
	}
	found, err := parseEndpointURL(endpoint, true)
	if err != nil {
		return nil, fmt.Errorf("reading the metadata at %s: introspection_endpoint: %w", u, err)
	}
	// As for keys: metadata that came over TLS, or from the issuer's own host,
	// must not send us elsewhere without it.
	sameHost := u.Scheme == "http" && strings.EqualFold(found.Host, u.Host)
	thisHost := isLoopback(u.Hostname()) && isLoopback(found.Hostname())
	if found.Scheme == "http" && !e.allow && !sameHost && !thisHost {
		return nil, fmt.Errorf("reading the metadata at %s: introspection_endpoint %q is not https; set allow_http if that is meant", u, endpoint)
	}
	return found, nil
}
