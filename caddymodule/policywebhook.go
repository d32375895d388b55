package caddymodule

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
)

func init() {
	caddy.RegisterModule(WebhookPolicy{})
}

// WebhookPolicy is a policy that asks a service: it posts what is known of the
// client, the verified token and the request as JSON (never the token itself),
// and takes the decision from the answer, which has to be 200 with
//
//	{"decision": "allow"}
//
// or deny (the client is told 403) or skip (200, and nothing is revoked), beside
// which there may be a "reason" for the log. Anything else is a failure: another
// status, a redirect, another content type, another member, more than 4 KiB, no
// answer in time. The client is then answered with 503, and the token lives.
type WebhookPolicy struct {
	// The address. Plain HTTP is accepted for this machine only, unless
	// allow_http is set.
	URL string `json:"url,omitempty"`

	// How long the answer may take, connecting included; at most 9s. Default: 2s.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// Fields of the request, for the service to know who asks. The values may
	// be placeholders: {env.NAME}, {file.<path>}.
	Headers map[string]string `json:"headers,omitempty"`

	// A file with the certificates (PEM) of the authorities that the service's
	// certificate may come from. Default: those that the system trusts.
	TLSCA string `json:"tls_ca,omitempty"`

	// Ask over plain HTTP beyond this machine. Whoever can change the answer
	// decides, and whoever can read along learns who logs out when.
	AllowHTTP bool `json:"allow_http,omitempty"`

	url     string
	headers http.Header
	client  *http.Client
}

const (
	defaultWebhookTimeout = caddy.Duration(2 * time.Second)
	maxWebhookAnswer      = 4 << 10 // bytes
)

// CaddyModule returns the Caddy module information.
func (WebhookPolicy) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  policyNamespace + ".webhook",
		New: func() caddy.Module { return new(WebhookPolicy) },
	}
}

// Provision resolves placeholders and checks the address. It makes no connection.
func (p *WebhookPolicy) Provision(caddy.Context) error {
	if p.Timeout == 0 {
		p.Timeout = defaultWebhookTimeout
	}
	if p.Timeout < 0 || p.Timeout > policyTimeout {
		return fmt.Errorf("webhook: the timeout is not between 0 and %s, within which a request has to be answered", time.Duration(policyTimeout))
	}
	repl := caddy.NewReplacer()
	p.url = p.URL
	if err := replaceAll(repl, &p.url); err != nil {
		return fmt.Errorf("webhook: %w", err)
	}
	if err := checkWebhookURL(p.url, p.AllowHTTP); err != nil {
		return err
	}
	p.headers = http.Header{"Content-Type": {"application/json"}, "Accept": {"application/json"}}
	for name, value := range p.Headers {
		if err := replaceAll(repl, &value); err != nil {
			return fmt.Errorf("webhook: header %s: %w", name, err)
		}
		p.headers.Set(name, value)
	}
	roots, err := p.roots()
	if err != nil {
		return err
	}
	p.client = &http.Client{
		Transport: &http.Transport{
			// No proxy from the environment: the facts go to the service only.
			DialContext:         (&net.Dialer{Timeout: time.Duration(p.Timeout)}).DialContext,
			TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
			ForceAttemptHTTP2:   true,
			MaxIdleConnsPerHost: 16,
			IdleConnTimeout:     time.Minute,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return nil
}

func (p *WebhookPolicy) roots() (*x509.CertPool, error) {
	if p.TLSCA == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(p.TLSCA)
	if err != nil {
		return nil, fmt.Errorf("webhook: tls_ca: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("webhook: tls_ca: %s has no certificate in it", p.TLSCA)
	}
	return roots, nil
}

// checkWebhookURL reports what is wrong with an address, without its query, in
// which there may be a secret.
func checkWebhookURL(text string, allowHTTP bool) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return errors.New("webhook: the address is not of the form https://host/path")
	case u.User != nil:
		return errors.New("webhook: the address has a password in it: send it in a header, from a placeholder")
	case u.Scheme == "http" && !allowHTTP && !isLoopback(u.Hostname()):
		return fmt.Errorf("webhook: http://%s is another machine: use https, or allow_http in a closed network", u.Host)
	}
	return nil
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.Unmap().IsLoopback()
}

// Cleanup closes connections that are not in use.
func (p *WebhookPolicy) Cleanup() error {
	if p.client != nil {
		p.client.CloseIdleConnections()
	}
	return nil
}

// Decide implements oauth.Policy.
func (p *WebhookPolicy) Decide(ctx context.Context, f *oauth.Facts) (oauth.PolicyDecision, error) {
	none := oauth.PolicyDecision{}
	body, err := json.Marshal(f)
	if err != nil {
		return none, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(p.Timeout))
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(body))
	if err != nil {
		return none, errors.New("making the request to the webhook")
	}
	request.Header = p.headers.Clone()
	response, err := p.client.Do(request)
	if err != nil {
		// Without the address, whose query may have a secret.
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err
		}
		return none, fmt.Errorf("asking the webhook: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return none, fmt.Errorf("the webhook answered with the status %d", response.StatusCode)
	}
	if mediaType, _, err := mime.ParseMediaType(response.Header.Get("Content-Type")); err != nil || mediaType != "application/json" {
		return none, errors.New("the webhook's answer is not application/json")
	}
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxWebhookAnswer+1))
	if err != nil {
		return none, fmt.Errorf("reading the webhook's answer: %w", err)
	}
	return parseWebhookAnswer(answer)
}

