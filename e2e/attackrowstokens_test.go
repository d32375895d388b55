//go:build e2e

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// payload is a JSON object of the claims of an access token, with changes; a nil
// value takes a claim out.
func payload(changes map[string]any) map[string]any {
	now := time.Now().Unix()
	c := map[string]any{
		"iss": attackIssuer, "aud": "api", "sub": "alice", "client_id": "app", "jti": stolen, "iat": now - 10, "exp": now + 3600,
		"name": "long enough to be looked for wherever it arrives",
	}
	maps.Copy(c, changes)
	maps.DeleteFunc(c, func(_ string, value any) bool { return value == nil })
	return c
}

func toJSON(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err) // the table's own mistake
	}
	return string(text)
}

func headerFor(alg, kid string, more map[string]any) string {
	h := map[string]any{"alg": alg}
	if kid != "" {
		h["kid"] = kid
	}
	maps.Copy(h, more)
	return toJSON(h)
}

// token makes a token that is in order but for the changed claims.
func (r *attackRig) token(alg string, changes map[string]any) string {
	key, kid := r.keys.keyOf(alg)
	c := payload(changes)
	if _, changed := changes["iss"]; !changed && strings.HasPrefix(alg, "HS") {
		c["iss"] = secretIssuer
	}
	return sign(alg, key, headerFor(alg, kid, nil), toJSON(c))
}

// raw makes a token of claims as they are written. %s in front of them stands
// for those that every token has.
func (r *attackRig) raw(claims string) string {
	now := time.Now().Unix()
	claims = strings.Replace(claims, "%s", fmt.Sprintf(`"iss":%q,"aud":"api","client_id":"app","iat":%d,"exp":%d,"name":"long enough to be looked for",`, attackIssuer, now-10, now+3600), 1)
	return sign("ES256", r.keys.p256, headerFor("ES256", "p256", nil), claims)
}

// ofToken is a row about a token in the Authorization field. The letters are for
// default and inspect, for verify off, and, if it is not as the default, for the
// route that hands on what is no JWT of a known issuer.
func ofToken(name, letters string, token func() string) attack {
	want := letters[:1] + letters[:1] + "G4" + letters[1:2] + "O" + letters[2:]
	return attack{name: name, request: get("Authorization: Bearer $T"), want: want, token: token}
}

func fixed(token string) func() string { return func() string { return token } }

var attackAlgorithms = []string{
	"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "HS256", "HS384", "HS512",
}

