package revocation

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"
)

var (
	// ErrUnavailable says that the ledger did not acknowledge the decision in
	// time. The token is to be treated as alive; the caller retries later (RFC
	// 7009, section 2.2.1: 503).
	ErrUnavailable = errors.New("the revocation ledger is unavailable")
	// ErrFull says that the ledger or the denylist has no room left for
	// revocations of this kind. As with [ErrUnavailable], nothing was revoked.
	ErrFull = errors.New("the revocation ledger is full")
	// ErrExpired says that no token which the request names can still be alive,
	// so that there is nothing to record.
	ErrExpired = errors.New("the token has expired")
	// ErrInvalidRequest is wrapped by errors about a request that contradicts itself.
	ErrInvalidRequest = errors.New("invalid revocation request")
)

// Ledger makes decisions durable. An implementation returns without error only
// after the decision would survive the loss of this process, and reuses the
// decision's ID in retries, so that it is stored once. Its errors wrap
// [ErrUnavailable] or [ErrFull].
type Ledger interface {
	PublishRevocation(ctx context.Context, r *Revocation) (sequence uint64, err error)
	// PublishRestoration may bring r.Expires forward to when what r undoes has
	// surely ended.
	PublishRestoration(ctx context.Context, r *Restoration) (sequence uint64, err error)
	PublishRecheck(ctx context.Context, r *Recheck) (sequence uint64, err error)
	// PublishRevocations makes the first n of rs durable, as many as fit into one
	// entry of the ledger, at least one. On an error, none of them is.
	PublishRevocations(ctx context.Context, rs []*Revocation) (n int, sequence uint64, err error)
	// Stands tells whether the entry at the sequence exists in the ledger's
	// present history and denies by itself all that each of rs would, for as
	// long. When it returns true, every restoration that anyone had been told is
	// durable, before the call, is visible in this edge's denylist. In doubt it
	// returns false or an error.
	Stands(ctx context.Context, sequence uint64, rs ...*Revocation) (bool, error)
}

// Denylist holds decisions in memory, where requests are checked against them.
// Revoke and Restore are visible to every goroutine when they return, and
// applying the same sequence again changes nothing.
type Denylist interface {
	// Admit refuses, with an error that wraps [ErrFull], a decision for which
	// there is no room kept. It stores nothing.
	Admit(r *Revocation, operator bool) error
	Revoke(sequence uint64, r *Revocation)
	Restore(sequence uint64, r *Restoration)
	// Recheck makes whoever keeps answers of introspection about the issuer's
	// tokens forget them before it returns.
	Recheck(sequence uint64, issuer string)
	// Standing tells whether an entry stands that denies all that r would, for as
	// long, and returns its sequence in the ledger's present history.
	Standing(r *Revocation) (sequence uint64, ok bool)
}

// Roomer is a [Denylist] that can say for how many decisions on criteria of their
// own there is surely room, which may be less than what it admits one by one.
// Without it, [Service.Import] records them singly: beyond what a denylist can
// hold, an edge is of no use.
type Roomer interface {
	Room() int
}

// Defaults of [Policy].
const (
	DefaultLeeway     = 5 * time.Minute
	DefaultRetention  = 7 * 24 * time.Hour
	DefaultIssuerSkew = 2 * time.Second
)

// Policy says how long decisions are kept and how clocks are allowed for.
type Policy struct {
	// Leeway is added to a token's exp: the clocks of edges and upstreams
	// differ, and an upstream may accept tokens for a while after exp. Zero
	// means [DefaultLeeway].
	Leeway time.Duration
	// Retention is how long a cutoff is kept at least. Zero means
	// [DefaultRetention].
	Retention time.Duration
	// MaxTokenLifetime returns the longest life of the issuer's access tokens,
	// zero if unknown. A cutoff is kept for at least that long, since a token
	// issued a moment before it lives until then.
	MaxTokenLifetime func(issuer string) time.Duration
	// IssuerSkew is how far an issuer's clock may be ahead of ours: it is added
	// to every cutoff, so that a token issued just before the decision cannot
	// look as if it came after. Tokens issued within it after the decision are
	// denied too. Zero means [DefaultIssuerSkew], negative none.
	IssuerSkew time.Duration
}

// Service records decisions: first in the ledger, then in this edge's denylist.
// It is safe for concurrent use.
type Service struct {
	ledger   Ledger
	denylist Denylist
	policy   Policy
	now      func() time.Time

	importing sync.Mutex // two imports at a time would both take the same room
}

// NewService returns a Service that takes the time from now, or from time.Now
// if now is nil.
func NewService(ledger Ledger, denylist Denylist, policy Policy, now func() time.Time) *Service {
	if now == nil {
		now = time.Now
	}
	if policy.Leeway == 0 {
		policy.Leeway = DefaultLeeway
	}
	if policy.Retention == 0 {
		policy.Retention = DefaultRetention
	}
	if policy.IssuerSkew == 0 {
		policy.IssuerSkew = DefaultIssuerSkew
	}
	return &Service{ledger: ledger, denylist: denylist, policy: policy, now: now}
}

