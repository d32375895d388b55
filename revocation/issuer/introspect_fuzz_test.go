package issuer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// answerSeeds are answers to begin from: what servers send, and what they should
// not.
var answerSeeds = []string{
	`{"active":true}`, `{"active":false}`, `{"active":"true"}`, `{"active":1}`, `{"active":null}`, `{}`, `null`, `[]`, `true`, ``,
	`{"active":true,"active":false}`, `{"\u0061ctive":true}`, `{"Active":true}`, `{"active":true}{"active":false}`, ` { "active" : true } `,
	`{"active":true,"exp":0}`, `{"active":true,"exp":1}`, `{"active":true,"exp":1e300}`, `{"active":true,"exp":99999999999}`,
	`{"active":true,"iss":"` + testIssuer + `","sub":"a","client_id":5,"token_type":"Bearer","aud":["a","b",null]}`,
	`{"active":true,"iss":"x"}`, `{"active":true,"sub":[]}`, `{"active":true,"token":"x","kid":"y","x":{"a":1,"a":1}}`, "\ufeff{\"active\":true}",
	`{"active":true,"exp":4102444800.5,"iat":1e9,"nbf":-1,"auth_time":"x"}`, `{"active":true,"token_introspection":{"active":false}}`,
}

// FuzzIntrospectionAnswer compares the reader of answers with encoding/json:
// nothing is active but what says the literal true once, nothing is inactive but
// what says the literal false once or has expired, and the identity has nothing
// that the answer does not have.
func FuzzIntrospectionAnswer(f *testing.F) {
	for _, seed := range answerSeeds {
		f.Add([]byte(seed))
	}
	i := newIssuer(f, Config{Issuer: testIssuer, JWKSFile: "/x", Audiences: []string{"a"}}, Options{})
	f.Fuzz(func(t *testing.T, text []byte) { checkAnswer(t, i, text, text) })
}

// checkAnswer reads text, which encoding/json reads as the object in plain.
func checkAnswer(t *testing.T, i *Issuer, text, plain []byte) {
	t.Helper()
	before := bytes.Clone(text)
	a, err := i.readAnswer(text, "hash")
	if !bytes.Equal(before, text) {
		t.Fatal("the answer was changed")
	}
	object, refErr := reference(plain)
	said, isBool := object["active"].(bool)
	switch {
	case errors.Is(err, ErrIntrospectionUnavailable):
		if a != nil || errors.Is(err, ErrInactive) {
			t.Fatalf("%+v, %v", a, err)
		}
		return
	case refErr != nil:
		t.Fatalf("%v, for what encoding/json does not read: %v", err, refErr)
	case !isBool:
		t.Fatalf("%v, for active %v", err, object["active"])
	case errors.Is(err, ErrInactive):
		if said && !isOver(object["exp"]) {
			t.Fatalf("%v, for %s", err, text)
		}
		return
	case err != nil:
		t.Fatalf("unexpected error %v", err)
	case !said || isOver(object["exp"]):
		t.Fatalf("active: %s", text)
	}
	if iss, found := object["iss"]; found && iss != nil && iss != testIssuer {
		t.Fatalf("the answer of %v", iss)
	}
	names := []string{"aud", "scope", "token", "kid"}
	v, err := i.viewOf(a, names)
	if err != nil {
		if !errors.Is(err, ErrIntrospectionUnavailable) {
			t.Fatal(err)
		}
		return
	}
	if v.id.Issuer != testIssuer || !v.id.Verified || len(v.id.Values(revocation.ClaimKeyID)) != 0 {
		t.Fatalf("%+v", v.id)
	}
	if token, _ := v.id.Value(revocation.ClaimToken); token != "hash" {
		t.Fatalf("token %q", token)
	}
	for _, name := range wellKnown {
		if text, ok := object[name].(string); ok && text != "" {
			if got, _ := v.id.Value(name); got != text {
				t.Fatalf("%s %q, want %q", name, got, text)
			}
		}
	}
}

// isOver tells whether an exp that encoding/json has read is over for longer than
// the leeway, give or take the time that the test takes.
func isOver(exp any) bool {
	n, ok := exp.(json.Number)
	if !ok {
		return false
	}
	at, err := n.Float64()
	return err == nil && at > 0 && at < float64(time.Now().Add(-DefaultLeeway-time.Second).Unix())
}

// FuzzSignedIntrospectionAnswer signs whatever it is given and checks that
// nothing is active but what says so inside token_introspection, for us, from our
// issuer, and of now.
func FuzzSignedIntrospectionAnswer(f *testing.F) {
	secret := strings.Repeat("geheim", 6)
	key := jose.JSONWebKey{Key: []byte(secret), Algorithm: "HS256"}
	i := newIssuer(f, Config{Issuer: testIssuer, HMACSecret: secret}, Options{Now: func() time.Time { return time.Unix(1e9, 0) }})
	head := `{"alg":"HS256","typ":"token-introspection+jwt"}`
	for _, seed := range answerSeeds {
		f.Add([]byte(head), []byte(`{"iss":"`+testIssuer+`","aud":"edge","iat":1000000000,"token_introspection":`+seed+`}`))
	}
	for _, header := range []string{`{"alg":"HS256","typ":"at+jwt"}`, `{"alg":"HS256","typ":"token-introspection+jwt","cty":"JWT"}`, `{"alg":"none"}`} {
		f.Add([]byte(header), []byte(`{"iss":"`+testIssuer+`","aud":["edge"],"iat":1000000000,"token_introspection":{"active":true}}`))
	}
	f.Fuzz(func(t *testing.T, header, payload []byte) {
		token := revocationtest.SignInput(t, key, encode(header)+"."+encode(payload))
		text, err := i.openSigned(context.Background(), []byte(token), "edge", i.now())
		if err != nil {
			if text != nil || !errors.Is(err, ErrIntrospectionUnavailable) {
				t.Fatalf("%s, %v", text, err)
			}
			return
		}
		h, err := reference(header)
		if typ, _ := h["typ"].(string); err != nil || h["alg"] != "HS256" || normalType([]byte(typ)) != "token-introspection+jwt" {
			t.Fatalf("accepted the header %s: %v", header, err)
		}
		p, err := reference(payload)
		if err != nil || p["iss"] != testIssuer || !holds(p["aud"], "edge") {
			t.Fatalf("accepted the payload %s: %v", payload, err)
		}
		inner, err := json.Marshal(p["token_introspection"])
		if err != nil {
			t.Fatal(err)
		}
		checkSignedAnswer(t, i, text, inner)
	})
}

// checkSignedAnswer checks the object in a signed answer against what
// encoding/json has made of it.
func checkSignedAnswer(t *testing.T, i *Issuer, text, inner []byte) {
	t.Helper()
	_, err := i.readAnswer(text, "hash")
	var object map[string]any
	if json.Unmarshal(inner, &object) != nil || object == nil {
		t.Fatalf("not an object: %s", inner)
	}
	if said, _ := object["active"].(bool); err == nil && !said {
		t.Fatalf("active: %s", text)
	}
	if said, isBool := object["active"].(bool); errors.Is(err, ErrInactive) && (!isBool || said && object["exp"] == nil) {
		t.Fatalf("inactive: %s", text)
	}
}

func holds(v any, want string) bool {
	list, ok := v.([]any)
	if !ok {
		return v == want
	}
	for _, e := range list {
		if e == want {
			return true
		}
	}
	return false
}
