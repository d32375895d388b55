package issuer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// identify verifies what was read and returns its identity, and what the token is
// for: [UseRefresh] only if req asks for refresh tokens too.
//
// What costs nothing is checked first, so that garbage is refused before a
// signature is computed. None of these checks lets anything pass: the signature
// decides last.
func (i *Issuer) identify(ctx context.Context, token string, r *reading, req Request) (*revocation.Identity, TokenUse, error) {
	alg, err := i.algorithm(r)
	if err != nil {
		return nil, UseUnknown, err
	}
	use := UseAccess
	if err := i.types.check(r); err != nil {
		if !req.Refresh || !errors.Is(err, errRefreshToken) {
			return nil, UseUnknown, err
		}
		use = UseRefresh
	}
	t, err := r.times()
	if err != nil {
		return nil, UseUnknown, err
	}
	if err := i.checkTimes(t, req.IgnoreExpiry); err != nil {
		return nil, UseUnknown, err
	}
	if !req.IgnoreAudience {
		if err := i.checkAudience(r); err != nil {
			return nil, UseUnknown, err
		}
	}
	key, err := i.verify(ctx, token, r, alg, req.Wait)
	if err != nil {
		return nil, UseUnknown, err
	}
	id, err := r.makeIdentity(i.config.Issuer, &i.claims, req.ClaimNames, t, key.thumbprint)
	if err != nil {
		return nil, UseUnknown, err
	}
	id.Verified = true
	id.Aliases = i.config.Aliases
	return id, use, nil
}

// algorithm returns the token's algorithm if it is one of the issuer's. Names
// are case-sensitive, and "none" in any spelling is on no list. An unsigned token is
// nobody's; one with another algorithm may be the issuer's refresh token, and the
// error tells what it says that it is.
func (i *Issuer) algorithm(r *reading) (jose.SignatureAlgorithm, error) {
	for _, alg := range i.algs {
		if string(r.alg) == string(alg) {
			return alg, nil
		}
	}
	if strings.EqualFold(string(r.alg), "none") {
		return "", errAlgorithm
	}
	return "", errAlgorithms[UseOf(i.types.check(r))]
}

const errAlgorithm = invalidError("its algorithm is not accepted")

// errAlgorithms are the errors for tokens that say that they are for this use.
var errAlgorithms = [...]*otherKindError{
	UseUnknown: {"its algorithm is not accepted", UseUnknown},
	UseRefresh: {"its algorithm is not accepted", UseRefresh},
	UseOther:   {"its algorithm is not accepted", UseOther},
}

// verify returns the key that the token is signed with.
func (i *Issuer) verify(ctx context.Context, token string, r *reading, alg jose.SignatureAlgorithm, wait bool) (*key, error) {
	return i.keys.verify(ctx, token, r, alg, wait)
}

// verify returns the key that the token is signed with; alg is the token's, and
// accepted.
func (k *keyring) verify(ctx context.Context, token string, r *reading, alg jose.SignatureAlgorithm, wait bool) (*key, error) {
	return k.find(ctx, r.kid, wait, func(set *keySet) (*key, bool) {
		found, known, _ := set.verify(token, r, alg)
		return found, known
	})
}

// verify returns the key of the set that the token is signed with; if there is
// none, whether a key of the token's kid is known. tried is how many were tried.
func (s *keySet) verify(token string, r *reading, alg jose.SignatureAlgorithm) (found *key, known bool, tried int) {
	var room [maxCandidates]*key
	candidates, byID := s.candidates(room[:0], r.kid, r.hasKid, alg)
	for i, candidate := range candidates {
		if verifySignature(token, r.payload, alg, candidate) {
			return candidate, true, i + 1
		}
	}
	return nil, byID || r.hasKid && s.has(string(r.kid)), len(candidates)
}

// errNotAgain says that a key is not known, and that its owner was asked for keys
// too often of late to be asked at once.
var errNotAgain = fmt.Errorf("%w: the token's key is not known yet", ErrKeysUnavailable)

