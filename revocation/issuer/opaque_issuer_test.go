package issuer

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// An issuer whose tokens are all opaque has no keys, and looks for none.
func TestAnOpaqueIssuerLooksForNoKeys(t *testing.T) {
	as := revocationtest.NewAuthServer(t)
	i := newIssuer(t, Config{Issuer: as.URL, Opaque: true, Preset: "django"}, Options{})
	i.Start()
	defer i.Stop()
	if !i.Ready() || i.KeyStatus().Err != nil {
		t.Errorf("ready %v, %v", i.Ready(), i.KeyStatus().Err)
	}
	if algs := i.Config().Algorithms; len(algs) != 0 {
		t.Errorf("accepts %v", algs)
	}
	set, err := NewSet(i)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for _, alg := range revocationtest.Algorithms {
		_, _, err := set.Identify(ctx, as.Sign(as.Claims(nil), alg), Request{Wait: true})
		// It may be alive for all that, and the issuer can tell.
		if !errors.Is(err, ErrInvalid) || !errors.Is(err, ErrOtherKind) {
			t.Errorf("a JWT signed with %s: %v", alg, err)
		}
	}
	for _, path := range []string{revocationtest.JWKSPath, revocationtest.OIDCPath, revocationtest.MetadataPath} {
		if n := as.Requests(path); n != 0 {
			t.Errorf("%d requests for %s", n, path)
		}
	}
}

func TestAnOpaqueIssuerHasNoKeySource(t *testing.T) {
	for name, c := range map[string]struct {
		config Config
		want   string
	}{
		"keys by address":         {Config{JWKSURI: "https://as.example/keys"}, "jwks_uri"},
		"keys in a file":          {Config{JWKSFile: "/etc/keys"}, "jwks_file"},
		"keys by discovery":       {Config{Discovery: "https://as.example"}, "discovery"},
		"a secret":                {Config{HMACSecret: strings.Repeat("x", 64)}, "hmac_secret"},
		"a development issuer":    {Config{Issuer: DevelopmentIssuer, Development: true}, "development"},
		"signed answers":          {Config{Introspection: &IntrospectionConfig{Endpoint: "https://as.example/i", AuthMethod: "none", SignedResponse: true}}, "signed_response"},
		"an endpoint to be found": {Config{Introspection: &IntrospectionConfig{AuthMethod: "none"}}, "endpoint is missing"},
		"half a credential":       {Config{Introspection: &IntrospectionConfig{Endpoint: "https://as.example/i", ClientSecret: "geheim"}}, "client_id is missing"},
	} {
		config := c.config
		config.Opaque = true
		if config.Issuer == "" {
			config.Issuer = "https://as.example"
		}
		err := config.Validate()
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if _, err := New(config, Options{}); err == nil {
			t.Errorf("%s: made", name)
		}
	}
	good := Config{Issuer: "any name", Opaque: true, Introspection: &IntrospectionConfig{
		Endpoint: "https://as.example/i", ClientID: "edge", PrivateKey: "{file./run/secrets/key}"}}
	if err := good.Validate(); err != nil {
		t.Errorf("with a key that is not read yet: %v", err)
	}
}

func TestPurgeAllForgetsEverything(t *testing.T) {
	release := make(chan struct{})
	s := newAsked(t, answers(activeText(nil)))
	n := s.introspector(t, nil)
	introspect(t, n, "one", IntrospectionRequest{})
	introspect(t, n, "two", IntrospectionRequest{})
	s.set(func(w http.ResponseWriter, r *http.Request) {
		<-release
		answers(activeText(nil))(w, r)
	})
	waiting := make(chan error, 1)
	go func() {
		_, err := n.Introspect(context.Background(), "three", IntrospectionRequest{})
		waiting <- err
	}()
	eventually(t, "the third is asked", func() bool { return s.count() == 3 })
	if count := n.PurgeAll(); count != 2 {
		t.Errorf("%d forgotten, want 2", count)
	}
	close(release)
	if err := <-waiting; err != nil {
		t.Errorf("who asked before gets the answer: %v", err)
	}
	if st := n.Status(); st.Answers != 0 || st.Bytes != 0 || st.Purged != 2 {
		t.Errorf("%+v", st)
	}
	for _, token := range []string{"one", "two", "three"} {
		introspect(t, n, token, IntrospectionRequest{})
	}
	if st := n.Status(); s.count() != 6 || st.Answers != 3 {
		t.Errorf("%d questions, %+v", s.count(), st)
	}
}

func TestDurationsAreCounted(t *testing.T) {
	var c durationCounts
	for _, took := range []time.Duration{0, time.Millisecond, 3 * time.Millisecond, time.Second, time.Hour} {
		c.observe(took)
	}
	d := c.read()
	want := map[time.Duration]uint64{time.Millisecond: 2, 2 * time.Millisecond: 2, 5 * time.Millisecond: 3, 500 * time.Millisecond: 3,
		time.Second: 4, MaxIntrospectionTimeout: 4}
	for bound, count := range want {
		if d.Buckets[bound] != count {
			t.Errorf("%d within %s, want %d", d.Buckets[bound], bound, count)
		}
	}
	if d.Count != 5 || d.Sum != time.Hour+time.Second+4*time.Millisecond {
		t.Errorf("%+v", d)
	}
	s := newAsked(t, answers(activeText(nil)))
	n := s.introspector(t, nil)
	introspect(t, n, "one", IntrospectionRequest{})
	introspect(t, n, "one", IntrospectionRequest{})
	if d := n.Status().Durations; d.Count != 1 || d.Sum <= 0 {
		t.Errorf("after one question: %+v", d)
	}
}
