package caddymodule

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/ledger"
)

const metricsPrefix = "caddy_token_revocation_"

// metrics are what the module counts. They belong to the replica, not to a
// config: Caddy makes a new registry for each config, in which the same
// collectors are registered again, so that no counter restarts with a reload.
type metrics struct {
	checks      *checkCounters
	monitored   *checkCounters // of routes that only monitor
	duration    prometheus.Histogram
	endpoint    *prometheus.CounterVec
	publish     *prometheus.HistogramVec
	propagation prometheus.Histogram
	alarms      prometheus.Counter
	collectors  []prometheus.Collector
}

func newMetrics(r *replica) *metrics {
	m := &metrics{
		checks:    newCheckCounters("checks_total", "Requests seen by token_denylist, by result."),
		monitored: newCheckCounters("monitored_checks_total", "Requests seen by token_denylist where it only monitors, by what would have become of them."),
		endpoint: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: metricsPrefix + "endpoint_requests_total",
			Help: "Requests to the revocation endpoint, by result.",
		}, []string{"result"}),
		propagation: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    metricsPrefix + "propagation_seconds",
			Help:    "From a decision until it was in force on this edge, by the clocks of the decider and of this machine.",
			Buckets: []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 5, 60},
		}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    metricsPrefix + "check_seconds",
			Help:    "Time to decide about a token, of one in sixteen requests.",
			Buckets: []float64{2.5e-7, 5e-7, 1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 5e-4, 1e-3, 1e-2},
		}),
		publish: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    metricsPrefix + "publish_seconds",
			Help:    "Until the ledger acknowledged a decision, retries included, or it was given up.",
			Buckets: []float64{.0002, .0005, .001, .002, .005, .01, .02, .05, .1, .5, 1, 2, 5},
		}, []string{"result"}),
		alarms: prometheus.NewCounter(prometheus.CounterOpts{
			Name: metricsPrefix + "ledger_alarms_total",
			Help: "Times that the ledger was found to be another one, rolled back, or to hold what can't be read.",
		}),
	}
	m.collectors = []prometheus.Collector{
		m.checks.vec, m.monitored.vec, m.duration, m.endpoint, m.publish, m.propagation, m.alarms, &stateCollector{replica: r},
	}
	return m
}

// published observes one decision that was sent to the ledger.
func (m *metrics) published(_ ledger.Kind, took time.Duration, err error) {
	result := "acknowledged"
	switch {
	case errors.Is(err, revocation.ErrFull):
		result = "full"
	case err != nil:
		result = "unavailable"
	}
	m.publish.WithLabelValues(result).Observe(took.Seconds())
}

// register adds the collectors to a config's registry.
func (m *metrics) register(registry *prometheus.Registry) error {
	for _, c := range m.collectors {
		err := registry.Register(c)
		var already prometheus.AlreadyRegisteredError
		if err != nil && !errors.As(err, &already) {
			return err
		}
	}
	return nil
}

// stateCollector reads the replica's state when metrics are scraped.
type stateCollector struct{ replica *replica }

func gauge(name, help string) *prometheus.Desc {
	return prometheus.NewDesc(metricsPrefix+name, help, nil, nil)
}

