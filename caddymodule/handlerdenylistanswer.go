package caddymodule

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
)

// retryAfter is in seconds: keys and ledger are usually back within this time.
const retryAfter = "2"

// refuse answers a request that does not pass.
func (d *Denylist) refuse(w http.ResponseWriter, r *http.Request, v verdict) error {
	d.logRefused(r, &v)
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	if r.Header["Origin"] != nil {
		// Where the site lets a script read the answer, it may read the challenge
		// too (Fetch, section 3.3.6).
		h.Add("Access-Control-Expose-Headers", "WWW-Authenticate")
	}
	switch v.result {
	case unverifiable, unaskable, stale:
		h.Set("Retry-After", retryAfter)
		return caddyhttp.Error(http.StatusServiceUnavailable, &refusal{v.result, v.err})
	case missing:
		// no error code: the client may simply not know yet that it needs a
		// token (RFC 6750, section 3.1)
		d.challenge(h, oauth.Challenge{})
		return caddyhttp.Error(http.StatusUnauthorized, v.err)
	case malformed:
		status, description := malformedAnswer(v.err)
		if status == http.StatusBadRequest {
			d.challenge(h, oauth.Challenge{
				Scheme: usedScheme(r), Error: oauth.ErrorInvalidRequest, Description: description,
			})
		}
		return caddyhttp.Error(status, v.err)
	default:
		d.challenge(h, oauth.Challenge{
			Scheme: v.presented.Scheme, Error: oauth.ErrorInvalidToken, Description: v.result.description(),
		})
		return caddyhttp.Error(http.StatusUnauthorized, &refusal{v.result, v.err})
	}
}

// challenge adds the challenge to an answer. The error goes into the scheme that
// the client used; the other one is only named (RFC 9449, section 7.1).
func (d *Denylist) challenge(h http.Header, c oauth.Challenge) {
	c.Realm, c.ResourceMetadata, c.Algorithms = d.Realm, d.ResourceMetadata, strings.Join(d.DPoPAlgorithms, " ")
	h.Add("WWW-Authenticate", c.String())
	if c.Scheme != oauth.SchemeDPoP && len(d.DPoPAlgorithms) > 0 {
		c.Scheme, c.Error = oauth.SchemeDPoP, ""
		h.Add("WWW-Authenticate", c.String())
	}
}

// refusal is the error of a token that is refused. What handle_errors may show of
// it says no more than the challenge does: no address of a server, no entry, no key.
type refusal struct {
	result result
	cause  error
}

func (e *refusal) Error() string { return e.result.description() }
func (e *refusal) Unwrap() error { return e.cause }

// malformedAnswer returns what to answer if the one token of a request could not
// be read.
func malformedAnswer(err error) (status int, description string) {
	var ahead caddyhttp.HandlerError // from request_body, while a form was read
	if errors.As(err, &ahead) && ahead.StatusCode != 0 {
		return ahead.StatusCode, ""
	}
	if place, ok := errors.AsType[*oauth.PlaceError](err); ok {
		return place.Status, place.Description
	}
	return http.StatusBadRequest, ""
}

// usedScheme tells which scheme the client has most likely tried to use.
func usedScheme(r *http.Request) string {
	for _, field := range r.Header["Authorization"] {
		scheme, _, _ := strings.Cut(strings.TrimLeft(field, " \t"), " ")
		if strings.EqualFold(scheme, oauth.SchemeDPoP) {
			return oauth.SchemeDPoP
		}
	}
	return oauth.SchemeBearer
}

// fields say what was decided. None of them holds the token.
func (v *verdict) fields() []zap.Field {
	fields := []zap.Field{zap.Stringer("decision", v.result)}
	if v.presented.Token != "" {
		fields = append(fields, zap.Stringer("place", v.presented.Place))
	}
	if revoked, ok := errors.AsType[*revokedError](v.err); ok {
		return append(fields,
			zap.Uint64("entry", revoked.decision.Sequence),
			zap.Stringer("mode", revoked.decision.Mode),
			zap.String("shape", revoked.decision.Shape))
	}
	if v.err != nil {
		fields = append(fields, zap.String("reason", v.err.Error()))
	}
	return fields
}

// logRefused adds to the request's lines in the access and error log what was
// decided and by which entry. A revoked token is logged by itself as well, at most
// maxLines a second; other refusals are everyday and for Debug.
func (d *Denylist) logRefused(r *http.Request, v *verdict) {
	fields := v.fields()
	if extra, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		extra.Set(zap.Dict("token_denylist", fields...))
	}
	level := zap.DebugLevel
	if v.result == denied {
		ok, omitted := d.told.allow(time.Now())
		if ok {
			level = zap.InfoLevel
		}
		if omitted > 0 {
			fields = append(fields, zap.Int64("omitted", omitted))
		}
	}
	if check := d.logger.Check(level, "request refused"); check != nil {
		check.Write(fields...)
	}
}

// logMonitored logs a request that would have been refused.
func (d *Denylist) logMonitored(r *http.Request, v verdict) {
	ok, omitted := d.told.allow(time.Now())
	if extra, found := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); found {
		extra.Set(zap.Dict("token_denylist", append(v.fields(), zap.Bool("monitor", true))...))
	}
	if !ok {
		return
	}
	if check := d.logger.Check(zap.InfoLevel, "request would have been refused"); check != nil {
		fields := v.fields()
		if omitted > 0 {
			fields = append(fields, zap.Int64("omitted", omitted))
		}
		check.Write(fields...)
	}
}

// logLimit keeps a flood of bad requests from flooding the log.
type logLimit struct {
	second  atomic.Int64 // Unix
	lines   atomic.Int64 // within it
	omitted atomic.Int64 // since the last line
}

// maxLines is how many lines are written in a second.
const maxLines = 20

// allow tells whether a line may be written, and how many were not since the last
// one.
func (l *logLimit) allow(now time.Time) (ok bool, omitted int64) {
	if second := now.Unix(); l.second.Swap(second) != second {
		l.lines.Store(0)
	}
	if l.lines.Add(1) > maxLines {
		l.omitted.Add(1)
		return false, 0
	}
	return true, l.omitted.Swap(0)
}

// privateWriter keeps answers out of shared caches: to requests whose token was in
// the query, since such caches have the whole URL for a key (RFC 6750, section
// 2.3); and to those whose token was anywhere but in the Authorization field, as
// that field by itself would (RFC 9111, section 3.5).
type privateWriter struct {
	*caddyhttp.ResponseWriterWrapper
	inURL bool
	wrote bool
}

func (w *privateWriter) WriteHeader(status int) {
	if status >= http.StatusOK && !w.wrote {
		w.wrote = true
		w.keepPrivate()
	}
	w.ResponseWriterWrapper.WriteHeader(status)
}

func (w *privateWriter) keepPrivate() {
	h := w.Header()
	said := strings.ToLower(strings.Join(h["Cache-Control"], ","))
	says := func(directive string) bool { return strings.Contains(said, directive) }
	switch {
	case says("private"), says("no-store"):
	case w.inURL:
		h.Set("Cache-Control", "private")
	case says("public"), says("s-maxage"), says("must-revalidate"):
		// The upstream wants it shared, and would get it so with the field as well.
	default:
		h.Add("Cache-Control", "private")
	}
}

// ReadFrom is not left to the wrapper, which would write the header without us.
func (w *privateWriter) ReadFrom(r io.Reader) (int64, error) {
	if !w.wrote {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriterWrapper.ReadFrom(r)
}

func (w *privateWriter) Write(b []byte) (int, error) {
	if !w.wrote {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriterWrapper.Write(b)
}
