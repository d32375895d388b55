package ledger

import (
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

const minimal = `{"v":1,"issuer":"https://sso.example.com","criteria":{"sub":"alice"},"expires":1900000000}`

func TestEntriesOfAnyProducerAreRead(t *testing.T) {
	for name, c := range map[string]struct {
		payload string
		want    revocation.Revocation
	}{
		"the least":       {minimal, revocation.Revocation{Expires: 1900000000}},
		"unknown members": {`{"v":1,"x":{"v":2,"a":[1,{"issuer":null}]},"issuer":"https://sso.example.com","criteria":{"sub":"alice"},"expires":1900000000,"y":"}"}`, revocation.Revocation{Expires: 1900000000}},
		"white space":     {" {\n\t\"v\" : 1 ,\r\n\"issuer\" : \"https://sso.example.com\" , \"criteria\" : { \"sub\" : \"alice\" } , \"expires\" : 1900000000 } ", revocation.Revocation{Expires: 1900000000}},
		"nulls for what describes": {`{"v":1,"id":null,"reason":null,"actor":null,"decided_at":null,"issuer":"https://sso.example.com","criteria":{"sub":"alice"},"expires":1900000000}`,
			revocation.Revocation{Expires: 1900000000}},
		"everything": {`{"v":1,"id":"ab","issuer":"https:\/\/sso.example.com","criteria":{"s\u0075b":"alic\u0065"},"issued_before":1700000000,"expires":1900000000,"reason":"\ud83d\ude00\n","actor":"ci","decided_at":1700000000123}`,
			revocation.Revocation{ID: "ab", Mode: revocation.IssuedBefore, Cutoff: 1700000000, Expires: 1900000000, Reason: "😀\n", Actor: "ci", DecidedAt: 1700000000123}},
		"authenticated before": {`{"v":1,"issuer":"https://sso.example.com","criteria":{"sub":"alice"},"authenticated_before":1700000000,"expires":1900000000}`,
			revocation.Revocation{Mode: revocation.AuthenticatedBefore, Cutoff: 1700000000, Expires: 1900000000}},
	} {
		t.Run(name, func(t *testing.T) {
			c.want.Criteria = revocation.Criteria{Issuer: "https://sso.example.com", Claims: map[string]string{"sub": "alice"}}
			got, err := decodeRevocation([]byte(c.payload))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(*got, c.want) {
				t.Errorf("got  %+v\nwant %+v", *got, c.want)
			}
		})
	}
}

func TestEntriesThatBreakTheRulesAreRefused(t *testing.T) {
	with := func(old, new string) string { return strings.Replace(minimal, old, new, 1) }
	for name, payload := range map[string]string{
		"empty":                         "",
		"not JSON":                      "{",
		"not an object":                 `["v",1]`,
		"two values":                    minimal + minimal,
		"not UTF-8":                     with("alice", "al\xffce"),
		"lone surrogate":                with("alice", `\ud800`),
		"wrong surrogate pair":          with("alice", `\ud800\u0041`),
		"no version":                    with(`"v":1,`, ``),
		"version zero":                  with(`"v":1`, `"v":0`),
		"version as text":               with(`"v":1`, `"v":"1"`),
		"version in capitals":           with(`"v":1`, `"V":1`),
		"no issuer":                     with(`"issuer"`, `"Issuer"`),
		"empty issuer":                  with(`https://sso.example.com`, ``),
		"no criteria":                   with(`"criteria"`, `"CRITERIA"`),
		"criteria null":                 with(`{"sub":"alice"}`, `null`),
		"criteria a list":               with(`{"sub":"alice"}`, `["sub","alice"]`),
		"claim value a number":          with(`"alice"`, `5`),
		"claim value empty":             with(`"alice"`, `""`),
		"claim twice":                   with(`{"sub":"alice"}`, `{"sub":"alice","sub":"bob"}`),
		"claim twice in disguise":       with(`{"sub":"alice"}`, `{"sub":"alice","s\u0075b":"bob"}`),
		"nine claims":                   with(`{"sub":"alice"}`, `{"1":"a","2":"a","3":"a","4":"a","5":"a","6":"a","7":"a","8":"a","9":"a"}`),
		"no end":                        with(`"expires"`, `"Expires"`),
		"end null":                      with(`1900000000`, `null`),
		"end a float":                   with(`1900000000`, `1.9e9`),
		"end with fraction":             with(`1900000000`, `1900000000.0`),
		"end in milliseconds":           with(`1900000000`, `1900000000000`),
		"end overflows":                 with(`1900000000`, `19000000000000000000`),
		"end negative":                  with(`1900000000`, `-1`),
		"member twice":                  with(`"v":1`, `"v":1,"expires":1`),
		"unknown member twice":          with(`"v":1`, `"v":1,"x":1,"x":2`),
		"cutoff null":                   with(`"v":1`, `"v":1,"issued_before":null`),
		"cutoff zero":                   with(`"v":1`, `"v":1,"issued_before":0`),
		"two cutoffs":                   with(`"v":1`, `"v":1,"issued_before":5,"authenticated_before":5`),
		"cutoff in milliseconds":        with(`"v":1`, `"v":1,"issued_before":1900000000000`),
		"long reason":                   with(`"v":1`, `"v":1,"reason":"`+strings.Repeat("x", 257)+`"`),
		"long id":                       with(`"v":1`, `"v":1,"id":"`+strings.Repeat("x", 65)+`"`),
		"too large":                     with(`"v":1`, `"v":1,"x":"`+strings.Repeat("x", MaxPayload)+`"`),
		"sixty-five members":            with(`"v":1`, `"v":1,`+manyMembers(62)),
		"heartbeat on an entry subject": `{"v":1,"edge":"a","at":1}`,
		"genesis on an entry subject":   `{"v":1,"ledger":"abc"}`,
	} {
		t.Run(name, func(t *testing.T) {
			if r, err := decodeRevocation([]byte(payload)); !errors.Is(err, ErrPayload) {
				t.Errorf("got %+v, %v", r, err)
			}
		})
	}
}

func manyMembers(n int) string {
	var parts []string
	for i := range n {
		parts = append(parts, `"m`+string(rune('A'+i))+`":0`)
	}
	return strings.Join(parts, ",")
}

func TestAKindOnAnotherSubjectIsRefused(t *testing.T) {
	cutoff := strings.Replace(minimal, `"v":1`, `"v":1,"issued_before":5`, 1)
	if _, err := decodeRestoration([]byte(cutoff)); !errors.Is(err, ErrPayload) {
		t.Errorf("a cutoff as restore: %v", err)
	}
	if _, err := decodeHeartbeat([]byte(minimal)); !errors.Is(err, ErrPayload) {
		t.Errorf("an entry as heartbeat: %v", err)
	}
	if _, err := decodeHeartbeat([]byte(`{"v":1,"ledger":"x"}`)); !errors.Is(err, ErrPayload) {
		t.Errorf("a genesis as heartbeat: %v", err)
	}
	if _, err := decodeGenesis([]byte(minimal)); !errors.Is(err, ErrPayload) {
		t.Errorf("an entry as genesis: %v", err)
	}
}

func TestANewerVersionIsToldApartFromGarbage(t *testing.T) {
	// Its other members may have any shape.
	payload := `{"issuer":["a"],"criteria":5,"expires":1900000000,"v":2}`
	_, err := decodeRevocation([]byte(payload))
	var newer *VersionError
	if !errors.As(err, &newer) || newer.Version != 2 || newer.Expires != 1900000000 {
		t.Fatalf("got %v", err)
	}
	if _, err := decodeHeartbeat([]byte(`{"v":7,"edge":{}}`)); err != nil {
		t.Errorf("a newer heartbeat is one too: %v", err)
	}
}

func TestErrorsQuoteNothingOfTheEntry(t *testing.T) {
	for _, payload := range []string{
		`{"v":1,"issuer":"hunter2hunter2","criteria":{"sub":5},"expires":"hunter2"}`,
		`{"v":1,"hunter2":1,"hunter2":2}`,
		`{"v":"hunter2"}`,
		`hunter2`,
	} {
		_, err := decodeRevocation([]byte(payload))
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", payload, err)
		}
	}
}

func TestEveryValidRevocationSurvivesTheRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := func(label string, least, most int) string {
			s := rapid.StringN(least, most/6, most).Draw(t, label)
			if !utf8.ValidString(s) {
				t.Skip("not a text")
			}
			return s
		}
		claims := map[string]string{}
		for range rapid.IntRange(0, revocation.MaxCriteriaClaims).Draw(t, "claims") {
			claims[text("name", 1, revocation.MaxClaimName)] = text("value", 1, revocation.MaxClaimValue)
		}
		r := &revocation.Revocation{
			ID:       text("id", 1, 64),
			Criteria: revocation.Criteria{Issuer: text("issuer", 1, revocation.MaxIssuer), Claims: claims},
			Mode:     rapid.SampledFrom([]revocation.Mode{revocation.Block, revocation.IssuedBefore, revocation.AuthenticatedBefore}).Draw(t, "mode"),
			Expires:  rapid.Int64Range(1, maxDate).Draw(t, "expires"),
			Reason:   text("reason", 0, revocation.MaxReason),
			Actor:    text("actor", 0, revocation.MaxActor),
		}
		if r.Mode != revocation.Block {
			r.Cutoff = rapid.Int64Range(1, maxDate).Draw(t, "cutoff")
		}
		if r.Validate() != nil {
			t.Skip("invalid")
		}
		data, err := encodeRevocation(r)
		if err != nil {
			t.Fatal(err)
		}
		back, err := decodeRevocation(data)
		if err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		if !maps.Equal(back.Criteria.Claims, claims) {
			t.Fatalf("claims %v", back.Criteria.Claims)
		}
		back.Criteria.Claims, r.Criteria.Claims = nil, nil
		if !reflect.DeepEqual(back, r) {
			t.Fatalf("got  %+v\nwant %+v", back, r)
		}
	})
}

