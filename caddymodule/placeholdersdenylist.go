package caddymodule

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

const denylistPrefix = "http.token_denylist."

// outcomeVar is the name of the variable that holds a request's outcome, so that
// a second handler on its way corrects what the first one has set.
const outcomeVar = "token_denylist"

// outcome is what placeholders tell of a request. It belongs to the request's
// goroutine.
type outcome struct {
	verdict verdict
	decoded bool
	claims  map[string]any // of a verified token, read when first asked for
}

// String keeps the token out of whatever prints the variable.
func (o *outcome) String() string { return o.verdict.result.String() }

// publish makes the verdict known to placeholders. Nothing of it is computed
// before somebody asks.
func (d *Denylist) publish(r *http.Request, v *verdict) {
	ctx := r.Context()
	vars, ok := ctx.Value(caddyhttp.VarsCtxKey).(map[string]any)
	if !ok {
		return
	}
	if o, ok := vars[outcomeVar].(*outcome); ok {
		*o = outcome{verdict: *v}
		return
	}
	repl, ok := ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return
	}
	o := &outcome{verdict: *v}
	vars[outcomeVar] = o
	repl.Map(o.placeholder)
}

// placeholder returns the value of a placeholder. Those of a token are empty if
// it has no such claim, or was not verified: whatever an unverified token says of
// itself must not be taken for true.
func (o *outcome) placeholder(key string) (any, bool) {
	name, ok := strings.CutPrefix(key, denylistPrefix)
	if !ok {
		return nil, false
	}
	if claim, ok := strings.CutPrefix(name, claimsPrefix); ok {
		value, _ := claimAt(o.verifiedClaims(), claim)
		return printable(value), true
	}
	switch name {
	case "decision":
		return o.verdict.result.String(), true
	case "reason":
		if o.verdict.err == nil {
			return "", true
		}
		return o.verdict.err.Error(), true
	case "issuer":
		if id := o.verified(); id != nil {
			return id.Issuer, true
		}
		return "", true
	case revocation.ClaimSubject, revocation.ClaimClientID, revocation.ClaimSessionID, revocation.ClaimTokenID:
		if id := o.verified(); id != nil {
			value, _ := id.Value(name)
			return value, true
		}
		return "", true
	}
	return nil, false
}

// verified returns the identity of the token if it was proven.
func (o *outcome) verified() *revocation.Identity {
	if id := o.verdict.identity; id != nil && id.Verified {
		return id
	}
	return nil
}

// verifiedClaims returns the claims of a token that was verified, or what the
// authorization server answered about it.
func (o *outcome) verifiedClaims() map[string]any {
	if o.decoded {
		return o.claims
	}
	o.decoded = true
	if o.verified() == nil {
		return nil
	}
	text := []byte(o.verdict.answer)
	if text == nil {
		_, rest, _ := strings.Cut(o.verdict.presented.Token, ".")
		payload, _, _ := strings.Cut(rest, ".")
		var err error
		if text, err = base64.RawURLEncoding.DecodeString(payload); err != nil {
			return nil
		}
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&o.claims); err != nil {
		o.claims = nil
	}
	return o.claims
}

// A claimList and a claimObject are claims that are no single value: lists and
// objects to expressions, JSON where they are written into a text.
type (
	claimList   []any
	claimObject map[string]any
)

func (c claimList) String() string   { return jsonText([]any(c)) }
func (c claimObject) String() string { return jsonText(map[string]any(c)) }

func jsonText(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return string(text)
}

func printable(value any) any {
	switch v := plain(value).(type) {
	case nil:
		return ""
	case []any:
		return claimList(v)
	case map[string]any:
		return claimObject(v)
	default:
		return v
	}
}
