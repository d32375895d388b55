package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
	"github.com/edge-revocation/caddy-token-revocation/revocation/streams"
)

// liveStreams are the requests in flight that a revocation may end. They belong
// to the replica: a reload of the config leaves them alone.
type liveStreams struct {
	registry *streams.Registry
	logger   *slog.Logger
	cut      [streams.Reasons]prometheus.Counter
	vec      *prometheus.CounterVec
	gauge    prometheus.Collector
	unwatch  func()
}

func newLiveStreams(r *replica) *liveStreams {
	s := &liveStreams{
		logger: r.logger,
		vec: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: metricsPrefix + "streams_cut_total",
			Help: "Requests in flight that cut_streams ended, by reason.",
		}, []string{"reason"}),
	}
	for reason := range s.cut {
		s.cut[reason] = s.vec.WithLabelValues(streams.Reason(reason).String())
	}
	s.registry = streams.New(streams.Options{
		Denylist: r.denylist,
		Report: func(b streams.Batch) {
			s.cut[b.Cause.Reason].Add(float64(b.Streams))
			attributes := []any{"reason", b.Cause.Reason.String(), "streams", b.Streams}
			if b.Cause.Reason == streams.Revoked {
				attributes = append(attributes,
					"entry", b.Cause.Sequence, "mode", b.Cause.Mode.String(), "shape", b.Cause.Shape)
			}
			r.logger.Info("streams cut", attributes...)
		},
	})
	s.gauge = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: metricsPrefix + "streams_open",
		Help: "Requests in flight that cut_streams would end.",
	}, func() float64 { return float64(s.registry.Len()) })
	s.unwatch = r.denylist.Watch(s.registry.Applied)
	return s
}

func (s *liveStreams) collectors() []prometheus.Collector {
	return []prometheus.Collector{s.vec, s.gauge}
}

// stop is called when no config uses the replica any more. Requests that are still
// in flight then go on, as after any reload, but nobody hears of a revocation that
// should end them.
func (s *liveStreams) stop() {
	s.unwatch()
	s.registry.Stop()
	if n := s.registry.Len(); n > 0 && !caddy.Exiting() {
		s.logger.Warn("streams go on that no revocation will end: the ledger of their config is not followed any more", "streams", n)
	}
}

// provisionStreams makes connections known to the requests that come on them:
// net/http does not tell, and to end an HTTP/1 response for sure is to close its
// connection.
func provisionStreams(ctx caddy.Context) {
	if server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok {
		server.RegisterConnContext(withConn)
	}
}

// serve lets a request through. If its token is known, a revocation may end it
// from now on.
func (d *Denylist) serve(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, v verdict) error {
	if d.CutStreams == nil || v.identity == nil {
		return next.ServeHTTP(w, r)
	}
	cause, err := d.serveLive(w, r, next, &v)
	switch {
	case cause != nil:
		// Nothing was answered yet, and nobody else will: as if the request had
		// come later.
		v.result, v.err = causes[cause.Reason], cause
		return d.refuse(w, r, v)
	case errors.Is(err, errUndecided):
		v.result, v.err = unverifiable, err
		return d.refuse(w, r, v)
	}
	return err
}

// causes are the results for requests that were cut before they were answered.
var causes = [streams.Reasons]result{
	streams.Revoked: denied, streams.Expired: expired, streams.TooManyValues: overflow,
	streams.Unreadable: unverifiable,
}

// errUndecided is wrapped if a request can't be registered.
var errUndecided = errors.New("the token can't be judged now")

