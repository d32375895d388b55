package issuer

import "cmp"

// KnowsRefreshTokens tells whether the authorization server can be asked about
// refresh tokens. If not, that a token is [ErrInactive] means no more than that it
// is no access token that is alive; see [IntrospectionConfig].Tokens.
func (n *Introspector) KnowsRefreshTokens() bool {
	return cmp.Or(n.config.Tokens, presetIntrospects[n.issuer.config.Preset]) != IntrospectsAccess
}
