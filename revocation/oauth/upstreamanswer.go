package oauth

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/klauspost/compress/zstd"
)

// maxAnswer is how much of an authorization server's answer is looked at, in
// bytes. A revocation's answer is empty or nearly so.
const maxAnswer = 1 << 20

// maxWords is how long a text can be and still say no more than that it is done.
const maxWords = 256

// verdict is what a 200 of an authorization server is worth.
type verdict uint8

const (
	verdictAccepted verdict = iota
	verdictError            // it is an error all the same
	verdictUnclear          // it is no answer to a revocation
)

// judge reads the body of a 200. RFC 7009, section 2.2, gives it no meaning, but
// some servers report an error with it, and some answer every address with a page:
// then nothing says that the client was authenticated and the token revoked.
func judge(h http.Header, body []byte) verdict {
	body, err := decodeBody(h["Content-Encoding"], body)
	if err != nil {
		return verdictUnclear
	}
	body = bytes.TrimSpace(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")))
	switch {
	case len(body) == 0:
		return verdictAccepted
	case body[0] == '{':
		return judgeObject(body)
	case json.Valid(body) && (body[0] == '[' || string(body) == "false"):
		return verdictUnclear
	case body[0] == '<', len(body) > maxWords, !utf8.Valid(body), bytes.ContainsAny(body, "\x00"):
		return verdictUnclear
	case strings.Contains(strings.ToLower(string(body)), "error"):
		return verdictError // a form, as some servers write errors
	default:
		return verdictAccepted // "OK"
	}
}

// judgeObject looks for an error at the top of a JSON object, in any spelling of
// its case and in every member of that name. One that is null, false or empty says
// that there is none.
func judgeObject(body []byte) verdict {
	d := json.NewDecoder(bytes.NewReader(body))
	if _, err := d.Token(); err != nil { // the brace
		return verdictUnclear
	}
	v := verdictAccepted
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return verdictUnclear
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return verdictUnclear
		}
		if text, _ := name.(string); strings.EqualFold(text, "error") {
			switch string(value) {
			case "null", "false", `""`:
			default:
				v = verdictError
			}
		}
	}
	if _, err := d.Token(); err != nil {
		return verdictUnclear
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return verdictUnclear
	}
	return v
}

var errCoding = errors.New("the content coding can't be read")

// decodeBody undoes the content codings, the last one first (RFC 9110, section
// 8.4). Nothing is decoded beyond maxAnswer.
func decodeBody(fields []string, body []byte) ([]byte, error) {
	if len(body) == 0 {
		return body, nil
	}
	var codings []string
	for _, field := range fields {
		for coding := range strings.SplitSeq(field, ",") {
			if c := strings.ToLower(trimSpace(coding)); c != "" && c != "identity" {
				codings = append(codings, c)
			}
		}
	}
	if len(codings) > 3 {
		return nil, errCoding
	}
	for _, coding := range slices.Backward(codings) {
		var err error
		if body, err = decodeOnce(coding, body); err != nil {
			return nil, err
		}
	}
	return body, nil
}

func decodeOnce(coding string, body []byte) ([]byte, error) {
	var r io.Reader
	var err error
	switch coding {
	case "gzip", "x-gzip":
		r, err = gzip.NewReader(bytes.NewReader(body))
	case "deflate":
		r, err = zlib.NewReader(bytes.NewReader(body))
	case "zstd":
		var z *zstd.Decoder
		z, err = zstd.NewReader(bytes.NewReader(body), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(8<<20))
		if err == nil {
			defer z.Close()
		}
		r = z
	default:
		return nil, errCoding
	}
	if err != nil {
		return nil, errCoding
	}
	decoded, err := io.ReadAll(io.LimitReader(r, maxAnswer+1))
	if err != nil || len(decoded) > maxAnswer {
		return nil, errCoding
	}
	return decoded, nil
}
