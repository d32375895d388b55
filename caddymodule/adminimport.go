package caddymodule

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

const (
	importBatch    = 4096 // lines
	importFailures = 1000 // told one by one
	// importPause bounds how long the sender of an import may be silent. Caddy's
	// admin endpoint allows ten seconds for a whole request.
	importPause = time.Minute
)

// importAnswer is the body of the answer to POST /token_revocation/import.
// Counted is all that was read: a line is either recorded, stood already, or
// failed.
type importAnswer struct {
	// Lines is how many lines were dealt with, empty ones included.
	Lines    int `json:"lines"`
	Recorded int `json:"recorded"`
	// Stood: nothing needed to be added for these.
	Stood  int `json:"stood"`
	Failed int `json:"failed"`
	// Failures are the first of them.
	Failures []importFailure `json:"failures,omitempty"`
	// Stopped says why the rest was not read: the ledger takes nothing at the
	// moment. What was counted as recorded is; import the same again later.
	Stopped string `json:"stopped,omitempty"`
}

type importFailure struct {
	Line  int    `json:"line"`
	Error string `json:"error"`
}

// adminImport takes one revocation a line, each a JSON object as POST
// /token_revocation/revocations takes it, and records many in one entry of the
// ledger. It reads and answers in bounded memory, however long the import is. The
// status is 200 if every line is durable and in force on this edge, 422 if some
// lines failed, 503 if it stopped before the end.
func (a *App) adminImport(w http.ResponseWriter, r *http.Request) error {
	begin := time.Now()
	i := importer{app: a, request: r, control: http.NewResponseController(w)}
	err := i.run()
	a.logger.Info("token revocations imported by operator", zap.Int("lines", i.answer.Lines),
		zap.Int("recorded", i.answer.Recorded), zap.Int("stood", i.answer.Stood), zap.Int("failed", i.answer.Failed),
		zap.String("stopped", i.answer.Stopped), zap.Duration("took", time.Since(begin)), zap.Error(err))
	switch {
	case err != nil:
		return apiError(http.StatusBadRequest, fmt.Errorf("reading line %d: %w; up to there, %d lines are recorded: import the same again", i.answer.Lines+1, err, i.answer.Recorded+i.answer.Stood))
	case i.answer.Stopped != "":
		return writeJSONStatus(w, http.StatusServiceUnavailable, i.answer)
	case i.answer.Failed > 0:
		return writeJSONStatus(w, http.StatusUnprocessableEntity, i.answer)
	default:
		return writeJSON(w, i.answer)
	}
}

type importer struct {
	app     *App
	request *http.Request
	control *http.ResponseController
	answer  importAnswer

	extended time.Time

	pending []revocation.Request
	lines   []int // of pending
}

// run reads lines to the end. Its error is one of reading.
func (i *importer) run() error {
	in := bufio.NewReaderSize(i.request.Body, maxAdminBody)
	for i.answer.Stopped == "" {
		if err := i.extend(); err != nil {
			return err
		}
		line, err := readLine(in)
		if errors.Is(err, io.EOF) && len(line) == 0 {
			break
		}
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, errLongLine) {
			i.flush() // what is complete counts
			return err
		}
		i.answer.Lines++
		switch {
		case errors.Is(err, errLongLine):
			i.fail(i.answer.Lines, err)
		case len(bytes.TrimSpace(line)) > 0:
			i.take(line)
		}
		if len(i.pending) == importBatch {
			i.flush()
		}
	}
	i.flush()
	return nil
}

// extend gives the sender more time, every now and then.
func (i *importer) extend() error {
	now := time.Now()
	if now.Sub(i.extended) < importPause/4 {
		return nil
	}
	i.extended = now
	err := i.control.SetReadDeadline(now.Add(importPause))
	if errors.Is(err, http.ErrNotSupported) {
		return nil // a writer that has no deadline
	}
	return err
}

var errLongLine = fmt.Errorf("the line is longer than %d bytes", maxAdminBody)

// readLine returns the next line without its end. A line that is too long is
// passed and reported. What it returns is good until the next call.
func readLine(in *bufio.Reader) ([]byte, error) {
	line, err := in.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		return bytes.TrimSuffix(line, []byte{'\n'}), err
	}
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = in.ReadSlice('\n')
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return nil, errLongLine
}

// setEnd takes over when the revocation ends, if the body says so. Only then is the
// same body the same revocation when it is sent again.
func (b *revocationRequest) setEnd(request *revocation.Request) error {
	request.Expires = b.Expires
	switch {
	case b.Exp == 0:
		return nil
	case b.Exp < 0:
		return apiError(http.StatusBadRequest, errors.New("exp is not a time in Unix seconds"))
	case b.Token != "":
		return apiError(http.StatusBadRequest, errors.New("the token has an exp of its own: leave exp out"))
	case !request.Criteria.NamesOneToken():
		return apiError(http.StatusBadRequest, errors.New("exp is for claims that name one token: give expires, when the revocation ends"))
	}
	request.TokenExpiry = b.Exp
	return nil
}

// take understands one line.
func (i *importer) take(line []byte) {
	var body revocationRequest
	if err := decodeJSON(line, &body); err != nil {
		i.fail(i.answer.Lines, err)
		return
	}
	request, _, err := i.app.revocationRequest(i.request, body)
	if err != nil {
		i.fail(i.answer.Lines, err)
		return
	}
	i.pending = append(i.pending, request)
	i.lines = append(i.lines, i.answer.Lines)
}

// flush records what is pending.
func (i *importer) flush() {
	for n, result := range i.app.service.Import(i.request.Context(), i.pending) {
		switch err := result.Err; {
		case err == nil && result.Receipt.Stood:
			i.answer.Stood++
		case err == nil:
			i.answer.Recorded++
		default:
			i.fail(i.lines[n], err)
			// The rest would wait in vain, each batch of it for as long.
			if errors.Is(err, revocation.ErrUnavailable) || errors.Is(err, revocation.ErrFull) {
				i.answer.Stopped = err.Error()
			}
		}
	}
	i.pending, i.lines = i.pending[:0], i.lines[:0]
}

func (i *importer) fail(line int, err error) {
	i.answer.Failed++
	if len(i.answer.Failures) < importFailures {
		i.answer.Failures = append(i.answer.Failures, importFailure{Line: line, Error: err.Error()})
	}
}
