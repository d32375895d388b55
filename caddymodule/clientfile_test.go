package caddymodule

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// writeFile replaces a file at once, as its users are told to.
func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// knows tells whether the endpoint authenticates a public client.
func (s *site) knows(client string) bool {
	s.t.Helper()
	got := s.revoke(url.Values{"token": {unknownJWT}, "client_id": {client}})
	if got.status != http.StatusOK && got.status != http.StatusUnauthorized && got.status != http.StatusTooManyRequests {
		s.t.Fatalf("status %d: %s", got.status, got.body)
	}
	return got.status == http.StatusOK
}

func (s *site) metric(name string) string {
	s.t.Helper()
	got := s.do(http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/metrics", s.admin), nil, "")
	for line := range strings.SplitSeq(got.body, "\n") {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return value
		}
	}
	return ""
}

// replaceFile writes a good file and waits until it is in use. Asking for its
// clients instead would count as guessing.
func (s *site) replaceFile(path, text string) {
	s.t.Helper()
	before := currentApp().status().ClientFiles[0].Loaded
	writeFile(s.t, path, text)
	s.eventually("the new file", func() bool { return currentApp().status().ClientFiles[0].Loaded.After(before) })
}

func TestClientsFileIsFollowed(t *testing.T) {
	s := newSite(t)
	path := filepath.Join(t.TempDir(), "clients.json")
	options := demo + "clients_file " + path + " 20ms"
	writeFile(t, path, `{"clients": [{"id": "one", "public": true}]}`)
	s.reload(options, "token_denylist")
	if !s.knows("one") || !s.knows("demo-app") || s.knows("two") {
		t.Fatal("the clients of the config and of the file are not known")
	}
	token := s.mint(issuer.MintRequest{Subject: "alice", ClientID: "one"})
	s.mustRevoke(token, "one")
	s.wantStatus(token, http.StatusUnauthorized, "revoked by a client of the file")

	s.replaceFile(path, `{"clients": [{"id": "two", "public": true}]}`)
	if !s.knows("two") || s.knows("one") {
		t.Error("not the clients of the new file")
	}

	for name, text := range map[string]string{
		"no JSON":                        `{"clients": [`,
		"a member that is not known":     `{"clients": [{"id": "three", "publik": true}]}`,
		"a client of the config":         `{"clients": [{"id": "demo-app", "public": true}, {"id": "three", "public": true}]}`,
		"a client twice":                 `{"clients": [{"id": "three", "public": true}, {"id": "three", "public": true}]}`,
		"an issuer that is not there":    `{"clients": [{"id": "three", "public": true, "issuer": "https://nobody.example"}]}`,
		"a secret in clear":              `{"clients": [{"id": "three", "secrets": ["hunter2-hunter2"]}]}`,
		"a placeholder without a value":  `{"clients": [{"id": "three", "secrets": ["{env.NOT_THERE_AT_ALL}"]}]}`,
		"a public client with privilege": `{"clients": [{"id": "three", "public": true, "revoke_any": true}]}`,
	} {
		writeFile(t, path, text)
		s.eventually(name+" to be noticed", func() bool {
			return currentApp().status().ClientFiles[0].Error != ""
		})
		if !s.knows("two") || s.knows("three") {
			t.Errorf("%s: the last good file is not in use", name)
		}
		if got := s.metric("caddy_token_revocation_clients_files_broken"); got != "1" {
			t.Errorf("%s: the metric is %q", name, got)
		}
		e := currentApp().status().ClientFiles[0].Error
		if strings.Contains(e, "hunter2") {
			t.Errorf("%s: the error has the secret: %s", name, e)
		}
		if name == "a client of the config" && !strings.Contains(e, "is given in the configuration and in "+path) {
			t.Errorf("%s: the error does not say where else: %s", name, e)
		}
		s.replaceFile(path, `{"clients": [{"id": "two", "public": true}]}`)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	s.eventually("the missing file to be noticed", func() bool { return currentApp().status().ClientFiles[0].Error != "" })
	if !s.knows("two") {
		t.Error("a missing file took the clients away")
	}

	// What is broken later is a message; what is broken from the start is an
	// error of the config, and the old config goes on.
	if err := s.load(options, "token_denylist\nheader X-Config 2"); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a config with a missing file loads: %v", err)
	}
	if !s.knows("two") {
		t.Error("a failed reload took the clients away")
	}
	writeFile(t, path, `{"clients": [{"id": "four", "public": true}]}`)
	s.reload(options, "token_denylist\nheader X-Config 3")
	if !s.knows("four") || s.metric("caddy_token_revocation_clients") != "3" {
		t.Error("not the clients of the new file")
	}
}

