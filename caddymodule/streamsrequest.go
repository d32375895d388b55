package caddymodule

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/streams"
)

// answerGrace is how long a handler may take to notice that its request was
// cancelled before it answered. The client then gets 401; a handler that goes on
// all the same has its connection closed.
const answerGrace = time.Second

// liveRequest is a request that a revocation may end, and the ResponseWriter that
// its handlers see. What they do passes through as long as it is not cut.
type liveRequest struct {
	caddyhttp.ResponseWriterWrapper
	stream streams.Stream

	handler *Denylist
	token   string // part of the request, which is in memory anyway
	cancel  context.CancelCauseFunc
	// verified is what the token was identified as at first.
	verified *revocation.Identity
	conn     net.Conn // of HTTP/1, if it is known
	header   []string // the fields that were set before

	proto    uint8
	asked    bool
	finished bool // the handler's goroutine knows

	phase    atomic.Uint32
	cause    atomic.Pointer[streams.CutError]
	hijacked atomic.Pointer[net.Conn]

	mu      sync.Mutex // held while the response is aborted, so that it never is after finish
	over    bool
	aborted bool
	grace   *time.Timer
}

// Phases of a response.
const (
	waiting   uint32 = iota // nothing was answered
	answering               // a handler has begun to answer
	refusing                // cut before that: no handler may answer any more
)

// errCut is what handlers get after a cut.
var errCut = errors.New("the request was ended: its token is not valid any more")

// Cut implements [streams.Request].
func (l *liveRequest) Cut(cause *streams.CutError) bool {
	l.cause.Store(cause)
	early := l.phase.CompareAndSwap(waiting, refusing)
	l.mu.Lock()
	if early {
		// A handler that waits for the body stops.
		_ = l.controller().SetReadDeadline(longAgo)
		l.grace = time.AfterFunc(answerGrace, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.abort()
		})
	} else {
		l.abort()
	}
	l.mu.Unlock()
	// Last: what waits for it must find all that is above.
	l.cancel(cause)
	return true
}

// Identify implements [streams.Request].
func (l *liveRequest) Identify(names []string) (*revocation.Identity, error) {
	if l.asked {
		return nil, errAskAgain
	}
	return l.handler.readAgain(l.token, l.verified, names)
}

// abort ends the exchange at once, whatever the handlers do. The caller holds
// l.mu.
func (l *liveRequest) abort() {
	if l.over || l.aborted {
		return
	}
	l.aborted = true
	if c := l.hijacked.Load(); c != nil {
		abort(*c)
	}
	if l.conn != nil {
		abort(l.conn)
		return
	}
	l.stop()
}

// stop makes reading and writing fail. Under HTTP/2 it resets the stream. Under
// HTTP/3 the reset comes when the handler returns; until then it is stopped again
// and again, since Caddy's timeouts, which move with each read and write, may just
// be set anew. The caller holds l.mu.
func (l *liveRequest) stop() {
	// Not by way of Caddy's timeouts: they expect the handler's goroutine.
	_ = http.NewResponseController(innermost(l.ResponseWriter)).SetWriteDeadline(longAgo)
	_ = l.controller().SetReadDeadline(longAgo)
	if l.proto == 3 {
		l.grace = time.AfterFunc(answerGrace, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			if !l.over {
				l.stop()
			}
		})
	}
}

func innermost(w http.ResponseWriter) http.ResponseWriter {
	for {
		outer, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return w
		}
		w = outer.Unwrap()
	}
}

func (l *liveRequest) controller() *http.ResponseController {
	return http.NewResponseController(l.ResponseWriter)
}

// finish ends the registration. Nothing is done to the connection any more when
// it returns: the next request on it may be another's.
func (l *liveRequest) finish(registry *streams.Registry) {
	if l.finished {
		return
	}
	l.finished = true
	registry.Close(&l.stream)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	if l.grace != nil {
		l.grace.Stop()
	}
}