// spellingAttacks are about other spellings of one token: all that a lenient
// decoder takes for the same signature, and the second signature that everybody
// can compute from one of ECDSA.
func (r *attackRig) spellingAttacks() []attack {
	var rows []attack
	curves := map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521()}
	// What is left of 3 bytes in the last group decides about the spare bits.
	spellings := map[string]int{"RS256": 16, "RS384": 16, "RS512": 16, "PS256": 16, "PS384": 16, "PS512": 16, "ES256": 16, "EdDSA": 16, "HS256": 4, "HS512": 16}
	for _, alg := range attackAlgorithms {
		token := r.token(alg, nil)
		tokens := map[string]string{"": token}
		if curve := curves[alg]; curve != nil {
			tokens[" (r,n-s)"] = twinOf(r.t, token, curve)
		}
		for kind, token := range tokens {
			p := parts(r.t, token)
			tails := tailSpellings(p[2])
			if n := max(spellings[alg], 1); len(tails) != n {
				r.t.Errorf("%s: %d spellings of the signature instead of %d", alg, len(tails), n)
			}
			for i, tail := range tails {
				spelled := p[0] + "." + p[1] + "." + tail
				rows = append(rows, ofToken(fmt.Sprintf("%s%s, spelling %d", alg, kind, i), "JJ", fixed(spelled)))
				if alg != "ES256" {
					continue
				}
				// The same in the other places.
				for _, place := range []struct {
					name, want string
					request    wire
				}{
					{"query", inQuery, query("access_token=$T")}, {"cookie", inPlace, get("Cookie: session=$T")},
					{"header", inPlace, get("X-Access-Token: $T")}, {"form", inPlace, form("access_token=$T")},
				} {
					rows = append(rows, attack{name: fmt.Sprintf("%s%s, spelling %d in a %s", alg, kind, i, place.name), request: place.request, want: place.want, token: fixed(spelled)})
				}
			}
		}
		p := parts(r.t, token)
		for i, part := range []string{"header", "claims", "signature"} {
			spelled := func(name, text string) {
				q := p
				if q[i] = text; text != p[i] {
					rows = append(rows, ofToken(alg+", "+name+" the "+part, "NN", fixed(strings.Join(q[:], "."))))
				}
			}
			if i < 2 {
				for n, tail := range tailSpellings(p[i])[1:] {
					spelled(fmt.Sprintf("spare bits %d of", n+1), tail)
				}
			}
			spelled("standard alphabet in", strings.NewReplacer("-", "+", "_", "/").Replace(p[i]))
		}
	}
	token := r.token("RS256", nil)
	p := parts(r.t, token)
	for _, end := range []string{"=", "==", "===", "."} {
		rows = append(rows, ofToken("ends with "+end, "NN", fixed(token+end)))
	}
	for _, row := range []attack{
		{name: "padding within", want: badHeader, token: fixed(p[0] + "==." + p[1] + "=." + p[2])},
		{name: "%0A within", want: badHeader, token: fixed(p[0] + ".%0A" + p[1] + "." + p[2])},
		{name: "line break within, folded", want: badHeader, token: fixed(p[0] + ".\r\n " + p[1] + "." + p[2])},
		{name: "tab within", want: badHeader, token: fixed(p[0] + ".\t" + p[1] + "." + p[2])},
		{name: "dots escaped", want: badHeader, token: fixed(strings.Join(p[:], "%2E"))},
	} {
		row.request = get("Authorization: Bearer $T")
		rows = append(rows, row)
	}
	for _, extra := range []string{"%0A", "%0D", "%0D%0A", "%20", "%09", "%3D", "%00", "+", "%E2%80%8B"} {
		broken := p[0] + "." + p[1][:20] + extra + p[1][20:] + "." + p[2]
		// A plus sign is a space in a form. Padding is the token's own.
		rows = append(rows,
			attack{name: extra + " within, in a query", request: query("access_token=$T"), want: "44G44O", token: fixed(broken)},
			attack{name: extra + " within, in a form", request: form("access_token=$T"), want: "O4G4OO", token: fixed(broken)})
	}
	return rows
}

