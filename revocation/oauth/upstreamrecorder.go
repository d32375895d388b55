package oauth

import (
	"maps"
	"net/http"
	"slices"
)

// serverAnswer is what an authorization server answers, on its way to the client.
// A 200 is held back until it is known what it is worth; everything else, and a
// 200 that is too long to be a revocation's, is passed on as it comes. It has no
// Unwrap: nobody may write past it.
type serverAnswer struct {
	w     http.ResponseWriter
	limit int // bytes held back at most

	// header is what the handlers behind see, so that nothing of a 200 that does
	// not count gets into our own answer.
	header http.Header
	sent   http.Header // header when the status came
	status int         // zero until the final one
	body   []byte
	flush  bool // was asked for: an answer without a length stays one
	passed bool // on to w
}

func newServerAnswer(w http.ResponseWriter, limit int) *serverAnswer {
	return &serverAnswer{w: w, limit: limit, header: w.Header().Clone()}
}

// Header implements http.ResponseWriter.
func (a *serverAnswer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *serverAnswer) WriteHeader(status int) {
	switch {
	case a.status != 0:
	case status >= 100 && status < 200 && status != http.StatusSwitchingProtocols:
		h := a.w.Header()
		own := h.Clone()
		replaceFields(h, a.header)
		a.w.WriteHeader(status)
		replaceFields(h, own)
	default:
		a.status, a.sent = status, a.header.Clone()
		if status != http.StatusOK && status != statusClientClosed {
			_ = a.pass()
		}
	}
}

// Write implements http.ResponseWriter.
func (a *serverAnswer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	if !a.passed && len(a.body)+len(p) <= a.limit {
		a.body = append(a.body, p...)
		return len(p), nil
	}
	if err := a.pass(); err != nil {
		return 0, err
	}
	return a.w.Write(p)
}

// FlushError is what http.ResponseController calls.
func (a *serverAnswer) FlushError() error {
	if !a.passed {
		a.flush = true
		return nil
	}
	return http.NewResponseController(a.w).Flush()
}

// pass sends on what is held back, once. The error is that of the client's
// connection.
func (a *serverAnswer) pass() error {
	if a.passed {
		return nil
	}
	a.passed = true
	replaceFields(a.w.Header(), a.sent)
	a.w.WriteHeader(a.status)
	var err error
	if len(a.body) > 0 {
		_, err = a.w.Write(a.body)
		a.body = nil
	}
	if a.flush && err == nil {
		err = a.FlushError()
	}
	return err
}

// finish sends on everything that is left, trailers too.
func (a *serverAnswer) finish() {
	if a.status == 0 {
		return
	}
	_ = a.pass() // a client that is gone is nobody's error
	h := a.w.Header()
	flushed := false
	for name, values := range a.header {
		if slices.Equal(values, a.sent[name]) {
			continue
		}
		if !flushed {
			// Else a short answer would get a length, and no trailers.
			_ = a.FlushError()
			flushed = true
		}
		h[name] = values
	}
}

func replaceFields(h, by http.Header) {
	clear(h)
	maps.Copy(h, by)
}
