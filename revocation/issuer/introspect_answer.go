package issuer

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// unavailable returns an error that wraps [ErrIntrospectionUnavailable].
func unavailable(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrIntrospectionUnavailable}, args...)...)
}

// reason returns why a text could not be read, without the class of the error:
// it is the answer that is malformed, not the token.
func reason(err error) string {
	var m malformedError
	var i invalidError
	switch {
	case errors.As(err, &m):
		return string(m)
	case errors.As(err, &i):
		return string(i)
	default:
		return err.Error()
	}
}

// activeAnswer is the answer that a token is active. It is immutable, but for
// the identity, which is made again when other claims are asked for.
type activeAnswer struct {
	text   []byte // the JSON object (RFC 7662, section 2.2)
	token  string // what [revocation.ClaimToken] is
	use    TokenUse
	expiry int64     // Unix seconds, rounded up; zero if there is none
	asked  time.Time // when the question was asked
	seq    uint64    // of the flight: a higher one was asked later

	view atomic.Pointer[answerView]
}

// answerView is what an answer says under certain claim names.
type answerView struct {
	names    []string // as requested
	id       *revocation.Identity
	audience error // nil if the token is meant for us
}

// readAnswer reads an answer, which is one JSON object, about the token that has
// this hash. Only the literal true is active, only the literal false is
// inactive: the error then wraps [ErrInactive]. Anything else says nothing and
// wraps [ErrIntrospectionUnavailable].
func (i *Issuer) readAnswer(text []byte, token string) (*activeAnswer, error) {
	r := readings.Get().(*reading)
	defer r.free()
	if err := r.scanner.scan(text); err != nil {
		return nil, unavailable("reading the answer: %s", reason(err))
	}
	m, found := r.scanner.find("active")
	switch {
	case !found:
		return nil, unavailable("reading the answer: it has no active")
	case m.kind == kindFalse:
		return nil, errSaysInactive
	case m.kind != kindTrue:
		return nil, unavailable("reading the answer: active is neither true nor false")
	}
	if err := i.checkAnswerIssuer(&r.scanner); err != nil {
		return nil, err
	}
	a := &activeAnswer{text: text, token: token, use: tokenUse(&r.scanner)}
	v, err := i.makeView(r, token, nil)
	if err != nil {
		return nil, err
	}
	a.view.Store(v)
	a.expiry = v.id.Expiry
	if err := i.checkExpired(a.expiry); err != nil {
		return nil, err
	}
	return a, nil
}

// checkAnswerIssuer refuses the answer about a token of somebody else. It may
// leave the issuer out (RFC 7662, section 2.2).
func (i *Issuer) checkAnswerIssuer(s *scanner) error {
	m, found := s.find("iss")
	if !found || m.kind == kindNull {
		return nil
	}
	iss, ok := textMember(s, "iss")
	if !ok || !i.isCalled(iss) {
		return unavailable("reading the answer: its iss is not the configured issuer or an alias")
	}
	return nil
}

// isCalled tells whether name is the issuer's name or one of its aliases.
func (i *Issuer) isCalled(name string) bool {
	return name == i.config.Issuer || slices.Contains(i.config.Aliases, name)
}

// checkExpired returns an error that wraps [ErrInactive] if exp is over, leeway
// included, whatever the authorization server says.
func (i *Issuer) checkExpired(exp int64) error {
	if exp != 0 && i.now().Unix() >= exp+int64(time.Duration(i.config.Leeway)/time.Second) {
		return errOver
	}
	return nil
}

var (
	errSaysInactive = fmt.Errorf("%w: the authorization server says so", ErrInactive)
	errOver         = fmt.Errorf("%w: its exp is over", ErrInactive)
)

