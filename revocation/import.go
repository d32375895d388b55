package revocation

import (
	"context"
	"errors"
	"sync"
)

// publishers is how many entries of an import are under way at a time: while the
// ledger syncs one, the next is made.
const publishers = 4

// askers is how many of the ledger's entries are asked about together: proving
// that one stands takes a while, and is shared by all who ask at that moment.
const askers = 64

// Imported is what became of one request of [Service.Import].
type Imported struct {
	Receipt Receipt
	// Err is why nothing was recorded: one of the errors of [Service.Revoke].
	Err error
}

// Import records many decisions, as [Service.Revoke] does one, with as few
// entries in the ledger as they fit into. It returns one result for each request,
// after all of them are durable and in force on this edge, or have failed. What
// failed for lack of the ledger, or because ctx ended, can be tried again as it
// is: what stands already is not recorded again.
//
// The requests are held in memory: a caller with a million of them imports some
// thousands at a time.
func (s *Service) Import(ctx context.Context, requests []Request) []Imported {
	b := batch{s: s, results: make([]Imported, len(requests))}
	for i, req := range requests {
		r, err := s.decide(req)
		if err != nil {
			b.results[i].Err = err
			continue
		}
		b.decided = append(b.decided, decided{Revocation: r, nth: i, operator: req.Operator})
	}
	b.skip(ctx)
	b.record(ctx)
	return b.results
}

type decided struct {
	*Revocation
	nth      int // among the requests
	operator bool
}

// batch is what is left to be done for one import.
type batch struct {
	s       *Service
	results []Imported
	decided []decided
}

// skip takes out what stands already. Each entry is looked at once, for all the
// decisions that it may make unnecessary.
func (b *batch) skip(ctx context.Context) {
	type group struct {
		rs      []*Revocation
		members []int // of b.decided
	}
	groups := map[uint64]*group{}
	for i, d := range b.decided {
		sequence, ok := b.s.denylist.Standing(d.Revocation)
		if !ok {
			continue
		}
		g := groups[sequence]
		if g == nil {
			g = &group{}
			groups[sequence] = g
		}
		g.rs, g.members = append(g.rs, d.Revocation), append(g.members, i)
	}
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		stood = map[int]bool{}
		slots = make(chan struct{}, askers)
	)
	for sequence, g := range groups {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if ctx.Err() != nil || !b.s.stands(ctx, sequence, g.rs...) {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for _, i := range g.members {
				stood[i] = true
				b.results[b.decided[i].nth].Receipt = standing(b.decided[i].Revocation, sequence)
			}
		})
	}
	wg.Wait()
	left := make([]decided, 0, len(b.decided)-len(stood))
	for i, d := range b.decided {
		if !stood[i] {
			left = append(left, d)
		}
	}
	b.decided = left
}

// record publishes what is left, and puts it in force.
func (b *batch) record(ctx context.Context) {
	for len(b.decided) > 0 {
		b.recordSome(ctx)
	}
}

func (b *batch) recordSome(ctx context.Context) {
	b.s.importing.Lock()
	defer b.s.importing.Unlock()
	// What was applied changes what is admitted: near the maximum, each is judged
	// by itself.
	most := 1
	if d, ok := b.s.denylist.(Roomer); ok {
		most = min(max(d.Room(), 1), len(b.decided))
	}
	admitted := b.admit(most)
	part := (len(admitted) + publishers - 1) / publishers
	var wg sync.WaitGroup
	for ; len(admitted) > 0; admitted = admitted[min(part, len(admitted)):] {
		ds := admitted[:min(part, len(admitted))]
		wg.Go(func() { b.publishAll(ctx, ds) })
	}
	wg.Wait()
}

// publishAll records ds. Several of it may run at a time, for different ones.
func (b *batch) publishAll(ctx context.Context, ds []decided) {
	for len(ds) > 0 {
		if err := ctx.Err(); err != nil {
			b.fail(ds, errors.Join(ErrUnavailable, err))
			return
		}
		ds = b.publish(ctx, ds)
	}
}

// admit takes the next decisions, at most so many, and returns those that there
// is room for.
func (b *batch) admit(most int) []decided {
	admitted := make([]decided, 0, most)
	for _, d := range b.decided[:most] {
		if err := b.s.denylist.Admit(d.Revocation, d.operator); err != nil {
			b.results[d.nth].Err = err
			continue
		}
		admitted = append(admitted, d)
	}
	b.decided = b.decided[most:]
	return admitted
}

// publish records some of ds and returns the rest.
func (b *batch) publish(ctx context.Context, ds []decided) []decided {
	rs := make([]*Revocation, len(ds))
	for i, d := range ds {
		rs[i] = d.Revocation
	}
	n, sequence, err := b.s.ledger.PublishRevocations(ctx, rs)
	n = min(max(n, 1), len(ds))
	if err != nil {
		b.fail(ds[:n], err)
		return ds[n:]
	}
	for _, d := range ds[:n] {
		b.s.denylist.Revoke(sequence, d.Revocation)
		b.results[d.nth].Receipt = recorded(d.Revocation, sequence)
	}
	return ds[n:]
}

func (b *batch) fail(ds []decided, err error) {
	for _, d := range ds {
		b.results[d.nth].Err = err
	}
}
