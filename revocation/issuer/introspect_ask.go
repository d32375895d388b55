package issuer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	plainAnswer   = "application/json"
	signedAnswer  = "application/" + signedAnswerType
	maxAnswer     = 64 << 10 // bytes
	maxDiscarded  = 4 << 10  // bytes of an answer that is not looked at
	maxIdleAnswer = 30 * time.Second
)

// newIntrospectionClient returns a client that follows no redirects, keeps no
// cookies and leaves the timeout to the context; own is its transport if none
// was given.
func newIntrospectionClient(given *http.Client, connections int) (c *http.Client, own *http.Transport) {
	c = &http.Client{}
	if given != nil {
		*c = *given
	} else {
		own = &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: fetchTimeout}).DialContext,
			TLSHandshakeTimeout:    fetchTimeout,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:      true,
			MaxIdleConnsPerHost:    connections,
			IdleConnTimeout:        maxIdleAnswer,
			MaxResponseHeaderBytes: maxAnswer,
			DisableCompression:     true,
		}
		c.Transport = own
	}
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c.Jar, c.Timeout = nil, 0
	return c, own
}

// ask sends one question (RFC 7662, section 2.1) and returns the body of an
// answer that has the right status and type. The error wraps
// [ErrIntrospectionUnavailable], and holds nothing that the server sent: it
// could quote the token.
func (n *Introspector) ask(ctx context.Context, token, hint string) ([]byte, outcome, error) {
	endpoint, err := n.endpoint.get(ctx)
	if err != nil {
		return nil, failed(ctx), noExchange(ctx, unavailable("%v", err))
	}
	req, err := n.newQuestion(ctx, endpoint, token, hint)
	if err != nil {
		return nil, outcomeVoid, unavailable("making the question: %v", err)
	}
	resp, err := n.client.Do(req)
	if err != nil {
		return nil, failed(ctx), noExchange(ctx, unavailable("%s", n.transportReason(ctx, err)))
	}
	defer func() { _ = resp.Body.Close() }()
	if o, err := checkStatus(resp.StatusCode); err != nil {
		_, _ = io.CopyN(io.Discard, resp.Body, maxDiscarded) // keeps the connection
		return nil, o, err
	}
	if err := n.checkContentType(resp.Header); err != nil {
		return nil, outcomeFailed, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, failed(ctx), noExchange(ctx, unavailable("reading the answer: %s", n.transportReason(ctx, err)))
	case len(body) > maxAnswer:
		// The claims of one token can be that long: no fault of the server's.
		return nil, outcomeAnswered, unavailable("the answer is longer than %d bytes", maxAnswer)
	}
	return body, outcomeAnswered, nil
}

// failed is the outcome of a question that got no answer: nobody's fault if it
// was taken back.
func failed(ctx context.Context) outcome {
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return outcomeVoid
	}
	return outcomeFailed
}

// newQuestion makes the request. Token and hint are in the body only: addresses
// are logged everywhere.
func (n *Introspector) newQuestion(ctx context.Context, endpoint *url.URL, token, hint string) (*http.Request, error) {
	form := url.Values{"token": {token}}
	if hint != "" {
		form.Set("token_type_hint", hint)
	}
	header := http.Header{
		"Accept":       {plainAnswer},
		"Content-Type": {"application/x-www-form-urlencoded"},
		// Not sent, since it has no value. It tells the transport that a
		// question changes nothing, so that it asks again over a new connection
		// if the server has just closed the old, idle one.
		"Idempotency-Key": nil,
	}
	if n.config.SignedResponse {
		header.Set("Accept", signedAnswer)
	}
	if err := n.auth(header, form); err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint.String(), strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header = header
	return req, nil
}

// aboutTheQuestion are the statuses that may be due to the token, which anybody
// can choose: its characters, or its length, which edges accept up to 16 KiB, and
// servers not always. They say nothing of what becomes of other tokens.
var aboutTheQuestion = []int{
	http.StatusBadRequest,
	http.StatusRequestEntityTooLarge,
	http.StatusRequestURITooLong,
	http.StatusUnprocessableEntity,
	http.StatusRequestHeaderFieldsTooLarge,
}

// checkStatus lets 200 through, and nothing else. Neither an error nor a
// redirect says anything of the token.
func checkStatus(status int) (outcome, error) {
	switch {
	case status == http.StatusOK:
		return outcomeAnswered, nil
	case slices.Contains(aboutTheQuestion, status):
		return outcomeAnswered, unavailable("the authorization server does not accept the question (status %d)", status)
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return outcomeFailed, unavailable("the authorization server refuses our credentials (status %d)", status)
	case status/100 == 3:
		return outcomeFailed, unavailable("the endpoint redirects (status %d): configure the final address", status)
	case status/100 == 5:
		return outcomeFailed, unreachableError{unavailable("the endpoint answers with status %d", status)}
	default:
		return outcomeFailed, unavailable("the endpoint answers with status %d", status)
	}
}

// checkContentType makes sure that the answer is what was asked for. A plain
// answer where a signed one is required could have been written by anybody.
func (n *Introspector) checkContentType(h http.Header) error {
	want := plainAnswer
	if n.config.SignedResponse {
		want = signedAnswer
	}
	values := h.Values("Content-Type")
	if len(values) != 1 {
		return unavailable("the answer has %d content types, want %s", len(values), want)
	}
	mediaType, params, err := mime.ParseMediaType(values[0])
	switch {
	case err != nil, mediaType != want:
		return unavailable("the content type of the answer is not %s", want)
	case params["charset"] != "" && !strings.EqualFold(params["charset"], "utf-8"):
		return unavailable("the answer is not in UTF-8")
	}
	return nil
}

// transportReason says why there was no answer, and quotes nothing that came
// from the server: net/http puts lines that it can't read into its errors.
func (n *Introspector) transportReason(ctx context.Context, err error) string {
	if cause := context.Cause(ctx); errors.Is(cause, context.DeadlineExceeded) {
		return fmt.Sprintf("no answer within %s", n.config.Timeout)
	} else if cause != nil {
		return cause.Error()
	}
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	var op *net.OpError
	var dns *net.DNSError
	var certificate *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	for _, plain := range []error{io.EOF, io.ErrUnexpectedEOF, http.ErrSchemeMismatch, net.ErrClosed} {
		if errors.Is(err, plain) {
			return plain.Error()
		}
	}
	switch {
	case errors.As(err, &op):
		return op.Error()
	case errors.As(err, &dns):
		return dns.Error()
	case errors.As(err, &certificate):
		return certificate.Error()
	case errors.As(err, &authority):
		return authority.Error()
	case errors.As(err, &host):
		return host.Error()
	case errors.As(err, &record):
		return record.Error()
	case errors.As(err, &alert):
		return alert.Error()
	default:
		return fmt.Sprintf("the exchange failed, perhaps because the server does not speak HTTP (%T)", err)
	}
}
