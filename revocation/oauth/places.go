package oauth

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// PlaceKind is a part of a request in which an access token can be.
type PlaceKind uint8

const (
	PlaceHeader PlaceKind = iota // a header field
	PlaceCookie                  // a cookie
	PlaceQuery                   // a parameter of the query (RFC 6750, section 2.3)
	PlaceForm                    // a parameter of a form body (RFC 6750, section 2.2)
)

// String returns "header", "cookie", "query" or "form".
func (k PlaceKind) String() string {
	switch k {
	case PlaceHeader:
		return "header"
	case PlaceCookie:
		return "cookie"
	case PlaceQuery:
		return "query"
	case PlaceForm:
		return "form"
	default:
		return fmt.Sprintf("PlaceKind(%d)", uint8(k))
	}
}

// PlaceAction is what happens to a token in a place.
type PlaceAction uint8

const (
	PlaceInspect PlaceAction = iota // it is the request's token
	PlaceStrip                      // it is removed, as if it had not been sent
	PlaceReject                     // the request is refused
)

// DefaultParameter is the name that RFC 6750 gives to a token in a query or a
// form.
const DefaultParameter = "access_token"

// Place is where an access token can be, and what is done with one there.
type Place struct {
	Kind PlaceKind
	// Name is that of the header field (in any case), the cookie or the
	// parameter (exactly so).
	Name   string
	Action PlaceAction
}

// PlaceError says why a request is refused before its token is judged: there is
// more than one, one where none may be, or something that two readers could
// understand differently.
type PlaceError struct {
	// Status is 400, 413 or 415.
	Status int
	// Description is for the challenge: it quotes nothing of the request.
	Description string

	err error
}

func (e *PlaceError) Error() string { return e.err.Error() }

// Unwrap returns [ErrSeveralTokens], [ErrBadAuthorization], [ErrBadPlace],
// [ErrRejectedPlace] or what went wrong when the body was read.
func (e *PlaceError) Unwrap() error { return e.err }

// Errors of [Places.Read], besides those of [BearerToken].
var (
	// ErrBadPlace says that what is in a place can't be read as exactly one
	// token.
	ErrBadPlace = errors.New("the request has something in a token's place that is not exactly one token")
	// ErrRejectedPlace says that there is a token where none may be.
	ErrRejectedPlace = errors.New("the request has a token in a place where none is accepted")
)

var (
	errSeveralTokens = &PlaceError{http.StatusBadRequest, "the request has more than one access token", ErrSeveralTokens}
	errSeveralFields = &PlaceError{http.StatusBadRequest, "the Authorization header must hold exactly one token", ErrSeveralTokens}
	errAuthorization = &PlaceError{http.StatusBadRequest, "the Authorization header must hold exactly one token", ErrBadAuthorization}
	errQueryToken    = &PlaceError{
		http.StatusBadRequest, "the access token must not be in the URL; send it in the Authorization header", ErrRejectedPlace,
	}
	errRejected = &PlaceError{http.StatusBadRequest, "the access token must not be sent in this place", ErrRejectedPlace}
	errBadPlace = &PlaceError{http.StatusBadRequest, "the place for the access token must hold exactly one token", ErrBadPlace}
	errHop      = &PlaceError{http.StatusBadRequest, "the Connection and Trailer headers must not name the access token's field", ErrBadPlace}
	errProofs   = &PlaceError{http.StatusBadRequest, "the request must have exactly one DPoP proof", ErrBadPlace}
)

// Places finds the one token of a request. It reads more than a strict parser
// would, and takes less: wherever some receiver might see a token that another
// one does not, the request is refused. What is not in a place is not looked at.
//
// The zero value is not usable; see [NewPlaces]. All methods are safe for
// concurrent use.
type Places struct {
	authorization PlaceAction
	headers       []place // further ones
	cookies       []place
	query         []place
	form          []place
}

// place is a Place that is ready for use.
type place struct {
	name   string // of a header: canonical
	folded string // see fold and foldParameter
	action PlaceAction
}