// find returns the key that match finds in the set; if match finds none, it says
// whether a key of that name is known.
//
// That no known key fits proves nothing while the owner may have published
// another one. Only an answer that was asked for after the token was presented
// does; until then the error is [ErrKeysUnavailable].
func (k *keyring) find(ctx context.Context, kid []byte, wait bool, match func(*keySet) (found *key, known bool)) (*key, error) {
	for asked := false; ; {
		found, known := match(k.current.Load())
		if found != nil {
			return found, nil
		}
		// A secret does not rotate behind our back.
		known = known || k.load == nil
		// Without waiting, an answer of a moment ago is the best there is.
		if asked || k.load == nil || !wait && k.isAbsent(kid) {
			return nil, invalidError("its signature does not verify")
		}
		flight, proof := k.ask(kid)
		wait := wait && flight != nil && !flight.due.After(time.Now())
		switch {
		case known && !wait:
			// The owner may have reused the kid for another key; the load that
			// was asked for will tell, for the next token.
			return nil, invalidError("its signature does not verify")
		case flight == nil:
			return nil, fmt.Errorf("%w: the token's key is not known, and nothing loads keys", ErrKeysUnavailable)
		case !wait:
			return nil, errNotAgain
		}
		select {
		case <-flight.done:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", ErrKeysUnavailable, context.Cause(ctx))
		}
		if flight.err != nil {
			return nil, fmt.Errorf("%w: %w", ErrKeysUnavailable, flight.err)
		}
		asked = proof
	}
}

// verifySignature tells whether key verifies the token, and whether what it
// verifies is the payload that we have read.
func verifySignature(token string, payload []byte, alg jose.SignatureAlgorithm, k *key) bool {
	// The parser takes no algorithm but this one, which is on the issuer's list
	// and agrees with the key.
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{alg})
	if err != nil {
		return false
	}
	public := k.public
	if s, ok := public.(secret); ok {
		public = []byte(s)
	}
	verified, err := jws.Verify(public)
	return err == nil && bytes.Equal(verified, payload)
}

// times are the time claims of a token in Unix seconds; zero if absent.
type times struct {
	iat, authTime, nbf, exp int64
}

// times reads the time claims. The errors wrap [ErrMalformed].
func (r *reading) times() (t times, err error) {
	for _, c := range [...]struct {
		claim   int
		into    *int64
		roundUp bool
	}{
		{claimIat, &t.iat, false}, {claimAuthTime, &t.authTime, false}, {claimNbf, &t.nbf, true}, {claimExp, &t.exp, true},
	} {
		m := r.registered[c.claim]
		if m.name == nil || m.kind == kindNull {
			continue
		}
		if *c.into, err = numericDate(m, c.roundUp); err != nil {
			return t, err
		}
		if c.into == &t.exp {
			t.exp = max(t.exp, 1) // zero would mean that there is none
		}
	}
	return t, nil
}

// checkTimes checks exp, nbf, iat and the token's lifetime. A longer-lived token
// than the issuer's would outlast a revocation of its user, client or session,
// which is kept for as long as the issuer's tokens live.
func (i *Issuer) checkTimes(t times, ignoreExpiry bool) error {
	if ignoreExpiry {
		return nil
	}
	now := i.now()
	leeway := int64(time.Duration(i.config.Leeway) / time.Second)
	lifetime := int64(time.Duration(i.config.MaxTokenLifetime) / time.Second)
	switch {
	case t.exp == 0 && !i.config.AllowMissingExpiry:
		return invalidError("it has no exp")
	case t.exp != 0 && t.iat != 0 && t.exp-t.iat > lifetime,
		t.exp != 0 && t.exp-now.Unix() > lifetime+leeway:
		return invalidError("it lives for longer than the issuer's max_token_lifetime")
	}
	switch {
	case t.exp != 0 && now.Unix() >= t.exp+leeway:
		return ErrExpired
	case t.nbf > now.Unix()+leeway, t.iat > now.Unix()+leeway:
		return ErrNotYetValid
	}
	return nil
}

func (i *Issuer) checkAudience(r *reading) error {
	if len(i.config.Audiences) == 0 {
		return nil
	}
	m, found := r.scanner.find("aud")
	if !found {
		return errAudience
	}
	r.values, r.joined = r.values[:0], r.joined[:0]
	if m.kind == kindArray {
		if err := r.addElements("aud", m.value); err != nil {
			return err
		}
	} else if _, err := r.addScalar("aud", m); err != nil {
		return err
	}
	for _, v := range r.values {
		if slices.Contains(i.config.Audiences, string(r.joined[v.start:v.end])) {
			return nil
		}
	}
	return errAudience
}

const errAudience = invalidError("it is meant for another audience")
