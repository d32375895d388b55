package caddymodule

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddyserver/caddy/v2"

	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
)

// introspectionStatsPool keeps the counters of token_introspection over config
// reloads.
var introspectionStatsPool = caddy.NewUsagePool()

const introspectionStatsKey = "introspection"

// introspectionStats are what the introspection endpoints of this process count
// together.
type introspectionStats struct {
	requests   *prometheus.CounterVec
	failedOpen prometheus.Counter
}

func takeIntrospectionStats() (*introspectionStats, error) {
	value, _, err := introspectionStatsPool.LoadOrNew(introspectionStatsKey, func() (caddy.Destructor, error) {
		s := &introspectionStats{
			requests: prometheus.NewCounterVec(prometheus.CounterOpts{
				Name: metricsPrefix + "introspection_endpoint_requests_total",
				Help: "Requests to token_introspection, by result.",
			}, []string{"result"}),
			failedOpen: prometheus.NewCounter(prometheus.CounterOpts{
				Name: metricsPrefix + "introspection_endpoint_failed_open_total",
				Help: "Tokens that token_introspection called active while this edge was stale or incomplete, by its policy.",
			}),
		}
		for _, result := range oauth.IntrospectionResults {
			s.requests.WithLabelValues(string(result))
		}
		return s, nil
	})
	if err != nil {
		return nil, err
	}
	return value.(*introspectionStats), nil
}

func releaseIntrospectionStats() error {
	_, err := introspectionStatsPool.Delete(introspectionStatsKey)
	return err
}

// Destruct has nothing to stop.
func (*introspectionStats) Destruct() error { return nil }

// register adds the collectors to a config's registry.
func (s *introspectionStats) register(registry *prometheus.Registry) error {
	for _, c := range []prometheus.Collector{s.requests, s.failedOpen} {
		err := registry.Register(c)
		var already prometheus.AlreadyRegisteredError
		if err != nil && !errors.As(err, &already) {
			return err
		}
	}
	return nil
}
