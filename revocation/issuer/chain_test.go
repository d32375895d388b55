package issuer

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"math/big"
	"testing"

	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// A certificate chain in the header is never trusted, and must be one.
func TestCertificateChainsInHeadersAreCheckedAndNotTrusted(t *testing.T) {
	as := revocationtest.NewAuthServer(t)
	set, _ := trustServer(t, as, nil)
	key := as.Key("ES256")
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public().Key, key.Key)
	if err != nil {
		t.Fatal(err)
	}
	good := base64.StdEncoding.EncodeToString(der)
	for name, c := range map[string]struct {
		chain any
		ok    bool
	}{
		"a chain":                 {[]string{good}, true},
		"two certificates":        {[]string{good, good}, true},
		"an empty chain":          {[]string{}, true},
		"a number":                {5, false},
		"a text":                  {good, false},
		"null in it":              {[]any{nil}, false},
		"a number in it":          {[]any{5}, false},
		"not base64":              {[]string{"%"}, false},
		"base64url":               {[]string{base64.RawURLEncoding.EncodeToString(der)}, false},
		"not a certificate":       {[]string{"AAAA"}, false},
		"one of two is a forgery": {[]string{good, "AAAA"}, false},
	} {
		token := revocationtest.SignWith(t, key, map[string]any{"x5c": c.chain}, as.Claims(nil))
		_, _, err := set.Identify(context.Background(), token, Request{Wait: true})
		if c.ok && err != nil || !c.ok && !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	stranger := revocationtest.NewKey(t, "ES256", "stranger")
	forged := revocationtest.SignWith(t, stranger, map[string]any{"x5c": []string{good}, "kid": key.KeyID}, as.Claims(nil))
	if _, _, err := set.Identify(context.Background(), forged, Request{Wait: true}); !errors.Is(err, ErrInvalid) {
		t.Errorf("a stranger's token with the issuer's certificate: %v", err)
	}
}
