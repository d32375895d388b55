package oauth

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

const (
	corsMaxAge  = "600" // seconds
	corsHeaders = "Authorization, Content-Type, DPoP"
	corsExpose  = "WWW-Authenticate, Retry-After"
)

// cors lets scripts of some origins use the endpoint (RFC 7009, section 2.3).
// Origins are compared as a whole: no wildcard and no pattern, of which someone's
// domain would be an unexpected match. Credentials of the browser (cookies) are
// never asked for; clients send their own.
type cors struct{ origins []string }

// ValidateOrigin reports why a text is not an origin as browsers send it (RFC
// 6454, section 6.2): scheme, host and, if it is not the scheme's own, port.
func ValidateOrigin(origin string) error {
	u, err := url.Parse(origin)
	switch {
	case origin == "*" || origin == "null":
		return fmt.Errorf("origin %q: name each origin; a wildcard would let any site in", origin)
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return fmt.Errorf("origin %q is not of the form https://app.example.com", origin)
	}
	exact := u.Scheme + "://" + strings.ToLower(u.Host)
	switch {
	case u.Scheme == "https":
		exact = strings.TrimSuffix(exact, ":443")
	case u.Scheme == "http":
		exact = strings.TrimSuffix(exact, ":80")
	}
	if strings.Contains(exact, "*") {
		return fmt.Errorf("origin %q: name each origin; a wildcard would let any site in", origin)
	}
	if origin != exact {
		return fmt.Errorf("origin %q is compared as browsers send it: write %s", origin, exact)
	}
	for i := range len(exact) {
		if exact[i] <= ' ' || exact[i] >= 0x7f {
			return fmt.Errorf("origin %q: write an international name in its ASCII form (xn--)", origin)
		}
	}
	return nil
}

func (c cors) on() bool { return len(c.origins) > 0 }

// allow lists the methods for an Allow field.
func (c cors) allow() string {
	if c.on() {
		return http.MethodPost + ", " + http.MethodOptions
	}
	return http.MethodPost
}

// set adds the fields of the answer, whatever its status will be: a script that
// cannot read an error cannot act on it.
func (c cors) set(h, request http.Header) {
	if !c.on() {
		return
	}
	// Also without a match: a cache must not keep that answer for others.
	h.Add("Vary", "Origin")
	if origin := c.match(request); origin != "" {
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Expose-Headers", corsExpose)
	}
}

func (c cors) match(request http.Header) string {
	if o := request["Origin"]; len(o) == 1 && slices.Contains(c.origins, o[0]) {
		return o[0]
	}
	return ""
}

// preflight answers an OPTIONS request. A preflight carries no credentials, and
// asks nothing that only a client may know.
func (c cors) preflight(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Allow", c.allow())
	if c.match(r.Header) != "" && r.Header.Get("Access-Control-Request-Method") != "" {
		h.Add("Vary", "Access-Control-Request-Method, Access-Control-Request-Headers")
		h.Set("Access-Control-Allow-Methods", http.MethodPost)
		h.Set("Access-Control-Allow-Headers", corsHeaders)
		h.Set("Access-Control-Max-Age", corsMaxAge)
	}
	w.WriteHeader(http.StatusNoContent)
}
