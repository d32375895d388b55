package ledger

import "time"

// Status describes a ledger for people and metrics. It holds no secret.
type Status struct {
	// Embedded is true if the server runs in this process, Standalone if it
	// does not listen either: two such edges are two islands.
	Embedded, Standalone bool
	// Connected tells whether there is a connection, which proves little; see
	// [State]. Usable tells whether revocations can be published, as far as is
	// known; if not, Problem says why.
	Connected, Usable bool
	Problem           error
	// URL, Server and ServerVersion are those of the server connected to.
	URL, Server, ServerVersion string
	// Listen is the address that the embedded server accepts other edges on.
	Listen string
	Stream string
	// LedgerID is the id in the genesis entry, Created when the stream was
	// created.
	LedgerID string
	Created  time.Time
	Replicas int
	// Bytes of at most MaxBytes (-1: unlimited) are in use, by Messages
	// entries from FirstSequence to LastSequence. As of a few seconds ago.
	Bytes                       uint64
	MaxBytes                    int64
	Messages                    uint64
	FirstSequence, LastSequence uint64
	NearlyFull                  bool
	// ClockSkew is how far this machine's clock is ahead of the server's.
	ClockSkew time.Duration
	// Counters since Open. Published counts acknowledged decisions, Duplicates
	// those of them that an earlier attempt had stored; Failed those not
	// acknowledged in time, Full those refused for lack of room, Refused those
	// turned away because too many were waiting.
	Reconnects, Published, Duplicates, Failed, Full, Refused uint64
}

// Status returns the ledger's present state. It does not ask the server.
func (l *Ledger) Status() Status {
	s := Status{
		Embedded: l.embedded != nil,
		Stream:   l.o.Stream,
		Problem:  l.usable(),
	}
	if s.Problem == nil {
		s.Problem = l.notStoring()
	}
	if s.Problem == nil && l.choked.Load() {
		s.Problem = ErrNoRoom
	}
	s.Usable = s.Problem == nil
	if l.embedded != nil {
		s.Standalone = l.embedded.listen == ""
		s.Listen = l.embedded.listen
	}
	if nc, _, _, err := l.link.current(); err == nil {
		s.Connected = true
		s.Server, s.ServerVersion = nc.ConnectedServerName(), nc.ConnectedServerVersion()
		if l.embedded == nil {
			s.URL = nc.ConnectedUrlRedacted()
		}
	}
	l.mu.Lock()
	if h := l.seen; h != nil {
		s.LedgerID, s.Created, s.Replicas = h.ledger, h.created, h.config.Replicas
		s.Bytes, s.MaxBytes, s.Messages = h.state.Bytes, h.config.MaxBytes, h.state.Msgs
		s.FirstSequence, s.LastSequence = h.state.FirstSeq, h.state.LastSeq
		s.NearlyFull = h.nearlyFull()
	}
	s.ClockSkew = l.skew
	l.mu.Unlock()
	s.Reconnects = l.link.reconnects.Load()
	s.Published, s.Duplicates = l.publishes.published.Load(), l.publishes.duplicates.Load()
	s.Failed, s.Full, s.Refused = l.publishes.failed.Load(), l.publishes.full.Load(), l.publishes.refused.Load()
	return s
}

// NearlyFull tells whether 90 % of the stream's size are in use, as of a few
// seconds ago. The rest is for operators and heartbeats: refuse what clients ask
// for.
func (l *Ledger) NearlyFull() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen != nil && l.seen.nearlyFull()
}

// full tells whether there is no room for another heartbeat.
func (h *history) full() bool {
	bytes := h.config.MaxBytes > 0 && h.state.Bytes+beatRoom >= uint64(h.config.MaxBytes)
	count := h.config.MaxMsgs > 0 && h.state.Msgs >= uint64(h.config.MaxMsgs)
	return bytes || count
}

func (h *history) nearlyFull() bool {
	bytes := h.config.MaxBytes > 0 && float64(h.state.Bytes) >= nearlyFull*float64(h.config.MaxBytes)
	count := h.config.MaxMsgs > 0 && float64(h.state.Msgs) >= nearlyFull*float64(h.config.MaxMsgs)
	return bytes || count
}
