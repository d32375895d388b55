package oauth

import (
	"encoding/json"
	"slices"
)

// minSecret is how long a client's secret has to be for claims that contain it to
// be kept from policies, in bytes: a short one is a part of many words, and policies
// decide by those.
const minSecret = 16

// claimSecrets returns what must not be in the claims that policies see: the token,
// and what its client has authenticated with. No other parameter counts, since a
// client could choose it so that a claim is left out that speaks against it.
func (x *exchange) claimSecrets() []string {
	secrets := []string{x.token}
	if x.outcome.Method != AuthNone {
		for _, s := range x.secrets {
			if len(s) >= minSecret {
				secrets = append(secrets, s)
			}
		}
	}
	return secrets
}

// withoutSecrets returns the members of claims in which there is none of the
// secrets, at whatever depth. An authorization server that is asked about a token
// may repeat it in its answer. The claims themselves stay as they are.
func withoutSecrets(claims map[string]any, secrets []string) map[string]any {
	kept := make(map[string]any, len(claims))
	for name, value := range claims {
		if containsAny(name, secrets) {
			continue
		}
		if value, ok := withoutSecret(value, secrets); ok {
			kept[name] = value
		}
	}
	return kept
}

func withoutSecret(value any, secrets []string) (any, bool) {
	switch v := value.(type) {
	case string:
		return v, !containsAny(v, secrets)
	case json.Number:
		return v, !containsAny(v.String(), secrets)
	case map[string]any:
		return withoutSecrets(v, secrets), true
	case []any:
		kept := make([]any, 0, len(v))
		for _, element := range v {
			if element, ok := withoutSecret(element, secrets); ok {
				kept = append(kept, element)
			}
		}
		return slices.Clip(kept), true
	default:
		return v, true
	}
}
