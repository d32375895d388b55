package issuer

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

func TestMetadataIsLookedForInBothLayouts(t *testing.T) {
	for base, want := range map[string][]string{
		"https://as.example": {
			"https://as.example/.well-known/openid-configuration", "https://as.example/.well-known/oauth-authorization-server"},
		"https://as.example/": {
			"https://as.example/.well-known/openid-configuration", "https://as.example/.well-known/oauth-authorization-server"},
		"https://as.example/realms/a%2Fb/": {
			"https://as.example/realms/a%2Fb/.well-known/openid-configuration", "https://as.example/.well-known/oauth-authorization-server/realms/a%2Fb"},
		"http://as:8080/t/v2.0?p=x": {
			"http://as:8080/t/v2.0/.well-known/openid-configuration?p=x", "http://as:8080/.well-known/oauth-authorization-server/t/v2.0?p=x"},
		"http://as/.well-known/custom": {"http://as/.well-known/custom"},
	} {
		u, err := url.Parse(base)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, u := range metadataURLs(u) {
			got = append(got, u.String())
		}
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("%s:\ngot  %s\nwant %s", base, got, want)
		}
	}
}

// discoverServer serves metadata at one path and keys at /keys.
func discoverServer(t *testing.T, as *revocationtest.AuthServer, path string, metadata func(base string) any) *httptest.Server {
	t.Helper()
	var server *httptest.Server
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case path:
			_ = json.NewEncoder(w).Encode(metadata(server.URL))
		case "/keys":
			_, _ = w.Write(as.KeySet())
		case "/.well-known/openid-configuration":
			_, _ = io.WriteString(w, "<html>a page that answers everything</html>")
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return server
}

func TestKeysAreDiscovered(t *testing.T) {
	as := revocationtest.NewAuthServer(t)
	const public = "https://sso.example.com/realms/prod"
	as.SetIssuer(public)
	for _, path := range []string{
		"/realms/prod/.well-known/openid-configuration", "/.well-known/oauth-authorization-server/realms/prod",
	} {
		t.Run(path, func(t *testing.T) {
			server := discoverServer(t, as, path, func(base string) any {
				return map[string]string{"issuer": public, "jwks_uri": base + "/keys"}
			})
			i := startIssuer(t, Config{Issuer: public, Discovery: server.URL + "/realms/prod"}, Options{Client: server.Client()})
			accept(t, newSet(t, i), as.Token(nil), Request{})
		})
	}
	t.Run("at the issuer itself", func(t *testing.T) {
		as.SetIssuer(as.URL)
		i := startIssuer(t, Config{Issuer: as.URL}, Options{Client: clientOf(t, as)})
		accept(t, newSet(t, i), as.Token(nil), Request{})
	})
}

func TestMetadataOfAnotherIssuerIsNotUsed(t *testing.T) {
	as := revocationtest.NewAuthServer(t)
	const public = "https://sso.example.com"
	as.SetIssuer(public)
	for name, c := range map[string]struct {
		metadata func(base string) any
		message  string
	}{
		"trailing slash":  {func(b string) any { return map[string]string{"issuer": public + "/", "jwks_uri": b + "/keys"} }, `its issuer is "https://sso.example.com/"`},
		"another issuer":  {func(b string) any { return map[string]string{"issuer": b, "jwks_uri": b + "/keys"} }, "its issuer is"},
		"no issuer":       {func(b string) any { return map[string]string{"jwks_uri": b + "/keys"} }, `its issuer is ""`},
		"another case":    {func(b string) any { return map[string]string{"Issuer": public, "jwks_uri": b + "/keys"} }, `its issuer is ""`},
		"no keys":         {func(string) any { return map[string]string{"issuer": public} }, "no jwks_uri"},
		"keys elsewhere":  {func(string) any { return map[string]string{"issuer": public, "jwks_uri": "http://as.invalid/keys"} }, "not https"},
		"keys in a file":  {func(string) any { return map[string]string{"issuer": public, "jwks_uri": "file:///etc/passwd"} }, "not an absolute https URL"},
		"keys relative":   {func(string) any { return map[string]string{"issuer": public, "jwks_uri": "/keys"} }, "not an absolute https URL"},
		"not an object":   {func(string) any { return []string{public} }, "not a JSON object"},
		"keys not a text": {func(string) any { return map[string]any{"issuer": public, "jwks_uri": 5} }, "no jwks_uri"},
	} {
		t.Run(name, func(t *testing.T) {
			server := discoverServer(t, as, "/m/.well-known/openid-configuration", c.metadata)
			i := newIssuer(t, Config{Issuer: public, Discovery: server.URL + "/m"}, Options{Client: server.Client()})
			i.Start()
			eventually(t, "discovery fails", func() bool { return i.KeyStatus().Err != nil })
			if err := i.KeyStatus().Err.Error(); !strings.Contains(err, c.message) {
				t.Error(err)
			}
			refuse(t, newSet(t, i), as.Token(nil), Request{}, ErrKeysUnavailable)
			i.Stop()
		})
	}
}
