package denylist

import (
	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// inlinePrints is how many fingerprints need no second allocation. A token
// usually has one per shape in use.
const inlinePrints = 8

// prints are the fingerprints to look up for one identity under one set of
// shapes. They are immutable once computed.
type prints struct {
	set        *shapeSet
	overflow   bool
	n          uint8
	firstShape [inlinePrints]uint8
	first      [inlinePrints]revocation.Fingerprint
	more       []morePrint
}

type morePrint struct {
	print revocation.Fingerprint
	shape uint8
}

func (p *prints) inline() int { return int(p.n) }

// compute fills p. Of an array claim each value can be the one that a criteria
// names, of two array claims each pair.
func (p *prints) compute(set *shapeSet, id *revocation.Identity) {
	p.set = set
	if id.Issuer == "" || len(id.Issuer) > revocation.MaxIssuer {
		return // no criteria can name it
	}
	// Count first: a token with too many lookups costs none.
	total := 0
	for i := range set.shapes {
		lookups := 1
		for _, name := range set.shapes[i].names {
			lookups *= nameable(id.Values(name))
			if lookups = min(lookups, maxLookups+1); lookups == 0 {
				break
			}
		}
		if total += lookups; total > maxLookups {
			p.overflow = true
			return
		}
	}
	// The issuer's other spellings are the operator's, few, and no reason to
	// refuse a token.
	total *= 1 + len(id.Aliases)
	if total > inlinePrints {
		p.more = make([]morePrint, 0, total-inlinePrints)
	}
	for i := range set.shapes {
		p.product(i, id, id.Issuer)
		for _, alias := range id.Aliases {
			p.product(i, id, alias)
		}
	}
}

// product adds the fingerprints of one shape under one spelling of the issuer.
func (p *prints) product(i int, id *revocation.Identity, issuer string) {
	s := &p.set.shapes[i]
	var (
		values  [revocation.MaxCriteriaClaims]string
		claims  [revocation.MaxCriteriaClaims][]revocation.Claim
		counter [revocation.MaxCriteriaClaims]int
	)
	for k, name := range s.names {
		claims[k] = id.Values(name)
		if counter[k] = next(claims[k], 0); counter[k] == len(claims[k]) {
			return
		}
	}
	for {
		for k := range s.names {
			values[k] = claims[k][counter[k]].Value
		}
		p.add(i, revocation.FingerprintOf(issuer, s.mode, s.names, values[:len(s.names)]))
		k := 0
		for ; k < len(s.names); k++ {
			if counter[k] = next(claims[k], counter[k]+1); counter[k] < len(claims[k]) {
				break
			}
			counter[k] = next(claims[k], 0)
		}
		if k == len(s.names) {
			return
		}
	}
}

func (p *prints) add(shape int, f revocation.Fingerprint) {
	if p.n < inlinePrints {
		p.first[p.n], p.firstShape[p.n] = f, uint8(shape)
		p.n++
		return
	}
	p.more = append(p.more, morePrint{print: f, shape: uint8(shape)})
}

// nameable counts the values that a criteria can name. Repeated ones count
// once; they are neighbours, since claims are sorted.
func nameable(values []revocation.Claim) int {
	n := 0
	for i := next(values, 0); i < len(values); i = next(values, i+1) {
		n++
	}
	return n
}

// next returns the index of the first nameable value from i on.
func next(values []revocation.Claim, i int) int {
	for ; i < len(values); i++ {
		v := values[i].Value
		if v != "" && len(v) <= revocation.MaxClaimValue && (i == 0 || v != values[i-1].Value) {
			break
		}
	}
	return i
}