func TestTheLargestRevocationFits(t *testing.T) {
	worst := func(n int) string { return strings.Repeat("\x01", n) } // six bytes each
	claims := map[string]string{}
	for i := range revocation.MaxCriteriaClaims {
		claims[worst(revocation.MaxClaimName-1)+string(rune('a'+i))] = worst(revocation.MaxClaimValue)
	}
	r := &revocation.Revocation{
		ID: worst(64), Criteria: revocation.Criteria{Issuer: worst(revocation.MaxIssuer), Claims: claims},
		Mode: revocation.IssuedBefore, Cutoff: maxDate, Expires: maxDate, DecidedAt: 1 << 62,
		Reason: worst(revocation.MaxReason), Actor: worst(revocation.MaxActor),
	}
	if err := r.Validate(); err != nil {
		t.Fatal(err)
	}
	data, err := encodeRevocation(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decodeRevocation(data); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes of %d", len(data), MaxPayload)
}

func TestTheMessageOutlivesTheRevocation(t *testing.T) {
	now := time.Unix(1700000000, 999_999_999)
	for name, c := range map[string]struct {
		expires int64
		want    time.Duration
	}{
		"a fraction rounds up":   {1700000002, 2*time.Second + 10*time.Minute},
		"over":                   {1600000000, time.Second + 10*time.Minute},
		"ten years":              {1700000000 + 315360000, 315360000*time.Second + 10*time.Minute},
		"beyond what NATS holds": {maxDate, 100*365*24*time.Hour + 10*time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			got := messageTTL(c.expires, now, 10*time.Minute)
			if got != c.want || got%time.Second != 0 {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if end := now.Add(got); end.Year() >= 2262 {
				t.Errorf("ends in %d", end.Year())
			}
		})
	}
}

// decodeRevocation reads an entry that holds one revocation.
func decodeRevocation(data []byte) (*revocation.Revocation, error) {
	items, err := decodeEntry(data)
	switch {
	case err != nil:
		return nil, err
	case len(items) != 1 || items[0].revocation == nil:
		return nil, errors.New("not one revocation by its criteria")
	}
	return items[0].revocation, nil
}

func decodeRestoration(data []byte) (*revocation.Restoration, error) {
	r, ack, err := decodeRestore(data)
	if err == nil && ack != nil {
		return nil, errors.New("an acknowledgment")
	}
	return r, err
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(minimal))
	f.Add([]byte(`{"v":2,"expires":1}`))
	f.Add([]byte(`{"v":1,"ledger":"x","at":1}`))
	f.Add([]byte(`{"v":1,"edge":"x","id":"y"}`))
	f.Add([]byte(`{"v":1,"a":"\ud83d\ude00\u0041\"\\","b":[{"c":"]"}],"d":-1.5e9}`))
	f.Add([]byte("{\"a\":\"\\ud800\"}"))
	f.Add([]byte(packed))
	f.Add([]byte(`{"v":1,"entry":17,"reason":"x"}`))
	f.Add([]byte(`{"v":1,"id":"x","issuer":"y","reason":"z","actor":"a","decided_at":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		checkEntry(t, data)
		if r, ack, err := decodeRestore(data); err == nil && (r == nil) == (ack == nil) {
			t.Fatal("a restore is an undo or an acknowledgment")
		} else if ack != nil && ack.sequence == 0 {
			t.Fatal("an acknowledgment of nothing")
		}
		if r, err := decodeRevocation(data); err == nil {
			if r.ID == "" {
				r.ID = "x"
			}
			again, err := encodeRevocation(r)
			if err != nil {
				t.Fatalf("decoded but not encodable: %v", err)
			}
			back, err := decodeRevocation(again)
			if err != nil {
				t.Fatal(err)
			}
			if back.Criteria.Fingerprint(back.Mode) != r.Criteria.Fingerprint(r.Mode) || back.Expires != r.Expires || back.Cutoff != r.Cutoff {
				t.Fatalf("%s became %s", data, again)
			}
		}
		if r, err := decodeRestoration(data); err == nil && r.Expires <= 0 {
			t.Fatal("a restore without end")
		}
		if r, err := decodeRecheck(data); err == nil {
			if r.ID == "" {
				r.ID = "x"
			}
			again, err := encodeRecheck(r)
			if err != nil {
				t.Fatalf("decoded but not encodable: %v", err)
			}
			if back, err := decodeRecheck(again); err != nil || *back != *r {
				t.Fatalf("%s became %s: %v", data, again, err)
			}
			if _, err := decodeEntry(data); err == nil {
				t.Fatal("a recheck and a revocation")
			}
		}
		_, _ = decodeHeartbeat(data)
		_, _ = decodeGenesis(data)
	})
}

// FuzzScan compares the scanner with encoding/json on objects of strings.
func FuzzScan(f *testing.F) {
	f.Add([]byte(`{"a":"b","c":"\u00e9\n\/\"\\"}`))
	f.Add([]byte(` { "a" : "b" } `))
	f.Add([]byte(`{"a":{"b":["}"]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		got := map[string]string{}
		err := scanObject(data, func(name string, raw []byte) error {
			value, err := unquote(raw)
			got[name] = value
			return err
		})
		if err != nil {
			return
		}
		var want map[string]string
		if err := json.Unmarshal(data, &want); err != nil {
			t.Fatalf("read %q, encoding/json: %v", data, err)
		}
		if !maps.Equal(got, want) {
			t.Fatalf("%q: got %q, want %q", data, got, want)
		}
	})
}
