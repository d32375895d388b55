package issuer

// confirmation returns what the token is bound to by its cnf claim (RFC 7800):
// the thumbprint of a client certificate (RFC 8705, section 3.1) and that of a
// key for proofs (RFC 9449, section 6.1). Other members of cnf are ignored, as
// RFC 7800, section 3.1, asks. A cnf that can't be read is an error that wraps
// [ErrInvalid]: a bound token must not pass as one that anybody may present.
func (r *reading) confirmation() (certificate, proofKey string, err error) {
	m, found := r.scanner.find("cnf")
	switch {
	case !found || m.kind == kindNull:
		return "", "", nil
	case m.kind != kindObject:
		return "", "", errConfirmation
	}
	return readConfirmation(m.value)
}

// readConfirmation is a function of its own so that tokens without cnf, which most
// are, cost no allocation.
func readConfirmation(object []byte) (certificate, proofKey string, err error) {
	var s scanner
	if err := s.scan(object); err != nil {
		return "", "", errConfirmation
	}
	for name, into := range map[string]*string{"x5t#S256": &certificate, "jkt": &proofKey} {
		m, found := s.find(name)
		if !found {
			continue
		}
		if m.kind == kindEscaped {
			m.value = unescape(nil, m.value)
		}
		if m.kind > kindEscaped || len(m.value) == 0 || len(m.value) > maxThumbprint {
			return "", "", errConfirmation
		}
		*into = string(m.value)
	}
	return certificate, proofKey, nil
}

const (
	errConfirmation = invalidError("its cnf can't be read")
	maxThumbprint   = 128 // bytes; that of a SHA-256 has 43
)