// NoExpiry is the TokenExpiry of a token without exp. Its revocation is kept for
// as long as any can be, [MaxRetention].
const NoExpiry = math.MaxInt64

// Request asks for a revocation.
type Request struct {
	Criteria Criteria
	Mode     Mode
	// Cutoff is in Unix seconds; zero means now. Only for cutoffs.
	Cutoff int64
	// TokenExpiry is the exp of the one token that Criteria names, in Unix
	// seconds; [NoExpiry] if it has none; zero if it is not known, or Criteria
	// names more than one.
	TokenExpiry int64
	// TokenIssuedAt is the iat of the token that was presented, if any. A
	// cutoff of "now" covers it even if the issuer's clock is ahead.
	TokenIssuedAt int64
	// IssuedUntil is until when tokens that Criteria names may still be issued, in
	// Unix seconds: the exp of the refresh token that they are issued with;
	// [NoExpiry] if it has none; zero if that is not known. A block stands for as
	// long as the last of them can live. Not used by cutoffs, which do not reach
	// them, nor if Criteria names one token.
	IssuedUntil int64
	// Once asks for a decision about the token that was presented and what came
	// before it. If one for the same criteria stands already that denies a token
	// issued at TokenIssuedAt (zero: any such decision), nothing moves: neither
	// the cutoff nor the end. Without it, whoever kept a token that is long dead
	// could present it again and again, and cut off each new login. Not together
	// with Cutoff, Lifetime or Expires.
	Once bool
	// Lifetime is how long the decision stands; zero for as long as tokens that
	// it names can live, as far as that is known.
	Lifetime time.Duration
	// Expires is when the decision ends, in Unix seconds, instead of Lifetime or
	// TokenExpiry; zero if it is not said. A request that says it is the same
	// whenever it is repeated. A cutoff stands for as long as tokens from before
	// it can live, if that is later.
	Expires int64
	Reason  string
	Actor   string
	// Operator marks decisions that are still admitted when the denylist is
	// nearly full.
	Operator bool
}

// Receipt says what was recorded.
type Receipt struct {
	// ID is the decision's id.
	ID string
	// Sequence is the entry's place in the ledger.
	Sequence uint64
	Mode     Mode
	Cutoff   int64 // Unix seconds, zero for a block
	Expires  int64 // Unix seconds
	// NewTokensPass is true if tokens issued after the cutoff are not denied.
	NewTokensPass bool
	// Stood is true if nothing was recorded, because the entry at Sequence
	// already denies all this. ID is then empty.
	Stood bool
}

// Revoke records a decision and returns after it is durable and in force on this
// edge. A decision that already stands is not recorded again, unless there is the
// slightest doubt about it; see [Receipt.Stood]. The error wraps
// [ErrInvalidRequest], [ErrInvalidCriteria] or [ErrInvalidRevocation] if the
// request is at fault, [ErrExpired] if there is nothing left to revoke, and
// [ErrUnavailable] or [ErrFull] if nothing was recorded although it should have
// been.
func (s *Service) Revoke(ctx context.Context, req Request) (Receipt, error) {
	r, err := s.decide(req)
	if err != nil {
		return Receipt{}, err
	}
	least := s.least(req, r)
	if seq, ok := s.denylist.Standing(least); ok {
		if s.stands(ctx, seq, least) {
			return standing(least, seq), nil
		}
		// In doubt it is recorded again, but not as of now.
		r.Cutoff = least.Cutoff
	}
	if err := s.denylist.Admit(r, req.Operator); err != nil {
		return Receipt{}, err
	}
	seq, err := s.ledger.PublishRevocation(ctx, r)
	if err != nil {
		return Receipt{}, err
	}
	s.denylist.Revoke(seq, r)
	return recorded(r, seq), nil
}

// least returns the least decision that makes r unnecessary: r itself, or with
// [Request].Once one that reaches the token that was presented, for as long as a
// token of that age can live.
func (s *Service) least(req Request, r *Revocation) *Revocation {
	if !req.Once {
		return r
	}
	least := *r
	from := max(req.TokenIssuedAt, 1)
	if r.Mode != Block {
		least.Cutoff = from
	}
	// A decision of the time when the token was issued would end then, and one
	// that was taken later does not end earlier.
	least.Expires = min(r.Expires, s.expires(req, from, time.Unix(from, 0)))
	return &least
}

// stands tells whether the entry at the sequence makes it unnecessary to record
// any of rs.
func (s *Service) stands(ctx context.Context, sequence uint64, rs ...*Revocation) bool {
	if ok, err := s.ledger.Stands(ctx, sequence, rs...); !ok || err != nil {
		return false
	}
	// Another edge may have undone it a moment ago, which shows only now.
	for _, r := range rs {
		if still, ok := s.denylist.Standing(r); !ok || still != sequence {
			return false
		}
	}
	return true
}

func recorded(r *Revocation, sequence uint64) Receipt {
	return Receipt{
		ID: r.ID, Sequence: sequence, Mode: r.Mode, Cutoff: r.Cutoff, Expires: r.Expires,
		NewTokensPass: r.Mode != Block,
	}
}

