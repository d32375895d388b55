package issuer

import (
	"errors"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// What may be alive, and is no access token, is told apart from what is proven to
// be worthless.
func TestOtherKindsOfJWTAreToldApart(t *testing.T) {
	as := revocationtest.NewAuthServer(t)
	set, _ := trustServer(t, as, nil)
	es := as.Key("ES256")
	hs := jose.JSONWebKey{Key: []byte(strings.Repeat("k", 64)), KeyID: "realm", Algorithm: "HS512"}
	refresh := as.Claims(map[string]any{"typ": "Refresh"})
	forged := revocationtest.NewAuthServer(t).Key("ES256")
	forged.KeyID = es.KeyID
	for name, c := range map[string]struct {
		token string
		other bool
	}{
		"refresh token, HS512":        {revocationtest.SignWith(t, hs, map[string]any{"typ": "JWT"}, refresh), true},
		"refresh token, own key":      {revocationtest.SignWith(t, es, map[string]any{"typ": "JWT"}, refresh), true},
		"refresh token by typ":        {revocationtest.SignWith(t, es, map[string]any{"typ": "rt+jwt"}, as.Claims(nil)), true},
		"ID token":                    {revocationtest.SignWith(t, es, nil, as.Claims(map[string]any{"at_hash": "x"})), true},
		"not signed":                  {revocationtest.SignWith(t, hs, map[string]any{"alg": "nOnE"}, refresh), false},
		"not signed, no access token": {revocationtest.SignWith(t, hs, map[string]any{"alg": "none", "typ": "rt+jwt"}, refresh), false},
		"bad signature":               {revocationtest.SignWith(t, forged, map[string]any{"typ": "at+jwt"}, as.Claims(nil)), false},
		"another issuer's":            {revocationtest.SignWith(t, hs, nil, as.Claims(map[string]any{"iss": "https://stranger.example"})), false},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := set.Identify(t.Context(), c.token, Request{Wait: true})
			if errors.Is(err, ErrOtherKind) != c.other || c.other && !errors.Is(err, ErrInvalid) || err == nil {
				t.Errorf("error %v", err)
			}
		})
	}
}

// A JWT without iss is told apart from a broken one, and from one whose iss is no
// name.
func TestAJWTWithoutIssuerIsToldApart(t *testing.T) {
	as := revocationtest.NewAuthServer(t)
	set, _ := trustServer(t, as, nil)
	for iss, none := range map[any]bool{nil: true, "": false, 5: false} {
		claims := as.Claims(nil)
		claims["iss"] = iss
		if iss == nil {
			delete(claims, "iss")
		}
		_, _, err := set.Identify(t.Context(), as.Sign(claims, "ES256"), Request{Wait: true})
		if !errors.Is(err, ErrMalformed) || errors.Is(err, ErrNoIssuer) != none {
			t.Errorf("iss %v: %v", iss, err)
		}
	}
}
