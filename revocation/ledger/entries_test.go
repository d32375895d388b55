package ledger

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

const packed = `{"v":1,"id":"batch","actor":"import","reason":"breach","decided_at":1700000000000,"entries":[` +
	`{"issuer":"https://sso.example.com","criteria":{"jti":"a"},"expires":1900000000},` +
	`{"id":"own","issuer":"https://sso.example.com","criteria":{"sub":"b"},"issued_before":1700000000,"expires":1900000001,"actor":"hr"},` +
	`{"fingerprint":"000102030405060708090a0b0c0d0e0f","mode":"authenticated_before","names":["client_id","sub"],"authenticated_before":1700000000,"expires":1900000002}]}`

func TestAMessageHoldsManyEntries(t *testing.T) {
	items, err := decodeEntry([]byte(packed))
	if err != nil {
		t.Fatal(err)
	}
	want := []item{
		{revocation: &revocation.Revocation{
			Criteria: revocation.Criteria{Issuer: "https://sso.example.com", Claims: map[string]string{"jti": "a"}},
			Expires:  1900000000, Reason: "breach", Actor: "import", DecidedAt: 1700000000000,
		}},
		{revocation: &revocation.Revocation{
			ID: "own", Criteria: revocation.Criteria{Issuer: "https://sso.example.com", Claims: map[string]string{"sub": "b"}},
			Mode: revocation.IssuedBefore, Cutoff: 1700000000,
			Expires: 1900000001, Reason: "breach", Actor: "hr", DecidedAt: 1700000000000,
		}},
		{held: &revocation.HeldEntry{
			Fingerprint: revocation.Fingerprint{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
			Mode:        revocation.AuthenticatedBefore, Names: []string{"client_id", "sub"},
			Cutoff: 1700000000, Expires: 1900000002, Actor: "import",
		}},
	}
	if !reflect.DeepEqual(items, want) {
		t.Errorf("got  %+v\nwant %+v", items, want)
	}
}

func TestTheExamplesOfTheManualAreRead(t *testing.T) {
	manual, err := os.ReadFile("../../docs/ledger.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(manual), "```json\n")
	read := map[Kind]int{}
	for i, b := range blocks[1:] {
		example, _, _ := strings.Cut(b, "```")
		section := blocks[i][strings.LastIndex(blocks[i], "\n### "):]
		kind := KindEntry
		if strings.HasPrefix(section, "\n### recheck\n") {
			kind = KindRecheck
			_, err = decodeRecheck([]byte(example))
		} else {
			_, err = decodeEntry([]byte(example))
		}
		if err != nil {
			t.Errorf("%s\n%v", example, err)
		}
		read[kind]++
	}
	if read[KindEntry] < 2 || read[KindRecheck] != 1 {
		t.Fatalf("examples: %v", read)
	}
}

// One entry that breaks the rules makes the whole message unreadable: half of it
// in force would look like all of it.
func TestAMessageIsAppliedAsAWholeOrNotAtAll(t *testing.T) {
	good := `{"issuer":"i","criteria":{},"expires":1}`
	held := `"fingerprint":"000102030405060708090a0b0c0d0e0f","mode":"block","names":[],"expires":1`
	for name, payload := range map[string]string{
		"one without an issuer":         `{"v":1,"entries":[` + good + `,{"criteria":{},"expires":1}]}`,
		"one that is no object":         `{"v":1,"entries":[` + good + `,7]}`,
		"one with a member twice":       `{"v":1,"entries":[` + good + `,{"issuer":"i","issuer":"j","criteria":{},"expires":1}]}`,
		"one without an end":            `{"v":1,"entries":[` + good + `,{"issuer":"i","criteria":{}}]}`,
		"one with a version":            `{"v":1,"entries":[{"v":1,"issuer":"i","criteria":{},"expires":1}]}`,
		"one that holds others":         `{"v":1,"entries":[{"issuer":"i","criteria":{},"expires":1,"entries":[` + good + `]}]}`,
		"none":                          `{"v":1,"entries":[]}`,
		"no array":                      `{"v":1,"entries":{}}`,
		"null":                          `{"v":1,"entries":null}`,
		"an issuer beside them":         `{"v":1,"issuer":"i","entries":[` + good + `]}`,
		"an end beside them":            `{"v":1,"expires":1,"entries":[` + good + `]}`,
		"another entry's number":        `{"v":1,"entry":3,"entries":[` + good + `]}`,
		"a fingerprint in upper case":   `{"v":1,"entries":[{"fingerprint":"000102030405060708090A0B0C0D0E0F","mode":"block","names":[],"expires":1}]}`,
		"a fingerprint that is short":   `{"v":1,"entries":[{"fingerprint":"0001","mode":"block","names":[],"expires":1}]}`,
		"a fingerprint of nothing":      `{"v":1,"entries":[{"fingerprint":"00000000000000000000000000000000","mode":"block","names":[],"expires":1}]}`,
		"a fingerprint and an issuer":   `{"v":1,"entries":[{"issuer":"i",` + held + `}]}`,
		"a fingerprint without names":   `{"v":1,"entries":[{"fingerprint":"000102030405060708090a0b0c0d0e0f","mode":"block","expires":1}]}`,
		"a mode that is not the cutoff": `{"v":1,"entries":[{` + held + `,"issued_before":1}]}`,
		"names out of order":            `{"v":1,"entries":[{"fingerprint":"000102030405060708090a0b0c0d0e0f","mode":"block","names":["sub","jti"],"expires":1}]}`,
		"a mode without fingerprint":    `{"v":1,"entries":[{"issuer":"i","criteria":{},"mode":"block","expires":1}]}`,
		"an unknown mode":               `{"v":1,"entries":[{"fingerprint":"000102030405060708090a0b0c0d0e0f","mode":"some","names":[],"expires":1}]}`,
		"a fingerprint by itself":       `{"v":1,` + held + `}`,
	} {
		if items, err := decodeEntry([]byte(payload)); !errors.Is(err, ErrPayload) || items != nil {
			t.Errorf("%s: %v, %v", name, items, err)
		}
	}
	newer := (*VersionError)(nil)
	if _, err := decodeEntry([]byte(`{"v":2,"entries":[` + good + `]}`)); !errors.As(err, &newer) {
		t.Errorf("a newer version: %v", err)
	}
}

func TestAnAcknowledgmentSaysNothingElse(t *testing.T) {
	r, ack, err := decodeRestore([]byte(`{"v":1,"entry":17,"id":"x","reason":"a bug","actor":"operator","decided_at":1}`))
	if err != nil || r != nil || ack == nil || ack.sequence != 17 {
		t.Errorf("%v, %+v, %v", r, ack, err)
	}
	for _, payload := range []string{
		`{"v":1,"entry":0}`, `{"v":1,"entry":-1}`, `{"v":1,"entry":"17"}`, `{"v":1,"entry":null}`, `{"v":1,"entry":1.5}`,
		`{"v":1,"entry":17,"issuer":"i","criteria":{},"expires":1}`, `{"v":1,"entry":17,"expires":1}`,
		`{"v":1,"entry":17,"entries":[]}`, `{"v":1,"entries":[{"issuer":"i","criteria":{},"expires":1}]}`,
	} {
		if r, ack, err := decodeRestore([]byte(payload)); !errors.Is(err, ErrPayload) {
			t.Errorf("%s: %v, %v, %v", payload, r, ack, err)
		}
	}
}

func TestWhatIsPackedComesOutAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 300).Draw(t, "n")
		value := rapid.StringN(1, -1, revocation.MaxClaimValue)
		var in []item
		for i := range n {
			mode := revocation.Mode(rapid.IntRange(0, 2).Draw(t, "mode"))
			cutoff := int64(0)
			if mode != revocation.Block {
				cutoff = rapid.Int64Range(1, maxDate).Draw(t, "cutoff")
			}
			expires := rapid.Int64Range(1, maxDate).Draw(t, "expires")
			r := &revocation.Revocation{
				ID: fmt.Sprint(i), Criteria: revocation.Criteria{Issuer: "i", Claims: map[string]string{"sub": value.Draw(t, "sub")}},
				Mode: mode, Cutoff: cutoff, Expires: expires,
			}
			if rapid.Bool().Draw(t, "held") {
				in = append(in, item{held: &revocation.HeldEntry{
					Fingerprint: r.Criteria.Fingerprint(mode), Mode: mode, Names: []string{"sub"}, Cutoff: cutoff, Expires: expires,
				}})
			} else {
				in = append(in, item{revocation: r})
			}
		}
		var out []item
		for rest := in; len(rest) > 0; {
			data, n, err := pack(len(rest), func(i int) (any, error) {
				if h := rest[i].held; h != nil {
					return encodeHeld(h)
				}
				w := wireRevocation(rest[i].revocation)
				w.Version = 0
				return w, nil
			})
			if err != nil || n == 0 || len(data) > MaxPayload {
				t.Fatalf("%d items in %d bytes, %v", n, len(data), err)
			}
			items, err := decodeEntry(data)
			if err != nil {
				t.Fatal(err)
			}
			out, rest = append(out, items...), rest[n:]
		}
		if !reflect.DeepEqual(in, out) {
			t.Fatalf("got  %+v\nwant %+v", out, in)
		}
	})
}

