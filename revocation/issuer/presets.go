package issuer

import (
	"maps"
	"slices"
	"time"
)

// preset is what is known of a product. Only what differs from the standards is
// listed: a line that repeats a default would only hide it. An algorithm list is
// there if the product signs access tokens with nothing else.
var presets = map[string]Config{
	// Keycloak signs with whatever algorithm the realm or the client chose.
	"keycloak": {
		Claims: map[string]Names{
			// The authorized party; tokens of service accounts have client_id as
			// well, with the same value.
			"client_id": {"azp", "client_id"},
			// Before version 15 access tokens had session_state only.
			"sid": {"sid", "session_state"},
		},
		// Tokens are typed JWT, or at+jwt where the client's policy asks for it.
		Types: []string{"JWT", "at+jwt"},
	},
	"auth0": {
		Claims: map[string]Names{
			// The RFC 9068 profile has client_id, the default profile azp. Both
			// names are reserved: custom claims cannot take them.
			"client_id": {"client_id", "azp"},
			// The default profile has no jti: a single token is named by its hash.
		},
		// HS256 is possible with an API's own signing secret: set hmac_secret and
		// algorithms then.
		Algorithms: []string{"RS256", "PS256"},
		Types:      []string{"JWT", "at+jwt"},
	},
	"okta": {
		Claims: map[string]Names{
			"client_id": {"cid"},
			// sub is the login name, which can change hands; uid is the user's
			// stable id. To revoke by it, name the claim uid.
		},
		Algorithms: []string{"RS256"},
		// 24 hours is the most that an access policy allows.
		MaxTokenLifetime: Duration(24 * time.Hour),
	},
	"entra": {
		Claims: map[string]Names{
			// Entra's own identifier of a token, in place of jti.
			"jti": {"uti"},
			// azp in tokens of version 2.0, appid in those of version 1.0.
			"client_id": {"azp", "appid"},
			// sub differs from application to application; oid is the user
			// everywhere. To revoke by it, name the claim oid.
		},
		Algorithms: []string{"RS256"},
		Types:      []string{"JWT"},
		// With continuous access evaluation tokens live for up to 28 hours.
		MaxTokenLifetime: Duration(28 * time.Hour),
	},
	// Hydra's tokens are opaque unless strategies.access_token is jwt, which has
	// client_id and jti under their own names.
	"hydra": {},
	"authentik": {
		Claims: map[string]Names{
			// Both are set after the claims of scope mappings, which could bring a
			// jti of their own: that is why uid comes first.
			"client_id": {"azp"},
			"jti":       {"uid", "jti"},
		},
		Types: []string{"JWT", "at+jwt"},
	},
	"zitadel": {
		Claims: map[string]Names{
			// JWT access tokens have client_id; azp is what its documentation says.
			"client_id": {"client_id", "azp"},
		},
	},
	// Django OAuth Toolkit's access tokens are opaque and live for ten hours by
	// default. Its keys sign ID tokens; a JWT generator of one's own usually
	// keeps to the same algorithm.
	"django": {
		Algorithms: []string{"RS256"},
	},
}

// presetIntrospects says which tokens the product's introspection endpoint knows,
// where that is not all of them: [IntrospectionConfig].Tokens.
var presetIntrospects = map[string]string{
	// They look among the access tokens, whatever the hint.
	"django":  IntrospectsAccess,
	"zitadel": IntrospectsAccess,
	// Since 26.6.2, it tells of a refresh token only to the client that has it.
	"keycloak": IntrospectsAccess,
}

// Preset returns the preset of that name as a Config of which only the preset's
// lines are set. The caller may change it.
func Preset(name string) (Config, bool) {
	p, found := presets[name]
	if !found {
		return Config{}, false
	}
	p.Preset = name
	p.Claims = maps.Clone(p.Claims)
	for canonical, names := range p.Claims {
		p.Claims[canonical] = slices.Clone(names)
	}
	p.Algorithms = slices.Clone(p.Algorithms)
	p.Types = slices.Clone(p.Types)
	return p, true
}

// PresetNames returns the names of all presets, sorted.
func PresetNames() []string { return slices.Sorted(maps.Keys(presets)) }