// parseWebhookAnswer takes exactly the answers that are documented. What two
// readers could understand differently is none of them.
func parseWebhookAnswer(answer []byte) (oauth.PolicyDecision, error) {
	none := oauth.PolicyDecision{}
	if len(answer) > maxWebhookAnswer {
		return none, fmt.Errorf("the webhook's answer is longer than %d bytes", maxWebhookAnswer)
	}
	members, err := readTexts(answer)
	if err != nil {
		return none, err
	}
	d := oauth.PolicyDecision{Reason: members["reason"]}
	switch members["decision"] {
	case "allow":
		d.Verdict = oauth.Allow
	case "deny":
		d.Verdict = oauth.Deny
	case "skip":
		d.Verdict = oauth.Skip
	default:
		return none, errors.New("the webhook's decision is none of allow, deny and skip")
	}
	delete(members, "decision")
	delete(members, "reason")
	if len(members) > 0 {
		return none, errors.New("the webhook's answer has members besides decision and reason")
	}
	return d, nil
}

var errTexts = errors.New("the webhook's answer is not one JSON object of texts, each once")

// readTexts reads a JSON object whose members are all texts. Unlike
// encoding/json's structs it refuses repeated names, and tells letter cases apart.
func readTexts(text []byte) (map[string]string, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errTexts
	}
	members := make(map[string]string)
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, errTexts
		}
		value, err := d.Token()
		if err != nil {
			return nil, errTexts
		}
		key, isText := name.(string)
		content, isText2 := value.(string)
		if _, twice := members[key]; !isText || !isText2 || twice {
			return nil, errTexts
		}
		members[key] = content
	}
	if _, err := d.Token(); err != nil { // the closing brace
		return nil, errTexts
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errTexts
	}
	return members, nil
}

// UnmarshalCaddyfile parses the policy. Syntax:
//
//	webhook <url> {
//		timeout <duration>
//		header  <name> <value>
//		tls_ca  <file>
//		allow_http
//	}
func (p *WebhookPolicy) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the policy's name
	if !d.AllArgs(&p.URL) {
		return d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch d.Val() {
		case "timeout":
			err = durationOption(d, &p.Timeout)
		case "header":
			err = p.unmarshalHeader(d)
		case "tls_ca":
			err = stringOption(d, &p.TLSCA)
		case "allow_http":
			err = flagOption(d, &p.AllowHTTP)
		default:
			err = unknownOption(d, "timeout, header, tls_ca, allow_http")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *WebhookPolicy) unmarshalHeader(d *caddyfile.Dispenser) error {
	var name, value string
	if !d.AllArgs(&name, &value) {
		return d.ArgErr()
	}
	if _, twice := p.Headers[name]; twice {
		return d.Errf("header %s is given twice: keep one of them", name)
	}
	if p.Headers == nil {
		p.Headers = make(map[string]string)
	}
	p.Headers[name] = value
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner     = (*WebhookPolicy)(nil)
	_ caddy.CleanerUpper    = (*WebhookPolicy)(nil)
	_ caddyfile.Unmarshaler = (*WebhookPolicy)(nil)
	_ oauth.Policy          = (*WebhookPolicy)(nil)
)
