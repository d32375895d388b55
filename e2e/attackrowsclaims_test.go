//go:build e2e

package e2e

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"
)

// claimAttacks are about what signed claims can be read as. The issuer signs what
// users may write: names, mapped claims, whole objects.
func (r *attackRig) claimAttacks() []attack {
	var rows []attack
	add := func(letters, claims string) {
		rows = append(rows, ofToken("claims "+claims, letters, func() string { return r.raw(claims) }))
	}
	for _, claims := range []string{
		`{%s"jti":"stolen","JTI":"fresh"}`, `{%s"JTI":"fresh","jti":"stolen"}`, `{%s"Jti":"fresh","jti":"stolen","jtI":"x"}`, `{%s"jti":"stolen","jt\u0131":"fresh"}`,
		`{%s"sub":"alice","jti":"stolen","\u017fub":"bob"}`, `{%s"sub":"alice","jti":"stolen","ſub":"bob","ISS":"https://other.test","EXP":1}`, `{%s"jti":"st\u006flen"}`,
		`{%s"\u006ati":"stolen"}`, `{%s"jti":"stolen","jti ":"fresh"," jti":"fresh","jti\u0000":"fresh"}`, `{%s"a":{"jti":"fresh"},"jti":"stolen"}`, `{%s"a":[{"jti":"fresh"}],"jti":"stolen"}`,
		"{%s\n\t\"jti\" :\r\n \"stolen\" }", ` {%s"jti":"stolen"} `, `{%s"jti":"stolen","__proto__":{"jti":"fresh"},"constructor":1}`, `{%s"jti":"stolen","sub":"a\u0000b"}`,
		`{%s"jti":"stolen","sub":7}`, `{%s"jti":"stolen","sub":null}`, `{%s"jti":"stolen","sub":"\ud83d\ude00"}`, `{%s"jti":"stolen","uti":"fresh","token_id":"fresh"}`,
	} {
		add("JJ", claims)
	}
	for _, claims := range []string{
		`{%s"jti":"stolen","jti":"fresh"}`, `{%s"jti":"fresh","jti":"stolen"}`, `{%s"jti":"stolen","\u006ati":"fresh"}`, `{%s"jti":"stolen","j\u0074\u0069":"stolen"}`, `{%s"sub":"a","sub":"a","jti":"stolen"}`,
		`{%s"a":{"b":1,"b":2},"jti":"stolen"}`, `{%s"jti":["stolen"]}`, `{%s"jti":["fresh","stolen"]}`, `{%s"jti":{"value":"stolen"}}`, `{%s"jti":true}`, `{%s"jti":[]}`, `{%s"jti":"stolen","sub":["alice"]}`,
		`{%s"jti":"stolen","sub":{"id":"alice"}}`, `{%s"jti":"stolen","sub":"\ud800"}`, `{%s"jti":"stolen","sub":"\udc00\ud800"}`, "{%s\"jti\":\"stolen\",\"sub\":\"\xc0\xae\"}", "{%s\"jti\":\"stolen\",\"sub\":\"\xff\"}",
		"{%s\"jti\":\"stolen\",\"sub\":\"\xed\xa0\x80\"}", "{%s\"jti\":\"stolen\",\"sub\":\"\xf4\x90\x80\x80\"}", "{%s\"jti\":\"stolen\",\"sub\":\"\xe2\x82\"}", "{%s\"jti\":\"stolen\",\"sub\":\"a\nb\"}", "{%s\"jti\":\"stolen\",\"sub\":\"a\x00b\"}",
		"\ufeff{%s\"jti\":\"stolen\"}", `{%s"jti":"stolen"}x`, `{%s"jti":"stolen"}{"jti":"fresh"}`, `{%s"jti":"stolen",}`, `{%s'jti':'stolen'}`, `{%s"jti":"stolen","a":NaN}`, `{%s"jti":"stolen","a":01}`, `{%s"jti":"stolen","a":1e999}`,
		`{%s"jti":"stolen","a":+1}`, `{%s"jti":"stolen"/**/}`, `[{%s"jti":"stolen"}]`, `{%s"jti":"stolen","a":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`, `{%s"jti":"stolen","a":"\x41"}`,
		`{%s"jti":"stolen","cnf":"x"}`, `{%s"jti":"stolen","cnf":{"jkt":1}}`, `{%s"jti":"stolen","cnf":{"jkt":"a","jkt":"b"}}`,
		`{%s"jti":"` + strings.Repeat("x", 1100) + `"}`,
	} {
		add("NN", claims)
	}
	add("NJ", `{%s"jti":"stolen","cnf":{"jkt":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}`)
	add("NJ", `{%s"jti":"stolen","cnf":{"x5t#S256":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}`)
	add("OO", `{%s"jti":"Stolen"}`)
	add("OO", `{%s"jti":"stolen "}`)
	add("OO", `{%s"jti":"stolen\u0000"}`)

	// Tokens without some claims. Without jti, a token is known by its hash.
	byToken := func(token string) map[string]any { return map[string]any{"token": token} }
	for name, gone := range map[string][]string{
		"jti": {"jti"}, "jti and sub": {"jti", "sub"}, "jti and iat": {"jti", "iat"}, "jti, sub, client_id and iat": {"jti", "sub", "client_id", "iat"},
	} {
		changes := map[string]any{}
		for _, claim := range gone {
			changes[claim] = nil
		}
		for _, alg := range attackAlgorithms {
			if name != "jti" && alg != "PS256" {
				continue
			}
			token := r.token(alg, changes)
			for i, tail := range tailSpellings(parts(r.t, token)[2]) {
				p := parts(r.t, token)
				row := ofToken(fmt.Sprintf("%s without %s, spelling %d", alg, name, i), "JJ", fixed(p[0]+"."+p[1]+"."+tail))
				row.revoke = func(string) map[string]any { return byToken(token) }
				rows = append(rows, row)
			}
		}
	}
	for name, value := range map[string]any{"null": nil, "empty": ""} {
		token := r.raw(`{%s"jti":` + map[bool]string{true: "null", false: `""`}[value == nil] + `}`)
		row := ofToken("jti "+name, "JJ", fixed(token))
		row.revoke = byToken
		rows = append(rows, row)
	}
	for _, gone := range []string{"iat", "sub", "client_id"} {
		rows = append(rows, ofToken("no "+gone, "JJ", fixed(r.token("RS256", map[string]any{gone: nil}))))
	}
	rows = append(rows, ofToken("no exp", "NJ", fixed(r.token("RS256", map[string]any{"exp": nil}))))
	lax := func(claims map[string]any) string { claims["iss"] = laxIssuer; return r.token("ES256", claims) }
	rows = append(rows,
		ofToken("no exp, where that is allowed", "JJ", fixed(lax(map[string]any{"exp": nil}))),
		ofToken("no exp and no iat, where that is allowed", "JJ", fixed(lax(map[string]any{"exp": nil, "iat": nil}))))

	// Values that revocations name: one number has many spellings, one letter two.
	named := func(name, letters, claims string, criteria map[string]string) {
		row := ofToken(name, letters, func() string { return r.raw(claims) })
		row.revoke = func(string) map[string]any {
			return map[string]any{"issuer": attackIssuer, "claims": criteria}
		}
		rows = append(rows, row)
	}
	for _, number := range []string{"12345", "12345.0", "1.2345e4", "12345e0", "1234500E-2", `"12345"`, `"1\u00323\u00345"`} {
		named("jti "+number, "JJ", `{%s"jti":`+number+`}`, map[string]string{"jti": "12345"})
		named("sub "+number, "JJ", `{%s"jti":"of 12345","sub":`+number+`}`, map[string]string{"sub": "12345"})
	}
	for _, number := range []string{"123456", "12345.5", "-12345", `"012345"`, `"12345.0"`} {
		named("jti "+number, "OO", `{%s"jti":`+number+`}`, map[string]string{"jti": "12345"})
	}
	// Composed and decomposed are two subjects, byte by byte.
	named("sub composed", "JJ", `{%s"jti":"nfc","sub":"caf\u00e9"}`, map[string]string{"sub": "café"})
	named("sub composed, unescaped", "JJ", "{%s\"jti\":\"nfc2\",\"sub\":\"caf\u00e9\"}", map[string]string{"sub": "café"})
	named("sub decomposed", "OO", `{%s"jti":"nfd","sub":"cafe\u0301"}`, map[string]string{"sub": "café"})
	named("sub in another case", "OO", `{%s"jti":"upper","sub":"CAF\u00c9"}`, map[string]string{"sub": "café"})
	named("sub with a slash escaped", "JJ", `{%s"jti":"slash","sub":"a\/b|c"}`, map[string]string{"sub": "a/b|c"})
	named("sub and client_id", "JJ", `{%s"jti":"pair","sub":"pair"}`, map[string]string{"sub": "pair", "client_id": "app"})
	named("a session", "JJ", `{%s"jti":"session","sid":"s1","SID":"s2"}`, map[string]string{"sid": "s1"})
	return rows
}

