package oauth

import (
	"encoding/base64"
	"errors"
	"strings"
)

// errBasic says that a value is not of the scheme Basic, or broken.
var errBasic = errors.New("the basic credentials are malformed")

// credential is a client id and a secret that were presented together.
type credential struct {
	id     string
	secret string
}

// parseBasic reads the value of an Authorization field (RFC 7617, section 2) and
// returns what it may mean: first with both halves form-decoded, as RFC 6749,
// section 2.3.1, wants it, then as they stand, since many clients forget to
// encode. There is one credential if both readings agree or if the halves are
// not correctly encoded, else there are two.
func parseBasic(value string) ([]credential, error) {
	scheme, rest := cutScheme(trimSpace(value))
	if len(scheme) != len(schemeBasic) || !hasPrefixFold(scheme, schemeBasic) {
		return nil, errBasic
	}
	encoded, ok := cutSpaces(rest)
	if !ok || !isToken68(encoded) {
		return nil, errBasic
	}
	decoded, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, errBasic // err would quote a part
	}
	// The first colon ends the id; an encoded id has none of its own. Decoding
	// first would split an id like "https://client.example" in the middle.
	id, secret, ok := strings.Cut(string(decoded), ":")
	if !ok {
		return nil, errBasic
	}
	raw := credential{id: id, secret: secret}
	plainID, okID := formDecode(id)
	plainSecret, okSecret := formDecode(secret)
	plain := credential{id: plainID, secret: plainSecret}
	if !okID || !okSecret || plain == raw {
		return []credential{raw}, nil
	}
	return []credential{plain, raw}, nil
}
