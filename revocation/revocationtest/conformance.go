package revocationtest

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"
)

// ConformanceCase is one request to the revocation endpoint, and what has to become
// of it, from revocation/oauth/testdata/revocation_cases.json. Words in braces are
// filled in by whoever runs it.
type ConformanceCase struct {
	ID    string `json:"id"`
	Level string `json:"level"`
	Says  string `json:"says"`
	// Method is POST if empty.
	Method        string            `json:"method"`
	Query         string            `json:"query"`
	Authorization string            `json:"authorization"`
	ContentType   *string           `json:"content_type"`
	Headers       map[string]string `json:"headers"`
	Body          string            `json:"body"`
	// Keys and Ledger are "down" if the issuer's keys or the ledger can't be had.
	Keys   string          `json:"keys"`
	Ledger string          `json:"ledger"`
	Want   ConformanceWant `json:"want"`
	// Differs says why we chose something else than the usual answer.
	Differs string `json:"differs"`

	// What follows needs a whole Caddy: the lines of the endpoint's block, of the
	// global option token_revocation and of the option servers; the endpoint's
	// path and that of the request; how often the request is sent, of which the
	// last answer counts.
	Config   string `json:"config"`
	Options  string `json:"options"`
	Servers  string `json:"servers"`
	Endpoint string `json:"endpoint"`
	Path     string `json:"path"`
	Times    int    `json:"times"`
	// Before are bodies that are sent before, each of which is answered with 200.
	Before []string `json:"before"`
	// Introspection is "all" or "access" if the issuer is asked about its tokens,
	// and knows all of them, or access tokens only; "down" if it does not answer;
	// "endpoint" if only the endpoint asks, and not the protected route.
	Introspection string `json:"introspection"`
}

// ConformanceWant is what has to become of a [ConformanceCase].
type ConformanceWant struct {
	Status  int      `json:"status"`
	Error   string   `json:"error"`
	Revokes []string `json:"revokes"`
	// Headers have to begin with the value; "*" is any, "" is none.
	Headers map[string]string `json:"headers"`
}

// ReadJSON reads a JSON file into a T, which has to know all of its members.
func ReadJSON[T any](tb testing.TB, file string) T {
	tb.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	var v T
	if err := d.Decode(&v); err != nil {
		tb.Fatal(err)
	}
	return v
}
