package oauth

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
)

// maxParameters bounds the parameters of a form. Known extensions send fewer than
// ten.
const maxParameters = 64

// Form parameters that the endpoint reads.
const (
	paramToken               = "token"
	paramTokenTypeHint       = "token_type_hint"
	paramClientID            = "client_id"
	paramClientSecret        = "client_secret"
	paramClientAssertion     = "client_assertion"
	paramClientAssertionType = "client_assertion_type"
	paramCallback            = "callback"
)

const formMediaType = "application/x-www-form-urlencoded"

var (
	errFormEncoding = errors.New("parsing form: broken percent-encoding")
	errFormByte     = errors.New("parsing form: a character that must be percent-encoded")
	errFormRepeated = errors.New("parsing form: a parameter is repeated")
	errFormSize     = errors.New("parsing form: too many parameters")
)

// form holds the parameters of an entity body. A parameter without a value is
// absent (RFC 6749, section 3.2): get returns "" for both.
type form map[string]string

func (f form) get(name string) string { return f[name] }

// parseForm reads an application/x-www-form-urlencoded body. It is stricter than
// url.ParseQuery wherever two parsers could disagree about what was sent: a
// repeated name (RFC 6749, section 3.2), also one without a value; a semicolon,
// which once separated parameters; bytes that the encoding does not have.
func parseForm(body string) (form, error) {
	f := make(form)
	count := 0
	for part := range strings.SplitSeq(body, "&") {
		if part == "" {
			continue
		}
		if count++; count > maxParameters {
			return nil, errFormSize
		}
		for i := range len(part) {
			if c := part[i]; c <= ' ' || c >= 0x7f || c == ';' {
				return nil, errFormByte
			}
		}
		rawName, rawValue, _ := strings.Cut(part, "=")
		name, ok := formDecode(rawName)
		if !ok {
			return nil, errFormEncoding
		}
		value, ok := formDecode(rawValue)
		if !ok {
			return nil, errFormEncoding
		}
		if _, repeated := f[name]; repeated {
			return nil, errFormRepeated
		}
		f[name] = value
	}
	return f, nil
}

// formOf takes over a form that another handler on the route has parsed, and
// with it the body. It is http.Request.PostForm, never Form: that one has the
// URL's query in it.
func formOf(values url.Values) (form, error) {
	if len(values) > maxParameters {
		return nil, errFormSize
	}
	f := make(form, len(values))
	for name, v := range values {
		if len(v) > 1 {
			return nil, errFormRepeated
		}
		if len(v) == 1 {
			f[name] = v[0]
		}
	}
	return f, nil
}

// formDecode undoes the form encoding of one name or value: "+" is a space, %XX a
// byte.
func formDecode(s string) (string, bool) {
	if !strings.ContainsAny(s, "%+") {
		return s, true
	}
	decoded, err := url.QueryUnescape(s)
	return decoded, err == nil
}

// readForm returns the form in the body of r, or the answer that refuses it.
// maxBody is in bytes.
func readForm(w http.ResponseWriter, r *http.Request, maxBody int64) (form, *answer) {
	if refusal := checkMediaType(r.Header); refusal != nil {
		return nil, refusal
	}
	var f form
	var err error
	if r.PostForm != nil {
		f, err = formOf(r.PostForm)
	} else {
		body, refusal := readBody(w, r, maxBody)
		if refusal != nil {
			return nil, refusal
		}
		f, err = parseForm(body)
	}
	switch {
	case err == nil:
		return f, nil
	case errors.Is(err, errFormRepeated):
		return nil, refuse(http.StatusBadRequest, "a parameter is repeated")
	case errors.Is(err, errFormSize):
		return nil, refuse(http.StatusBadRequest, "the form has too many parameters")
	default:
		return nil, refuse(http.StatusBadRequest, "the form is not correctly encoded")
	}
}

// checkMediaType admits forms only (RFC 7009, section 2.1). Another media type is
// a malformed request, 400; 415 is for a content coding, which RFC 9110, section
// 15.5.16, provides it for.
func checkMediaType(h http.Header) *answer {
	types := h["Content-Type"]
	if len(types) != 1 {
		return refuse(http.StatusBadRequest, "the content type has to be "+formMediaType)
	}
	// Parameters such as charset say nothing about this type, and a malformed
	// one is no reason to keep a token alive.
	mediaType, _, err := mime.ParseMediaType(types[0])
	if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) || mediaType != formMediaType {
		return refuse(http.StatusBadRequest, "the content type has to be "+formMediaType)
	}
	return checkCoding(h)
}

// checkCoding refuses a body that is compressed.
func checkCoding(h http.Header) *answer {
	for _, coding := range h["Content-Encoding"] {
		if c := trimSpace(coding); c != "" && !strings.EqualFold(c, "identity") {
			return refuse(http.StatusUnsupportedMediaType, "the body must not have a content coding")
		}
	}
	return nil
}

func readBody(w http.ResponseWriter, r *http.Request, maxBody int64) (string, *answer) {
	tooLarge := refuse(http.StatusRequestEntityTooLarge, "the body is too large")
	if r.Body == nil {
		return "", nil
	}
	if r.ContentLength > maxBody {
		return "", tooLarge
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return "", tooLarge
		}
		return "", refuse(http.StatusBadRequest, "the body is incomplete")
	}
	return string(body), nil
}

// checkQuery refuses requests that carry a secret in the URL, where it ends up in
// logs (RFC 6749, section 2.3.1), and a broken query. Everything else in it is
// ignored: an endpoint's URL may have a query of its own (section 3.2), but no
// parameter is ever taken from it.
func checkQuery(query string) *answer {
	for part := range strings.SplitSeq(query, "&") {
		rawName, rawValue, _ := strings.Cut(part, "=")
		name, ok := formDecode(rawName)
		if _, valueOK := formDecode(rawValue); !ok || !valueOK {
			return refuse(http.StatusBadRequest, "the query is not correctly encoded")
		}
		switch name {
		case paramToken, paramClientSecret, paramClientAssertion:
			return refuse(http.StatusBadRequest, "parameters have to be in the body, not in the URL")
		}
	}
	return nil
}
