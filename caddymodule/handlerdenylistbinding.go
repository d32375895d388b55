package caddymodule

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"

	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
)

var (
	errNoCertificate    = errors.New("the token is bound to a client certificate, and this connection has none")
	errOtherCertificate = errors.New("the token is bound to another client certificate than this connection's")
	errDowngraded       = errors.New("the token is bound to a DPoP key, and was sent without a proof")
)

// checkBinding checks that whoever presents a bound token may: that the
// connection has the client certificate of a certificate-bound one (RFC 8705,
// section 3), and that one for DPoP comes as such (RFC 9449, section 7.2). The
// proof is checked by the upstream, which knows the URL that it must name.
func checkBinding(r *http.Request, v *verdict) error {
	id := v.identity
	if id == nil || !id.Verified {
		return nil
	}
	if id.Certificate != "" {
		if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
			return errNoCertificate
		}
		sum := sha256.Sum256(r.TLS.PeerCertificates[0].Raw)
		if base64.RawURLEncoding.EncodeToString(sum[:]) != id.Certificate {
			return errOtherCertificate
		}
	}
	if id.ProofKey != "" && (v.presented.Scheme != oauth.SchemeDPoP || !hasProof(r.Header["Dpop"])) {
		return errDowngraded
	}
	return nil
}

// hasProof tells whether there is something for the upstream to check.
func hasProof(fields []string) bool {
	return len(fields) == 1 && strings.Trim(fields[0], " \t") != ""
}
