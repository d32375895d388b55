package oauth

import (
	"errors"
	"strings"
	"testing"
)

func TestStaticClientsRefuseContradictions(t *testing.T) {
	secret := []Secret{clearSecret(t, "s3cret")}
	tests := []struct {
		name    string
		clients []Client
		says    string
	}{
		{"no id", []Client{{Issuer: issuerA, Secrets: secret}}, "client 1: the id is missing"},
		{"endless id", []Client{{ID: strings.Repeat("x", maxClientID+1), Issuer: issuerA, Secrets: secret}}, "240 bytes"},
		{"id with a line break", []Client{{ID: "a\nb", Issuer: issuerA, Secrets: secret}}, "control characters"},
		{"id that is no UTF-8", []Client{{ID: "a\xff", Issuer: issuerA, Secrets: secret}}, "UTF-8"},
		{"no issuer", []Client{{ID: "a", Secrets: secret}}, "issuer is missing"},
		{"neither secret nor public", []Client{{ID: "a", Issuer: issuerA}}, "has to be public"},
		{"public with a secret", []Client{{ID: "a", Issuer: issuerA, Methods: []AuthMethod{AuthNone}, Secrets: secret}}, "public client has no secret"},
		{"confidential without a secret", []Client{{ID: "a", Issuer: issuerA, Methods: []AuthMethod{AuthSecretBasic}}}, "secret is missing"},
		{"both public and confidential", []Client{{ID: "a", Issuer: issuerA, Methods: []AuthMethod{AuthSecretPost, AuthNone}, Secrets: secret}}, "no other authentication method"},
		{"unknown method", []Client{{ID: "a", Issuer: issuerA, Methods: []AuthMethod{"magic"}, Secrets: secret}}, `unknown authentication method "magic"`},
		{"method twice", []Client{{ID: "a", Issuer: issuerA, Methods: []AuthMethod{AuthSecretPost, AuthSecretPost}, Secrets: secret}}, "listed twice"},
		{"zero secret", []Client{{ID: "a", Issuer: issuerA, Secrets: []Secret{{}}}}, "secret is empty"},
		{"too many secrets", []Client{{ID: "a", Issuer: issuerA, Secrets: append(secret, secret[0], secret[0], secret[0], secret[0])}}, "more than 4"},
		{"the id as the secret's digest", []Client{{ID: "some-client", Issuer: issuerA, Secrets: []Secret{digestOf(t, "some-client")}}}, "own id"},
		{"the same id twice", []Client{{ID: "a", Issuer: issuerA, Secrets: secret}, {ID: "a", Issuer: issuerB, Secrets: secret}}, `client "a": the id is registered twice`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := NewStaticClients(tt.clients...)
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("error %v, want one with %q", err, tt.says)
			}
			if strings.Contains(err.Error(), "s3cret") {
				t.Errorf("the error has the secret: %v", err)
			}
		})
	}
}

func TestStaticClientsKeepTheirOwnCopy(t *testing.T) {
	c := Client{ID: "a", Issuer: issuerA, Methods: []AuthMethod{AuthNone}}
	s, err := NewStaticClients(c)
	if err != nil {
		t.Fatal(err)
	}
	c.Methods[0] = AuthSecretPost
	got, err := s.Client(t.Context(), "a")
	if err != nil || !got.Public() {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := s.Client(t.Context(), "A"); !errors.Is(err, ErrUnknownClient) {
		t.Errorf("ids are not case-sensitive: %v", err)
	}
}

func TestDecoysAreStableAndOfEveryKindOfClient(t *testing.T) {
	s := testClients(t)
	kinds := make(map[string]bool)
	for i := range 200 {
		id := strings.Repeat("x", i)
		d := s.Decoy(id)
		if d == nil || len(d.Secrets) == 0 || d != s.Decoy(id) {
			t.Fatalf("decoy of %q is %+v", id, d)
		}
		kinds[d.Secrets[0].String()] = true
	}
	if !kinds["bcrypt"] || !kinds["clear"] {
		t.Errorf("decoys are of kinds %v only", kinds)
	}
	public, err := NewStaticClients(Client{ID: "a", Issuer: issuerA, Methods: []AuthMethod{AuthNone}})
	if err != nil {
		t.Fatal(err)
	}
	if d := public.Decoy("x"); d != nil {
		t.Errorf("decoy %+v without any secret to imitate", d)
	}
}
