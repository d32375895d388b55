package caddymodule

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddyserver/caddy/v2"

	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
)

// endpointStatsPool keeps the endpoints' counters over config reloads, as pool.go
// does with what else outlives a config.
var endpointStatsPool = caddy.NewUsagePool()

const endpointStatsKey = "endpoint"

// endpointStats are what the endpoints of this process count together.
type endpointStats struct {
	plainHTTP prometheus.Counter
	seconds   *prometheus.HistogramVec
}

func takeEndpointStats() (*endpointStats, error) {
	value, _, err := endpointStatsPool.LoadOrNew(endpointStatsKey, func() (caddy.Destructor, error) {
		return &endpointStats{
			plainHTTP: prometheus.NewCounter(prometheus.CounterOpts{
				Name: metricsPrefix + "endpoint_plain_http_requests_total",
				Help: "Requests to the revocation endpoint that were not protected by TLS, served or refused.",
			}),
			seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
				Name:    metricsPrefix + "endpoint_seconds",
				Help:    "Time that requests to the revocation endpoint spent on each of its parts, as far as they came there.",
				Buckets: []float64{1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 2e-3, 5e-3, .01, .02, .05, .1, .5, 1, 5, 10},
			}, []string{"part"}),
		}, nil
	})
	if err != nil {
		return nil, err
	}
	return value.(*endpointStats), nil
}

func releaseEndpointStats() error {
	_, err := endpointStatsPool.Delete(endpointStatsKey)
	return err
}

// Destruct has nothing to stop.
func (*endpointStats) Destruct() error { return nil }

// register adds the collectors to a config's registry.
func (s *endpointStats) register(registry *prometheus.Registry) error {
	for _, c := range []prometheus.Collector{s.plainHTTP, s.seconds} {
		err := registry.Register(c)
		var already prometheus.AlreadyRegisteredError
		if err != nil && !errors.As(err, &already) {
			return err
		}
	}
	return nil
}

func (s *endpointStats) observe(o *oauth.Outcome) {
	if o.PlainHTTP {
		s.plainHTTP.Inc()
	}
	for _, p := range []struct {
		part string
		took time.Duration
	}{
		{"client", o.Latency.Client}, {"token", o.Latency.Token}, {"policy", o.Latency.Policy},
		{"ledger", o.Latency.Ledger}, {"apply", o.Latency.Apply},
	} {
		if p.took > 0 {
			s.seconds.WithLabelValues(p.part).Observe(p.took.Seconds())
		}
	}
}
