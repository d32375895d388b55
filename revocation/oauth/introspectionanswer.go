package oauth

import (
	"strings"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// Members of an introspection answer that this package writes (RFC 7662, section
// 2.2).
const (
	memberActive    = "active"
	memberScope     = "scope"
	memberClientID  = "client_id"
	memberUsername  = "username"
	memberTokenType = "token_type"
)

// activeAnswer returns the answer about an active token. Only is the set of the
// members that are told besides active, nil for all.
//
// What the authorization server has answered is passed on as it stands. Of a JWT,
// all claims are told, which whoever holds it can read anyway; those that RFC
// 7662 defines otherwise than the profile of the token are written as it has
// them.
func activeAnswer(t *ActiveToken, members []jsonMember, only map[string]bool) []byte {
	if !t.Answered {
		members = canonicalMembers(t.Identity, members)
	}
	kept := make([]jsonMember, 0, len(members)+1)
	kept = append(kept, newMember(memberActive, true))
	for _, m := range members {
		// Some readers ignore case, and take the last of several: no member but
		// ours may look like it.
		if strings.EqualFold(m.name, memberActive) || only != nil && !only[m.name] {
			continue
		}
		kept = append(kept, m)
	}
	return joinObject(kept)
}

// canonicalMembers returns the claims of a verified JWT as an introspection
// answer has them: client_id, scope, username and token_type whatever the issuer
// calls them, and times in whole seconds. The issuer's own names stand beside
// them.
func canonicalMembers(id *revocation.Identity, claims []jsonMember) []jsonMember {
	set := []jsonMember{newMember(memberTokenType, tokenType(claims))}
	if owner, ok := id.Value(revocation.ClaimClientID); ok {
		set = append(set, newMember(memberClientID, owner))
	}
	if scope, ok := scopeOf(claims); ok {
		set = append(set, newMember(memberScope, scope))
	}
	if _, ok := findMember(claims, memberUsername); !ok {
		if name, ok := findMember(claims, "preferred_username"); ok {
			if text, ok := name.textValue(); ok {
				set = append(set, newMember(memberUsername, text))
			}
		}
	}
	for _, at := range []struct {
		name string
		time int64
	}{{"exp", id.Expiry}, {"iat", id.IssuedAt}, {"nbf", id.NotBefore}} {
		if at.time != 0 {
			set = append(set, newMember(at.name, at.time))
		}
	}
	return setMembers(claims, set)
}

// setMembers returns members with those of set in the place of those of the same
// name, however often they occur, and at the end if there is none.
func setMembers(members, set []jsonMember) []jsonMember {
	result := make([]jsonMember, 0, len(members)+len(set))
	done := make(map[string]bool, len(set))
	for _, m := range members {
		s, replace := findMember(set, m.name)
		switch {
		case !replace:
			result = append(result, m)
		case !done[m.name]:
			done[m.name] = true
			result = append(result, *s)
		}
	}
	for _, m := range set {
		if !done[m.name] {
			result = append(result, m)
		}
	}
	return result
}

// tokenType returns how the token has to be presented (RFC 6749, section 7.1). A
// token that is bound to a DPoP key (RFC 9449, section 6.1) is no bearer token;
// one that is bound to a certificate (RFC 8705, section 3) is called one.
func tokenType(claims []jsonMember) string {
	if cnf, ok := findMember(claims, "cnf"); ok {
		if confirmation, err := splitObject(cnf.value); err == nil {
			if _, ok := findMember(confirmation, "jkt"); ok {
				return "DPoP"
			}
		}
	}
	return "Bearer"
}

// scopeOf returns the scopes of a token, separated by spaces. Some issuers write
// them as a list, or call them scp.
func scopeOf(claims []jsonMember) (string, bool) {
	for _, name := range []string{memberScope, "scp"} {
		m, ok := findMember(claims, name)
		if !ok {
			continue
		}
		if values := m.textValues(); values != nil {
			return strings.Join(values, " "), true
		}
	}
	return "", false
}
