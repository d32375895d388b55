package caddymodule

import (
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// staleVisible is the age from which an edge reports itself as stale. The bound
// at which it stops serving is a setting; that it is in trouble is not.
const staleVisible = 15 * time.Second

// statusAnswer is the body of GET /token_revocation/status. It holds nothing of
// any token.
type statusAnswer struct {
	// State is syncing (never knew the ledger), in_sync, stale, or incomplete
	// (in sync, but there is an entry that this edge can't hold or read).
	State string `json:"state"`
	// Serving tells whether requests are let through under the app's policy.
	Serving bool `json:"serving"`
	// Standalone: no other edge can learn of this one's revocations.
	Standalone bool `json:"standalone"`
	// Incomplete says what this edge can't hold or read, if anything.
	Incomplete string `json:"incomplete,omitempty"`
	// AgeSeconds is the time since the newest proof of contact with the ledger;
	// absent before the first.
	AgeSeconds *float64       `json:"age_seconds,omitempty"`
	Ledger     ledgerStatus   `json:"ledger"`
	Denylist   denylistStatus `json:"denylist"`
	Issuers    []issuerStatus `json:"issuers"`
	// ClientFiles are the clients files in use.
	ClientFiles []clientFileStatus `json:"client_files,omitempty"`
	// Intents are there if this edge is in front of an authorization server.
	Intents *intentsStatus `json:"intents,omitempty"`
}

type ledgerStatus struct {
	ID        string `json:"id,omitempty"`
	Server    string `json:"server,omitempty"`
	Connected bool   `json:"connected"`
	Sequence  uint64 `json:"sequence"`
	Lag       uint64 `json:"lag"`
	// Unreadable and ShortLived count messages seen since the start: those that
	// break the rules or are newer than this edge, and those that the server
	// forgets before what they say ends.
	Unreadable uint64 `json:"unreadable,omitempty"`
	ShortLived uint64 `json:"short_lived,omitempty"`
	Error      string `json:"error,omitempty"`
}

type denylistStatus struct {
	Entries    int   `json:"entries"`
	MaxEntries int   `json:"max_entries"`
	Bytes      int64 `json:"bytes"`
	CacheBytes int64 `json:"cache_bytes"`
}

type issuerStatus struct {
	Issuer string `json:"issuer"`
	// Ready: there are keys to verify its tokens with, or it has none because all
	// its tokens are opaque.
	Ready bool `json:"ready"`
	// Introspection is there if it is asked about its tokens.
	Introspection *introspectionStatus `json:"introspection,omitempty"`
}

func (a *App) adminStatus(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, a.status())
}

func (a *App) status() statusAnswer {
	state := a.replica.state()
	stats := a.replica.denylist.Stats()
	answer := statusAnswer{
		State:      "in_sync",
		Serving:    state.EverSynced && state.Age <= time.Duration(a.Stale.MaxAge) || a.Stale.FailOpen,
		Standalone: a.ledger.standalone(),
		Ledger: ledgerStatus{
			Sequence: a.replica.denylist.Position().Sequence,
			Lag:      state.Lag,
		},
		Denylist: denylistStatus{
			Entries:    stats.Entries,
			MaxEntries: stats.MaxEntries,
			Bytes:      stats.Bytes,
			CacheBytes: stats.CacheBytes,
		},
		Issuers: []issuerStatus{},
	}
	if state.EverSynced {
		age := state.Age.Seconds()
		answer.AgeSeconds = &age
	}
	switch {
	case !state.EverSynced:
		answer.State = "syncing"
	// What a checkpoint holds was never compared with the ledger by this process;
	// and who refuses to serve for its age does not call itself in sync.
	case !state.InSync, state.Age > min(staleVisible, time.Duration(a.Stale.MaxAge)):
		answer.State = "stale"
	}
	if reason, _, incomplete := a.replica.denylist.Incomplete(time.Now()); incomplete {
		answer.Incomplete = reason
		answer.Serving = a.Stale.FailOpen
		if answer.State == "in_sync" {
			answer.State = "incomplete"
		}
	}
	if f := a.replica.following.Load().follower; f != nil {
		stats := f.Stats()
		answer.Ledger.Unreadable, answer.Ledger.ShortLived = stats.Poison+stats.Newer, stats.ShortLived
	}
	if s := a.replica.source(); s != nil {
		status := s.ledger.Status()
		answer.Ledger.ID = status.LedgerID
		answer.Ledger.Server = status.Server
		answer.Ledger.Connected = status.Connected
		if status.Problem != nil {
			answer.Ledger.Error = status.Problem.Error()
		}
	}
	for _, i := range a.issuers {
		answer.Issuers = append(answer.Issuers, issuerStatus{
			Issuer: i.Name(), Ready: i.Ready(), Introspection: a.introspectionStatus(i),
		})
	}
	answer.ClientFiles = a.clientFiles()
	answer.Intents = upstreamIntents()
	return answer
}

func receiptFields(r revocation.Receipt, c revocation.Criteria) []zap.Field {
	return []zap.Field{
		zap.String("id", r.ID),
		zap.Uint64("sequence", r.Sequence),
		zap.Stringer("criteria", c),
	}
}