// viewOf returns the view of a under names, and keeps it: most callers ask for
// the same. The error wraps [ErrIntrospectionUnavailable].
func (i *Issuer) viewOf(a *activeAnswer, names []string) (*answerView, error) {
	v := a.view.Load()
	if slices.Equal(v.names, names) {
		return v, nil
	}
	v, err := i.newView(a, names)
	if err != nil {
		// Without these names it could be read: see readAnswer.
		return nil, fmt.Errorf("%w: %w", ErrUnnameable, err)
	}
	a.view.Store(v)
	return v, nil
}

// newView makes the view of a under names.
func (i *Issuer) newView(a *activeAnswer, names []string) (*answerView, error) {
	r := readings.Get().(*reading)
	defer r.free()
	if err := r.scanner.scan(a.text); err != nil {
		return nil, unavailable("reading the answer: %s", reason(err))
	}
	return i.makeView(r, a.token, names)
}

// makeView makes the view of the answer that r has scanned. A claim that no
// revocation could be compared with is an error that wraps
// [ErrIntrospectionUnavailable]: the token is alive, so it is not invalid; but
// nobody can tell whether it is revoked.
func (i *Issuer) makeView(r *reading, token string, names []string) (*answerView, error) {
	// There is no token here to hash; its hash is put in below.
	r.raw, r.signed, r.scratch = r.raw[:0], 0, r.scratch[:0]
	r.findRegistered()
	t, err := r.times()
	if err != nil {
		return nil, unavailable("reading the answer: %s", reason(err))
	}
	if t.exp == 1 {
		// Zero, which reads as one, is how some servers write that a token has no
		// end. Since this one says that it is active, it can't mean 1970.
		t.exp, _ = numericDate(r.registered[claimExp], true)
	}
	id, err := r.makeIdentity(i.config.Issuer, &i.claims, names, t, "")
	if err != nil {
		return nil, unavailable("reading the answer: %s", reason(err))
	}
	for n := range id.Claims {
		if id.Claims[n].Name == revocation.ClaimToken {
			id.Claims[n].Value = token // the only one of its name: the order stays
		}
	}
	id.Verified = true
	id.Aliases = i.config.Aliases
	return &answerView{names: slices.Clone(names), id: id, audience: i.checkAudience(r)}, nil
}

// findRegistered looks the claims up that [reading.times] reads.
func (r *reading) findRegistered() {
	for n, name := range [registeredClaims]string{
		claimIss: "iss", claimExp: "exp", claimIat: "iat", claimNbf: "nbf", claimAuthTime: "auth_time",
	} {
		r.registered[n], _ = r.scanner.find(name)
	}
}

// textMember returns a member of the outermost object that is a string.
func textMember(s *scanner, name string) (string, bool) {
	m, found := s.find(name)
	switch {
	case found && m.kind == kindString:
		return string(m.value), true
	case found && m.kind == kindEscaped:
		return string(unescape(nil, m.value)), true
	}
	return "", false
}

// tokenUse finds out what kind of token an answer is about. RFC 7662 has no
// member for that: token_type is meant for access tokens, but some servers write
// refresh_token there; Ory Hydra has token_use, Keycloak typ. If they disagree,
// the token is what it may be used for least.
func tokenUse(s *scanner) TokenUse {
	use := UseUnknown
	for _, name := range []string{"token_use", "token_type", "typ"} {
		text, _ := textMember(s, name)
		text = strings.TrimPrefix(strings.ToLower(text), kindURN)
		switch text {
		case "bearer", "dpop", "pop", "mac", "access_token", "access", "at+jwt":
			use = max(use, UseAccess)
		case "refresh_token", "refresh", "offline", "offline_token", "rt+jwt", "refresh+jwt":
			use = max(use, UseRefresh)
		case "id_token", "id", "logout", "logout_token", "logout+jwt":
			use = max(use, UseOther)
		}
	}
	return use
}

// cost is about how many bytes the answer takes while it is kept: the text, the
// identity made of it, and what is the same for all.
func (a *activeAnswer) cost() int64 {
	const fixed = 640
	return int64(fixed + 2*len(a.text))
}
