package issuer

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"time"
)

const signedAnswerType = "token-introspection+jwt" // RFC 9701, section 5

// openSigned verifies a signed answer (RFC 9701, section 5) to a question that
// was asked at that time, and returns the JSON object that it carries. The error
// wraps [ErrIntrospectionUnavailable].
//
// Such a JWT does not say which token it is about. That iat is not older than
// the question, give or take the leeway, is all that keeps an earlier answer
// from being presented again; TLS does the rest.
func (i *Issuer) openSigned(ctx context.Context, answer []byte, audience string, asked time.Time) ([]byte, error) {
	token := string(answer)
	if strings.Count(token, ".") == 4 {
		return nil, unavailable("the answer is encrypted, which is not supported: register us for signed answers only")
	}
	if isNested(token) {
		return nil, unavailable("the answer is a nested JWT, which is not supported: register us for answers that are signed once")
	}
	r, err := read(token)
	if err != nil {
		return nil, unavailable("reading the signed answer: %s", reason(err))
	}
	defer r.free()
	if typ := normalType(r.typ); typ != signedAnswerType {
		// An access token or an ID token is signed with the same keys.
		return nil, unavailable("the typ of the signed answer is not %s", signedAnswerType)
	}
	alg, err := i.algorithm(r)
	if err != nil {
		return nil, unavailable("verifying the signed answer: %s", reason(err))
	}
	if err := i.checkSignedClaims(r, audience, asked); err != nil {
		return nil, err
	}
	m, found := r.scanner.find("token_introspection")
	if !found || m.kind != kindObject {
		return nil, unavailable("the signed answer has no token_introspection")
	}
	switch _, err := i.verify(ctx, token, r, alg, true); {
	case errors.Is(err, ErrKeysUnavailable):
		return nil, unavailable("verifying the signed answer: %v", err)
	case err != nil:
		return nil, unavailable("verifying the signed answer: %s", reason(err))
	}
	return bytes.Clone(m.value), nil // the reading's buffers are used again
}

// checkSignedClaims checks what a signed answer says of itself.
func (i *Issuer) checkSignedClaims(r *reading, audience string, asked time.Time) error {
	iss, err := r.issuer()
	if err != nil || !i.isCalled(string(iss)) {
		return unavailable("the iss of the signed answer is not the configured issuer or an alias")
	}
	audiences, ok := (&JWT{r}).Texts("aud")
	if !ok || !slices.Contains(audiences, audience) {
		return unavailable("the signed answer is not meant for us: its aud is not %q", audience)
	}
	t, err := r.times()
	if err != nil {
		return unavailable("reading the signed answer: %s", reason(err))
	}
	leeway := int64(time.Duration(i.config.Leeway) / time.Second)
	now := i.now().Unix()
	switch {
	case t.iat == 0:
		return unavailable("the signed answer has no iat")
	case t.iat < asked.Unix()-leeway:
		return unavailable("the signed answer is older than the question")
	case t.iat > now+leeway, t.nbf > now+leeway:
		return unavailable("the signed answer is from the future")
	case t.exp != 0 && now >= t.exp+leeway:
		return unavailable("the signed answer has expired")
	}
	return nil
}

// isNested tells whether the payload of a JWT is another JWT (RFC 7519, section
// 5.2).
func isNested(token string) bool {
	header, _, _ := strings.Cut(token, ".")
	text, err := strictBase64.DecodeString(header)
	if err != nil {
		return false
	}
	var s scanner
	if s.scan(text) != nil {
		return false
	}
	cty, _ := textMember(&s, "cty")
	return normalType([]byte(cty)) == "jwt" && cty != ""
}
