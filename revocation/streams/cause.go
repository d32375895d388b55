package streams

import (
	"fmt"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// Reason says why a stream was cut.
type Reason uint8

const (
	// Revoked says that a revocation names the token.
	Revoked Reason = iota
	// Expired says that the token's life is over.
	Expired
	// TooManyValues says that the token's claims have so many values that the
	// denylist refuses the token unseen, since a revocation combines some of them.
	TooManyValues
	// Unreadable says that a revocation names a claim that was not read when the
	// stream was opened, and that the token can't be read again, or that it names a
	// signing key, and that nobody here knows which one signed the token. The token
	// is not denied: whoever presents it again is judged again.
	Unreadable

	// Reasons is how many there are.
	Reasons
)

// String returns the reason as a word for logs and metrics.
func (r Reason) String() string {
	switch r {
	case Revoked:
		return "revoked"
	case Expired:
		return "expired"
	case TooManyValues:
		return "too_many_values"
	case Unreadable:
		return "unreadable"
	default:
		return fmt.Sprintf("Reason(%d)", uint8(r))
	}
}

// CutError is the error with which a stream is cut. It holds nothing of the token.
type CutError struct {
	Reason Reason
	// Sequence, Mode and Shape are those of the revocation, see
	// [denylist.Decision], if that is the reason.
	Sequence uint64
	Mode     revocation.Mode
	Shape    string
}

// Error describes c for a log.
func (c *CutError) Error() string {
	switch c.Reason {
	case Revoked:
		return fmt.Sprintf("stream cut: token revoked by entry %d (%s of %s)", c.Sequence, c.Mode, c.Shape)
	case Expired:
		return "stream cut: the token has expired"
	case TooManyValues:
		return "stream cut: the token's claims have too many values to be checked"
	default:
		return "stream cut: a revocation names a claim of which nothing is known here"
	}
}
