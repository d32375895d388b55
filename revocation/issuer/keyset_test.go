package issuer

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

func TestHeadersThatPointToKeysAreNotFollowed(t *testing.T) {
	as, attacker := revocationtest.NewAuthServer(t), revocationtest.NewAuthServer(t)
	set, _ := trustServer(t, as, nil)
	key := attacker.Key("ES256")
	public := key.Public()
	for name, header := range map[string]map[string]any{
		"jku": {"jku": attacker.URL + revocationtest.JWKSPath},
		"x5u": {"x5u": attacker.URL + revocationtest.JWKSPath},
	} {
		t.Run(name, func(t *testing.T) {
			refuse(t, set, revocationtest.SignWith(t, key, header, as.Claims(nil)), Request{Wait: true}, ErrInvalid)
			// On a good token they do no harm: some issuers send them.
			accept(t, set, revocationtest.SignWith(t, as.Key("ES256"), header, as.Claims(nil)), Request{})
		})
	}
	refuse(t, set, revocationtest.SignWith(t, key, map[string]any{"jwk": public}, as.Claims(nil)), Request{Wait: true}, ErrMalformed)
	if n := attacker.Requests(revocationtest.JWKSPath); n != 0 {
		t.Errorf("%d requests to the attacker", n)
	}
}

func TestOneBadKeyDoesNotSpoilTheSet(t *testing.T) {
	good := revocationtest.NewKey(t, "ES256", "good")
	text, _ := json.Marshal(good.Public())
	private, _ := json.Marshal(good)
	set := `{"keys":[
		5, null, "x", {}, {"kty":"XYZ"}, {"kty":"oct","k":"c2VjcmV0"}, {"kty":"RSA","n":"AQAB","e":"AQAB"},
		{"kty":"RSA","n":"` + strings.Repeat("_", 171) + `","e":"AQAB","kid":"1024 bits"},
		{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}, {"kty":"EC","crv":"secp256k1","x":"AA","y":"AA"},
		{"kty":"OKP","crv":"X25519","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"},
		` + string(private) + `,
		` + strings.Replace(string(text), `"sig"`, `"enc"`, 1) + `,
		` + strings.Replace(string(text), `"ES256"`, `"RS256"`, 1) + `,
		` + strings.Replace(string(text), `"ES256"`, `"ECDH-ES"`, 1) + `,
		` + strings.Replace(string(text), `"kty"`, `"key_ops":["deriveKey"],"kty"`, 1) + `,
		` + strings.Replace(string(text), `"kty"`, `"x5c":["broken"],"x5u":":","key_ops":["verify"],"kty"`, 1) + `,
		` + string(text) + `]}`
	keys, skipped, err := parseKeySet([]byte(set))
	if err != nil {
		t.Fatal(err)
	}
	if len(keys) != 1 || keys[0].id != "good" || len(skipped) != 16 {
		t.Errorf("%d keys, %d skipped: %s", len(keys), len(skipped), strings.Join(skipped, "\n"))
	}
	for _, s := range skipped {
		if strings.Contains(s, "c2VjcmV0") {
			t.Errorf("a secret in %q", s)
		}
	}
	for name, bad := range map[string]string{
		"no set": `[]`, "no keys": `{}`, "keys null": `{"keys":null}`, "empty": `{"keys":[]}`, "none usable": `{"keys":[{"kty":"oct","k":"AA"}]}`,
		"HTML": `<html>`, "in another case": `{"keys":{}}`,
	} {
		if _, _, err := parseKeySet([]byte(bad)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	var many []string
	for n := range maxKeys + 5 {
		many = append(many, strings.Replace(string(text), `"good"`, fmt.Sprintf(`"k%d"`, n), 1))
	}
	keys, skipped, err = parseKeySet([]byte(`{"keys":[` + strings.Join(many, ",") + `]}`))
	if err != nil || len(keys) != maxKeys || len(skipped) != 1 {
		t.Errorf("%d keys, %d skipped, %v", len(keys), len(skipped), err)
	}
}
