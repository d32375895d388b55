//go:build e2e

package e2e

import (
	"bytes"
	"crypto/rand"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// siteAddress matches the line that opens the demo's site.
var siteAddress = regexp.MustCompile(`(?m)^http://localhost:\d+ \{$`)

// TestSecretsStaySecret goes the tour with everything logged that can be, and
// looks for tokens and secrets in all that is written. Every other test looks
// for them in the logs as they are by default.
func TestSecretsStaySecret(t *testing.T) {
	p := startOIDCProvider(t)
	natsPassword := rand.Text()
	t.Setenv("DEMO_EDGE_PASSWORD", natsPassword)
	accessLog := func(config string) string {
		return addAfter(siteAddress, "\tlog")(globalOption("debug")(config))
	}
	first, second := edgesTrusting(t, p, accessLog)

	var secrets []string // but for the one that the demo has in its config
	first.logs.forbid(natsPassword)
	second.logs.forbid(natsPassword)
	for _, secret := range p.secrets {
		secrets = append(secrets, secret)
	}
	for i, resource := range p.Resources {
		token := p.clientToken(providerService, resource)
		secrets = append(secrets, parts(t, token)[2])
		at := []*edge{first, second}[i%2]
		at.get(token)
		at.get(forge(t, token, map[string]any{"sub": "somebody"}))
		at.get(token + "x")
		for _, form := range []url.Values{
			{"token": {token}, "client_id": {providerService}, "client_secret": {"wrong" + p.secrets[providerService]}},
			{"token": {token + "x"}, "client_id": {providerService}, "client_secret": {p.secrets[providerService]}},
			{"token": {token}, "client_id": {providerService}, "client_secret": {p.secrets[providerService]}},
		} {
			at.post(form, "", "")
		}
		at.post(url.Values{"token": {token}}, providerOther, p.secrets[providerOther])
		first.eventuallyRefused("the token", token)
		second.eventuallyRefused("the token", token)
	}
	for _, e := range []*edge{first, second} {
		for _, path := range []string{"/metrics", "/config/", "/token_revocation/status"} {
			a := e.api(http.MethodGet, path, nil)
			for _, secret := range secrets {
				if a.status != http.StatusOK || strings.Contains(a.body, secret) {
					t.Errorf("%s: %s of the admin endpoint shows a secret, or nothing: %s", e.name, path, a)
				}
			}
		}
		e.process.stop()
		if n := len(e.logs.String()); n < 2000 {
			t.Errorf("%s logged %d bytes only: this test looks at nothing", e.name, n)
		}
		searchFiles(t, e.dir, secrets)
	}
}

// searchFiles looks for secrets in what a process has stored: the ledger, the
// checkpoint, the keys, the saved config.
func searchFiles(t *testing.T, dir string, secrets []string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		for _, secret := range secrets {
			if bytes.Contains(content, []byte(secret)) {
				t.Errorf("%s holds a secret", path)
			}
		}
		return nil
	})
	if err != nil || files == 0 {
		t.Errorf("searching %d files of %s: %v", files, dir, err)
	}
}
