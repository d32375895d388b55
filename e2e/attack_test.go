//go:build e2e

package e2e

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// attack is one row of the table: a request, the token in it, and what becomes of
// it on each route.
//
// Every row is tried twice with the same bytes: while the token is live, and after
// it has been revoked. So a row can't hold because its request is no good for
// something else, unless it says so; and the sixth column says what Caddy without
// token_denylist lets through.
//
// The columns are the routes of attackRoutes: default, inspect, strip, reject,
// verify off, and without token_denylist. The letters:
//
//	J  judged: the live token arrives, the revoked one is answered with 401
//	N  never valid: 401 whether revoked or not
//	K  the same, or 503: the key of the token is not known
//	4  400 whether revoked or not; T the same with 413, U with 415
//	G  arrives without the token
//	O  open: arrives with the token. On routes with token_denylist, this is what is
//	   documented as no place for a token there, or as the upstream's to verify
//	C  Caddy itself refuses the request, or ends it on the way; no token arrives
//
// A seventh column is the route that hands on what is no JWT and the JWTs of
// other issuers, an eighth one the route with opaque tokens. A column that is left
// out is as the seventh one, or else as the default.
type attack struct {
	name    string
	request wire // of HTTP/1
	frames  *frames
	want    string
	on      string // the host, if it is about one route only; want then has its letter, and the sixth one
	answers int    // to be read; default 1
	// token makes the token of the row; the default is a JWT with the jti that is
	// revoked between the two tries.
	token func() string
	// revoke, if set, is what is revoked for this row in between.
	revoke func(token string) map[string]any
}

// Columns that many rows have.
const (
	inHeader  = "JJG4JO" // a well-formed Authorization field
	badHeader = "44G44O"
	inPlace   = "OJG4OO" // in a place that only some routes have
	badPlace  = "O444OO"
	inQuery   = "4JG44O"
	badQuery  = "44444O"
	nowhere   = "OOOOOO" // no place for a token, and said so
	byCaddy   = "CCCCCC"
	unheard   = "GGGGGG" // Caddy drops it
)

const stolen = "stolen" // the jti that is revoked

func TestNoTechniqueGetsARevokedTokenPast(t *testing.T) {
	r := newAttackRig(t)
	table := &attackTable{attackRig: r, live: r.token("RS256", map[string]any{"jti": "live"}), stolen: r.token("RS256", nil)}
	for _, token := range []string{table.live, table.stolen} {
		r.edge.logs.forbid(token)
	}
	for _, rows := range [][]attack{
		headerAttacks(), placeAttacks(), queryAttacks(), formAttacks(), framingAttacks(), pathAttacks(), frameAttacks(),
		r.spellingAttacks(), r.forgeryAttacks(), r.claimAttacks(), r.kindAttacks(), r.otherTokenAttacks(),
	} {
		table.rows = append(table.rows, rows...)
	}
	if len(table.rows) < 1400 {
		t.Errorf("only %d rows", len(table.rows))
	}
	table.prepare()
	began := time.Now()
	table.run("live")
	r.revoke(map[string]any{"issuer": attackIssuer, "claims": map[string]string{"jti": stolen}})
	r.revoke(map[string]any{"issuer": secretIssuer, "claims": map[string]string{"jti": stolen}})
	r.revoke(map[string]any{"issuer": laxIssuer, "claims": map[string]string{"jti": stolen}})
	for i := range table.tries {
		if row := table.tries[i].row; row.revoke != nil && table.tries[i].first {
			r.revoke(row.revoke(table.tries[i].token))
		}
	}
	table.run("revoked")
	t.Logf("%d rows, %d requests in %s", len(table.rows), table.sent.Load(), time.Since(began).Round(time.Millisecond))
	// What came late, or behind the end of a request, counts as well.
	r.edge.process.stop()
	table.sweep()
}

// attackTable is the table with all its requests.
type attackTable struct {
	*attackRig
	rows         []attack
	tries        []try
	live, stolen string
	next, sent   atomic.Int64
}

