package oauth

import (
	"net/http"
	"strings"
)

// maxCallback bounds the name of a callback, in bytes.
const maxCallback = 128

// isCallback tells whether text is a path of ASCII identifiers, such as
// package.revoked. Nothing else is ever put into a script: neither brackets nor
// escapes, which would let a request choose what the script does.
func isCallback(text string) bool {
	if len(text) > maxCallback {
		return false
	}
	for name := range strings.SplitSeq(text, ".") {
		if name == "" || '0' <= name[0] && name[0] <= '9' {
			return false
		}
		for i := range len(name) {
			if c := name[i]; !isAlphaNum(c) && c != '_' && c != '$' {
				return false
			}
		}
	}
	return true
}

// writeScript sends a 200 as a call of the callback (RFC 7009, section 2.3). The
// comment in front keeps the client's text from being the first bytes of the
// answer, which some plugins take for the head of a file of theirs; nosniff keeps
// browsers from taking the script for anything else.
func writeScript(w http.ResponseWriter, callback string) {
	h := w.Header()
	h.Set("Content-Type", "application/javascript; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	writeBody(w, http.StatusOK, []byte("/**/"+callback+"({});"))
}
