package caddymodule

import (
	"errors"
	"fmt"
	"time"
)

// unproven returns why this edge can't prove that it would know of a revocation,
// or nil if it can: it never knew the ledger, its newest contact is more than
// maxAge ago, or there is an entry that it can't hold or read. Unverified says
// that the token's signature was not verified here: which key signed it is then
// not known, and with it whether a revocation of a key denies it.
func (r *replica) unproven(maxAge time.Duration, unverified bool) error {
	state := r.state()
	switch {
	case !state.EverSynced:
		return errors.New("the denylist has not been synced with the ledger yet")
	case state.Age > maxAge:
		return fmt.Errorf("the denylist is stale: last contact with the ledger %s ago", state.Age.Round(time.Second))
	}
	if reason, _, incomplete := r.denylist.Incomplete(time.Now()); incomplete {
		return fmt.Errorf("the denylist is incomplete: %s", reason)
	}
	if unverified && r.denylist.NamesKeys(time.Now()) {
		// A kid in the header is whatever its sender liked.
		return errors.New("the denylist is incomplete: a signing key is revoked, and nothing here verifies which key signed this token")
	}
	return nil
}