// serveLive hands a request on that a revocation may end. It returns a cause if
// the request is to be refused: a revocation came before it was handed on, or
// before it was answered. It panics with [http.ErrAbortHandler] if one came later.
func (d *Denylist) serveLive(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, v *verdict) (*streams.CutError, error) {
	live := d.app.replica.streams
	l := &liveRequest{
		ResponseWriterWrapper: caddyhttp.ResponseWriterWrapper{ResponseWriter: w},
		handler:               d,
		token:                 v.presented.Token,
		verified:              v.identity,
		asked:                 v.answer != nil,
		proto:                 uint8(r.ProtoMajor),
	}
	if r.ProtoMajor == 1 {
		l.conn = connOf(r.Context())
	}
	l.header = make([]string, 0, len(w.Header()))
	for name := range w.Header() {
		l.header = append(l.header, name)
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	l.cancel = cancel
	l.stream.Also = v.self
	live.registry.Open(&l.stream, l, v.identity, v.epoch, d.endOf(v.identity))
	defer l.finish(live.registry)

	if cause, err := d.stillAllowed(l, v); cause != nil || err != nil {
		l.finish(live.registry)
		if l.cause.Load() != nil {
			l.closeAfter()
		}
		return cause, err
	}
	r = r.WithContext(ctx)
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &liveBody{ReadCloser: r.Body, live: l}
	}
	err := next.ServeHTTP(l, r)
	return l.outcome(live.registry), err
}

// stillAllowed asks the denylist again, now that the stream is registered: what
// was revoked before that, nobody told the stream.
func (d *Denylist) stillAllowed(l *liveRequest, v *verdict) (*streams.CutError, error) {
	if d.app.replica.streams.registry.Changes() == v.changes {
		return nil, nil // nothing was revoked since it was judged
	}
	list := d.app.replica.denylist
	id, epoch := v.identity, v.epoch
	for range 3 {
		names, now := list.ClaimNames()
		if epoch < now && len(names) > 0 {
			// A claim may have been named since the token was read.
			var err error
			if id, err = l.Identify(names); err != nil {
				return nil, fmt.Errorf("%w: %w", errUndecided, err)
			}
			epoch = now
		}
		decision := list.Check(id)
		if !decision.Denied && v.self != nil {
			decision = list.Check(v.self)
		}
		if _, after := list.ClaimNames(); after != now {
			continue
		}
		switch {
		case !decision.Denied:
			return nil, nil
		case decision.Overflow:
			return &streams.CutError{Reason: streams.TooManyValues}, nil
		default:
			return &streams.CutError{
				Reason: streams.Revoked, Sequence: decision.Sequence, Mode: decision.Mode, Shape: decision.Shape,
			}, nil
		}
	}
	return nil, fmt.Errorf("%w: %w", errUndecided, errKeepChanging)
}

// endOf returns when the streams of a token end by themselves, in Unix seconds;
// zero: never. It is the second from which the token would be refused.
func (d *Denylist) endOf(id *revocation.Identity) int64 {
	if !d.CutStreams.Expired || id.Expiry == 0 {
		return 0
	}
	leeway := issuer.DefaultLeeway
	if i := d.app.issuer(id.Issuer); i != nil {
		leeway = i.Leeway()
	}
	return id.Expiry + int64(leeway/time.Second)
}

var errAskAgain = errors.New("the token says nothing by itself, and its issuer was asked for other claims")

// readAgain reads a token that was judged before, with further claims. What was
// proven then is not proven again: keys may be gone, and the token expired.
func (d *Denylist) readAgain(token string, before *revocation.Identity, names []string) (*revocation.Identity, error) {
	id, err := d.app.identify(context.Background(), token, issuer.Request{ClaimNames: names, SkipVerify: true})
	switch {
	case errors.Is(err, issuer.ErrUnknownIssuer) && id != nil: // passed as foreign
	case errors.Is(err, issuer.ErrNotJWT) && d.opaque != nil:
		return d.opaqueIdentity(token)
	case err != nil:
		return nil, fmt.Errorf("reading the token again: %w", err)
	}
	if kid, ok := before.Value(revocation.ClaimKeyID); ok {
		id.Claims = append(id.Claims, revocation.Claim{Name: revocation.ClaimKeyID, Value: kid})
		revocation.SortClaims(id.Claims)
	}
	id.Verified = before.Verified
	return id, nil
}
