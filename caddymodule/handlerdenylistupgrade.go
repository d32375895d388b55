package caddymodule

import (
	"net/http"
	"slices"
	"strings"
)

// dropH2C takes back the offer to go on in HTTP/2 over the same connection, which
// a server may ignore (RFC 9110, section 7.8): what came after it would be
// requests with tokens of their own that nobody here sees. Other offers stay, such
// as that of a WebSocket.
func dropH2C(h http.Header) {
	fields := h["Upgrade"]
	if fields == nil || !slices.ContainsFunc(fields, offersH2C) {
		return
	}
	var kept []string
	for _, field := range fields {
		for protocol := range strings.SplitSeq(field, ",") {
			if protocol = strings.Trim(protocol, " \t"); protocol != "" && !isH2C(protocol) {
				kept = append(kept, protocol)
			}
		}
	}
	delete(h, "Http2-Settings")
	if len(kept) == 0 {
		delete(h, "Upgrade")
		return
	}
	h["Upgrade"] = []string{strings.Join(kept, ", ")}
}

func offersH2C(field string) bool {
	for protocol := range strings.SplitSeq(field, ",") {
		if isH2C(strings.Trim(protocol, " \t")) {
			return true
		}
	}
	return false
}

// isH2C tells whether a protocol is h2c, with whatever version.
func isH2C(protocol string) bool {
	name, _, _ := strings.Cut(protocol, "/")
	return strings.EqualFold(strings.TrimRight(name, " \t"), "h2c")
}
