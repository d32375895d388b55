package denylist

import (
	"slices"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

// Change says what the denylist was just told, for whoever has to act on it: to
// end open streams, to forget what was introspected.
type Change struct {
	// Fingerprint, Mode and Names are those of a revocation. Names is empty for
	// a whole issuer; it must not be changed.
	Fingerprint revocation.Fingerprint
	Mode        revocation.Mode
	Names       []string
	// Criteria are its criteria; nil if only the fingerprint is known any more,
	// see [Denylist.RevokeHeld].
	Criteria *revocation.Criteria
	// Recheck is an issuer whose introspected tokens have to be asked about again
	// (see [Denylist.Recheck]); everything else is empty then.
	Recheck string
}

// Watch makes f be told of each change from now on, until stop is called. A
// revocation is in force when f is told of it, and may have been before. One that
// could not be held, or that ends nothing new, is told as well: ask
// [Denylist.Check] what it means for a token. What a checkpoint brings is not
// told.
//
// f is called by whoever applies the change, the follower or an endpoint, possibly
// from several goroutines at once. It must return quickly and must not call stop.
// It may still be called for a moment after stop has returned.
func (d *Denylist) Watch(f func(Change)) (stop func()) {
	w := &f
	d.changeWatchers(func(ws []*func(Change)) []*func(Change) { return append(ws, w) })
	return func() {
		d.changeWatchers(func(ws []*func(Change)) []*func(Change) {
			return slices.DeleteFunc(ws, func(other *func(Change)) bool { return other == w })
		})
	}
}

func (d *Denylist) changeWatchers(change func([]*func(Change)) []*func(Change)) {
	for {
		was := d.watchers.Load()
		var ws []*func(Change)
		if was != nil {
			ws = slices.Clone(*was)
		}
		if ws = change(ws); d.watchers.CompareAndSwap(was, &ws) {
			return
		}
	}
}

// tell calls the watchers. No lock is held.
func (d *Denylist) tell(c Change) {
	if ws := d.watchers.Load(); ws != nil {
		for _, w := range *ws {
			(*w)(c)
		}
	}
}

// Recheck tells the watchers that what was learned by introspection about the
// tokens of an issuer does not count any more: something of it was revoked that
// nothing here can name. What is revoked does not change; a mark that an earlier
// version made because it could not read the entry goes, see
// [Denylist.MarkUnreadable].
func (d *Denylist) Recheck(sequence uint64, issuer string) {
	d.tell(Change{Recheck: issuer})
	d.lack.readable(sequence)
}
