package caddymodule

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
)

func init() {
	caddy.RegisterModule(adminAPI{})
}

// adminPrefix is where the routes are on Caddy's admin endpoint. Whoever reaches
// that endpoint can replace the whole config; these routes need no more trust.
const adminPrefix = "/token_revocation/"

// maxAdminBody is in bytes.
const maxAdminBody = 64 << 10

// adminAPI serves the operator's view of token revocation:
//
//	GET  /token_revocation/status        what this edge knows, and how fresh it is
//	POST /token_revocation/revocations   revoke by criteria
//	POST /token_revocation/restorations  undo revocations by criteria
//	POST /token_revocation/import        many revocations, one JSON object a line
//	POST /token_revocation/reseed        write what this edge holds to a ledger that lost it
//	POST /token_revocation/acknowledgments  an entry that can't be read does not matter
//	GET  /token_revocation/ready         200 once this edge has known the ledger
//	GET  /token_revocation/live          200
//	POST /token_revocation/mint          a token of the development issuer, from loopback only
type adminAPI struct{}

// CaddyModule returns the Caddy module information.
func (adminAPI) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "admin.api.token_revocation",
		New: func() caddy.Module { return new(adminAPI) },
	}
}

// Routes returns the admin routes.
func (adminAPI) Routes() []caddy.AdminRoute {
	routes := []struct {
		name, method string
		handle       func(*App, http.ResponseWriter, *http.Request) error
	}{
		{"status", http.MethodGet, (*App).adminStatus},
		{"revocations", http.MethodPost, (*App).adminRevoke},
		{"restorations", http.MethodPost, (*App).adminRestore},
		{"import", http.MethodPost, (*App).adminImport},
		{"reseed", http.MethodPost, (*App).adminReseed},
		{"acknowledgments", http.MethodPost, (*App).adminAcknowledge},
		{"mint", http.MethodPost, (*App).adminMint},
		{"ready", http.MethodGet, func(a *App, w http.ResponseWriter, _ *http.Request) error { return writeProbe(w, a.ready()) }},
		{"live", http.MethodGet, func(_ *App, w http.ResponseWriter, _ *http.Request) error { return writeProbe(w, true) }},
	}
	var result []caddy.AdminRoute
	for _, route := range routes {
		result = append(result, caddy.AdminRoute{
			Pattern: adminPrefix + route.name,
			Handler: caddy.AdminHandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
				if r.Method != route.method {
					w.Header().Set("Allow", route.method)
					return apiError(http.StatusMethodNotAllowed, fmt.Errorf("method not allowed: use %s", route.method))
				}
				app := currentApp()
				if app == nil {
					return apiError(http.StatusServiceUnavailable,
						errors.New("no config with the token_revocation app is running"))
				}
				return route.handle(app, w, r)
			}),
		})
	}
	return result
}

func apiError(status int, err error) error {
	return caddy.APIError{HTTPStatus: status, Err: err}
}

// revocationRequest is the body of POST /token_revocation/revocations and, with
// its first three members, of POST /token_revocation/restorations.
type revocationRequest struct {
	// Issuer is the tokens' iss. Default: the only issuer configured.
	Issuer string `json:"issuer,omitempty"`
	// Claims must all match: {"sub":"alice"}, {"sub":"alice","client_id":"app"}.
	Claims map[string]string `json:"claims,omitempty"`
	Reason string            `json:"reason,omitempty"`

	// Token is one to be revoked, instead of claims. A JWT is verified first. An
	// opaque one is asked about at Issuer, if that has introspection, and recorded
	// by its hash.
	Token string `json:"token,omitempty"`
	// WholeIssuer must be true if there are no claims: it denies everyone.
	WholeIssuer bool `json:"whole_issuer,omitempty"`
	// Mode is block, issued_before or authenticated_before. Default: block for
	// one token, else issued_before.
	Mode string `json:"mode,omitempty"`
	// Cutoff is in Unix seconds. Default: now.
	Cutoff int64 `json:"cutoff,omitempty"`
	// Lifetime is how long it stands. Default: as long as tokens live that it
	// names; for a block, the retention.
	Lifetime caddy.Duration `json:"lifetime,omitempty"`
	// Exp is the exp of the one token that Claims name, in Unix seconds: it is
	// revoked for as long as it lives, leeway included.
	Exp int64 `json:"exp,omitempty"`
	// Expires is when the revocation ends, in Unix seconds, instead of Lifetime
	// and Exp. A cutoff does not end before tokens from before it have.
	Expires int64 `json:"expires,omitempty"`
}