// NewPlaces returns what reads tokens from these places. If they are not listed,
// the Authorization field is inspected, and access_token in the query is
// rejected, as is every parameter there that is listed as one of a form.
func NewPlaces(list []Place) (*Places, error) {
	p := new(Places)
	known := make(map[Place]bool)
	for _, l := range list {
		if err := l.validate(); err != nil {
			return nil, err
		}
		c := place{name: l.Name, folded: foldParameter(l.Name), action: l.Action}
		if l.Kind == PlaceHeader {
			c.folded = fold(l.Name)
		}
		id := Place{Kind: l.Kind, Name: c.folded}
		if known[id] {
			return nil, fmt.Errorf("%s %s is listed twice, or another one that receivers may take for it", l.Kind, l.Name)
		}
		known[id] = true
		switch l.Kind {
		case PlaceHeader:
			if c.name = http.CanonicalHeaderKey(l.Name); c.name == "Authorization" {
				p.authorization = l.Action
				continue
			}
			p.headers = append(p.headers, c)
		case PlaceCookie:
			p.cookies = append(p.cookies, c)
		case PlaceQuery:
			p.query = append(p.query, c)
		case PlaceForm:
			p.form = append(p.form, c)
		}
	}
	// Most receivers have one function that reads a parameter from the form or
	// else from the query.
	for _, c := range append([]place{{name: DefaultParameter, folded: DefaultParameter}}, p.form...) {
		if id := (Place{Kind: PlaceQuery, Name: c.folded}); !known[id] {
			known[id] = true
			p.query = append(p.query, place{c.name, c.folded, PlaceReject})
		}
	}
	return p, nil
}

// reserved are fields that are no place for a token: their values are read by
// whatever is between client and upstream.
var reserved = []string{
	"Connection", "Cookie", "Host", "Content-Type", "Content-Length", "Content-Encoding", "Transfer-Encoding",
	"Trailer", "Te", "Upgrade", "Expect", "Dpop", "Proxy-Authorization", "Sec-Websocket-Protocol", "Sec-Websocket-Key",
}

func (l Place) validate() error {
	if l.Kind > PlaceForm || l.Action > PlaceReject {
		return fmt.Errorf("unknown kind or action of a place: %d, %d", l.Kind, l.Action)
	}
	if scheme, rest := cutScheme(l.Name); scheme == "" || rest != "" {
		// The same grammar for all: that of a cookie's and a field's name.
		// Anything else would have to be encoded, in which receivers differ.
		return fmt.Errorf("%s: %q is no name", l.Kind, l.Name)
	}
	if strings.Contains(l.Name, "%") {
		return fmt.Errorf("%s: %q has a percent sign, which receivers would decode", l.Kind, l.Name)
	}
	if l.Kind == PlaceHeader && slices.Contains(reserved, http.CanonicalHeaderKey(l.Name)) {
		return fmt.Errorf("header %s can't be a place for a token", l.Name)
	}
	return nil
}

// ReadsBody tells whether bodies are read.
func (p *Places) ReadsBody() bool { return len(p.form) > 0 }

// Strips tells whether [Places.Strip] may have something to do.
func (p *Places) Strips() bool {
	return p.authorization == PlaceStrip || hasStrip(p.headers) || hasStrip(p.cookies) || hasStrip(p.query) || hasStrip(p.form)
}