// forgeryAttacks are about tokens that the issuer has not signed.
func (r *attackRig) forgeryAttacks() []attack {
	k := r.keys
	own := toJSON(payload(nil))
	fresh := toJSON(payload(map[string]any{"jti": "made up"}))
	genuine := r.token("ES256", nil)
	p := parts(r.t, genuine)
	var rows []attack
	add := func(name, letters, token string) { rows = append(rows, ofToken(name, letters, fixed(token))) }
	// On the route that does not verify, what names the revoked jti is refused
	// with it; the rest is the upstream's to verify, but for unsigned ones.
	for _, none := range []string{"none", "None", "nOnE", "NONE", "NonE"} {
		input := encode([]byte(headerFor(none, "", nil))) + "." + encode([]byte(fresh)) + "."
		add("alg "+none, "NN", input)
		add("alg "+none+" with a signature", "NN", input+p[2])
		add("alg "+none+" with a kid", "NN", encode([]byte(headerFor(none, "p256", nil)))+"."+encode([]byte(fresh))+".AA")
	}
	for form, secret := range publicForms(&k.rsa.PublicKey) {
		for _, alg := range []string{"HS256", "HS384", "HS512"} {
			add(alg+" with the public key as "+form, "NJ", sign(alg, secret, headerFor(alg, "rsa", nil), own))
		}
		add("HS256 with the public key as "+form+", no kid", "NO", sign("HS256", secret, headerFor("HS256", "", nil), fresh))
	}
	add("HS256 with a secret that the issuer publishes", "NJ", sign("HS256", []byte(k.secret), headerFor("HS256", "symmetric", nil), own))
	rows = append(rows, attack{name: "a key for encryption", request: get("Authorization: Bearer $T"), want: "KKG4JO", // no key to verify with, that is
		token: fixed(sign("ES256", k.sealing, headerFor("ES256", "sealing", nil), own))})
	add("HS256 at an issuer with keys", "NJ", sign("HS256", []byte(k.secret), headerFor("HS256", "p256", nil), own))
	for _, alg := range []string{"PS256", "RS384", "RS512"} {
		add(alg+" under a key for RS256", "NJ", sign(alg, k.only256, headerFor(alg, "only256", nil), own))
		rs256 := parts(r.t, sign("RS256", k.only256, headerFor("RS256", "only256", nil), own))
		add(alg+" said of an RS256 signature", "NJ", encode([]byte(headerFor(alg, "only256", nil)))+"."+rs256[1]+"."+rs256[2])
	}
	add("RS256 under a key for RS256", "JJ", sign("RS256", k.only256, headerFor("RS256", "only256", nil), own))
	add("a key of another kind by its kid", "NJ", sign("ES256", k.p256, headerFor("ES256", "rsa", nil), own))
	add("a key of another curve by its kid", "NJ", sign("ES256", k.attacker, headerFor("ES256", "p384", nil), own))
	add("no kid", "JJ", sign("ES256", k.p256, headerFor("ES256", "", nil), own))
	add("an empty kid", "JJ", sign("ES256", k.p256, `{"alg":"ES256","kid":""}`, own))
	add("an escaped kid", "JJ", sign("ES256", k.p256, `{"alg":"ES256","kid":"p\u0032\u0035\u0036"}`, own))
	for _, alg := range []string{"es256", "ES256K", "ES256 ", "RS1", "ES256\u0000", "", "A256GCM", "dir", "HS1"} {
		add(fmt.Sprintf("alg %q", alg), "N"+map[bool]string{true: "N", false: "J"}[alg == ""], sign("ES256", k.p256, headerFor(alg, "p256", nil), own))
	}
	for name, header := range map[string]string{
		"no alg": `{"kid":"p256"}`, "alg twice": `{"alg":"none","alg":"ES256"}`, "alg twice, one escaped": `{"alg":"ES256","\u0061lg":"none"}`, "ALG": `{"ALG":"ES256"}`,
		"alg a list": `{"alg":["ES256"]}`, "alg null": `{"alg":null}`, "alg a number": `{"alg":256}`, "kid a number": `{"alg":"ES256","kid":1}`, "kid a list": `{"alg":"ES256","kid":["p256"]}`,
		"typ a number": `{"alg":"ES256","kid":"p256","typ":1}`, "crit": `{"alg":"ES256","kid":"p256","crit":["exp"],"exp":1}`, "crit, empty": `{"alg":"ES256","kid":"p256","crit":[]}`,
		"crit null": `{"alg":"ES256","kid":"p256","crit":null}`,
		"b64":       `{"alg":"ES256","kid":"p256","b64":false,"crit":["b64"]}`, "b64 alone": `{"alg":"ES256","kid":"p256","b64":false}`, "b64 a text": `{"alg":"ES256","kid":"p256","b64":"false"}`,
		"header a list": `[{"alg":"ES256"}]`, "header a text": `"ES256"`, "header empty": `{}`, "no header": ``, "something behind the header": `{"alg":"ES256","kid":"p256"}x`,
		"two headers": `{"alg":"ES256","kid":"p256"}{"alg":"none"}`, "header in a comment": `/*x*/{"alg":"ES256","kid":"p256"}`, "a long kid": `{"alg":"ES256","kid":"` + strings.Repeat("k", 600) + `"}`,
		"own jwk": `{"alg":"ES256","kid":"p256","jwk":` + publicJWK(&k.attacker.PublicKey) + `}`, "the right jwk": `{"alg":"ES256","kid":"p256","jwk":` + publicJWK(&k.p256.PublicKey) + `}`,
		"x5c that is none": `{"alg":"ES256","kid":"p256","x5c":["AA=="]}`, "x5c a text": `{"alg":"ES256","kid":"p256","x5c":"AA=="}`,
	} {
		key := k.p256
		if name == "own jwk" {
			key = k.attacker
		}
		letters := "NN"
		switch name {
		case "header a list", "header a text", "no header", "header in a comment":
			letters = "NNO" // no JWT to anybody
		}
		add("header: "+name, letters, sign("ES256", key, header, own))
	}
	for name, more := range map[string]map[string]any{
		"jku": {"jku": k.server.URL + "/attacker"}, "x5u": {"x5u": k.server.URL + "/attacker.pem"}, "both": {"jku": k.server.URL + "/attacker", "x5u": k.server.URL + "/x"},
		"x5c of one's own": {"x5c": []string{base64.StdEncoding.EncodeToString(selfSigned(r.t, k.attacker))}},
	} {
		add("attacker's key by "+name, "NJ", sign("ES256", k.attacker, headerFor("ES256", "p256", more), own))
		rows = append(rows, attack{name: "attacker's key by " + name + " and a kid of their own", request: get("Authorization: Bearer $T"), want: "KKG4JO",
			token: fixed(sign("ES256", k.attacker, headerFor("ES256", "attacker", more), own))})
	}
	// The keys of one issuer say nothing about the tokens of another.
	add("key of another issuer", "NO", sign("RS256", k.foreign, headerFor("RS256", "rsa", nil), fresh))
	for name, kid := range map[string]string{"its kid": "foreign", "no kid": ""} {
		rows = append(rows, attack{name: "key of another issuer, " + name, request: get("Authorization: Bearer $T"), want: "KKG4OO",
			token: fixed(sign("RS256", k.foreign, headerFor("RS256", kid, nil), fresh))})
	}
	add("another issuer's token", "OO", sign("RS256", k.foreign, headerFor("RS256", "foreign", nil), toJSON(payload(map[string]any{"iss": foreignIssuer}))))
	// Signatures.
	zero := encode(make([]byte, 64))
	order := new(big.Int).Set(elliptic.P256().Params().N)
	n := encode(append(order.FillBytes(make([]byte, 32)), order.FillBytes(make([]byte, 32))...))
	for name, sig := range map[string]string{
		"of zeros": zero, "of the curve's order": n, "cut short": p[2][:len(p[2])-4], "of one byte": "AA", "longer": p[2] + "AAAA", "of another token": parts(r.t, r.token("ES256", map[string]any{"jti": "live"}))[2],
		"of another's key": encode(signature("ES256", k.attacker, p[0]+"."+p[1])), "in DER": encode(inDER(r, p[2])), "its parts swapped": encode(append(decode(r.t, p[2])[32:], decode(r.t, p[2])[:32]...)),
	} {
		add("signature "+name, "NJ", p[0]+"."+p[1]+"."+sig)
	}
	add("no signature", "NN", p[0]+"."+p[1]+".")
	add("claims changed", "NO", forge(r.t, genuine, map[string]any{"jti": "made up"}))
	add("claims taken out", "NO", forge(r.t, genuine, map[string]any{"jti": nil, "iat": nil, "name": "long enough to be looked for, and not as it was"}))
	return rows
}

