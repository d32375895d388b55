package revocation

import "time"

// Position is how far a denylist has followed a ledger, with what is needed to
// tell that it is still the same history when following resumes. The zero value
// means "from the beginning, of any ledger".
type Position struct {
	// Ledger is the id that the ledger's genesis entry pins.
	Ledger string
	// Created is when the stream was created, by the server's clock.
	Created time.Time
	// Sequence is the last entry applied.
	Sequence uint64
	// Stored is the server's time stamp of that entry: a history that was
	// rolled back and grew again has another one at the same sequence.
	Stored time.Time
}
