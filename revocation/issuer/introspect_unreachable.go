package issuer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// ErrUnreachable says why nothing is known: the authorization server as a whole
// can't be asked. There was no connection or no answer in time, it has answered
// with an error of its own (5xx), or questions failed so often, the last one like
// that, that none are asked for a while. Its errors wrap [ErrIntrospectionUnavailable], too. Those that
// wrap only that may be due to the token, or to how many are asked about.
var ErrUnreachable = errors.New("the authorization server can't be asked")

type unreachableError struct{ error }

func (e unreachableError) Is(target error) bool { return target == ErrUnreachable }
func (e unreachableError) Unwrap() error        { return e.error }

// noExchange is [ErrUnreachable], unless the question was taken back.
func noExchange(ctx context.Context, err error) error {
	if failed(ctx) != outcomeFailed {
		return err
	}
	return unreachableError{err}
}

// Reread makes the identity of an earlier answer about the token again, with these
// claims. The answer is a [Introspection.Response] of this issuer. It proves only
// whose token it was, however old it is: enough to refuse the token for, never to
// accept it. The error is one of [Introspector.Introspect].
func (n *Introspector) Reread(token string, response json.RawMessage, claimNames []string) (*revocation.Identity, error) {
	hash, err := n.issuer.introspectable(token)
	if err != nil {
		return nil, err
	}
	v, err := n.issuer.newView(&activeAnswer{text: response, token: hash}, claimNames)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnnameable, err)
	}
	return v.id, nil
}
