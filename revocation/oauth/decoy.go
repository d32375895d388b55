package oauth

import (
	"context"
	"crypto/rand"
	"strings"

	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
)

// decoyJWKS has a public key of each kind, whose private keys were thrown away.
const decoyJWKS = `{"keys":[
{"kty":"RSA","n":"y6mT7-WwHJD7UY6dYG7pIUVTrk8ao-CZQlMgzOTLHkcBXO09wlyT-PljuXD5e7Y0gzIBCowXYNnzsmQOxmoAdBzFVoqpZ35HWf7HUczChp0hnMeALgySE15TqMfQqZ1MzNNDAv2IP_WOBV9GfhG64TFMwzgaVX98KmTAazVdqLyBWnTk3sCh14RJRGwRikJghbyLJqSG9Psjkwh6qa_-HgrPZ9oLlvCxsiGjormKC8rEGr1_t_Cv8ckREkL3ACnnHQYFju-mnZ6loN5w3UJQ5njOEV7PsKBgya5AWvfmMzWYmK7XrgE0DHZN6-d_nP4MUZWi7BrMqO3cTALaXXQRxQ","e":"AQAB"},
{"kty":"EC","crv":"P-256","x":"lV49Rrk0v7gNu2Wp5NAsQ-f3wxjpRL1WNddaJ73fgsY","y":"_bSy5wWy3lJtvXYYpuTJ7qMISGLOWH1ViUChOkRFrHM"},
{"kty":"EC","crv":"P-384","x":"d2zRWxXOEdqQqbA4ZUsXEsMSS1-VbH5Z8Wmy1TUVam6a6G3KxaL4uKOitD48WD1D","y":"bDjYYvz4fOaT1HtJP7t1n9pUmrUp72Ly8yLvym9tT3Y4UIUViQVV9TaGqhxVIPKJ"},
{"kty":"EC","crv":"P-521","x":"AHDVpxfacr-6_VQcOr3FA5mwPcrN_rSaD4o5Zk6zE5F64u6oo3q4QngOrS0ST_qeSolYe2WkkgdPOjrpWhAFxKYo","y":"AX6DOp_t3LIn4tKqptMuwvXHTqw-kQq5haddDsISCQtfY2n113-ZZfQ32zsmUlSRncMx8OcHuPjstLC10-ue91IY"},
{"kty":"OKP","crv":"Ed25519","x":"dBFaKhStdBTLv2P5LNg3kVqZBDUvcwWtZMexAakvlI4"}]}`

// decoyKeys stand for the keys of unknown clients, so that refusing one takes
// about as long as a signature that does not verify. They have no names: like a
// client's only key, they are tried whatever kid an assertion has.
type decoyKeys struct{ public, shared *issuer.KeySource }

func newDecoyKeys() decoyKeys {
	public, err := issuer.NewKeySource(issuer.KeySourceConfig{JWKS: []byte(decoyJWKS)}, issuer.Options{})
	if err != nil {
		panic(err) // a constant, checked by a test
	}
	secret := make([]byte, 64)
	_, _ = rand.Read(secret) // never fails (crypto/rand)
	shared, err := issuer.NewKeySource(issuer.KeySourceConfig{Secrets: []string{string(secret)}}, issuer.Options{})
	if err != nil {
		panic(err) // likewise
	}
	return decoyKeys{public, shared}
}

// verify does the work of a verification, and throws the verdict away. An
// algorithm that no client can have costs nothing, as with a client's own keys.
func (d decoyKeys) verify(ctx context.Context, j *issuer.JWT) {
	keys := d.public
	if strings.HasPrefix(j.Algorithm(), "HS") {
		keys = d.shared
	}
	_ = keys.Verify(ctx, j)
}

// DecoyOf returns what unknown clients of a store are compared with: its own
// decoys, or for a store without any bcrypt at its usual cost, of a secret that
// nobody knows.
func DecoyOf(clients ClientStore) func(id string) *Client {
	if s, ok := clients.(DecoyStore); ok {
		return s.Decoy
	}
	const hash = "$2a$10$rBfBzofu1oW/p3ssfNEXXe.r05P6L0ykKSWt7SvjtcHq2Iir0Ahiq"
	decoy := &Client{Secrets: []Secret{newSecret(bcryptSecret(hash), hash)}}
	return func(string) *Client { return decoy }
}
