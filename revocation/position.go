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
	// Latest is the newest time stamp of any entry up to that one. It is newer
	// than Stored if the server's clock was set back in between.
	Latest time.Time
	// Witness is the sequence of the newest revocation or restoration up to
	// there, or zero if there is none. As long as its message has not ended, a
	// ledger without it is not the one that was followed.
	Witness uint64
	// WitnessStored is the server's time stamp of the witness, WitnessEnds when
	// the server forgets it, zero for never.
	WitnessStored, WitnessEnds time.Time
}
