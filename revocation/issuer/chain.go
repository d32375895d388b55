package issuer

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
)

// checkChain refuses a certificate chain (RFC 7515, section 4.1.6) that is none.
// No certificate in a header is ever trusted; but a token whose header is
// malformed must not be read by one party and refused by another. Chains are
// rare in access tokens, so that this need not be fast.
func checkChain(m *member) error {
	if m.kind != kindArray {
		return errChain
	}
	var chain []*string // a null in it is not a text
	if err := json.Unmarshal(m.value, &chain); err != nil {
		return errChain
	}
	for _, text := range chain {
		if text == nil {
			return errChain
		}
		der, err := base64.StdEncoding.DecodeString(*text)
		if err != nil {
			return errChain
		}
		if _, err := x509.ParseCertificate(der); err != nil {
			return errChain
		}
	}
	return nil
}

const errChain = malformedError("the header's certificate chain is not one")
