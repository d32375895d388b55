package oauth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/textproto"
	"slices"
)

// Policy has a say in whether a revocation is carried out. Policies are asked in
// order, after the client was authenticated, the token verified and its ownership
// established, and before anything is recorded.
//
// An error, a panic or a decision that is not valid is answered with 503, and the
// token stays alive: what a policy could not decide is never a 200. The error's
// text is logged; it must not hold a secret. Decide has to return when ctx is
// done. Implementations are safe for concurrent use, and do not modify the facts.
type Policy interface {
	Decide(ctx context.Context, facts *Facts) (PolicyDecision, error)
}

// NamedPolicy is a policy with the name that logs and outcomes call it by.
type NamedPolicy struct {
	Name   string
	Policy Policy
}

// Verdict is what a policy decides. The zero value is none, and counts as a
// failure.
type Verdict int

// Verdicts of a policy.
const (
	// Allow goes on to the next policy, after the last one to the revocation.
	Allow Verdict = iota + 1
	// Skip ends the request with 200, and nothing is revoked. The client
	// believes its token dead: it is for what the operator wants to look like
	// success, such as tokens that end elsewhere.
	Skip
	// Deny ends the request with 403 access_denied.
	Deny
	// Answer ends the request with the policy's own answer.
	Answer
)

// PolicyDecision is a verdict with what belongs to it.
type PolicyDecision struct {
	Verdict Verdict
	// Status is that of an [Answer]: 400 to 599. Success has to be said by its
	// name, [Skip], so that no hook answers 200 by accident.
	Status int
	// Header is added to the answer. With [Allow] and [Skip] it is that of the
	// 200. Fields that the endpoint sets itself, and those of the connection, are
	// refused. At most 16 fields of 4 KiB together.
	Header http.Header
	// Body is that of an [Answer], at most 8 KiB. It should be an error object of
	// RFC 6749, section 5.2, since clients expect one. Empty means the one that
	// [Deny] has.
	Body []byte
	// Reason is logged, and never sent: at most 256 bytes are kept.
	Reason string
}

// Bounds of what a policy may add to an answer.
const (
	maxPolicyFields = 16
	maxPolicyHeader = 4 << 10 // bytes
	maxPolicyBody   = 8 << 10 // bytes
	maxPolicyReason = 256     // bytes
)

// ErrorAccessDenied is the code of a refusal by a policy.
const ErrorAccessDenied = "access_denied"

// reservedFields are set by the endpoint, or belong to the connection.
var reservedFields = []string{
	"Cache-Control", "Pragma", "Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive", "Upgrade", "Trailer", "Te",
	"Date", "Allow", "Vary", "Set-Cookie",
	"Access-Control-Allow-Origin", "Access-Control-Allow-Methods", "Access-Control-Allow-Headers",
	"Access-Control-Allow-Credentials", "Access-Control-Expose-Headers", "Access-Control-Max-Age",
}

// validate reports why the decision cannot be carried out.
func (d *PolicyDecision) validate() error {
	switch {
	case d.Verdict < Allow || d.Verdict > Answer:
		return errors.New("the policy gave no verdict")
	case d.Verdict == Answer && (d.Status < 400 || d.Status > 599):
		return fmt.Errorf("the policy answered with the status %d, which is not 400 to 599", d.Status)
	case d.Verdict != Answer && (d.Status != 0 || len(d.Body) > 0):
		return errors.New("the policy gave a status or body without an answer of its own")
	case len(d.Body) > maxPolicyBody:
		return fmt.Errorf("the policy's body is longer than %d bytes", maxPolicyBody)
	case len(d.Header) > maxPolicyFields:
		return fmt.Errorf("the policy set more than %d header fields", maxPolicyFields)
	}
	size := 0
	for name, values := range d.Header {
		if scheme, rest := cutScheme(name); scheme == "" || rest != "" {
			return errors.New("the policy set a header field whose name is not valid")
		}
		if slices.Contains(reservedFields, textproto.CanonicalMIMEHeaderKey(name)) {
			return fmt.Errorf("the policy set the header field %s, which is not a policy's to set", name)
		}
		for _, v := range values {
			if size += len(name) + len(v); size > maxPolicyHeader {
				return fmt.Errorf("the policy's header fields are longer than %d bytes", maxPolicyHeader)
			}
			if !visible(v) {
				return fmt.Errorf("the policy set the header field %s to a value that is not valid", name)
			}
		}
	}
	return nil
}

// visible tells whether v can be the value of a header field.
func visible(v string) bool {
	for i := range len(v) {
		if c := v[i]; c < ' ' && c != '\t' || c >= 0x7f {
			return false
		}
	}
	return true
}

// accessDenied is what a policy's refusal looks like. RFC 6749 has no code for it
// at the token endpoint; access_denied (section 4.1.2.1) says that the server
// denied the request.
func accessDenied() *answer {
	return &answer{
		result: ResultPolicyRefused, status: http.StatusForbidden,
		code: ErrorAccessDenied, description: "the revocation was refused by a policy",
	}
}

// consult asks the policies. It returns done if the request ends here, with nil
// for a 200.
func (e *Endpoint) consult(ctx context.Context, facts *Facts, x *exchange) (refusal *answer, done bool) {
	for _, p := range e.options.Policies {
		d, err := decide(ctx, p.Policy, facts)
		if err == nil {
			err = d.validate()
		}
		if err != nil {
			e.log.LogAttrs(ctx, slog.LevelWarn, "policy failed, nothing was revoked",
				slog.String("policy", p.Name), slog.Any("error", err))
			x.outcome.Policy = p.Name
			a := unavailable("a policy could not decide; the token is still valid", e.options.RetryAfter)
			a.result = ResultPolicyFailed
			return a, true
		}
		if d.Verdict == Allow {
			x.addHeader(d.Header)
			continue
		}
		x.outcome.Policy = p.Name
		x.outcome.Reason = cut(d.Reason, maxPolicyReason)
		if d.Verdict == Skip {
			x.addHeader(d.Header)
			x.outcome.Result = ResultPolicySkipped
			return nil, true
		}
		a := accessDenied()
		a.header = d.Header
		if d.Verdict == Answer {
			a.status, a.body = d.Status, d.Body
		}
		return a, true
	}
	return nil, false
}

// decide asks one policy. Its panic is a failure like any other.
func decide(ctx context.Context, p Policy, facts *Facts) (d PolicyDecision, err error) {
	defer func() {
		if r := recover(); r != nil {
			d, err = PolicyDecision{}, fmt.Errorf("the policy panicked: %v", r)
		}
	}()
	if err := ctx.Err(); err != nil {
		return PolicyDecision{}, err
	}
	return p.Decide(ctx, facts)
}

func (x *exchange) addHeader(h http.Header) {
	if len(h) == 0 {
		return
	}
	if x.header == nil {
		x.header = make(http.Header)
	}
	copyFields(x.header, h)
}

// copyFields sets fields under their canonical names, so that none appears twice.
func copyFields(to, from http.Header) {
	for name, values := range from {
		to[textproto.CanonicalMIMEHeaderKey(name)] = values
	}
}

func cut(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return cleanText(s)
}