// The keys of a client in a file are loaded, kept over a reload, and let go of.
func TestKeysOfClientsInAFile(t *testing.T) {
	server := revocationtest.NewAuthServer(t)
	s := newSite(t)
	path := filepath.Join(t.TempDir(), "clients.json")
	entry := func(more string) string {
		return fmt.Sprintf(`{"clients": [{"id": "signer", "jwks_uri": "%s%s"}%s]}`, server.URL, revocationtest.JWKSPath, more)
	}
	writeFile(t, path, entry(""))
	options := demo + "clients_file " + path + " 20ms"
	s.reload(options, "token_denylist")
	n := 0
	try := func() int {
		n++
		return s.assert(server, "signer", fmt.Sprint(n)).status
	}
	if got := try(); got != http.StatusOK {
		t.Fatalf("status %d", got)
	}
	// From here on the keys can't be loaded again.
	server.Fail(http.StatusBadGateway)
	s.replaceFile(path, entry(`, {"id": "two", "public": true}`))
	if got := try(); got != http.StatusOK {
		t.Errorf("after a change of the file, the keys are gone: status %d", got)
	}
	s.reload(options, "token_denylist\nheader X-Config 2")
	if got := try(); got != http.StatusOK {
		t.Errorf("after a reload, the keys are gone: status %d", got)
	}
	references := 0
	clientKeys.Range(func(key, _ any) bool {
		count, _ := clientKeys.References(key)
		references += count
		return true
	})
	if references != 1 {
		t.Errorf("%d references to the keys of one client", references)
	}
	s.replaceFile(path, `{"clients": []}`)
	s.eventually("the keys to be let go of", func() bool {
		left := false
		clientKeys.Range(func(any, any) bool {
			left = true
			return false
		})
		return !left
	})
}

func TestClientsFileErrorsSayWhere(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"empty":                  {"", "line 1, column 1"},
		"no object":              {"[]", "line 1, column 1: the text has to be an object"},
		"no clients":             {"{}", `no member "clients"`},
		"clients is null":        {`{"clients": null}`, `no member "clients"`},
		"clients is an object":   {"{\n \"clients\": {}}", "line 2, column 13: clients has to be a list"},
		"another member":         {"{\"clients\": [],\n\"more\": 1}", `line 2, column 6: the member "more" is not known`},
		"the member in capitals": {`{"Clients": []}`, `the member "Clients" is not known`},
		"clients twice":          {"{\"clients\": [], \"clients\": []}", `line 1, column 25: the member "clients" is given twice`},
		"a number":               {"{\"clients\": [\n1]}", "line 2, column 1: clients has to be an object"},
		"a null":                 {"{\"clients\": [\nnull]}", "line 2, column 4: a client is an object"},
		"an unknown member":      {"{\"clients\": [\n  {\"id\": \"a\",\n   \"secert\": \"x\"}]}", `line 3, column 11: the member "secert" is not known`},
		"in another case":        {"{\"clients\": [{\"ID\": \"a\"}]}", `the member "ID" is not known`},
		"a member twice":         {"{\"clients\": [{\"id\": \"a\", \"public\": true, \"id\": \"b\"}]}", `the member "id" is given twice`},
		"twice in a key":         {"{\"clients\": [{\"id\": \"a\", \"jwks\": {\"keys\": [], \"keys\": []}}]}", `the member "keys" is given twice`},
		"another kind":           {"{\"clients\": [\n{\"id\": \"a\",\n \"public\": \"yes\"}]}", "line 3, column 16: clients.public has to be true or false"},
		"something after it":     {"{\"clients\": []}\n{}", "line 2, column 1"},
		"a comma too many":       {"{\"clients\": [\n{\"id\": \"a\"},\n]}", "line 3, column 1"},
		"not UTF-8":              {"{\"clients\": [{\"id\": \"\xff\"}]}", "not UTF-8"},
	} {
		entries, err := parseClientFile([]byte(tt.text))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, %v; want %q", name, entries, err, tt.want)
		}
	}
	entries, err := parseClientFile([]byte("{\"clients\": [\n  {\"id\": \"a\"},\n\n  {\"id\": \"b\", \"jwks\": {\"any\": {\"thing\": 1}}}\n]}"))
	if err != nil || len(entries) != 2 || entries[0].ID != "a" || entries[1].ID != "b" ||
		entries[1].at.String() != "line 4, column 3" {
		t.Errorf("%+v, %v", entries, err)
	}
}

func FuzzClientsFile(f *testing.F) {
	f.Add([]byte(`{"clients": [{"id": "a", "public": true}, {"id": "b", "secrets": ["{env.X}"], "jwks": {"keys": [{}]}}]}`))
	f.Add([]byte(`{"clients": [null, 1, "x", [{"id": "a"}]]}`))
	f.Add([]byte("{\"clients\": [{\"id\": \"a\",\n\"id\": \"b\"}]}"))
	f.Add([]byte(`{"clients": [{"\u0069d": "a"}]} `))
	f.Fuzz(func(t *testing.T, text []byte) {
		entries, err := parseClientFile(text)
		if err != nil {
			if entries != nil {
				t.Error("clients and an error")
			}
			return
		}
		// What is read is what another reader, who knows nothing of strictness,
		// makes of it.
		var plain struct {
			Clients []map[string]json.RawMessage `json:"clients"`
		}
		if err := json.Unmarshal(text, &plain); err != nil || len(plain.Clients) != len(entries) {
			t.Fatalf("%d clients, another reader sees %d: %v", len(entries), len(plain.Clients), err)
		}
		for i, c := range plain.Clients {
			var id string
			if raw, ok := c["id"]; ok && json.Unmarshal(raw, &id) == nil && id != entries[i].ID {
				t.Errorf("client %d is %q, another reader sees %q", i, entries[i].ID, id)
			}
			for name := range c {
				if !clientMembers[name] {
					t.Errorf("the member %q was let through", name)
				}
			}
		}
	})
}