func standing(r *Revocation, sequence uint64) Receipt {
	receipt := recorded(r, sequence)
	receipt.ID, receipt.Stood = "", true
	return receipt
}

func (s *Service) decide(req Request) (*Revocation, error) {
	now := s.now()
	r := &Revocation{
		ID:        newDecisionID(),
		Criteria:  req.Criteria,
		Mode:      req.Mode,
		Reason:    req.Reason,
		Actor:     req.Actor,
		DecidedAt: now.UnixMilli(),
	}
	switch {
	case req.Mode == Block && req.Cutoff != 0:
		return nil, fmt.Errorf("%w: a block has no cutoff", ErrInvalidRequest)
	case req.Once && (req.Cutoff != 0 || req.Lifetime != 0):
		return nil, fmt.Errorf("%w: once is for a decision as of now, for as long as tokens live", ErrInvalidRequest)
	case req.Lifetime != 0 && req.TokenExpiry != 0 && req.Criteria.NamesOneToken():
		return nil, fmt.Errorf("%w: a token's revocation stands for as long as the token lives, it has no lifetime of its own", ErrInvalidRequest)
	case req.Expires != 0 && (req.Once || req.Lifetime != 0 || req.TokenExpiry != 0):
		return nil, fmt.Errorf("%w: an end leaves no room for a lifetime, a token's exp or once", ErrInvalidRequest)
	case req.Expires < 0 || req.Expires > now.Add(MaxRetention).Unix():
		return nil, fmt.Errorf("%w: the end is not a time in Unix seconds within %s", ErrInvalidRequest, MaxRetention)
	case req.Lifetime < 0 || req.Lifetime > MaxRetention:
		return nil, fmt.Errorf("%w: the lifetime is not between 0 and %s", ErrInvalidRequest, MaxRetention)
	case req.Cutoff < 0 || req.Cutoff > now.Add(MaxRetention).Unix():
		return nil, fmt.Errorf("%w: the cutoff is not a time in Unix seconds", ErrInvalidRequest)
	}
	if req.Mode != Block {
		r.Cutoff = req.Cutoff
		if r.Cutoff == 0 {
			r.Cutoff = max(now.Unix(), req.TokenIssuedAt)
			r.Cutoff += int64(max(s.policy.IssuerSkew, 0) / time.Second)
		}
	}
	r.Expires = s.expires(req, r.Cutoff, now)
	if r.Expires <= now.Unix() {
		return nil, ErrExpired
	}
	return r, r.Validate()
}

// expires returns when the decision may be forgotten, in Unix seconds.
func (s *Service) expires(req Request, cutoff int64, now time.Time) int64 {
	leeway := seconds(s.policy.Leeway)
	if req.TokenExpiry > 0 && req.Criteria.NamesOneToken() {
		latest := now.Add(MaxRetention).Unix()
		return min(req.TokenExpiry, latest) + leeway
	}
	if req.Expires > 0 && req.Mode == Block {
		return req.Expires
	}
	if req.Lifetime > 0 && req.Mode == Block {
		return now.Unix() + seconds(req.Lifetime)
	}
	// A token from the cutoff's last second lives for the issuer's longest
	// lifetime after it: the operator may keep a cutoff longer, never shorter.
	keep := max(s.policy.Retention, req.Lifetime)
	if s.policy.MaxTokenLifetime != nil {
		keep = max(keep, s.policy.MaxTokenLifetime(req.Criteria.Issuer))
	}
	last := max(now.Unix(), cutoff)
	end := last + seconds(min(keep, MaxRetention)) + leeway
	if req.Mode == Block && req.IssuedUntil > last {
		// No decision is kept for longer than MaxRetention: what is left of it
		// at the end of a refresh token that lives for years is enough.
		latest := now.Add(MaxRetention).Unix() + leeway
		end = max(end, min(min(req.IssuedUntil, latest)+seconds(min(keep, MaxRetention))+leeway, latest))
	}
	return max(end, req.Expires)
}

// RestoreRequest asks for the undo of all revocations recorded so far for
// exactly these criteria.
type RestoreRequest struct {
	Criteria Criteria
	Reason   string
	Actor    string
}

// Restore records an undo and returns after it is durable and in force on this
// edge. Its errors are those of [Service.Revoke].
func (s *Service) Restore(ctx context.Context, req RestoreRequest) (Receipt, error) {
	now := s.now()
	r := &Restoration{
		ID:        newDecisionID(),
		Criteria:  req.Criteria,
		Expires:   now.Add(MaxRetention).Unix(),
		Reason:    req.Reason,
		Actor:     req.Actor,
		DecidedAt: now.UnixMilli(),
	}
	if err := r.Validate(); err != nil {
		return Receipt{}, err
	}
	seq, err := s.ledger.PublishRestoration(ctx, r)
	if err != nil {
		return Receipt{}, err
	}
	s.denylist.Restore(seq, r)
	return Receipt{ID: r.ID, Sequence: seq, Expires: r.Expires, NewTokensPass: true}, nil
}

// seconds rounds up: a decision never ends early.
func seconds(d time.Duration) int64 {
	return int64((d + time.Second - 1) / time.Second)
}

func newDecisionID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}
