package issuer

// JWT is what a signed JWT says of itself. Nothing of it is proven before
// [KeySource.Verify] has succeeded.
type JWT struct{ reading *reading }

// ReadJWT takes a signed JWT in compact form apart. It is as strict as the
// reader of access tokens: canonical base64url; JSON without duplicate names; no
// critical header parameters, no embedded key; at most 16 KiB. The keys that a
// header points to (jku, x5u) or carries are never looked at. Errors wrap
// [ErrMalformed] or [ErrNotJWT] and quote nothing of the token.
func ReadJWT(token string) (*JWT, error) {
	r, err := read(token)
	if err != nil {
		return nil, err
	}
	return &JWT{r}, nil // not freed: the JWT keeps the buffers
}

// Algorithm returns the alg of the header.
func (j *JWT) Algorithm() string { return string(j.reading.alg) }

// Type returns the typ of the header in lower case and without "application/",
// "jwt" if there is none.
func (j *JWT) Type() string { return normalType(j.reading.typ) }

// Text returns a claim that is a string; ok is false if it is missing or
// something else. Names are case-sensitive.
func (j *JWT) Text(claim string) (text string, ok bool) {
	m, found := j.reading.scanner.find(claim)
	if !found {
		return "", false
	}
	switch m.kind {
	case kindString:
		return string(m.value), true
	case kindEscaped:
		return string(unescape(nil, m.value)), true
	default:
		return "", false
	}
}

// Texts returns a claim that is a string or an array of strings; ok is false if
// it is missing or something else.
func (j *JWT) Texts(claim string) (texts []string, ok bool) {
	m, found := j.reading.scanner.find(claim)
	if !found || m.kind != kindArray {
		text, ok := j.Text(claim)
		return []string{text}, ok
	}
	var s scanner
	s.reset(m.value)
	for s.pos = 1; ; s.pos++ { // past the bracket or a comma; the text was checked
		if s.next() == ']' {
			return texts, true
		}
		value, kind, err := s.value()
		switch {
		case err != nil, kind != kindString && kind != kindEscaped:
			return nil, false
		case kind == kindEscaped:
			value = unescape(nil, value)
		}
		texts = append(texts, string(value))
		if s.next() == ']' {
			return texts, true
		}
	}
}

// Use returns what the JWT says that it is for: by the typ of an access token (RFC
// 9068), or by token_use, typ or token_type among its claims. A token_type of
// Bearer says that it is an access token, as in RFC 6749.
func (j *JWT) Use() TokenUse {
	use := tokenUse(&j.reading.scanner)
	if use == UseUnknown && j.Type() == "at+jwt" {
		return UseAccess
	}
	return use
}

// Times returns exp, nbf and iat in Unix seconds, zero for those that are
// missing; exp and nbf are rounded up, iat down. The error wraps [ErrMalformed].
func (j *JWT) Times() (exp, nbf, iat int64, err error) {
	t, err := j.reading.times()
	return t.exp, t.nbf, t.iat, err
}