// revocationAnswer says plainly what was recorded.
type revocationAnswer struct {
	// ID is the decision's; empty if nothing was recorded because it stood.
	ID       string `json:"id"`
	Sequence uint64 `json:"sequence"`
	// Effect is one sentence for people.
	Effect string `json:"effect"`
	// Issuer and Claims are what was recorded: a restoration takes the same.
	Issuer        string            `json:"issuer,omitempty"`
	Claims        map[string]string `json:"claims,omitempty"`
	Mode          string            `json:"mode,omitempty"`
	Cutoff        int64             `json:"cutoff,omitempty"`
	Expires       int64             `json:"expires,omitempty"`
	NewTokensPass bool              `json:"new_tokens_pass"`
	// Stood: the entry at Sequence says this already, nothing was added.
	Stood bool `json:"stood,omitempty"`
}

func (a *App) adminRevoke(w http.ResponseWriter, r *http.Request) error {
	var body revocationRequest
	if err := readJSON(r, &body); err != nil {
		return err
	}
	request, note, err := a.revocationRequest(r, body)
	if err != nil {
		return err
	}
	receipt, err := a.service.Revoke(r.Context(), request)
	if err != nil {
		return serviceError(err)
	}
	a.logger.Info("token revocation by operator", append(receiptFields(receipt, request.Criteria),
		zap.Stringer("mode", receipt.Mode), zap.Time("expires", time.Unix(receipt.Expires, 0)),
		zap.Bool("stood", receipt.Stood))...)
	if !receipt.Stood {
		a.replica.announce("token_revoked", map[string]any{
			"id": receipt.ID, "sequence": receipt.Sequence, "criteria": request.Criteria.String(),
		})
	}
	said := effect(receipt, request.Criteria)
	if note != "" {
		said += "; " + note
	}
	return writeJSON(w, revocationAnswer{
		ID:            receipt.ID,
		Sequence:      receipt.Sequence,
		Effect:        said,
		Issuer:        request.Criteria.Issuer,
		Claims:        request.Criteria.Claims,
		Mode:          receipt.Mode.String(),
		Cutoff:        receipt.Cutoff,
		Expires:       receipt.Expires,
		NewTokensPass: receipt.NewTokensPass,
		Stood:         receipt.Stood,
	})
}

// revocationRequest understands body. The note is what the operator should know
// besides, if anything.
func (a *App) revocationRequest(r *http.Request, body revocationRequest) (request revocation.Request, note string, err error) {
	request = revocation.Request{
		Cutoff:   body.Cutoff,
		Lifetime: time.Duration(body.Lifetime),
		Reason:   body.Reason,
		Actor:    "operator",
		Operator: true,
	}
	if body.Token != "" {
		named, err := a.nameToken(r.Context(), body)
		if err != nil {
			return request, "", err
		}
		request.Criteria, request.TokenExpiry, note = named.criteria, named.expiry, named.note
	} else {
		criteria, err := a.criteria(body)
		if err != nil {
			return request, "", err
		}
		if err := a.checkCriteria(criteria); err != nil {
			return request, "", err
		}
		of, _ := a.trusted.Issuer(criteria.Issuer)
		criteria.Issuer = of.Name() // the main spelling, which every edge knows
		request.Criteria = criteria
	}
	if err := body.setEnd(&request); err != nil {
		return request, "", err
	}
	switch {
	case body.Mode == "" && body.Cutoff == 0 && request.Criteria.NamesOneToken(), body.Mode == revocation.Block.String():
		request.Mode = revocation.Block
	case body.Mode == "", body.Mode == revocation.IssuedBefore.String():
		request.Mode = revocation.IssuedBefore
	case body.Mode == revocation.AuthenticatedBefore.String():
		request.Mode = revocation.AuthenticatedBefore
	default:
		return request, "", apiError(http.StatusBadRequest,
			fmt.Errorf("mode %q is unknown: use block, issued_before or authenticated_before", body.Mode))
	}
	return request, note, nil
}

func (a *App) criteria(body revocationRequest) (revocation.Criteria, error) {
	c := revocation.Criteria{Issuer: body.Issuer, Claims: body.Claims}
	if c.Issuer == "" {
		if len(a.issuers) != 1 {
			return c, apiError(http.StatusBadRequest,
				fmt.Errorf("there are %d issuers: say which one is meant", len(a.issuers)))
		}
		c.Issuer = a.issuers[0].Name()
	} else if err := a.checkIssuer(c.Issuer); err != nil {
		return c, err
	}
	if len(c.Claims) == 0 && !body.WholeIssuer {
		return c, apiError(http.StatusBadRequest,
			errors.New("no claims: that would deny every token of the issuer; say whole_issuer if that is meant"))
	}
	return c, nil
}