// Read returns the one token of the request. What is in places to be stripped
// does not count. The error is [ErrNoToken], or a [*PlaceError]: such a request
// must not be forwarded.
//
// The request is not changed, except that a form body of up to [MaxFormBody]
// bytes is read and put back, and that what the trailer may bring under the name
// of a place is dropped when it comes.
//
// Read does not allocate if the token is in the Authorization field and no other
// place is configured.
func (p *Places) Read(r *http.Request) (Presented, error) {
	found, err := p.readAuthorization(r.Header)
	if err != nil {
		return Presented{}, err
	}
	if r.URL.RawQuery != "" {
		if err := readPairs(p.query, PlaceQuery, r.URL.RawQuery, &found); err != nil {
			return Presented{}, err
		}
	}
	if len(p.headers) > 0 {
		if err := p.readHeaders(r.Header, &found); err != nil {
			return Presented{}, err
		}
	}
	if len(p.cookies) > 0 {
		if err := p.readCookies(r.Header["Cookie"], &found); err != nil {
			return Presented{}, err
		}
	}
	if len(p.form) > 0 {
		if err := p.readForm(r, &found); err != nil {
			return Presented{}, err
		}
	}
	if err := p.checkHops(r); err != nil {
		return Presented{}, err
	}
	if found.Token == "" {
		return Presented{}, ErrNoToken
	}
	return found, nil
}

// add takes a token that was found in a place.
func (found *Presented) add(kind PlaceKind, token string, a PlaceAction) error {
	switch {
	case a == PlaceStrip:
		return nil
	case a == PlaceReject && kind == PlaceQuery:
		return errQueryToken
	case a == PlaceReject:
		return errRejected
	case found.Token != "":
		return errSeveralTokens
	}
	*found = Presented{Token: token, Scheme: SchemeBearer, Place: kind}
	return nil
}

// readAuthorization reads the Authorization field. What its place says of a
// token holds for everything that can't be told from one.
func (p *Places) readAuthorization(h http.Header) (Presented, error) {
	found, err := BearerToken(h)
	switch {
	case err == nil && p.authorization == PlaceInspect:
		if found.Scheme == SchemeDPoP && len(h["Dpop"]) > 1 {
			return Presented{}, errProofs // RFC 9449, section 4.3: which one would be checked?
		}
		return found, nil
	case errors.Is(err, ErrNoToken):
		return Presented{}, nil
	case p.authorization == PlaceStrip:
		return Presented{}, nil
	case p.authorization == PlaceReject:
		return Presented{}, errRejected
	case errors.Is(err, ErrSeveralTokens):
		return Presented{}, errSeveralFields
	default:
		return Presented{}, errAuthorization
	}
}

// readHeaders reads the further header fields.
func (p *Places) readHeaders(h http.Header, found *Presented) error {
	for i := range p.headers {
		c := &p.headers[i]
		if c.action == PlaceStrip {
			continue
		}
		for name := range h {
			// CGI and its descendants can't tell X_Access_Token from
			// X-Access-Token.
			if len(name) == len(c.name) && name != c.name && fold(name) == c.folded {
				return errBadPlace
			}
		}
		fields := h[c.name]
		if len(fields) == 0 {
			continue
		}
		value := trimSpace(fields[0])
		switch {
		case len(fields) > 1 && c.action == PlaceInspect:
			return errSeveralTokens
		case len(fields) == 1 && value == "":
			continue
		case c.action == PlaceInspect:
			token, err := rawToken(value)
			if err != nil {
				return err
			}
			value = token
		}
		if err := found.add(PlaceHeader, value, c.action); err != nil {
			return err
		}
	}
	return nil
}

// rawToken reads a field that holds a token as it is, or as the Authorization
// field would.
func rawToken(value string) (string, error) {
	if hasPrefixFold(value, SchemeBearer) {
		var spaced bool
		if value, spaced = cutSpaces(value[len(SchemeBearer):]); !spaced {
			return "", errBadPlace // some receivers cut the word off, space or not
		}
	}
	if !isToken68(value) {
		return "", errBadPlace
	}
	return value, nil
}

// fold makes field names equal that some receiver takes for the same: in any
// case, with an underscore for whatever CGI and its descendants replace by one.
func fold(name string) string {
	b := []byte(name)
	for i, c := range b {
		if c = lower(c); !('a' <= c && c <= 'z' || '0' <= c && c <= '9') {
			c = '_'
		}
		b[i] = c
	}
	return string(b)
}
