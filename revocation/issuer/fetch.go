package issuer

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Bounds of a fetch.
const (
	fetchTimeout = 10 * time.Second // of one request, body included
	maxDocument  = 1 << 20          // bytes of metadata or of a key set
)

// newClient returns a client for keys and metadata: the given one, or one of our
// own, but never following redirects. A redirect would take the answer from a
// host that neither the operator nor the issuer named.
func newClient(given *http.Client) *http.Client {
	c := &http.Client{}
	if given != nil {
		*c = *given
	} else {
		c.Transport = &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			TLSHandshakeTimeout:   5 * time.Second,
			ResponseHeaderTimeout: fetchTimeout,
			TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:     true,
			MaxIdleConnsPerHost:   1,
			IdleConnTimeout:       30 * time.Second,
		}
	}
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if c.Timeout == 0 {
		c.Timeout = fetchTimeout
	}
	return c
}

// get fetches a document, with fresh past caches that comply. maxAge is the
// Cache-Control max-age of the answer, negative if it has none.
func get(ctx context.Context, client *http.Client, u *url.URL, fresh bool) (body []byte, maxAge time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("Accept", "application/json, application/jwk-set+json;q=0.9")
	if fresh {
		req.Header.Set("Cache-Control", "no-cache")
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		if resp.StatusCode/100 == 3 {
			return nil, 0, fmt.Errorf("getting %s: it redirects to %q; configure the final address", u, resp.Header.Get("Location"))
		}
		return nil, 0, fmt.Errorf("getting %s: status %d", u, resp.StatusCode)
	}
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
	if err != nil {
		return nil, 0, fmt.Errorf("getting %s: %w", u, err)
	}
	if len(body) > maxDocument {
		return nil, 0, fmt.Errorf("getting %s: the answer is longer than %d bytes", u, maxDocument)
	}
	return body, cacheMaxAge(resp.Header), nil
}

// cacheMaxAge returns how long the answer may be cached, or a negative value if
// it does not say.
func cacheMaxAge(h http.Header) time.Duration {
	for directive := range strings.SplitSeq(strings.Join(h.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		switch {
		case strings.EqualFold(name, "no-store"), strings.EqualFold(name, "no-cache"):
			return 0
		case strings.EqualFold(name, "max-age"):
			seconds, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31)
			if err == nil {
				return time.Duration(seconds) * time.Second
			}
		}
	}
	return -1
}
