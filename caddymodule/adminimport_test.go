package caddymodule

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/revocationtest"
)

// importLines posts an import and returns its answer.
func (s *site) importLines(body io.Reader) (int, importAnswer) {
	s.t.Helper()
	response, err := http.Post(fmt.Sprintf("http://127.0.0.1:%d%simport", s.admin, adminPrefix), "application/x-ndjson", body)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	var answer importAnswer
	if err := json.Unmarshal(content, &answer); err != nil {
		s.t.Fatalf("status %d: %s", response.StatusCode, content)
	}
	return response.StatusCode, answer
}

func TestAnImportDeniesEveryLineAndCanBeRepeated(t *testing.T) {
	s := newSite(t)
	s.mustLoad(demo, "token_denylist")
	token := aliceToken(s)
	s.wantStatus(token, http.StatusOK, "before the import")
	end := time.Now().Add(time.Hour).Unix()
	const n = 10000
	lines := func() io.Reader {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `{"claims":{"jti":"import-%d"},%q:%d,"reason":"breach"}`+"\n", i, []string{"exp", "expires"}[i%2], end)
		}
		fmt.Fprintf(&b, "\n  \n"+`{"claims":{"sub":"alice"},"cutoff":%d}`, end) // no line feed at the end
		return strings.NewReader(b.String())
	}
	before := currentApp().replica.denylist.Position().Sequence
	status, got := s.importLines(lines())
	if status != http.StatusOK || got.Lines != n+3 || got.Recorded != n+1 || got.Failed != 0 {
		t.Fatalf("status %d, %+v", status, got)
	}
	s.wantStatus(token, http.StatusUnauthorized, "after the import")
	if entries := currentApp().replica.denylist.Stats().Entries; entries != n+1 {
		t.Errorf("%d entries", entries)
	}
	s.eventually("the follower", func() bool { return currentApp().replica.state().Sequence > before })
	if grown := currentApp().replica.denylist.Position().Sequence - before; grown > n/50 {
		t.Errorf("%d messages for %d revocations", grown, n)
	}
	// The second time, what says when it ends stands. That is proven by a
	// heartbeat, which may be late on a busy machine.
	s.eventually("the import to add nothing", func() bool {
		status, got = s.importLines(lines())
		if status != http.StatusOK || got.Recorded+got.Stood != n+1 || got.Failed != 0 {
			t.Fatalf("status %d, %+v", status, got)
		}
		return got.Stood >= n
	})
	if entries := currentApp().replica.denylist.Stats().Entries; entries != n+1 {
		t.Errorf("%d entries after it was repeated", entries)
	}
}

func TestALineMaySayWhenItsRevocationEnds(t *testing.T) {
	s := newSite(t)
	s.mustLoad(demo, "token_denylist")
	now := time.Now().Unix()
	for name, c := range map[string]struct {
		body    revocationRequest
		expires int64 // zero: refused
	}{
		"a token's exp":          {revocationRequest{Claims: map[string]string{"jti": "a"}, Exp: now + 60}, now + 60 + 300},
		"an end":                 {revocationRequest{Claims: map[string]string{"jti": "b"}, Expires: now + 60}, now + 60},
		"an end of a block":      {revocationRequest{Claims: map[string]string{"sub": "c"}, Mode: "block", Expires: now + 60}, now + 60},
		"both":                   {revocationRequest{Claims: map[string]string{"jti": "d"}, Exp: now + 60, Expires: now + 60}, 0},
		"an exp of many tokens":  {revocationRequest{Claims: map[string]string{"sub": "e"}, Exp: now + 60}, 0},
		"an exp of a token":      {revocationRequest{Token: aliceToken(s), Exp: now + 60}, 0},
		"a negative exp":         {revocationRequest{Claims: map[string]string{"jti": "f"}, Exp: -1}, 0},
		"a token that has ended": {revocationRequest{Claims: map[string]string{"jti": "g"}, Exp: now - 3600}, 0},
		"an end of a token":      {revocationRequest{Token: aliceToken(s), Expires: now + 60}, 0},
	} {
		got, answer := s.adminPost("revocations", c.body)
		if (got.status == http.StatusOK) != (c.expires != 0) || answer.Expires != c.expires {
			t.Errorf("%s: status %d, ends at %+d: %s", name, got.status, answer.Expires-now, got.body)
		}
	}
	for _, body := range []revocationRequest{{Claims: map[string]string{"jti": "a"}, Exp: now}, {Claims: map[string]string{"jti": "a"}, Expires: now}} {
		if got, _ := s.adminPost("restorations", body); got.status != http.StatusBadRequest {
			t.Errorf("a restoration with an end: %d", got.status)
		}
	}
}