func TestAPackIsFilled(t *testing.T) {
	r := &revocation.Revocation{
		ID: strings.Repeat("f", 32), Criteria: revocation.Criteria{Issuer: "https://sso.example.com", Claims: map[string]string{"jti": strings.Repeat("x", 36)}},
		Expires: 1900000000, Actor: "operator", DecidedAt: 1700000000000,
	}
	data, n, err := pack(100000, func(int) (any, error) { return wireRevocation(r), nil })
	if err != nil || len(data) > MaxPayload || len(data) < MaxPayload-512 || n < 300 {
		t.Errorf("%d entries in %d bytes, %v", n, len(data), err)
	}
	failing := errors.New("failing")
	for _, at := range []int{0, 3} {
		data, n, err := pack(10, func(i int) (any, error) {
			if i == at {
				return nil, failing
			}
			return wireRevocation(r), nil
		})
		if n != at || (at == 0) != errors.Is(err, failing) {
			t.Errorf("failing at %d: %d entries, %v", at, n, err)
		}
		if at > 0 {
			// A version inside is refused, so that this must not be sent; the form is whole.
			if _, err := decodeEntry([]byte(strings.ReplaceAll(string(data), `{"v":1,"id"`, `{"id"`))); err != nil {
				t.Errorf("%s: %v", data, err)
			}
		}
	}
}

