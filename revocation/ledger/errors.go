package ledger

import (
	"errors"
	"fmt"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// Reasons why a ledger can't be used, as found in [Status.Problem] and, next to
// [revocation.ErrUnavailable], in the errors of publishing. None of them holds
// a secret.
var (
	// ErrNotConnected says that no server answers. Connecting is retried for
	// ever.
	ErrNotConnected = errors.New("not connected to the ledger's server")
	// ErrCredentials says that the server refuses who we say we are. Connecting
	// is retried for ever, since credentials can be repaired on the server.
	ErrCredentials = errors.New("the ledger's server refuses the credentials")
	// ErrNotPermitted says that the server knows us and does not let us do it.
	ErrNotPermitted = errors.New("the ledger's server does not permit it")
	// ErrNoJetStream says that the server answers, but nobody there serves
	// JetStream to this account.
	ErrNoJetStream = errors.New("the server offers no JetStream to this account")
	// ErrStreamMissing says that the stream does not exist and that nobody
	// asked for it to be created.
	ErrStreamMissing = errors.New("the ledger's stream does not exist")
	// ErrNoGenesis says that the stream exists but was never initialised as a
	// ledger, or lost its beginning.
	ErrNoGenesis = errors.New("the ledger's stream has no genesis entry")
	// ErrStreamSettings is wrapped by every [SettingError].
	ErrStreamSettings = errors.New("the ledger's stream could lose revocations")
	// ErrStorage says that the embedded server's disk takes no more. Nothing is
	// recorded; the server starts again by itself when there is space.
	ErrStorage = errors.New("the embedded ledger can't write")
	// ErrNotStoring says that an external server answers, but acknowledges
	// nothing, as one does whose disk was full: it needs space, and then to be
	// started again.
	ErrNotStoring = errors.New("the ledger's server answers but stores nothing: is its disk full? free space there, then restart it")
	// ErrNoRoom says that the stream is full, so that heartbeats are refused too:
	// edges can't prove that they know everything, and turn stale. It wraps
	// [revocation.ErrFull].
	ErrNoRoom = fmt.Errorf("%w, and heartbeats find no room in it either, so that edges turn stale: give the stream a larger maximum size", revocation.ErrFull)
	// ErrLocked says that the store directory is in use.
	ErrLocked = errors.New("the ledger's store directory is in use")
	// ErrClosed says that the ledger was closed.
	ErrClosed = errors.New("the ledger is closed")
	// ErrOptions is wrapped by errors about options that make no sense.
	ErrOptions = errors.New("invalid ledger options")
)

// SettingError names a setting of the stream with which it could drop, replace
// or refuse revocations that are alive. It wraps [ErrStreamSettings].
type SettingError struct {
	Stream  string
	Setting string // as the nats command line tool's JSON spells it: "max_age"
	Value   string // what it is
	Want    string // what it has to be
}

// Error implements error.
func (e *SettingError) Error() string {
	return fmt.Sprintf("%v: stream %s has %s %s, it must be %s", ErrStreamSettings, e.Stream, e.Setting, e.Value, e.Want)
}

// Unwrap returns [ErrStreamSettings].
func (e *SettingError) Unwrap() error { return ErrStreamSettings }
