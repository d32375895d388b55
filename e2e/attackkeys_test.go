//go:build e2e

package e2e

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	// hashes
	_ "crypto/sha256"
	_ "crypto/sha512"

	"github.com/go-jose/go-jose/v4"
)

// attackKeys are the keys of the issuers of the attack table, and the server that
// publishes them.
type attackKeys struct {
	rsa, only256, foreign *rsa.PrivateKey
	p256, p384, p521      *ecdsa.PrivateKey
	ed                    ed25519.PrivateKey
	sealing               *ecdsa.PrivateKey // published for encryption
	attacker              *ecdsa.PrivateKey
	secret                string
	server                *httptest.Server
	flooded               atomic.Int64 // fetches of the flooded issuer's keys
	strange               atomic.Int64 // of what no issuer names
}

// hashes are those of the algorithms, by the number at the end of their names.
var hashes = map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}

func newAttackKeys(t testing.TB) *attackKeys {
	t.Helper()
	k := &attackKeys{secret: strings.Repeat("Zg8x", 16)}
	var err error
	made := func(e error) {
		if err = e; err != nil {
			t.Fatal(err)
		}
	}
	for _, into := range []**rsa.PrivateKey{&k.rsa, &k.only256, &k.foreign} {
		*into, err = rsa.GenerateKey(rand.Reader, 2048)
		made(err)
	}
	for curve, into := range map[elliptic.Curve]**ecdsa.PrivateKey{
		elliptic.P256(): &k.p256, elliptic.P384(): &k.p384, elliptic.P521(): &k.p521,
	} {
		*into, err = ecdsa.GenerateKey(curve, rand.Reader)
		made(err)
	}
	k.sealing, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	made(err)
	k.attacker, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	made(err)
	_, k.ed, err = ed25519.GenerateKey(rand.Reader)
	made(err)
	jwk := func(id, alg string, public any) jose.JSONWebKey {
		return jose.JSONWebKey{Key: public, KeyID: id, Algorithm: alg, Use: "sig"}
	}
	own := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
		jwk("rsa", "", k.rsa.Public()), jwk("only256", "RS256", k.only256.Public()),
		jwk("p256", "", k.p256.Public()), jwk("p384", "", k.p384.Public()), jwk("p521", "", k.p521.Public()),
		jwk("ed", "", k.ed.Public()), jwk("symmetric", "", []byte(k.secret)),
		{Key: k.sealing.Public(), KeyID: "sealing", Use: "enc"},
	}}
	foreign := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{jwk("foreign", "", k.foreign.Public())}}
	flooded := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{jwk("p256", "", k.p256.Public())}}
	k.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		set := own
		switch r.URL.Path {
		case "/own":
		case "/foreign":
			set = foreign
		case "/flooded":
			k.flooded.Add(1)
			set = flooded
		default:
			k.strange.Add(1)
			set = jose.JSONWebKeySet{Keys: []jose.JSONWebKey{jwk("attacker", "", k.attacker.Public())}}
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(set)
	}))
	t.Cleanup(k.server.Close)
	return k
}

// keyOf returns the key of the first issuer, or that of the one with a secret,
// for an algorithm, and its kid.
func (k *attackKeys) keyOf(alg string) (key any, kid string) {
	switch alg {
	case "ES256":
		return k.p256, "p256"
	case "ES384":
		return k.p384, "p384"
	case "ES512":
		return k.p521, "p521"
	case "EdDSA":
		return k.ed, "ed"
	case "HS256", "HS384", "HS512":
		return []byte(k.secret), ""
	default:
		return k.rsa, "rsa"
	}
}

// sign returns the compact form of a JWS. It signs anything, under any header.
func sign(alg string, key any, header, payload string) string {
	input := encode([]byte(header)) + "." + encode([]byte(payload))
	return input + "." + encode(signature(alg, key, input))
}

func signature(alg string, key any, input string) []byte {
	hash := hashes[alg[len(alg)-3:]]
	var digest []byte
	if hash != 0 {
		h := hash.New()
		h.Write([]byte(input))
		digest = h.Sum(nil)
	}
	var sig []byte
	var err error
	switch key := key.(type) {
	case *rsa.PrivateKey:
		if strings.HasPrefix(alg, "PS") {
			sig, err = rsa.SignPSS(rand.Reader, key, hash, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		} else {
			sig, err = rsa.SignPKCS1v15(rand.Reader, key, hash, digest)
		}
	case *ecdsa.PrivateKey:
		var r, s *big.Int
		if r, s, err = ecdsa.Sign(rand.Reader, key, digest); err == nil {
			size := (key.Params().BitSize + 7) / 8
			sig = append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...)
		}
	case ed25519.PrivateKey:
		sig = ed25519.Sign(key, []byte(input))
	case []byte:
		mac := hmac.New(hash.New, key)
		mac.Write([]byte(input))
		sig = mac.Sum(nil)
	default:
		err = fmt.Errorf("no signature by a %T", key)
	}
	if err != nil {
		panic(err) // the table's own mistake
	}
	return sig
}

// twinOf returns the token whose signature (r, n-s) verifies as (r, s) does.
func twinOf(t testing.TB, token string, curve elliptic.Curve) string {
	t.Helper()
	p := parts(t, token)
	sig := decode(t, p[2])
	half := len(sig) / 2
	s := new(big.Int).SetBytes(sig[half:])
	s.Sub(curve.Params().N, s).FillBytes(sig[half:])
	p[2] = encode(sig)
	return strings.Join(p[:], ".")
}

// publicForms are the bytes of a public key that a confused verifier might take
// for the secret of an HMAC.
func publicForms(key *rsa.PublicKey) map[string][]byte {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		panic(err)
	}
	jwk, err := json.Marshal(jose.JSONWebKey{Key: key})
	if err != nil {
		panic(err)
	}
	spki := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	return map[string][]byte{
		"PEM": spki, "PEM without its last line break": spki[:len(spki)-1], "DER": der, "PKCS #1": x509.MarshalPKCS1PublicKey(key),
		"PKCS #1 PEM": pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(key)}),
		"modulus":     key.N.Bytes(), "JWK": jwk, "nothing": nil,
	}
}