// otherTokenAttacks are about what is no signed JWT.
func (r *attackRig) otherTokenAttacks() []attack {
	k := r.keys
	p := parts(r.t, r.token("ES256", nil))
	jwe := encode([]byte(`{"alg":"dir","enc":"A256GCM"}`)) + "..AAAAAAAAAAAAAAAA." + encode([]byte(strings.Repeat("sealed", 20))) + ".AAAAAAAAAAAAAAAAAAAAAA"
	var rows []attack
	add := func(name, letters, token string) { rows = append(rows, ofToken(name, letters, fixed(token))) }
	add("JWE", "NNOJ", jwe)
	add("JWE with the type of a nested token", "NNO", encode([]byte(`{"alg":"RSA-OAEP","enc":"A128GCM","cty":"JWT"}`))+".AAAA.AAAA."+p[1]+".AAAA")
	add("five parts of a JWS", "NN", strings.Join(p[:], ".")+".AA.AA")
	add("four parts", "NN", strings.Join(p[:], ".")+".AA")
	add("two parts", "NN", p[0]+"."+p[1])
	add("one part", "NNO", p[1])
	add("claims alone, twice", "NN", p[1]+"."+p[1])
	add("detached claims", "NN", p[0]+".."+p[2])
	add("dots", "NNO", "..")
	add("dot in front", "NNO", "."+strings.Join(p[:], "."))
	add("two tokens in one", "NN", strings.Join(p[:], ".")+"."+strings.Join(p[:], "."))
	inner := strings.Join(p[:], ".")
	add("nested JWT", "NN", sign("ES256", k.p256, headerFor("ES256", "p256", map[string]any{"cty": "JWT"}), inner))
	add("nested JWT as a text", "NN", sign("ES256", k.p256, headerFor("ES256", "p256", map[string]any{"cty": "JWT"}), `"`+inner+`"`))
	add("nested JWT as a claim", "JJ", r.token("ES256", map[string]any{"nested": inner, "vc": map[string]any{"jti": "inner"}}))
	flat := fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, p[0], p[1], p[2])
	general := fmt.Sprintf(`{"payload":%q,"signatures":[{"protected":%q,"signature":%q}]}`, p[1], p[0], p[2])
	for name, text := range map[string]string{"flattened": flat, "general": general} {
		rows = append(rows,
			attack{name: "JSON form, " + name, request: get("Authorization: Bearer $T"), want: badHeader, token: fixed(text)},
			attack{name: "JSON form in a query, " + name, request: query("access_token=$P"), want: "44G44O", token: fixed(text)},
			attack{name: "JSON form in a form, " + name, request: form("access_token=$P"), want: "O4G4OO", token: fixed(text)})
		add("JSON form in base64url, "+name, "NNO", encode([]byte(text)))
	}
	add("zip in the header", "JJ", sign("ES256", k.p256, headerFor("ES256", "p256", map[string]any{"zip": "DEF"}), toJSON(payload(nil))))
	// Length.
	add("14 KiB", "JJ", r.token("ES256", map[string]any{"pad": strings.Repeat("x", 10<<10)}))
	add("17 KiB", "NN", r.token("ES256", map[string]any{"pad": strings.Repeat("x", 13<<10)}))
	add("100 KiB", "NN", r.token("ES256", map[string]any{"pad": strings.Repeat("x", 75<<10)}))
	add("300 KiB", "NN", r.token("ES256", map[string]any{"pad": strings.Repeat("x", 220<<10)}))
	rows = append(rows, attack{name: "beyond the header limit", request: get("Authorization: Bearer $T"), want: byCaddy,
		token: fixed(r.token("ES256", map[string]any{"pad": strings.Repeat("x", 1<<20)}))})
	// Opaque tokens, on the route that has some: no spelling of a revoked one.
	hash := func(token string) map[string]any { return map[string]any{"issuer": opaqueIssuer, "token": token} }
	opaque := func(name, token, spelled string) {
		rows = append(rows, attack{name: "opaque: " + name, on: opaqueHost, want: "JO", request: get("Authorization: Bearer $T"),
			token: fixed(spelled), revoke: func(string) map[string]any { return hash(token) }})
	}
	const handle = "d-_-0ZGd2ZXJ5LXNlY3JldC1hbmQtbG9uZy1lbm91Z2g"
	opaque("as it is", handle, handle)
	opaque("padded", handle, handle+"=")
	opaque("standard alphabet", handle, strings.NewReplacer("-", "+", "_", "/").Replace(handle))
	for i, tail := range tailSpellings(handle) {
		opaque(fmt.Sprintf("spelling %d", i), handle, tail)
	}
	// Under another scheme, an opaque token can't be told from a key of another
	// API: it is no token to anybody who goes by the scheme.
	rows = append(rows, attack{name: "opaque: another scheme", on: opaqueHost, want: "OO", request: get("Authorization: Token $T"), token: fixed(handle)})
	for i, tail := range tailSpellings(jwe) {
		opaque(fmt.Sprintf("JWE, spelling %d", i), jwe, tail)
	}
	rows = append(rows, attack{name: "opaque: JWE padded", on: opaqueHost, want: "NO", request: get("Authorization: Bearer $T"), token: fixed(jwe + "==")})
	return rows
}

func publicJWK(key *ecdsa.PublicKey) string {
	return toJSON(jose.JSONWebKey{Key: key})
}

func inDER(r *attackRig, sig string) []byte {
	raw := decode(r.t, sig)
	der, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(raw[:32]), new(big.Int).SetBytes(raw[32:])})
	if err != nil {
		r.t.Fatal(err)
	}
	return der
}
