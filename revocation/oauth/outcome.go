package oauth

import (
	"net/netip"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// Result says how a request to the endpoint ended. The values are few and
// constant, fit for a metric's label.
type Result string

// Results of a request.
const (
	ResultRevoked          Result = "revoked"            // 200, durable
	ResultTokenInvalid     Result = "token_invalid"      // 200, nothing stored
	ResultTokenExpired     Result = "token_expired"      // 200, nothing stored
	ResultForeignIgnored   Result = "foreign_ignored"    // 200, nothing stored: see [ForeignSilent]
	ResultPolicySkipped    Result = "policy_skipped"     // 200, nothing stored
	ResultPreflight        Result = "preflight"          // 204
	ResultTokenUnsupported Result = "token_unsupported"  // 400
	ResultNotOwner         Result = "not_owner"          // 400
	ResultInvalidRequest   Result = "invalid_request"    // 400, 405, 413, 415
	ResultInvalidClient    Result = "invalid_client"     // 401
	ResultPlainHTTP        Result = "plain_http_refused" // 403
	ResultPolicyRefused    Result = "policy_refused"     // 403, or what the policy answered
	ResultThrottled        Result = "throttled"          // 429
	ResultPolicyFailed     Result = "policy_failed"      // 503
	ResultUnavailable      Result = "unavailable"        // 503
)

// Results are all values of [Result].
var Results = [...]Result{
	ResultRevoked, ResultTokenInvalid, ResultTokenExpired, ResultForeignIgnored, ResultPolicySkipped, ResultPreflight,
	ResultTokenUnsupported, ResultNotOwner, ResultInvalidRequest, ResultInvalidClient, ResultPlainHTTP,
	ResultPolicyRefused, ResultThrottled, ResultPolicyFailed, ResultUnavailable,
}

// Outcome describes one request to the endpoint after it was answered. It holds
// no token, no secret and no text that an unauthenticated client wrote.
type Outcome struct {
	Result Result
	// Status is the HTTP status of the answer.
	Status int
	// Reason says in a few words why the request was not carried out: the
	// description of the error, or what a policy gave as its reason. Empty if
	// there is nothing to explain.
	Reason string
	// ClientID and Issuer are those of the authenticated client, empty if none
	// was authenticated.
	ClientID string
	Issuer   string
	// Method is how the client authenticated.
	Method AuthMethod
	// ClientIP is where the request came from; not valid if unknown.
	ClientIP netip.Addr
	// PlainHTTP is true if the request, with whatever secrets it carried, was
	// not protected by TLS.
	PlainHTTP bool
	// Token is the criteria of the token that was presented, once it was
	// verified, whatever became of it; of several, the last that was looked at. Its
	// issuer is empty otherwise.
	Token revocation.Criteria
	// Owner is the client that the verified token was issued to, empty if it
	// names none.
	Owner string
	// Use is what the token is for.
	Use TokenUse
	// Cascade is what was to be revoked: what the endpoint is told to, unless the
	// token is a refresh token, or the client revokes all it has.
	Cascade Cascade
	// Policy is the name of the policy that ended the request, empty if none did.
	Policy string
	// Decisions are those that this request made durable, and Stood those that it
	// would have made, had they not been there already. Together they are one for
	// each token if Result is [ResultRevoked]; two for each whose grant was revoked
	// too. With [ResultUnavailable] there may be some: a token is revoked, its grant
	// or the others are not.
	Decisions []Decision
	Stood     []Decision
	// Duration is how long the request took; Latency says what for.
	Duration time.Duration
	Latency  Latency
}

// Decision is one revocation that is in the ledger.
type Decision struct {
	Criteria revocation.Criteria
	Mode     revocation.Mode
	// Cutoff is in Unix seconds, zero for a block. The one that stood already may
	// be later than this.
	Cutoff int64
	// ID and Sequence name the entry in the ledger. ID is empty for one that
	// stood already.
	ID       string
	Sequence uint64
}

// Latency says where a request spent its time.
type Latency struct {
	// Client is the authentication of the client.
	Client time.Duration
	// Token is the verification of the token.
	Token time.Duration
	// Policy is the sum of all policies.
	Policy time.Duration
	// Ledger is the wait for the ledger's acknowledgements, and Apply the rest of
	// the recording, which is mostly this edge's denylist. If the ledger is not
	// timed (see [TimeLedger]), Ledger is both, and Apply is zero.
	Ledger time.Duration
	Apply  time.Duration
}
