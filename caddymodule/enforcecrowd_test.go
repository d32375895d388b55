package caddymodule

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Clients that present more made-up tokens than the authorization server may be
// asked about at once do not hold up those of other networks.
func TestNetworksTakeTurnsAtTheAuthorizationServer(t *testing.T) {
	for name, present := range map[string]func(*site, string, http.Header) int{
		"at a route": func(s *site, token string, header http.Header) int {
			header.Set("Authorization", "Bearer "+token)
			return s.do(http.MethodGet, s.url("/"), header, "").status - http.StatusUnauthorized
		},
		"revoked by a public client": func(s *site, token string, header http.Header) int {
			header.Set("Content-Type", "application/x-www-form-urlencoded")
			return s.do(http.MethodPost, s.url("/oauth/revoke"), header, "client_id=spa&token="+token).status - http.StatusOK
		},
		"asked about": func(s *site, token string, header http.Header) int {
			header.Set("Content-Type", "application/x-www-form-urlencoded")
			return s.do(http.MethodPost, s.url("/oauth/introspect"), header, "client_id=api&client_secret=api-secret&token="+token).status - http.StatusOK
		},
	} {
		t.Run(name, func(t *testing.T) { testTurns(t, present) })
	}
}

// testTurns takes what presents a token, and returns zero for the answer that an
// inactive token gets.
func testTurns(t *testing.T, presentAt func(*site, string, http.Header) int) {
	t.Helper()
	const flood = 6
	arrived := make(chan string, 2*flood)
	next := make(chan struct{})
	as := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived <- r.PostFormValue("token")
		select {
		case <-next:
		case <-r.Context().Done():
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"active":false}`)
	}))
	t.Cleanup(as.Close)
	s := newSite(t)
	options := fmt.Sprintf("embedded\nissuer %[1]s {\nopaque\nintrospection %[1]s/introspect {\nauth_method none\nmax_concurrent 1\ntimeout 30s\n}\n}\nclient spa public\nclient api {env.SECRET_API}", as.URL)
	t.Setenv("SECRET_API", "api-secret")
	config := strings.Replace(s.caddyfile(options, "token_introspection /oauth/introspect {\nplain_http allow\n}\ntoken_denylist {\nintrospect\n}"),
		"\tadmin ", "\tservers {\n\t\ttrusted_proxies static 127.0.0.1\n\t}\n\tadmin ", 1)
	if err := s.loadConfig(config); err != nil {
		t.Fatal(err)
	}
	s.eventually("the edge to be in sync", func() bool { return currentApp().status().State == "in_sync" })

	var wg sync.WaitGroup
	present := func(token, from string) {
		wg.Go(func() {
			if off := presentAt(s, token, http.Header{"X-Forwarded-For": {from}}); off != 0 {
				t.Errorf("%s: the status is off by %d", token, off)
			}
		})
	}
	running := func(want int) {
		s.eventually("the questions", func() bool { return currentApp().introspectors[0].Status().Running == want })
	}
	for i := range flood {
		present(fmt.Sprint("made-up-", i), "192.0.2.1")
	}
	running(flood)
	present("of-another", "198.51.100.1")
	running(flood + 1)
	var order []string
	for range flood + 1 {
		select {
		case token := <-arrived:
			order = append(order, token)
		case <-time.After(30 * time.Second):
			t.Fatalf("only %q were asked about", order)
		}
		time.Sleep(20 * time.Millisecond) // so that all others are in the queue
		next <- struct{}{}
	}
	wg.Wait()
	// The one that was being asked, and perhaps one that was there before it.
	if at := slices.Index(order, "of-another"); at < 0 || at > 2 {
		t.Errorf("asked in the order %q", order)
	}
}
