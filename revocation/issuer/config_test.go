package issuer

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestMistakesInTheConfigAreExplained(t *testing.T) {
	const as = "https://as.example"
	secret := strings.Repeat("x", 64)
	for _, c := range []struct {
		name    string
		config  Config
		message string // empty: valid
	}{
		{"issuer alone", Config{Issuer: as}, ""},
		{"no issuer", Config{}, "exact iss"},
		{"issuer too long", Config{Issuer: as + strings.Repeat("y", 1024)}, "1024"},
		{"issuer that is no URL", Config{Issuer: "acme"}, "set jwks_uri or jwks_file"},
		{"issuer that is no URL, keys elsewhere", Config{Issuer: "acme", JWKSFile: "/keys.json"}, ""},
		{"unknown preset", Config{Issuer: as, Preset: "acme"}, "use one of auth0, authentik"},
		{"alias of itself", Config{Issuer: as, Aliases: []string{as}}, "repeats"},
		{"empty alias", Config{Issuer: as, Aliases: []string{""}}, "missing"},
		{"http issuer", Config{Issuer: "http://as.example"}, "allow_http"},
		{"http issuer, allowed", Config{Issuer: "http://as.example", AllowHTTP: true}, ""},
		{"http issuer here", Config{Issuer: "http://127.0.0.1:8080"}, ""},
		{"http issuer here by name", Config{Issuer: "http://localhost"}, ""},
		{"http issuer here by IPv6", Config{Issuer: "http://[::1]:80"}, ""},
		{"http host that only looks local", Config{Issuer: "http://localhost.example"}, "allow_http"},
		{"internal discovery", Config{Issuer: as, Discovery: "http://keycloak:8080/realms/prod"}, ""},
		{"discovery is no URL", Config{Issuer: as, Discovery: "keycloak:8080"}, "discovery"},
		{"password in the URL", Config{Issuer: as, JWKSURI: "https://user:pass@as.example"}, "password"},
		{"http jwks_uri", Config{Issuer: as, JWKSURI: "http://as.example/keys"}, "jwks_uri"},
		{"http jwks_uri, allowed", Config{Issuer: as, JWKSURI: "http://as.example/keys", AllowHTTP: true}, ""},
		{"relative jwks_file", Config{Issuer: as, JWKSFile: "keys.json"}, "absolute"},
		{"two sources", Config{Issuer: as, JWKSFile: "/keys.json", JWKSURI: as}, "jwks_uri and jwks_file exclude"},
		{"none", Config{Issuer: as, Algorithms: []string{"none"}}, "never accepted"},
		{"nOnE", Config{Issuer: as, Algorithms: []string{"RS256", "nOnE"}}, "never accepted"},
		{"algorithm in lower case", Config{Issuer: as, Algorithms: []string{"rs256"}}, "not supported"},
		{"encryption algorithm", Config{Issuer: as, Algorithms: []string{"RSA-OAEP"}}, "not supported"},
		{"algorithm twice", Config{Issuer: as, Algorithms: []string{"RS256", "RS256"}}, "twice"},
		{"HMAC without a secret", Config{Issuer: as, Algorithms: []string{"HS256"}}, "needs hmac_secret"},
		{"HMAC", Config{Issuer: as, HMACSecret: secret}, ""},
		{"HMAC secret too short", Config{Issuer: as, HMACSecret: secret[:31]}, "31 bytes, HS256 needs at least 32"},
		{"HMAC secret too short for one", Config{Issuer: as, HMACSecret: secret[:48], Algorithms: []string{"HS512"}}, "needs at least 64"},
		{"HMAC and RSA", Config{Issuer: as, HMACSecret: secret, Algorithms: []string{"HS256", "RS256"}}, "remove one"},
		{"HMAC and published keys", Config{Issuer: as, HMACSecret: secret, JWKSURI: as}, "exclude"},
		{"claim mapped to nothing", Config{Issuer: as, Claims: map[string]Names{"jti": {}}}, "mapped to nothing"},
		{"claim mapped to an empty name", Config{Issuer: as, Claims: map[string]Names{"jti": {""}}}, "not a name"},
		{"token mapped", Config{Issuer: as, Claims: map[string]Names{"token": {"x"}}}, "cannot be mapped"},
		{"kid mapped", Config{Issuer: as, Claims: map[string]Names{"kid": {"x"}}}, "cannot be mapped"},
		{"empty type", Config{Issuer: as, Types: []string{""}}, "write JWT"},
		{"empty audience", Config{Issuer: as, Audiences: []string{""}}, "aud"},
		{"lifetime of eleven years", Config{Issuer: as, MaxTokenLifetime: Duration(11 * 365 * 24 * time.Hour)}, "max_token_lifetime"},
		{"negative lifetime", Config{Issuer: as, MaxTokenLifetime: -1}, "max_token_lifetime"},
		{"leeway longer than revocations are kept", Config{Issuer: as, Leeway: Duration(5*time.Minute + 1)}, "outlives"},
		{"no leeway", Config{Issuer: as, Leeway: -1}, ""},
		{"refresh too often", Config{Issuer: as, RefreshInterval: Duration(time.Second)}, "refresh_interval"},
		{"distrusted key that is no thumbprint", Config{Issuer: as, DistrustedKeys: []string{"key-1"}}, "thumbprint"},
		{"development", Config{Development: true}, ""},
		{"development under another name", Config{Development: true, Issuer: as}, "must not sign in the name"},
		{"development by name only", Config{Issuer: DevelopmentIssuer}, "set development"},
		{"development with other keys", Config{Development: true, JWKSURI: as}, "exclude"},
		{"development with a secret", Config{Development: true, HMACSecret: secret}, "exclude"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.config.Validate()
			switch {
			case c.message == "" && err != nil:
				t.Error(err)
			case c.message != "" && (err == nil || !strings.Contains(err.Error(), c.message)):
				t.Errorf("got %v, want %q", err, c.message)
			case err != nil && strings.Contains(err.Error(), "pass@"), err != nil && strings.Contains(err.Error(), secret[:31]):
				t.Errorf("a secret in %v", err)
			}
		})
	}
}