func TestOnlyWhatDeniesAsMuchForAsLongCovers(t *testing.T) {
	base := revocation.Revocation{
		ID: "x", Criteria: revocation.Criteria{Issuer: "i", Claims: map[string]string{"sub": "alice"}},
		Mode: revocation.IssuedBefore, Cutoff: 100, Expires: 200,
	}
	for name, c := range map[string]struct {
		change func(r *revocation.Revocation)
		want   bool
	}{
		"the same":         {func(*revocation.Revocation) {}, true},
		"a later cutoff":   {func(r *revocation.Revocation) { r.Cutoff++ }, true},
		"a later end":      {func(r *revocation.Revocation) { r.Expires++ }, true},
		"an earlier end":   {func(r *revocation.Revocation) { r.Expires-- }, false},
		"an earlier cut":   {func(r *revocation.Revocation) { r.Cutoff-- }, false},
		"another mode":     {func(r *revocation.Revocation) { r.Mode = revocation.AuthenticatedBefore }, false},
		"another issuer":   {func(r *revocation.Revocation) { r.Criteria.Issuer = "j" }, false},
		"another criteria": {func(r *revocation.Revocation) { r.Criteria.Claims = map[string]string{"sub": "bob"} }, false},
	} {
		entry := base
		c.change(&entry)
		held := &revocation.HeldEntry{
			Fingerprint: entry.Criteria.Fingerprint(entry.Mode), Mode: entry.Mode, Names: []string{"sub"},
			Cutoff: entry.Cutoff, Expires: entry.Expires,
		}
		for _, i := range []item{{revocation: &entry}, {held: held}} {
			if got := i.covers(&base); got != c.want {
				t.Errorf("%s: %t", name, got)
			}
		}
	}
}

func TestTheLifeOfAMessageIsReadAsTheServerReadsIt(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"90": 90 * time.Second, "1h30m": 90 * time.Minute, "1.9s": time.Second,
		"never": 0, "": 0, "0": 0, "-5s": 0, "500ms": 0, "soon": 0,
	} {
		got, limited := messageLife(map[string][]string{"Nats-TTL": {text}})
		if got != want || limited != (want > 0) {
			t.Errorf("%q: %s, %t", text, got, limited)
		}
	}
}

// checkEntry is a fuzz target's property: what is decoded is valid, and encodes
// to the same.
func checkEntry(t *testing.T, data []byte) {
	items, err := decodeEntry(data)
	if (err == nil) != (len(items) > 0) {
		t.Fatalf("%d items, %v", len(items), err)
	}
	for _, i := range items {
		var again []byte
		switch {
		case (i.held == nil) == (i.revocation == nil):
			t.Fatal("an item is one of the two")
		case i.held != nil:
			again, _, err = pack(1, func(int) (any, error) { return encodeHeld(i.held) })
		default:
			r := *i.revocation
			if r.ID == "" {
				r.ID = "x"
			}
			again, err = encodeRevocation(&r)
		}
		if err != nil {
			if errors.Is(err, revocation.ErrInvalidRevocation) && strings.Contains(err.Error(), "bytes, at most") {
				continue
			}
			t.Fatalf("decoded but not encodable: %v", err)
		}
		back, err := decodeEntry(again)
		if err != nil || len(back) != 1 || back[0].expires() != i.expires() {
			t.Fatalf("%s became %s: %v", data, again, err)
		}
	}
}