// try is one row on one route.
type try struct {
	row   *attack
	host  string
	want  byte
	token string
	first bool   // of its row
	id    string // of the one with the revoked token

	got     byte   // what happened, as a letter
	mistake string // how that differs from want
}

func (a *attackTable) prepare() {
	a.t.Helper()
	names := map[string]bool{}
	for i := range a.rows {
		row := &a.rows[i]
		if names[row.name] || row.name == "" {
			a.t.Errorf("two rows are called %q", row.name)
		}
		names[row.name] = true
		token := a.stolen
		if row.token != nil {
			token = row.token()
		}
		add := func(host string, want byte) {
			first := len(a.tries) == 0 || a.tries[len(a.tries)-1].row != row
			a.tries = append(a.tries, try{row: row, host: host, want: want, token: token, first: first})
		}
		if row.on != "" {
			add(row.on, row.want[0])
			add("plain.test", row.want[1])
			continue
		}
		for column, route := range attackRoutes {
			want := row.want[0]
			if last := min(column, len(row.want)-1); last == column || last > 5 {
				want = row.want[last]
			}
			add(route.host, want)
		}
	}
}

// tells is whether the try is worth its time. Of the many rows about the token
// alone, some do not look at it: these need not be seen twice.
func (y *try) tells(phase string) bool {
	switch {
	case y.row.token == nil:
		return true
	case phase == "live":
		return y.host != "strip.test" && y.host != "reject.test"
	default:
		return y.host != "plain.test"
	}
}

// run tries all rows, some at a time.
func (a *attackTable) run(phase string) {
	a.t.Helper()
	var wg sync.WaitGroup
	var at atomic.Int64
	for range 6 {
		wg.Go(func() {
			p := &player{attackRig: a.attackRig}
			defer p.close()
			for {
				i := int(at.Add(1)) - 1
				if i >= len(a.tries) {
					return
				}
				if y := &a.tries[i]; y.tells(phase) {
					a.try(p, y, phase)
				}
			}
		})
	}
	wg.Wait()
	a.report(phase)
}

func (a *attackTable) try(p *player, y *try, phase string) {
	s := shot{host: y.host, id: fmt.Sprintf("k1x%dx", a.next.Add(1)), token: y.token, live: a.live}
	if a.sent.Add(1); phase == "revoked" {
		y.id = s.id
	}
	got := p.play(y.row, s)
	arrived := a.echo.of(s.id)
	y.got = y.letter(got, arrived)
	if y.mistake = y.check(phase, got, arrived); y.mistake != "" {
		y.mistake = fmt.Sprintf("%s: want %c: %s; answered with %d %q %v; arrived: %s",
			y.host, y.want, y.mistake, got.status, got.challenge, got.err, show(arrived))
	}
}

// report fails the test with the rows that do not hold.
func (a *attackTable) report(phase string) {
	a.t.Helper()
	for i := 0; i < len(a.tries); {
		row, first, got := a.tries[i].row, "", ""
		for ; i < len(a.tries) && a.tries[i].row == row; i++ {
			if !a.tries[i].tells(phase) {
				a.tries[i].got, a.tries[i].mistake = '-', ""
			}
			first = cmp.Or(first, a.tries[i].mistake)
			got += string(a.tries[i].got)
		}
		if first != "" {
			a.t.Errorf("%s, %s token: want %s, got %s; %s", row.name, phase, row.want, got, first)
		}
	}
}

// letter sums up what happened, in the letters of the table as far as one request
// can tell them.
func (y *try) letter(got reply, arrived []arrival) byte {
	switch {
	case y.holds(arrived):
		return 'O'
	case len(arrived) > 0:
		return 'G'
	}
	if letter := map[int]byte{400: '4', 401: 'N', 413: 'T', 415: 'U', 503: 'K'}[got.status]; letter != 0 {
		return letter
	}
	return 'C'
}

