package issuer

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"
)

const (
	// maxWaiting bounds the questions that wait for their turn, and with them
	// what a flood of made-up tokens can occupy.
	maxWaiting = 1024
	// maxWaitPart is which part of the timeout a question may wait for its turn:
	// enough has to be left for the answer.
	maxWaitPart = 2
	// maxPurges is how many purges a flight remembers to judge its answer by.
	maxPurges = 64
)

// Why a flight ends early.
var (
	errAbandoned        = errors.New("nobody waits for the answer any more")
	errIntrospectClosed = errors.New("introspection is closed")
	errNoTurn           = errors.New("too many questions wait for their turn")
)

// flightKey is what callers that share a question have in common. The hint is
// part of it: it must not limit the server's search (RFC 7662, section 2.1), but
// with some it does, and "inactive" for a wrong hint is not meant for others.
type flightKey struct {
	sum  tokenSum
	hint string
}

// flight is one question that any number of callers wait for. What is not
// constant is guarded by the Introspector's mutex until done is closed.
type introspectionFlight struct {
	key    flightKey
	token  string // canonical hash
	seq    uint64
	asked  time.Time
	ticket uint64 // of the breaker
	cancel context.CancelCauseFunc

	waited  atomic.Bool // for its turn
	waiters int
	sent    bool
	purges  []*purge // since it began
	unkept  bool     // the answer must not be kept

	done   chan struct{}
	answer *activeAnswer // valid after done, as is err
	err    error
}

// board returns a kept answer, or a flight to wait for. With a negative MaxAge,
// the flight begins now: its answer is to a question that was asked after the
// call.
func (n *Introspector) board(token string, req IntrospectionRequest) (*activeAnswer, *introspectionFlight, error) {
	key := flightKey{sha256.Sum256([]byte(token)), req.Hint}
	n.mu.Lock()
	a, f := n.known(key, req.MaxAge)
	n.mu.Unlock()
	if a != nil || f != nil {
		return a, f, nil
	}
	hash, err := n.issuer.introspectable(token)
	if err != nil {
		return nil, nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, nil, unavailable("%w", errIntrospectClosed)
	}
	if a, f = n.known(key, req.MaxAge); a != nil || f != nil {
		return a, f, nil
	}
	f, err = n.depart(key, hash, token, req.Source)
	return nil, f, err
}

// known returns what there is already: an answer, or a flight that the caller
// has joined. The mutex is held.
func (n *Introspector) known(key flightKey, maxAge time.Duration) (*activeAnswer, *introspectionFlight) {
	if maxAge < 0 {
		return nil, nil
	}
	now := n.issuer.now()
	if a := n.cache.get(key.sum, maxAge, now); a != nil {
		n.counts.hits.Add(1)
		return a, nil
	}
	f := n.joinable[key]
	if f == nil || now.Sub(f.asked) >= maxAge {
		return nil, nil
	}
	n.counts.shared.Add(1)
	f.waiters++
	return nil, f
}

// depart begins a flight with the caller on it. The mutex is held.
func (n *Introspector) depart(key flightKey, hash, token string, from netip.Addr) (*introspectionFlight, error) {
	ticket, ok := n.breaker.admit()
	if !ok {
		n.counts.refused.Add(1)
		return nil, n.errOpen()
	}
	n.seq++
	f := &introspectionFlight{
		key: key, token: hash, seq: n.seq, asked: n.issuer.now(), ticket: ticket,
		waiters: 1, done: make(chan struct{}),
	}
	var ctx context.Context
	ctx, f.cancel = context.WithCancelCause(n.ctx)
	n.running[f] = struct{}{}
	n.joinable[key] = f
	n.flying.Go(func() { n.fly(ctx, f, token, from) })
	return f, nil
}

// errOpen says that the breaker is open, and why.
func (n *Introspector) errOpen() error {
	err := unavailable("not asked, after too many failures in a row")
	if last := n.lastError.Load(); last != nil {
		err = unavailable("not asked, after too many failures in a row, the last being: %s", *last)
	}
	if n.away.Load() {
		return unreachableError{err}
	}
	return err // other failures may be due to tokens
}

// leave takes a caller that waits no longer off the flight. A question that
// waits for its turn is taken back if nobody wants it; one that was sent goes
// on: its outcome tells how the server is, and the answer may be wanted again.
func (n *Introspector) leave(f *introspectionFlight) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f.waiters--
	if f.waiters == 0 && !f.sent {
		n.detach(f)
		f.cancel(errAbandoned)
	}
}

// detach lets nobody else join the flight.
func (n *Introspector) detach(f *introspectionFlight) {
	if n.joinable[f.key] == f {
		delete(n.joinable, f.key)
	}
}

