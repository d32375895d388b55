package oauth

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
)

func TestStaticClientsRefuseContradictions(t *testing.T) {
	secret := []Secret{clearSecret(t, "s3cret")}
	public := keysOf(t, issuer.KeySourceConfig{JWKS: []byte(decoyJWKS)})
	shared := keysOf(t, issuer.KeySourceConfig{Secrets: []string{sharedSecret}})
	digest := [][sha256.Size]byte{{1}}
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
		{"the same id twice", []Client{{ID: "a", Issuer: issuerA, Secrets: secret}, {ID: "a", Issuer: issuerA, Secrets: secret}}, `client "a": the id is registered twice`},
		{"keys and a secret", []Client{{ID: "a", Issuer: issuerA, Secrets: secret, Keys: public}}, "different authentication methods"},
		{"keys beside a secret's method", []Client{{ID: "a", Issuer: issuerA, Methods: []AuthMethod{AuthSecretBasic}, Secrets: secret, Keys: public}}, "client_secret_basic has no keys"},
		{"a secret beside keys", []Client{{ID: "a", Issuer: issuerA, Methods: []AuthMethod{AuthPrivateKeyJWT}, Secrets: secret, Keys: public}}, "takes no hashed secret"},
		{"two methods", []Client{{ID: "a", Issuer: issuerA, Methods: []AuthMethod{AuthPrivateKeyJWT, AuthSecretBasic}, Secrets: secret, Keys: public}}, "no other authentication method beside it"},
		{"no keys", []Client{{ID: "a", Issuer: issuerA, Methods: []AuthMethod{AuthPrivateKeyJWT}}}, "keys for private_key_jwt are missing"},
		{"a public key for a MAC", []Client{{ID: "a", Issuer: issuerA, Methods: []AuthMethod{AuthSecretJWT}, Keys: public}}, "another kind of key"},
		{"a shared secret as a public key", []Client{{ID: "a", Issuer: issuerA, Methods: []AuthMethod{AuthPrivateKeyJWT}, Keys: shared}}, "another kind of key"},
		{"public with keys", []Client{{ID: "a", Issuer: issuerA, Methods: []AuthMethod{AuthNone}, Keys: public}}, "none has no keys"},
		{"public and allowed to revoke anything", []Client{{ID: "a", Issuer: issuerA, Methods: []AuthMethod{AuthNone}, RevokeAny: true}}, "can't be allowed to revoke"},
		{"a certificate without a name", []Client{{ID: "a", Issuer: issuerA, Methods: []AuthMethod{AuthTLS}}}, "every certificate of the authority would do"},
		{"two names", []Client{{ID: "a", Issuer: issuerA, Certificate: CertificateName{DNS: "a.example", IP: "192.0.2.1"}}}, "exactly one name"},
		{"a name beside a secret", []Client{{ID: "a", Issuer: issuerA, Methods: []AuthMethod{AuthSecretPost}, Secrets: secret, Certificate: CertificateName{DNS: "a.example"}}}, "takes no name of a certificate"},
		{"no certificate", []Client{{ID: "a", Issuer: issuerA, Methods: []AuthMethod{AuthSelfSignedTLS}}}, "certificates, or their keys, are missing"},
		{"a certificate beside a name", []Client{{ID: "a", Issuer: issuerA, Methods: []AuthMethod{AuthTLS}, Certificate: CertificateName{DNS: "a.example"}, Certificates: digest}}, "takes no digest"},
		{"no URI", []Client{{ID: "a", Issuer: issuerA, Certificate: CertificateName{URI: "a.example"}}}, "no absolute URI"},
		{"a URI in another spelling", []Client{{ID: "a", Issuer: issuerA, Certificate: CertificateName{URI: "HTTPS://a.example/"}}}, "has to be written"},
		{"no address", []Client{{ID: "a", Issuer: issuerA, Certificate: CertificateName{IP: "192.0.2.300"}}}, "no IP address"},
		{"no DNS name", []Client{{ID: "a", Issuer: issuerA, Certificate: CertificateName{DNS: "https://a.example"}}}, "no DNS name"},
		{"no e-mail address", []Client{{ID: "a", Issuer: issuerA, Certificate: CertificateName{Email: "a"}}}, "no e-mail address"},
		{"no subject", []Client{{ID: "a", Issuer: issuerA, Certificate: CertificateName{SubjectDN: "app"}}}, "distinguished name"},
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

func TestMethodFollowsFromWhatAClientHas(t *testing.T) {
	public := keysOf(t, issuer.KeySourceConfig{JWKS: []byte(decoyJWKS)})
	shared := keysOf(t, issuer.KeySourceConfig{Secrets: []string{sharedSecret}})
	for _, tt := range []struct {
		client Client
		want   []AuthMethod
	}{
		{Client{Secrets: []Secret{clearSecret(t, "s3cret")}}, []AuthMethod{AuthSecretBasic, AuthSecretPost}},
		{Client{Keys: public}, []AuthMethod{AuthPrivateKeyJWT}},
		{Client{Keys: shared}, []AuthMethod{AuthSecretJWT}},
		{Client{Certificate: CertificateName{SubjectDN: "CN=a"}}, []AuthMethod{AuthTLS}},
		{Client{Certificates: [][sha256.Size]byte{{1}}}, []AuthMethod{AuthSelfSignedTLS}},
		{Client{Keys: public, Certificates: [][sha256.Size]byte{{1}}}, []AuthMethod{AuthSelfSignedTLS}},
	} {
		tt.client.ID, tt.client.Issuer = "a", issuerA
		got, err := NewClient(tt.client)
		if err != nil || !slices.Equal(got.Methods, tt.want) {
			t.Errorf("%v: %v, %v", tt.want, got, err)
		}
	}
}

func TestIDAtTwoIssuersIsTwoClients(t *testing.T) {
	s, err := NewStaticClients(
		Client{ID: "web", Issuer: issuerA, Secrets: []Secret{clearSecret(t, "secret-a")}},
		Client{ID: "web", Issuer: issuerB, Secrets: []Secret{clearSecret(t, "secret-b")}},
		Client{ID: "sole", Issuer: issuerB, Methods: []AuthMethod{AuthNone}},
	)
	if err != nil || s.Len() != 3 || !s.Has(issuerA, "web") || s.Has(issuerA, "sole") {
		t.Fatalf("%v, %v", s, err)
	}
	if _, err := s.Client(t.Context(), "web"); !errors.Is(err, ErrUnknownClient) {
		t.Errorf("without an issuer, one of two is chosen: %v", err)
	}
	for _, iss := range []string{issuerA, issuerB} {
		c, err := s.Of(iss).Client(t.Context(), "web")
		if err != nil || c.Issuer != iss {
			t.Errorf("of %s: %+v, %v", iss, c, err)
		}
	}
	if _, err := s.Of(issuerA).Client(t.Context(), "sole"); !errors.Is(err, ErrUnknownClient) {
		t.Errorf("a client of another issuer: %v", err)
	}
	r := newRig(t, func(o *EndpointOptions) { o.Clients, o.Issuers = s, []string{issuerB} })
	for secret, want := range map[string]int{"secret-a": http.StatusUnauthorized, "secret-b": http.StatusOK} {
		if w := r.post("token=x.y.z", authorize(basicAuth("web", secret))); w.Code != want {
			t.Errorf("%s at an endpoint of B: status %d, want %d", secret, w.Code, want)
		}
	}
}

// looseStore returns whatever it has, as a careless database might.
type looseStore struct{ client Client }

func (s looseStore) Client(context.Context, string) (*Client, error) { return &s.client, nil }

func TestStoresAreNotTrustedToCheckTheirClients(t *testing.T) {
	for name, tt := range map[string]struct {
		client Client
		status int
	}{
		"a good one":          {Client{ID: "app", Issuer: issuerA, Secrets: []Secret{clearSecret(t, "app-secret")}}, http.StatusOK},
		"another id":          {Client{ID: "APP", Issuer: issuerA, Secrets: []Secret{clearSecret(t, "app-secret")}}, http.StatusUnauthorized},
		"a secret and public": {Client{ID: "app", Issuer: issuerA, Methods: []AuthMethod{AuthSecretBasic, AuthNone}, Secrets: []Secret{clearSecret(t, "app-secret")}}, http.StatusUnauthorized},
		"no issuer":           {Client{ID: "app", Secrets: []Secret{clearSecret(t, "app-secret")}}, http.StatusUnauthorized},
	} {
		r := newRig(t, func(o *EndpointOptions) { o.Clients = looseStore{tt.client} })
		if w := r.post("token=x.y.z", asApp); w.Code != tt.status {
			t.Errorf("%s: status %d, want %d", name, w.Code, tt.status)
		}
		if w := r.post("token=x.y.z&client_id=app", nil); w.Code != http.StatusUnauthorized {
			t.Errorf("%s, by its id alone: status %d", name, w.Code)
		}
	}
}
