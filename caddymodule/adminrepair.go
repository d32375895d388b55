package caddymodule

import (
	"errors"
	"fmt"
	"net/http"

	"go.uber.org/zap"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/ledger"
)

// reseedAnswer is the body of the answer to POST /token_revocation/reseed.
type reseedAnswer struct {
	// Entries is how many revocations were written, Messages in how many
	// messages.
	Entries  int    `json:"entries"`
	Messages int    `json:"messages"`
	Effect   string `json:"effect"`
}

// adminReseed writes what this edge holds to a ledger that lost it. Nobody but an
// operator can know that the loss was not meant.
func (a *App) adminReseed(w http.ResponseWriter, r *http.Request) error {
	done, err := a.replica.reseed(r.Context())
	a.logger.Warn("ledger reseeded by operator", zap.Int("entries", done.Entries), zap.Int("messages", done.Messages), zap.Error(err))
	if err != nil {
		status := http.StatusServiceUnavailable
		if errors.Is(err, ledger.ErrNotReplayed) {
			status = http.StatusConflict
		}
		return apiError(status, fmt.Errorf("%d revocations were written, then: %w", done.Entries, err))
	}
	answer := reseedAnswer{Entries: done.Entries, Messages: done.Messages}
	if answer.Effect = "nothing was missing in the ledger that this edge holds"; done.Entries > 0 {
		answer.Effect = fmt.Sprintf("the ledger holds %d revocations again; edges that start from now on know them", done.Entries)
	}
	return writeJSON(w, answer)
}

// acknowledgmentRequest is the body of POST /token_revocation/acknowledgments.
type acknowledgmentRequest struct {
	// Sequence is the place in the ledger of an entry that can't be read, as
	// status and log name it.
	Sequence uint64 `json:"sequence"`
	Reason   string `json:"reason,omitempty"`
}

type acknowledgmentAnswer struct {
	Sequence uint64 `json:"sequence"`
	Effect   string `json:"effect"`
}

func (a *App) adminAcknowledge(w http.ResponseWriter, r *http.Request) error {
	var body acknowledgmentRequest
	if err := readJSON(r, &body); err != nil {
		return err
	}
	sequence, err := a.replica.acknowledge(r.Context(), body.Sequence, body.Reason)
	switch {
	case errors.Is(err, ledger.ErrNoEntry):
		return apiError(http.StatusNotFound, err)
	case err != nil:
		return serviceError(err)
	}
	a.logger.Warn("unreadable ledger entry acknowledged by operator",
		zap.Uint64("entry", body.Sequence), zap.Uint64("sequence", sequence), zap.String("reason", body.Reason))
	return writeJSON(w, acknowledgmentAnswer{
		Sequence: sequence,
		Effect: fmt.Sprintf("entry %d no longer makes an edge incomplete; if it was a revocation, "+
			"edges that can't read it do not enforce it: revoke the same again", body.Sequence),
	})
}

var errNotFollowing = fmt.Errorf("%w: Caddy is still starting", revocation.ErrUnavailable)
