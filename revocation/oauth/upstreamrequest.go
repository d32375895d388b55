package oauth

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
)

// passedRequest is a revocation request on its way to the authorization server,
// with what that server will read in it, whatever parser it has: what two parsers
// could read in different ways is refused.
type passedRequest struct {
	token string // empty: there is none
	hint  string
	// clients are the ids that the request may name. There are two if HTTP Basic
	// can be read in two ways.
	clients []string
	method  AuthMethod
	body    []byte // as it came
}

// upstreamParams are those that decide what is revoked, and for whom.
var upstreamParams = []string{
	paramToken, paramTokenTypeHint, paramClientID, paramClientSecret, paramClientAssertion, paramClientAssertionType,
}

// passesBy tells whether a request is none to revoke a token, whatever the server
// makes of it: a preflight, or a look at the address. Anything with a body or with
// one of the parameters is more than that.
func passesBy(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return r.ContentLength == 0 && len(r.TransferEncoding) == 0 && checkPassedQuery(r.URL.RawQuery) == nil
	default:
		return false
	}
}

// readPassed reads a request strictly, or returns the answer that refuses it
// before the authorization server sees it. maxBody and maxToken are in bytes.
func readPassed(w http.ResponseWriter, r *http.Request, maxBody int64, maxToken int, strictBasic bool) (*passedRequest, *answer) {
	if refusal := checkPassedQuery(r.URL.RawQuery); refusal != nil {
		return nil, refusal
	}
	if r.Method != http.MethodPost {
		return nil, refuseMethod(http.MethodPost)
	}
	if dropsFields(r.Header) {
		return nil, refuse(http.StatusBadRequest, "the connection header names a field that the request depends on")
	}
	ascii, refusal := checkPassedType(r.Header)
	if refusal != nil {
		return nil, refusal
	}
	body, refusal := readPassedBody(w, r, maxBody)
	if refusal != nil {
		return nil, refusal
	}
	f, refusal := parsePassed(string(body), ascii)
	if refusal != nil {
		return nil, refusal
	}
	q := &passedRequest{token: f.get(paramToken), hint: f.get(paramTokenTypeHint), body: body}
	switch {
	case len(q.token) > maxToken:
		return nil, refuse(http.StatusBadRequest, "the token is too long")
	case strings.Contains(q.token, " "), !isVSChar(q.token):
		// A server that trims, or that takes several tokens, would revoke what
		// was not read here.
		return nil, refuse(http.StatusBadRequest, "the token has a space or a character that no token has")
	}
	return q, q.readClients(r.Header, f, strictBasic)
}

// readClients finds out which client the request names (RFC 6749, section 2.3).
// Whether it is that one, the authorization server decides.
func (q *passedRequest) readClients(h http.Header, f form, strictBasic bool) *answer {
	a, refusal := readAttempt(h, f, strictBasic)
	if refusal != nil {
		return refusal
	}
	q.method = a.method
	if a.assertion == "" {
		for _, c := range a.credentials {
			if !slices.Contains(q.clients, c.id) {
				q.clients = append(q.clients, c.id)
			}
		}
		return nil
	}
	// RFC 7523, section 3: iss and sub are the client.
	jwt, err := issuer.ReadJWT(a.assertion)
	if err != nil {
		return refuse(http.StatusBadRequest, "the client assertion cannot be read")
	}
	iss, okIss := jwt.Text("iss")
	sub, okSub := jwt.Text("sub")
	id := f.get(paramClientID)
	if !okIss || !okSub || iss == "" || iss != sub || id != "" && id != sub {
		return refuse(http.StatusBadRequest, "iss and sub of the client assertion, and client_id if there is one, have to be the same")
	}
	q.clients = []string{sub}
	return nil
}

// checkPassedQuery refuses parameters in the URL: some servers read them there,
// and would revoke another token than the one in the body, or for another client.
func checkPassedQuery(query string) *answer {
	for part := range strings.FieldsFuncSeq(query, func(c rune) bool { return c == '&' || c == ';' }) {
		name, _, _ := strings.Cut(part, "=")
		decoded, ok := formDecode(name)
		if !ok {
			return refuse(http.StatusBadRequest, "the query is not correctly encoded")
		}
		if slices.Contains(upstreamParams, likeParam(decoded)) {
			return refuse(http.StatusBadRequest, "parameters have to be in the body, not in the URL")
		}
	}
	return nil
}