// outcome returns why the request was cut, if it was before any answer. The
// handlers are done.
func (l *liveRequest) outcome(registry *streams.Registry) *streams.CutError {
	l.finish(registry)
	cause := l.cause.Load()
	if cause == nil {
		return nil
	}
	if l.aborted || l.phase.Load() != refusing {
		// The server must not end the response as if it were complete.
		panic(http.ErrAbortHandler)
	}
	// Nothing of what a handler prepared is for this client any more.
	h := l.Header()
	for name := range h {
		if !slices.Contains(l.header, name) {
			delete(h, name)
		}
	}
	l.closeAfter()
	return cause
}

// closeAfter makes the answer the last one on its connection after a cut: what the
// client still sends is not read, and under HTTP/1 the server takes the deadline
// that was set for the end of the connection.
func (l *liveRequest) closeAfter() {
	if l.proto == 1 {
		l.Header().Set("Connection", "close")
	}
}

// begin tells whether a handler may answer.
func (l *liveRequest) begin() bool {
	return l.cause.Load() == nil && (l.phase.Load() == answering || l.phase.CompareAndSwap(waiting, answering))
}

// WriteHeader implements [http.ResponseWriter].
func (l *liveRequest) WriteHeader(status int) {
	informational := status >= 100 && status < 200 && status != http.StatusSwitchingProtocols
	if informational && l.cause.Load() == nil || !informational && l.begin() {
		l.ResponseWriter.WriteHeader(status)
	}
}

// Write implements [http.ResponseWriter].
func (l *liveRequest) Write(p []byte) (int, error) {
	if !l.begin() {
		return 0, errCut
	}
	return l.ResponseWriter.Write(p)
}

// ReadFrom implements [io.ReaderFrom].
func (l *liveRequest) ReadFrom(r io.Reader) (int64, error) {
	if !l.begin() {
		return 0, errCut
	}
	if l.conn == nil {
		// Nothing below is sure to stop within one call.
		return io.Copy(struct{ io.Writer }{l}, r)
	}
	return l.ResponseWriterWrapper.ReadFrom(r)
}

// FlushError is what [http.ResponseController] calls.
func (l *liveRequest) FlushError() error {
	if !l.begin() {
		return errCut
	}
	return l.controller().Flush()
}

// Flush implements [http.Flusher].
func (l *liveRequest) Flush() { _ = l.FlushError() }

// Hijack implements [http.Hijacker]. The connection is kept in mind: net/http does
// not care for it any more.
func (l *liveRequest) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if !l.begin() {
		return nil, nil, errCut
	}
	c, rw, err := l.controller().Hijack()
	if err != nil {
		return nil, nil, err
	}
	l.hijacked.Store(&c)
	if l.cause.Load() != nil { // it came before it could find the connection
		abort(c)
		return nil, nil, errCut
	}
	return c, rw, nil
}

// SetReadDeadline is what [http.ResponseController] calls. A cut stays one.
func (l *liveRequest) SetReadDeadline(t time.Time) error {
	if l.cause.Load() != nil {
		return errCut
	}
	return l.controller().SetReadDeadline(t)
}

// SetWriteDeadline is what [http.ResponseController] calls. A cut stays one.
func (l *liveRequest) SetWriteDeadline(t time.Time) error {
	if l.cause.Load() != nil {
		return errCut
	}
	return l.controller().SetWriteDeadline(t)
}

// liveBody is the body of a request that may be cut.
type liveBody struct {
	io.ReadCloser
	live *liveRequest
}

// Read implements [io.Reader].
func (b *liveBody) Read(p []byte) (int, error) {
	if b.live.cause.Load() != nil {
		return 0, errCut
	}
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && b.live.cause.Load() != nil {
		err = errCut
	}
	return n, err
}

// Interface guards
var (
	_ streams.Request     = (*liveRequest)(nil)
	_ http.ResponseWriter = (*liveRequest)(nil)
	_ http.Flusher        = (*liveRequest)(nil)
	_ http.Hijacker       = (*liveRequest)(nil)
	_ http.Pusher         = (*liveRequest)(nil)
	_ io.ReaderFrom       = (*liveRequest)(nil)
)