func effect(r revocation.Receipt, c revocation.Criteria) string {
	until := time.Unix(r.Expires, 0).UTC().Format(time.RFC3339)
	cutoff := time.Unix(r.Cutoff, 0).UTC().Format(time.RFC3339)
	switch r.Mode {
	case revocation.IssuedBefore:
		return fmt.Sprintf("denied: tokens with %s issued up to %s; new tokens pass; kept until %s", c, cutoff, until)
	case revocation.AuthenticatedBefore:
		return fmt.Sprintf("denied: tokens with %s of logins up to %s, refreshed ones too; tokens of new logins pass; kept until %s", c, cutoff, until)
	default:
		return fmt.Sprintf("denied: every token with %s, new ones too, until %s", c, until)
	}
}

func (a *App) adminRestore(w http.ResponseWriter, r *http.Request) error {
	var body revocationRequest
	if err := readJSON(r, &body); err != nil {
		return err
	}
	if body.Token != "" || body.Mode != "" || body.Cutoff != 0 || body.Lifetime != 0 || body.Exp != 0 || body.Expires != 0 {
		return apiError(http.StatusBadRequest, errors.New("a restoration takes issuer, claims, whole_issuer and reason only"))
	}
	criteria, err := a.criteria(body)
	if err != nil {
		return err
	}
	receipt, err := a.service.Restore(r.Context(), revocation.RestoreRequest{
		Criteria: criteria, Reason: body.Reason, Actor: "operator",
	})
	if err != nil {
		return serviceError(err)
	}
	a.logger.Info("token revocation undone by operator", receiptFields(receipt, criteria)...)
	return writeJSON(w, revocationAnswer{
		ID:            receipt.ID,
		Sequence:      receipt.Sequence,
		Effect:        "restored: earlier revocations of exactly " + criteria.String() + " no longer count; others may still deny the same tokens",
		NewTokensPass: true,
	})
}

func serviceError(err error) error {
	switch {
	case errors.Is(err, revocation.ErrUnavailable), errors.Is(err, revocation.ErrFull):
		return apiError(http.StatusServiceUnavailable, fmt.Errorf("nothing was recorded, try again: %w", err))
	default:
		return apiError(http.StatusBadRequest, err)
	}
}

// mintRequest is the body of POST /token_revocation/mint.
type mintRequest struct {
	Subject   string         `json:"subject,omitempty"`
	ClientID  string         `json:"client_id,omitempty"`
	SessionID string         `json:"session_id,omitempty"`
	Audience  []string       `json:"audience,omitempty"`
	Lifetime  caddy.Duration `json:"lifetime,omitempty"`
	Algorithm string         `json:"algorithm,omitempty"`
	Claims    map[string]any `json:"claims,omitempty"`
}

func (a *App) adminMint(w http.ResponseWriter, r *http.Request) error {
	if !fromThisMachine(r) {
		return apiError(http.StatusForbidden, errors.New("the development issuer signs for requests from loopback only"))
	}
	if a.development == nil {
		return apiError(http.StatusNotFound, errors.New("there is no development issuer: add `issuer development` to sign test tokens"))
	}
	var body mintRequest
	if err := readJSON(r, &body); err != nil {
		return err
	}
	token, err := a.development.Mint(r.Context(), issuer.MintRequest{
		Subject:   body.Subject,
		ClientID:  body.ClientID,
		SessionID: body.SessionID,
		Audience:  body.Audience,
		Lifetime:  time.Duration(body.Lifetime),
		Algorithm: body.Algorithm,
		Extra:     body.Claims,
	})
	if err != nil {
		return apiError(http.StatusBadRequest, err)
	}
	return writeJSON(w, map[string]string{"access_token": token})
}

// fromThisMachine tells whether the connection itself, whatever headers say,
// came over loopback or a Unix socket.
func fromThisMachine(r *http.Request) bool {
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok && local.Network() == "unix" {
		return true
	}
	return onLoopback(r.RemoteAddr)
}

func readJSON(r *http.Request, into any) error {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxAdminBody+1))
	if err != nil {
		return apiError(http.StatusBadRequest, fmt.Errorf("reading the request: %w", err))
	}
	if len(body) > maxAdminBody {
		return apiError(http.StatusRequestEntityTooLarge, fmt.Errorf("the request is larger than %d bytes", maxAdminBody))
	}
	if err := decodeJSON(body, into); err != nil {
		return apiError(http.StatusBadRequest, fmt.Errorf("decoding the request: %w", err))
	}
	return nil
}

// decodeJSON decodes one object without unknown members.
func decodeJSON(data []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return err
	}
	if decoder.More() {
		return errors.New("data after the JSON object")
	}
	return nil
}

func writeJSON(w http.ResponseWriter, v any) error {
	return writeJSONStatus(w, http.StatusOK, v)
}

func writeJSONStatus(w http.ResponseWriter, status int, v any) error {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	return json.NewEncoder(w).Encode(v)
}

// Interface guards
var (
	_ caddy.AdminRouter = (*adminAPI)(nil)
)