func (y *try) holds(arrived []arrival) bool {
	return slices.ContainsFunc(arrived, func(a arrival) bool { return a.holds(y.token) })
}

func show(arrived []arrival) string {
	if len(arrived) == 0 {
		return "nothing"
	}
	var b strings.Builder
	for _, a := range arrived {
		fmt.Fprintf(&b, "%.600q %.200q %.200q %.200q ", a.head, a.body, a.trailer, a.rest)
	}
	return b.String()
}

// check returns what is wrong about an answer and what arrived, or nothing.
func (y *try) check(phase string, got reply, arrived []arrival) string {
	revoked := phase == "revoked"
	holds := y.holds(arrived)
	letter := y.want
	says := ""
	if letter == 'J' {
		letter = 'P' // passes
		if revoked {
			letter, says = 'N', "the token has been revoked"
		}
	}
	if statuses := map[byte][]int{
		'P': {200}, 'O': {200}, 'G': {200}, 'N': {401}, 'K': {401, 503}, '4': {400}, 'T': {413}, 'U': {415},
	}[letter]; statuses != nil && !slices.Contains(statuses, got.status) {
		return "another status"
	}
	switch letter {
	case 'P':
		if !slices.ContainsFunc(arrived, func(a arrival) bool { return slices.Contains(a.parsed(), y.token) }) {
			return "the live token does not arrive as it was sent"
		}
	case 'O':
		if !holds {
			return "the token does not arrive"
		}
	case 'G':
		if len(arrived) == 0 || holds {
			return "the request should arrive without the token"
		}
	case 'C':
		if holds || got.status == http.StatusOK && len(arrived) > 0 {
			return "it arrived"
		}
	case 'N', 'K', '4', 'T', 'U':
		if len(arrived) != 0 {
			return "something arrived"
		}
		if letter == 'N' && (!strings.Contains(got.challenge, `error="invalid_token"`) || !strings.Contains(got.challenge, says)) {
			return "the challenge says something else"
		}
	default:
		return "no such letter"
	}
	return ""
}

// sweep looks once more at all that arrived: no revoked token, where none may be.
func (a *attackTable) sweep() {
	a.t.Helper()
	for i := range a.tries {
		y := &a.tries[i]
		if y.id == "" {
			continue
		}
		for _, got := range a.echo.of(y.id) {
			if got.rest != "" {
				a.t.Errorf("%s | %s: bytes after the request: %.300q", y.row.name, y.host, got.rest)
			}
			if y.want != 'O' && y.mistake == "" && got.holds(y.token) {
				a.t.Errorf("%s | %s: the revoked token arrived after all: %s", y.row.name, y.host, show([]arrival{got}))
			}
		}
	}
	for _, stray := range a.echo.of("") {
		a.t.Errorf("a request that no row sent arrived: %s", show([]arrival{stray}))
	}
}

// player sends the requests of one worker. Requests that are like any other share
// connections.
type player struct {
	*attackRig
	kept   *connection
	framed map[string]framer
}

func (p *player) play(row *attack, s shot) reply {
	if row.frames != nil {
		return p.playFrames(row.frames, s)
	}
	bytes := row.request(s)
	if s.host == underHost {
		return once(p.under, bytes, 1)
	}
	if row.answers != 0 || row.token == nil {
		return once(p.edge.address, bytes, max(row.answers, 1))
	}
	// Rows about the token alone are many, and their requests well-formed.
	if p.kept == nil {
		var err error
		if p.kept, err = dial(p.edge.address); err != nil {
			return reply{err: err}
		}
	}
	got := p.kept.ask(bytes, 1)
	if got.err != nil || got.status == http.StatusBadRequest || got.status > 401 {
		p.drop()
	}
	if got.err != nil {
		return once(p.edge.address, bytes, 1)
	}
	return got
}

func (p *player) drop() {
	if p.kept != nil {
		_ = p.kept.Close()
		p.kept = nil
	}
}

func (p *player) close() {
	p.drop()
	for _, f := range p.framed {
		f.close()
	}
}
