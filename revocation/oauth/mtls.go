package oauth

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
)

// CertificateName is the name by which the certificate of a client is recognised
// (RFC 8705, section 2.1.2). Exactly one field is set.
type CertificateName struct {
	// SubjectDN is the subject as RFC 4514 writes it: "CN=app,O=Example,C=DE",
	// the most specific part first. All of it is compared, byte by byte.
	SubjectDN string
	// DNS, URI, IP and Email are values that a subject alternative name of that
	// type has. A wildcard in a certificate matches itself only.
	DNS   string
	URI   string
	IP    string
	Email string
}

// matcher returns what tells whether a certificate has that name.
func (n CertificateName) matcher() (func(*x509.Certificate) bool, error) {
	given := 0
	for _, s := range []string{n.SubjectDN, n.DNS, n.URI, n.IP, n.Email} {
		if s != "" {
			given++
		}
	}
	if given != 1 {
		return nil, errors.New("a certificate is recognised by exactly one name")
	}
	switch {
	case n.SubjectDN != "":
		want, err := parseDN(n.SubjectDN)
		if err != nil {
			return nil, fmt.Errorf("reading the subject %q: %w", n.SubjectDN, err)
		}
		return func(c *x509.Certificate) bool { return want.matches(c.RawSubject) }, nil
	case n.DNS != "":
		if strings.ContainsAny(n.DNS, " :/@") {
			return nil, fmt.Errorf("%q is no DNS name", n.DNS)
		}
		return func(c *x509.Certificate) bool {
			return slices.ContainsFunc(c.DNSNames, func(name string) bool { return equalASCIIFold(name, n.DNS) })
		}, nil
	case n.URI != "":
		u, err := url.Parse(n.URI)
		if err != nil || u.Scheme == "" {
			return nil, fmt.Errorf("%q is no absolute URI", n.URI)
		}
		if u.String() != n.URI {
			return nil, fmt.Errorf("the URI %q has to be written %q", n.URI, u)
		}
		return func(c *x509.Certificate) bool {
			return slices.ContainsFunc(c.URIs, func(u *url.URL) bool { return u.String() == n.URI })
		}, nil
	case n.IP != "":
		want, err := netip.ParseAddr(n.IP)
		if err != nil || want.Zone() != "" {
			return nil, fmt.Errorf("%q is no IP address", n.IP)
		}
		return func(c *x509.Certificate) bool {
			for _, ip := range c.IPAddresses {
				if got, ok := netip.AddrFromSlice(ip); ok && got.Unmap() == want.Unmap() {
					return true
				}
			}
			return false
		}, nil
	default:
		if !strings.Contains(n.Email, "@") {
			return nil, fmt.Errorf("%q is no e-mail address", n.Email)
		}
		return func(c *x509.Certificate) bool { return slices.Contains(c.EmailAddresses, n.Email) }, nil
	}
}

// equalASCIIFold compares as DNS does. Folding more than ASCII would make names
// equal that authorities take for different ones.
func equalASCIIFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		x, y := a[i], b[i]
		if x != y && (x|0x20 != y|0x20 || x|0x20 < 'a' || x|0x20 > 'z') {
			return false
		}
	}
	return true
}

// byCertificate tells whether the certificate that was presented in the TLS
// handshake is the client's. The handshake has proven that whoever sent this
// request holds its key.
func (u *authenticator) byCertificate(ctx context.Context, client *Client, state *tls.ConnectionState) (AuthMethod, error) {
	if state == nil || len(state.PeerCertificates) == 0 {
		return "", errors.New("no client certificate was presented")
	}
	leaf := state.PeerCertificates[0]
	if client.allows(AuthTLS) {
		now := u.now()
		switch {
		case len(state.VerifiedChains) == 0:
			// Anybody can write any name into a certificate.
			return "", errors.New("the client certificate was not verified by the server: it has to ask for certificates and to verify them")
		case now.Before(leaf.NotBefore) || now.After(leaf.NotAfter):
			return "", errors.New("the client certificate has expired since the connection was made")
		case client.matches == nil || !client.matches(leaf):
			return "", errors.New("the client certificate has another name")
		}
		return AuthTLS, nil
	}
	// The certificate is registered as it is, so that neither its issuer nor its
	// dates say anything (RFC 8705, section 2.2).
	if slices.Contains(client.Certificates, sha256.Sum256(leaf.Raw)) {
		return AuthSelfSignedTLS, nil
	}
	if client.Keys == nil {
		return "", errors.New("the client certificate is not registered")
	}
	known, err := client.Keys.Contains(ctx, leaf.PublicKey)
	switch {
	case errors.Is(err, issuer.ErrKeysUnavailable):
		u.log.WarnContext(ctx, "the keys of a client are unavailable", "client_id", client.ID, "error", err)
		return "", unavailable(descNoKeys, u.retryAfter)
	case err != nil:
		return "", err
	case !known:
		return "", errors.New("the key of the client certificate is not registered")
	}
	return AuthSelfSignedTLS, nil
}