// fly asks the question of f and hands the answer to those who wait.
func (n *Introspector) fly(ctx context.Context, f *introspectionFlight, token string, from netip.Addr) {
	defer f.cancel(nil)
	a, o, err := n.askInTurn(ctx, f, token, from)
	switch {
	case err == nil:
		n.counts.active.Add(1)
	case errors.Is(err, ErrInactive):
		n.counts.inactive.Add(1)
	case o != outcomeVoid:
		n.counts.failed.Add(1)
		n.issuer.logger.LogAttrs(ctx, slog.LevelDebug, "introspection", slog.Any("error", err))
	}
	if o == outcomeFailed {
		text := reasonUnavailable(err)
		n.lastError.Store(&text)
		n.away.Store(errors.Is(err, ErrUnreachable))
	}
	n.report(ctx, f.ticket, o, err)
	n.land(f, a, err)
}

// askInTurn waits for a free slot and asks. The timeout begins anew then: by how
// long a question has waited, which anybody who makes up tokens can bring about,
// the server must not be judged.
func (n *Introspector) askInTurn(
	ctx context.Context, f *introspectionFlight, token string, from netip.Addr,
) (*activeAnswer, outcome, error) {
	release := n.turns.Try(from)
	if release == nil {
		f.waited.Store(true)
		var err error
		if release, err = n.turns.Acquire(ctx, from); err != nil {
			if cause := context.Cause(ctx); cause != nil {
				return nil, outcomeVoid, unavailable("%w", cause)
			}
			return nil, outcomeVoid, unavailable("%w: %d are asked already, and %w", errNoTurn, n.config.MaxConcurrent, err)
		}
	}
	defer release()
	ctx, cancel := context.WithTimeout(ctx, time.Duration(n.config.Timeout))
	defer cancel()
	// Those in front may have found out that the server does not answer.
	if !n.breaker.stands(f.ticket) {
		return nil, outcomeVoid, n.errOpen()
	}
	if !n.send(f) {
		return nil, outcomeVoid, unavailable("%w", errAbandoned)
	}
	n.counts.asked.Add(1)
	began := time.Now()
	body, o, err := n.ask(ctx, token, f.key.hint)
	n.durations.observe(time.Since(began))
	if err != nil {
		return nil, o, err
	}
	if n.config.SignedResponse {
		if body, err = n.issuer.openSigned(ctx, body, n.config.ResponseAudience, f.asked); err != nil {
			return nil, o, err
		}
	}
	a, err := n.issuer.readAnswer(body, f.token)
	if err != nil {
		return nil, o, err
	}
	a.asked, a.seq = f.asked, f.seq
	return a, o, nil
}

// send marks the flight as sent, unless everybody has left.
func (n *Introspector) send(f *introspectionFlight) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	f.sent = f.waiters > 0
	return f.sent
}

// report tells the breaker, and the log if that changes something.
func (n *Introspector) report(ctx context.Context, ticket uint64, o outcome, err error) {
	before, after := n.breaker.report(ticket, o)
	switch {
	case before != BreakerOpen && after == BreakerOpen && o == outcomeFailed:
		n.counts.opened.Add(1)
		if before == BreakerClosed {
			n.issuer.logger.LogAttrs(ctx, slog.LevelError,
				"introspection fails; the authorization server is asked one question at a time until it answers",
				slog.Any("error", err))
		}
	case after == BreakerClosed && before != BreakerClosed:
		n.issuer.logger.LogAttrs(ctx, slog.LevelInfo, "introspection works again")
	}
}

// land ends the flight: the answer is kept if nothing has come in between, and
// handed to those who wait.
func (n *Introspector) land(f *introspectionFlight, a *activeAnswer, err error) {
	n.mu.Lock()
	for a != nil && !f.unkept && len(f.purges) > 0 {
		purges := f.purges
		f.purges = nil
		n.mu.Unlock()
		hit := false
		for _, p := range purges {
			hit = hit || p.hits(n.issuer, a)
		}
		n.mu.Lock()
		f.unkept = f.unkept || hit
	}
	delete(n.running, f)
	n.detach(f)
	switch {
	case err == nil && !f.unkept:
		n.cache.put(f.key.sum, a, n.issuer.now())
	case errors.Is(err, ErrInactive):
		// Neither what an earlier question has found nor what one will find that
		// is still on its way: the token is dead since.
		n.cache.dropOlder(f.key.sum, f.seq)
		for other := range n.running {
			if other.key.sum == f.key.sum && other.seq < f.seq {
				other.unkept = true
			}
		}
	}
	f.answer, f.err = a, err
	n.mu.Unlock()
	close(f.done)
}

// introspectable returns what [revocation.ClaimToken] is for a token, or why the
// authorization server is not asked about it: [ErrNotAToken], [ErrMalformed], or
// [ErrUnknownIssuer] for a JWT of somebody else, who alone may see it.
func (i *Issuer) introspectable(token string) (hash string, err error) {
	r, err := read(token)
	if errors.Is(err, ErrNotJWT) {
		return OpaqueTokenHash(token)
	}
	if err != nil {
		return "", err
	}
	defer r.free()
	if m := r.registered[claimIss]; m.name != nil {
		iss, err := r.issuer()
		if err != nil {
			return "", err
		}
		if !i.isCalled(string(iss)) {
			return "", &UnknownIssuerError{Issuer: string(iss)}
		}
	}
	sum := r.tokenHash()
	return base64.RawURLEncoding.EncodeToString(sum[:]), nil
}