var (
	descInSync     = gauge("in_sync", "1 if this edge has a fresh proof that it has applied everything in the ledger.")
	descIncomplete = gauge("incomplete", "1 if the ledger holds an entry that this edge can't hold or read.")
	descAge        = gauge("ledger_age_seconds", "Time since the newest proof of contact with the ledger; -1 before the first.")
	descSequence   = gauge("ledger_sequence", "The last entry of the ledger that was applied.")
	descLag        = gauge("ledger_lag_messages", "Entries known to be in the ledger that are not applied yet.")
	descEntries    = gauge("denylist_entries", "Revocations in memory.")
	descMax        = gauge("denylist_max_entries", "Revocations that can be held at most.")
	descBytes      = gauge("denylist_bytes", "Memory of the index.")
	descCacheBytes = gauge("identity_cache_bytes", "Cost of the tokens in the cache.")
	descCacheHits  = gauge("identity_cache_hits_total", "Tokens that were found in the cache.")
	descCacheMiss  = gauge("identity_cache_misses_total", "Tokens that had to be read.")
	descInserted   = gauge("denylist_inserted_total", "Revocations put into the index.")
	descMerged     = gauge("denylist_merged_total", "Revocations merged with an entry for the same criteria.")
	descExpired    = gauge("denylist_expired_total", "Revocations purged after their end.")
	descCapHits    = gauge("denylist_cap_hits_total", "Revocations that could not be held.")
	descMissing    = gauge("denylist_missing", "Revocations known not to be held.")
	descRestored   = gauge("denylist_restored_total", "Revocations undone.")
	descCacheDrops = gauge("identity_cache_drops_total", "Tokens that the cache did not take.")
	descReconnects = gauge("ledger_reconnects_total", "Times that the connection to NATS was made anew.")
	descUnreadable = gauge("ledger_unreadable", "Messages in the ledger that could not be read, since following it began.")
	descShortLived = gauge("ledger_short_lived", "Messages that the ledger forgets before their entries end, since following it began.")
)

// Describe implements prometheus.Collector.
func (c *stateCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descInSync, descIncomplete, descAge, descSequence, descLag, descEntries, descMax, descBytes,
		descCacheBytes, descCacheHits, descCacheMiss, descInserted, descMerged, descExpired, descCapHits,
		descMissing, descRestored, descCacheDrops, descReconnects, descUnreadable, descShortLived,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *stateCollector) Collect(ch chan<- prometheus.Metric) {
	set := func(d *prometheus.Desc, kind prometheus.ValueType, value float64) {
		ch <- prometheus.MustNewConstMetric(d, kind, value)
	}
	state := c.replica.state()
	stats := c.replica.denylist.Stats()
	_, _, incomplete := c.replica.denylist.Incomplete(time.Now())
	age := -1.0
	if state.EverSynced {
		age = state.Age.Seconds()
	}
	set(descInSync, prometheus.GaugeValue, number(state.InSync))
	set(descIncomplete, prometheus.GaugeValue, number(incomplete))
	set(descAge, prometheus.GaugeValue, age)
	set(descSequence, prometheus.GaugeValue, float64(c.replica.denylist.Position().Sequence))
	set(descLag, prometheus.GaugeValue, float64(state.Lag))
	set(descEntries, prometheus.GaugeValue, float64(stats.Entries))
	set(descMax, prometheus.GaugeValue, float64(stats.MaxEntries))
	set(descBytes, prometheus.GaugeValue, float64(stats.Bytes))
	set(descCacheBytes, prometheus.GaugeValue, float64(stats.CacheBytes))
	set(descCacheHits, prometheus.CounterValue, float64(stats.CacheHits))
	set(descCacheMiss, prometheus.CounterValue, float64(stats.CacheMisses))
	set(descInserted, prometheus.CounterValue, float64(stats.Inserted))
	set(descMerged, prometheus.CounterValue, float64(stats.Merged))
	set(descExpired, prometheus.CounterValue, float64(stats.Expired))
	set(descCapHits, prometheus.CounterValue, float64(stats.CapHits+stats.ShapeHits))
	set(descMissing, prometheus.GaugeValue, float64(stats.Missing))
	set(descRestored, prometheus.CounterValue, float64(stats.Restored))
	set(descCacheDrops, prometheus.CounterValue, float64(stats.CacheDrops))
	if f := c.replica.following.Load().follower; f != nil {
		stats := f.Stats()
		set(descUnreadable, prometheus.GaugeValue, float64(stats.Poison+stats.Newer))
		set(descShortLived, prometheus.GaugeValue, float64(stats.ShortLived))
	}
	if s := c.replica.source(); s != nil {
		set(descReconnects, prometheus.CounterValue, float64(s.ledger.Status().Reconnects))
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
