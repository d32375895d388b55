package oauth

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
)

// MaxFormBody is how large a form may be that is read for a token, in bytes.
const MaxFormBody = 64 << 10

var (
	errPlaceType = &PlaceError{
		http.StatusUnsupportedMediaType, "a form must be application/x-www-form-urlencoded in UTF-8 and not compressed", ErrBadPlace,
	}
	errPlaceTypes = &PlaceError{http.StatusBadRequest, "the request must have exactly one valid content type", ErrBadPlace}
	errPlaceSize  = &PlaceError{http.StatusRequestEntityTooLarge, "the form is too large", ErrBadPlace}
	errPlaceGet   = &PlaceError{http.StatusBadRequest, "a GET request must not have an access token in its body", ErrRejectedPlace}
)

// readForm reads a form body of up to MaxFormBody bytes (RFC 6750, section 2.2)
// and puts it back, byte for byte. Other bodies are not touched. What a receiver
// may read as a form and we would not is refused: several parts, another
// character set, a compressed body.
func (p *Places) readForm(r *http.Request, found *Presented) error {
	if r.Body == nil || r.Body == http.NoBody || r.Method == http.MethodConnect && r.ProtoMajor > 1 {
		return nil // or a tunnel; under HTTP/1.1, what CONNECT brings along is handed on as a body
	}
	form, err := isForm(r)
	if !form || err != nil {
		return err
	}
	if r.ContentLength > MaxFormBody {
		return errPlaceSize
	}
	text, err := buffer(r)
	if err != nil {
		return err
	}
	before := found.Token
	if err := readPairs(p.form, PlaceForm, string(text), found); err != nil {
		return err
	}
	if found.Token != before && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		return errPlaceGet
	}
	return nil
}

// isForm tells whether a receiver may read the body as a form. The error says
// that one may and another one may not, or not in the same way.
func isForm(r *http.Request) (bool, error) {
	types := r.Header["Content-Type"]
	if len(types) == 0 || len(types) == 1 && trimSpace(types[0]) == "" {
		// Some receivers, such as Rack, take it for a form.
		if r.Method != http.MethodPost {
			return false, nil
		}
		types = []string{formType}
	}
	var form, parts bool
	for _, t := range types {
		t = strings.ToLower(t)
		form = form || strings.Contains(t, "form-urlencoded")
		parts = parts || strings.Contains(t, "multipart/")
	}
	switch {
	case !form && !parts:
		return false, nil
	case len(types) > 1:
		return true, errPlaceTypes
	case parts:
		return true, errPlaceType
	}
	for _, coding := range r.Header["Content-Encoding"] {
		if coding = trimSpace(coding); coding != "" && !strings.EqualFold(coding, "identity") {
			return true, errPlaceType
		}
	}
	media, params, err := mime.ParseMediaType(types[0])
	if err != nil || media != formType {
		return true, errPlaceTypes
	}
	switch strings.ToLower(params["charset"]) {
	case "", "utf-8", "utf8", "us-ascii", "iso-8859-1":
		return true, nil // one byte for each character that a token has
	default:
		return true, errPlaceType
	}
}

const formType = "application/x-www-form-urlencoded"

// formBody is a body that was read, or its first part.
type formBody struct {
	io.Reader
	io.Closer
	text []byte // all of it; nil if it is longer
}

// buffer reads the body and puts it back. If it is too large, or can't be read,
// what was read is put before the rest.
func buffer(r *http.Request) ([]byte, error) {
	if read, ok := r.Body.(*formBody); ok && read.text != nil {
		return read.text, nil
	}
	text, err := io.ReadAll(io.LimitReader(r.Body, MaxFormBody+1))
	put := &formBody{Reader: bytes.NewReader(text), Closer: r.Body}
	defer func() { r.Body = put }()
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		put.Reader = io.MultiReader(put.Reader, r.Body)
		return nil, errPlaceSize
	case err != nil:
		put.Reader = io.MultiReader(put.Reader, r.Body)
		return nil, &PlaceError{http.StatusBadRequest, "the body could not be read", fmt.Errorf("reading the form: %w", err)}
	case len(text) > MaxFormBody:
		put.Reader = io.MultiReader(put.Reader, r.Body)
		return nil, errPlaceSize
	}
	if put.text = text; text == nil {
		put.text = []byte{}
	}
	return put.text, nil
}
