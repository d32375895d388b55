package oauth

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// ServePassing has next answer a request for metadata, and puts our endpoints
// into the document on its way out. Everything else passes as it is: other
// methods, other statuses than 200, and what is no JSON, larger than
// [MaxPatchedMetadata], encoded although nobody asked for it, or the document of
// an issuer that is not known. These documents are logged, at most once a minute.
//
// A patched document has an entity tag of its own, which If-None-Match is
// compared with; what next said of its document (its tag, date and digests) is
// left out. Next always sees a request for all of the document, in no coding and
// without conditions, so that it never answers about a copy that was not patched.
func (p *MetadataPatch) ServePassing(w http.ResponseWriter, r *http.Request, next func(http.ResponseWriter, *http.Request) error) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead || r.Header.Get("Upgrade") != "" {
		return next(w, r)
	}
	whole := r.Clone(r.Context())
	whole.Method = http.MethodGet // a HEAD tells nothing of the document's length
	for _, name := range []string{
		"If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since", "If-Range", "Range",
	} {
		whole.Header.Del(name)
	}
	whole.Header.Set("Accept-Encoding", "identity")
	document := &passingDocument{ResponseWriter: w}
	if err := next(document, whole); err != nil {
		return err
	}
	if document.status == 0 { // it passed, or there was no answer at all
		if document.why != nil {
			p.leftAlone(r, document.why)
		}
		return nil
	}
	patched, err := p.Apply(document.body)
	if err != nil {
		p.leftAlone(r, err)
		_ = document.release() // to a client that is gone, if it fails
		return nil
	}
	writePatched(w, r, patched)
	return nil
}

// leftAlone says that clients are sent past our endpoints. Anybody can ask for
// metadata, so that it is not said each time.
func (p *MetadataPatch) leftAlone(r *http.Request, err error) {
	const every = int64(time.Minute)
	level := slog.LevelDebug
	now := time.Now().UnixNano()
	if last := p.logged.Load(); now-last > every && p.logged.CompareAndSwap(last, now) {
		level = slog.LevelWarn
	}
	p.options.Logger.LogAttrs(r.Context(), level, "metadata passed on as it is", slog.Any("reason", err))
}

// describing are header fields that describe the document as it was before:
// RFC 9110, sections 8.8 and 14.3; RFC 3230; RFC 9530; RFC 9421.
var describing = []string{
	"Content-Length", "Etag", "Last-Modified", "Accept-Ranges", "Content-Md5", "Digest", "Content-Digest", "Repr-Digest",
	"Signature", "Signature-Input", "Trailer",
}

// writePatched answers r with a patched document.
func writePatched(w http.ResponseWriter, r *http.Request, document []byte) {
	h := w.Header()
	for _, name := range describing {
		h.Del(name)
	}
	for name := range h {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			delete(h, name)
		}
	}
	sum := sha256.Sum256(document)
	tag := `"` + base64.RawURLEncoding.EncodeToString(sum[:18]) + `"`
	h.Set("ETag", tag)
	if matchesTag(r.Header["If-None-Match"], tag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Length", strconv.Itoa(len(document)))
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = w.Write(document)
	}
}

// matchesTag compares weakly, as If-None-Match does (RFC 9110, section 13.1.2).
func matchesTag(fields []string, tag string) bool {
	for _, field := range fields {
		for candidate := range strings.SplitSeq(field, ",") {
			candidate = strings.TrimPrefix(trimSpace(candidate), "W/")
			if candidate == tag || candidate == "*" {
				return true
			}
		}
	}
	return false
}

// passingDocument keeps an answer that may be a metadata document, and lets all
// others pass.
type passingDocument struct {
	http.ResponseWriter

	decided bool  // whether to keep the answer
	why     error // a document was not kept
	status  int   // of what is kept; zero if nothing is
	body    []byte
}

// WriteHeader implements http.ResponseWriter.
func (d *passingDocument) WriteHeader(status int) {
	if !d.decided && status >= http.StatusOK {
		d.decided = true
		if status == http.StatusOK {
			if d.why = notMetadata(d.Header()); d.why == nil {
				d.status = status
			}
		}
	}
	if d.status == 0 {
		d.ResponseWriter.WriteHeader(status)
	}
}

// Write implements http.ResponseWriter.
func (d *passingDocument) Write(b []byte) (int, error) {
	if !d.decided {
		d.WriteHeader(http.StatusOK)
	}
	if d.status == 0 {
		return d.ResponseWriter.Write(b)
	}
	if len(d.body)+len(b) > MaxPatchedMetadata {
		d.why = errLargeMetadata
		if err := d.release(); err != nil {
			return 0, err
		}
		return d.ResponseWriter.Write(b)
	}
	d.body = append(d.body, b...)
	return len(b), nil
}

// release lets what was kept pass after all.
func (d *passingDocument) release() error {
	d.ResponseWriter.WriteHeader(d.status)
	body := d.body
	d.status, d.body = 0, nil
	_, err := d.ResponseWriter.Write(body)
	return err
}

// FlushError implements what http.ResponseController asks for: there is nothing
// to flush while the answer is kept.
func (d *passingDocument) FlushError() error {
	if !d.decided {
		d.WriteHeader(http.StatusOK)
	}
	if d.status != 0 {
		return nil
	}
	err := http.NewResponseController(d.ResponseWriter).Flush()
	if errors.Is(err, http.ErrNotSupported) {
		return nil
	}
	return err
}

// Unwrap is for http.ResponseController.
func (d *passingDocument) Unwrap() http.ResponseWriter { return d.ResponseWriter }

// Why a document is not even read.
var (
	errNotJSON       = errors.New("its content type is not JSON")
	errEncoded       = errors.New("it has a content coding, although none was asked for")
	errLargeMetadata = fmt.Errorf("it is larger than %d bytes", MaxPatchedMetadata)
)

// notMetadata returns why an answer with these fields can't be a document that is
// patched, or nil.
func notMetadata(h http.Header) error {
	mediaType, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) ||
		mediaType != "application/json" && !strings.HasSuffix(mediaType, "+json") {
		return errNotJSON
	}
	for _, coding := range h["Content-Encoding"] {
		if c := trimSpace(coding); c != "" && !strings.EqualFold(c, "identity") {
			return errEncoded
		}
	}
	if length, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64); err == nil && length > MaxPatchedMetadata {
		return errLargeMetadata
	}
	return nil
}