func TestAnImportNamesTheLinesAtFault(t *testing.T) {
	s := newSite(t)
	s.mustLoad(demo, "token_denylist")
	status, got := s.importLines(strings.NewReader(strings.Join([]string{
		`{"claims":{"jti":"a"}}`,
		`{"claims":{"jti":"b"},"mode":"sometimes"}`,
		`not JSON`,
		``,
		`{"claims":{"jti":"c"},"surprise":1}`,
		`{}`,
		`{"claims":{"jti":"` + strings.Repeat("x", maxAdminBody) + `"}}`,
		`{"issuer":"https://nobody.example","claims":{"jti":"d"}}`,
		`{"claims":{"jti":"e"}} {"claims":{"jti":"f"}}`,
		`{"claims":{"jti":"g"}}`,
	}, "\n")))
	var lines []int
	for _, f := range got.Failures {
		lines = append(lines, f.Line)
		if f.Error == "" || strings.Contains(f.Error, "xxxx") {
			t.Errorf("line %d: %q", f.Line, f.Error)
		}
	}
	if want := "[2 3 5 6 7 8 9]"; fmt.Sprint(lines) != want {
		t.Errorf("lines %v failed, want %s", lines, want)
	}
	if status != http.StatusUnprocessableEntity || got.Lines != 10 || got.Recorded != 2 || got.Failed != 7 || got.Stopped != "" {
		t.Errorf("status %d, %+v", status, got)
	}
	// Their number is bounded, and the counts are not.
	status, got = s.importLines(strings.NewReader(strings.Repeat("{}\n", 3000)))
	if status != http.StatusUnprocessableEntity || got.Failed != 3000 || len(got.Failures) != importFailures {
		t.Errorf("status %d, %d failed, %d told", status, got.Failed, len(got.Failures))
	}
}

// Whoever sends an import may take longer over it than the admin endpoint allows
// for any other request: ten seconds.
func TestAnImportMayTakeItsTime(t *testing.T) {
	if testing.Short() {
		t.Skip("takes twelve seconds")
	}
	s := newSite(t)
	s.mustLoad(demo, "token_denylist")
	in, out := io.Pipe()
	go func() {
		for i := range 4 {
			time.Sleep(3 * time.Second)
			fmt.Fprintf(out, `{"claims":{"jti":"slow-%d"}}`+"\n", i)
		}
		_ = out.Close()
	}()
	if status, got := s.importLines(in); status != http.StatusOK || got.Recorded != 4 {
		t.Errorf("status %d, %+v", status, got)
	}
}

func TestAnImportStopsWhenTheDenylistIsFull(t *testing.T) {
	s := newSite(t)
	s.mustLoad(demo+"\n\tmax_entries 100\n", "token_denylist")
	token := aliceToken(s)
	var b strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&b, `{"claims":{"jti":"import-%d"}}`+"\n", i)
	}
	status, got := s.importLines(strings.NewReader(b.String()))
	if status != http.StatusServiceUnavailable || got.Stopped == "" || got.Recorded < 50 || got.Recorded > 100 || got.Lines > importBatch {
		t.Errorf("status %d, %d lines, %d recorded, %d failed, stopped %q", status, got.Lines, got.Recorded, got.Failed, got.Stopped)
	}
	// It must not take the edge down.
	s.wantStatus(token, http.StatusOK, "a token that nobody revoked")
}

func TestALineIsReadInBoundedMemory(t *testing.T) {
	in := bufio.NewReaderSize(strings.NewReader("short\n"+strings.Repeat("x", 1<<20)+"\nafter\n"+strings.Repeat("y", 1<<20)), 4096)
	for i, want := range []struct {
		line string
		err  error
	}{{"short", nil}, {"", errLongLine}, {"after", nil}, {"", errLongLine}, {"", io.EOF}} {
		line, err := readLine(in)
		if string(line) != want.line || !errors.Is(err, want.err) {
			t.Errorf("line %d: %q, %v", i, line, err)
		}
	}
}

