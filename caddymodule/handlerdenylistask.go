package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
)

// provisionIntrospection finds whom to ask.
func (d *Denylist) provisionIntrospection() error {
	if d.OpaqueIssuer == "" {
		switch n := d.app.introspectors; len(n) {
		case 0:
			return errors.New("introspect: no issuer has an introspection block, so that there is nobody to ask: " +
				"add one to the issuer of the opaque tokens, in the global option token_revocation")
		case 1:
			d.OpaqueIssuer = n[0].Issuer().Name()
		default:
			return fmt.Errorf("introspect: %d issuers have an introspection block: say with opaque_issuer whose opaque tokens come here", len(n))
		}
	}
	if d.asked = d.app.introspector(d.OpaqueIssuer); d.asked == nil {
		return fmt.Errorf("introspect: issuer %s has no introspection block, so that it can't be asked: "+
			"add one to it, in the global option token_revocation", d.OpaqueIssuer)
	}
	return nil
}

// isForIssuer tells whether only the authorization server can say what the token
// is: it is opaque or encrypted, or a JWT of its own with an algorithm that it
// is not configured with. Other kinds of JWT, ID tokens for instance, are none of
// its business.
func (d *Denylist) isForIssuer(token string, err error) bool {
	if errors.Is(err, issuer.ErrNotJWT) {
		return true
	}
	if !errors.Is(err, issuer.ErrOtherKind) {
		return false
	}
	jwt, err := issuer.ReadJWT(token)
	if err != nil {
		return false
	}
	iss, _ := jwt.Text("iss")
	i, known := d.app.trusted.Issuer(iss) // or an alias
	return known && i == d.opaque && !slices.Contains(d.opaque.Config().Algorithms, jwt.Algorithm())
}

// ask judges a token by what the authorization server says of it. A token that is
// revoked by its hash costs no question.
func (d *Denylist) ask(ctx context.Context, token string) verdict {
	list := d.app.replica.denylist
	v := verdict{asked: true}
	for range 3 {
		names, epoch := list.ClaimNames()
		self, err := d.selfIdentity(ctx, token, names)
		if err != nil {
			v.result, v.err = invalid, err
			return v
		}
		known := list.Check(self)
		before := decide(known, self)
		before.asked = true
		// How old an opaque token is, only its issuer knows: a cutoff of the whole
		// issuer does not name newer ones.
		if before.result != allowed && (known.Mode == revocation.Block || len(self.Claims) > 1) {
			return before
		}
		answer, err := d.asked.Introspect(ctx, token, issuer.IntrospectionRequest{
			ClaimNames: names, Hint: "access_token", MaxAge: time.Duration(d.Introspect.TTL), Source: clientIPOf(ctx),
		})
		if err != nil {
			if v := d.unasked(ctx, token, self, err); !v.result.passes() || before.result == allowed {
				return v
			}
			return before
		}
		if _, now := list.ClaimNames(); now != epoch {
			continue // the answer is kept: this costs no other question
		}
		d.app.replica.last.keep(d.opaque.Name(), token, answer.Response)
		v := decide(list.Check(answer.Identity), answer.Identity)
		v.asked, v.answer, v.epoch = true, answer.Response, epoch
		if len(self.Claims) > 1 { // the answer's identity has the hash as well
			v.self = self
		}
		return v
	}
	v.result, v.err = unaskable, errKeepChanging
	return v
}

// selfIdentity is what can be said of a token without asking: the hash that a
// {token} criteria names, and what a JWT says of itself.
func (d *Denylist) selfIdentity(ctx context.Context, token string, names []string) (*revocation.Identity, error) {
	id, err := d.app.identify(ctx, token, issuer.Request{ClaimNames: names, SkipVerify: true})
	if errors.Is(err, issuer.ErrNotJWT) {
		return d.opaqueIdentity(token)
	}
	return id, err
}

// unasked decides about a token that the authorization server said nothing good
// of, or nothing at all.
func (d *Denylist) unasked(ctx context.Context, token string, self *revocation.Identity, err error) verdict {
	v := verdict{asked: true, err: err, result: invalid}
	switch {
	case errors.Is(err, issuer.ErrInactive):
		v.result = inactive
		d.app.replica.last.end(d.opaque.Name(), token)
	case errors.Is(err, issuer.ErrIntrospectionUnavailable):
		v.result = unaskable
		// What the token itself may bring about, or whoever presents it, must not be
		// a way past the question. Nor must a request that was taken back: nobody
		// waits for its answer.
		if d.Introspect.FailOpen && errors.Is(err, issuer.ErrUnreachable) && ctx.Err() == nil {
			if v, refused := d.lastRefused(token); refused {
				return v
			}
			v.result, v.identity = passedUnasked, self
		}
	}
	return v
}