// kindAttacks are about clocks, issuers, audiences and other kinds of token.
func (r *attackRig) kindAttacks() []attack {
	var rows []attack
	now := time.Now().Unix()
	add := func(letters, name string, changes map[string]any) {
		rows = append(rows, ofToken(name, letters, fixed(r.token("ES256", changes))))
	}
	add("NJ", "expired", map[string]any{"iat": now - 7200, "exp": now - 3600})
	add("JJ", "expired within the leeway", map[string]any{"iss": laxIssuer, "exp": now - 1})
	add("NJ", "not before later", map[string]any{"nbf": now + 3600})
	add("NJ", "issued later", map[string]any{"iat": now + 3000})
	add("NJ", "lives for too long", map[string]any{"exp": now + 90*24*3600})
	add("NJ", "issued long ago", map[string]any{"iat": now - 400*24*3600})
	for _, exp := range []string{"0", "1", "0.5", "null"} {
		rows = append(rows, ofToken("exp "+exp, "NJ", func() string { return r.timed(`"exp":` + exp) }))
	}
	for _, exp := range []string{"-1", "-1e300", "1e18", "1e300", "1e999", "9223372036854775807", "9223372036854775808", "18446744073709551617", `"` + fmt.Sprint(now+3600) + `"`, "true", "[]", "{}", "0x7fffffff", "Infinity"} {
		rows = append(rows, ofToken("exp "+exp, "NN", func() string { return r.timed(`"exp":` + exp) }))
	}
	for _, exp := range []string{fmt.Sprintf("%d.5", now+3600), fmt.Sprintf("%de0", now+3600), fmt.Sprintf("%d.000E+0", now+3600)} {
		rows = append(rows, ofToken("exp "+exp, "JJ", func() string { return r.timed(`"exp":` + exp) }))
	}
	for _, claim := range []string{"iat", "nbf"} {
		rows = append(rows,
			ofToken(claim+" a text", "NN", func() string { return r.timed(fmt.Sprintf(`"exp":%d,"%s":"%d"`, now+3600, claim, now)) }),
			ofToken(claim+" 1e999", "NN", func() string { return r.timed(fmt.Sprintf(`"exp":%d,"%s":1e999`, now+3600, claim)) }),
			ofToken(claim+" with a fraction", "JJ", func() string { return r.timed(fmt.Sprintf(`"exp":%d,"%s":%d.25`, now+3600, claim, now-60)) }),
			ofToken(claim+" null", "JJ", func() string { return r.timed(fmt.Sprintf(`"exp":%d,"%s":null`, now+3600, claim)) }),
		)
	}
	add("NN", "iat negative", map[string]any{"iat": -1})

	for _, iss := range []string{"https://as.test/", "https://AS.test", "HTTPS://as.test", "http://as.test", "https://as.test.", "https://as.test:443", " https://as.test", "https://as.test\u0000", "https://as.tést", "as.test", "https://as.test#", "https://as.test?"} {
		rows = append(rows, ofToken(fmt.Sprintf("iss %q", iss), "NNON", fixed(r.token("ES256", map[string]any{"iss": iss}))))
	}
	rows = append(rows, ofToken("iss escaped", "JJ", func() string {
		return sign("ES256", r.keys.p256, headerFor("ES256", "p256", nil), strings.Replace(toJSON(payload(nil)), `"https://as.test"`, `"https:\/\/\u0061s.test"`, 1))
	}))
	for name, iss := range map[string]any{"missing": nil, "empty": "", "a list": []string{attackIssuer}, "a number": 1, "an object": map[string]any{"iss": attackIssuer}} {
		add("NN", "iss "+name, map[string]any{"iss": iss})
	}
	for name, aud := range map[string]any{"missing": nil, "another": "other", "in another case": "API", "longer": "api2", "with a slash": "api/", "an empty list": []string{}, "a number": 1, "an object": map[string]any{"api": "api"}, "in a list in a list": []any{[]string{"api"}}} {
		add("NJ", "aud "+name, map[string]any{"aud": aud})
	}
	add("JJ", "aud in a list", map[string]any{"aud": []string{"other", "api"}})

	typed := func(typ string) string {
		return sign("ES256", r.keys.p256, headerFor("ES256", "p256", map[string]any{"typ": typ}), toJSON(payload(nil)))
	}
	for _, typ := range []string{"at+jwt", "AT+JWT", "application/at+jwt", "JWT", "jwt", ""} {
		rows = append(rows, ofToken(fmt.Sprintf("typ %q", typ), "JJ", fixed(typed(typ))))
	}
	for _, typ := range []string{"logout+jwt", "Logout+JWT", "secevent+jwt", "application/secevent+jwt", "dpop+jwt", "token-introspection+jwt", "client-authentication+jwt", "oauth-authz-req+jwt", "id_token", "id+jwt", "kb+jwt", "refresh+jwt", "rt+jwt", "JOSE+JSON"} {
		rows = append(rows, ofToken(fmt.Sprintf("typ %q", typ), "NJ", fixed(typed(typ))))
	}
	add("NJ", "logout token without typ", map[string]any{"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}})
	add("NJ", "ID token without typ", map[string]any{"client_id": nil, "nonce": "n"})
	add("NJ", "ID token with a hash", map[string]any{"at_hash": "x"})
	add("NJ", "refresh token of Keycloak", map[string]any{"typ": "Refresh"})
	add("NJ", "client assertion", map[string]any{"iss": attackIssuer, "sub": "app", "aud": "https://as.test/token", "client_id": nil})
	return rows
}

// timed makes a token with these members instead of exp.
func (r *attackRig) timed(members string) string {
	return sign("ES256", r.keys.p256, headerFor("ES256", "p256", nil),
		fmt.Sprintf(`{"iss":%q,"aud":"api","sub":"alice","client_id":"app","jti":%q,"name":"long enough to be looked for",%s}`, attackIssuer, stolen, members))
}

func selfSigned(t testing.TB, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}
