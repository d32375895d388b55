package streams

import (
	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// maxCombinations bounds how often one stream is found under one shape: a token
// with more is refused by the denylist as well.
const maxCombinations = 64

// combine calls f with each combination of values that id has for the names,
// until f returns false. It returns false, without having called f, if there are
// too many. The slice is used again for the next combination.
func combine(id *revocation.Identity, names []string, f func(values []string) bool) bool {
	var (
		room    [revocation.MaxCriteriaClaims]string
		claims  [revocation.MaxCriteriaClaims][]revocation.Claim
		counter [revocation.MaxCriteriaClaims]int
	)
	if len(names) > len(room) {
		return true // no criteria has so many
	}
	total := 1
	for i, name := range names {
		claims[i] = id.Values(name)
		n := 0
		for k := nameable(claims[i], 0); k < len(claims[i]); k = nameable(claims[i], k+1) {
			n++
		}
		if n == 0 {
			return true
		}
		if total *= n; total > maxCombinations {
			// A later name may still have no value at all.
			total = maxCombinations + 1
		}
		counter[i] = nameable(claims[i], 0)
	}
	if total > maxCombinations {
		return false
	}
	values := room[:len(names)]
	for {
		for i := range names {
			values[i] = claims[i][counter[i]].Value
		}
		if !f(values) {
			return true
		}
		i := 0
		for ; i < len(names); i++ {
			if counter[i] = nameable(claims[i], counter[i]+1); counter[i] < len(claims[i]) {
				break
			}
			counter[i] = nameable(claims[i], 0)
		}
		if i == len(names) {
			return true
		}
	}
}

// nameable returns the index of the first value from i on that a criteria can
// name. Repeated ones count once: they are neighbours.
func nameable(values []revocation.Claim, i int) int {
	for ; i < len(values); i++ {
		v := values[i].Value
		if v != "" && len(v) <= revocation.MaxClaimValue && (i == 0 || v != values[i-1].Value) {
			break
		}
	}
	return i
}

// prints calls f with each fingerprint that a revocation of this shape can have
// that names id, under each spelling of the issuer. It returns false if they are
// too many.
func prints(id *revocation.Identity, mode revocation.Mode, names []string, f func(revocation.Fingerprint)) bool {
	if id.Issuer == "" || len(id.Issuer) > revocation.MaxIssuer {
		return true // no criteria can name it
	}
	return combine(id, names, func(values []string) bool {
		f(revocation.FingerprintOf(id.Issuer, mode, names, values))
		for _, alias := range id.Aliases {
			f(revocation.FingerprintOf(alias, mode, names, values))
		}
		return true
	})
}

// narrowed returns what of an identity the fingerprint is about: a token with too
// many values is refused unseen, but this revocation can be looked up alone.
func narrowed(id *revocation.Identity, mode revocation.Mode, names []string, print revocation.Fingerprint) *revocation.Identity {
	var found *revocation.Identity
	for _, spelling := range append([]string{id.Issuer}, id.Aliases...) {
		combine(id, names, func(values []string) bool {
			if revocation.FingerprintOf(spelling, mode, names, values) != print {
				return true
			}
			narrow := *id
			narrow.Claims = make([]revocation.Claim, len(names))
			for i, name := range names { // sorted
				narrow.Claims[i] = revocation.Claim{Name: name, Value: values[i]}
			}
			found = &narrow
			return false
		})
	}
	return found
}