func TestExplicitLinesWinOverThePreset(t *testing.T) {
	c := Config{
		Issuer: "https://as.example", Preset: "entra",
		Algorithms: []string{"ES256"}, Claims: map[string]Names{"client_id": {"mine"}, "tenant": {"tid"}},
	}
	got, err := c.WithPreset()
	if err != nil {
		t.Fatal(err)
	}
	want := c
	want.Claims = map[string]Names{"jti": {"uti"}, "client_id": {"mine"}, "tenant": {"tid"}}
	want.Types = []string{"JWT"}
	want.MaxTokenLifetime = Duration(28 * time.Hour)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
	if len(c.Claims) != 2 {
		t.Error("the argument was changed")
	}
	if again, err := got.WithPreset(); err != nil || !reflect.DeepEqual(again, got) {
		t.Errorf("expanding twice gives %+v, %v", again, err)
	}
	p, _ := Preset("entra")
	p.Claims["jti"][0] = "changed"
	p.Algorithms[0] = "changed"
	if p, _ := Preset("entra"); p.Claims["jti"][0] != "uti" || p.Algorithms[0] != "RS256" {
		t.Error("a caller can change a preset")
	}
}

func TestEveryPresetIsValid(t *testing.T) {
	if got := strings.Join(PresetNames(), " "); got != "auth0 authentik django entra hydra keycloak okta zitadel" {
		t.Errorf("presets: %s", got)
	}
	for _, name := range PresetNames() {
		if err := (Config{Issuer: "https://as.example", Preset: name}).Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, found := Preset("Keycloak"); found {
		t.Error("preset names have no case")
	}
}

func TestConfigIsReadFromJSON(t *testing.T) {
	var c Config
	err := json.Unmarshal([]byte(`{"issuer":"https://as.example","claims":{"jti":"uti","client_id":["azp","appid"]},
		"max_token_lifetime":"1d12h","leeway":30000000000,"key_retention":"90m"}`), &c)
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Issuer: "https://as.example", Claims: map[string]Names{"jti": {"uti"}, "client_id": {"azp", "appid"}},
		MaxTokenLifetime: Duration(36 * time.Hour), Leeway: Duration(30 * time.Second), KeyRetention: Duration(90 * time.Minute),
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got %+v", c)
	}
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var again Config
	if err := json.Unmarshal(text, &again); err != nil || !reflect.DeepEqual(again, c) {
		t.Errorf("%s: %+v, %v", text, again, err)
	}
	for text, want := range map[string]time.Duration{
		`"0.5d"`: 12 * time.Hour, `"-1d1h"`: -25 * time.Hour, `"7d"`: 7 * 24 * time.Hour, `"5m"`: 5 * time.Minute, `0`: 0,
	} {
		var d Duration
		if err := json.Unmarshal([]byte(text), &d); err != nil || time.Duration(d) != want {
			t.Errorf("%s: %s, %v", text, d, err)
		}
	}
	for _, text := range []string{`"d"`, `"xd"`, `"1dx"`, `"5"`, `"1e9d"`, `"infd"`, `"nand"`, `1.5`, `true`, `""`} {
		var d Duration
		if err := json.Unmarshal([]byte(text), &d); err == nil {
			t.Errorf("%s: %s", text, d)
		}
	}
}

func TestGenerationFollowsWhatIdentitiesDependOn(t *testing.T) {
	generation := func(change func(*Config)) uint64 {
		c := Config{Issuer: "https://as.example", Aliases: []string{"https://a", "https://b"}}
		if change != nil {
			change(&c)
		}
		i, err := New(c, Options{})
		if err != nil {
			t.Fatal(err)
		}
		return i.Generation()
	}
	base := generation(nil)
	for name, change := range map[string]func(*Config){
		"nothing":             func(*Config) {},
		"source":              func(c *Config) { c.JWKSURI = "https://keys.example" },
		"refresh":             func(c *Config) { c.RefreshInterval = Duration(time.Minute) },
		"order of aliases":    func(c *Config) { c.Aliases = []string{"https://b", "https://a"} },
		"default written out": func(c *Config) { c.Leeway = Duration(time.Minute) },
	} {
		if generation(change) != base {
			t.Errorf("%s changes the generation", name)
		}
	}
	for name, change := range map[string]func(*Config){
		"claims":     func(c *Config) { c.Claims = map[string]Names{"jti": {"uti"}} },
		"types":      func(c *Config) { c.Types = []string{"strict"} },
		"algorithms": func(c *Config) { c.Algorithms = []string{"RS256"} },
		"audience":   func(c *Config) { c.Audiences = []string{"x"} },
		"lifetime":   func(c *Config) { c.MaxTokenLifetime = Duration(time.Hour) },
		"leeway":     func(c *Config) { c.Leeway = Duration(time.Second) },
		"aliases":    func(c *Config) { c.Aliases = nil },
		"issuer":     func(c *Config) { c.Issuer = "https://other.example" },
	} {
		if generation(change) == base {
			t.Errorf("%s does not change the generation", name)
		}
	}
}