func FuzzImportLine(f *testing.F) {
	f.Add([]byte(`{"claims":{"jti":"a"},"mode":"block","lifetime":"1h"}`))
	f.Add([]byte(`{"issuer":"i","whole_issuer":true,"cutoff":-1}`))
	f.Add([]byte(`{"claims":{"jti":"a"},"exp":1795837776,"expires":-1}`))
	f.Add([]byte("{}\n\r\n{"))
	f.Fuzz(func(t *testing.T, data []byte) {
		in := bufio.NewReaderSize(strings.NewReader(string(data)), 64)
		for n := 0; ; n++ {
			line, err := readLine(in)
			if len(line) > 64 || n > len(data)+1 {
				t.Fatalf("line %d has %d bytes", n, len(line))
			}
			var body revocationRequest
			_ = decodeJSON(line, &body)
			if errors.Is(err, io.EOF) {
				return
			}
		}
	})
}

func TestTheOperatorRepairsALedger(t *testing.T) {
	s := newSite(t)
	s.mustLoad(demo, "token_denylist")
	got, _ := s.adminPost("reseed", struct{}{})
	if got.status != http.StatusOK || !strings.Contains(got.body, `"entries":0`) {
		t.Errorf("nothing to reseed: %+v", got)
	}
	token := aliceToken(s)
	s.mustRevoke(token, "demo-app")
	sequence := currentApp().replica.denylist.Position().Sequence
	for name, c := range map[string]struct {
		body   any
		status int
	}{
		"a revocation that can be read": {acknowledgmentRequest{Sequence: sequence}, http.StatusBadRequest},
		"nothing there":                 {acknowledgmentRequest{Sequence: 1 << 30}, http.StatusNotFound},
		"no sequence":                   {struct{}{}, http.StatusBadRequest},
		"an unknown member":             {map[string]any{"entry": 1}, http.StatusBadRequest},
	} {
		if got, _ := s.adminPost("acknowledgments", c.body); got.status != c.status {
			t.Errorf("%s: status %d, %s", name, got.status, got.body)
		}
	}
	s.wantStatus(token, http.StatusUnauthorized, "still revoked")
	// Held, but not in the ledger: as after the stream was emptied.
	d := currentApp().replica.denylist
	position := d.Position()
	d.NewHistory(revocation.Position{Ledger: position.Ledger, Created: position.Created}, position.Sequence)
	d.SetPosition(position)
	got, _ = s.adminPost("reseed", struct{}{})
	if got.status != http.StatusOK || !strings.Contains(got.body, `"entries":1,"messages":1`) {
		t.Errorf("reseeding: %+v", got)
	}
	s.wantStatus(token, http.StatusUnauthorized, "still revoked")
}

// A message that nobody can read makes the edge incomplete, until the operator
// says for the whole fleet that it does not matter.
func TestTheOperatorAcknowledgesAnUnreadableEntry(t *testing.T) {
	s := newSite(t)
	server := revocationtest.StartNATS(t)
	s.mustLoad(onNATS(server.URL()), "token_denylist")
	token := aliceToken(s)
	s.wantStatus(token, http.StatusOK, "nothing is wrong")
	nc, err := nats.Connect(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if err := nc.Publish("token_revocation.v1.entry", []byte("revoke alice")); err != nil {
		t.Fatal(err)
	}
	s.eventually("the edge to be incomplete", func() bool { return s.get(token).status == http.StatusServiceUnavailable })
	if got := s.metric("caddy_token_revocation_ledger_unreadable"); got != "1" {
		t.Errorf("%q messages are unreadable by the metric", got)
	}
	reason, _, _ := currentApp().replica.denylist.Incomplete(time.Now())
	sequence, _, _ := strings.Cut(strings.TrimPrefix(reason, "entry "), ":")
	n, err := strconv.ParseUint(sequence, 10, 64)
	if err != nil {
		t.Fatalf("the reason does not name the entry: %q", reason)
	}
	if got, _ := s.adminPost("acknowledgments", acknowledgmentRequest{Sequence: n, Reason: "a typing mistake"}); got.status != http.StatusOK {
		t.Fatalf("acknowledging: %+v", got)
	}
	s.eventually("the edge to serve again", func() bool { return s.get(token).status == http.StatusOK })
}
