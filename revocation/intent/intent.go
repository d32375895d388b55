// Package intent remembers, on disk, revocations that an authorization server
// behind this edge was asked for and that are not in the ledger yet. Between that
// server's 200 and the ledger's acknowledgment a process can be killed, and then
// nobody else knows: to a client that tries again, the token is dead already, and
// an opaque one can't be resolved any more.
//
// An intent is written and synced before the request is forwarded, marked as
// accepted after the server's 200, recorded until the ledger has acknowledged it,
// also by the next process, and then removed. One that was forwarded and of which
// nobody learned the outcome is kept for the client's next attempt: only the
// server's 200 to that lets it be recorded. If the server says meanwhile that the
// token is dead, that token is recorded, and nothing else: tokens end by
// themselves, too, and what was issued with them lives on then.
package intent

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// Intent is what is to be recorded once the authorization server has accepted a
// request. It holds no token and no secret.
type Intent struct {
	// Issuer and Client are whose token it is, and who asks.
	Issuer string
	Client string
	// Token is the token's hash, as in a criteria on [revocation.ClaimToken]: by
	// it the client's next attempt finds the intent.
	Token string
	// Requests are recorded in this order; see [RecordAll]. The first one is for
	// the token itself, and for nothing else.
	Requests []revocation.Request
	// Recheck says that the issuer's tokens have to be asked about again when the
	// requests are recorded: they don't say all that ends with the token.
	Recheck bool
	// Made is when the request came.
	Made time.Time
	// Ends is when none of the tokens can be alive any more.
	Ends time.Time
}

// Bounds of what is read back. An intent has a request or two.
const (
	maxFile     = 64 << 10 // bytes
	maxRequests = 8
	maxTime     = 1 << 40 // Unix seconds; far beyond any token
)

// errBroken is wrapped by errors about a file that is not what was written.
var errBroken = errors.New("broken intent file")

// header begins each file. The number is the format's; the checksum of the rest
// follows it. A file of another format is put aside, never guessed at.
const header = "token_revocation intent 1 "

type payload struct {
	Issuer   string    `json:"issuer"`
	Client   string    `json:"client"`
	Token    string    `json:"token"`
	Made     int64     `json:"made"` // Unix milliseconds
	Ends     int64     `json:"ends"` // Unix seconds
	Requests []request `json:"requests"`
	Recheck  bool      `json:"recheck,omitempty"`
}

type request struct {
	Issuer        string            `json:"issuer"`
	Claims        map[string]string `json:"claims,omitempty"`
	Mode          revocation.Mode   `json:"mode"`
	Cutoff        int64             `json:"cutoff,omitempty"`
	TokenExpiry   int64             `json:"token_expiry,omitempty"`
	TokenIssuedAt int64             `json:"token_issued_at,omitempty"`
	IssuedUntil   int64             `json:"issued_until,omitempty"`
	Once          bool              `json:"once,omitempty"`
	Reason        string            `json:"reason,omitempty"`
	Actor         string            `json:"actor,omitempty"`
}

// encode returns the content of i's file.
func encode(i *Intent) ([]byte, error) {
	p := payload{
		Issuer: i.Issuer, Client: i.Client, Token: i.Token,
		Made: i.Made.UnixMilli(), Ends: i.Ends.Unix(), Recheck: i.Recheck,
	}
	for _, r := range i.Requests {
		p.Requests = append(p.Requests, request{
			Issuer: r.Criteria.Issuer, Claims: r.Criteria.Claims, Mode: r.Mode, Cutoff: r.Cutoff,
			TokenExpiry: r.TokenExpiry, TokenIssuedAt: r.TokenIssuedAt,
			IssuedUntil: r.IssuedUntil, Once: r.Once, Reason: r.Reason, Actor: r.Actor,
		})
	}
	body, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encoding intent: %w", err)
	}
	body = append(body, '\n')
	sum := sha256.Sum256(body)
	content := append([]byte(header+hex.EncodeToString(sum[:])+"\n"), body...)
	// Reading it back tells at once what could not be recorded later.
	if _, err := decode(content); err != nil {
		return nil, fmt.Errorf("encoding intent: %w", err)
	}
	return content, nil
}

// decode reads what encode has written. The error wraps errBroken.
func decode(content []byte) (*Intent, error) {
	if len(content) > maxFile {
		return nil, fmt.Errorf("%w: it is longer than %d bytes", errBroken, maxFile)
	}
	line, body, ok := bytes.Cut(content, []byte("\n"))
	sum, known := strings.CutPrefix(string(line), header)
	if !ok || !known {
		return nil, fmt.Errorf("%w: it does not begin as an intent does", errBroken)
	}
	if actual := sha256.Sum256(body); sum != hex.EncodeToString(actual[:]) {
		return nil, fmt.Errorf("%w: the checksum is wrong", errBroken)
	}
	var p payload
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return nil, fmt.Errorf("%w: it is not the JSON of an intent", errBroken)
	}
	i := &Intent{
		Issuer: p.Issuer, Client: p.Client, Token: p.Token,
		Made: time.UnixMilli(p.Made), Ends: time.Unix(p.Ends, 0), Recheck: p.Recheck,
	}
	if p.Made < 0 || p.Made > maxTime*1000 || p.Ends < 0 || p.Ends > maxTime {
		return nil, fmt.Errorf("%w: a time is not valid", errBroken)
	}
	if i.Issuer == "" || i.Client == "" || i.Token == "" || len(p.Requests) == 0 || len(p.Requests) > maxRequests {
		return nil, fmt.Errorf("%w: a part is missing", errBroken)
	}
	for _, r := range p.Requests {
		c := revocation.Criteria{Issuer: r.Issuer, Claims: r.Claims}
		switch {
		case c.Validate() != nil, r.Issuer != i.Issuer:
			return nil, fmt.Errorf("%w: a criteria is not valid", errBroken)
		case len(c.Claims) == 0:
			// A whole issuer is no client's to revoke.
			return nil, fmt.Errorf("%w: a criteria names no claim", errBroken)
		case !r.Mode.Valid():
			return nil, fmt.Errorf("%w: a mode is not valid", errBroken)
		}
		i.Requests = append(i.Requests, revocation.Request{
			Criteria: c, Mode: r.Mode, Cutoff: r.Cutoff, TokenExpiry: r.TokenExpiry, TokenIssuedAt: r.TokenIssuedAt,
			IssuedUntil: r.IssuedUntil, Once: r.Once, Reason: r.Reason, Actor: r.Actor,
		})
	}
	return i, nil
}
