package caddymodule

import (
	"context"
	"fmt"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
)

// TokenPlace is where a token can be in a request, and what is done with it.
type TokenPlace struct {
	// What part of the request: header, cookie, query or form.
	In string `json:"in"`

	// The name of the header field, the cookie or the parameter. Default for
	// query and form: access_token.
	Name string `json:"name,omitempty"`

	// What is done with a token there: inspect, the default, which makes it the
	// request's token; strip, which removes it unread; or reject, which refuses
	// the request with 400. A request with two tokens that are inspected is
	// refused, whatever they are.
	//
	// What a receiver might take for the place and another one would not, such as
	// Access_Token in the query or a form of several parts, is refused. Forms are
	// read up to 64 KiB.
	Action string `json:"action,omitempty"`
}

var (
	placeKinds = map[string]oauth.PlaceKind{
		"header": oauth.PlaceHeader, "cookie": oauth.PlaceCookie, "query": oauth.PlaceQuery, "form": oauth.PlaceForm,
	}
	placeActions = map[string]oauth.PlaceAction{
		"": oauth.PlaceInspect, "inspect": oauth.PlaceInspect, "strip": oauth.PlaceStrip, "reject": oauth.PlaceReject,
	}
)

func newPlaces(configured []TokenPlace) (*oauth.Places, error) {
	var list []oauth.Place
	for _, c := range configured {
		p, err := c.place()
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	p, err := oauth.NewPlaces(list)
	if err != nil {
		return nil, fmt.Errorf("places: %w", err)
	}
	return p, nil
}

func (c TokenPlace) place() (oauth.Place, error) {
	kind, ok := placeKinds[c.In]
	if !ok {
		return oauth.Place{}, fmt.Errorf("a token can't be in %q: use header, cookie, query or form", c.In)
	}
	action, ok := placeActions[c.Action]
	if !ok {
		return oauth.Place{}, fmt.Errorf("%s %s: action %q is unknown: use inspect, strip or reject", c.In, c.Name, c.Action)
	}
	if c.Name == "" && (kind == oauth.PlaceQuery || kind == oauth.PlaceForm) {
		c.Name = oauth.DefaultParameter
	}
	return oauth.Place{Kind: kind, Name: c.Name, Action: action}, nil
}

// strip removes what is not to be forwarded, from the request as it is and as it
// came: FastCGI, for one, has REQUEST_URI from there.
func (d *Denylist) strip(r *http.Request) {
	before := r.URL.RawQuery
	d.places.Strip(r)
	if r.URL.RawQuery == before {
		return
	}
	r.RequestURI = r.URL.RequestURI()
	original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request)
	if !ok || original.URL == nil || original.URL == r.URL {
		return
	}
	d.places.Strip(&http.Request{URL: original.URL, Header: http.Header{}})
	// This one is a value, and the placeholder reads it from a request that need
	// not be r.
	original.RequestURI = original.URL.RequestURI()
	*r = *r.WithContext(context.WithValue(r.Context(), caddyhttp.OriginalRequestCtxKey, original))
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Set("http.request.orig_uri", original.RequestURI)
	}
}
