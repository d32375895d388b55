package oauth

import "github.com/edge-revocation/caddy-token-revocation/revocation"

// TokenCriteria returns the criteria that names exactly this token. One that was
// asked about is named by its hash, also if the answer has a jti: that is not in
// the token, so that an edge which does not ask could not compare it, and some
// servers make up a new one for every answer.
func (t Resolved) TokenCriteria() (revocation.Criteria, bool) {
	if t.Asked {
		if hash, ok := t.Identity.Value(revocation.ClaimToken); ok && hash != "" {
			return revocation.Criteria{
				Issuer: t.Identity.Issuer, Claims: map[string]string{revocation.ClaimToken: hash},
			}, true
		}
	}
	return t.Identity.TokenCriteria()
}