// dropsFields tells whether the request's Connection field, whose names a proxy
// removes (RFC 9110, section 7.6.1), would change what the server reads.
func dropsFields(h http.Header) bool {
	for _, value := range h["Connection"] {
		for name := range strings.SplitSeq(value, ",") {
			switch strings.ToLower(trimSpace(name)) {
			case "", "close", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "http2-settings", "proxy-connection":
			default:
				return true
			}
		}
	}
	return false
}

// checkPassedType admits forms in an encoding that has ASCII in it. There are
// servers that decode a form by its charset, and in some of them the same bytes
// are other parameters. ascii is true if nothing but ASCII may come.
func checkPassedType(h http.Header) (ascii bool, refusal *answer) {
	if refusal := checkMediaType(h); refusal != nil {
		return false, refusal
	}
	_, params, err := mime.ParseMediaType(h["Content-Type"][0])
	if err != nil {
		return false, refuse(http.StatusBadRequest, "the content type is malformed")
	}
	for name, value := range params {
		if name != "charset" {
			return false, refuse(http.StatusBadRequest, "the content type has an unknown parameter")
		}
		switch strings.ToLower(value) {
		case "utf-8", "utf8":
		case "us-ascii", "ascii", "iso-8859-1", "latin1", "windows-1252":
			ascii = true
		default:
			return false, refuse(http.StatusBadRequest, "the charset is not supported")
		}
	}
	return ascii, nil
}

// readPassedBody reads the body, to forward it as it came.
func readPassedBody(w http.ResponseWriter, r *http.Request, maxBody int64) ([]byte, *answer) {
	if r.PostForm != nil || r.MultipartForm != nil {
		// A handler in front of this one has read the body, and with it what
		// could be forwarded.
		return nil, refuse(http.StatusBadRequest, "the body was read before it came here")
	}
	tooLarge := refuse(http.StatusRequestEntityTooLarge, "the body is too large")
	if r.ContentLength > maxBody {
		return nil, tooLarge
	}
	if r.Body == nil {
		return nil, nil
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return nil, tooLarge
		}
		return nil, refuse(http.StatusBadRequest, "the body is incomplete")
	}
	return body, nil
}

// parsePassed reads a form that the server must not be able to read differently.
func parsePassed(body string, ascii bool) (form, *answer) {
	f, err := parseForm(body)
	switch {
	case errors.Is(err, errFormRepeated):
		return nil, refuse(http.StatusBadRequest, "a parameter is repeated")
	case errors.Is(err, errFormSize):
		return nil, refuse(http.StatusBadRequest, "the form has too many parameters")
	case err != nil:
		return nil, refuse(http.StatusBadRequest, "the form is not correctly encoded")
	}
	for name, value := range f {
		if like := likeParam(name); like != name && slices.Contains(upstreamParams, like) {
			// PHP and ASP.NET, for two, would take it for that parameter.
			return nil, refuse(http.StatusBadRequest, "a parameter's name can be taken for another one")
		}
		if ascii && !isASCII(name+value) {
			return nil, refuse(http.StatusBadRequest, "with this charset, only ASCII is supported")
		}
	}
	return f, nil
}

// likeParam returns the parameter that some server may take the name for: case is
// ignored here, blanks are trimmed there, in PHP dots and blanks are underscores,
// brackets make a list, and what follows a zero byte is cut off.
func likeParam(name string) string {
	name, _, _ = strings.Cut(name, "\x00")
	name = strings.TrimFunc(name, func(c rune) bool { return c <= ' ' || c == '\uFEFF' || c == '\u00a0' })
	if i := strings.IndexAny(name, "[]"); i > 0 {
		if like := likeParam(name[:i]); slices.Contains(upstreamParams, like) {
			return like
		}
	}
	return strings.Map(func(c rune) rune {
		switch {
		case c >= 'A' && c <= 'Z':
			return c + 'a' - 'A'
		case c == '.' || c == ' ' || c == '[' || c == '-':
			return '_'
		default:
			return c
		}
	}, name)
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// replay returns r with ctx and with its body again, byte for byte. What was said
// of the body's length stays as it was. Read is set when somebody begins to read
// the body.
func (q *passedRequest) replay(ctx context.Context, r *http.Request, read *atomic.Bool) *http.Request {
	r = r.WithContext(ctx)
	r.Body = &watchedBody{bytes.NewReader(q.body), read}
	return r
}

// watchedBody tells that somebody has read it.
type watchedBody struct {
	content *bytes.Reader
	read    *atomic.Bool
}

// Read implements io.Reader.
func (b *watchedBody) Read(p []byte) (int, error) {
	b.read.Store(true)
	return b.content.Read(p)
}

// Close implements io.Closer.
func (*watchedBody) Close() error { return nil }
