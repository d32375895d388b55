package issuer

import (
	"encoding/base64"
	"slices"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// maxValues is how many values one claim may have: every value is a look-up.
const maxValues = 64

// claimMap translates canonical claim names into those of one issuer.
type claimMap struct {
	wellKnown [len(wellKnown)]Names
	others    map[string]Names
}

func newClaimMap(claims map[string]Names) claimMap {
	var m claimMap
	for i, name := range wellKnown {
		m.wellKnown[i] = Names{name}
		if names, found := claims[name]; found {
			m.wellKnown[i] = names
		}
	}
	m.others = claims
	return m
}

// value is one claim value whose text is joined[start:end] of the reading.
type value struct {
	name       string
	start, end int
}

// makeIdentity returns the identity of a token that was read, and verified with the key
// of that thumbprint if there is one. extra are canonical claim names to extract
// besides the well-known ones. The error wraps [ErrInvalid]: a value that cannot
// be compared with a revocation must not pass as if the token did not have it.
func (r *reading) makeIdentity(issuer string, claims *claimMap, extra []string, t times, thumbprint string) (*revocation.Identity, error) {
	r.values, r.joined = r.values[:0], r.joined[:0]
	for i, name := range wellKnown {
		add := r.addFirst
		if name == revocation.ClaimClientID {
			add = r.addAll
		}
		if err := add(name, claims.wellKnown[i], true); err != nil {
			return nil, err
		}
	}
	for _, name := range extra {
		// These are no claims of the token, whatever it has under their names.
		if name == revocation.ClaimToken || name == revocation.ClaimKeyID || slices.Contains(wellKnown[:], name) {
			continue
		}
		var err error
		if names, mapped := claims.others[name]; mapped {
			err = r.addFirst(name, names, false)
		} else {
			_, err = r.add(name, name, false)
		}
		if err != nil {
			return nil, err
		}
	}
	certificate, proofKey, err := r.confirmation()
	if err != nil {
		return nil, err
	}
	hash := r.tokenHash()
	start := len(r.joined)
	r.joined = base64.RawURLEncoding.AppendEncode(r.joined, hash[:])
	r.values = append(r.values, value{revocation.ClaimToken, start, len(r.joined)})

	n := len(r.values)
	if thumbprint != "" {
		n++
	}
	list := make([]revocation.Claim, 0, n)
	texts := string(r.joined) // one allocation for all values
	for _, v := range r.values {
		list = append(list, revocation.Claim{Name: v.name, Value: texts[v.start:v.end]})
	}
	if thumbprint != "" {
		list = append(list, revocation.Claim{Name: revocation.ClaimKeyID, Value: thumbprint})
	}
	revocation.SortClaims(list)
	return &revocation.Identity{
		Issuer:      issuer,
		Claims:      slices.Compact(list),
		IssuedAt:    t.iat,
		AuthTime:    t.authTime,
		NotBefore:   t.nbf,
		Expiry:      t.exp,
		Certificate: certificate,
		ProofKey:    proofKey,
	}, nil
}

// addFirst adds the claim under the first of its names that the token has.
func (r *reading) addFirst(canonical string, names Names, single bool) error {
	for _, name := range names {
		if added, err := r.add(canonical, name, single); added || err != nil {
			return err
		}
	}
	return nil
}

// addAll adds the claim under all of its names. A token that names two clients
// belongs to neither, see [revocation.Identity.Value], and a revocation of either
// denies it.
func (r *reading) addAll(canonical string, names Names, single bool) error {
	for _, name := range names {
		if _, err := r.add(canonical, name, single); err != nil {
			return err
		}
	}
	return nil
}

// add adds the values of the token's claim called name, and tells whether there
// is one. Null and the empty text are the same as none: no criteria can name
// them. Neither can one name an object; where an identifier is expected it is
// refused, elsewhere it is no value.
func (r *reading) add(canonical, name string, single bool) (bool, error) {
	m, found := r.scanner.find(name)
	if !found || m.kind == kindNull {
		return false, nil
	}
	if m.kind == kindArray && !single {
		before := len(r.values)
		err := r.addElements(canonical, m.value)
		return len(r.values) > before, err
	}
	if single {
		switch m.kind {
		case kindArray, kindObject, kindTrue, kindFalse:
			return false, invalidError("an identifying claim is neither a text nor a number")
		}
	}
	return r.addScalar(canonical, m)
}

func (r *reading) addScalar(canonical string, m member) (bool, error) {
	start := len(r.joined)
	switch m.kind {
	case kindString, kindTrue, kindFalse:
		r.joined = append(r.joined, m.value...)
	case kindEscaped:
		r.joined = unescape(r.joined, m.value)
	case kindNumber:
		r.joined = appendNumber(r.joined, m.value)
	default:
		return false, nil
	}
	switch length := len(r.joined) - start; {
	case length == 0:
		return false, nil
	case length > revocation.MaxClaimValue:
		return false, invalidError("a claim that revocations can name is longer than 1024 bytes")
	}
	r.values = append(r.values, value{canonical, start, len(r.joined)})
	return true, nil
}

// addElements adds the texts, numbers and booleans in an array that the scanner
// has checked.
func (r *reading) addElements(canonical string, array []byte) error {
	before := len(r.values)
	s := scanner{text: array, pos: 1} // after the bracket
	if s.next() == ']' {
		return nil
	}
	for {
		text, k, err := s.value()
		if err != nil {
			return err
		}
		if _, err := r.addScalar(canonical, member{value: text, kind: k}); err != nil {
			return err
		}
		if len(r.values)-before > maxValues {
			return invalidError("a claim that revocations can name has more than 64 values")
		}
		if s.next() != ',' {
			return nil
		}
		s.pos++
	}
}
