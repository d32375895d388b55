package oauth

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// answer is a refusal on its way to the client. Its description is a constant of
// this package: nothing of the request is reflected (RFC 6749, section 5.2).
type answer struct {
	result      Result
	status      int
	code        string
	description string
	retryAfter  time.Duration // zero: no Retry-After
	allow       string        // of a 405

	// What a policy answers with; body replaces the error object.
	header http.Header
	body   []byte
}

// Error makes an answer usable as an error inside the package.
func (a *answer) Error() string { return a.code + ": " + a.description }

func refuse(status int, description string) *answer {
	return &answer{result: ResultInvalidRequest, status: status, code: ErrorInvalidRequest, description: description}
}

func refuseMethod(allow string) *answer {
	a := refuse(http.StatusMethodNotAllowed, "the method has to be POST")
	a.allow = allow
	return a
}

// refusePlainHTTP says 403, since what the request carried is out already, and no
// challenge or retry over the same channel would help.
func refusePlainHTTP() *answer {
	a := refuse(http.StatusForbidden, "this endpoint is served over HTTPS only; what was sent here was not protected")
	a.result = ResultPlainHTTP
	return a
}

// unsupportedTokenType tells the client that the token lives (RFC 7009, section
// 2.2.1).
func unsupportedTokenType() *answer {
	return &answer{
		result: ResultTokenUnsupported, status: http.StatusBadRequest,
		code: ErrorUnsupportedTokenType, description: "tokens of this type cannot be revoked here",
	}
}

// invalidClient is the same for an unknown client and a wrong secret, so that it
// does not tell which clients exist.
func invalidClient(description string) *answer {
	return &answer{
		result: ResultInvalidClient, status: http.StatusUnauthorized,
		code: ErrorInvalidClient, description: description,
	}
}

// unavailable means that the token still exists and that the client has to come
// back (RFC 7009, section 2.2.1).
func unavailable(description string, retryAfter time.Duration) *answer {
	return &answer{
		result: ResultUnavailable, status: http.StatusServiceUnavailable,
		code: ErrorTemporarilyUnavailable, description: description, retryAfter: retryAfter,
	}
}

// throttled has no code of its own in any RFC that the endpoint follows.
func throttled(retryAfter time.Duration) *answer {
	return &answer{
		result: ResultThrottled, status: http.StatusTooManyRequests,
		code: ErrorTemporarilyUnavailable, description: "too many failed attempts to authenticate",
		retryAfter: retryAfter,
	}
}

// write sends a. The fields that forbid caching are set already.
func (a *answer) write(w http.ResponseWriter, realm string) {
	h := w.Header()
	switch a.status {
	case http.StatusUnauthorized:
		// Basic is the only scheme that clients authenticate with here, whatever
		// they tried (RFC 6749, section 5.2). A 401 without a challenge would
		// break RFC 9110, section 15.5.2, so form credentials get it too.
		h.Set("WWW-Authenticate", Challenge{Scheme: schemeBasic, Realm: realm}.String())
	case http.StatusMethodNotAllowed:
		if a.allow != "" {
			h.Set("Allow", a.allow)
		}
	}
	if a.retryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((a.retryAfter+time.Second-1)/time.Second), 10))
	}
	copyFields(h, a.header)
	if len(a.body) > 0 {
		writeBody(w, a.status, a.body)
		return
	}
	body, err := json.Marshal(struct {
		Error       string `json:"error"`
		Description string `json:"error_description,omitempty"`
	}{a.code, cleanText(a.description)})
	if err != nil { // two strings: cannot happen
		body = []byte(`{"error":"` + ErrorInvalidRequest + `"}`)
	}
	writeJSON(w, a.status, body)
}

// writeJSON sends a body. A client that is gone is nobody's error.
func writeJSON(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	writeBody(w, status, body)
}

// writeBody sends a body that is JSON unless a policy has said otherwise.
func writeBody(w http.ResponseWriter, status int, body []byte) {
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// forbidCaching sets what RFC 6749, section 5.1, asks of every answer that has to
// do with credentials, whatever its status.
func forbidCaching(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("Pragma", "no-cache")
}
