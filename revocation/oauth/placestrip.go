package oauth

import (
	"bytes"
	"errors"
	"net/http"
	"strconv"
)

// Strip removes what is in places to be stripped. It is called after
// [Places.Read] has accepted the request. Nothing else of the request changes:
// what stays has the same bytes in the same order.
//
// Of the Authorization field, only tokens are removed, and what could be taken
// for one; a Basic one stays.
func (p *Places) Strip(r *http.Request) {
	if p.authorization == PlaceStrip {
		if _, err := BearerToken(r.Header); !errors.Is(err, ErrNoToken) {
			delete(r.Header, "Authorization")
		}
	}
	for i := range p.headers {
		if p.headers[i].action != PlaceStrip {
			continue
		}
		for name := range r.Header {
			if fold(name) == p.headers[i].folded {
				delete(r.Header, name)
			}
		}
	}
	if fields := r.Header["Cookie"]; len(fields) > 0 && hasStrip(p.cookies) {
		if kept := stripCookies(p.cookies, fields); len(kept) > 0 {
			r.Header["Cookie"] = kept
		} else {
			delete(r.Header, "Cookie")
		}
	}
	if r.URL.RawQuery != "" && hasStrip(p.query) {
		r.URL.RawQuery = stripPairs(p.query, r.URL.RawQuery)
	}
	if hasStrip(p.form) {
		p.stripForm(r)
	}
}

func hasStrip(places []place) bool {
	for i := range places {
		if places[i].action == PlaceStrip {
			return true
		}
	}
	return false
}

func (p *Places) stripForm(r *http.Request) {
	body := r.Body
	if guard, ok := body.(*trailerGuard); ok {
		body = guard.ReadCloser
	}
	read, ok := body.(*formBody)
	if !ok || read.text == nil {
		return
	}
	text := []byte(stripPairs(p.form, string(read.text)))
	if len(text) == len(read.text) {
		return
	}
	read.text, read.Reader = text, bytes.NewReader(text)
	if r.ContentLength >= 0 {
		r.ContentLength = int64(len(text))
		r.Header.Set("Content-Length", strconv.Itoa(len(text)))
	}
}
