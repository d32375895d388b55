package oauth

import (
	"net/netip"
	"time"
)

// Result says how a request to the endpoint ended. The values are few and
// constant, fit for a metric's label.
type Result string

// Results of a request.
const (
	ResultRevoked          Result = "revoked"           // 200, durable
	ResultTokenInvalid     Result = "token_invalid"     // 200, nothing stored
	ResultTokenExpired     Result = "token_expired"     // 200, nothing stored
	ResultTokenUnsupported Result = "token_unsupported" // 400
	ResultNotOwner         Result = "not_owner"         // 400
	ResultInvalidRequest   Result = "invalid_request"   // 400, 405, 413, 415
	ResultInvalidClient    Result = "invalid_client"    // 401
	ResultThrottled        Result = "throttled"         // 429
	ResultUnavailable      Result = "unavailable"       // 503
)

// Outcome describes one request to the endpoint after it was answered. It holds
// no token, no secret and no text that an unauthenticated client wrote.
type Outcome struct {
	Result Result
	// Status is the HTTP status of the answer.
	Status int
	// ClientID and Issuer are those of the authenticated client, empty if none
	// was authenticated.
	ClientID string
	Issuer   string
	// Method is how the client authenticated.
	Method AuthMethod
	// ClientIP is where the request came from; not valid if unknown.
	ClientIP netip.Addr
	// DecisionID and Sequence name the entry in the ledger if Result is
	// [ResultRevoked].
	DecisionID string
	Sequence   uint64
	// Duration is how long the request took.
	Duration time.Duration
}
