package oauth

import (
	"errors"
	"io"
	"net/http"
	"strings"
)

// checkHops refuses requests that would lose their token on the way, or get
// another one: a field that Connection names is dropped by every proxy (RFC
// 9110, section 7.6.1), and one in the trailer comes when all is decided.
func (p *Places) checkHops(r *http.Request) error {
	for _, field := range r.Header["Connection"] {
		for field != "" {
			var option string
			option, field, _ = strings.Cut(field, ",")
			if p.isField(trimSpace(option)) {
				return errHop
			}
		}
	}
	if r.Trailer == nil {
		return nil
	}
	for name := range r.Trailer {
		// The proxy would quote what is no name in its log, a token among it.
		if _, rest := cutScheme(name); rest != "" || p.isField(name) {
			return errHop
		}
	}
	if r.Body != nil && r.Body != http.NoBody {
		if _, already := r.Body.(*trailerGuard); !already {
			r.Body = &trailerGuard{ReadCloser: r.Body, places: p, trailer: r.Trailer}
		}
	}
	return nil
}

// isField tells whether a receiver may take that header field for one of the
// places.
func (p *Places) isField(name string) bool {
	switch {
	case strings.EqualFold(name, "Authorization"), strings.EqualFold(name, "DPoP"):
		return true // without its proof, a token would be a bearer token to a receiver
	case len(p.cookies) > 0 && strings.EqualFold(name, "Cookie"):
		return true
	case len(p.form) > 0 && strings.EqualFold(name, "Content-Type"):
		return true // without it, the body may be a form to a receiver
	}
	if len(p.headers) == 0 {
		return false
	}
	folded := fold(name)
	for i := range p.headers {
		if p.headers[i].folded == folded {
			return true
		}
	}
	return false
}

// trailerGuard drops what a trailer brings under the name of a place: net/http
// takes fields that were not announced as well, once any was.
type trailerGuard struct {
	io.ReadCloser
	places  *Places
	trailer http.Header // of the request, filled in by net/http at the end of the body
}

func (g *trailerGuard) Read(b []byte) (int, error) {
	n, err := g.ReadCloser.Read(b)
	if errors.Is(err, io.EOF) {
		for name := range g.trailer {
			if g.places.isField(name) {
				delete(g.trailer, name)
			}
		}
	}
	return n, err
}
