package oauth

import (
	"errors"
	"mime"
	"net/http"
	"strings"
	"unicode/utf8"
)

const jsonMediaType = "application/json"

var (
	errJSONObject = errors.New("parsing JSON: it is not an object")
	errJSONText   = errors.New("parsing JSON: a parameter is not a text")
)

// parseJSONForm reads the parameters of a request from a JSON object, for clients
// that send one instead of a form. It has the same rules as [parseForm]: no name
// twice, and no more than maxParameters. Every parameter that is known here is a
// text, and never a number, an array or null, which two parsers could take for
// different texts; other members are ignored, whatever they are.
func parseJSONForm(body string) (form, error) {
	if !utf8.ValidString(body) {
		return nil, errJSONObject
	}
	members, err := splitObject([]byte(body))
	if err != nil {
		return nil, errJSONObject
	}
	if len(members) > maxParameters {
		return nil, errFormSize
	}
	f := make(form, len(members))
	for i := range members {
		m := &members[i]
		if _, repeated := f[m.name]; repeated {
			return nil, errFormRepeated
		}
		text, ok := m.textValue()
		if !ok && isParameter(m.name) {
			return nil, errJSONText
		}
		f[m.name] = text
	}
	return f, nil
}

// isParameter tells whether the endpoint reads the parameter of this name.
func isParameter(name string) bool {
	switch name {
	case paramToken, paramTokenTypeHint, paramClientID, paramClientSecret, paramClientAssertion, paramClientAssertionType, paramCallback:
		return true
	}
	return false
}

// isJSON tells whether the body says that it is JSON.
func isJSON(h http.Header) bool {
	types := h["Content-Type"]
	if len(types) != 1 {
		return false
	}
	mediaType, params, err := mime.ParseMediaType(types[0])
	return err == nil && mediaType == jsonMediaType && (params["charset"] == "" || strings.EqualFold(params["charset"], "utf-8"))
}

// readParameters returns the parameters in the body of r, a form or, where that is
// allowed, a JSON object, or the answer that refuses it.
func (e *Endpoint) readParameters(w http.ResponseWriter, r *http.Request) (form, *answer) {
	if !e.options.JSONBody || !isJSON(r.Header) {
		return readForm(w, r, e.options.MaxBody)
	}
	if refusal := checkCoding(r.Header); refusal != nil {
		return nil, refusal
	}
	body, refusal := readBody(w, r, e.options.MaxBody)
	if refusal != nil {
		return nil, refusal
	}
	f, err := parseJSONForm(body)
	switch {
	case err == nil:
		return f, nil
	case errors.Is(err, errFormRepeated):
		return nil, refuse(http.StatusBadRequest, "a parameter is repeated")
	case errors.Is(err, errFormSize):
		return nil, refuse(http.StatusBadRequest, "the body has too many parameters")
	case errors.Is(err, errJSONText):
		return nil, refuse(http.StatusBadRequest, "a parameter is not a text")
	default:
		return nil, refuse(http.StatusBadRequest, "the body is not a JSON object")
	}
}
